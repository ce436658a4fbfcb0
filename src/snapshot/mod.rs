//! The immutable picture of frontends, backends and server states that every data plane reads.
//!
//! ```text
//! pools ──┐                     ┌─ Snapshot n ◄─ readers
//! health ─┼─► Builder ── build ─┤      │ what did not change is shared
//! time ───┘   (what changed)    └─ Snapshot n+1 ◄─ readers from now on
//! ```
//! Nothing else writes it. Readers hold one `Arc<Snapshot>`; what must outlive it (counters, slots) is shared by [`live`]
//! handles. A build costs what changed: a server's health remakes the view of its backend and those of the frontends that
//! use it, and copies a pointer to every other.

mod backend;
mod builder;
mod check_log;
mod counter;
pub mod histogram;
pub mod live;
mod names;
mod routes;
mod sampling;
mod stats_set;
mod sticky;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub mod trend;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use arc_swap::ArcSwap;

use crate::{
    access::{FrontendAccess, Subjects},
    balance::{Balancer, WEIGHT_UNIT},
    base::{
        BackendName, FrontendName, ListenerId, PortRanges, ServerAddr, ServerKey, ServerName, ServerState,
    },
    config::{self, InitialState, PortsPerClient},
    pools::{AdminState, Override},
};
pub use builder::{Builder, Built, Replaced};
pub use check_log::{CheckLog, CheckRecord};
use live::{BackendStats, FrontendStats, ServerStats};
pub use names::{NameClass, Offered};
pub use routes::{Facts, Hello, Routes, Way};

/// One generation of everything a data plane needs.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Its number: every build has a higher one than the last.
    pub generation: u64,
    /// Frontends by name.
    pub frontends: HashMap<FrontendName, Arc<FrontendView>>,
    /// Backends by name, sorted.
    pub backends: BTreeMap<BackendName, Arc<BackendView>>,
    /// Proxy frontends by what they listen on.
    listeners: Arc<HashMap<ListenerId, FrontendName>>,
    /// The servers of all backends.
    pub counts: ServerCounts,
    /// `nat_ports` of passthrough flows.
    pub nat_ports: PortRanges,
    /// `nat_address`, of both families.
    pub nat_addresses: Arc<[IpAddr]>,
    /// `any_interface`: servers' packets count by whichever interface they come in.
    pub any_interface: bool,
    /// `max_ports_per_client`.
    pub ports_per_client: PortsPerClient,
}

impl Snapshot {
    /// The proxy frontend that listens there.
    #[must_use]
    pub fn frontend_at(&self, listener: ListenerId) -> Option<&Arc<FrontendView>> {
        self.frontends.get(self.listeners.get(&listener)?)
    }

    /// How many NAT ports there are towards each server of a family: those of every NAT address.
    #[must_use]
    pub fn nat_ports_towards(&self, is_ipv4: bool) -> u32 {
        let addresses = self.nat_addresses.iter().filter(|ip| ip.is_ipv4() == is_ipv4);
        let addresses = u32::try_from(addresses.count()).unwrap_or(u32::MAX).max(1);
        self.nat_ports.len().saturating_mul(addresses)
    }
}

/// Numbers of servers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ServerCounts {
    /// All of them.
    pub servers: usize,
    /// Those whose state is up.
    pub up: usize,
    /// The eligible ones.
    pub eligible: usize,
}

impl ServerCounts {
    fn add(&mut self, server: &ServerView) {
        self.servers += 1;
        self.up += usize::from(server.state == ServerState::Up);
        self.eligible += usize::from(server.is_eligible());
    }
}

