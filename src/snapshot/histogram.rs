//! How long things take: histograms that a worker writes without a lock, and percentiles of them.

use std::{sync::OnceLock, time::Duration};

use super::counter::Counter;
use crate::base::WorkerId;

/// Upper ends of the buckets in microseconds, each itself included: 1, 2.5 and 5 of each power of ten as is customary in
/// Prometheus, from a connect within a rack to a connection of an hour. What is longer is in one more.
pub const BOUNDS: [u64; 22] = [
    100,
    250,
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
    600_000_000,
    1_800_000_000,
    3_600_000_000,
];

const BUCKETS: usize = BOUNDS.len() + 1;

/// One thread's part of a histogram.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Histogram {
    buckets: [Counter; BUCKETS],
    micros: Counter,
}

/// What a histogram holds at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Times {
    /// How many took at most as long as the bound of that index and longer than the one before.
    pub buckets: [u64; BUCKETS],
    /// All of them together, in microseconds.
    pub micros: u64,
}

/// A part for each worker, made when it is first needed.
#[derive(Debug)]
pub struct PerWorker<T>(Box<[OnceLock<Box<T>>]>);

impl Histogram {
    /// Counts one. Only the thread that owns it may.
    #[inline]
    pub fn add(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.buckets[BOUNDS.partition_point(|bound| *bound < micros)].add(1);
        self.micros.add(micros);
    }
}

impl<T: Default> PerWorker<T> {
    /// For so many workers.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self((0..workers).map(|_| OnceLock::new()).collect())
    }

    /// The calling worker's own.
    #[inline]
    #[must_use]
    pub fn own(&self, worker: WorkerId) -> &T {
        self.0[worker.0].get_or_init(Box::default)
    }

    /// Those that there are.
    pub fn all(&self) -> impl Iterator<Item = &T> {
        self.0.iter().filter_map(|part| part.get().map(|part| &**part))
    }
}

impl PerWorker<Histogram> {
    /// The sum of all parts.
    #[must_use]
    pub fn times(&self) -> Times {
        Times::sum(self.all())
    }
}

impl Times {
    /// The sum of some parts.
    #[must_use]
    pub fn sum<'a>(parts: impl Iterator<Item = &'a Histogram>) -> Self {
        let mut times = Self::default();
        for part in parts {
            for (sum, bucket) in times.buckets.iter_mut().zip(&part.buckets) {
                *sum += bucket.read();
            }
            times.micros = times.micros.wrapping_add(part.micros.read());
        }
        times
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// What has come since an earlier moment.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            buckets: std::array::from_fn(|i| self.buckets[i].saturating_sub(earlier.buckets[i])),
            micros: self.micros.saturating_sub(earlier.micros),
        }
    }

    /// The time that `percent` of them took at most, by straight lines within buckets as Prometheus' `histogram_quantile` has
    /// it; beyond the last bound that bound. `None`: there are none.
    #[must_use]
    pub fn percentile(&self, percent: u32) -> Option<Duration> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        // in hundredths of one, so that nothing is rounded before the end
        let wanted = u128::from(count) * u128::from(percent.min(100));
        let mut below = 0_u128;
        for (index, &here) in self.buckets.iter().enumerate() {
            let up_to = below + u128::from(here) * 100;
            if up_to >= wanted && here > 0 {
                let Some(&end) = BOUNDS.get(index) else { break };
                let begin = index.checked_sub(1).map_or(0, |before| BOUNDS[before]);
                let part = u128::from(end - begin) * (wanted - below) / (u128::from(here) * 100);
                let micros = begin + u64::try_from(part).unwrap_or(u64::MAX);
                return Some(Duration::from_micros(micros));
            }
            below = up_to;
        }
        BOUNDS.last().copied().map(Duration::from_micros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(millis: &[u64]) -> Times {
        let histogram = Histogram::default();
        for millis in millis {
            histogram.add(Duration::from_millis(*millis));
        }
        Times::sum([&histogram].into_iter())
    }

    #[test]
    fn a_bound_belongs_to_the_bucket_that_it_ends() {
        let times = of(&[1, 2, 5, 3_600_000, 3_600_001]);
        let filled: Vec<_> = (times.buckets.iter().enumerate())
            .filter(|(_, count)| **count > 0)
            .map(|(index, count)| (BOUNDS.get(index).copied(), *count))
            .collect();
        assert_eq!(
            filled,
            [
                (Some(1_000), 1),
                (Some(2_500), 1),
                (Some(5_000), 1),
                (Some(3_600_000_000), 1),
                (None, 1),
            ]
        );
        assert_eq!((times.count(), times.micros), (5, 7_200_009_000));
    }

    #[test]
    fn percentiles_lie_in_the_bucket_that_they_fall_into() {
        let mut taken = vec![8; 90];
        taken.extend([80; 10]);
        let times = of(&taken);
        let at = |percent| times.percentile(percent).unwrap();
        assert_eq!(at(45), Duration::from_micros(7_500), "half-way from 5 to 10 ms");
        assert_eq!(at(90), Duration::from_millis(10));
        assert_eq!(at(95), Duration::from_millis(75), "half-way from 50 to 100 ms");
        assert_eq!(at(100), Duration::from_millis(100));
    }

    #[test]
    fn percentiles_of_nothing_are_none_and_beyond_the_last_bound_that_bound() {
        assert_eq!(Times::default().percentile(50), None);
        assert_eq!(of(&[7_200_000]).percentile(50), Some(Duration::from_hours(1)));
    }

    #[test]
    fn what_has_come_since_is_the_difference() {
        let (before, now) = (of(&[1]), of(&[1, 40]));
        assert_eq!(now.since(&before), of(&[40]));
    }

    #[test]
    fn parts_are_made_by_those_who_need_them() {
        let parts: PerWorker<Histogram> = PerWorker::new(3);
        assert_eq!(parts.all().count(), 0);
        parts.own(WorkerId(2)).add(Duration::from_secs(1));
        parts.own(WorkerId(2)).add(Duration::from_secs(1));
        assert_eq!((parts.all().count(), parts.times().count()), (1, 2));
    }
}
