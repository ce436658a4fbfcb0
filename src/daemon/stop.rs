//! The end: let connections finish, then cut what is left. Nothing new is accepted meanwhile, unless systemd keeps the
//! listeners for the next process: then a client is refused at no time.

use std::time::{Duration, Instant};

use tokio::{task::JoinHandle, time::timeout};

use super::control::Control;
use crate::{base::TerminationReason, proxy::Select};

/// What workers get to answer.
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
    door: Door,
    deadline: Instant,
}

/// Whether new connections are accepted.
#[derive(Debug)]
enum Door {
    /// Until then at most, for another process will take the listeners over. Clients are served here as long as older
    /// connections keep this process, instead of waiting for the next one.
    Open { until: Instant },
    /// What waits in the queues is still accepted, until the task has ended; there is no next process to do it.
    Closing(JoinHandle<()>),
    /// No longer, since then.
    Closed { since: Instant },
}

impl Stopping {
    fn new(timeout: Duration, door: impl FnOnce(Instant) -> Door) -> Self {
        let began = Instant::now();
        let deadline = began + timeout;
        Self {
            began,
            door: door(deadline - LAST_PART.min(timeout / 5)),
            deadline,
        }
    }

    /// What `systemctl status` shows meanwhile.
    pub fn status_line(&self, open: u64) -> String {
        let left = self.deadline.saturating_duration_since(Instant::now());
        format!(
            "stopping: {open} connection(s) left, at most {} s",
            left.as_secs()
        )
    }
}

impl Control {
    /// A signal to end: the first begins the drain, a second ends it. True when the end is now.
    pub(super) fn terminate(&mut self, signal: &'static str) -> bool {
        if self.stopping.is_some() {
            tracing::warn!(event = "stopping", "{signal} again: ending at once");
            return true;
        }
        let time = self.state.config().global.shutdown_timeout;
        let open = self.workers.open_connections();
        if self.notify.store() > 0 {
            tracing::info!(
                event = "stopping",
                "{signal}: {open} open connections have {time:?} to end; systemd keeps the listeners"
            );
            self.stopping = Some(Stopping::new(time, |until| Door::Open { until }));
        } else {
            tracing::info!(
                event = "stopping",
                "{signal}: no new connections; {open} open ones have {time:?} to end"
            );
            let retired: Vec<_> = (self.listeners.take_all().into_iter())
                .map(|addr| self.workers.retire(addr))
                .collect();
            let closing = tokio::spawn(async move {
                for listener in retired {
                    listener.await;
                }
            });
            self.stopping = Some(Stopping::new(time, |_| Door::Closing(closing)));
        }
        self.publish_status();
        self.notify.stopping(&self.status_line());
        false
    }

    /// Goes on with the drain. True when it is over: nothing open, or no time left.
    pub(super) async fn is_drained(&mut self) -> bool {
        self.notify.status(&self.status_line());
        let open = self.workers.open_connections();
        let Some(stopping) = &mut self.stopping else {
            return false;
        };
        let now = Instant::now();
        if now >= stopping.deadline {
            return true;
        }
        match &stopping.door {
            Door::Open { until } => {
                let (is_time, began) = (now >= *until, stopping.began);
                // a worker that is stuck must not hold up the end
                let older = timeout(WORKER_TIME, self.workers.older_connections(began)).await;
                if is_time || older.unwrap_or(0) == 0 {
                    self.close_door().await;
                }
                false
            }
            Door::Closing(task) => {
                if task.is_finished() {
                    stopping.door = Door::Closed { since: now };
                }
                false
            }
            Door::Closed { since } => open == 0 && now >= *since + COUNT_TIME,
        }
    }

    /// Leaves the listeners, and who waits there, to the next process.
    async fn close_door(&mut self) {
        let _ = timeout(WORKER_TIME, self.workers.leave()).await;
        if let Some(stopping) = &mut self.stopping {
            let since = Instant::now();
            stopping.door = Door::Closed { since };
            stopping.deadline = stopping.deadline.min(since + NEWER_TIME);
        }
    }

    /// Cuts what is left and ends the threads.
    pub(super) async fn end(mut self) {
        if let Some(Stopping {
            door: Door::Open { .. },
            ..
        }) = self.stopping
        {
            self.close_door().await;
        }
        let open = self.workers.open_connections();
        if open > 0 {
            tracing::warn!(event = "stopping", "cutting {open} connection(s)");
            self.workers.close(&Select::All, TerminationReason::Killed);
            let deadline = Instant::now() + CUT_TIME;
            while self.workers.open_connections() > 0 && Instant::now() < deadline {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        self.workers.stop();
        self.packets.stop();
        self.endpoints.stop();
        tracing::info!(event = "stopped", "stopped");
    }
}
