//! How fast one way of a connection may be: what of it may be read now, and when more.
//!
//! A bucket of a tenth of a second's bytes (Turner: New Directions in Communications, 1986), so that a burst is short. Once it is
//! empty nothing is read until it has filled by a twentieth: the rest stays in the kernel's buffer, whose window slows the sender
//! down, and the connection is woken twenty times a second at most, however its packets come.

use std::{
    num::NonZeroU64,
    time::{Duration, Instant},
};

/// Time whose bytes the bucket holds.
const BURST: Duration = Duration::from_millis(100);

/// Time for which an empty one fills.
const PAUSE: Duration = Duration::from_millis(50);

/// Bytes a second, and how many of them may come now.
#[derive(Debug)]
pub struct Rate {
    per_second: NonZeroU64,
    /// What may be read; negative after more than that was read before.
    bytes: f64,
    at: Instant,
    /// Nothing is read before.
    pauses_until: Option<Instant>,
}

impl Rate {
    /// A full bucket.
    #[must_use]
    pub fn new(per_second: NonZeroU64, now: Instant) -> Self {
        let mut rate = Self {
            per_second,
            bytes: 0.0,
            at: now,
            pauses_until: None,
        };
        rate.bytes = rate.in_time(BURST);
        rate
    }

    /// Bytes that may be read now; 0 in a pause.
    pub fn allowed(&mut self, now: Instant) -> u64 {
        let past = now.saturating_duration_since(self.at);
        self.at = self.at.max(now);
        self.bytes =
            (self.bytes + past.as_secs_f64() * self.per_second.get() as f64).min(self.in_time(BURST));
        if self.pauses_until.is_some_and(|until| until > now) {
            return 0;
        }
        self.pauses_until = None;
        // 0 of a negative one
        self.bytes as u64
    }

    /// Takes away what was read of `allowed`. Where all of it was, a pause begins.
    pub fn spend(&mut self, bytes: u64, allowed: u64, now: Instant) {
        self.bytes -= bytes as f64;
        if bytes >= allowed && self.pauses_until.is_none() {
            self.pause(now);
        }
    }

    /// Takes away what was read before anybody asked, which may be more than there is: then a pause begins.
    pub fn charge(&mut self, bytes: u64, now: Instant) {
        self.bytes -= bytes as f64;
        if self.bytes < 1.0 {
            self.pause(now);
        }
    }

    /// Until it has filled for the length of a pause.
    fn pause(&mut self, now: Instant) {
        let seconds = (self.in_time(PAUSE) - self.bytes).max(0.0) / self.per_second.get() as f64;
        // a day at most: 64 KiB at one byte a second
        self.pauses_until = now.checked_add(Duration::from_secs_f64(seconds));
    }

    /// When the pause ends, if there is one.
    #[must_use]
    pub const fn pauses_until(&self) -> Option<Instant> {
        self.pauses_until
    }

    /// What may be read in a time, a byte at least.
    fn in_time(&self, time: Duration) -> f64 {
        (self.per_second.get() as f64 * time.as_secs_f64()).max(1.0)
    }
}

/// The rates of both ways.
#[derive(Debug)]
pub struct Rates {
    /// From the client.
    pub up: Option<Rate>,
    /// From the server.
    pub down: Option<Rate>,
}

impl Rates {
    /// When the first pause ends.
    #[must_use]
    pub fn pauses_until(&self) -> Option<Instant> {
        let each = [&self.up, &self.down].into_iter().flatten();
        each.filter_map(Rate::pauses_until).min()
    }

    /// When the last one ends.
    #[must_use]
    pub fn all_resumed(&self) -> Option<Instant> {
        let each = [&self.up, &self.down].into_iter().flatten();
        each.filter_map(Rate::pauses_until).max()
    }
}

/// What one way may still read in a turn. Without a rate: everything. Four bytes, because a connection is to be small.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget(u32);

impl Default for Budget {
    fn default() -> Self {
        Self::ALL
    }
}

impl Budget {
    /// Everything.
    pub const ALL: Self = Self(u32::MAX);

    /// So many bytes, 4 GB at most.
    #[must_use]
    pub fn of(bytes: u64) -> Self {
        Self(u32::try_from(bytes).unwrap_or(u32::MAX).min(u32::MAX - 1))
    }

