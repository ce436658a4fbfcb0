//! A worker thread: its runtime, its listeners, its UDP sessions and the orders it takes.

use std::{
    collections::{BTreeSet, HashMap},
    io,
    os::fd::OwnedFd,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Instant,
};

use tokio::{
    runtime::Builder,
    sync::{mpsc, oneshot},
};

use super::{
    owners::Inbox,
    pool,
    shared::{Filter, OpenConnection, Select, WorkerContext},
    tcp::{Listener, limit_pipes, registry},
    udp::UdpWorker,
};
use crate::base::{ListenerId, Protocol, SocketKind, TerminationReason, WorkerId};

/// What a worker is told.
pub enum ProxyOrder {
    /// Accept from this socket.
    Listen(ListenerId, OwnedFd),
    /// Keep sockets of these kinds ready.
    KeepSockets(Arc<BTreeSet<SocketKind>>),
    /// Accept what a listener's sockets hold, and end them.
    Retire(ListenerId, oneshot::Sender<()>),
    /// Leave all listeners, and what they hold, to whoever else has their sockets.
    Leave(oneshot::Sender<()>),
    /// Count the connections that were accepted before.
    CountOlder(Instant, oneshot::Sender<usize>),
    /// Count connections.
    Count(Select, oneshot::Sender<usize>),
    /// End connections, and tell how many.
    Close(Select, TerminationReason, oneshot::Sender<usize>),
    /// List connections.
    List(Filter, usize, oneshot::Sender<(usize, Vec<OpenConnection>)>),
    /// Show that the loop turns.
    Ping(oneshot::Sender<()>),
    /// End the thread.
    Stop,
}

/// A running worker.
pub struct Worker {
    /// Orders go here; the control loop is the only sender, and sends few.
    pub orders: mpsc::UnboundedSender<ProxyOrder>,
    /// Ends after [`ProxyOrder::Stop`].
    pub thread: JoinHandle<()>,
}

/// Starts a worker thread.
///
/// # Errors
/// The runtime or the thread cannot be made.
pub fn start(worker: WorkerId, shared: Arc<WorkerContext>, handed: Inbox) -> io::Result<Worker> {
    let (orders, inbox) = mpsc::unbounded_channel();
    let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
    let thread = thread::Builder::new()
        .name(format!("convey-worker-{}", worker.0))
        .spawn(move || {
            limit_pipes(shared.limit.pipes_a_worker());
            pool::begin(Arc::clone(&shared.sockets));
            runtime.block_on(handle_orders(worker, shared, inbox, handed));
            // what is still open is dropped with the runtime, on this thread
        })?;
    Ok(Worker { orders, thread })
}

async fn handle_orders(
    worker: WorkerId,
    shared: Arc<WorkerContext>,
    mut inbox: mpsc::UnboundedReceiver<ProxyOrder>,
    handed: Inbox,
) {
    let mut udp = UdpWorker::new(Arc::clone(&shared), worker, handed);
    // more than one socket of a listener when they were taken over from a process with more workers
    let mut listeners: HashMap<ListenerId, Vec<oneshot::Sender<oneshot::Sender<()>>>> = HashMap::new();
    loop {
        let order = tokio::select! {
            biased;
            order = inbox.recv() => order,
            () = udp.turn() => continue,
        };
        let Some(order) = order else { return };
        match order {
            ProxyOrder::KeepSockets(kinds) => pool::keep(&kinds),
            ProxyOrder::Listen(ListenerId::Network(endpoint), socket)
                if endpoint.protocol == Protocol::Udp =>
            {
                if let Err(error) = udp.listen(endpoint, socket) {
                    tracing::error!(event = "listen_error", "cannot receive on {endpoint}: {error}");
                }
            }
            ProxyOrder::Retire(ListenerId::Network(endpoint), done) if endpoint.protocol == Protocol::Udp => {
                udp.retire(endpoint);
                let _ = done.send(());
            }
            ProxyOrder::Listen(id, socket) => match Listener::new(id, socket, Arc::clone(&shared), worker) {
                Ok(listener) => {
                    let (retire, retired) = oneshot::channel();
                    listeners.entry(id).or_default().push(retire);
                    tokio::spawn(listener.run(retired));
                }
                Err(error) => {
                    tracing::error!(event = "listen_error", "cannot listen on {id}: {error}");
                }
            },
            ProxyOrder::Retire(id, done) => {
                let retired: Vec<_> = listeners.remove(&id).into_iter().flatten().map(ask).collect();
                tokio::spawn(async move {
                    for listener in retired {
                        let _ = listener.await;
                    }
                    let _ = done.send(());
                });
            }
            ProxyOrder::Leave(done) => {
                // their tasks see the end of the channel before they can accept anything more
                listeners.clear();
                udp.leave();
                let _ = done.send(());
            }
            ProxyOrder::CountOlder(than, reply) => {
                let _ = reply.send(registry::count_older(than) + udp.count_older(than));
            }
            ProxyOrder::Count(select, reply) => {
                let _ = reply.send(registry::count(&select) + udp.count(&select));
            }
            ProxyOrder::Close(select, reason, done) => {
                let closed = registry::close(&select, reason) + udp.close(&select, reason);
                let _ = done.send(closed);
            }
            ProxyOrder::List(filter, limit, reply) => {
                let (connections, mut listed) = registry::list(worker, &*filter, limit);
                let (sessions, more) = udp.list(&*filter, limit);
                listed.extend(more);
                let _ = reply.send((connections + sessions, listed));
            }
            ProxyOrder::Ping(reply) => {
                let _ = reply.send(());
            }
            ProxyOrder::Stop => return,
        }
    }
}

/// Asks a listener to retire; resolves when it has.
fn ask(listener: oneshot::Sender<oneshot::Sender<()>>) -> oneshot::Receiver<()> {
    let (done, answer) = oneshot::channel();
    // one whose task is gone drops `done`, which the waiting side takes for done
    let _ = listener.send(done);
    answer
}
