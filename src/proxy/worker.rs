//! A worker thread: its runtime, its listeners and the orders it takes.

use std::{
    collections::HashMap,
    io,
    os::fd::OwnedFd,
    sync::Arc,
    thread::{self, JoinHandle},
};

use tokio::{
    runtime::Builder,
    sync::{mpsc, oneshot},
};

use super::{OpenConnection, Select, Shared, listener::Listener, registry};
use crate::base::{ListenAddr, TerminationReason, WorkerId};

/// Decides whether a connection is listed.
pub type Filter = Arc<dyn Fn(&OpenConnection) -> bool + Send + Sync>;

/// What a worker is told.
pub enum Order {
    /// Accept from this socket.
    Listen(ListenAddr, OwnedFd),
    /// Empty and close the listener's socket.
    Retire(ListenAddr, oneshot::Sender<()>),
    /// End connections.
    Close(Select, TerminationReason),
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
    pub orders: mpsc::UnboundedSender<Order>,
    /// Ends after [`Order::Stop`].
    pub thread: JoinHandle<()>,
}

/// Starts a worker thread.
///
/// # Errors
/// The runtime or the thread cannot be made.
pub fn start(worker: WorkerId, shared: Arc<Shared>) -> io::Result<Worker> {
    let (orders, inbox) = mpsc::unbounded_channel();
    let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
    let thread = thread::Builder::new()
        .name(format!("convey-worker-{}", worker.0))
        .spawn(move || {
            runtime.block_on(obey(worker, shared, inbox));
            // what is still open is dropped with the runtime, on this thread
        })?;
    Ok(Worker { orders, thread })
}

async fn obey(worker: WorkerId, shared: Arc<Shared>, mut inbox: mpsc::UnboundedReceiver<Order>) {
    let mut listeners: HashMap<ListenAddr, oneshot::Sender<oneshot::Sender<()>>> = HashMap::new();
    while let Some(order) = inbox.recv().await {
        match order {
            Order::Listen(addr, socket) => match Listener::new(addr, socket, Arc::clone(&shared), worker) {
                Ok(listener) => {
                    let (retire, retired) = oneshot::channel();
                    listeners.insert(addr, retire);
                    tokio::spawn(listener.run(retired));
                }
                Err(error) => tracing::error!(event = "listen_error", "cannot listen on {addr}: {error}"),
            },
            Order::Retire(addr, done) => {
                // without such a listener `done` is dropped, which the waiting side takes for done
                if let Some(retire) = listeners.remove(&addr) {
                    let _ = retire.send(done);
                }
            }
            Order::Close(select, reason) => registry::close(&select, reason),
            Order::List(filter, limit, reply) => {
                let _ = reply.send(registry::list(worker, &*filter, limit));
            }
            Order::Ping(reply) => {
                let _ = reply.send(());
            }
            Order::Stop => return,
        }
    }
}
