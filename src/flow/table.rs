//! The table of passthrough flows.
//!
//! Two entries a flow, each in a shard of its own kind, and never two of their locks at once:
//!
//! ```text
//! forward  {client, VIP, protocol}             ─► NatFlow (server, NAT port, life, numbers, way back to the client)
//! reverse  {server addr:port, NAT addr:port, protocol} ─► the forward key
//! ```
//!
//! Inserting the reverse entry where there is none *is* the claim of the NAT port. A flow is made reverse entry first
//! and unmade forward entry first, so that a forward entry always has its reverse one; who removes the forward entry,
//! and nobody else, removes the reverse one, so that no port is freed that a live flow holds.
//!
//! What gives way to a new flow, among the NAT ports that it tries: see `yielding`. Never an established flow.

mod claiming;
mod opening;
mod yielding;

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use super::{
    Moment,
    handshake::{HandshakeWatch, Seen},
    key::Key,
    key::Seeded,
    numbers::Numbers,
    quota::Quota,
    returns::{ReturnHops, ReturnOrigin, ReturnPath},
    segment::{Segment, Side},
    services::FlowTarget,
    shares::PortShares,
    store::{Beginning, NewFlow, Observed, Visit, Visitor},
    tcp_state::TcpState,
};
use crate::{
    access::{Network, Permit},
    base::{AccessReason, WorkerId},
};

pub use claiming::{Claims, Held, claim};
pub use yielding::{Yield, rank};

/// Flows that a shard is meant for: small enough that growing it holds its lock for well under a millisecond.
const FLOWS_A_SHARD: u32 = 4_096;
/// ICMP errors about one flow that are passed on in a second.
const ERRORS_A_SECOND: u8 = 8;
/// Slots that an emptied shard may keep.
const SPARE: usize = 256;

/// One passthrough flow.
#[derive(Debug)]
pub struct NatFlow {
    pub target: Arc<FlowTarget>,
    /// Where its replies come from and go to: server and NAT address.
    pub reverse: Key,
    pub life: TcpState,
    pub numbers: Numbers,
    /// When the last packet came that makes it last longer.
    pub seen: Moment,
    /// Generation of the services that `target` has been compared with.
    pub generation: u64,
    pub back: ReturnPath,
    pub handshake: HandshakeWatch,
    pub errors: ErrorAllowance,
    /// Whose share its NAT port is part of.
    pub share: Option<Network>,
    /// That it counts for its client, where that has limits. Boxed, because it seldom has.
    pub permit: Option<Box<Permit>>,
}

/// The ICMP errors about a flow that are still passed on: anybody may send some that fit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ErrorAllowance {
    second: u64,
    passed: u8,
}

/// The table.
#[derive(Debug)]
pub(super) struct NatTable {
    seeded: Seeded,
    forward: Box<[ShardLock<Forward>]>,
    reverse: Box<[ShardLock<HashMap<Key, Key, Seeded>>]>,
    returns: ReturnHops,
    shares: PortShares,
    gave_way: AtomicU64,
}

/// A shard, aligned to two cache lines so that no two locks share one.
#[derive(Debug)]
#[repr(align(128))]
struct ShardLock<T>(Mutex<T>);

#[derive(Debug)]
struct Forward {
    flows: HashMap<Key, NatFlow, Seeded>,
    half_open: u32,
}

