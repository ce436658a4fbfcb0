//! The resolved configuration: every value is meaningful, every reference points at something that exists.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    num::{NonZeroU16, NonZeroU32},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

pub use super::connection_log::{AccessLog, LogFormat};
pub use super::packet_modes::{DsrMethod, EngineChoice, PacketModes, PortsPerClient, XdpMode};
use super::{
    acme::Acme,
    admin::Admin,
    balancing::Sticky,
    check_addr::CheckAddr,
    checks::{AgentCheck, Check},
    commands::Hooks,
    connection_log::ConnectionLog,
    connections::ConnectionRates,
    discovery::Discovery,
    otlp::Otlp,
    routing::{AcceptProxy, RouteTarget, Routing, SendProxy},
    source::SourceAddress,
    tls::{BackendTls, FrontendTls},
    udp::UdpSessions,
};
use crate::{
    access::{AccessRules, Limits, RuleSubject},
    base::{
        BackendName, Endpoint, EndpointRange, FrontendName, HostPattern, KeepAlive, ListenAddr, ListenPlace,
        ListenRange, ListenerId, ListenerOptions, NetworkListName, PeerTimeouts, Protocol, ServerAddr,
        ServerName, ServerSocketOptions, SocketOptions, SocketPath, SocketRights,
    },
};

/// A whole configuration that passed every check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `[global]`.
    pub global: Global,
    /// `[admin]`.
    pub admin: Admin,
    /// `[stats]`, if there is such a section.
    pub stats: Option<Stats>,
    /// `[packet]`: what both packet modes share.
    pub packet: PacketModes,
    /// `[network_lists]`, sorted by name.
    pub network_lists: BTreeMap<NetworkListName, NetworkList>,
    /// `[hooks]`.
    pub hooks: Hooks,
    /// `[acme]`, if there is such a section.
    pub acme: Option<Acme>,
    /// `[otlp]`, if there is such a section.
    pub otlp: Option<Otlp>,
    /// `[frontends.NAME]`, sorted by name.
    pub frontends: BTreeMap<FrontendName, Arc<Frontend>>,
    /// `[backends.NAME]`, sorted by name.
    pub backends: BTreeMap<BackendName, Arc<Backend>>,
}

/// `[global]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Global {
    /// `log_level`, default info.
    pub log_level: LogLevel,
    /// `log_format` of stderr, default text. Under systemd the journal is used and this is ignored.
    pub log_format: LogFormat,
    /// `access_log_per_second`: connections that are logged a second, at most. Default 1,000: a second of that is less
    /// than a megabyte in the journal.
    pub access_log_per_second: NonZeroU32,
    /// `watch_config`: reload when the file changes. Default true.
    pub watch_config: bool,
    /// `user` to become when started as root; default `convey`, and `nobody` where there is no such user.
    pub user: Option<String>,
    /// `workers`: worker threads of the proxy; `None` (`"auto"`) means one for each CPU the process may use.
    pub workers: Option<NonZeroU32>,
    /// `shutdown_timeout`: how long SIGTERM waits for connections. Default 30 s.
    pub shutdown_timeout: Duration,
    /// `state_dir`: what is to outlive the process; `None`: where the service manager says, else `/var/lib/convey`.
    pub state_dir: Option<PathBuf>,
    /// `ticket_keys_file`: the keys of TLS tickets, shared with other load balancers; `None`: our own, in the state directory.
    pub ticket_keys_file: Option<PathBuf>,
    /// `hash_seed` of the hash that maps clients to servers; `None`: the published one.
    pub hash_seed: Option<HashSeed>,
}

/// `hash_seed`: as secret as the file, so not in logs.
#[derive(Clone, PartialEq, Eq)]
pub struct HashSeed(pub String);

impl std::fmt::Debug for HashSeed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HashSeed")
    }
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// Only errors.
    Error,
    /// Errors and warnings.
    Warn,
    /// State changes and the access log too.
    Info,
    /// What helps to find a fault.
    Debug,
    /// Everything.
    Trace,
}

/// `[stats]`: 0.3.5's JSON over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    /// `port` (string or integer) on `listen_addr`, which is loopback (127.0.0.1) unless given.
    pub listen: ListenAddr,
}

/// How packets of a frontend are treated (DESIGN §1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Connections are terminated and a second one goes to the server.
    Proxy,
    /// Packets are full-NATed.
    Passthrough,
    /// Only the destination is rewritten; the server answers the client directly.
    Dsr,
}