/// A frontend in a snapshot.
#[derive(Debug)]
pub struct FrontendView {
    /// Its settings.
    pub config: Arc<config::Frontend>,
    /// The backend it sends to.
    pub backend: Arc<BackendView>,
    /// The backends that it may send to: its own first, then those of its routes, each once.
    pub targets: Box<[Arc<BackendView>]>,
    /// Its routes; `None`: it has none.
    pub routes: Option<Arc<Routes>>,
    /// What TLS ends with here; `None`: it is not ended here.
    pub tls: Option<Arc<FrontendTls>>,
    /// Whether it depends on the ClientHello where a connection goes.
    pub needs_hello: bool,
    /// The peers whose PROXY headers count; `None`: nobody's.
    pub proxies: Option<Arc<Subjects>>,
    /// Its counters and slots.
    pub live: Arc<FrontendStats>,
    /// Who may open a connection; `None`: everybody.
    pub access: Option<Arc<FrontendAccess>>,
}

/// What the TLS of a frontend's clients ends with.
#[derive(Debug)]
pub struct FrontendTls {
    /// For new connections; certificates and ticket keys change beneath it.
    pub config: Arc<rustls::ServerConfig>,
    /// `handshake_timeout`.
    pub handshake_timeout: Duration,
    /// `max_handshakes` under way.
    pub max_handshakes: u32,
    /// What CAs are shown that look whether a name is ours, whatever clients are served with.
    pub challenges: Arc<ChallengeConfigs>,
    /// The certificates that clients get.
    pub certificates: Arc<dyn ServedCertificates>,
}

/// The certificates of a frontend, which are replaced while it serves.
pub trait ServedCertificates: fmt::Debug + Send + Sync {
    /// Those that are served now.
    fn served(&self) -> Vec<ServedCertificate>;
}

/// A certificate that clients get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServedCertificate {
    /// Its path in the configuration, or what it is ordered as.
    pub name: Arc<str>,
    /// Whether it is ordered.
    pub is_ordered: bool,
    /// Its subject.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// The host names that it is for.
    pub names: Vec<Box<str>>,
    /// The kind of its key.
    pub key: &'static str,
    /// From when on it is valid.
    pub not_before: SystemTime,
    /// Until when.
    pub not_after: SystemTime,
    /// Its serial number in hexadecimal digits.
    pub serial: String,
}

/// What CAs are served with that look whether a name is ours, by name.
pub type ChallengeConfigs = ArcSwap<HashMap<Box<str>, Arc<rustls::ServerConfig>>>;

/// What connections to the servers of a backend are opened with, where they go through TLS.
#[derive(Debug)]
pub struct BackendTls {
    /// Of clients; whoever connects adds a memory for sessions.
    pub connections: Arc<rustls::ClientConfig>,
    /// Health checks.
    pub checks: Arc<rustls::ClientConfig>,
    /// Health checks where no name can be expected.
    pub checks_of_any_name: Arc<rustls::ClientConfig>,
}

/// A backend in a snapshot.
#[derive(Debug)]
pub struct BackendView {
    /// Its settings.
    pub config: Arc<config::Backend>,
    /// Its servers, sorted by name; the balancer's indexes point into it.
    pub servers: Vec<ServerView>,
    /// How many of them there are.
    pub counts: ServerCounts,
    /// The choice among the eligible servers (others weigh 0): those that are up in the lowest priority group that has
    /// one; if there are none at all, those that are down by an ejection alone.
    pub balancer: Arc<Balancer>,
    /// The generation that `balancer` was built in: a thread's `PickState` for another generation starts afresh.
    pub balancer_generation: u64,
    /// Its servers by the names that they serve; empty if none has an `sni`.
    pub names: Box<[NameClass]>,
    /// The Maglev table that packet modes choose by; `None` if no frontend in a packet mode uses the backend.
    pub maglev: Option<Arc<Balancer>>,
    /// TLS to its servers; `None`: connections to them are plain.
    pub tls: Option<Arc<BackendTls>>,
    /// Its counters and queue.
    pub live: Arc<BackendStats>,
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
    /// The index of its class among the backend's [`names`](BackendView::names); 0 where there are none.
    pub class: u16,
    /// Its weight: the configured one, or the operator's.
    pub weight: u16,
    /// The weight in the configuration.
    pub configured_weight: u16,
    /// The weight for the balancer, in [`crate::balance::WEIGHT_UNIT`]s: with slow start, 0 if it is not eligible.
    pub effective_weight: u32,
    /// Its state.
    pub state: ServerState,
    /// Since when, for display; `None` if nothing is known of its health yet.
    pub state_since: Option<Instant>,
    /// Why it is in that state, for display: such as the last check's error.
    pub state_reason: Option<Arc<str>>,
    /// Whether it is not in the configuration.
    pub is_discovered: bool,
    /// What an operator has set.
    pub overridden: Override,
    /// What its agent says.
    pub agent: AgentSays,
    /// What its last checks found; `None` if it is not checked.
    pub checks: Option<Arc<CheckLog>>,
    /// Its counters and slots.
    pub live: Arc<ServerStats>,
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
}