impl<T> ShardLock<T> {
    fn lock(&self) -> MutexGuard<'_, T> {
        // a thread that panicked holds no half-made change: entries are inserted and removed whole
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl NatFlow {
    /// A flow that begins, with its NAT port.
    pub fn new(beginning: &Beginning, flow: NewFlow, origin: ReturnOrigin, reverse: Key) -> Self {
        Self {
            target: flow.target,
            reverse,
            life: TcpState::first(beginning.segment.kind),
            numbers: Numbers::new(&beginning.segment),
            seen: beginning.now,
            generation: flow.generation,
            back: ReturnPath::unfollowed(origin),
            handshake: HandshakeWatch::new(beginning.segment.kind, beginning.now),
            errors: ErrorAllowance::default(),
            share: None,
            permit: None,
        }
    }

    /// When it is forgotten if nothing comes.
    pub fn expires(&self) -> Moment {
        self.seen.after(self.target.lifetime(self.life))
    }

    /// Takes a packet of a side in.
    pub fn observe(&mut self, side: Side, segment: &Segment, now: Moment) -> Observed {
        let before = self.life;
        self.life = before.seen(side, segment, &mut self.numbers);
        if self.life.can_reopen() && !before.can_reopen() {
            // its port is another's as soon as one is wanted
            self.target.release_port();
        }
        if self.life != before || before.is_prolonged_by(side) {
            self.seen = self.seen.max(now);
        }
        let handshake = (side == Side::Client)
            .then(|| (self.handshake).client_sent(Seen::BothSides, segment.kind, self.life, now))
            .flatten();
        Observed {
            is_proven: before.is_unproven() && !self.life.is_unproven(),
            handshake,
        }
    }

    /// Whether a client's segment proves that its sender is on the path: then it may move the way back.
    pub fn proves_path(&self, segment: &Segment) -> bool {
        matches!(
            self.life,
            TcpState::Answered | TcpState::Established | TcpState::HalfClosed(_)
        ) && self.numbers.proves_path(Side::Client, segment)
    }

    /// The server's end.
    pub fn server(&self) -> SocketAddr {
        self.reverse.from()
    }

    /// Our end towards the server.
    pub fn nat(&self) -> SocketAddr {
        self.reverse.to()
    }
}

impl ErrorAllowance {
    /// Whether one more is passed on.
    pub fn allows(&mut self, now: Moment) -> bool {
        let second = now.0 / 1_000;
        if self.second != second {
            *self = Self { second, passed: 0 };
        }
        self.passed = self.passed.saturating_add(1);
        self.passed <= ERRORS_A_SECOND
    }
}

impl Forward {
    fn remove(&mut self, key: &Key) -> Option<NatFlow> {
        let flow = self.flows.remove(key)?;
        self.half_open -= u32::from(flow.life.is_half_open());
        Some(flow)
    }

    /// What must be true of a shard between two changes. Shards that are large are not looked through.
    fn check(&self) {
        if cfg!(debug_assertions) && self.flows.len() <= 64 {
            let half_open = self.flows.values().filter(|f| f.life.is_half_open()).count();
            assert_eq!(self.half_open as usize, half_open, "half-open flows of a shard");
            for (key, flow) in &self.flows {
                assert_eq!(key.protocol(), flow.reverse.protocol());
                assert_eq!(key.from().is_ipv4(), flow.nat().is_ipv4());
            }
        }
    }
}

impl NatTable {
    pub fn new(max_flows: u32, seed: u64) -> Self {
        let shards = (max_flows / FLOWS_A_SHARD).next_power_of_two().clamp(64, 4_096);
        let seeded = Seeded::new(seed);
        Self {
            seeded,
            forward: (0..shards)
                .map(|_| {
                    ShardLock(Mutex::new(Forward {
                        flows: HashMap::with_hasher(seeded),
                        half_open: 0,
                    }))
                })
                .collect(),
            reverse: (0..shards)
                .map(|_| ShardLock(Mutex::new(HashMap::with_hasher(seeded))))
                .collect(),
            returns: ReturnHops::default(),
            shares: PortShares::new(seed),
            gave_way: AtomicU64::new(0),
        }
    }

    /// The ways back to clients.
    pub const fn returns(&self) -> &ReturnHops {
        &self.returns
    }

    /// What clients hold of the servers' NAT ports.
    pub const fn shares(&self) -> &PortShares {
        &self.shares
    }

    /// Flows that have given way to new ones, so far.
    pub fn gave_way(&self) -> u64 {
        self.gave_way.load(Relaxed)
    }

    /// Shards that [`sweep`](Self::sweep) knows, from 0.
    pub fn shards(&self) -> usize {
        self.forward.len()
    }

