//! Whether what is counted is what there is. Pure.
//!
//! Counters change by one with each flow, on several CPUs and from two sides; nothing of that is lost while all of them live. Where
//! something is all the same, so that two scans in a row find the same difference while the counter stands still, it is put
//! right.

use std::collections::BTreeMap;

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Audit {
    last: BTreeMap<usize, Reading>,
}

/// What a scan says of a counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// What it stood at when the scan began.
    pub began: i64,
    /// The same when it ended.
    pub ended: i64,
    /// What the scan has found.
    pub found: i64,
}

impl Audit {
    /// Takes in what a scan says of counters, each by its place. Gives what is to be added to which.
    pub fn take(&mut self, readings: BTreeMap<usize, Reading>) -> Vec<(usize, i64)> {
        let is_wrong = |(place, reading): &(&usize, &Reading)| {
            reading.began == reading.ended
                && reading.found != reading.ended
                && self.last.get(*place) == Some(*reading)
        };
        let wrong = readings.iter().filter(is_wrong);
        let corrections = wrong
            .map(|(place, reading)| (*place, reading.found - reading.ended))
            .collect();
        self.last = readings;
        corrections
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(began: i64, ended: i64, found: i64) -> BTreeMap<usize, Reading> {
        BTreeMap::from([(7, Reading { began, ended, found })])
    }

    #[test]
    fn a_counter_that_is_wrong_twice_while_it_stands_still_is_put_right() {
        let mut audit = Audit::default();
        assert_eq!(audit.take(reading(5, 5, 4)), []);
        assert_eq!(audit.take(reading(5, 5, 4)), [(7, -1)]);
        assert_eq!(audit.take(reading(4, 4, 4)), []);
        assert_eq!(audit.take(reading(4, 4, 6)), []);
        assert_eq!(audit.take(reading(4, 4, 6)), [(7, 2)]);
    }

    #[test]
    fn one_that_moves_is_left_alone() {
        let mut audit = Audit::default();
        for step in 0..10 {
            assert_eq!(audit.take(reading(step, step + 1, step)), []);
        }
        assert_eq!(audit.take(reading(5, 5, 4)), []);
        assert_eq!(audit.take(reading(6, 6, 5)), [], "another one");
        assert_eq!(audit.take(BTreeMap::new()), []);
        assert_eq!(audit.take(reading(6, 6, 5)), [], "not in a row");
    }
}
