//! DSR flows in the map that the program changes: looked up, put in and taken out whole, and walked through; and what both
//! modes' flows share: maps, clock and numbers.

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{
    batch::FlowBatch,
    keys::{flow_key, path_key},
    layout::{FlowValue, StateCode, WatchCode},
    maps::{Clock, Maps},
    numbers::Numbers,
    probe,
};
use crate::{
    base::{ClientAddr, Handshake, IpServerAddr, ListenAddr, WorkerId},
    flow::{
        FiveTuple, FlowInfo, FlowTarget, Moment, Services,
        stored::{
            Beginning, DsrEntry, Ending, FlowEntry, HandshakeWatch, Key, Seen, SegmentKind, Side, TcpState,
        },
    },
    sys::bpf::{BatchCursor, Insert},
};

/// Flows that are read by one system call.
pub const BATCH: u32 = 4_096;

/// The map of DSR flows, and what its numbers mean. Shared by the threads of the slow path and the keeper.
#[derive(Debug)]
pub struct FlowMap {
    /// All maps.
    pub maps: Maps,
    /// What time it is there.
    pub clock: Clock,
    numbers: Mutex<Numbers>,
    /// DSR flows, as far as they have been counted.
    pub live: AtomicU64,
    /// Whether there may be any.
    pub may_have_flows: AtomicBool,
}

/// What the map has of a flow, and its target.
#[derive(Debug)]
pub struct MapEntry {
    map: Arc<FlowMap>,
    key: Key,
    value: FlowValue,
    target: Arc<FlowTarget>,
    generation: u64,
}

impl FlowMap {
    /// With these maps; nothing has a number yet.
    #[must_use]
    pub fn new(maps: Maps, clock: Clock) -> Self {
        Self {
            maps,
            clock,
            numbers: Mutex::default(),
            live: AtomicU64::new(0),
            may_have_flows: AtomicBool::new(false),
        }
    }

    /// The numbers of targets. A leaf: nothing is locked under it.
    pub fn numbers(&self) -> MutexGuard<'_, Numbers> {
        // nothing is left half changed by a panic
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The flow of a key, if its target is known; it may have expired.
    pub fn find(self: &Arc<Self>, key: &Key) -> Option<MapEntry> {
        if !self.may_have_flows.load(Ordering::Relaxed) {
            return None;
        }
        let mut value = [0; FlowValue::SIZE];
        match self.maps.flows.lookup(&flow_key(key).to_bytes(), &mut value) {
            Ok(true) => self.entry(*key, FlowValue::from_bytes(&value)?),
            Ok(false) => None,
            Err(error) => {
                complain("read a flow", &error);
                None
            }
        }
    }

    fn entry(self: &Arc<Self>, key: Key, value: FlowValue) -> Option<MapEntry> {
        let target = Arc::clone(&self.numbers().of_flow(value.target, value.incarnation)?.target);
        Some(MapEntry {
            map: Arc::clone(self),
            key,
            value,
            target,
            generation: 0,
        })
    }

    /// Puts a flow in, unless the program has. Whether its target has a number: else it cannot be there.
    pub fn insert(&self, beginning: &Beginning, target: &Arc<FlowTarget>) -> bool {
        let (number, incarnation) = {
            let mut numbers = self.numbers();
            let Some(number) = numbers.take(target, true) else {
                return false;
            };
            let Some(numbered) = numbers.get(number) else {
                return false;
            };
            (number, numbered.incarnation)
        };
        let kind = beginning.segment.kind;
        let now = self.clock.nanoseconds(beginning.now);
        let value = FlowValue {
            seen: now,
            begun: now,
            target: number.into(),
            incarnation,
            state: if kind == SegmentKind::Datagram {
                StateCode::Asked
            } else {
                StateCode::Syn
            },
            watch: if kind == SegmentKind::Open {
                WatchCode::Awaited
            } else {
                WatchCode::Over
            },
        };
        let key = flow_key(&beginning.key).to_bytes();
        match self.maps.flows.update(&key, &value.to_bytes(), Insert::New) {
            Ok(()) => {
                self.numbers().opened(number);
                target.count_opened(beginning.worker);
                self.live.fetch_add(1, Ordering::Relaxed);
                self.may_have_flows.store(true, Ordering::Relaxed);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            // as if there were no place for it: Maglev gives the same server again
            Err(error) => complain("remember a flow", &error),
        }
        true
    }

    /// Takes a flow out, and counts what its end says of its handshake.
    pub fn forget(&self, entry: &MapEntry, worker: WorkerId) {
        match self.maps.flows.delete(&flow_key(&entry.key).to_bytes()) {
            Ok(true) => {
                if let Some(handshake) = forgotten(&entry.value) {
                    entry.target.count_handshake(worker, handshake);
                }
            }
            Ok(false) => {}
            Err(error) => complain("forget a flow", &error),
        }
    }

    /// Reads the next flows. Whether these were the last ones.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn next(&self, cursor: &mut BatchCursor, batch: &mut FlowBatch) -> io::Result<bool> {
        batch.read(&self.maps.flows, cursor, BATCH)
    }

