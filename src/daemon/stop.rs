//! The end: let connections finish, then cut what is left. Nothing new is accepted meanwhile, unless systemd keeps the
//! listeners for the next process: then a client is refused at no time.

use std::time::{Duration, Instant};

use tokio::{
    sync::oneshot::{self, error::TryRecvError},
    time::timeout,
};

use super::Control;
use crate::{base::TerminationReason, proxy::Select};

/// What workers get to answer; one that is stuck must not hold up the end.
const WORKER_TIME: Duration = Duration::from_millis(500);

/// What cut connections get to be logged and closed.
const CUT_TIME: Duration = Duration::from_millis(500);

/// What a connection that was accepted last gets to be counted.
const COUNT_TIME: Duration = Duration::from_millis(50);

/// At most so much of shutdown_timeout, and at most a fifth of it, is left to the connections that were accepted last:
/// after it the queues are the next process's.
const LAST_PART: Duration = Duration::from_secs(1);

/// What connections that were accepted while stopping get when the older ones have ended: so long do clients in the
/// queues wait for the next process at most.
const NEWER_TIME: Duration = Duration::from_secs(5);

/// A shutdown that has begun.
#[derive(Debug)]
pub struct Stopping {
    began: Instant,
    accepting: Accepting,
    deadline: Instant,
}

/// Whether new connections are accepted.
#[derive(Debug)]
enum Accepting {
    /// Until then at most, for another process will take the listeners over. Clients are served here as long as older
    /// connections keep this process, instead of waiting for the next one.
    Open {
        until: Instant,
        /// The number of older connections, once the workers have counted.
        older: oneshot::Receiver<usize>,
    },
    /// What waits in the queues is left to the next process, or accepted because there is none; until the workers have
    /// done so.
    Ending {
        done: oneshot::Receiver<()>,
        is_left: bool,
    },
    /// No longer, since then.
    Over { since: Instant },
}

impl Stopping {
    fn new(timeout: Duration, accepting: impl FnOnce(Instant) -> Accepting) -> Self {
        let began = Instant::now();
        let deadline = began + timeout;
        Self {
            began,
            accepting: accepting(deadline - LAST_PART.min(timeout / 5)),
            deadline,
        }
    }

    /// What `systemctl status` shows meanwhile.
    pub fn status_line(&self, open: u64) -> String {
        let left = self.deadline.saturating_duration_since(Instant::now());
        format!(
            "stopping: draining {open} connection(s), up to {} s",
            left.as_secs()
        )
    }
}

impl Control {
    /// Begins the drain if the terminal that the daemon was started on has closed. True if it has.
    pub(super) fn terminal_closed(&mut self) -> bool {
        let is_closed = self.terminal.is_closed();
        if is_closed && self.stopping.is_none() {
            self.terminate("SIGHUP, and the terminal is closed");
        }
        is_closed
    }

    /// A signal to end: the first begins the drain, a second ends it. True when the end is now.
    pub(super) fn terminate(&mut self, signal: &'static str) -> bool {
        if self.stopping.is_some() {
            tracing::warn!(event = "stopping", "{signal} again: stopping now");
            return true;
        }
        self.stop_reloading();
        self.acme.give_up();
        self.give_up_control_socket();
        // under systemd the next process starts only after the end of this one: packets are forwarded until then
        if !self.broker.keeps_rules() {
            self.packets.give_up();
        }
        let time = self.state.config().global.shutdown_timeout;
        let open = self.workers.open_connections();
        if self.notify.store() > 0 {
            tracing::info!(
                event = "stopping",
                "{signal}: draining, up to {time:?} for {open} open connection(s); systemd keeps the listeners"
            );
            let older = self.count_older(Instant::now());
            self.stopping = Some(Stopping::new(time, |until| Accepting::Open { until, older }));
        } else {
            tracing::info!(
                event = "stopping",
                "{signal}: draining, up to {time:?} for {open} open connection(s) (repeat to stop now)"
            );
            let retired: Vec<_> = (self.listeners.take_all().into_iter())
                .map(|id| {
                    self.release_socket(id);
                    self.workers.retire(id)
                })
                .collect();
            let done = in_background(async move {
                for listener in retired {
                    listener.await;
                }
            });
            let is_left = false;
            self.stopping = Some(Stopping::new(time, |_| Accepting::Ending { done, is_left }));
        }
        self.publish_status();
        self.notify.stopping(&self.status_line());
        false
    }

