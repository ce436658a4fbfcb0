//! A listening socket of a worker: one task that accepts until it is told to end.

use std::{
    future::pending,
    io,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use tokio::{io::unix::AsyncFd, sync::oneshot, time::sleep};

use super::accept::{AcceptQueue, Batch};
use crate::{
    base::{ListenerId, WorkerId},
    proxy::shared::WorkerContext,
    sys::{listener, readiness},
};

/// Pause after an accept that failed for want of descriptors or memory: the queue is still full of work, so without
/// one the thread would spin.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(50);

/// Asks a listener to accept what its queue holds and to end; answered when it has. The channel's end without a request
/// makes it leave the queue to whoever else has the socket.
pub type Retire = oneshot::Receiver<oneshot::Sender<()>>;

/// A listening socket at work.
pub struct Listener {
    socket: AsyncFd<OwnedFd>,
    queue: AcceptQueue,
}

impl Listener {
    /// Registers a socket with this thread's reactor.
    ///
    /// # Errors
    /// No frontend of the snapshot has it, or the reactor refused the socket.
    pub fn new(
        id: ListenerId,
        socket: OwnedFd,
        shared: Arc<WorkerContext>,
        worker: WorkerId,
    ) -> io::Result<Self> {
        let queue = AcceptQueue::new(id, shared, worker)?;
        // of an earlier process it may have others
        queue.set_options(&socket)?;
        let socket = readiness::readable(socket)?;
        Ok(Self { socket, queue })
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
        loop {
            match self.queue.accept_batch(&self.socket, false) {
                Ok(Batch::Full) => {}
                Ok(Batch::ProcessFull) => {
                    if listener::has_waiting(self.socket.get_ref().as_fd()) {
                        self.queue.note_reset();
                    }
                    break;
                }
                Ok(Batch::Empty | Batch::FrontendFull) | Err(_) => break,
            }
        }
        // closing is not enough: a service manager may keep the socket as well
        listener::end(self.socket.get_ref().as_fd());
        drop(self);
        let _ = done.send(());
    }

    async fn accept_for_ever(&mut self) {
        loop {
            let batch = match self.socket.readable().await {
                Ok(mut ready) => {
                    let is_ended = ready.ready().is_read_closed();
                    let batch = self.queue.accept_batch(&self.socket, true);
                    match batch {
                        // by another worker that has the same socket; the reactor reports that again and again
                        Ok(Batch::Empty) | Err(_) if is_ended => pending().await,
                        Ok(Batch::Empty) => ready.clear_ready(),
                        _ => {}
                    }
                    batch
                }
                Err(error) => Err(error),
            };
            // what is above a limit waits in the kernel's queue
            match batch {
                Ok(Batch::Empty) => {}
                Ok(Batch::Full) => tokio::task::yield_now().await,
                Ok(Batch::FrontendFull) => self.queue.frontend_has_room().await,
                Ok(Batch::ProcessFull) => self.queue.process_has_room().await,
                Err(error) => {
                    self.queue.note_error(&error);
                    sleep(ACCEPT_BACK_OFF).await;
                }
            }
        }
    }
}
