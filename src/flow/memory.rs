//! The flow store of the raw engine: tables in memory.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use super::{
    FiveTuple, FlowInfo, FlowState, Moment, TableLimits, Usage,
    dsr::{DsrCache, Entry},
    handshake::Seen,
    key::Key,
    quota::Quota,
    returns::{ReturnHops, ReturnOrigin, ReturnPath},
    segment::{Segment, SegmentKind, Side},
    services::{FlowTarget, Services},
    shares::ShareLimit,
    store::{
        Admission, Beginning, DsrEntry, FlowEntry, FlowStore, NatEntry, NewFlow, Observed, Visit, Visitor,
    },
    table::{NatFlow, NatTable},
};
use crate::{
    balance::hash::SplitMix64,
    base::{AccessReason, ClientAddr, Endpoint, Handshake, IpServerAddr, ListenAddr, PacketReason},
};

/// The tables of passthrough and DSR flows, and the room that they share.
#[derive(Debug)]
pub struct MemoryStore {
    room: Quota,
    nat: NatTable,
    dsr: DsrCache,
}

impl MemoryStore {
    /// Empty tables. They grow with what they hold.
    pub fn new(limits: &TableLimits, seeds: &mut SplitMix64) -> Self {
        let room = Quota::new(limits.max_flows.get());
        Self {
            nat: NatTable::new(room.max(), seeds.next_u64()),
            dsr: DsrCache::new(room.dsr_limit(), seeds.next_u64()),
            room,
        }
    }

    /// Checks what must be true of the tables while nobody changes them.
    #[cfg(any(test, fuzzing))]
    pub fn check_invariants(&self) {
        self.nat.check_invariants(&self.room);
        self.dsr.check_invariants(&self.room);
    }

    /// What clients hold of the servers' NAT ports.
    #[cfg(any(test, fuzzing))]
    pub const fn shares(&self) -> &super::shares::PortShares {
        self.nat.shares()
    }
}

impl FlowStore for MemoryStore {
    type Nat = NatFlow;
    type Dsr = Entry;

    fn visit_nat<R>(
        &self,
        key: &Key,
        visitor: Visitor,
        look: impl FnOnce(&mut NatFlow) -> Visit<R>,
    ) -> Option<R> {
        self.nat.visit(&self.room, key, visitor, look)
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
        (self.nat).open(&self.room, beginning, reverse_keys, |reverse| {
            NatFlow::new(beginning, flow, origin, reverse)
        })
    }

    fn count_nat(&self, flow: &mut NatFlow, client: IpAddr, now: Moment) -> Result<(), AccessReason> {
        self.nat.count(flow, client, now)
    }

    fn follow_client(&self, flow: &mut NatFlow, origin: ReturnOrigin, client: IpAddr) {
        self.nat.follow_client(flow, origin, client);
    }

    fn is_share_full(&self, limit: &ShareLimit, towards: &Key, client: IpAddr) -> bool {
        self.nat.shares().is_full(limit, towards, client)
    }

    fn has_nat(&self) -> bool {
        self.room.nat() > 0
    }

    fn visit_dsr<R>(
        &self,
        key: &Key,
        visitor: Visitor,
        look: impl FnOnce(&mut Entry) -> Visit<R>,
    ) -> Option<R> {
        self.dsr.visit(&self.room, key, visitor, look)
    }

    fn remember_dsr(&self, beginning: &Beginning, flow: NewFlow, admission: Admission) {
        let visitor = Visitor {
            now: beginning.now,
            worker: beginning.worker,
        };
        (self.dsr).insert(&self.room, Entry::new(beginning, flow, admission), visitor);
    }

    fn has_dsr(&self) -> bool {
        self.room.dsr() > 0
    }

    fn returns(&self) -> &ReturnHops {
        self.nat.returns()
    }

    fn parts(&self) -> usize {
        self.nat.shards() + self.dsr.shards()
    }

    fn sweep(&self, part: usize, visitor: Visitor) -> usize {
        match part.checked_sub(self.nat.shards()) {
            None => self.nat.sweep(part, &self.room, visitor),
            Some(part) => self.dsr.sweep(part, &self.room, visitor),
        }
    }

    fn usage(&self) -> Usage {
        Usage {
            nat_flows: u64::from(self.room.nat()),
            half_open: u64::from(self.room.half_open()),
            dsr_flows: u64::from(self.room.dsr()),
            max_flows: u64::from(self.room.max()),
            fragments_waiting: 0,
            gave_way: self.nat.gave_way(),
        }
    }

