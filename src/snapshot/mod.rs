//! The immutable picture of frontends, backends and server states that every data plane reads.
//!
//! Built from the configuration, health and the operator's overrides; nothing else writes it. Readers hold one
//! `Arc<Snapshot>`; what must outlive it (counters, slots) is shared by [`live`] handles.

mod build;
pub mod live;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Instant,
};

use crate::{
    balance::{Pool, WEIGHT_UNIT},
    base::{
        BackendName, FrontendName, ListenAddr, PortRange, ServerAddr, ServerKey, ServerName, ServerState,
    },
    config::{self, InitialState},
};
pub use build::{build, next_ramp_step};
use live::{BackendLive, FrontendLive, ServerLive};

/// One generation of everything a data plane needs.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Its number: every build has a higher one than the last.
    pub generation: u64,
    /// Frontends by name.
    pub frontends: HashMap<FrontendName, Arc<FrontendView>>,
    /// Backends by name, sorted.
    pub backends: BTreeMap<BackendName, Arc<BackendView>>,
    /// `nat_ports` of passthrough flows.
    pub nat_ports: PortRange,
}

impl Snapshot {
    /// The proxy frontend that listens on an address. One in a packet mode may have the same address with UDP.
    #[must_use]
    pub fn frontend_at(&self, addr: ListenAddr) -> Option<&Arc<FrontendView>> {
        let mut proxied = self.frontends.values().filter(|f| !f.config.mode.is_packet());
        proxied.find(|f| f.config.listen.contains(&addr))
    }
}

/// A frontend in a snapshot.
#[derive(Debug)]
pub struct FrontendView {
    /// Its settings.
    pub config: Arc<config::Frontend>,
    /// The backend it sends to.
    pub backend: Arc<BackendView>,
    /// Its counters and slots.
    pub live: Arc<FrontendLive>,
}

/// A backend in a snapshot.
#[derive(Debug)]
pub struct BackendView {
    /// Its settings.
    pub config: Arc<config::Backend>,
    /// Its servers, sorted by name; the pool's indexes point into it.
    pub servers: Vec<ServerView>,
    /// The choice among the servers that are up in the lowest priority group that has one (others weigh 0).
    pub pool: Arc<Pool>,
    /// The generation that `pool` was built in: a thread's `PickState` for another generation starts afresh.
    pub pool_generation: u64,
    /// The Maglev table that packet modes choose by; `None` if no frontend in a packet mode uses the backend.
    pub maglev: Option<Arc<Pool>>,
    /// Its counters and queue.
    pub live: Arc<BackendLive>,
}

/// A server in a snapshot.
#[derive(Debug)]
pub struct ServerView {
    /// Its name.
    pub name: ServerName,
    /// Its address.
    pub addr: ServerAddr,
    /// `max_connections`.
    pub max_connections: Option<u32>,
    /// Its priority group.
    pub priority: u16,
    /// The weight that the configuration or the operator gives it.
    pub weight: u16,
    /// The weight in the pool, in [`crate::balance::WEIGHT_UNIT`]s: with slow start, 0 if it gets no connections.
    pub effective_weight: u32,
    /// Its state.
    pub state: ServerState,
    /// Since when, for display; `None` if nothing is known of its health yet.
    pub state_since: Option<Instant>,
    /// Why it is in that state, for display: such as the last check's error.
    pub state_reason: Option<Arc<str>>,
    /// Whether an operator's override is in force.
    pub overridden: bool,
    /// Its counters and slots.
    pub live: Arc<ServerLive>,
}

impl Snapshot {
    /// Every server with its backend, by the names of both.
    pub fn servers(&self) -> impl Iterator<Item = (&Arc<BackendView>, &ServerView)> {
        self.backends
            .values()
            .flat_map(|backend| backend.servers.iter().map(move |server| (backend, server)))
    }

    /// A server, if there is one of that name.
    #[must_use]
    pub fn server(&self, key: &ServerKey) -> Option<&ServerView> {
        self.backends.get(&key.backend)?.server(key.server.as_str())
    }

    /// Wakes every connection that waits for a server, and every listener that waits for a slot of its frontend, so
    /// that they look at the snapshot in force.
    ///
    /// To be called on the snapshot that has just been *replaced*: it has what they wait for, and what is gone too.
    pub fn wake_queues(&self) {
        for frontend in self.frontends.values() {
            frontend.live.slots.freed().notify_waiters();
        }
        for backend in self.backends.values() {
            backend.live.server_freed.notify_waiters();
        }
    }
}

impl BackendView {
    /// A server, if there is one of that name.
    #[must_use]
    pub fn server(&self, name: &str) -> Option<&ServerView> {
        let index = self
            .servers
            .binary_search_by(|s| s.name.as_str().cmp(name))
            .ok()?;
        self.servers.get(index)
    }
}

impl ServerView {
    /// Percent of its weight that it gets: less than 100 in a slow start, 0 if it gets no connections.
    #[must_use]
    pub fn effective_percent(&self) -> u32 {
        let full = u64::from(self.weight) * u64::from(WEIGHT_UNIT);
        let percent = u64::from(self.effective_weight) * 100 / full.max(1);
        // rounded down, but what gets anything is not at 0
        let least = u32::from(self.effective_weight > 0);
        u32::try_from(percent).map_or(100, |percent| percent.clamp(least, 100))
    }
}

/// What checks and passive observation say of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Up, Down or Checking.
    pub state: ServerState,
    /// When it came into that state.
    pub since: Instant,
    /// When a slow start began: the last change from down to up at run time, not the first check's.
    pub ramp_from: Option<Instant>,
    /// Text of the last failure.
    pub reason: Option<Arc<str>>,
}

/// The state that a server is in before anything is known of it: up if nothing checks it.
#[must_use]
pub fn initial_state(check: Option<&config::HealthCheck>) -> ServerState {
    match check.map(|check| check.initial) {
        None | Some(InitialState::Up) => ServerState::Up,
        Some(InitialState::Down) => ServerState::Down,
        Some(InitialState::Check) => ServerState::Checking,
    }
}

/// What the operator said of a server at run time (`convey server …`); survives reloads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Override {
    /// Draining or maintenance; `None` when ready.
    pub admin: Option<AdminState>,
    /// A weight instead of the configured one.
    pub weight: Option<u16>,
}

/// An administrative state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdminState {
    /// No new connections.
    Draining,
    /// No new connections and no checks.
    Maintenance,
}

/// Everything besides the configuration that a snapshot is made of.
#[derive(Debug, Default)]
pub struct Inputs {
    /// Health by server; a server without an entry has its health check's initial state (up without one).
    pub health: HashMap<ServerKey, Health>,
    /// Overrides by server.
    pub overrides: HashMap<ServerKey, Override>,
}

/// The lasting parts of everything configured, by name; entries of removed things go once nobody uses them.
#[derive(Debug, Default)]
pub struct LiveSet {
    workers: usize,
    frontends: HashMap<FrontendName, Arc<FrontendLive>>,
    backends: HashMap<BackendName, Arc<BackendLive>>,
    /// Keyed by address too: a server that moves to another address is another server.
    servers: HashMap<(ServerKey, ServerAddr), Arc<ServerLive>>,
}

impl LiveSet {
    /// An empty set for so many workers.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self {
            workers,
            ..Self::default()
        }
    }
}