impl BackendView {
    /// A server, if there is one of that name.
    #[must_use]
    pub fn server(&self, name: &str) -> Option<&ServerView> {
        self.servers.get(self.index(name)?)
    }

    /// The index of a server, if there is one of that name.
    #[must_use]
    pub fn index(&self, name: &str) -> Option<usize> {
        self.servers.binary_search_by(|s| s.name.as_str().cmp(name)).ok()
    }
}

impl ServerView {
    /// Whether it can be chosen now.
    #[must_use]
    pub const fn is_eligible(&self) -> bool {
        self.effective_weight > 0
    }

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
    /// Whether it is down by a passive ejection alone: no active check has failed since the last that passed.
    pub is_ejected: bool,
    /// Text of the last failure.
    pub reason: Option<Arc<str>>,
    /// What its agent says, if it is asked.
    pub agent: AgentSays,
    /// What the last checks found.
    pub checks: Arc<CheckLog>,
}

impl Health {
    /// Of a server in a state of which no more is known.
    #[must_use]
    pub fn new(state: ServerState, since: Instant) -> Self {
        Self {
            state,
            since,
            ramp_from: None,
            is_ejected: false,
            reason: None,
            agent: AgentSays::default(),
            checks: Arc::default(),
        }
    }
}

/// What a server's agent says that it should get. It is less than what an operator says, and more than what the
/// configuration and discovery do; what it does not mention is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AgentSays {
    /// Draining or maintenance.
    pub admin: Option<AdminState>,
    /// Its weight, in percent of the configured one.
    pub weight_percent: Option<u16>,
    /// Its `max_connections`; 0: no limit.
    pub max_connections: Option<u32>,
    /// Why it was not understood or not reached, the last time.
    pub problem: Option<Arc<str>>,
}

impl AgentSays {
    /// The weight of a server that has this one without it: at least 1 of what is not nothing.
    #[must_use]
    pub fn weight(&self, configured: u16) -> u16 {
        self.weight_percent.map_or(configured, |percent| {
            let part = (u32::from(configured) * u32::from(percent)).div_ceil(100);
            u16::try_from(part).unwrap_or(u16::MAX)
        })
    }

    /// The `max_connections` of a server that has this without it.
    #[must_use]
    pub fn max_connections(&self, configured: Option<u32>) -> Option<u32> {
        self.max_connections
            .map_or(configured, |most| Some(most).filter(|most| *most > 0))
    }

    /// Whether it asks for nothing, and nothing is wrong with it.
    #[must_use]
    pub const fn is_silent(&self) -> bool {
        self.admin.is_none()
            && self.weight_percent.is_none()
            && self.max_connections.is_none()
            && self.problem.is_none()
    }
}

/// In its own words: `drain, 50 %, maxconn 30`; nothing if it asks for nothing.
impl fmt::Display for AgentSays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let admin = self.admin.map(|admin| match admin {
            AdminState::Draining => "drain".to_owned(),
            AdminState::Maintenance => "maint".to_owned(),
        });
        let weight = self.weight_percent.map(|percent| format!("{percent} %"));
        let most = self.max_connections.map(|most| format!("maxconn {most}"));
        let words: Vec<String> = [admin, weight, most].into_iter().flatten().collect();
        f.write_str(&words.join(", "))
    }
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
