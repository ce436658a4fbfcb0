//! Token buckets: so many a second, and as many at once after a quiet second.

use std::num::NonZeroU32;

/// Thousandths of a token: what one a second gains in a millisecond.
const TOKEN: u64 = 1_000;

/// What a bucket lacks of being full. The rate is no part of it, so that another one applies at once. It is full at first.
///
/// A bucket holds a second's tokens: in any `t` seconds at most `rate × (t + 1)` are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bucket {
    /// In thousandths.
    missing: u64,
    /// When that was so, in milliseconds.
    at: u64,
}

impl Bucket {
    /// Takes a token if there is one. `now` is in milliseconds; a time before the last one counts as that.
    pub fn take(&mut self, rate: NonZeroU32, now: u64) -> bool {
        self.refill(rate, now);
        let missing = self.missing + TOKEN;
        let fits = missing <= u64::from(rate.get()) * TOKEN;
        if fits {
            self.missing = missing;
        }
        fits
    }

    /// Gives a token back that was taken and not used.
    pub const fn give_back(&mut self) {
        self.missing = self.missing.saturating_sub(TOKEN);
    }

    /// Whether it is as good as new.
    #[must_use]
    pub fn is_full(mut self, rate: NonZeroU32, now: u64) -> bool {
        self.refill(rate, now);
        self.missing == 0
    }

    fn refill(&mut self, rate: NonZeroU32, now: u64) {
        let passed = now.saturating_sub(self.at);
        let gained = passed.saturating_mul(u64::from(rate.get()));
        self.missing = self.missing.saturating_sub(gained);
        self.at = self.at.max(now);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rate(rate: u32) -> NonZeroU32 {
        NonZeroU32::new(rate).unwrap()
    }

    #[test]
    fn a_bucket_gives_a_second_at_once_and_then_its_rate() {
        let mut bucket = Bucket::default();
        let taken = |bucket: &mut Bucket, now| (0..100).filter(|_| bucket.take(rate(10), now)).count();
        assert_eq!(taken(&mut bucket, 5_000), 10);
        assert_eq!(taken(&mut bucket, 5_099), 0);
        assert_eq!(taken(&mut bucket, 5_100), 1);
        assert_eq!(taken(&mut bucket, 5_350), 2, "half of one is kept");
        assert_eq!(taken(&mut bucket, 5_400), 1);
        assert_eq!(taken(&mut bucket, 4_000), 0, "time does not go back");
        assert_eq!(taken(&mut bucket, 60_000), 10, "and not more after long");
        assert!(!bucket.is_full(rate(10), 60_999) && bucket.is_full(rate(10), 61_000));
    }

    #[test]
    fn another_rate_applies_at_once() {
        let mut bucket = Bucket::default();
        assert_eq!((0..10).filter(|_| bucket.take(rate(2), 0)).count(), 2);
        assert!(bucket.take(rate(3), 0), "a larger one has room");
        assert!(!bucket.take(rate(1), 1_000), "a smaller one pays first");
    }

    proptest! {
        /// However it is asked, no stretch of time gives more than a second's tokens beyond its own.
        #[test]
        fn no_stretch_of_time_gives_more_than_its_share(
            per_second in 1_u32..50,
            steps in proptest::collection::vec(0_u64..400, 1..200),
        ) {
            let (mut bucket, mut now, mut taken) = (Bucket::default(), 0, Vec::new());
            for step in steps {
                now += step;
                if bucket.take(rate(per_second), now) {
                    taken.push(now);
                }
            }
            for (index, first) in taken.iter().enumerate() {
                for (count, last) in (1..).zip(&taken[index..]) {
                    prop_assert!(u64::from(per_second) * (last - first + 1_000) >= count * 1_000);
                }
            }
        }
    }
}
