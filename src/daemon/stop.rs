//! The end: stop accepting, let connections finish, then cut what is left.

use std::time::{Duration, Instant};

use super::control::Control;
use crate::{base::TerminationReason, proxy::Select};

/// What cut connections get to be logged and closed.
const CUT_TIME: Duration = Duration::from_millis(500);

/// A shutdown that has begun.
#[derive(Debug)]
pub struct Stopping {
    deadline: Instant,
}

impl Stopping {
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
        let timeout = self.config.global.shutdown_timeout;
        self.stopping = Some(Stopping {
            deadline: Instant::now() + timeout,
        });
        self.notify.stopping(&self.status_line());
        tracing::info!(
            event = "stopping",
            "{signal}: no new connections; {} open ones have {timeout:?} to end",
            self.workers.open_connections()
        );
        for addr in self.listeners.take_all() {
            let workers = self.workers.clone();
            tokio::spawn(async move { workers.retire(addr).await });
        }
        false
    }

    /// Whether the drain is over: nothing open, or no time left.
    pub(super) fn is_drained(&self) -> bool {
        let open = self.workers.open_connections();
        self.notify.status(&self.status_line());
        open == 0
            || self
                .stopping
                .as_ref()
                .is_some_and(|s| Instant::now() >= s.deadline)
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