    /// Goes on with the drain. True when it is over: nothing open, or no time left.
    pub(super) fn is_drained(&mut self) -> bool {
        self.notify.status(&self.status_line());
        let open = self.workers.open_connections();
        let now = Instant::now();
        let Some(stopping) = &mut self.stopping else {
            return false;
        };
        if now >= stopping.deadline {
            return true;
        }
        let began = stopping.began;
        match &mut stopping.accepting {
            Accepting::Open { until, older } => {
                let (is_time, counted) = (now >= *until, older.try_recv());
                match counted {
                    _ if is_time => self.leave_listeners(),
                    Ok(0) => self.leave_listeners(),
                    Ok(_) | Err(TryRecvError::Closed) => {
                        let again = self.count_older(began);
                        self.await_older(again);
                    }
                    Err(TryRecvError::Empty) => {}
                }
                false
            }
            Accepting::Ending { done, is_left } => {
                if done.try_recv() != Err(TryRecvError::Empty) {
                    if *is_left {
                        stopping.deadline = stopping.deadline.min(now + NEWER_TIME);
                    }
                    stopping.accepting = Accepting::Over { since: now };
                }
                false
            }
            Accepting::Over { since } => open == 0 && now >= *since + COUNT_TIME,
        }
    }

    /// Whoever starts next may have the control socket's path; requests that are under way are answered.
    fn give_up_control_socket(&mut self) {
        if let Some((file, _)) = &mut self.admin {
            *file = None;
        }
    }

    fn count_older(&self, than: Instant) -> oneshot::Receiver<usize> {
        let older = self.workers.older_connections(than);
        in_background(async move { timeout(WORKER_TIME, older).await.unwrap_or(0) })
    }

    fn await_older(&mut self, counted: oneshot::Receiver<usize>) {
        if let Some(Stopping {
            accepting: Accepting::Open { older, .. },
            ..
        }) = &mut self.stopping
        {
            *older = counted;
        }
    }

    /// Leaves the listeners, and who waits there, to the next process.
    fn leave_listeners(&mut self) {
        let left = self.workers.leave();
        let done = in_background(async move { drop(timeout(WORKER_TIME, left).await) });
        if let Some(stopping) = &mut self.stopping {
            stopping.accepting = Accepting::Ending { done, is_left: true };
        }
    }

    /// Cuts what is left and ends the threads.
    pub(super) async fn end(mut self) {
        if let Some(Stopping {
            accepting: Accepting::Open { .. },
            ..
        }) = self.stopping
        {
            let _ = timeout(WORKER_TIME, self.workers.leave()).await;
        }
        let open = self.workers.open_connections();
        if open > 0 {
            tracing::warn!(event = "stopping", "cutting {open} connection(s)");
            drop(self.workers.close(&Select::All, TerminationReason::Killed));
            let deadline = Instant::now() + CUT_TIME;
            while self.workers.open_connections() > 0 && Instant::now() < deadline {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        self.workers.stop();
        self.packets.stop();
        self.end_otlp().await;
        self.endpoints.stop();
        tracing::info!(event = "stopped", "stopped");
    }
}

/// Runs a future beside the control loop; the receiver is told what it comes to.
fn in_background<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> oneshot::Receiver<T> {
    let (done, result) = oneshot::channel();
    tokio::spawn(async move {
        let _ = done.send(work.await);
    });
    result
}
