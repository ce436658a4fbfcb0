//! Which servers a new connection of a proxy frontend can get, and how likely. Pure, but for the counters that it reads.

use std::time::Instant;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    balance::{Pick, PickState},
    base::{ServerAddr, ServerName},
    config::Algorithm,
    flow::FiveTuple,
    snapshot::{BackendView, Offered},
};

/// An eligible server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
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

/// Every eligible server of those that a backend offers.
#[must_use]
pub fn of(backend: &BackendView, offered: Offered) -> Vec<Candidate> {
    let weight = |index: usize| match backend.offers(offered, index) && has_room(backend, index) {
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
        .filter(|(index, server)| backend.offers(offered, *index) && server.is_eligible());
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
pub fn certain(backend: &BackendView, offered: Offered, tuple: &FiveTuple) -> Option<usize> {
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
            .map_or(0, |server| u64::from(server.live.slots.used()))
    };
    let (balancer, ..) = backend.chooser(offered);
    let pick = Pick {
        client_hash: balancer.client_hash(tuple.client.0.ip()),
        flow_hash: balancer.flow_hash(tuple.client.0, tuple.vip.0),
        random: 0,
        load: &load,
        usable: &|index| has_room(backend, index),
    };
    balancer.pick(&mut PickState::default(), &pick)
}

/// The index of the server that a connection would get because its client's network had it before.
#[must_use]
pub fn stuck(backend: &BackendView, offered: Offered, tuple: &FiveTuple, now: Instant) -> Option<usize> {
    let index = backend.would_stick_to(offered, tuple.client.0.ip(), now);
    index.filter(|index| has_room(backend, *index))
}

fn has_room(backend: &BackendView, index: usize) -> bool {
    (backend.servers.get(index))
        .is_some_and(|server| (server.max_connections).is_none_or(|limit| server.live.slots.used() < limit))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        base::{ClientAddr, ListenAddr, Protocol},
        config::{self, Options, Source},
        pools::Pools,
        snapshot::Builder,
    };

    /// A backend of a (weight 3), b (weight 1, room for one connection), c (weight 0) and a spare.
    fn backend(balance: &str) -> Arc<BackendView> {
        let text = format!(
            "[frontends.f]\nlisten_addr = '0.0.0.0:80'\nbackend = 'web'\n[backends.web]\nbalance = '{balance}'\n\
             health_check.enabled = false\nservers.a = {{ addr = '10.0.0.1:80', weight = 3 }}\n\
             servers.b = {{ addr = '10.0.0.2:80', max_connections = 1 }}\n\
             servers.c = {{ addr = '10.0.0.3:80', weight = 0 }}\n\
             servers.spare = {{ addr = '10.0.0.4:80', priority = 2 }}\n"
        );
        let source = Source {
            name: "c.toml".into(),
            bytes: text.into(),
        };
        let config = config::load(&source, Options::default()).expect("valid").config;
        let mut builder = Builder::new(2, Arc::default());
        builder.config_changed(&config, config.backends.keys().cloned());
        let built = builder.build(&config, &Pools::of(&config), Instant::now());
        Arc::clone(&built.snapshot.frontends["f"].backend)
    }

    fn from(port: u16) -> FiveTuple {
        FiveTuple {
            protocol: Protocol::Tcp,
            client: ClientAddr(format!("198.51.100.1:{port}").parse().expect("an address")),
            vip: ListenAddr::new("192.0.2.1:80".parse().expect("an address")),
        }
    }

    #[test]
    fn shares_are_by_weight_among_the_servers_that_have_room() {
        let web = backend("round_robin");
        let shares = || -> Vec<_> {
            let all = of(&web, Offered::All);
            all.iter()
                .map(|c| (c.server.to_string(), c.percent, c.connections))
                .collect()
        };
        assert_eq!(shares(), [("a".to_owned(), 75.0, 0), ("b".to_owned(), 25.0, 0)]);
        assert!(web.servers[1].live.slots.try_take(web.servers[1].max_connections));
        assert_eq!(shares(), [("a".to_owned(), 100.0, 0), ("b".to_owned(), 0.0, 1)]);
    }

    #[test]
    fn only_algorithms_of_addresses_are_certain_and_then_as_a_worker_chooses() {
        for balance in [
            "round_robin",
            "random",
            "least_connections",
            "least_bandwidth",
            "power_of_two",
        ] {
            assert_eq!(
                certain(&backend(balance), Offered::All, &from(1)),
                None,
                "{balance}"
            );
        }
        let first = backend("first");
        assert_eq!(certain(&first, Offered::All, &from(1)), Some(0));
        let by_client = backend("source_hash");
        let one = certain(&by_client, Offered::All, &from(1));
        assert!(one.is_some() && (2..50).all(|port| certain(&by_client, Offered::All, &from(port)) == one));
        let by_flow = backend("maglev");
        let chosen: std::collections::BTreeSet<_> = (1..200)
            .map(|port| certain(&by_flow, Offered::All, &from(port)))
            .collect();
        assert_eq!(
            chosen,
            [Some(0), Some(1)].into(),
            "c has no weight, the spare waits"
        );
    }
}
