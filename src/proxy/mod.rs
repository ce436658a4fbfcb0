//! The proxy data plane: one runtime a CPU, listeners, relay.

use std::{io, os::fd::OwnedFd, sync::Arc};

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot};

use crate::{
    base::{AccessSink, FrontendName, ListenAddr, ServerAddr, ServerKey, TerminationReason},
    snapshot::Snapshot,
};

/// A listening address of a frontend. Each worker has one socket of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenerKey {
    /// The frontend.
    pub frontend: FrontendName,
    /// The address.
    pub addr: ListenAddr,
}

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
    /// Those to one server address of a backend.
    Server(ServerKey, ServerAddr),
}

/// One open connection as a worker sees it.
#[derive(Debug, Clone)]
pub struct OpenConnection {
    /// Client's address.
    pub client: crate::base::ClientAddr,
    /// Frontend.
    pub frontend: FrontendName,
    /// Backend.
    pub backend: crate::base::BackendName,
    /// Server, once one is chosen.
    pub server: Option<crate::base::ServerName>,
    /// Worker thread.
    pub worker: crate::base::WorkerId,
    /// When it was accepted.
    pub accepted_at: std::time::Instant,
    /// Bytes from the client.
    pub bytes_in: u64,
    /// Bytes to the client.
    pub bytes_out: u64,
}

/// The worker threads.
pub struct Workers {}

impl Workers {
    /// Starts so many threads, each with its runtime. Nothing is accepted before listeners are added.
    ///
    /// # Errors
    /// A thread or its runtime cannot be made.
    pub fn start(
        count: usize,
        snapshot: Arc<ArcSwap<Snapshot>>,
        access: Arc<dyn AccessSink>,
        events: mpsc::Sender<ProxyEvent>,
    ) -> io::Result<Self> {
        let _ = (count, snapshot, access, events);
        todo!()
    }

    /// Number of workers.
    #[must_use]
    pub fn count(&self) -> usize {
        todo!()
    }

    /// Starts accepting: one socket for each worker, all bound to the key's address.
    pub fn listen(&self, key: &ListenerKey, sockets: Vec<OwnedFd>) {
        let _ = (key, sockets);
        todo!()
    }

    /// Accepts what the queues of a listener hold, then closes it. Resolves when done on every worker.
    pub async fn retire(&self, key: &ListenerKey) {
        let _ = key;
        todo!()
    }

    /// Closes connections with a reason. Returns at once; they end within moments.
    pub fn close(&self, select: &Select, reason: TerminationReason) {
        let _ = (select, reason);
        todo!()
    }

    /// Lists open connections that `filter` accepts: how many, and the `limit` oldest of each worker.
    pub async fn connections(
        &self,
        filter: Arc<dyn Fn(&OpenConnection) -> bool + Send + Sync>,
        limit: usize,
    ) -> (usize, Vec<OpenConnection>) {
        let _ = (filter, limit);
        todo!()
    }

    /// Connections open on all workers.
    #[must_use]
    pub fn open_connections(&self) -> u64 {
        todo!()
    }

    /// Resolves when every worker's loop has answered; a stuck worker keeps it pending (watchdog).
    pub async fn ping(&self) {
        let (_tx, rx) = oneshot::channel::<()>();
        let _ = rx.await;
        todo!()
    }

    /// Ends all threads, whatever they do.
    pub fn stop(self) {
        todo!()
    }
}
