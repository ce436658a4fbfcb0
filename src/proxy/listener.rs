//! Accepting: one task for each listening socket of a worker.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use tokio::{io::unix::AsyncFd, sync::oneshot, time::sleep};

use super::{
    ListenerKey, Shared,
    connection::{Accepted, FrontendSlot, serve},
};
use crate::{
    base::{ClientAddr, WorkerId},
    snapshot::FrontendView,
    sys::{readiness, tcp},
};

/// Connections accepted in a row before those already accepted have a turn.
const ACCEPT_BATCH: usize = 16;

/// Pause after an accept that failed for want of descriptors or memory: the queue is still full of work, so without
/// one the thread would spin.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(50);

/// Asks a listener to accept what its queue holds and to close; answered when it has.
pub type Retire = oneshot::Receiver<oneshot::Sender<()>>;

/// A listening socket at work.
pub struct Listener {
    key: ListenerKey,
    socket: AsyncFd<OwnedFd>,
    shared: Arc<Shared>,
    worker: WorkerId,
    frontend: Arc<FrontendView>,
    generation: u64,
}

/// Whether the queue has more.
enum Batch {
    More,
    Empty,
}

impl Listener {
    /// Registers a socket with this thread's reactor.
    ///
    /// # Errors
    /// The snapshot does not know the frontend, or the reactor refused the socket.
    pub fn new(key: ListenerKey, socket: OwnedFd, shared: Arc<Shared>, worker: WorkerId) -> io::Result<Self> {
        let snapshot = shared.snapshot.load_full();
        let frontend = snapshot.frontends.get(&key.frontend).cloned();
        let frontend = frontend.ok_or_else(|| io::Error::other("the frontend is not in the snapshot"))?;
        let socket = readiness::readable(socket)?;
        Ok(Self {
            key,
            socket,
            shared,
            worker,
            frontend,
            generation: snapshot.generation,
        })
    }

    /// Accepts until told to retire. No error ends it: an accept that fails is tried again after a pause.
    pub async fn run(mut self, retire: Retire) {
        let done = tokio::select! {
            // only the channel's end can come without a request: then nobody wants this listener any more
            request = retire => request.ok(),
            () = self.accept_for_ever() => None,
        };
        self.accept_the_rest();
        drop(self);
        if let Some(done) = done {
            let _ = done.send(());
        }
    }

    async fn accept_for_ever(&mut self) {
        loop {
            let batch = match self.socket.readable().await {
                Ok(mut ready) => {
                    // the guard borrows the socket, so readiness is decided after the batch
                    let outcome = accept_batch(
                        &self.socket,
                        &self.key,
                        &self.shared,
                        self.worker,
                        &mut self.frontend,
                        &mut self.generation,
                        true,
                    );
                    if matches!(outcome, Ok(Some(Batch::Empty))) {
                        ready.clear_ready();
                    }
                    outcome
                }
                Err(error) => Err(error),
            };
            match batch {
                Ok(Some(Batch::Empty)) => {}
                Ok(Some(Batch::More)) => tokio::task::yield_now().await,
                // the excess waits in the kernel's queue until a connection of the frontend ends
                Ok(None) => self.frontend.live.slots.freed().notified().await,
                Err(error) => {
                    self.frontend
                        .live
                        .counters
                        .shard(self.worker)
                        .accept_errors
                        .add(1);
                    tracing::warn!(
                        event = "accept_error",
                        frontend = %self.key.frontend,
                        "cannot accept connections on {}: {error}; trying again",
                        self.key.addr
                    );
                    sleep(ACCEPT_BACK_OFF).await;
                }
            }
        }
    }

    /// What the queue of a removed listener holds is served all the same, even above `max_connections`.
    fn accept_the_rest(&mut self) {
        loop {
            let outcome = accept_batch(
                &self.socket,
                &self.key,
                &self.shared,
                self.worker,
                &mut self.frontend,
                &mut self.generation,
                false,
            );
            if !matches!(outcome, Ok(Some(Batch::More))) {
                return;
            }
        }
    }
}

/// Accepts some connections; `None` when the frontend has as many as it may.
fn accept_batch(
    socket: &AsyncFd<OwnedFd>,
    key: &ListenerKey,
    shared: &Arc<Shared>,
    worker: WorkerId,
    frontend: &mut Arc<FrontendView>,
    generation: &mut u64,
    limited: bool,
) -> io::Result<Option<Batch>> {
    refresh(key, shared, frontend, generation);
    for _ in 0..ACCEPT_BATCH {
        let slot = match FrontendSlot::take(frontend) {
            Some(slot) => slot,
            None if limited => return Ok(None),
            None => FrontendSlot::take_beyond_the_limit(frontend),
        };
        let (socket, client) = match tcp::accept(socket.as_fd()) {
            Ok(accepted) => accepted,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(Some(Batch::Empty)),
            Err(e) if concerns_one_connection(&e) => continue,
            Err(e) => return Err(e),
        };
        let accepted = Accepted {
            socket,
            client: ClientAddr(client),
            listen: key.addr,
            frontend: Arc::clone(frontend),
            slot,
        };
        tokio::spawn(serve(Arc::clone(shared), worker, accepted));
    }
    Ok(Some(Batch::More))
}

/// Takes up a new snapshot. A frontend that is gone keeps its last picture until its listener is retired.
fn refresh(key: &ListenerKey, shared: &Shared, frontend: &mut Arc<FrontendView>, generation: &mut u64) {
    let snapshot = shared.snapshot.load();
    if snapshot.generation != *generation {
        *generation = snapshot.generation;
        if let Some(current) = snapshot.frontends.get(&key.frontend) {
            *frontend = Arc::clone(current);
        }
    }
}

/// Errors of the connection that was about to be accepted, not of accepting (accept(2), "Error handling").
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNABORTED
                | libc::EINTR
                | libc::EPROTO
                | libc::ENOPROTOOPT
                | libc::EHOSTDOWN
                | libc::ENONET
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::ENETDOWN
                | libc::EOPNOTSUPP
                | libc::EPERM
        )
    )
}
