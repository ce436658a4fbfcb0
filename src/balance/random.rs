//! Weighted random: each usable server with a probability proportional to its weight.
//!
//! By inversion: the running sums of the weights are searched for a random number below their total. When that finds
//! a server that is not usable, the draw is repeated among the usable ones alone, which leaves the proportions right.

use super::{
    Pick,
    hash::{below, mix64},
};

#[derive(Debug)]
pub(super) struct Random {
    weights: Box<[u32]>,
    /// Sum of the weights up to and with each server.
    sums: Box<[u64]>,
}

impl Random {
    pub(super) fn new(weights: Box<[u32]>) -> Self {
        let sums = weights
            .iter()
            .scan(0, |sum, weight| {
                *sum += u64::from(*weight);
                Some(*sum)
            })
            .collect();
        Self { weights, sums }
    }

    pub(super) fn pick(&self, pick: &Pick<'_>) -> Option<usize> {
        self.draw(pick.random, pick.usable)
    }

    pub(super) fn weight(&self, index: usize) -> u32 {
        self.weights.get(index).copied().unwrap_or(0)
    }

    /// Draws among those that `usable` accepts, if any.
    pub(super) fn draw(&self, random: u64, usable: impl Fn(usize) -> bool) -> Option<usize> {
        let total = *self.sums.last()?;
        if total == 0 {
            return None;
        }
        let point = below(random, total);
        // never a server of weight 0: its sum equals the one before
        let index = self.sums.partition_point(|sum| *sum <= point);
        if usable(index) {
            return Some(index);
        }
        self.draw_by_scan(mix64(random), usable)
    }

    /// One pass; each candidate replaces the one chosen so far with the probability that is its due (reservoir
    /// sampling: M. Chao, A general purpose unequal probability sampling plan, 1982).
    fn draw_by_scan(&self, mut random: u64, usable: impl Fn(usize) -> bool) -> Option<usize> {
        let mut sum = 0;
        let mut chosen = None;
        for (index, &weight) in self.weights.iter().enumerate() {
            if weight == 0 || !usable(index) {
                continue;
            }
            sum += u64::from(weight);
            random = mix64(random.wrapping_add(1));
            if below(random, sum) < u64::from(weight) {
                chosen = Some(index);
            }
        }
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Chooser, assert_follows};
    use crate::config::Algorithm;

    #[test]
    fn servers_are_drawn_in_proportion_to_their_weights() {
        let mut chooser = Chooser::new(Algorithm::Random, &[5, 1, 0, 4]);
        assert_follows(&chooser.counts(100_000), &[5.0, 1.0, 0.0, 4.0]);
    }

    #[test]
    fn the_others_keep_their_proportions_while_one_is_not_usable() {
        let mut chooser = Chooser::new(Algorithm::Random, &[5, 1, 2, 2]);
        chooser.unusable(0);
        assert_follows(&chooser.counts(100_000), &[0.0, 1.0, 2.0, 2.0]);
    }
}
