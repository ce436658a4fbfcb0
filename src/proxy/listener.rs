//! Accepting: one task for each listening socket of a worker.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{io::unix::AsyncFd, sync::oneshot, time::sleep};

use super::{
    Shared,
    connection::{Accepted, FrontendSlot, serve},
};
use crate::{
    base::{ClientAddr, Endpoint, WorkerId},
    snapshot::FrontendView,
    sys::{listener, readiness, tcp},
};

/// Connections accepted in a row before those already accepted have a turn.
const ACCEPT_BATCH: usize = 16;

/// Pause after an accept that failed for want of descriptors or memory: the queue is still full of work, so without
/// one the thread would spin.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(50);

/// Least time between two log events about failing accepts of one listener; `accept_errors` counts them all.
const LOG_PAUSE: Duration = Duration::from_secs(5);

/// Asks a listener to accept what its queue holds and to end; answered when it has. The channel's end without a request
/// makes it leave the queue to whoever else has the socket.
pub type Retire = oneshot::Receiver<oneshot::Sender<()>>;

/// A listening socket at work.
pub struct Listener {
    socket: AsyncFd<OwnedFd>,
    queue: Queue,
}

/// What is known of a listener besides its socket.
struct Queue {
    endpoint: Endpoint,
    shared: Arc<Shared>,
    worker: WorkerId,
    frontend: Arc<FrontendView>,
    /// Of the snapshot that `frontend` was looked up in.
    generation: u64,
    /// When the last failure was logged.
    logged_at: Option<Instant>,
}

/// What stopped a batch.
enum Batch {
    /// Its size; the queue may have more.
    Full,
    /// The queue is empty.
    Empty,
    /// The frontend has as many connections as it may.
    NoSlot,
}

impl Listener {
    /// Registers a socket with this thread's reactor.
    ///
    /// # Errors
    /// No frontend of the snapshot has the endpoint, or the reactor refused the socket.
    pub fn new(
        endpoint: Endpoint,
        socket: OwnedFd,
        shared: Arc<Shared>,
        worker: WorkerId,
    ) -> io::Result<Self> {
        let snapshot = shared.snapshot.load_full();
        let frontend = snapshot
            .frontend_at(endpoint)
            .cloned()
            .ok_or_else(|| io::Error::other("no frontend of the snapshot listens there"))?;
        let generation = snapshot.generation;
        Ok(Self {
            socket: readiness::readable(socket)?,
            queue: Queue {
                endpoint,
                shared,
                worker,
                frontend,
                generation,
                logged_at: None,
            },
        })
    }

    /// Accepts until told to retire. No error ends it: an accept that fails is tried again after a pause.
    pub async fn run(mut self, retire: Retire) {
        let request = tokio::select! {
            biased;
            request = retire => request,
            () = self.accept_for_ever() => return,
        };
        let Ok(done) = request else {
            return;
        };
        // what the queue of a removed listener holds is served all the same, even above `max_connections`
        while let Ok(Batch::Full) = self.queue.accept_batch(&self.socket, false) {}
        // closing is not enough: a service manager may keep the socket as well
        listener::end(self.socket.get_ref().as_fd());
        drop(self);
        let _ = done.send(());
    }

    async fn accept_for_ever(&mut self) {
        loop {
            let batch = match self.socket.readable().await {
                Ok(mut ready) => {
                    let batch = self.queue.accept_batch(&self.socket, true);
                    if matches!(batch, Ok(Batch::Empty)) {
                        ready.clear_ready();
                    }
                    batch
                }
                Err(error) => Err(error),
            };
            match batch {
                Ok(Batch::Empty) => {}
                Ok(Batch::Full) => tokio::task::yield_now().await,
                // the excess waits in the kernel's queue until a connection of the frontend ends
                Ok(Batch::NoSlot) => self.queue.frontend.live.slots.freed().notified().await,
                Err(error) => {
                    self.queue.note_error(&error);
                    sleep(ACCEPT_BACK_OFF).await;
                }
            }
        }
    }
}

impl Queue {
    fn accept_batch(&mut self, socket: &AsyncFd<OwnedFd>, limited: bool) -> io::Result<Batch> {
        self.refresh(socket);
        for _ in 0..ACCEPT_BATCH {
            let slot = match FrontendSlot::take(&self.frontend) {
                Some(slot) => slot,
                None if limited => return Ok(Batch::NoSlot),
                None => FrontendSlot::take_beyond_the_limit(&self.frontend),
            };
            let (socket, client) = match tcp::accept(socket.as_fd()) {
                Ok(accepted) => accepted,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(Batch::Empty),
                Err(e) if concerns_one_connection(&e) => continue,
                Err(e) => return Err(e),
            };
            let accepted = Accepted {
                socket,
                client: ClientAddr(client),
                listen: self.endpoint.addr,
                frontend: Arc::clone(&self.frontend),
                slot,
            };
            tokio::spawn(serve(Arc::clone(&self.shared), self.worker, accepted));
        }
        Ok(Batch::Full)
    }

    /// Takes up a new snapshot. An endpoint that no frontend has any more keeps its last picture until it is retired.
    fn refresh(&mut self, socket: &AsyncFd<OwnedFd>) {
        let snapshot = self.shared.snapshot.load();
        if snapshot.generation == self.generation {
            return;
        }
        self.generation = snapshot.generation;
        let Some(current) = snapshot.frontend_at(self.endpoint) else {
            return;
        };
        let user_timeout = current.config.tcp_user_timeout;
        if user_timeout != self.frontend.config.tcp_user_timeout
            && let Err(error) = tcp::set_user_timeout(socket, user_timeout)
        {
            self.note_error(&error);
        }
        self.frontend = Arc::clone(current);
    }

    /// Counts a failure, and logs it if the last one is some time ago: without descriptors it happens all the time.
    fn note_error(&mut self, error: &io::Error) {
        self.frontend
            .live
            .counters
            .shard(self.worker)
            .accept_errors
            .add(1);
        let now = Instant::now();
        if self.logged_at.is_some_and(|at| now - at < LOG_PAUSE) {
            return;
        }
        self.logged_at = Some(now);
        tracing::warn!(
            event = "accept_error",
            frontend = %self.frontend.config.name,
            "accepting on {}: {error}{}",
            self.endpoint.addr,
            match error.raw_os_error() {
                Some(libc::EMFILE) => "; raise the limit of open files (LimitNOFILE= of the unit, ulimit -n)",
                Some(libc::ENFILE) => "; raise the system's limit of open files (sysctl fs.file-max)",
                _ => "",
            }
        );
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
