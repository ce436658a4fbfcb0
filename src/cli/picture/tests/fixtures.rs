//! Servers for the tests of other commands.

use super::*;

pub(in crate::cli) fn a_server(state: ServerState) -> Server {
    server("10.0.0.1:80", state, 1.0, Traffic::default())
}

/// Backends whose servers are all up.
pub(in crate::cli) fn backends_of(all: &[(&str, &[&str])]) -> BTreeMap<BackendName, Backend> {
    let backend = |servers: &[&str]| Backend {
        discovery: None,
        balance: Algorithm::RoundRobin.into(),
        state: BackendState::Up.into(),
        eligible: servers.len(),
        queued: 0,
        sticky: None,
        tls: None,
        traffic: Traffic::default(),
        rates: Rates::default(),
        connect_time: None,
        session_time: None,
        servers: (servers.iter())
            .map(|name| (server_name(name), a_server(ServerState::Up)))
            .collect(),
    };
    all.iter()
        .map(|(name, servers)| (BackendName::new(name).expect("a name"), backend(servers)))
        .collect()
}
