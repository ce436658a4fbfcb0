//! What the daemon is to be told of the firewall, and when.

use std::time::{Duration, Instant};

/// How often the daemon is told at most that firewall rules may have been changed: it runs programs to look.
const TELL: Duration = Duration::from_secs(1);

/// That firewall rules may have been changed: told of at once, and then once a second at most.
#[derive(Debug, Default)]
pub struct RulesNews {
    /// When to tell it, as long as there is something to tell.
    due: Option<Instant>,
    told: Option<Instant>,
}

impl RulesNews {
    /// There is something to tell.
    pub(super) fn changed(&mut self, now: Instant) {
        let earliest = self.told.map_or(now, |told| now.max(told + TELL));
        self.due.get_or_insert(earliest);
    }

    /// When to tell it.
    pub(super) const fn due(&self) -> Option<Instant> {
        self.due
    }

    /// It was tried, and whether there was room for it.
    pub(super) fn told(&mut self, now: Instant, is_told: bool) {
        self.told = Some(now);
        self.due = (!is_told).then_some(now + TELL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_at_once_and_those_that_follow_together_a_second_later() {
        let mut news = RulesNews::default();
        let start = Instant::now();
        assert_eq!(news.due(), None);
        news.changed(start);
        assert_eq!(news.due(), Some(start));
        news.told(start, true);
        assert_eq!(news.due(), None);
        for later in [100, 200] {
            news.changed(start + Duration::from_millis(later));
            assert_eq!(news.due(), Some(start + TELL));
        }
        news.told(start + TELL, false);
        assert_eq!(news.due(), Some(start + TELL * 2), "there was no room for it");
        news.told(start + TELL * 2, true);
        news.changed(start + TELL * 9);
        assert_eq!(news.due(), Some(start + TELL * 9));
    }
}
