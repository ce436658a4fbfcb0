//! The bound of a hash: no server gets more than a factor of its share of the connections (Mirrokni, Thorup, Zadimoghaddam:
//! Consistent Hashing with Bounded Loads, 2016; HAProxy's `hash-balance-factor`).
//!
//! With m connections, the new one included, and a factor c, a server may have ⌈c · m · weight / weights⌉ of them. A client whose
//! server is at that gets the next one of its own order, so that few clients move, and back when there is room. The bounds of all add
//! up to at least c · m, so that there is always a server below its own.

use std::num::NonZeroU32;

use super::{Candidate, Pick};

/// The bound of a backend's servers.
#[derive(Debug)]
pub(super) struct Bound {
    /// In percent.
    factor: NonZeroU32,
    weights: Box<[u32]>,
    all: u64,
}

impl Bound {
    pub(super) fn new(factor: NonZeroU32, candidates: &[Candidate]) -> Self {
        Self {
            factor,
            weights: candidates.iter().map(|candidate| candidate.weight).collect(),
            all: candidates
                .iter()
                .map(|candidate| u64::from(candidate.weight))
                .sum(),
        }
    }

    pub(super) const fn factor(&self) -> NonZeroU32 {
        self.factor
    }

    /// Connections of all servers that can be chosen, and the new one.
    pub(super) fn connections(&self, pick: &Pick<'_>) -> u64 {
        let chosen = self.weights.iter().enumerate().filter(|(_, weight)| **weight > 0);
        chosen
            .map(|(index, _)| (pick.load)(index))
            .fold(1, u64::saturating_add)
    }

    /// Most connections of a server where there are so many of all.
    pub(super) fn most(&self, index: usize, connections: u64) -> u64 {
        let weight = self.weights.get(index).copied().unwrap_or(0);
        // 32 bits by 64 by 32 fit
        let share = u128::from(self.factor.get()) * u128::from(connections) * u128::from(weight);
        let most = share.div_ceil(u128::from(self.all.max(1)) * 100);
        u64::try_from(most).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::super::{testing::candidates, *};
    use super::*;
    use crate::balance::hash::SplitMix64;
    use proptest::prelude::*;

    /// A site of connections that come and go.
    struct Site {
        balancer: Balancer,
        weights: Vec<u32>,
        loads: Vec<u64>,
        usable: Vec<bool>,
    }

    impl Site {
        fn new(algorithm: Algorithm, weights: &[u32], factor: u32) -> Self {
            Self {
                balancer: Balancer::new(algorithm, &candidates(weights), HashKey::default())
                    .bounded(NonZeroU32::new(factor)),
                weights: weights.to_vec(),
                loads: vec![0; weights.len()],
                usable: vec![true; weights.len()],
            }
        }

        fn pick(&self, client: u64) -> Option<usize> {
            let pick = Pick {
                client_hash: client,
                flow_hash: client,
                random: 0,
                load: &|index| self.loads[index],
                usable: &|index| self.usable[index],
            };
            self.balancer.pick(&mut PickState::default(), &pick)
        }

        /// ⌈c · m · w / W⌉ as the paper has it.
        fn most(&self, index: usize, factor: u32) -> u64 {
            let connections = 1 + self.loads.iter().sum::<u64>();
            let all: u32 = self.weights.iter().sum();
            (u64::from(factor) * connections * u64::from(self.weights[index])).div_ceil(100 * u64::from(all))
        }
    }

    const HASHES: [Algorithm; 2] = [Algorithm::SourceHash, Algorithm::Maglev];

    proptest! {
        #[test]
        fn no_server_has_more_than_its_bound_whatever_comes_and_goes(
            weights in prop::collection::vec(1_u32..6, 1..9),
            factor in 101_u32..300,
            clients in prop::collection::vec((0_u64..40, any::<bool>()), 1..150),
        ) {
            for algorithm in HASHES {
                let mut site = Site::new(algorithm, &weights, factor);
                let mut open: Vec<usize> = Vec::new();
                for (client, ends) in &clients {
                    if *ends && !open.is_empty() {
                        let gone = open.swap_remove(*client as usize % open.len());
                        site.loads[gone] -= 1;
                    }
                    let index = site.pick(SplitMix64::new(*client).next_u64()).expect("there is room");
                    prop_assert!(site.loads[index] < site.most(index, factor), "{:?} {:?}", algorithm, site.loads);
                    site.loads[index] += 1;
                    open.push(index);
                }
            }
        }

        #[test]
        fn a_client_keeps_its_server_while_that_is_below_its_bound(
            weights in prop::collection::vec(1_u32..6, 1..9),
            loads in prop::collection::vec(0_u64..30, 9),
            client in any::<u64>(),
        ) {
            for algorithm in HASHES {
                let mut site = Site::new(algorithm, &weights, 125);
                let own = site.pick(client).expect("one");
                site.loads = loads[..weights.len()].to_vec();
                let is_below = site.loads[own] < site.most(own, 125);
                prop_assert_eq!(site.pick(client) == Some(own), is_below, "{:?}", algorithm);
            }
        }

        #[test]
        fn a_server_at_its_bound_is_as_good_as_none_where_no_other_can_be_used(
            weights in prop::collection::vec(1_u32..6, 2..9),
            only in any::<prop::sample::Index>(),
            client in any::<u64>(),
        ) {
            let only = only.index(weights.len());
            for algorithm in HASHES {
                let mut site = Site::new(algorithm, &weights, 101);
                site.loads[only] = 1_000;
                site.usable.fill(false);
                site.usable[only] = true;
                prop_assert_eq!(site.pick(client), Some(only), "{:?}", algorithm);
            }
        }
    }

    #[test]
    fn a_server_that_everybody_hashes_to_gets_its_bound_and_the_next_ones_the_rest() {
        for algorithm in HASHES {
            let mut site = Site::new(algorithm, &[1; 4], 125);
            for _ in 0..1_000 {
                let index = site.pick(42).expect("one");
                site.loads[index] += 1;
            }
            let mut loads = site.loads.clone();
            loads.sort_unstable();
            // 1.25 × 250 of each that the client's order names first
            assert_eq!(loads[3], 313, "{algorithm:?} {loads:?}");
            assert!(loads[0] < 100, "{algorithm:?} {loads:?}");
        }
    }

    #[test]
    fn what_does_not_hash_has_no_bound() {
        let balancer = Balancer::new(Algorithm::RoundRobin, &candidates(&[1, 1]), HashKey::default());
        let balancer = balancer.bounded(NonZeroU32::new(101));
        let asked = Cell::new(0);
        let pick = Pick {
            client_hash: 0,
            flow_hash: 0,
            random: 0,
            load: &|_| {
                asked.set(asked.get() + 1);
                1_000
            },
            usable: &|_| true,
        };
        assert!(balancer.pick(&mut PickState::default(), &pick).is_some());
        assert_eq!(asked.get(), 0);
    }

    #[test]
    fn the_greatest_loads_and_weights_do_not_overflow() {
        let greatest = u32::from(u16::MAX) * WEIGHT_UNIT;
        for algorithm in HASHES {
            let mut site = Site::new(algorithm, &[greatest; 3], u32::MAX);
            site.loads = vec![u64::MAX, u64::MAX, u64::MAX - 1];
            assert!(site.pick(7).is_some(), "{algorithm:?}");
        }
    }
}
