//! The JSON that the endpoint speaks; the command line reads the same types.

mod acme;
mod certificates;
mod checks;
mod configuration;
mod connections;
mod discovery;
mod events;
mod firewall;
mod history;
mod info;
mod logs;
mod new_server;
mod otlp;
mod overrides;
mod problem;
mod reload;
mod server_request;
mod server_tls;
mod session;
mod sticky;
mod trend;
mod xdp;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    sync::Arc,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use super::candidates::Candidate;
pub use acme::{Acme, Certificate, CertificateProblem, RenewQuery, Renewing};
pub use certificates::{Certificates, ServedCertificate};
pub use checks::{Agent, CheckResult};
pub use configuration::{
    CheckedConfig, ConfigDiff, ConfigHistory, Draining, Finding, Revision, Rollback, WouldCut,
};
pub use connections::{
    Closed, Connection, ConnectionFilter, ConnectionQuery, Connections, Flow, ProxiedConnections, Tls,
    WantedClient,
};
pub use discovery::{Discovery, DiscoveryProblem};
pub use events::{Event, EventFilter, EventQuery, Events};
pub use firewall::Firewall;
pub use history::{History, HistoryQuery, PacketHistory};
pub use info::Info;
pub use logs::LogOutput;
pub use new_server::{AddedServer, NewServer};
pub use otlp::OtlpExport;
pub use overrides::{OverriddenServer, Overrides};
pub use problem::{Problem, ReloadFailed};
pub use reload::{ReloadQuery, Reloaded};
pub use server_request::{ServerAction, ServerRequest};
pub use server_tls::{ServerTls, TlsToServers};
pub use session::{EntryBy, Session};
pub use sticky::StickyClients;
pub use trend::{Percentiles, Rates, Windows};
pub use xdp::{Xdp, XdpInterface};

pub use super::words::{Because, CertificateState, FrontendState, HopState, Overridden, Phase, Word};
use crate::{
    base::{
        AccessReason, Alert, BackendName, BackendState, ClientAddr, DatagramDrop, FrontendName, Handshake,
        ListenAddr, ListenPlace, ListenRange, PacketReason, Protocol, ServerAddr, ServerName, ServerState,
        ServerTlsFailure, TerminationReason,
    },
    config::{Algorithm, EngineChoice, Mode},
};

/// `GET /v1/status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// Version of the running daemon.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime_seconds: f64,
    /// What it is doing.
    pub phase: Word<Phase>,
    /// The configuration file.
    pub config_file: String,
    /// Number of successful configuration loads (1 = the one at start).
    pub config_generation: u64,
    /// Snapshot generation.
    pub snapshot_generation: u64,
    /// The last reload that failed since the last one that succeeded, as text.
    pub last_reload_error: Option<String>,
    /// Changed settings that need a restart to take effect.
    pub needs_restart: Vec<String>,
    /// Worker threads of the proxy.
    pub workers: usize,
    /// All connections of proxy frontends.
    #[serde(default)]
    pub proxied_connections: ProxiedConnections,
    /// Log and access events dropped because the queue was full, or because too many connections ended in a second.
    pub log_events_dropped: u64,
    /// Where lines about connections go besides the journal (`connection_log`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log_outputs: Vec<LogOutput>,
    /// What is exported by OTLP (`[otlp]`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub otlp: Vec<OtlpExport>,
    /// Connections to its endpoints refused because too many were open.
    pub admin_connections_refused: u64,
    /// Logins at the admin API on TCP with a wrong token.
    #[serde(default)]
    pub admin_logins_failed: u64,
    /// Frontends by name.
    pub frontends: BTreeMap<FrontendName, Frontend>,
    /// Backends by name.
    pub backends: BTreeMap<BackendName, Backend>,
    /// The packet modes; `None` while no frontend has needed them.
    pub packet: Option<Packet>,
    /// Certificates that are ordered; `None` if none are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acme: Option<Acme>,
}

/// The packet modes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Packet {
    /// The engine that runs.
    pub engine: Word<EngineChoice>,
    /// Why this engine.
    pub engine_reason: String,
    /// Its worker threads.
    pub workers: usize,
    /// Source ports of new passthrough flows, `first-last`.
    pub nat_ports: String,
    /// Names of the served interfaces.
    pub interfaces: Vec<String>,
    /// The tables.
    pub flows: PacketFlows,
    /// Packets by verdict; verdicts without any are left out.
    pub packets: BTreeMap<Word<PacketReason>, u64>,
    /// What an operator should look at, whichever server it concerns.
    #[serde(default)]
    pub alerts: Vec<Word<Alert>>,
    /// The firewall rules.
    #[serde(default)]
    pub rules: PacketRules,
    /// The program of engine "xdp"; absent while another engine runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xdp: Option<Xdp>,
    /// The next hops of the servers, by IP address.
    pub next_hops: BTreeMap<IpAddr, NextHop>,
}

/// The firewall rules of the packet modes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PacketRules {
    /// Why they are not known to be right; absent as long as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How often another program had changed them and they were restored.
    pub restored: u64,
    /// Seconds since that was last so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored_seconds_ago: Option<u64>,
}