impl Mode {
    /// Whether packets are forwarded rather than connections relayed.
    #[must_use]
    pub const fn is_packet(self) -> bool {
        matches!(self, Self::Passthrough | Self::Dsr)
    }
}

/// `[frontends.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frontend {
    /// Its name.
    pub name: FrontendName,
    /// The addresses of `listen_addr` (a string or a list): none overlaps another. In mode proxy each is on `interface`, if that is
    /// given. Empty only if there are `sockets`.
    pub listen: Vec<ListenRange>,
    /// The unix sockets of `listen_addr`, in mode proxy with TCP only.
    pub sockets: Vec<SocketPath>,
    /// `socket_mode` and `socket_group`: who may connect to those.
    pub socket_rights: SocketRights,
    /// `mode`.
    pub mode: Mode,
    /// `protocol`, default TCP.
    pub protocol: Protocol,
    /// `interface` where the packets of a packet mode's VIPs arrive; `None`: the one that has the VIP. In mode proxy where what
    /// is served arrives; `None`: every one.
    pub interface: Option<String>,
    /// `backend`: exists in [`Config::backends`]. Where it is not given, the first that a route leads to.
    pub backend: BackendName,
    /// `[[routes]]` and what stands beside them.
    pub routing: Routing,
    /// `tls`; `None`: TLS does not end here.
    pub tls: Option<FrontendTls>,
    /// `proxy_protocol`; `None`: every peer is a client that speaks for itself.
    pub proxy_protocol: Option<AcceptProxy>,
    /// `source`: the address that servers see. Default own.
    pub source: SourceAddress,
    /// `udp`; `None` unless UDP is proxied.
    pub udp: Option<UdpSessions>,
    /// `max_connections` of the process on this frontend; more wait in the kernel's accept queue.
    pub max_connections: Option<NonZeroU32>,
    /// `idle_timeout`: a connection on which nothing moves for so long is closed. Default 10 min; `None` (`0`) never.
    /// In packet modes a flow is forgotten, default 15 min for TCP; UDP in all modes 60 s; both never `None`.
    pub idle_timeout: Option<Duration>,
    /// `fin_timeout`: another `idle_timeout` once one side has closed its half. Default `None` (`0`): the same.
    pub fin_timeout: Option<Duration>,
    /// `max_lifetime`: a connection or a session of UDP ends so long after it began. Default `None` (`0`): never.
    pub max_lifetime: Option<Duration>,
    /// `tcp_user_timeout`: sent data unacknowledged for so long kills either connection (TCP_USER_TIMEOUT).
    /// Default `None` (`0`): leaves the kernel's retransmission limit.
    pub tcp_user_timeout: Option<Duration>,
    /// `client_keepalive` of the clients' connections; `None` (`enabled = false`): none.
    pub client_keepalive: Option<KeepAlive>,
    /// `tcp_fast_open`, `defer_accept`, `backlog`.
    pub listener: ListenerOptions,
    /// `upload_rate`, `download_rate`.
    pub rates: ConnectionRates,
    /// `client_socket`: options of the sockets that clients connect to.
    pub client_socket: SocketOptions,
    /// `access_log`: one event for each connection. Default all.
    pub access_log: AccessLog,
    /// `connection_log`: where they go.
    pub connection_log: ConnectionLog,
    /// `access`; `None`: every client may connect. Each list it names is in [`Config::network_lists`].
    pub access: Option<AccessRules>,
    /// `limits`.
    pub limits: Limits,
}

/// A file of networks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkList {
    /// Its path, absolute.
    pub path: PathBuf,
}

impl Config {
    /// Every `certificate_dir`.
    pub fn certificate_dirs(&self) -> impl Iterator<Item = &Path> {
        let ended = (self.frontends.values()).filter_map(|frontend| frontend.tls.as_ref());
        ended.filter_map(|tls| tls.certificate_dir.as_deref())
    }

    /// Every file that is about TLS, without those of a `certificate_dir`.
    pub fn tls_files(&self) -> impl Iterator<Item = &Path> {
        let ended = (self.frontends.values()).filter_map(|frontend| frontend.tls.as_ref());
        let to_servers = (self.backends.values()).flat_map(|backend| backend.all_tls());
        (ended.flat_map(FrontendTls::files))
            .chain(to_servers.flat_map(BackendTls::files))
            .chain(self.global.ticket_keys_file.as_deref())
            .chain(self.admin.tls_files())
    }
}

