//! The flow store of the xdp engine: DSR flows are in the program's map, and what the program leaves to the slow path alone is
//! in memory: passthrough flows, and DSR flows of frontends with access rules or limits.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::{Arc, atomic::Ordering},
};

use super::flow_map::FlowMap;
use crate::{
    balance::hash::SplitMix64,
    base::{AccessReason, Endpoint, IpServerAddr, PacketReason},
    flow::{
        FiveTuple, FlowInfo, FlowState, FlowStore, FlowTarget, Flows, MemoryStore, Moment, TableLimits,
        Usage,
        stored::{
            Admission, Beginning, DsrEntry, FlowEntry, Key, NewFlow, PortShares, ReturnHops, ReturnOrigin,
            Visit, Visitor,
        },
    },
};

/// See the [module](self).
#[derive(Debug)]
pub struct XdpStore {
    memory: MemoryStore,
    map: Arc<FlowMap>,
}

impl XdpStore {
    /// Flows in the map, and what is not for it in memory, within limits.
    #[must_use]
    pub fn flows(limits: &TableLimits, map: Arc<FlowMap>) -> Flows<Self> {
        let mut seeds = SplitMix64::new(limits.hash_seed);
        let memory = MemoryStore::new(limits, &mut seeds);
        Flows::with(Self { memory, map }, limits.workers, seeds.next_u64())
    }

    /// What is not in memory.
    #[must_use]
    pub const fn map(&self) -> &Arc<FlowMap> {
        &self.map
    }

    /// Whether the slow path has flows of mode passthrough, and of mode dsr, for itself.
    #[must_use]
    pub fn has_in_memory(&self) -> (bool, bool) {
        (self.memory.has_nat(), self.memory.has_dsr())
    }
}

impl FlowStore for XdpStore {
    type Nat = <MemoryStore as FlowStore>::Nat;
    type Dsr = dyn DsrEntry;

    fn visit_nat<R>(
        &self,
        key: &Key,
        visitor: Visitor,
        look: impl FnOnce(&mut Self::Nat) -> Visit<R>,
    ) -> Option<R> {
        self.memory.visit_nat(key, visitor, look)
    }

    fn nat_holder(&self, reverse: &Key) -> Option<Key> {
        self.memory.nat_holder(reverse)
    }

    fn open_nat(
        &self,
        beginning: &Beginning,
        flow: NewFlow,
        origin: ReturnOrigin,
        reverse_keys: &(impl Iterator<Item = Key> + Clone),
    ) -> Result<Option<SocketAddr>, PacketReason> {
        self.memory.open_nat(beginning, flow, origin, reverse_keys)
    }

    fn count_nat(&self, flow: &mut Self::Nat, client: IpAddr, now: Moment) -> Result<(), AccessReason> {
        self.memory.count_nat(flow, client, now)
    }

    fn shares(&self) -> &PortShares {
        self.memory.shares()
    }

    fn has_nat(&self) -> bool {
        self.memory.has_nat()
    }

    fn visit_dsr<R>(
        &self,
        key: &Key,
        visitor: Visitor,
        look: impl FnOnce(&mut Self::Dsr) -> Visit<R>,
    ) -> Option<R> {
        let mut look = Some(look);
        let in_memory = self.memory.visit_dsr(key, visitor, |entry| match look.take() {
            Some(look) => look(entry).map(Some),
            None => Visit::Keep(None),
        });
        if let Some(result) = in_memory {
            return result;
        }
        let mut entry = self.map.find(key)?;
        if entry.expires() <= visitor.now {
            self.map.forget(&entry, visitor.worker);
            return None;
        }
        match look.take()?(&mut entry) {
            Visit::Keep(result) => Some(result),
            Visit::Remove(result) => {
                self.map.forget(&entry, visitor.worker);
                Some(result)
            }
        }
    }

    fn remember_dsr(&self, beginning: &Beginning, flow: NewFlow, admission: Admission) {
        if flow.target.access().is_some() || !self.map.insert(beginning, &flow.target) {
            self.memory.remember_dsr(beginning, flow, admission);
        }
    }

    fn has_dsr(&self) -> bool {
        self.memory.has_dsr() || self.map.may_have_flows.load(Ordering::Relaxed)
    }

    fn returns(&self) -> &ReturnHops {
        self.memory.returns()
    }

    fn parts(&self) -> usize {
        self.memory.parts()
    }

    fn sweep(&self, part: usize, visitor: Visitor) -> usize {
        self.memory.sweep(part, visitor)
    }

    fn usage(&self) -> Usage {
        let usage = self.memory.usage();
        Usage {
            dsr_flows: usage.dsr_flows + self.map.live.load(Ordering::Relaxed),
            ..usage
        }
    }

    fn for_each_nat(&self, now: Moment, see: &mut dyn FnMut(&Key, &Self::Nat)) {
        self.memory.for_each_nat(now, see);
    }

    fn for_each_dsr(&self, now: Moment, see: &mut dyn FnMut(&Key, &Self::Dsr)) {
        self.memory.for_each_dsr(now, &mut |key, entry| see(key, entry));
        self.map.for_each(now, &mut |key, entry| see(key, entry));
    }

    fn in_use(&self, now: Moment) -> BTreeSet<(Endpoint, IpServerAddr)> {
        let mut used = self.memory.in_use(now);
        self.map.for_each(now, &mut |_, entry| {
            used.insert((entry.tuple().endpoint(), entry.server()));
        });
        used
    }

    fn count(&self, now: Moment, wanted: &dyn Fn(&FiveTuple) -> bool) -> u64 {
        let mut count = self.memory.count(now, wanted);
        self.map.for_each(now, &mut |_, entry| {
            let is_open = !matches!(entry.life().state(), FlowState::Closing | FlowState::Refused);
            count += u64::from(is_open && wanted(&entry.tuple()));
        });
        count
    }

    fn find(&self, key: &Key, now: Moment) -> Option<(FlowInfo, Arc<FlowTarget>)> {
        self.memory.find(key, now).or_else(|| {
            let entry = self.map.find(key).filter(|entry| entry.expires() > now)?;
            Some((entry.info(key, now), Arc::clone(entry.target())))
        })
    }
}
