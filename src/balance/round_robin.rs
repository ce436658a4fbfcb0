//! Smooth weighted round robin, as nginx chooses (commit 52327e0627f4, 2012: "smooth weighted round-robin balancing"):
//! at each choice every server gains its weight, the one that has most is chosen and loses the sum of all gains.
//!
//! A server that is not usable at a choice neither gains nor counts in the sum; so what the others have still adds up
//! to what it did, nothing drifts, and the server goes on from its place when it is back.

use super::Pick;

#[derive(Debug)]
pub(super) struct RoundRobin {
    weights: Box<[u32]>,
    total: u64,
}

/// A thread's place in the round: what each server has gained and not yet spent.
#[derive(Debug, Default)]
pub(super) struct Round {
    current: Vec<i64>,
}

impl RoundRobin {
    pub(super) fn new(weights: Box<[u32]>) -> Self {
        let total = weights.iter().map(|w| u64::from(*w)).sum();
        Self { weights, total }
    }

    pub(super) fn pick(&self, round: &mut Round, seed: u64, pick: &Pick<'_>) -> Option<usize> {
        if round.current.len() != self.weights.len() {
            round.current = self.place(seed);
        }
        let mut gained = 0;
        let mut best: Option<usize> = None;
        let mut most = i64::MIN;
        for (index, (current, &weight)) in round.current.iter_mut().zip(&self.weights).enumerate() {
            if weight == 0 || !(pick.usable)(index) {
                continue;
            }
            gained += i64::from(weight);
            *current += i64::from(weight);
            if *current > most {
                most = *current;
                best = Some(index);
            }
        }
        let best = best?;
        round.current[best] -= gained;
        Some(best)
    }

    /// The round after `seed` choices, computed at once. After k choices a server of weight w has gained k·w and been
    /// chosen about k·w / total times: the whole part for certain, and the servers with the largest remainders once
    /// more, so that the choices add up to k (Hamilton's apportionment).
    fn place(&self, seed: u64) -> Vec<i64> {
        let total = self.total.max(1);
        // a number below `total`, and so is each remainder: total is at most 2^24 for each of the servers
        let gained = |weight: u32| u128::from(seed) * u128::from(weight);
        let mut current: Vec<i64> = (self.weights.iter())
            .map(|weight| (gained(*weight) % u128::from(total)) as i64)
            .collect();
        // the remainders add up to a multiple of the total: so many servers were chosen once more
        let once_more = current.iter().sum::<i64>() / total.cast_signed();
        let mut by_remainder: Vec<usize> = (0..current.len()).collect();
        by_remainder.sort_by_key(|&index| std::cmp::Reverse(current[index]));
        for index in by_remainder.into_iter().take(once_more as usize) {
            current[index] -= total.cast_signed();
        }
        current
    }
}

#[cfg(test)]
mod tests {
    use super::super::{hash::SplitMix64, testing::Chooser};
    use crate::config::Algorithm;
    use proptest::prelude::*;

    fn order(weights: &[u32], seed: u64, picks: usize) -> String {
        let mut chooser = Chooser::with_seed(Algorithm::RoundRobin, weights, seed);
        (0..picks)
            .filter_map(|_| chooser.pick())
            .map(|index| char::from(b'a' + u8::try_from(index).unwrap()))
            .collect()
    }

    #[test]
    fn weights_5_1_1_give_the_order_that_nginx_documents() {
        assert_eq!(order(&[5, 1, 1], 0, 14), "aabacaaaabacaa");
    }

    #[test]
    fn equal_weights_take_turns() {
        assert_eq!(order(&[1, 1, 1], 0, 7), "abcabca");
    }

    #[test]
    fn threads_with_different_seeds_start_at_different_servers() {
        assert_eq!(order(&[1, 1, 1], 1, 4), "bcab");
        assert_eq!(order(&[1, 1, 1], 2, 4), "cabc");
    }

    #[test]
    fn the_first_picks_of_many_threads_follow_the_weights() {
        let firsts: String = (0..700).map(|seed| order(&[5, 1, 1], seed, 1)).collect();
        let a = firsts.matches('a').count();
        assert!(
            (450..=550).contains(&a),
            "{a} of 700 threads began with a, of weight 5 in 7"
        );
    }

    #[test]
    fn a_thread_that_starts_later_in_the_round_goes_on_in_the_same_order() {
        let whole = order(&[5, 1, 1], 0, 70);
        for seed in 0..7 {
            assert_eq!(order(&[5, 1, 1], seed * 6, 14), whole[seed as usize * 6..][..14]);
        }
    }

    #[test]
    fn a_server_that_is_out_for_a_while_neither_starves_others_nor_catches_up_afterwards() {
        let mut chooser = Chooser::new(Algorithm::RoundRobin, &[1, 1, 1]);
        chooser.picks(4);
        chooser.unusable(1);
        let counts = chooser.counts(1_000);
        assert!(counts[1] == 0 && counts[0].abs_diff(counts[2]) <= 2, "{counts:?}");
        chooser.usable(1);
        let counts = chooser.counts(30);
        assert!(counts.iter().all(|c| (9..=11).contains(c)), "{counts:?}");
    }

    proptest! {
        #[test]
        fn every_server_gets_its_share_to_within_one_from_any_start(
            weights in prop::collection::vec(0_u32..20, 1..8), seed: u64,
        ) {
            let total: u32 = weights.iter().sum();
            let mut chooser = Chooser::with_seed(Algorithm::RoundRobin, &weights, seed);
            let counts = chooser.counts(total as usize * 20);
            for (count, weight) in counts.iter().zip(&weights) {
                let due = i64::from(*weight) * 20;
                prop_assert!((i64::try_from(*count).unwrap() - due).abs() <= 2, "{counts:?} for {weights:?}");
            }
        }

        #[test]
        fn nothing_drifts_however_usability_changes(
            weights in prop::collection::vec(1_u32..100, 2..8), seed: u64,
        ) {
            let mut random = SplitMix64::new(seed);
            let mut chooser = Chooser::new(Algorithm::RoundRobin, &weights);
            for _ in 0..2_000 {
                let mask = random.next_u64();
                for index in 0..weights.len() {
                    if mask & (1 << index) == 0 { chooser.unusable(index) } else { chooser.usable(index) }
                }
                chooser.pick();
            }
            for index in 0..weights.len() {
                chooser.usable(index);
            }
            // what was gained in the past is worth a few turns at most
            let total: u32 = weights.iter().sum();
            let counts = chooser.counts(total as usize * 5);
            for (count, weight) in counts.iter().zip(&weights) {
                let due = i64::from(*weight) * 5;
                let off = (i64::try_from(*count).unwrap() - due).abs();
                prop_assert!(off <= 4, "{counts:?} for {weights:?}");
            }
        }
    }
}