    /// What is left of it.
    #[must_use]
    pub fn left(self) -> u64 {
        self.0.into()
    }

    /// Whether nothing is left.
    #[must_use]
    pub const fn is_spent(self) -> bool {
        self.0 == 0
    }

    /// How many of so many bytes may be read.
    #[must_use]
    pub fn room(self, most: usize) -> usize {
        usize::try_from(self.0).map_or(most, |left| left.min(most))
    }

    /// Takes away what was read.
    pub fn spend(&mut self, bytes: usize) {
        if *self != Self::ALL {
            let left = self.left().saturating_sub(bytes as u64);
            *self = Self::of(left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rate(per_second: u64, now: Instant) -> Rate {
        Rate::new(NonZeroU64::new(per_second).unwrap(), now)
    }

    /// Reads all that may be read whenever it may for so long; how much, and how often it was woken.
    fn greedy(rate: &mut Rate, mut now: Instant, time: Duration, late: Duration) -> (u64, u32) {
        let (end, mut all, mut woken) = (now + time, 0, 0);
        while now < end {
            let allowed = rate.allowed(now);
            all += allowed;
            woken += 1;
            rate.spend(allowed, allowed, now);
            now = rate.pauses_until().expect("all was read") + late;
        }
        (all, woken)
    }

    #[test]
    fn a_pause_is_not_cut_short_by_what_comes() {
        let now = Instant::now();
        let mut rate = rate(1_000_000, now);
        let allowed = rate.allowed(now);
        assert_eq!(allowed, 100_000);
        rate.spend(allowed, allowed, now);
        for millis in 0..50 {
            assert_eq!(rate.allowed(now + Duration::from_millis(millis)), 0);
        }
        let then = now + Duration::from_millis(50);
        assert_eq!((rate.pauses_until(), rate.allowed(then)), (Some(then), 50_000));
    }

    #[test]
    fn what_is_not_read_does_not_add_up_beyond_a_burst() {
        let now = Instant::now();
        let mut rate = rate(1_000_000, now);
        rate.spend(40_000, 100_000, now);
        assert_eq!(rate.pauses_until(), None, "there is more to read");
        assert_eq!(rate.allowed(now), 60_000);
        assert_eq!(rate.allowed(now + Duration::from_secs(3_600)), 100_000);
    }

    #[test]
    fn what_was_read_before_is_paid_for_first() {
        let now = Instant::now();
        let mut rate = rate(10_000, now);
        rate.charge(400, now);
        assert_eq!((rate.pauses_until(), rate.allowed(now)), (None, 600));
        rate.charge(60_600, now);
        // 60,000 more than there were, and a pause's 500
        let then = now + Duration::from_millis(6_050);
        assert_eq!(rate.pauses_until(), Some(then));
        for millis in [0, 1, 3_000, 6_049] {
            let early = now + Duration::from_millis(millis);
            let allowed = rate.allowed(early);
            rate.spend(allowed, allowed, early);
            assert_eq!(allowed, 0);
        }
        assert!((499..=500).contains(&rate.allowed(then)));
    }

    proptest! {
        #[test]
        fn a_greedy_reader_gets_the_rate_and_is_woken_twenty_times_a_second(per_second in 40_u64..1 << 36) {
            let now = Instant::now();
            let (bytes, woken) = greedy(&mut rate(per_second, now), now, Duration::from_secs(10), Duration::ZERO);
            let due = per_second as f64 * 10.0;
            // a burst more, and what rounding to whole bytes leaves for later
            prop_assert!((0.97..=1.02).contains(&(bytes as f64 / due)), "{bytes} of {due}");
            prop_assert!(woken <= 202, "{woken}");
        }

        #[test]
        fn however_late_it_is_woken_it_gets_no_more_than_the_rate_and_a_burst(
            per_second in 1_u64..1 << 36,
            late in 0_u64..400,
        ) {
            let now = Instant::now();
            let late = Duration::from_millis(late);
            let (bytes, _) = greedy(&mut rate(per_second, now), now, Duration::from_secs(10), late);
            let seconds = 10.0 + late.as_secs_f64() + 1.0 / per_second as f64;
            let most = per_second as f64 * (seconds + 0.15) + 2.0;
            prop_assert!(bytes as f64 <= most, "{bytes} of {most}");
        }
    }
}
