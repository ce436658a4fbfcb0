//! Power of two choices (Mitzenmacher: The Power of Two Choices in Randomized Load Balancing, 2001): two different
//! servers are drawn in proportion to their weights, and the one with fewer connections for its weight is taken; the
//! first drawn if they are equal. Close to least connections without looking at every server, and load balancers
//! that do not know of each other do not all run to the same idle one.

use super::{Pick, hash::mix64, least_connections::Burden, random::Random};

#[derive(Debug)]
pub(super) struct PowerOfTwo {
    draw: Random,
}

impl PowerOfTwo {
    pub(super) fn new(weights: Box<[u32]>) -> Self {
        Self {
            draw: Random::new(weights),
        }
    }

    pub(super) fn pick(&self, pick: &Pick<'_>) -> Option<usize> {
        let first = self.draw.draw(pick.random, pick.usable)?;
        let other = |index: usize| index != first && (pick.usable)(index);
        // another constant than the draw's own: the second draw must not depend on how the first was found
        let Some(second) = self.draw.draw(mix64(pick.random ^ 0x5bd1_e995_5bd1_e995), other) else {
            return Some(first);
        };
        let burden = |index: usize| Burden {
            load: (pick.load)(index),
            weight: self.draw.weight(index),
        };
        if burden(second).is_lighter_than(burden(first)) {
            Some(second)
        } else {
            Some(first)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Chooser, assert_follows};
    use crate::config::Algorithm;

    #[test]
    fn the_most_loaded_server_is_never_chosen_while_there_is_another() {
        let mut chooser = Chooser::new(Algorithm::PowerOfTwo, &[1, 1, 1, 1]);
        chooser.loads = vec![4, 9, 4, 4];
        let counts = chooser.counts(30_000);
        assert_eq!(counts[1], 0);
        assert_follows(&counts, &[1.0, 0.0, 1.0, 1.0]);
    }

    #[test]
    fn idle_servers_share_by_weight() {
        let mut chooser = Chooser::new(Algorithm::PowerOfTwo, &[1, 2, 5]);
        assert_follows(&chooser.counts(50_000), &[1.0, 2.0, 5.0]);
    }

    #[test]
    fn long_connections_end_up_close_to_the_weights() {
        let mut chooser = Chooser::new(Algorithm::PowerOfTwo, &[1, 2, 5]);
        for _ in 0..8_000 {
            let index = chooser.pick().unwrap();
            chooser.loads[index] += 1;
        }
        for (load, due) in chooser.loads.iter().zip([1_000, 2_000, 5_000]) {
            assert!(load.abs_diff(due) <= due / 50, "{:?}", chooser.loads);
        }
    }

    #[test]
    fn the_only_usable_server_is_taken_whatever_its_load() {
        let mut chooser = Chooser::new(Algorithm::PowerOfTwo, &[1, 1]);
        chooser.loads = vec![100, 0];
        chooser.unusable(1);
        assert_eq!(chooser.pick(), Some(0));
    }
}
