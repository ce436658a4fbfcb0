//! The proxy data plane: one runtime a CPU, listeners, relay.
//!
//! ```text
//! Workers ─ orders ─► worker ─┬► tcp: listeners, sessions
//!     │                        └► udp: sockets, sessions
//!     └─ shared: snapshot, limit of connections, where to report
//! ```
//! A connection never leaves the thread that accepted it. Threads share the snapshot, and of it only atomics.

mod choose;
mod limit;
mod owners;
mod places;
mod pool;
mod shared;
mod stick;
mod tcp;
#[cfg(test)]
mod tests;
mod udp;
mod worker;

use std::{
    collections::BTreeSet,
    hash::{BuildHasher, RandomState},
    io,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::Instant,
};

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot};

use crate::{
    base::{AccessSink, ListenerId, SocketKind, TerminationReason, WorkerId},
    snapshot::Snapshot,
};
use limit::ConnectionLimit;
pub use limit::Descriptors;
use owners::Owners;
#[cfg(test)]
pub(crate) use pool::NoSockets;
pub use pool::{Batch, SocketPool};
pub use shared::{Filter, Matching, OpenConnection, ProxyEvent, Select};
use shared::{UniqueIds, WorkerContext};
use worker::ProxyOrder;

/// Connections of the process against their limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Occupancy {
    /// Connections and UDP sessions that are open now.
    pub open: u32,
    /// How many there would be if TCP connections took all that the limit of open files leaves.
    pub most: u32,
    /// How often a listener has stopped accepting because of that.
    pub pauses: u64,
}