    /// Calls for every live flow whose target is known.
    pub fn for_each(self: &Arc<Self>, now: Moment, see: &mut dyn FnMut(&Key, &MapEntry)) {
        let (mut cursor, mut batch) = (BatchCursor::default(), FlowBatch::default());
        loop {
            let is_over = match self.next(&mut cursor, &mut batch) {
                Ok(is_over) => is_over,
                Err(error) => {
                    complain("read the flows", &error);
                    return;
                }
            };
            for (key, value) in batch.direct().filter_map(|(_, flow)| flow) {
                let key = path_key(&key);
                if let Some(entry) = self.entry(key, value).filter(|entry| entry.expires() > now) {
                    see(&key, &entry);
                }
            }
            if is_over {
                return;
            }
        }
    }
}

/// What there is to count of a handshake whose flow is forgotten.
#[must_use]
pub fn forgotten(flow: &FlowValue) -> Option<Handshake> {
    let is_awaited = flow.watch == WatchCode::Awaited;
    let watch = if is_awaited {
        HandshakeWatch::Awaited(Moment(0))
    } else {
        HandshakeWatch::Over
    };
    watch.forgotten(Seen::ClientSide, life(flow.state))
}

/// A state as the path has it.
#[must_use]
pub const fn life(state: StateCode) -> TcpState {
    match state {
        StateCode::Syn => TcpState::Syn,
        StateCode::Refused => TcpState::Refused,
        StateCode::Established => TcpState::Established,
        StateCode::Reset => TcpState::Closing(Ending::Reset),
        StateCode::Closed => TcpState::Closing(Ending::First(Side::Client)),
        StateCode::Asked => TcpState::Asked,
        StateCode::Talking => TcpState::Talking,
        StateCode::Answered => TcpState::Answered,
        StateCode::ClientHalfClosed => TcpState::HalfClosed(Side::Client),
        StateCode::ServerHalfClosed => TcpState::HalfClosed(Side::Server),
        StateCode::ServerClosed => TcpState::Closing(Ending::First(Side::Server)),
        StateCode::Replied => TcpState::Replied,
    }
}

/// Failures here cost a flow its memory and no packet its way: they are no errors for people.
pub fn complain(what: &str, error: &io::Error) {
    tracing::debug!(
        event = "xdp_map_error",
        "cannot {what} in the program's map: {error}"
    );
}

impl MapEntry {
    /// When it is forgotten if nothing comes.
    #[must_use]
    pub fn expires(&self) -> Moment {
        let seen = self.map.clock.moment(self.value.seen);
        seen.after(self.target.direct_lifetime(life(self.value.state)))
    }

    /// Its 5-tuple.
    #[must_use]
    pub fn tuple(&self) -> FiveTuple {
        FiveTuple {
            protocol: self.key.protocol(),
            client: ClientAddr(self.key.from()),
            vip: ListenAddr::new(self.key.to()),
        }
    }

    /// Where its server is.
    #[must_use]
    pub fn server(&self) -> IpServerAddr {
        IpServerAddr::new(self.target.at(self.key.to()))
    }

    /// Its state.
    #[must_use]
    pub const fn life(&self) -> TcpState {
        life(self.value.state)
    }
}

impl FlowEntry for MapEntry {
    fn target(&self) -> &Arc<FlowTarget> {
        &self.target
    }

    fn renew(&mut self, key: &Key, services: &Services) {
        services.renew_target(key, &mut self.target, &mut self.generation);
    }

    fn can_reopen(&self) -> bool {
        self.life().can_reopen()
    }

    fn info(&self, _: &Key, now: Moment) -> FlowInfo {
        let between = |from: Moment, to: Moment| Duration::from_millis(to.0.saturating_sub(from.0));
        FlowInfo {
            tuple: self.tuple(),
            frontend: self.target.frontend.clone(),
            server: self.target.server.clone(),
            server_addr: self.server(),
            nat: None,
            state: self.life().state(),
            idle: between(self.map.clock.moment(self.value.seen), now),
            expires_in: between(now, self.expires()),
        }
    }
}

impl DsrEntry for MapEntry {
    /// The program takes the packet in, and counts what it shows of the handshake.
    fn observe(&mut self, kind: SegmentKind, _: Moment) -> Option<Handshake> {
        if let Err(error) = self.map.maps.touch(&probe::frame(&self.key, kind)) {
            complain("note a packet of a flow", &error);
        }
        None
    }
}
