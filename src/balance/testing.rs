//! What the tests of the algorithms share: a balancer with servers that can be made unusable, and a fair judge of counts.

use std::cell::Cell;

use super::{Balancer, Candidate, HashKey, Pick, PickState, hash::SplitMix64};
use crate::{base::ServerName, config::Algorithm};

/// Names `s000`, `s001`, … in their order.
pub(super) fn names(count: usize) -> Vec<String> {
    (0..count).map(|i| format!("s{i:03}")).collect()
}

/// Candidates of these weights, in units.
pub(super) fn candidates(weights: &[u32]) -> Vec<Candidate> {
    let names = names(weights.len());
    (names.into_iter().zip(weights))
        .map(|(name, weight)| Candidate {
            name: ServerName::new(&name).unwrap(),
            weight: *weight,
        })
        .collect()
}

/// A balancer, one thread's state and the circumstances of its choices.
pub(super) struct Chooser {
    algorithm: Algorithm,
    candidates: Vec<Candidate>,
    balancer: Balancer,
    state: PickState,
    random: SplitMix64,
    /// What each server carries.
    pub(super) loads: Vec<u64>,
    usable: Vec<bool>,
}

impl Chooser {
    pub(super) fn new(algorithm: Algorithm, weights: &[u32]) -> Self {
        Self::with_seed(algorithm, weights, 0)
    }

    pub(super) fn with_seed(algorithm: Algorithm, weights: &[u32], seed: u64) -> Self {
        Self::of(algorithm, candidates(weights), seed)
    }

    fn of(algorithm: Algorithm, candidates: Vec<Candidate>, seed: u64) -> Self {
        Self {
            algorithm,
            balancer: Balancer::new(algorithm, &candidates, HashKey::default()),
            state: PickState::seeded(seed),
            random: SplitMix64::new(seed),
            loads: vec![0; candidates.len()],
            usable: vec![true; candidates.len()],
            candidates,
        }
    }

    /// The same servers but one.
    pub(super) fn without(&self, index: usize) -> Self {
        let mut rest = self.candidates.clone();
        rest.remove(index);
        Self::of(self.algorithm, rest, 0)
    }

    pub(super) fn unusable(&mut self, index: usize) {
        self.usable[index] = false;
    }

    pub(super) fn usable(&mut self, index: usize) {
        self.usable[index] = true;
    }

    /// The choice for a random client.
    pub(super) fn pick(&mut self) -> Option<usize> {
        let client = self.random.next_u64();
        self.pick_client(client)
    }

    /// The choice for a client of this hash.
    pub(super) fn pick_client(&mut self, hash: u64) -> Option<usize> {
        self.pick_and_count(hash).0
    }

    /// The choice for a client, and how often it asked whether a server is usable.
    pub(super) fn pick_and_count(&mut self, hash: u64) -> (Option<usize>, usize) {
        let asked = Cell::new(0);
        let pick = Pick {
            client_hash: hash,
            flow_hash: hash,
            random: self.random.next_u64(),
            load: &|index| self.loads[index],
            usable: &|index| {
                asked.set(asked.get() + 1);
                self.usable[index]
            },
        };
        let choice = self.balancer.pick(&mut self.state, &pick);
        (choice, asked.get())
    }

    pub(super) fn picks(&mut self, count: usize) -> Vec<Option<usize>> {
        (0..count).map(|_| self.pick()).collect()
    }

    /// How often each server is chosen in so many choices.
    pub(super) fn counts(&mut self, picks: usize) -> Vec<usize> {
        let mut counts = vec![0; self.loads.len()];
        for _ in 0..picks {
            if let Some(index) = self.pick() {
                counts[index] += 1;
            }
        }
        counts
    }
}

/// Pearson's chi-square test that counts follow the proportions; the limit is what 1 run in 10,000 would exceed
/// (approximation of Wilson and Hilferty, 1931). Seeds are fixed, so a test that passes goes on passing.
pub(super) fn assert_follows(counts: &[usize], proportions: &[f64]) {
    let total: f64 = counts.iter().map(|c| *c as f64).sum();
    let sum: f64 = proportions.iter().sum();
    let mut chi_square = 0.0_f64;
    let mut freedom = -1.0_f64;
    for (count, proportion) in counts.iter().zip(proportions) {
        let due = total * proportion / sum;
        if due == 0.0 {
            assert_eq!(*count, 0, "{counts:?} for {proportions:?}");
            continue;
        }
        chi_square += (*count as f64 - due).powi(2) / due;
        freedom += 1.0;
    }
    let spread = 2.0 / (9.0 * freedom);
    let limit = freedom * (1.0 - spread + 3.719 * spread.sqrt()).powi(3);
    assert!(
        chi_square <= limit,
        "{counts:?} for {proportions:?}: chi-square {chi_square:.1} > {limit:.1}"
    );
}
