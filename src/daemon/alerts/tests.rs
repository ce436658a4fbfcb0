//! From counters to alerts.

use std::time::Duration;

use super::*;
use crate::{
    base::{Handshake, WorkerId},
    config::{self, Options, Source},
    pools::Pools,
    snapshot::Builder,
};

const SITE: &str = r#"
    [frontends.shop]
    listen_addr = "192.0.2.1:80"
    mode = "passthrough"
    backend = "web"
    [frontends.plain]
    listen_addr = "192.0.2.1:81"
    backend = "proxied"
    [backends.web]
    health_check.enabled = false
    servers.a = { addr = "10.0.0.1:80" }
    servers.b = { addr = "10.0.0.2:80" }
    [backends.proxied]
    health_check.enabled = false
    servers.a = { addr = "10.0.0.1:80" }
"#;

fn site() -> Arc<Snapshot> {
    let source = Source {
        name: "site.toml".into(),
        bytes: SITE.into(),
    };
    let config = (config::load(&source, Options::default()).expect("a good one")).config;
    let mut builder = Builder::new(2, Arc::default());
    builder.config_changed(&config, config.backends.keys().cloned());
    builder
        .build(&config, &Pools::of(&config), Instant::now())
        .snapshot
}

#[test]
fn an_alert_names_its_server_or_none() {
    let (snapshot, now) = (site(), Instant::now());
    let mut watch = AlertWatch::default();
    assert!(watch.look(&snapshot, &[], now).shortages.is_empty() && watch.active().is_empty());
    let b = &snapshot.backends["web"].servers[1];
    let shard = |worker| b.live.counters.shard(WorkerId(worker));
    for worker in [0, 1] {
        shard(worker).dropped[ServerDrop::NatPorts as usize].add(3);
        shard(worker).handshakes[Handshake::Unanswered as usize].add(5);
    }
    let packets = [(PacketReason::TableFull, 7), (PacketReason::ToServer, 1_000)];
    let found = watch.look(&snapshot, &packets, now + Duration::from_secs(5));
    let said: Vec<_> = found
        .shortages
        .iter()
        .map(|s| (s.case.alert, s.packets))
        .collect();
    assert_eq!(said, [(Alert::FlowTable, 7), (Alert::NatPorts, 6)]);
    assert_eq!(found.handshakes.len(), 1);
    let key = |backend: &str, server: usize| ServerKey {
        backend: snapshot.backends[backend].config.name.clone(),
        server: snapshot.backends[backend].servers[server].name.clone(),
    };
    let expected: Alerts = [
        (None, [Alert::FlowTable].into()),
        (Some(key("web", 1)), [Alert::NatPorts, Alert::Unanswered].into()),
    ]
    .into();
    assert_eq!(**watch.active(), expected);
}

#[test]
fn a_frontend_that_refuses_for_all_clients_sake_is_named_in_any_mode_and_not_noted_again() {
    let (snapshot, now) = (site(), Instant::now());
    let mut watch = AlertWatch::default();
    for name in ["shop", "plain"] {
        let refused = &snapshot.frontends[name].live.counters.shard(WorkerId(0)).refused;
        for (reason, count) in [
            (AccessReason::Denied, 9),
            (AccessReason::ClientRate, 9),
            (AccessReason::ClientPorts, 2),
            (AccessReason::FrontendRate, 3),
        ] {
            refused[reason as usize].add(count);
        }
    }
    let found = watch.look(&snapshot, &[], now);
    let said: std::collections::BTreeSet<_> = (found.shortages.iter())
        .map(|s| match &s.case.subject {
            Subject::Frontend(name) => (name.to_string(), s.case.alert.label(), s.packets),
            other => panic!("{other:?}"),
        })
        .collect();
    let expected = ["plain", "shop"].into_iter().flat_map(|name| {
        [("client_ports_exhausted", 2), ("frontend_rate_reached", 3)].map(|(l, n)| (name.to_owned(), l, n))
    });
    assert_eq!(said, expected.collect());
    assert!(watch.active().is_empty(), "the status has refusals by reason");
    let found = watch.look(&snapshot, &[], now + Duration::from_secs(5));
    assert!(found.shortages.is_empty());
}
