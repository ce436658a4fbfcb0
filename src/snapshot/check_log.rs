//! What the last checks of a server found, for display. Written by its task at each check, which changes no snapshot.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use crate::base::CheckOutcome;

/// Results that are kept of a server.
const KEPT: usize = 3;

/// The last results, the newest at the end.
#[derive(Debug, Default)]
pub struct CheckLog(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    last: VecDeque<CheckRecord>,
    /// How many there were, by outcome.
    counts: [u64; CheckOutcome::ALL.len()],
}

/// One result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckRecord {
    /// When the check began.
    pub at: SystemTime,
    /// How long it took.
    pub took: Duration,
    /// How it ended.
    pub outcome: CheckOutcome,
    /// Why, unless it passed.
    pub reason: Option<Arc<str>>,
}

impl CheckLog {
    /// Adds one, and forgets the oldest if there is no room.
    pub fn add(&self, record: CheckRecord) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.counts[record.outcome as usize] += 1;
        if kept.last.len() == KEPT {
            kept.last.pop_front();
        }
        kept.last.push_back(record);
    }

    /// How many there were, by outcome, and how long the last one took.
    #[must_use]
    pub fn counts(&self) -> ([u64; CheckOutcome::ALL.len()], Option<Duration>) {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (kept.counts, kept.last.back().map(|record| record.took))
    }

    /// They, the newest first.
    #[must_use]
    pub fn last(&self) -> Vec<CheckRecord> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.last.iter().rev().cloned().collect()
    }
}

/// What is known of a server is the same whatever its last results were.
impl PartialEq for CheckLog {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for CheckLog {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_results_are_kept() {
        let log = CheckLog::default();
        for second in 0..8 {
            log.add(CheckRecord {
                at: SystemTime::UNIX_EPOCH + Duration::from_secs(second),
                took: Duration::from_millis(1),
                outcome: CheckOutcome::Passed,
                reason: None,
            });
        }
        let at = |record: &CheckRecord| {
            record
                .at
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap()
                .as_secs()
        };
        assert_eq!(log.last().iter().map(at).collect::<Vec<_>>(), [7, 6, 5]);
        assert_eq!(
            log.counts(),
            ([8, 0, 0], Some(Duration::from_millis(1))),
            "all are counted"
        );
    }
}
