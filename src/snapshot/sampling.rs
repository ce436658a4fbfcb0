//! Which connections of a frontend are logged.

use std::{
    num::NonZeroU32,
    sync::atomic::{AtomicU64, Ordering},
};

use super::FrontendView;
use crate::base::TerminationReason;

/// Counts the connections of a frontend of which only some are logged.
#[derive(Debug, Default)]
pub struct Sampler(AtomicU64);

impl Sampler {
    /// Whether the next one is the first of so many.
    fn takes(&self, one_of: NonZeroU32) -> bool {
        let one_of = u64::from(one_of.get());
        one_of == 1 || self.0.fetch_add(1, Ordering::Relaxed).is_multiple_of(one_of)
    }
}

impl FrontendView {
    /// Whether a connection that ended so is logged. Ask once for each: it is counted for `sample`.
    #[must_use]
    pub fn logs(&self, reason: TerminationReason) -> bool {
        let sample = self.config.connection_log.sample;
        self.config.access_log.wants(reason) && (!reason.is_orderly() || self.live.sampler.takes(sample))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_so_many_is_the_first_of_each_so_many() {
        let sampler = Sampler::default();
        let one_of = |n| NonZeroU32::new(n).unwrap();
        let taken: Vec<usize> = (0..25).filter(|_| sampler.takes(one_of(10))).collect();
        assert_eq!(taken, [0, 10, 20]);
        assert!((0..25).all(|_| sampler.takes(one_of(1))));
    }
}