/// How full the tables of flows are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PacketFlows {
    /// Passthrough flows.
    pub nat: u64,
    /// Those of them that are half-open.
    pub half_open: u64,
    /// Flows in the cache of DSR.
    pub dsr: u64,
    /// The limit of both together.
    pub max: u64,
    /// Fragments waiting for the first of their datagram.
    pub fragments_waiting: u64,
    /// Closed and half-open flows that have given their place or NAT port to new ones, since the start.
    #[serde(default)]
    pub gave_way: u64,
}

/// The next hop to a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NextHop {
    /// Whether it is resolved.
    pub state: Word<HopState>,
    /// Why there is none.
    pub reason: Option<String>,
    /// The outgoing interface, once it is resolved.
    pub interface: Option<String>,
    /// Its link address, once it is resolved.
    pub mac: Option<String>,
    /// The source addresses of passthrough flows to it.
    pub locals: Vec<IpAddr>,
    /// Whether their source is a VIP for want of another address: a fail-over moves it.
    #[serde(default)]
    pub source_moves: bool,
    /// Largest IP packet that it takes, in bytes.
    pub mtu: u32,
}

/// Traffic counters of a frontend, backend or server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Traffic {
    /// Connections since start.
    pub connections_total: u64,
    /// Connections now.
    pub connections_current: u64,
    /// Bytes from clients to servers.
    pub bytes_in: u64,
    /// Bytes from servers to clients.
    pub bytes_out: u64,
    /// Datagrams of UDP sessions from clients to servers, in mode proxy.
    #[serde(default)]
    pub datagrams_in: u64,
    /// Datagrams of UDP sessions from servers to clients, in mode proxy.
    #[serde(default)]
    pub datagrams_out: u64,
    /// Connect attempts to servers that failed; of UDP sessions, that ICMP has told the server cannot be reached.
    pub connect_failures: u64,
    /// Connect attempts after the first of a connection.
    pub retries: u64,
    /// Ended connections by reason; reasons without any are left out.
    pub ended: BTreeMap<Word<TerminationReason>, u64>,
}

impl Traffic {
    /// Connections that ended for a reason.
    #[must_use]
    pub fn ended(&self, reason: TerminationReason) -> u64 {
        self.ended.get(&Word::Known(reason)).copied().unwrap_or(0)
    }
}

/// One frontend.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Frontend {
    /// Listen addresses, and paths of unix sockets.
    pub listen: Vec<ListenPlace>,
    /// Its mode.
    pub mode: Word<Mode>,
    /// Its protocol.
    pub protocol: Word<Protocol>,
    /// Whether clients that reach it are served: an eligible server, and addresses that are live or on no interface of this
    /// host.
    pub serves: bool,
    /// Whether its addresses are there; `None` of an older daemon's proxied ones.
    pub state: Option<Word<FrontendState>>,
    /// The waiting addresses, and why.
    pub waiting: BTreeMap<ListenRange, String>,
    /// Backend's name.
    pub backend: BackendName,
    /// Other backends that its routes lead to.
    #[serde(default)]
    pub route_backends: Vec<BackendName>,
    /// `max_connections`, of UDP `udp.max_sessions` if that is less.
    pub max_connections: Option<u32>,
    /// Whether the secrets of its TLS connections are written to a file (`key_log`).
    #[serde(default)]
    pub logs_tls_keys: bool,
    /// Accept calls that failed for lack of resources.
    pub accept_errors: u64,
    /// Connections refused by access rules or limits, in packet modes packets that would have made flows, by reason; reasons
    /// without any are left out.
    pub refused: BTreeMap<Word<AccessReason>, u64>,
    /// `udp.max_sessions`, where UDP is proxied.
    #[serde(default)]
    pub max_sessions: Option<u32>,
    /// Datagrams that the UDP proxy has dropped, by reason; reasons without any are left out.
    #[serde(default)]
    pub datagrams_dropped: BTreeMap<Word<DatagramDrop>, u64>,
    /// Its traffic.
    pub traffic: Traffic,
    /// What goes on of late.
    #[serde(default)]
    pub rates: Rates,
    /// How long its connections lasted that ended of late.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_time: Option<Percentiles>,
    /// How long its TLS handshakes took of late.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handshake_time: Option<Percentiles>,
}

/// One backend.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Backend {
    /// Balancing algorithm.
    pub balance: Word<Algorithm>,
    /// Whether it has an eligible server.
    pub state: Word<BackendState>,
    /// Eligible servers.
    pub eligible: usize,
    /// Connections waiting for a server now.
    pub queued: u32,
    /// What sticks, where something does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sticky: Option<StickyClients>,
    /// TLS to its servers, if connections to them go through that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsToServers>,
    /// Where its servers come from besides the configuration, if they come by themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discovery: Option<Discovery>,
    /// Its traffic.
    pub traffic: Traffic,
    /// What goes on of late.
    #[serde(default)]
    pub rates: Rates,
    /// How long connects to its servers took of late, TLS included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_time: Option<Percentiles>,
    /// How long its connections lasted that ended of late.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_time: Option<Percentiles>,
    /// Servers by name.
    pub servers: BTreeMap<ServerName, Server>,
}

