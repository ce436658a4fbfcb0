//! Passthrough flows in the maps that the program changes: looked up, ended by the program, and walked through.
//!
//! A flow is an entry for each direction: see [`layout`](super::layout). That of its client's packets is made last and unmade
//! first, so who has found that one and misses the other has seen a flow that has just ended.

use std::{
    collections::HashMap,
    io,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{
    aside::Aside,
    batch::FlowBatch,
    claims::Counts,
    flow_map::{BATCH, FlowMap, complain, life},
    keys::{flow_key, path_key, return_origin},
    layout::{
        EndpointKey, ForwardValue, HalfValue, Order, OrderKind, OrderResult, ReverseValue, ShareKey,
        WatchCode,
    },
};
use crate::{
    flow::{
        FlowTarget, Moment, TableLimits,
        stored::{
            ErrorAllowance, Half, HandshakeWatch, Key, NatFlow, Numbers, ReturnHops, ReturnOrigin,
            ReturnPath, ShareLimit,
        },
    },
    sys::bpf::{BatchCursor, Map},
};

/// Ways back of which one client each is noted; the path follows fewer.
const ORIGINS: usize = 16_384;

/// See the [module](self). Shared by the threads of the slow path and the keeper.
#[derive(Debug)]
pub struct NatMap {
    /// Maps, clock and numbers.
    pub map: Arc<FlowMap>,
    /// The ways back to clients.
    pub returns: ReturnHops,
    /// What is kept beside the maps.
    pub aside: Aside,
    /// Whether anything is served in mode passthrough.
    pub is_served: AtomicBool,
    max_flows: u32,
}

/// A flow as it was when it was read.
#[derive(Debug)]
pub struct FoundFlow {
    /// Its client's key.
    pub key: Key,
    /// Which flow of that key.
    pub begun: u64,
    /// What the path knows of one.
    pub flow: NatFlow,
}

/// What the entry of its client's packets alone says of a flow.
#[derive(Debug)]
pub struct Glimpse {
    /// Its target.
    pub target: Arc<FlowTarget>,
    /// The number of its server.
    pub server: u16,
    /// The key of its other entry.
    pub reverse: Key,
    /// When it is forgotten, but for what its server has sent since.
    pub expires: Moment,
}

impl NatMap {
    /// With the maps of an engine with such limits.
    #[must_use]
    pub fn new(map: Arc<FlowMap>, limits: &TableLimits) -> Self {
        let max_flows = limits.max_flows.get();
        Self {
            map,
            returns: ReturnHops::default(),
            aside: Aside::new(max_flows),
            is_served: AtomicBool::new(false),
            max_flows,
        }
    }

    /// How many there are and may be.
    #[must_use]
    pub fn counts(&self) -> Counts<'_> {
        Counts {
            claims: &self.map.maps.claims,
            max_flows: self.max_flows,
        }
    }

    /// Passthrough flows, at most.
    #[must_use]
    pub const fn max_flows(&self) -> u32 {
        self.max_flows
    }

    /// Whether there may be flows.
    #[must_use]
    pub fn has_flows(&self) -> bool {
        self.is_served.load(Ordering::Relaxed) || self.counts().flows() > 0
    }

    /// The entry of a client's packets.
    #[must_use]
    pub fn forward(&self, key: &Key) -> Option<ForwardValue> {
        let mut value = [0; ForwardValue::SIZE];
        read(&self.map.maps.forwards, key, &mut value).then(|| ForwardValue::from_bytes(&value))?
    }

    /// The entry of a server's packets.
    #[must_use]
    pub fn reverse(&self, key: &Key) -> Option<ReverseValue> {
        let mut value = [0; ReverseValue::SIZE];
        read(&self.map.maps.reverses, key, &mut value).then(|| ReverseValue::from_bytes(&value))?
    }

    /// The client's key of the flow that a packet from a server to a NAT address belongs to.
    #[must_use]
    pub fn holder(&self, reverse: &Key) -> Option<Key> {
        let has_flows = self.has_flows();
        has_flows.then(|| self.reverse(reverse).map(|value| path_key(&value.client)))?
    }

    /// The flow of a client's key, if its target is known; it may have expired.
    #[must_use]
    pub fn find(&self, key: &Key) -> Option<FoundFlow> {
        if !self.has_flows() {
            return None;
        }
        let forward = self.forward(key)?;
        self.join(key, &forward)
    }

    /// What an entry of a client's packets says of its flow; `None`: its target is not known.
    #[must_use]
    pub fn glimpse(&self, key: &Key, forward: &ForwardValue) -> Option<Glimpse> {
        let numbers = self.map.numbers();
        let numbered = numbers.of_flow(forward.target, forward.incarnation)?;
        let (target, server) = (Arc::clone(&numbered.target), numbered.server);
        drop(numbers);
        // how long it is remembered depends on it
        target.set_claimed_ports(self.counts().towards(server));
        let seen = self.map.clock.moment(forward.seen);
        Some(Glimpse {
            reverse: Key::new(key.protocol(), target.at(key.to()), forward.nat.addr),
            expires: seen.after(target.lifetime(life(forward.state))),
            target,
            server,
        })
    }

    /// The flow of an entry of a client's packets with the other entry; `None` if that is another flow's or gone, or the target
    /// is not known.
    #[must_use]
    pub fn join(&self, key: &Key, forward: &ForwardValue) -> Option<FoundFlow> {
        let Glimpse { target, reverse, .. } = self.glimpse(key, forward)?;
        let other = self.reverse(&reverse)?;
        if other.begun != forward.begun || path_key(&other.client) != *key {
            return None;
        }
        let moment = |seen| self.map.clock.moment(seen);
        let origin = return_origin(&other.origin);
        let flow = NatFlow {
            target,
            reverse,
            life: life(forward.state),
            numbers: Numbers {
                client: half(&forward.half),
                server: half(&other.half),
                other_syn: forward.other_syn,
                first_fin: forward.first_fin,
                clock: forward.clock,
            },
            seen: moment(forward.seen).max(moment(other.seen)),
            generation: 0,
            back: ReturnPath {
                origin,
                number: other
                    .is_followed
                    .then(|| self.returns.number_of(&origin))
                    .flatten(),
            },
            handshake: match forward.watch {
                WatchCode::Awaited => HandshakeWatch::Awaited(moment(forward.begun)),
                WatchCode::Overdue => HandshakeWatch::Overdue,
                WatchCode::Over => HandshakeWatch::Over,
            },
            // these three are kept elsewhere
            errors: ErrorAllowance::default(),
            share: None,
            permit: None,
        };
        Some(FoundFlow {
            key: *key,
            begun: forward.begun,
            flow,
        })
    }

    /// Has the program do something with a flow; nothing is done where that fails.
    #[must_use]
    pub fn order(&self, key: &Key, begun: u64, what: OrderKind) -> OrderResult {
        let order = Order {
            what,
            key: flow_key(key),
            begun,
        };
        let done = self.map.maps.order(&order);
        done.unwrap_or_else(|error| {
            complain("change a flow", &error);
            OrderResult::default()
        })
    }

    /// Ends a flow. Whether it was there still.
    pub fn end(&self, key: &Key, begun: u64) -> bool {
        let has_ended = self.order(key, begun, OrderKind::End).is_found;
        self.aside.give_back(key);
        has_ended
    }

    /// Whether a client holds all NAT ports of a server that it may.
    #[must_use]
    pub fn is_share_full(&self, limit: &ShareLimit, towards: &Key, client: IpAddr) -> bool {
        let network = limit.clients.network(client);
        let key = ShareKey {
            server: EndpointKey {
                addr: towards.from(),
                protocol: towards.protocol(),
            },
            network: network.first(),
            prefix: network.prefix(),
        };
        let mut held = [0; 8];
        let found = self.map.maps.shares.lookup(&key.to_bytes(), &mut held);
        let is_there = found.unwrap_or_else(|error| {
            complain("read a client's share", &error);
            false
        });
        is_there && i64::from_ne_bytes(held) >= i64::from(limit.ports)
    }

    /// Calls for every flow with a target that is known; it may have expired.
    pub fn for_each(&self, see: &mut dyn FnMut(&Key, &ForwardValue)) {
        let (mut cursor, mut batch) = (BatchCursor::default(), FlowBatch::default());
        while self.has_flows() && !cursor.is_at_end() {
            if let Err(error) = batch.read(&self.map.maps.forwards, &mut cursor, BATCH) {
                complain("read the flows", &error);
                return;
            }
            for (key, value) in batch.forwards().filter_map(|(_, flow)| flow) {
                see(&path_key(&key), &value);
            }
        }
    }

    /// Whether so few flows are there that to look at all of them costs next to nothing.
    #[must_use]
    pub fn has_few(&self) -> bool {
        self.counts().flows() <= u64::from(BATCH)
    }

    /// Finds the ways back that flows use now, before newer routes are compared with those that were: where there are few flows.
    /// Where there are many, new ways are found by the scans.
    pub fn find_origins(&self) {
        if !self.has_few() {
            return;
        }
        let mut origins = HashMap::new();
        self.for_each(&mut |key, forward| note_origin(&mut origins, key, forward));
        self.returns.retain(&origins);
    }

    /// Calls for every live flow with what its client's entry says; its other entry is read only where that decides.
    pub fn for_each_live(&self, now: Moment, see: &mut dyn FnMut(&Key, &ForwardValue, &Glimpse)) {
        self.for_each(&mut |key, forward| {
            if let Some(glimpse) = self.glimpse(key, forward)
                && (glimpse.expires > now
                    || self
                        .join(key, forward)
                        .is_some_and(|found| found.flow.expires() > now))
            {
                see(key, forward, &glimpse);
            }
        });
    }
}

/// Notes where the replies of a flow go back to, if its client is proven.
pub fn note_origin(origins: &mut HashMap<ReturnOrigin, IpAddr>, key: &Key, forward: &ForwardValue) {
    if forward.is_followed && origins.len() < ORIGINS {
        let origin = return_origin(&forward.origin);
        origins.entry(origin).or_insert_with(|| key.from().ip());
    }
}

/// Reads an element of a map of flows. Whether it is there.
fn read(map: &Map, key: &Key, value: &mut [u8]) -> bool {
    let found: io::Result<bool> = map.lookup(&flow_key(key).to_bytes(), value);
    found.unwrap_or_else(|error| {
        complain("read a flow", &error);
        false
    })
}

const fn half(value: &HalfValue) -> Half {
    Half {
        end: value.end,
        acknowledged: value.acknowledged,
        fin: value.fin,
    }
}
