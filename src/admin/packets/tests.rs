//! The views of the packet modes, from a site and an engine that are made up.

use std::time::{Duration, Instant};

use super::*;
use crate::{
    base::{
        BackendName, ClientAddr, FrontendName, Mac, ServerAddr, ServerKey, ServerName, ServerState, WorkerId,
    },
    config::{self, Options, Source},
    packet::LinkHeader,
    pools::{AdminState, Override, Pools},
    snapshot::Builder,
};

const SITE: &str = r#"
    [frontends.every]
    listen_addr = ["0.0.0.0:80", "[::]:81"]
    backend = "web"
    [frontends.one]
    listen_addr = "192.0.2.7:80"
    backend = "web"
    [frontends.shop]
    listen_addr = ["192.0.2.1:80", "192.0.2.2:80"]
    mode = "passthrough"
    backend = "web"
    [backends.web]
    health_check.enabled = false
    servers.a = { addr = "10.0.0.1:80" }
    servers.b = { addr = "10.0.0.2:80", weight = 0 }
"#;

fn site() -> Arc<Snapshot> {
    site_where(&[])
}

fn site_where(admin: &[(&str, AdminState)]) -> Arc<Snapshot> {
    let source = Source {
        name: "site.toml".into(),
        bytes: SITE.into(),
    };
    let config = config::load(&source, Options::default())
        .expect("a good one")
        .config;
    let mut pools = Pools::of(&config);
    for (server, admin) in admin {
        let key = ServerKey {
            backend: BackendName::new("web").expect("a name"),
            server: ServerName::new(server).expect("a name"),
        };
        let overridden = Override {
            admin: Some(*admin),
            weight: None,
        };
        assert!(pools.set_override(&key, overridden));
    }
    let mut builder = Builder::new(2, Arc::default());
    builder.config_changed(&config, config.backends.keys().cloned());
    builder.build(&config, &pools, Instant::now()).snapshot
}

fn wait(why: &str, is_elsewhere: bool) -> Wait {
    Wait {
        why: why.to_owned(),
        is_elsewhere,
    }
}

fn tuple(protocol: Protocol, vip: &str) -> FiveTuple {
    FiveTuple {
        protocol,
        client: ClientAddr("198.51.100.1:40000".parse().expect("an address")),
        vip: ListenAddr(vip.parse().expect("an address")),
    }
}

fn server_a() -> (ServerKey, ServerAddr) {
    let backend = site().backends.keys().next().expect("a backend").clone();
    let server = ServerName::new("a").expect("a name");
    let addr = ServerAddr("10.0.0.1:80".parse().expect("an address"));
    (ServerKey { backend, server }, addr)
}

fn a_flow() -> FlowInfo {
    let (server, server_addr) = server_a();
    FlowInfo {
        tuple: tuple(Protocol::Tcp, "192.0.2.1:80"),
        frontend: FrontendName::new("shop").expect("a name"),
        server,
        server_addr,
        nat: Some("10.0.0.9:61000".parse().expect("an address")),
        state: "established",
        idle: Duration::from_secs(2),
        expires_in: Duration::from_secs(58),
    }
}

#[test]
fn what_no_packet_frontend_serves_may_be_proxied_by_the_nearest_listener() {
    let snapshot = site();
    let by = |protocol, vip: &str| {
        let found = explanation(&snapshot, &tuple(protocol, vip), None, &Waiting::new());
        (found.because.clone(), found.frontend.unwrap_or_default())
    };
    let proxied = |name: &str| ("proxied".to_owned(), name.to_owned());
    let nobody = ("not_served".to_owned(), String::new());
    assert_eq!(by(Protocol::Tcp, "192.0.2.7:80"), proxied("one"));
    assert_eq!(by(Protocol::Tcp, "192.0.2.9:80"), proxied("every"));
    assert_eq!(by(Protocol::Tcp, "192.0.2.9:81"), proxied("every"));
    assert_eq!(by(Protocol::Tcp, "[2001:db8::1]:80"), nobody);
    assert_eq!(by(Protocol::Tcp, "192.0.2.9:82"), nobody);
    assert_eq!(by(Protocol::Udp, "192.0.2.9:80"), nobody);
}

#[test]
fn an_explanation_names_frontend_server_state_flow_and_what_hinders() {
    let flow = a_flow();
    let found = flow::Explanation {
        frontend: Some(flow.frontend.clone()),
        server: Some(server_a()),
        because: Because::Flow,
        slot: Some(3),
        flow: Some(flow.clone()),
        hindrance: Some(PacketReason::NoRoute),
    };
    let explain = |waiting: &Waiting| explanation(&site(), &flow.tuple, Some(found.clone()), waiting);
    let view = explain(&Waiting::new());
    assert_eq!(view.frontend.as_deref(), Some("shop"));
    assert_eq!(view.mode.as_deref(), Some("passthrough"));
    assert_eq!(
        (
            view.server.as_deref(),
            view.server_addr.as_deref(),
            view.server_state
        ),
        (Some("a"), Some("10.0.0.1:80"), Some(ServerState::Up))
    );
    assert_eq!((view.candidates, view.slot), (1, Some(3)), "b has weight 0");
    assert_eq!(view.hindrance.as_deref(), Some("no_route"));
    let shown = view.flow.expect("the flow");
    assert_eq!(shown.nat.as_deref(), Some("10.0.0.9:61000"));
    assert_eq!((shown.idle_seconds, shown.expires_in_seconds), (2.0, 58.0));

    let waiting = [(flow.tuple.endpoint(), wait("no interface has it", true))];
    let view = explain(&waiting.into());
    assert_eq!(view.hindrance.as_deref(), Some("no interface has it"));
}

