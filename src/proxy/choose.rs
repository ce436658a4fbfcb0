//! Choosing a server for a connection: the backend's algorithm among the servers that have room.

use std::{
    cell::RefCell,
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use super::{
    shared::{ProxyEvent, WorkerContext},
    stick::Stick,
};
use crate::{
    balance::{Pick, PickState, hash::SplitMix64},
    base::{
        BackendName, ClientAddr, IpFamily, ListenAddr, Protocol, Remote, ServerAddr, ServerKey, ServerName,
        ServerTlsFailure, SocketKind,
    },
    config::{Algorithm, Frontend},
    snapshot::{BackendView, Offered, ServerView},
};

/// Backends whose rounds a thread remembers; those of removed backends are forgotten with the rest when it is full.
const MAX_ROUNDS: usize = 4_096;

thread_local! {
    /// This thread's place in the rounds of each backend, each with the balancer generation that it belongs to: that of all
    /// its servers, then those of their classes.
    static ROUNDS: RefCell<HashMap<BackendName, Vec<(u64, PickState)>>> = RefCell::default();
    /// This thread's random numbers for balancing; nothing secret hangs on them.
    static RANDOM: RefCell<SplitMix64> = RefCell::new(SplitMix64::new(RandomState::new().hash_one(0_u8)));
}

/// A server that was chosen, with a connection slot on it that is given back on drop.
#[derive(Debug)]
pub struct Chosen {
    /// The backend as it was at the choice.
    pub backend: Arc<BackendView>,
    /// Index of the server in it.
    index: u32,
    /// How far its port is above that of its address: as far as the connection's in its range.
    offset: u16,
}

impl Chosen {
    /// The server.
    #[must_use]
    pub fn server(&self) -> &ServerView {
        &self.backend.servers[self.index()]
    }

    /// Its index in the backend.
    #[must_use]
    pub const fn index(&self) -> usize {
        self.index as usize
    }

    /// The kind of socket that connections to it take, if only the broker can make it.
    #[must_use]
    pub fn special_kind(&self, protocol: Protocol, source: Option<IpAddr>) -> Option<SocketKind> {
        let kind = SocketKind {
            protocol,
            family: self.server().addr.family()?,
            is_transparent: source.is_some(),
            mark: self.backend.config.server_socket.common.mark,
        };
        kind.is_special().then_some(kind)
    }

    /// The server's address, with the port that the connection's leads to.
    #[must_use]
    pub fn addr(&self) -> ServerAddr {
        self.server().addr.further(self.offset)
    }

    /// Which one it is.
    #[must_use]
    pub fn server_ref(&self) -> ServerRef {
        ServerRef {
            backend: Arc::clone(&self.backend),
            index: self.index,
            offset: self.offset,
        }
    }

    /// The passive check: it has answered.
    pub fn note_success(&self) {
        let failures = &self.server().live.failures_in_a_row;
        if failures.load(Ordering::Relaxed) != 0 {
            failures.store(0, Ordering::Relaxed);
        }
    }

    /// The passive check: so many failures in a row, on any thread, are reported once.
    pub fn note_failure(&self, shared: &WorkerContext, tls: Option<ServerTlsFailure>) {
        let Some(check) = &self.backend.config.passive_check else {
            return;
        };
        let failures = &self.server().live.failures_in_a_row;
        let failures = failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if failures == check.max_failures.get() {
            let key = ServerKey {
                backend: self.backend.config.name.clone(),
                server: self.server().name.clone(),
            };
            // a full channel means that the control loop has news enough; the next failure series reports again
            let _ = shared.events.try_send(ProxyEvent::ServerFailing(key, tls));
        }
    }
}

/// A server that was chosen, without a slot on it: small, for a connection keeps it to its end.
#[derive(Debug)]
pub struct ServerRef {
    backend: Arc<BackendView>,
    index: u32,
    offset: u16,
}

impl ServerRef {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &ServerName {
        &self.server().name
    }

    /// Its address, with the port that the connection's leads to.
    #[must_use]
    pub fn addr(&self) -> ServerAddr {
        self.server().addr.further(self.offset)
    }

    fn server(&self) -> &ServerView {
        &self.backend.servers[self.index as usize]
    }
}

impl Drop for Chosen {
    fn drop(&mut self) {
        self.server().live.slots.release();
        if self.backend.live.queue.used() > 0 {
            self.backend.live.server_freed.notify_one();
        }
    }
}

/// What hashes take for the address of whoever has none: all of them are one client.
const NO_ADDR: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// Who wants a server.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionAddrs {
    /// The client.
    pub client: Remote<ClientAddr>,
    /// The address that it connected to; `None` of a unix socket.
    pub listen: Option<ListenAddr>,
    /// How far that is from the first port of its range; `None` if that has one port.
    pub offset: Option<u16>,
    /// The client's address, if the server is to see it.
    pub source: Option<IpAddr>,
}

/// The address that connections to servers come from; `None`: one of ours.
#[must_use]
pub fn source(frontend: &Frontend, client: Remote<ClientAddr>) -> Option<IpAddr> {
    client.ip().filter(|_| frontend.is_transparent())
}

/// Why no server was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nothing {
    /// None is eligible, or all were tried.
    NoneEligible,
    /// Those that are eligible have no room.
    AllFull,
    /// None can be reached from the client's address.
    ClientSource,
}

/// Servers whose connects failed. At another address it is another server.
#[derive(Debug, Default)]
pub struct Tried(Vec<(ServerName, ServerAddr)>);

