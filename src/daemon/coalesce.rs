//! When the next snapshot is due. Pure: time is an argument.

use std::time::{Duration, Instant};

/// Least time between two snapshots that nobody waits for. The timer wheel adds up to a millisecond, so that what has
/// happened is in effect after 10 ms at most.
const WINDOW: Duration = Duration::from_millis(9);

/// Brings events together: the first after a pause is due at once, those that follow it at the end of its window, in one
/// snapshot.
#[derive(Debug, Default)]
pub struct Coalescer {
    last: Option<Instant>,
    wanted: Option<Instant>,
}

impl Coalescer {
    /// Something has changed now, or will at that moment.
    pub fn want(&mut self, at: Instant) {
        self.wanted = Some(self.wanted.map_or(at, |wanted| wanted.min(at)));
    }

    /// A snapshot with everything that has changed is in effect.
    pub fn published(&mut self, now: Instant) {
        (self.last, self.wanted) = (Some(now), None);
    }

    /// When the next snapshot is due; `None` while nothing has changed.
    pub fn due(&self) -> Option<Instant> {
        let wanted = self.wanted?;
        Some(self.last.map_or(wanted, |last| wanted.max(last + WINDOW)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_first_event_after_a_pause_is_due_at_once_and_those_that_follow_together() {
        let start = Instant::now();
        let mut coalescer = Coalescer::default();
        assert_eq!(coalescer.due(), None);
        coalescer.want(start);
        assert_eq!(coalescer.due(), Some(start));
        coalescer.published(start);
        assert_eq!(coalescer.due(), None);
        for ms in 1..9 {
            coalescer.want(start + ms * MS);
            assert_eq!(coalescer.due(), Some(start + WINDOW));
        }
        coalescer.published(start + WINDOW);
        let later = start + 5 * WINDOW;
        coalescer.want(later);
        assert_eq!(coalescer.due(), Some(later), "the pause was long enough");
    }

    #[test]
    fn what_is_due_later_waits_unless_something_happens_before() {
        let start = Instant::now();
        let mut coalescer = Coalescer::default();
        coalescer.published(start);
        coalescer.want(start + 200 * MS);
        assert_eq!(coalescer.due(), Some(start + 200 * MS));
        coalescer.want(start + 20 * MS);
        assert_eq!(coalescer.due(), Some(start + 20 * MS));
        coalescer.want(start + 300 * MS);
        assert_eq!(coalescer.due(), Some(start + 20 * MS));
    }

    #[test]
    fn no_event_waits_longer_than_the_window() {
        let start = Instant::now();
        let mut coalescer = Coalescer::default();
        for ms in 0..1_000 {
            let now = start + ms * MS;
            coalescer.want(now);
            let due = coalescer.due().unwrap();
            assert!(due.saturating_duration_since(now) <= WINDOW);
            if due <= now {
                coalescer.published(now);
            }
        }
    }
}
