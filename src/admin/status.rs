//! What the endpoints answer from: what changes by events, and what changes by traffic.
//!
//! ```text
//! control loop ── publishes ──► ArcSwap<Status> ─┐
//!                                                ├─► convey-admin ─► answers
//! workers, packet threads ── count ──► Live ─────┘
//! ```
//! Neither is asked of the control loop: an answer never waits for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    io,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    time::{Instant, SystemTime},
};

use aws_lc_rs::digest::{SHA256, digest};

use super::{
    events::EventLog,
    views::{self, CertificateState, Phase, ProxiedConnections},
};
use crate::{
    base::{Alert, BackendName, EndpointRange, FrontendName, PacketReason, ServerKey, XdpAttachMode},
    config::{Challenge, DiscoveryKind, EngineChoice, Options, Source},
    flow::{self, FiveTuple, FlowInfo, Hops, Usage},
    snapshot::{FrontendView, Snapshot, trend::Sample},
};

/// What changes by events: plain data, published whole whenever something of it changes. The snapshot is in it, so that
/// an answer is of one moment.
#[derive(Debug, Clone)]
pub struct Status {
    /// When the daemon started.
    pub started: Instant,
    /// What it is doing.
    pub phase: Phase,
    /// The configuration file.
    pub config_file: Arc<str>,
    /// Number of successful configuration loads.
    pub config_generation: u64,
    /// The text in effect.
    pub config: Arc<ConfigInEffect>,
    /// The last failed reload, unless one has succeeded since.
    pub last_reload_error: Option<String>,
    /// Changed settings that need a restart to take effect.
    pub needs_restart: Vec<String>,
    /// Worker threads of the proxy.
    pub workers: usize,
    /// The snapshot in effect.
    pub snapshot: Arc<Snapshot>,
    /// Why addresses of frontends wait, those that do.
    pub waiting: Waiting,
    /// The packet modes, if the engine runs.
    pub packet: Option<PacketStatus>,
    /// How sources of servers are, by backend.
    pub discovery: Arc<BTreeMap<BackendName, SourceStatus>>,
    /// How certificates are that are ordered.
    pub acme: Arc<AcmeStatus>,
}

/// The text of the configuration in effect.
#[derive(Debug, Clone)]
pub struct ConfigInEffect {
    /// The text.
    pub source: Source,
    /// What the command line adds.
    pub options: Options,
    /// Its entity tag, which is another for another text.
    pub tag: String,
    /// Whether it may be replaced through the API.
    pub may_write: bool,
    /// Since when.
    pub loaded: Instant,
}

impl ConfigInEffect {
    /// With its tag.
    #[must_use]
    pub fn new(source: Source, options: Options, may_write: bool, loaded: Instant) -> Self {
        Self {
            tag: tag_of(&source.bytes),
            source,
            options,
            may_write,
            loaded,
        }
    }
}

/// What is answered to who would replace a text that is not in effect any more.
pub const CHANGED: &str =
    "the configuration has changed since you have read it: read it anew (If-Match is its ETag)";

/// A strong entity tag of a text: half of its SHA-256.
#[must_use]
pub fn tag_of(text: &[u8]) -> String {
    use std::fmt::Write as _;
    let hash = digest(&SHA256, text);
    let half = hash.as_ref().iter().take(16);
    half.fold("\"".to_owned(), |mut tag, byte| {
        let _ = write!(tag, "{byte:02x}");
        tag
    }) + "\""
}

/// The certificates that are ordered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AcmeStatus {
    /// The CA, as the configuration has it; `None`: nothing is ordered.
    pub directory: Option<Arc<str>>,
    /// Whether this load balancer orders.
    pub leads: bool,
    /// In the order of their names.
    pub certificates: Vec<CertificateStatus>,
}

