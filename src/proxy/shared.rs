//! What the workers share with each other and with who orders them.

use std::{
    collections::HashSet,
    fmt,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use tokio::sync::mpsc;

use super::{limit::ConnectionLimit, owners::Owners, pool::SocketPool};
use crate::{
    base::{
        AccessSink, BackendName, ClientAddr, FrontendName, Protocol, Remote, ServerAddr, ServerKey,
        ServerName, ServerTlsFailure, ServerTlsRecord, TlsRecord, UniqueId, WorkerId,
    },
    snapshot::Snapshot,
};

/// What workers report to the control loop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProxyEvent {
    /// `max_failures` connects in a row to this server failed; the last one by its TLS, if there is a reason.
    ServerFailing(ServerKey, Option<ServerTlsFailure>),
}

/// Which connections an order is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Select {
    /// All of them.
    All,
    /// Those to these servers at these addresses.
    Servers(Arc<HashSet<(ServerKey, ServerAddr)>>),
    /// Those that clients have to these addresses, whatever listener accepted them.
    At(Arc<HashSet<(IpAddr, u16)>>),
    /// Those that match.
    Matching(Matching),
}

/// Decides about an open connection.
pub type Filter = Arc<dyn Fn(&OpenConnection) -> bool + Send + Sync>;

/// A filter in an order.
#[derive(Clone)]
pub struct Matching(pub Filter);

impl fmt::Debug for Matching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Matching").finish_non_exhaustive()
    }
}

impl PartialEq for Matching {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Matching {}

/// One open connection as a worker sees it.
#[derive(Debug, Clone)]
pub struct OpenConnection {
    /// The client's address; its peer's as long as the client is not known.
    pub client: Remote<ClientAddr>,
    /// Its protocol: a UDP session, or a TCP connection.
    pub protocol: Protocol,
    /// The frontend that accepted it.
    pub frontend: FrontendName,
    /// The backend that it is routed to now.
    pub backend: Option<BackendName>,
    /// Server, once one is connected.
    pub server: Option<ServerName>,
    /// Where that is.
    pub server_addr: Option<ServerAddr>,
    /// Address and port on our side towards it; only of those that are listed.
    pub local: Option<SocketAddr>,
    /// Time since either side has last sent data; only of those that are listed.
    pub idle: Option<Duration>,
    /// Worker thread.
    pub worker: WorkerId,
    /// When it was accepted.
    pub accepted_at: Instant,
    /// The name that the client has asked for, where that was read.
    pub sni: Option<Arc<str>>,
    /// What its TLS has agreed on, where that ends here.
    pub tls: Option<Arc<TlsRecord>>,
    /// What its TLS with the server has agreed on.
    pub server_tls: Option<Arc<ServerTlsRecord>>,
    /// Bytes from the client.
    pub bytes_in: u64,
    /// Bytes to the client.
    pub bytes_out: u64,
}

/// What all workers share.
pub(crate) struct WorkerContext {
    /// The current snapshot.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// Where finished connections are reported.
    pub access: Arc<dyn AccessSink>,
    /// Where failing servers are reported.
    pub events: mpsc::Sender<ProxyEvent>,
    /// All connections, those of removed frontends too, and how many there may be.
    pub limit: ConnectionLimit,
    /// When the workers were started: the clock of the limits per client.
    pub started: Instant,
    /// Numbers of connections.
    pub ids: UniqueIds,
    /// Which worker has which UDP session.
    pub owners: Owners,
    /// Where sockets come from that take a capability to make.
    pub sockets: Arc<dyn SocketPool>,
}

impl WorkerContext {
    /// Milliseconds on the clock of the limits per client.
    pub fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Numbers of connections that servers are told of and that the connection log has: a random part of the process and a count.
#[derive(Debug)]
pub(crate) struct UniqueIds {
    process: u64,
    last: AtomicU64,
}

impl UniqueIds {
    /// Numbers that begin with this.
    pub const fn new(process: u64) -> Self {
        Self {
            process,
            last: AtomicU64::new(0),
        }
    }

    /// The next one, which no other connection has.
    pub fn next(&self) -> UniqueId {
        UniqueId(u128::from(self.process) << 64 | u128::from(self.last.fetch_add(1, Ordering::Relaxed)))
    }
}