/// One server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Server {
    /// Its address.
    pub addr: ServerAddr,
    /// Its state.
    pub state: Word<ServerState>,
    /// Seconds in that state.
    pub state_seconds: Option<f64>,
    /// Why, such as the last check's error.
    pub state_reason: Option<Arc<str>>,
    /// Whether it is eligible: can be chosen now.
    pub eligible: bool,
    /// Weight in effect.
    pub weight: u16,
    /// Weight in the configuration.
    pub configured_weight: u16,
    /// Percent of its weight in effect (slow start), 0 when it gets no connections.
    pub effective_percent: u32,
    /// Priority group.
    pub priority: u16,
    /// `max_connections`.
    pub max_connections: Option<u32>,
    /// Whether it is not in the configuration.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub discovered: bool,
    /// The operator's override in effect.
    pub overridden: Option<Word<Overridden>>,
    /// What its agent says, if that is anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<Agent>,
    /// Its last checks, the newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub last_checks: Vec<CheckResult>,
    /// Its traffic.
    pub traffic: Traffic,
    /// What goes on of late.
    #[serde(default)]
    pub rates: Rates,
    /// How long connects to it took of late, TLS included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_time: Option<Percentiles>,
    /// How long its connections lasted that ended of late.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_time: Option<Percentiles>,
    /// TLS handshakes with it that failed, by reason; reasons without any are left out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tls_failures: BTreeMap<Word<ServerTlsFailure>, u64>,
    /// What only the packet modes know of it, if they use it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packet: Option<ServerPackets>,
}

/// A server as the packet modes see it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ServerPackets {
    /// What an operator should look at.
    pub alerts: Vec<Word<Alert>>,
    /// TCP handshakes by how they ended; those without any are left out.
    pub handshakes: BTreeMap<Word<Handshake>, u64>,
    /// NAT ports towards it, if a frontend in mode passthrough uses it.
    pub nat_ports: Option<NatPortUse>,
}

/// NAT ports towards a server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NatPortUse {
    /// Those that flows have claimed.
    pub claimed: u32,
    /// Those that there are.
    pub available: u32,
}

impl NatPortUse {
    /// The claimed ones in percent: 100 only when none is left.
    #[must_use]
    pub fn percent(self) -> u32 {
        let percent = u64::from(self.claimed) * 100 / u64::from(self.available.max(1));
        u32::try_from(percent).map_or(100, |percent| percent.min(100))
    }
}

/// Query of `GET /v1/explain`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExplainQuery {
    /// `tcp` or `udp`.
    pub protocol: Protocol,
    /// The client's IP:port.
    pub client: SocketAddr,
    /// The destination, IP:port.
    pub vip: SocketAddr,
    /// The name that its ClientHello asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sni: Option<String>,
    /// The protocols that its ClientHello offers, between commas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alpn: Option<String>,
}

/// `GET /v1/explain`: where packets of a 5-tuple would go now, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Explanation {
    /// Its protocol.
    pub protocol: Word<Protocol>,
    /// The client's address.
    pub client: ClientAddr,
    /// The destination.
    pub vip: ListenAddr,
    /// The frontend that serves it, if any.
    pub frontend: Option<FrontendName>,
    /// That frontend's mode.
    pub mode: Option<Word<Mode>>,
    /// Its backend.
    pub backend: Option<BackendName>,
    /// Why.
    pub because: Word<Because>,
    /// The server's name; `None` if there is none, and if the choice depends on more than the addresses.
    pub server: Option<ServerName>,
    /// The server's address.
    pub server_addr: Option<ServerAddr>,
    /// The server's state.
    pub server_state: Option<Word<ServerState>>,
    /// Eligible servers of the backend.
    pub candidates: usize,
    /// The route that decides, counted from 1; `None` if none does.
    #[serde(default)]
    pub route: Option<NonZeroU32>,
    /// Why the connection would be reset before a server is chosen.
    #[serde(default)]
    pub refused: Option<Word<TerminationReason>>,
    /// The backend's algorithm, if its frontend is proxied.
    #[serde(default)]
    pub balance: Option<Word<Algorithm>>,
    /// The eligible servers with their shares, if its frontend is proxied.
    #[serde(default)]
    pub shares: Vec<Candidate>,
    /// TLS to the server, if connections go through that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_tls: Option<TlsToServers>,
    /// Whether its client's network had this server before, and sticks to it.
    #[serde(default)]
    pub sticky: bool,
    /// Slot of the Maglev table selected by the hash of the 5-tuple.
    pub slot: Option<usize>,
    /// Its flow, if there is one.
    pub flow: Option<Flow>,
    /// What blocks its packets: a verdict's label, or in words why its VIP is waiting.
    pub blocked_by: Option<Word<PacketReason>>,
}

/// Query of `GET /v1/backend-script`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScriptQuery {
    /// Name of a frontend in mode dsr.
    pub frontend: String,
    /// Name of a server of its backend.
    pub server: String,
}