    fn forward(&self, key: &Key) -> Option<MutexGuard<'_, Forward>> {
        let line = self.forward.get(self.seeded.part(key, self.forward.len()))?;
        Some(line.lock())
    }

    fn reverse(&self, key: &Key) -> Option<MutexGuard<'_, HashMap<Key, Key, Seeded>>> {
        let line = self.reverse.get(self.seeded.part(key, self.reverse.len()))?;
        Some(line.lock())
    }

    /// Looks at a live flow under its lock, and ends it if `look` says so; `None` if there is none. One that has
    /// expired is forgotten.
    pub fn visit<R>(
        &self,
        room: &Quota,
        key: &Key,
        visitor: Visitor,
        look: impl FnOnce(&mut NatFlow) -> Visit<R>,
    ) -> Option<R> {
        let mut shard = self.forward(key)?;
        let flow = shard.flows.get_mut(key)?;
        let step = if flow.expires() <= visitor.now {
            Visit::Remove(None)
        } else {
            let was_half_open = flow.life.is_half_open();
            let step = look(flow);
            if flow.life.can_reopen() {
                self.uncount(flow);
                flow.permit = None;
            }
            if was_half_open && !flow.life.is_half_open() {
                shard.half_open -= 1;
                room.established();
            }
            match step {
                Visit::Keep(result) => Visit::Keep(Some(result)),
                Visit::Remove(result) => Visit::Remove(Some(result)),
            }
        };
        match step {
            Visit::Keep(result) => {
                shard.check();
                result
            }
            Visit::Remove(result) => {
                let ended = shard.remove(key);
                shard.check();
                drop(shard);
                if let Some(flow) = ended {
                    self.forget(room, flow, visitor.worker);
                }
                result
            }
        }
    }

    /// Counts a flow for its client, which has proven to be who it says, until it is over.
    ///
    /// # Errors
    /// The client is at a limit: the flow must end.
    pub fn count(&self, flow: &mut NatFlow, client: IpAddr, now: Moment) -> Result<(), AccessReason> {
        if let Some(limit) = flow.target.share() {
            let taken = self.shares.take(limit, &flow.reverse, client);
            flow.share = Some(taken.ok_or(AccessReason::ClientPorts)?);
        }
        if let Some(access) = flow.target.access() {
            flow.permit = access.count(client, now.0)?.map(Box::new);
        }
        Ok(())
    }

    /// Lets the replies of a flow go to where its client sends from.
    pub fn follow_client(&self, flow: &mut NatFlow, origin: ReturnOrigin, client: IpAddr) {
        self.returns.leave(&flow.back);
        flow.back = self.returns.enter(origin, client);
    }

    /// The NAT port of a flow is nobody's share any more.
    fn uncount(&self, flow: &mut NatFlow) {
        if let Some(network) = flow.share.take() {
            self.shares.give(&flow.reverse, network);
        }
    }

    /// What is left to do for a flow whose forward entry the caller has removed.
    fn forget(&self, room: &Quota, mut flow: NatFlow, worker: WorkerId) {
        self.uncount(&mut flow);
        if let Some(mut reverse) = self.reverse(&flow.reverse) {
            reverse.remove(&flow.reverse);
        }
        self.returns.leave(&flow.back);
        room.give_nat(flow.life.is_half_open());
        if !flow.life.can_reopen() {
            flow.target.release_port();
        }
        if let Some(handshake) = flow.handshake.forgotten(Seen::BothSides, flow.life) {
            flow.target.count_handshake(worker, handshake);
        }
        flow.target.count_closed(worker);
    }

    /// Claims a NAT address and port towards a server for a flow, if nobody holds it.
    fn claim(&self, reverse: &Key, key: Key) -> bool {
        let Some(mut shard) = self.reverse(reverse) else {
            return false;
        };
        // looked up first, because `entry` may grow the table even where it finds a holder
        if shard.contains_key(reverse) {
            return false;
        }
        shard.insert(*reverse, key);
        true
    }

    /// Inserts a flow if there is none of its key.
    fn insert(&self, key: Key, flow: NatFlow) -> bool {
        let Some(mut shard) = self.forward(&key) else {
            return false;
        };
        if shard.flows.contains_key(&key) {
            return false;
        }
        shard.half_open += 1;
        shard.flows.insert(key, flow);
        shard.check();
        true
    }

    /// The flow (its forward key) that a packet from a server to a NAT address belongs to.
    pub fn holder(&self, reverse: &Key) -> Option<Key> {
        self.reverse(reverse)?.get(reverse).copied()
    }

    /// Forgets what has expired in one shard, and gives back memory. Returns the number of flows looked at.
    pub fn sweep(&self, index: usize, room: &Quota, visitor: Visitor) -> usize {
        let mut looked_at = 0;
        if let Some(line) = self.forward.get(index) {
            let mut shard = line.lock();
            looked_at = shard.flows.len();
            let ended: Vec<NatFlow> = (shard.flows)
                .extract_if(|_, flow| flow.expires() <= visitor.now)
                .map(|(_, flow)| flow)
                .collect();
            let half_open = ended.iter().filter(|flow| flow.life.is_half_open()).count();
            shard.half_open -= u32::try_from(half_open).unwrap_or(u32::MAX);
            shrink(&mut shard.flows);
            shard.check();
            drop(shard);
            for flow in ended {
                self.forget(room, flow, visitor.worker);
            }
        }
        if let Some(line) = self.reverse.get(index) {
            shrink(&mut line.lock());
        }
        looked_at
    }

    /// Looks at a live flow without changing anything.
    pub fn peek<R>(&self, key: &Key, now: Moment, look: impl FnOnce(&NatFlow) -> R) -> Option<R> {
        let shard = self.forward(key)?;
        shard.flows.get(key).filter(|flow| flow.expires() > now).map(look)
    }

    /// Calls for every live flow, shard by shard.
    pub fn for_each(&self, now: Moment, mut see: impl FnMut(&Key, &NatFlow)) {
        for line in &self.forward {
            let shard = line.lock();
            for (key, flow) in shard.flows.iter().filter(|(_, flow)| flow.expires() > now) {
                see(key, flow);
            }
        }
    }
}

