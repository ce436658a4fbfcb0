//! Choosing a server: pure functions over weights, loads and hashes, one algorithm a file.
//!
//! A [`Balancer`] is built once for each change of a backend's weights and shared by all threads; what changes with each
//! choice lives in a [`PickState`] of the calling thread. Randomness is an argument.

mod bandwidth;
mod bound;
mod first;
pub mod hash;
mod key;
mod least_connections;
mod maglev;
mod power_of_two;
mod random;
mod round_robin;
mod source_hash;
mod sticky;

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
};

use crate::{base::ServerName, config::Algorithm};
pub use bandwidth::Bandwidth;
use bound::Bound;
pub use key::HashKey;
use least_connections::LeastConnections;
use maglev::Maglev;
#[cfg(test)]
pub use maglev::TABLE_SLOTS;
use power_of_two::PowerOfTwo;
use random::Random;
use round_robin::RoundRobin;
use source_hash::SourceHash;
pub use sticky::{StickyBounds, StickyKey, StickyTable, StuckTo};

/// What a [`Balancer`] knows of one server. Servers are sorted by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Identity for hashing: the server's name, so that two load balancers choose alike.
    pub name: ServerName,
    /// Effective weight, in units in which the configured weight 1 is [`WEIGHT_UNIT`]; 0 is never chosen.
    pub weight: u32,
}

/// The effective weight of a server whose configured weight is 1: leaves room for a slow start below it.
pub const WEIGHT_UNIT: u32 = 256;

/// The candidates of a backend prepared for one algorithm. Immutable.
#[derive(Debug)]
pub struct Balancer {
    algorithm: Algorithm,
    candidates: Vec<Candidate>,
    key: HashKey,
    chooser: Chooser,
    bound: Option<Bound>,
}

#[derive(Debug)]
enum Chooser {
    RoundRobin(RoundRobin),
    Random(Random),
    LeastConnections(LeastConnections),
    /// The same of another load.
    LeastBandwidth(LeastConnections),
    PowerOfTwo(PowerOfTwo),
    SourceHash(SourceHash),
    Maglev(Maglev),
    First(first::First),
}

/// What one thread remembers between choices (smooth round robin's current weights).
///
/// It belongs to one balancer: when the backend's `balancer_generation` changes, make a new one.
#[derive(Debug, Default)]
pub struct PickState {
    seed: u64,
    round_robin: round_robin::Round,
}

impl PickState {
    /// A state that starts `seed` places ahead in the round (modulo its length): a random number each time, or all
    /// threads begin with the same server. 0, also the default, is the beginning of the round.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self {
            seed,
            round_robin: round_robin::Round::default(),
        }
    }
}

/// What one choice depends on besides the balancer.
pub struct Pick<'a> {
    /// Hash key of the client: its IP address (source hash); see [`Balancer::client_hash`].
    pub client_hash: u64,
    /// Hash key of the flow: addresses and ports (Maglev); see [`Balancer::flow_hash`].
    pub flow_hash: u64,
    /// Uniform random bits.
    pub random: u64,
    /// What a candidate carries now, by its index: connections; for least bandwidth bytes of late.
    pub load: &'a dyn Fn(usize) -> u64,
    /// Whether a candidate may be chosen (not tried yet, below its limit), by its index.
    pub usable: &'a dyn Fn(usize) -> bool,
}

impl Balancer {
    /// Prepares candidates, sorted by name, for an algorithm. Those of weight 0 are never chosen. Algorithms that map
    /// clients to servers do it by the hash of this key.
    #[must_use]
    pub fn new(algorithm: Algorithm, candidates: &[Candidate], key: HashKey) -> Self {
        let weights = || candidates.iter().map(|c| c.weight).collect::<Box<[u32]>>();
        let chooser = match algorithm {
            Algorithm::RoundRobin => Chooser::RoundRobin(RoundRobin::new(weights())),
            Algorithm::Random => Chooser::Random(Random::new(weights())),
            Algorithm::LeastConnections => Chooser::LeastConnections(LeastConnections::new(weights())),
            Algorithm::LeastBandwidth => Chooser::LeastBandwidth(LeastConnections::new(weights())),
            Algorithm::PowerOfTwo => Chooser::PowerOfTwo(PowerOfTwo::new(weights())),
            Algorithm::SourceHash => Chooser::SourceHash(SourceHash::new(candidates, key)),
            Algorithm::Maglev => Chooser::Maglev(Maglev::new(candidates, key)),
            Algorithm::First => Chooser::First(first::First::new(weights())),
        };
        Self {
            algorithm,
            candidates: candidates.to_vec(),
            key,
            chooser,
            bound: None,
        }
    }

