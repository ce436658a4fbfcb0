//! Which servers a new connection of a proxy frontend can get, and how likely. Pure, but for the counters that it reads.

use serde::{Deserialize, Serialize};

use crate::{
    balance::{Pick, PickState},
    base::{ServerAddr, ServerName},
    config::Algorithm,
    flow::FiveTuple,
    snapshot::BackendView,
};

/// A server that can be chosen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// Its name.
    pub server: ServerName,
    /// Its address.
    pub addr: ServerAddr,
    /// Its share of new connections by weight, in percent: 0 while it has no room.
    pub percent: f64,
    /// Its connections now.
    pub connections: u32,
}

/// Every eligible server of a backend.
#[must_use]
pub fn of(backend: &BackendView) -> Vec<Candidate> {
    let weight = |index: usize| match has_room(backend, index) {
        true => backend
            .servers
            .get(index)
            .map_or(0, |server| server.effective_weight),
        false => 0,
    };
    let total: u64 = (0..backend.servers.len())
        .map(|index| u64::from(weight(index)))
        .sum();
    let eligible = backend
        .servers
        .iter()
        .enumerate()
        .filter(|(_, server)| server.is_eligible());
    eligible
        .map(|(index, server)| Candidate {
            server: server.name.clone(),
            addr: server.addr,
            percent: f64::from(weight(index)) * 100.0 / total.max(1) as f64,
            connections: server.live.slots.used(),
        })
        .collect()
}

/// The index of the server that a connection would get, where that follows from its addresses and the servers' room alone.
#[must_use]
pub fn certain(backend: &BackendView, tuple: &FiveTuple) -> Option<usize> {
    if !matches!(
        backend.config.balance,
        Algorithm::SourceHash | Algorithm::Maglev | Algorithm::First
    ) {
        return None;
    }
    let load = |index: usize| {
        backend
            .servers
            .get(index)
            .map_or(0, |server| server.live.slots.used())
    };
    let pick = Pick {
        client_hash: backend.balancer.client_hash(tuple.client.0.ip()),
        flow_hash: backend.balancer.flow_hash(tuple.client.0, tuple.vip.0),
        random: 0,
        load: &load,
        usable: &|index| has_room(backend, index),
    };
    backend.balancer.pick(&mut PickState::default(), &pick)
}

fn has_room(backend: &BackendView, index: usize) -> bool {
    (backend.servers.get(index))
        .is_some_and(|server| (server.max_connections).is_none_or(|limit| server.live.slots.used() < limit))
}