impl Frontend {
    /// The lists of networks that it names.
    pub fn lists(&self) -> impl Iterator<Item = &NetworkListName> {
        let rules = self.access.iter().flat_map(|access| &access.rules);
        let routes = self.routing.routes.iter().flat_map(|route| &route.source);
        let peers = self.proxy_protocol.iter().flat_map(|proxy| &proxy.from);
        (rules.map(|rule| &rule.clients).chain(routes).chain(peers)).filter_map(|subject| match subject {
            RuleSubject::List(name) => Some(name),
            RuleSubject::Network(_) => None,
        })
    }

    /// Whether UDP is proxied.
    #[must_use]
    pub const fn has_sessions(&self) -> bool {
        self.udp.is_some()
    }

    /// Most connections or UDP sessions at a time; `None`: as many as the process may have.
    #[must_use]
    pub fn most_connections(&self) -> Option<u32> {
        let sessions = self.udp.map(|udp| udp.max_sessions.get());
        let limits = [self.max_connections.map(u32::from), sessions];
        limits.into_iter().flatten().min()
    }

    /// When the kernel gives up a client's connection.
    #[must_use]
    pub const fn client_timeouts(&self) -> PeerTimeouts {
        PeerTimeouts {
            user_timeout: self.tcp_user_timeout,
            keepalive: self.client_keepalive,
        }
    }

    /// The backends that it may send to: its own first, then those of its routes.
    pub fn targets(&self) -> impl Iterator<Item = &BackendName> {
        let routes = self
            .routing
            .routes
            .iter()
            .filter_map(|route| match &route.target {
                RouteTarget::Backend(name) => Some(name),
                RouteTarget::Reject => None,
            });
        std::iter::once(&self.backend).chain(routes)
    }

    /// What it listens on, a range as one.
    pub fn ranges(&self) -> impl Iterator<Item = EndpointRange> + use<'_> {
        let protocol = self.protocol;
        (self.listen.iter()).map(move |listen| EndpointRange {
            listen: *listen,
            protocol,
        })
    }

    /// Each address and port that it listens on.
    pub fn endpoints(&self) -> impl Iterator<Item = Endpoint> + use<'_> {
        self.ranges().flat_map(EndpointRange::endpoints)
    }

    /// What it listens on in mode proxy.
    pub fn listeners(&self) -> impl Iterator<Item = ListenerId> + use<'_> {
        let sockets = self.sockets.iter().copied().map(ListenerId::Unix);
        self.endpoints().map(ListenerId::Network).chain(sockets)
    }

    /// What it listens on as `listen_addr` has it.
    pub fn places(&self) -> impl Iterator<Item = ListenPlace> + use<'_> {
        let sockets = self.sockets.iter().copied().map(ListenPlace::Unix);
        self.listen
            .iter()
            .copied()
            .map(ListenPlace::Network)
            .chain(sockets)
    }

    /// The range of an address that it listens on, and how far the address is from the range's first port; `None` if it does
    /// not listen there.
    #[must_use]
    pub fn range_of(&self, addr: ListenAddr) -> Option<(ListenRange, u16)> {
        let mut ranges = self.listen.iter();
        ranges.find_map(|range| Some((*range, range.offset(addr)?)))
    }
}

/// `[backends.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// Its name.
    pub name: BackendName,
    /// `balance`, default round robin.
    pub balance: Algorithm,
    /// `hash_balance_factor` in percent: most connections of a server against its share, where a hash chooses.
    pub hash_balance_factor: Option<NonZeroU32>,
    /// `sticky`; `None`: each connection is balanced by itself.
    pub sticky: Option<Sticky>,
    /// `connect_timeout` of one attempt. Default 5 s.
    pub connect_timeout: Duration,
    /// `retries` of a failed connect, each on another server while there is one. Default 2.
    pub retries: u32,
    /// `queue_timeout`: how long a connection waits for a server below its `max_connections`. Default 5 s.
    pub queue_timeout: Duration,
    /// `max_queue`: connections that may wait so at a time. Default 1,024.
    pub max_queue: u32,
    /// `server_keepalive` of the connections to the servers; `None` (`enabled = false`): none.
    pub server_keepalive: Option<KeepAlive>,
    /// `server_socket`: options of the sockets towards the servers.
    pub server_socket: ServerSocketOptions,
    /// `source_addr`: source address of connections to the servers.
    pub source_addr: Option<IpAddr>,
    /// `[health_check]`; `None` when `enabled = false`.
    pub health_check: Option<HealthCheck>,
    /// `[passive_check]`; `None` when `enabled = false`.
    pub passive_check: Option<PassiveCheck>,
    /// `on_down`: what happens to the established connections of a server that goes down. Default keep.
    pub on_down: OnDown,
    /// `dsr_method`, default tc.
    pub dsr_method: DsrMethod,
    /// `slow_start`: time over which a server that comes back gets its weight, linearly. Zero: at once (default).
    pub slow_start: Duration,
    /// `fallback`: the backend that serves while this one has no eligible server. No circle leads back.
    pub fallback: Option<BackendName>,
    /// `send_proxy`.
    pub send_proxy: Option<SendProxy>,
    /// `tls`; `None`: connections to the servers are plain.
    pub tls: Option<BackendTls>,
    /// `agent_check`; `None`: servers have no say.
    pub agent_check: Option<AgentCheck>,
    /// `discovery`; `None`: its servers are those of the file.
    pub discovery: Option<Discovery>,
    /// `servers.NAME`, sorted by name; may be empty (then nothing can be served, which is warned about).
    pub servers: BTreeMap<ServerName, Server>,
}