/// How a certificate is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateStatus {
    /// What it is called.
    pub name: Arc<str>,
    /// The names that it is ordered for.
    pub names: Vec<String>,
    /// The frontends that serve it.
    pub frontends: Vec<FrontendName>,
    /// How the CA sees that the names are ours.
    pub challenge: Challenge,
    /// Whether it is there.
    pub state: CertificateState,
    /// Since when its order is under way.
    pub ordering: Option<Instant>,
    /// Until when it is valid.
    pub not_after: Option<SystemTime>,
    /// Its serial number in hexadecimal digits.
    pub serial: Option<Arc<str>>,
    /// When it is ordered next.
    pub due: Option<SystemTime>,
    /// Why the last order failed, if it did.
    pub problem: Option<CertificateProblem>,
}

/// Why an order failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateProblem {
    /// The reason in one word.
    pub label: &'static str,
    /// In words.
    pub text: Arc<str>,
    /// Since when.
    pub since: Instant,
    /// When the log was last told.
    pub said: Instant,
}

/// How a source of servers is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceStatus {
    /// What it is, such as `file /etc/convey/web.servers`.
    pub source: Arc<str>,
    /// Its kind.
    pub kind: DiscoveryKind,
    /// Servers in effect that are not in the file.
    pub servers: usize,
    /// When its last answer that was obeyed came.
    pub answered: Option<Instant>,
    /// Servers of that which may not be taken.
    pub left_out: usize,
    /// Servers that it named again.
    pub duplicates: usize,
    /// What is wrong, if something is.
    pub problem: Option<SourceProblem>,
}

/// What is wrong with a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceProblem {
    /// Whether it has answered, but would take too many servers away.
    pub is_held: bool,
    /// The reason in one word.
    pub label: &'static str,
    /// In words.
    pub text: Arc<str>,
    /// Since when.
    pub since: Instant,
}

/// The packet modes.
#[derive(Debug, Clone)]
pub struct PacketStatus {
    /// The engine that runs.
    pub engine: EngineChoice,
    /// Why this engine.
    pub engine_reason: Arc<str>,
    /// Where the program of the xdp engine is attached, by the name of the interface.
    pub xdp: BTreeMap<String, AttachStatus>,
    /// Its worker threads.
    pub workers: usize,
    /// Names of the served interfaces.
    pub interfaces: Vec<String>,
    /// Next hops and interfaces.
    pub network: Arc<Network>,
    /// How the firewall rules are.
    pub rules: RulesStatus,
    /// What an operator should look at.
    pub alerts: Arc<Alerts>,
}

/// Where a program is attached to an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachStatus {
    /// Where.
    pub mode: XdpAttachMode,
    /// Why not better, in words; empty if there is nothing to say.
    pub why: String,
}

/// What an operator should look at, by the server that it concerns; `None`: all of them.
pub type Alerts = BTreeMap<Option<ServerKey>, BTreeSet<Alert>>;

/// How the firewall rules are, and what other programs did to them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RulesStatus {
    /// Why they are not known to be right; `None` as long as they are.
    pub error: Option<String>,
    /// How often another program had changed them and they were restored.
    pub restored: u64,
    /// When that was last.
    pub last_restored: Option<Instant>,
    /// What is in effect.
    pub kept: Arc<[KeptRule]>,
}

/// A firewall rule of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptRule {
    /// Whether it belongs to ip6tables.
    pub v6: bool,
    /// Its text as `iptables -S` prints it, without `-A CONVEY`.
    pub text: String,
}

/// The network as the packet modes see it.
#[derive(Debug, Clone, Default)]
pub struct Network {
    /// The next hops of the servers.
    pub hops: Arc<Hops>,
    /// Names of interfaces by index.
    pub links: BTreeMap<u32, String>,
    /// Why there is no next hop for a server.
    pub no_way: BTreeMap<IpAddr, String>,
    /// Passthrough servers whose flows get a VIP as their source for want of another address.
    pub moving: BTreeSet<IpAddr>,
}

/// Why addresses of frontends wait.
pub type Waiting = BTreeMap<EndpointRange, Wait>;

