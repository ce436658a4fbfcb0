//! The flow store of the xdp engine: flows are in the program's maps, but for DSR flows of frontends with access rules or limits,
//! which the program leaves to the slow path alone: those are in memory.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::{Arc, atomic::Ordering},
};

use super::{
    flow_map::{FlowMap, life},
    nat_entry::NatMapEntry,
    nat_map::{FoundFlow, NatMap},
};
use crate::{
    balance::hash::SplitMix64,
    base::{AccessReason, ClientAddr, Endpoint, IpServerAddr, ListenAddr, PacketReason},
    flow::{
        FiveTuple, FlowInfo, FlowState, FlowStore, FlowTarget, Flows, MemoryStore, Moment, TableLimits,
        Usage,
        stored::{
            Admission, Beginning, DsrEntry, FlowEntry, Key, NewFlow, ReturnHops, ReturnOrigin, ShareLimit,
            TcpState, Visit, Visitor,
        },
    },
};

/// See the [module](self).
#[derive(Debug)]
pub struct XdpStore {
    /// Its table of passthrough flows stays empty.
    memory: MemoryStore,
    map: Arc<FlowMap>,
    nat: Arc<NatMap>,
    seed: u64,
}

impl XdpStore {
    /// Flows in the maps, and what is not for them in memory, within limits.
    #[must_use]
    pub fn flows(limits: &TableLimits, map: Arc<FlowMap>) -> Flows<Self> {
        let mut seeds = SplitMix64::new(limits.hash_seed);
        let store = Self {
            memory: MemoryStore::new(limits, &mut seeds),
            nat: Arc::new(NatMap::new(Arc::clone(&map), limits)),
            map,
            seed: seeds.next_u64(),
        };
        Flows::with(store, limits.workers, seeds.next_u64())
    }

    /// DSR flows that are not in memory.
    #[must_use]
    pub const fn map(&self) -> &Arc<FlowMap> {
        &self.map
    }

    /// Passthrough flows.
    pub(super) const fn nat(&self) -> &Arc<NatMap> {
        &self.nat
    }

    /// What random numbers of the program begin with.
    pub(super) const fn seed(&self) -> u64 {
        self.seed
    }

    /// Whether the slow path has flows for itself.
    #[must_use]
    pub fn has_in_memory(&self) -> bool {
        self.memory.has_dsr()
    }
}

fn tuple(key: &Key) -> FiveTuple {
    FiveTuple {
        protocol: key.protocol(),
        client: ClientAddr(key.from()),
        vip: ListenAddr::new(key.to()),
    }
}

/// Whether a flow in a state counts as open.
fn is_open(life: TcpState) -> bool {
    !matches!(life.state(), FlowState::Closing | FlowState::Refused)
}

impl FlowStore for XdpStore {
    type Nat = NatMapEntry;
    type Dsr = dyn DsrEntry;

    fn visit_nat<R>(
        &self,
        key: &Key,
        visitor: Visitor,
        look: impl FnOnce(&mut Self::Nat) -> Visit<R>,
    ) -> Option<R> {
        let mut entry = NatMapEntry::new(Arc::clone(&self.nat), self.nat.find(key)?);
        if entry.expires() <= visitor.now {
            entry.end();
            return None;
        }
        match look(&mut entry) {
            Visit::Keep(result) => Some(result),
            Visit::Remove(result) => {
                entry.end();
                Some(result)
            }
        }
    }

    fn nat_holder(&self, reverse: &Key) -> Option<Key> {
        self.nat.holder(reverse)
    }

    fn open_nat(
        &self,
        beginning: &Beginning,
        flow: NewFlow,
        origin: ReturnOrigin,
        reverse_keys: &(impl Iterator<Item = Key> + Clone),
    ) -> Result<Option<SocketAddr>, PacketReason> {
        self.nat.open(beginning, &flow, origin, reverse_keys)
    }

    fn count_nat(&self, flow: &mut Self::Nat, client: IpAddr, now: Moment) -> Result<(), AccessReason> {
        flow.count(client, now)
    }

    fn follow_client(&self, flow: &mut Self::Nat, origin: ReturnOrigin, client: IpAddr) {
        flow.follow(origin, client);
    }

    fn is_share_full(&self, limit: &ShareLimit, towards: &Key, client: IpAddr) -> bool {
        self.nat.is_share_full(limit, towards, client)
    }

    fn has_nat(&self) -> bool {
        self.nat.has_flows()
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
        &self.nat.returns
    }

    fn parts(&self) -> usize {
        self.memory.parts()
    }

    fn sweep(&self, part: usize, visitor: Visitor) -> usize {
        self.memory.sweep(part, visitor)
    }

    fn usage(&self) -> Usage {
        let usage = self.memory.usage();
        let counts = self.nat.counts();
        Usage {
            nat_flows: counts.flows(),
            half_open: counts.half_open(),
            dsr_flows: usage.dsr_flows + self.map.live.load(Ordering::Relaxed),
            gave_way: counts.gave_way(),
            ..usage
        }
    }

    fn for_each_nat(&self, now: Moment, see: &mut dyn FnMut(&Key, &Self::Nat)) {
        self.nat.for_each(&mut |key, forward| {
            let found = self.nat.join(key, forward);
            if let Some(found) = found.filter(|found| found.flow.expires() > now) {
                see(key, &NatMapEntry::new(Arc::clone(&self.nat), found));
            }
        });
    }

    fn for_each_dsr(&self, now: Moment, see: &mut dyn FnMut(&Key, &Self::Dsr)) {
        self.memory.for_each_dsr(now, &mut |key, entry| see(key, entry));
        self.map.for_each(now, &mut |key, entry| see(key, entry));
    }

    fn in_use(&self, now: Moment) -> BTreeSet<(Endpoint, IpServerAddr)> {
        let mut used = self.memory.in_use(now);
        self.nat.for_each_live(now, &mut |key, _, glimpse| {
            used.insert((tuple(key).endpoint(), IpServerAddr::new(glimpse.reverse.from())));
        });
        self.map.for_each(now, &mut |_, entry| {
            used.insert((entry.tuple().endpoint(), entry.server()));
        });
        used
    }

    fn count(&self, now: Moment, wanted: &dyn Fn(&FiveTuple) -> bool) -> u64 {
        let mut count = self.memory.count(now, wanted);
        self.nat.for_each_live(now, &mut |key, forward, _| {
            count += u64::from(is_open(life(forward.state)) && wanted(&tuple(key)));
        });
        self.map.for_each(now, &mut |_, entry| {
            count += u64::from(is_open(entry.life()) && wanted(&entry.tuple()));
        });
        count
    }

    fn find(&self, key: &Key, now: Moment) -> Option<(FlowInfo, Arc<FlowTarget>)> {
        if let Some(FoundFlow { flow, .. }) = self.nat.find(key).filter(|found| found.flow.expires() > now) {
            return Some((flow.info(key, now), flow.target));
        }
        self.memory.find(key, now).or_else(|| {
            let entry = self.map.find(key).filter(|entry| entry.expires() > now)?;
            Some((entry.info(key, now), Arc::clone(entry.target())))
        })
    }
}