/// Gives memory back when a flood has gone.
fn shrink<V>(map: &mut HashMap<Key, V, Seeded>) {
    if map.capacity() > SPARE && map.len() < map.capacity() / 8 {
        map.shrink_to(map.len() * 2);
    }
}

#[cfg(any(test, fuzzing))]
impl NatTable {
    /// Checks what must be true of the whole table while nobody changes it.
    pub fn check_invariants(&self, room: &Quota) {
        let (mut flows, mut half_open, mut claims) = (0, 0, 0);
        for line in &self.forward {
            let forward: Vec<_> = {
                let shard = line.lock();
                half_open += shard.half_open;
                shard
                    .flows
                    .iter()
                    .map(|(key, flow)| (*key, flow.reverse))
                    .collect()
            };
            for (key, reverse) in forward {
                flows += 1;
                assert_eq!(self.holder(&reverse), Some(key), "a flow without its NAT port");
            }
        }
        for line in &self.reverse {
            claims += line.lock().len();
        }
        assert_eq!(flows, claims, "a NAT port that no flow holds");
        assert_eq!(flows, room.nat() as usize);
        let followed: usize = (self.forward.iter())
            .map(|line| {
                line.lock()
                    .flows
                    .values()
                    .filter(|f| f.back.number.is_some())
                    .count()
            })
            .sum();
        assert_eq!(followed, self.returns.flows(), "flows of return hops");
        let counted: usize = (self.forward.iter())
            .map(|line| {
                let shard = line.lock();
                let counted = shard.flows.values().filter(|flow| flow.share.is_some());
                counted
                    .inspect(|flow| assert!(!flow.life.can_reopen(), "over, and counted still"))
                    .count()
            })
            .sum();
        assert_eq!(counted, self.shares.held(), "ports that clients hold");
        assert_eq!(half_open, room.half_open());
        assert!(room.nat() + room.dsr() <= room.max());
        assert!(room.half_open() <= room.half_open_limit());
    }
}
