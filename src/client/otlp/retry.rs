//! What a collector's answer means for the request, and how long to wait before the next attempt
//! (OTLP specification 1.x, sections "Failures" and "Throttling").

use std::time::Duration;

use hyper::StatusCode;

/// What an answer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// The collector has taken the request.
    Accepted,
    /// It wants it later.
    Later,
    /// It never will.
    Refused,
}

/// What an answer with a status means.
#[must_use]
pub const fn meaning(status: StatusCode) -> Meaning {
    match status.as_u16() {
        200..=299 => Meaning::Accepted,
        429 | 502 | 503 | 504 => Meaning::Later,
        _ => Meaning::Refused,
    }
}

/// How long to wait before the next attempt at one request: longer each time, and never in step with other exporters.
#[derive(Debug)]
pub struct Backoff {
    /// The most that the next wait takes.
    next: Duration,
}

impl Backoff {
    const FIRST: Duration = Duration::from_secs(1);
    const LAST: Duration = Duration::from_secs(30);

    /// Longest wait that a collector may ask for, so that a wrong one does not end it all.
    pub const LONGEST: Duration = Duration::from_secs(300);

    /// Before the first attempt.
    #[must_use]
    pub const fn new() -> Self {
        Self { next: Self::FIRST }
    }

    /// The wait after an attempt that failed: between half of the longest and that, or for as long as the collector has said if
    /// that is more. `random` is any number.
    pub fn wait(&mut self, said: Option<Duration>, random: u64) -> Duration {
        let most = self.next;
        self.next = (most * 2).min(Self::LAST);
        let half = most / 2;
        let share = u32::try_from(random % 1_000).unwrap_or(0);
        let own = half + half * share / 1_000;
        said.unwrap_or_default().min(Self::LONGEST).max(own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_mean_what_the_specification_says() {
        for (status, meant) in [
            (200, Meaning::Accepted),
            (202, Meaning::Accepted),
            (301, Meaning::Refused),
            (400, Meaning::Refused),
            (401, Meaning::Refused),
            (404, Meaning::Refused),
            (408, Meaning::Refused),
            (413, Meaning::Refused),
            (429, Meaning::Later),
            (500, Meaning::Refused),
            (501, Meaning::Refused),
            (502, Meaning::Later),
            (503, Meaning::Later),
            (504, Meaning::Later),
        ] {
            assert_eq!(meaning(StatusCode::from_u16(status).unwrap()), meant, "{status}");
        }
    }

    #[test]
    fn waits_grow_within_bounds_and_differ() {
        let longest = |random| {
            let mut backoff = Backoff::new();
            (0..8)
                .map(|_| backoff.wait(None, random).as_millis())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            longest(0),
            [500, 1_000, 2_000, 4_000, 8_000, 15_000, 15_000, 15_000]
        );
        assert_eq!(
            longest(999),
            [999, 1_999, 3_998, 7_996, 15_992, 29_985, 29_985, 29_985]
        );
        assert!(longest(u64::MAX).iter().all(|millis| *millis <= 30_000));
    }

    #[test]
    fn a_collector_says_how_long_within_bounds() {
        let mut backoff = Backoff::new();
        // nothing, or a time that is past, is no leave to ask without a pause
        assert!(backoff.wait(Some(Duration::ZERO), 7) >= Duration::from_millis(500));
        assert_eq!(
            backoff.wait(Some(Duration::from_secs(9)), 7),
            Duration::from_secs(9)
        );
        assert_eq!(backoff.wait(Some(Duration::MAX), 7), Backoff::LONGEST);
        // the attempts count all the same
        assert_eq!(backoff.wait(None, 0), Duration::from_secs(4));
    }
}
