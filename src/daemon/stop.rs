//! The end: let connections finish, then cut what is left. Nothing new is accepted meanwhile, unless systemd keeps the
//! listeners for the next process: then a client is refused at no time.

use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::control::Control;
use crate::{base::TerminationReason, proxy::Select};

/// What workers get to answer.
const WORKER_TIME: Duration = Duration::from_millis(500);

/// What cut connections get to be logged and closed.
const CUT_TIME: Duration = Duration::from_millis(500);

/// At most so much of shutdown_timeout, and at most a fifth of it, is left to the connections that were accepted while
/// stopping: after it the queues are the next process's.
const LAST_PART: Duration = Duration::from_secs(1);

/// A shutdown that has begun.
#[derive(Debug)]
pub struct Stopping {
    began: Instant,
    /// While another process will take the listeners over: until when new connections are accepted. They are served here
    /// as long as older ones keep this process, instead of waiting for the next one.
    accepting_until: Option<Instant>,
    deadline: Instant,
}

impl Stopping {
    fn new(timeout: Duration, goes_on_accepting: bool) -> Self {
        let began = Instant::now();
        let deadline = began + timeout;
        Self {
            began,
            accepting_until: goes_on_accepting.then(|| deadline - LAST_PART.min(timeout / 5)),
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
        let time = self.config.global.shutdown_timeout;
        let listeners_are_kept = self.notify.store() > 0;
        self.stopping = Some(Stopping::new(time, listeners_are_kept));
        self.notify.stopping(&self.status_line());
        let open = self.workers.open_connections();
        if listeners_are_kept {
            tracing::info!(
                event = "stopping",
                "{signal}: {open} open connections have {time:?} to end; systemd keeps the listeners"
            );
            return false;
        }
        tracing::info!(
            event = "stopping",
            "{signal}: no new connections; {open} open ones have {time:?} to end"
        );
        for addr in self.listeners.take_all() {
            let workers = self.workers.clone();
            tokio::spawn(async move { workers.retire(addr).await });
        }
        false
    }

    /// Goes on with the drain. True when it is over: nothing open, or no time left.
    pub(super) async fn is_drained(&mut self) -> bool {
        self.notify.status(&self.status_line());
        let Some(stopping) = &mut self.stopping else {
            return false;
        };
        if Instant::now() >= stopping.deadline {
            return true;
        }
        let Some(until) = stopping.accepting_until else {
            return self.workers.open_connections() == 0;
        };
        // a worker that is stuck must not hold up the end
        let older = timeout(WORKER_TIME, self.workers.older_connections(stopping.began)).await;
        if Instant::now() >= until || older.unwrap_or(0) == 0 {
            stopping.accepting_until = None;
            let _ = timeout(WORKER_TIME, self.workers.leave()).await;
        }
        // what was accepted last is counted at the next look
        false
    }

    /// Cuts what is left and ends the threads.
    pub(super) async fn end(mut self) {
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
        tracing::info!(event = "stopped", "stopped");
    }
}