impl Tried {
    /// Adds one.
    pub fn add(&mut self, server: &ServerView) {
        self.0.push((server.name.clone(), server.addr));
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Whether none has been.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn has(&self, server: &ServerView) -> bool {
        (self.0.iter()).any(|(name, addr)| *name == server.name && *addr == server.addr)
    }
}

/// Chooses a server of those offered that was not tried and has room, and takes a connection slot on it.
///
/// # Errors
/// Why there is none.
pub fn choose(
    backend: &Arc<BackendView>,
    offered: Offered,
    flow: ConnectionAddrs,
    tried: &Tried,
) -> Result<Chosen, Nothing> {
    if flow.source.is_some_and(|source| !can_be_source(source)) {
        return Err(Nothing::ClientSource);
    }
    let (balancer, generation, round) = backend.chooser(offered);
    let servers = &backend.servers;
    let untried = |i: usize| !tried.has(&servers[i]) && is_reached(&servers[i], flow.source);
    let has_room = |i: usize| {
        servers[i]
            .max_connections
            .is_none_or(|limit| servers[i].live.slots.used() < limit)
    };
    let usable = |i: usize| untried(i) && has_room(i);
    let take = |index: usize| {
        let server = &servers[index];
        let is_taken = server.live.slots.try_take(server.max_connections);
        is_taken.then(|| Chosen {
            backend: Arc::clone(backend),
            // no file has room for so many servers
            index: u32::try_from(index).unwrap_or(u32::MAX),
            offset: flow.offset.unwrap_or(0),
        })
    };
    // whoever has no address comes from no network that could be remembered
    let mut stick = (flow.client.ip()).and_then(|client| Stick::of(backend, offered, client));
    let before = stick.as_ref().and_then(|stick| stick.server(backend, offered));
    if let Some(index) = before.filter(|index| untried(*index)) {
        if let Some(chosen) = take(index) {
            return Ok(chosen);
        }
        // full: its clients come back once it has room
        stick = None;
    }
    let by_bytes = (backend.config.balance == Algorithm::LeastBandwidth).then(Instant::now);
    let load = |i: usize| match by_bytes {
        Some(now) => servers[i].live.bytes_of_late(now),
        None => u64::from(servers[i].live.slots.used()),
    };
    // another thread may take the last slot between the choice and the claim: then choose again
    let client = flow.client.socket_addr().unwrap_or(NO_ADDR);
    for _ in 0..=servers.len() {
        let client_hash = balancer.client_hash(client.ip());
        let pick = Pick {
            client_hash,
            // a range has one Maglev choice, as in packet modes
            flow_hash: match flow.offset {
                Some(_) => client_hash,
                None => balancer.flow_hash(client, flow.listen.map_or(NO_ADDR, |listen| listen.0)),
            },
            random: random(),
            load: &load,
            usable: &usable,
        };
        let picked = with_round(backend, generation, round, |state| balancer.pick(state, &pick));
        let Some(index) = picked else {
            break;
        };
        if let Some(chosen) = take(index) {
            if by_bytes.is_some() {
                servers[index].live.charge();
            }
            if let Some(stick) = stick {
                stick.to(&servers[index]);
            }
            return Ok(chosen);
        }
    }
    let is_one = |index: usize| backend.offers(offered, index) && is_reached(&servers[index], flow.source);
    Err(if another_is_eligible(backend, offered, tried, flow.source) {
        Nothing::AllFull
    } else if servers.is_empty() || (0..servers.len()).any(is_one) {
        Nothing::NoneEligible
    } else {
        Nothing::ClientSource
    })
}

/// Whether a packet with this address as its source can have an answer through routers.
fn can_be_source(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            !v4.is_unspecified() && !v4.is_multicast() && !v4.is_broadcast() && !v4.is_link_local()
        }
        IpAddr::V6(v6) => !v6.is_unspecified() && !v6.is_multicast() && !v6.is_unicast_link_local(),
    }
}

/// Whether a server can be connected to from an address.
fn is_reached(server: &ServerView, source: Option<IpAddr>) -> bool {
    source.is_none_or(|source| Some(IpFamily::of(source)) == server.addr.family())
}

/// Whether one of the servers offered can be chosen and was not tried yet.
#[must_use]
pub fn another_is_eligible(
    backend: &BackendView,
    offered: Offered,
    tried: &Tried,
    source: Option<IpAddr>,
) -> bool {
    let is_another =
        |server: &ServerView| server.is_eligible() && !tried.has(server) && is_reached(server, source);
    (backend.servers.iter().enumerate())
        .any(|(index, server)| backend.offers(offered, index) && is_another(server))
}

fn with_round<R>(
    backend: &BackendView,
    generation: u64,
    round: usize,
    choose: impl FnOnce(&mut PickState) -> R,
) -> R {
    ROUNDS.with_borrow_mut(|rounds| {
        if !rounds.contains_key(backend.config.name.as_str()) {
            if rounds.len() >= MAX_ROUNDS {
                rounds.clear();
            }
            rounds.insert(backend.config.name.clone(), Vec::with_capacity(1));
        }
        let Some(states) = rounds.get_mut(backend.config.name.as_str()) else {
            return choose(&mut PickState::seeded(random()));
        };
        while states.len() <= round {
            states.push((generation, PickState::seeded(random())));
        }
        let (of, state) = &mut states[round];
        if *of != generation {
            (*of, *state) = (generation, PickState::seeded(random()));
        }
        choose(state)
    })
}

fn random() -> u64 {
    RANDOM.with_borrow_mut(SplitMix64::next_u64)
}