#[test]
fn a_flow_of_a_frontend_that_is_gone_is_still_listed() {
    let view = connection(&a_flow(), &Snapshot::default());
    assert_eq!(
        (view.mode.as_str(), view.frontend.as_str()),
        ("passthrough", "shop")
    );
    assert_eq!((view.worker, view.bytes_in), (None, None));
    assert_eq!(view.flow.map(|flow| flow.vip).as_deref(), Some("192.0.2.1:80"));
}

#[test]
fn a_frontend_waits_while_one_of_its_addresses_does() {
    let snapshot = site();
    let state = |name: &str, waiting: &Waiting| {
        frontend_state(snapshot.frontends.get(name).expect("a frontend"), waiting)
    };
    assert_eq!(state("one", &Waiting::new()), (None, [].into()));
    assert_eq!(state("shop", &Waiting::new()).0.as_deref(), Some("live"));
    let second = Endpoint::tcp("192.0.2.2:80".parse().expect("an address"));
    let (state, why) = state("shop", &[(second, wait("no interface", true))].into());
    assert_eq!(state.as_deref(), Some("waiting"));
    assert_eq!(
        why,
        [("192.0.2.2:80".to_owned(), "no interface".to_owned())].into()
    );
}

#[test]
fn a_frontend_serves_with_an_eligible_server_and_addresses_that_are_live_or_elsewhere() {
    let snapshot = site();
    let name = FrontendName::new("shop").expect("a name");
    let shop = &snapshot.frontends[&name];
    let second = Endpoint::tcp("192.0.2.2:80".parse().expect("an address"));
    let serves = |wait| serves(shop, &[(second, wait)].into());
    assert!(super::serves(shop, &Waiting::new()));
    assert!(serves(wait("no interface has it", true)), "a standby");
    assert!(!serves(wait("its interface is down", false)));
    let drained = site_where(&[("a", AdminState::Draining)]);
    assert!(
        !super::serves(&drained.frontends[&name], &Waiting::new()),
        "b has weight 0"
    );
}

#[test]
fn the_view_of_the_packet_modes_has_what_occurred_and_the_ways_in_words() {
    let link = LinkHeader {
        ifindex: 3,
        source: Mac([2, 0, 0, 0, 0, 1]),
        destination: Mac([2, 0, 0, 0, 0, 2]),
    };
    let hop = |resolution| Hop {
        resolution,
        mtu: 1500,
        local: "10.0.0.9".parse().expect("an address"),
    };
    let ip = |text: &str| -> IpAddr { text.parse().expect("an address") };
    let hops = Hops {
        servers: [
            (ip("10.0.0.1"), hop(Resolution::Known(link))),
            (ip("10.0.0.2"), hop(Resolution::NoRoute)),
        ]
        .into(),
        ..Hops::default()
    };
    let info = PacketInfo {
        engine: "raw",
        workers: 2,
        packets: vec![(PacketReason::ToServer, 5), (PacketReason::TooBig, 0)],
        hops: Arc::new(hops),
        links: [(3, "eth1".to_owned())].into(),
        no_way: [(ip("10.0.0.2"), "a blackhole".to_owned())].into(),
        ..PacketInfo::default()
    };
    let view = packet(&info, PortRange::default());
    assert_eq!(view.nat_ports, "61000-65535");
    assert_eq!(view.packets, [("to_server".to_owned(), 5)].into());
    let known = &view.next_hops["10.0.0.1"];
    assert_eq!(
        (
            known.state.as_str(),
            known.interface.as_deref(),
            known.mac.as_deref()
        ),
        ("known", Some("eth1"), Some("02:00:00:00:00:02"))
    );
    let lost = &view.next_hops["10.0.0.2"];
    assert_eq!(
        (lost.state.as_str(), lost.reason.as_deref()),
        ("no_route", Some("a blackhole"))
    );
}

#[test]
fn stats_of_0_3_5_count_packet_frontends_as_any_other() {
    let snapshot = site();
    let counters = &snapshot.frontends.get("shop").expect("a frontend").live.counters;
    counters.shard(WorkerId(1)).opened.add(2);
    counters.shard(WorkerId(1)).bytes_in.add(70);
    let stats = crate::admin::LegacyStats::of(&snapshot);
    let shop = &stats.frontends["shop"];
    assert_eq!((shop.total_connections, shop.bytes_tx), (2, 70));
    assert_eq!(stats.total_connections, 2);
}