/// `balance`: how a server is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// `round_robin`: smooth weighted round robin (nginx).
    RoundRobin,
    /// `random`: weighted random.
    Random,
    /// `least_connections`: fewest connections for its weight.
    LeastConnections,
    /// `least_bandwidth`: fewest bytes of late for its weight.
    LeastBandwidth,
    /// `power_of_two`: the less loaded of two random servers.
    PowerOfTwo,
    /// `source_hash`: weighted rendezvous hash of the client's IP address.
    SourceHash,
    /// `maglev`: Maglev table of 65,537 over the client's address and port.
    Maglev,
    /// `first`: the first server by name that has room under its `max_connections`.
    First,
}

/// What happens to established connections of a server that goes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OnDown {
    /// They live on.
    Keep,
    /// They are closed.
    Close,
}

/// `[backends.NAME.health_check]`, or 0.3.5's `health_check_interval`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// `kind`, and what belongs to it. Default tcp.
    pub check: Check,
    /// `port` that is checked; `None`: the server's.
    pub port: Option<NonZeroU16>,
    /// `source_addr` of the checks; `None`: that of the backend's connections.
    pub source_addr: Option<IpAddr>,
    /// `tls` of the checks; `None`: that of the backend's connections.
    pub tls: Option<BackendTls>,
    /// `interval` between checks of a server whose state is settled. Default 2 s (0.3.5 dialect: its value, 0 = 5 s).
    pub interval: Duration,
    /// `timeout` of one check. Default 1 s, or the interval if that is shorter (0.3.5 dialect: 3 s).
    pub timeout: Duration,
    /// `rise`: successes in a row that bring a server up. Default 2 (0.3.5 dialect: 1).
    pub rise: NonZeroU32,
    /// `fall`: failures in a row that take a server down. Default 3 (0.3.5 dialect: 1).
    pub fall: NonZeroU32,
    /// `fast_interval` while the state is changing. Default: the smaller of `interval` and 1 s (0.3.5: `interval`).
    pub fast_interval: Duration,
    /// `send_proxy`: checks send a header too, which says that they come from Convey itself. Default false.
    pub send_proxy: bool,
    /// `share`: one check of an address is made for all that want the same. Default false.
    pub share: bool,
    /// `initial` state. Default check (0.3.5 dialect: up).
    pub initial: InitialState,
}

/// State of a server before its first check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InitialState {
    /// Used at once.
    Up,
    /// Not used until `rise` successes.
    Down,
    /// Not used until the first result, which decides alone.
    Check,
}

/// `[backends.NAME.passive_check]`: real connects that fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassiveCheck {
    /// `max_failures` in a row that take a server out. Default 3.
    pub max_failures: NonZeroU32,
    /// `ejection_time` of the first ejection; each further one is longer by as much. Default 10 s.
    pub ejection_time: Duration,
    /// `max_ejection_time`. Default 5 min, or `ejection_time` if that is longer.
    pub max_ejection_time: Duration,
}

/// `[backends.NAME.servers.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Its name.
    pub name: ServerName,
    /// `addr`, IP:port: where the first port of a frontend's range leads.
    pub addr: ServerAddr,
    /// `weight`, default 1; 0 takes it out of the choice.
    pub weight: u16,
    /// `priority`, default 1: only the lowest group with a server up is used.
    pub priority: u16,
    /// `max_connections` of the process to this server; more go elsewhere or wait in the backend's queue.
    pub max_connections: Option<NonZeroU32>,
    /// `sni`: the names that it serves; empty: those that no other server of the backend serves.
    pub sni: Vec<HostPattern>,
    /// `check_addr`: where its checks go. Default `addr`.
    pub check_addr: Option<CheckAddr>,
}
