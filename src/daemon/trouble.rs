//! What is wrong with a place that something is sent to, and whether the log knows it.

use std::time::{Duration, Instant};

/// Least time between two warnings about one place.
const QUIET: Duration = Duration::from_secs(60);

/// What is wrong with a place.
#[derive(Debug, Default)]
pub struct Trouble {
    /// What is wrong now.
    now: Option<String>,
    /// Since when it has been known, and how many had been dropped before.
    said: Option<(Instant, u64)>,
    /// Whether it was said that it is over.
    is_over: bool,
}

impl Trouble {
    /// What is wrong now.
    pub fn now(&self) -> Option<&str> {
        self.now.as_deref()
    }

    /// Notes that something is wrong, after so many were dropped; true if it is to be said: unless that was a short while ago.
    pub fn begins(&mut self, why: &str, dropped: u64) -> bool {
        let is_new = self.now.replace(why.to_owned()).is_none();
        let is_quiet = self.said.is_some_and(|(at, _)| at.elapsed() < QUIET);
        if !is_new || is_quiet {
            return false;
        }
        self.said = Some((Instant::now(), dropped));
        self.is_over = false;
        true
    }

    /// Notes that all is well; if that is to be said, for the contrary was: how many had been dropped then.
    pub fn ends(&mut self) -> Option<u64> {
        let was_wrong = self.now.take().is_some();
        let (_, before) = self.said.filter(|_| was_wrong && !self.is_over)?;
        self.is_over = true;
        Some(before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_said_once_and_its_end_once() {
        let mut trouble = Trouble::default();
        assert_eq!(trouble.ends(), None);
        assert!(trouble.begins("refused", 3));
        assert!(!trouble.begins("timed out", 4));
        assert_eq!(trouble.now(), Some("timed out"));
        assert_eq!(trouble.ends(), Some(3));
        assert_eq!(trouble.now(), None);
        assert_eq!(trouble.ends(), None);
        // one that comes and goes is not said time and again
        assert!(!trouble.begins("refused", 5));
        assert_eq!(trouble.ends(), None);
    }
}
