//! What the checks say, taken into the state.

use std::{
    pin::pin,
    time::{Duration, Instant},
};

use tokio::{sync::mpsc, time::timeout_at};

use super::Control;
use crate::{config::Config, health::HealthUpdate};

/// Longest wait for first results, whatever the checks' own time-outs.
const MAX_FIRST_ROUND: Duration = Duration::from_secs(10);

/// What the wait allows beyond a check's time-out: checks start spread over a moment.
const GRACE: Duration = Duration::from_millis(500);

/// Updates that are taken in one turn of the control loop.
const BATCH: usize = 256;

impl Control {
    /// At the start: waits until every check has had its first result, or the longest time-out has passed.
    pub(super) async fn first_round(&mut self, updates: &mut mpsc::Receiver<HealthUpdate>) {
        let until = longest_check(self.state.config());
        let mut round = pin!(timeout_at(until.into(), self.state.checker().first_round()));
        loop {
            tokio::select! {
                // results first: what the end of the round announces is in the channel by then
                biased;
                Some(update) = updates.recv() => self.health_changed(update, updates),
                _ = &mut round => return,
            }
        }
    }

    /// Takes an update, and some of those that wait behind it. They are in the next snapshot, and what is tried out for a
    /// reload may be known by them.
    pub(super) fn health_changed(&mut self, first: HealthUpdate, more: &mut mpsc::Receiver<HealthUpdate>) {
        let now = Instant::now();
        let waiting = std::iter::from_fn(|| more.try_recv().ok());
        for update in std::iter::once(first).chain(waiting).take(BATCH) {
            self.state.note_health(update, now);
        }
        if self.state.is_settled() {
            self.settled();
        }
    }
}

/// When the slowest of a configuration's checks that starts now has had its time.
pub fn longest_check(config: &Config) -> Instant {
    let backends = config.backends.values();
    let checks = backends.filter_map(|b| b.health_check.as_ref());
    let longest = checks.map(|c| c.timeout).max().unwrap_or_default() + GRACE;
    Instant::now() + longest.min(MAX_FIRST_ROUND)
}
