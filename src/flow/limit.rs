//! How often answers of our own are made.

use super::Moment;

/// A token bucket: `rate` a second, and as many at once after a quiet second. Its time is the caller's.
#[derive(Debug)]
pub(super) struct Bucket {
    rate: u64,
    /// Thousandths of a token.
    level: u64,
    filled: Moment,
}

impl Bucket {
    /// A full one. `rate` is in tokens a second, at least 1.
    pub fn new(rate: u64) -> Self {
        let rate = rate.max(1);
        Self {
            rate,
            level: rate.saturating_mul(1_000),
            filled: Moment::default(),
        }
    }

    /// Takes a token if there is one.
    pub fn take(&mut self, now: Moment) -> bool {
        // milliseconds times tokens a second are thousandths of a token
        let gained = now.0.saturating_sub(self.filled.0).saturating_mul(self.rate);
        self.level = (self.level.saturating_add(gained)).min(self.rate.saturating_mul(1_000));
        self.filled = self.filled.max(now);
        let Some(left) = self.level.checked_sub(1_000) else {
            return false;
        };
        self.level = left;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_a_seconds_worth_and_then_the_rate_holds() {
        let mut bucket = Bucket::new(100);
        let taken = |bucket: &mut Bucket, now| (0..1_000).filter(|_| bucket.take(Moment(now))).count();
        assert_eq!(taken(&mut bucket, 5), 100);
        assert_eq!(taken(&mut bucket, 5), 0);
        assert_eq!(taken(&mut bucket, 255), 25);
        assert_eq!(taken(&mut bucket, 100_000), 100, "a long quiet does not pile up");
    }

    #[test]
    fn a_clock_that_goes_back_gives_nothing_and_breaks_nothing() {
        let mut bucket = Bucket::new(1);
        assert!(bucket.take(Moment(10_000)));
        assert!(!bucket.take(Moment(1)));
        assert!(bucket.take(Moment(11_000)));
    }
}