    /// With a bound: no candidate gets more connections than so many percent of its share, whatever the hash says. It has no
    /// effect on what does not hash.
    #[must_use]
    pub fn bounded(mut self, factor: Option<NonZeroU32>) -> Self {
        let factor = factor.filter(|_| hashes(self.algorithm));
        self.bound = factor.map(|factor| Bound::new(factor, &self.candidates));
        self
    }

    /// Whether its bound is what [`bounded`](Self::bounded) would make of this.
    #[must_use]
    pub fn has_bound(&self, factor: Option<NonZeroU32>) -> bool {
        self.bound.as_ref().map(Bound::factor) == factor.filter(|_| hashes(self.algorithm))
    }

    /// Whether a new balancer of these would be the same as this one.
    #[must_use]
    pub fn is_of(&self, algorithm: Algorithm, candidates: &[Candidate], key: HashKey) -> bool {
        let is_of_key = self.key == key || !hashes(algorithm);
        self.algorithm == algorithm && self.candidates == candidates && is_of_key
    }

    /// Hash of a client: its IP address without the port, for [`Pick::client_hash`].
    #[must_use]
    pub fn client_hash(&self, ip: IpAddr) -> u64 {
        self.key.client(ip)
    }

    /// Hash of a flow: both addresses and ports, for [`Pick::flow_hash`].
    #[must_use]
    pub fn flow_hash(&self, client: SocketAddr, listen: SocketAddr) -> u64 {
        self.key.flow(client, listen)
    }

    /// The candidates, by index.
    #[must_use]
    pub fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    /// The slot of the Maglev table that a flow's hash names; `None` if the balancer is of another algorithm.
    #[must_use]
    pub fn slot(&self, flow_hash: u64) -> Option<usize> {
        match &self.chooser {
            Chooser::Maglev(_) => Some(maglev::slot(flow_hash)),
            _ => None,
        }
    }

    /// The candidate of each slot of the Maglev table; empty if none has a weight, or the balancer is of another algorithm.
    #[must_use]
    pub fn slots(&self) -> &[u32] {
        match &self.chooser {
            Chooser::Maglev(maglev) => maglev.slots(),
            _ => &[],
        }
    }

    /// The key of its hashes.
    #[must_use]
    pub const fn key(&self) -> HashKey {
        self.key
    }

    /// Index of the chosen candidate; `None` when none is usable. Allocates nothing after a state's first pick.
    pub fn pick(&self, state: &mut PickState, pick: &Pick<'_>) -> Option<usize> {
        let Some(bound) = &self.bound else {
            return self.choose(state, pick);
        };
        let connections = bound.connections(pick);
        let is_below = |index: usize| (pick.load)(index) < bound.most(index, connections);
        let bounded = Pick {
            usable: &|index| (pick.usable)(index) && is_below(index),
            ..*pick
        };
        // those that are below it may all be unusable
        self.choose(state, &bounded).or_else(|| self.choose(state, pick))
    }

    fn choose(&self, state: &mut PickState, pick: &Pick<'_>) -> Option<usize> {
        match &self.chooser {
            Chooser::RoundRobin(chooser) => chooser.pick(&mut state.round_robin, state.seed, pick),
            Chooser::Random(chooser) => chooser.pick(pick),
            Chooser::LeastConnections(chooser) | Chooser::LeastBandwidth(chooser) => chooser.pick(pick),
            Chooser::PowerOfTwo(chooser) => chooser.pick(pick),
            Chooser::SourceHash(chooser) => chooser.pick(pick),
            Chooser::Maglev(chooser) => chooser.pick(pick),
            Chooser::First(chooser) => chooser.pick(pick),
        }
    }
}

/// Whether an algorithm sends a client where a hash says.
const fn hashes(algorithm: Algorithm) -> bool {
    matches!(algorithm, Algorithm::SourceHash | Algorithm::Maglev)
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