/// The worker threads.
pub struct Workers {
    shared: Arc<WorkerContext>,
    orders: Vec<mpsc::UnboundedSender<ProxyOrder>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Workers {
    /// Starts so many threads, each with its runtime. Nothing is accepted before listeners are added, and never more
    /// than `descriptors` allow.
    ///
    /// # Errors
    /// A thread or its runtime cannot be made.
    pub fn start(
        count: usize,
        snapshot: Arc<ArcSwap<Snapshot>>,
        access: Arc<dyn AccessSink>,
        events: mpsc::Sender<ProxyEvent>,
        descriptors: Descriptors,
        sockets: Arc<dyn SocketPool>,
    ) -> io::Result<Self> {
        let (owners, inboxes) = Owners::new(count);
        let shared = Arc::new(WorkerContext {
            snapshot,
            access,
            events,
            limit: ConnectionLimit::new(descriptors, count),
            started: Instant::now(),
            ids: UniqueIds::new(RandomState::new().hash_one(0_u8)),
            owners,
            sockets,
        });
        let workers = (inboxes.into_iter().enumerate())
            .map(|(i, inbox)| worker::start(WorkerId(i), Arc::clone(&shared), inbox))
            .collect::<io::Result<Vec<_>>>()?;
        let (orders, threads) = workers.into_iter().map(|w| (w.orders, w.thread)).unzip();
        Ok(Self {
            shared,
            orders,
            threads: Mutex::new(threads),
        })
    }

    /// Number of workers.
    #[must_use]
    pub fn count(&self) -> usize {
        self.orders.len()
    }

    /// Starts accepting: at least one socket for each worker, all bound to its address, or all one at its path. The frontend must be in the
    /// snapshot by now. Whose connections they are is looked up in the snapshot, so that a reload may give a
    /// listener to another frontend without closing it.
    pub fn listen(&self, id: ListenerId, sockets: Vec<OwnedFd>) {
        debug_assert!(sockets.len() >= self.orders.len(), "a socket for each worker");
        for (worker, socket) in self.orders.iter().cycle().zip(sockets) {
            // a send fails only when the thread is gone, which the watchdog's ping notices
            let _ = worker.send(ProxyOrder::Listen(id, socket));
        }
    }

    /// Keeps sockets of these kinds ready on every worker, and closes all others. Of so many kinds others in the process have
    /// a batch.
    pub fn keep_sockets(&self, kinds: BTreeSet<SocketKind>, elsewhere: usize) {
        let ours = kinds.len() * pool::MOST * self.orders.len();
        self.shared.limit.stock(ours + elsewhere * SocketKind::BATCH);
        let kinds = Arc::new(kinds);
        for worker in &self.orders {
            let _ = worker.send(ProxyOrder::KeepSockets(Arc::clone(&kinds)));
        }
    }

    /// Accepts what the queues of a listener hold, then ends it for everybody who has its sockets. It is ordered when this
    /// returns: one of the same name that is given later stays. Resolves when done on every worker.
    pub fn retire(&self, id: ListenerId) -> impl Future<Output = ()> + Send + use<> {
        let done = self.ask_all(move |done| ProxyOrder::Retire(id, done));
        async move { drop(done.await) }
    }

    /// Accepts nothing more, and leaves the listeners with what they hold to whoever else has their sockets.
    pub fn leave(&self) -> impl Future<Output = ()> + Send + use<> {
        let left = self.ask_all(ProxyOrder::Leave);
        async move { drop(left.await) }
    }

    /// How many open connections were accepted before.
    pub fn older_connections(&self, than: Instant) -> impl Future<Output = usize> + Send + use<> {
        let counts = self.ask_all(move |reply| ProxyOrder::CountOlder(than, reply));
        async move { counts.await.into_iter().sum() }
    }

    /// How many open connections are selected.
    pub fn count_connections(&self, select: &Select) -> impl Future<Output = usize> + Send + use<> {
        let select = select.clone();
        let counts = self.ask_all(move |reply| ProxyOrder::Count(select.clone(), reply));
        async move { counts.await.into_iter().sum() }
    }

    /// Closes connections with a reason: it is ordered when this returns, and resolves to how many. They end within moments.
    pub fn close(
        &self,
        select: &Select,
        reason: TerminationReason,
    ) -> impl Future<Output = usize> + Send + use<> {
        let select = select.clone();
        let counts = self.ask_all(move |done| ProxyOrder::Close(select.clone(), reason, done));
        async move { counts.await.into_iter().sum() }
    }

    /// Lists open connections that `filter` accepts: how many, and the `limit` oldest, oldest first.
    pub async fn connections(&self, filter: Filter, limit: usize) -> (usize, Vec<OpenConnection>) {
        let answers = self
            .ask_all(|reply| ProxyOrder::List(Arc::clone(&filter), limit, reply))
            .await;
        let total = answers.iter().map(|(total, _)| total).sum();
        let mut connections: Vec<_> = answers.into_iter().flat_map(|(_, some)| some).collect();
        connections.sort_by_key(|c| c.accepted_at);
        connections.truncate(limit);
        (total, connections)
    }

    /// Connections open on all workers.
    #[must_use]
    pub fn open_connections(&self) -> u64 {
        u64::from(self.shared.limit.open())
    }

    /// Connections open on all workers, and how many there may be.
    #[must_use]
    pub fn occupancy(&self) -> Occupancy {
        let servers = self.shared.snapshot.load().counts.servers;
        Occupancy {
            open: self.shared.limit.open(),
            most: self.shared.limit.reachable(servers),
            pauses: self.shared.limit.pauses(),
        }
    }

    /// Resolves when every worker's loop has answered; a stuck worker keeps it pending (watchdog).
    ///
    /// Returns whether all are alive: false when a thread is gone.
    pub async fn ping(&self) -> bool {
        self.ask_all(ProxyOrder::Ping).await.len() == self.orders.len()
    }

    /// Ends all threads, whatever they do, and waits for them.
    pub fn stop(&self) {
        for worker in &self.orders {
            let _ = worker.send(ProxyOrder::Stop);
        }
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!(event = "worker_panicked", "a worker thread has panicked");
            }
        }
    }

    /// Sends an order to every worker, now, and collects the answers of those that live.
    fn ask_all<T: Send, F: Fn(oneshot::Sender<T>) -> ProxyOrder>(
        &self,
        order: F,
    ) -> impl Future<Output = Vec<T>> + Send + use<T, F> {
        let ask = |worker: &mpsc::UnboundedSender<ProxyOrder>| {
            let (reply, answer) = oneshot::channel();
            let _ = worker.send(order(reply));
            answer
        };
        let waiting: Vec<_> = self.orders.iter().map(ask).collect();
        async move {
            let mut answers = Vec::with_capacity(waiting.len());
            for answer in waiting {
                if let Ok(answer) = answer.await {
                    answers.push(answer);
                }
            }
            answers
        }
    }
}
