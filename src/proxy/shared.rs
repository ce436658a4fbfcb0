//! What the workers share with each other and with who orders them.

use std::{collections::HashSet, net::IpAddr, sync::Arc, time::Instant};

use arc_swap::ArcSwap;
use tokio::sync::mpsc;

use super::limit::ConnectionLimit;
use crate::{
    base::{AccessSink, BackendName, ClientAddr, FrontendName, ServerAddr, ServerKey, ServerName, WorkerId},
    snapshot::Snapshot,
};

/// What workers report to the control loop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProxyEvent {
    /// `max_failures` connects in a row to this server failed.
    ServerFailing(ServerKey),
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
}

/// One open connection as a worker sees it.
#[derive(Debug, Clone)]
pub struct OpenConnection {
    /// The client's address; its peer's as long as the client is not known.
    pub client: ClientAddr,
    /// The frontend that accepted it.
    pub frontend: FrontendName,
    /// The backend that it is routed to now.
    pub backend: Option<BackendName>,
    /// Server, once one is connected.
    pub server: Option<ServerName>,
    /// Worker thread.
    pub worker: WorkerId,
    /// When it was accepted.
    pub accepted_at: Instant,
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
}
