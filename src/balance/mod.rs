//! Choosing a server: pure functions over weights, loads and hashes.
//!
//! A [`Pool`] is built once for each snapshot and shared by all threads; what changes with each choice lives in
//! a [`PickState`] of the calling thread. Randomness is an argument.

use crate::config::Algorithm;

/// What a [`Pool`] knows of one server. Servers are sorted by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Identity for hashing: the server's name, so that two load balancers choose alike.
    pub name: String,
    /// Effective weight, in units in which the configured weight 1 is [`WEIGHT_UNIT`]; 0 is never chosen.
    pub weight: u32,
}

/// The effective weight of a server whose configured weight is 1: leaves room for a slow start below it.
pub const WEIGHT_UNIT: u32 = 256;

/// The candidates of a backend prepared for one algorithm. Immutable.
#[derive(Debug)]
pub struct Pool {}

/// What one thread remembers between choices (smooth round robin's current weights).
#[derive(Debug, Default)]
pub struct PickState {}

/// What one choice depends on besides the pool.
pub struct Pick<'a> {
    /// Hash key of the client: its IP address (source hash).
    pub client_hash: u64,
    /// Hash key of the flow: addresses and ports (Maglev).
    pub flow_hash: u64,
    /// Uniform random bits.
    pub random: u64,
    /// Connections that a candidate has now, by its index.
    pub load: &'a dyn Fn(usize) -> u32,
    /// Whether a candidate may be chosen (not tried yet, below its limit), by its index.
    pub usable: &'a dyn Fn(usize) -> bool,
}

impl Pool {
    /// Prepares candidates, sorted by name, for an algorithm. Those of weight 0 are never chosen.
    #[must_use]
    pub fn new(algorithm: Algorithm, candidates: &[Candidate]) -> Self {
        let _ = (algorithm, candidates);
        todo!()
    }

    /// Index of the chosen candidate; `None` when none is usable.
    pub fn pick(&self, state: &mut PickState, pick: &Pick<'_>) -> Option<usize> {
        let _ = (state, pick);
        todo!()
    }
}

impl PickState {
    /// shim
    pub fn seeded(_seed: u64) -> Self {
        Self {}
    }
}
/// shim
pub fn client_hash(_ip: std::net::IpAddr) -> u64 {
    0
}
/// shim
pub fn flow_hash(_c: std::net::SocketAddr, _l: std::net::SocketAddr) -> u64 {
    0
}