    fn for_each_nat(&self, now: Moment, see: &mut dyn FnMut(&Key, &NatFlow)) {
        self.nat.for_each(now, see);
    }

    fn for_each_dsr(&self, now: Moment, see: &mut dyn FnMut(&Key, &Entry)) {
        self.dsr.for_each(now, |entry| see(&entry.key, entry));
    }

    fn in_use(&self, now: Moment) -> BTreeSet<(Endpoint, IpServerAddr)> {
        let mut used = BTreeSet::new();
        self.nat.for_each(now, |key, flow| {
            used.insert((tuple(key).endpoint(), IpServerAddr::new(flow.server())));
        });
        self.dsr.for_each(now, |entry| {
            let server = entry.target.at(entry.key.to());
            used.insert((tuple(&entry.key).endpoint(), IpServerAddr::new(server)));
        });
        used
    }

    fn count(&self, now: Moment, wanted: &dyn Fn(&FiveTuple) -> bool) -> u64 {
        let is_open = |state| !matches!(state, FlowState::Closing | FlowState::Refused);
        let mut count = 0;
        self.nat.for_each(now, |key, flow| {
            count += u64::from(is_open(flow.life.state()) && wanted(&tuple(key)));
        });
        self.dsr.for_each(now, |entry| {
            count += u64::from(is_open(entry.life.state()) && wanted(&tuple(&entry.key)));
        });
        count
    }

    fn find(&self, key: &Key, now: Moment) -> Option<(FlowInfo, Arc<FlowTarget>)> {
        self.nat
            .peek(key, now, |flow| (flow.info(key, now), flow.target.clone()))
            .or_else(|| {
                self.dsr
                    .peek(key, now, |entry| (entry.info(key, now), entry.target.clone()))
            })
    }
}

impl FlowEntry for NatFlow {
    fn target(&self) -> &Arc<FlowTarget> {
        &self.target
    }

    fn renew(&mut self, key: &Key, services: &Services) {
        services.renew_target(key, &mut self.target, &mut self.generation);
    }

    fn can_reopen(&self) -> bool {
        self.life.can_reopen()
    }

    fn info(&self, key: &Key, now: Moment) -> FlowInfo {
        FlowInfo {
            tuple: tuple(key),
            frontend: self.target.frontend.clone(),
            server: self.target.server.clone(),
            server_addr: IpServerAddr::new(self.server()),
            nat: Some(self.nat()),
            state: self.life.state(),
            idle: between(self.seen, now),
            expires_in: between(now, self.expires()),
        }
    }
}

impl NatEntry for NatFlow {
    fn reverse(&self) -> &Key {
        &self.reverse
    }

    fn back(&self) -> &ReturnPath {
        &self.back
    }

    fn observe(&mut self, side: Side, segment: &Segment, now: Moment) -> Observed {
        Self::observe(self, side, segment, now)
    }

    fn proves_path(&self, segment: &Segment) -> bool {
        Self::proves_path(self, segment)
    }

    fn is_under_way(&self, side: Side, sequence: u32) -> bool {
        self.numbers.is_under_way(side, sequence)
    }

    fn allows_error(&mut self, now: Moment) -> bool {
        self.errors.allows(now)
    }
}

impl FlowEntry for Entry {
    fn target(&self) -> &Arc<FlowTarget> {
        &self.target
    }

    fn renew(&mut self, key: &Key, services: &Services) {
        services.renew_target(key, &mut self.target, &mut self.generation);
    }

    fn can_reopen(&self) -> bool {
        self.life.can_reopen() || matches!(self.admission, Admission::UnderWay)
    }

    fn info(&self, key: &Key, now: Moment) -> FlowInfo {
        FlowInfo {
            tuple: tuple(key),
            frontend: self.target.frontend.clone(),
            server: self.target.server.clone(),
            server_addr: IpServerAddr::new(self.target.at(key.to())),
            nat: None,
            state: self.life.state(),
            idle: between(self.seen, now),
            expires_in: between(now, self.expires()),
        }
    }
}

impl DsrEntry for Entry {
    fn observe(&mut self, kind: SegmentKind, now: Moment) -> Option<Handshake> {
        self.life = self.life.seen_one_sided(kind);
        self.seen = self.seen.max(now);
        (self.handshake).client_sent(Seen::ClientSide, kind, self.life, now)
    }
}

fn tuple(key: &Key) -> FiveTuple {
    FiveTuple {
        protocol: key.protocol(),
        client: ClientAddr(key.from()),
        vip: ListenAddr::new(key.to()),
    }
}

fn between(from: Moment, to: Moment) -> Duration {
    Duration::from_millis(to.0.saturating_sub(from.0))
}