/// Why an address waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    /// In words.
    pub why: String,
    /// Whether no interface of this host has it: another load balancer may.
    pub is_elsewhere: bool,
}

/// What the packet engine has counted, and how full it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PacketCounts {
    /// How full the tables are.
    pub usage: Usage,
    /// Packets by verdict.
    pub packets: Vec<(PacketReason, u64)>,
    /// Packets that the program of the xdp engine has left to the packet sockets, by the label of why.
    pub passed: Vec<(&'static str, u64)>,
}

impl PacketCounts {
    /// For the trend of the packet modes: packets in place of connections, flows in place of open ones.
    #[must_use]
    pub fn sample(&self) -> Sample {
        use PacketReason::{ErrorToClient, ErrorToServer, NotOurs, ToClient, ToServer};
        let mut sample = Sample {
            current: self.usage.nat_flows + self.usage.dsr_flows,
            ..Sample::default()
        };
        for (reason, count) in &self.packets {
            match reason {
                ToServer | ToClient | ErrorToServer | ErrorToClient => sample.connections += count,
                NotOurs => {}
                _ => sample.failures += count,
            }
        }
        sample
    }
}

/// How many match, and some of them.
pub type Listed<T> = (usize, Vec<T>);

/// Resolves to the connections of the proxy that were asked for.
pub type Listing = Pin<Box<dyn Future<Output = Listed<views::Connection>> + Send>>;

/// Resolves to how many connections are closed.
pub type Closing = Pin<Box<dyn Future<Output = usize> + Send>>;

/// What changes by traffic, and what only other rooms can do: what the daemon gives to the endpoints.
///
/// Everything but [`flows`](Live::flows) and [`close_flows`](Live::close_flows) returns within moments.
pub trait Live: Send + Sync {
    /// Log and access events dropped.
    fn log_events_dropped(&self) -> u64;

    /// Where lines about connections go besides the journal.
    fn log_outputs(&self) -> Vec<views::LogOutput>;

    /// What is exported by OTLP.
    fn otlp(&self) -> Vec<views::OtlpExport>;

    /// The last events.
    fn events(&self) -> &Arc<EventLog>;

    /// All connections of proxy frontends.
    fn proxied_connections(&self) -> ProxiedConnections;

    /// What the packet engine has counted; nothing if none runs.
    fn packet_counts(&self) -> PacketCounts;

    /// Where the packet engine would send packets of a 5-tuple; `None` if none runs.
    fn explain(&self, tuple: &FiveTuple) -> Option<flow::Explanation>;

    /// Connections of the proxy that match, the oldest `limit` of them, oldest first. A worker that is stuck keeps it
    /// pending.
    fn connections(&self, filter: Arc<views::ConnectionFilter>, limit: usize) -> Listing;

    /// Closes the connections of the proxy that match, and counts them. A worker that is stuck keeps it pending.
    fn close(&self, filter: Arc<views::ConnectionFilter>) -> Closing;

    /// The texts of the configuration that were in effect, the latest first.
    fn revisions(&self) -> Vec<views::Revision>;

    /// The text of one of them; `None` if there is no such. For a thread that may take its time.
    fn revision(&self, number: u64) -> Option<io::Result<Vec<u8>>>;

    /// Flows that match, `limit` of them. Walks through all flows: for a thread that may take its time.
    fn flows(&self, wanted: &dyn Fn(&FlowInfo) -> bool, limit: usize) -> Listed<FlowInfo>;

    /// Closes flows of passthrough that match, and counts them. For a thread that may take its time.
    fn close_flows(&self, wanted: &dyn Fn(&FlowInfo) -> bool) -> usize;

    /// What to run on a server of a frontend in mode dsr, as text.
    ///
    /// # Errors
    /// In words, why there is no such script.
    fn backend_script(&self, frontend: &FrontendView, server: &str) -> Result<String, String>;
}
