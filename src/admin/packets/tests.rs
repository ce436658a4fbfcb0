//! The views of the packet modes, from a site and an engine that are made up.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::*;
use crate::{
    admin::lookup,
    base::{
        BackendName, ClientAddr, Endpoint, EndpointRange, FrontendName, IpServerAddr, Mac, PacketReason,
        Protocol, ServerAddr, ServerKey, ServerName, ServerState, WorkerId,
    },
    config::{self, EngineChoice, Options, Source},
    flow::{FlowState, Hops, Usage},
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
    access.rules = ["deny 198.51.100.66"]
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
        vip: vip.parse().expect("an address"),
    }
}

fn server_a() -> (ServerKey, IpServerAddr) {
    let backend = site().backends.keys().next().expect("a backend").clone();
    let server = ServerName::new("a").expect("a name");
    let addr = "10.0.0.1:80".parse().expect("an address");
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
        state: FlowState::Established,
        idle: Duration::from_secs(2),
        expires_in: Duration::from_secs(58),
    }
}

#[test]
fn what_no_packet_frontend_serves_may_be_proxied_by_the_nearest_listener() {
    let snapshot = site();
    let by = |protocol, vip: &str| {
        let found = explanation(
            &snapshot,
            &tuple(protocol, vip),
            &Asks::default(),
            None,
            &Waiting::new(),
        );
        (found.because, found.frontend)
    };
    let proxied = |name: &str| (Because::Proxied.into(), FrontendName::new(name).ok());
    let nobody = (Because::Packets(flow::Because::NotServed).into(), None);
    assert_eq!(by(Protocol::Tcp, "192.0.2.7:80"), proxied("one"));
    assert_eq!(by(Protocol::Tcp, "192.0.2.9:80"), proxied("every"));
    assert_eq!(by(Protocol::Tcp, "192.0.2.9:81"), proxied("every"));
    assert_eq!(by(Protocol::Tcp, "[2001:db8::1]:80"), nobody);
    assert_eq!(by(Protocol::Tcp, "192.0.2.9:82"), nobody);
    assert_eq!(by(Protocol::Udp, "192.0.2.9:80"), nobody);
}

#[test]
fn an_explanation_says_that_the_rules_of_a_proxy_frontend_deny_the_client() {
    let snapshot = site();
    let blocked_by = |client: &str| {
        let tuple = FiveTuple {
            client: ClientAddr(client.parse().expect("an address")),
            ..tuple(Protocol::Tcp, "192.0.2.7:80")
        };
        explanation(&snapshot, &tuple, &Asks::default(), None, &Waiting::new()).blocked_by
    };
    assert_eq!(
        blocked_by("198.51.100.66:4000"),
        Some(PacketReason::Denied.into())
    );
    assert_eq!(blocked_by("198.51.100.67:4000"), None);
}

#[test]
fn an_explanation_names_frontend_server_state_flow_and_what_hinders() {
    let flow = a_flow();
    let found = flow::Explanation {
        frontend: Some(flow.frontend.clone()),
        server: Some(server_a()),
        because: flow::Because::Flow,
        slot: Some(3),
        flow: Some(flow.clone()),
        blocked_by: Some(PacketReason::NoRoute),
    };
    let explain = |waiting: &Waiting| {
        explanation(
            &site(),
            &flow.tuple,
            &Asks::default(),
            Some(found.clone()),
            waiting,
        )
    };
    let view = explain(&Waiting::new());
    assert_eq!(view.frontend, Some(flow.frontend.clone()));
    assert_eq!(view.mode, Some(Mode::Passthrough.into()));
    let (key, addr) = server_a();
    assert_eq!(
        (view.server, view.server_addr),
        (Some(key.server), Some(addr.into()))
    );
    assert_eq!(view.server_state, Some(ServerState::Up.into()));
    assert_eq!((view.candidates, view.slot), (1, Some(3)), "b has weight 0");
    assert_eq!(view.blocked_by, Some(PacketReason::NoRoute.into()));
    let shown = view.flow.expect("the flow");
    assert_eq!(shown.nat, flow.nat);
    assert_eq!((shown.idle_seconds, shown.expires_in_seconds), (2.0, 58.0));

    let waiting = [(flow.tuple.endpoint().into(), wait("no interface has it", true))];
    let view = explain(&waiting.into());
    assert_eq!(view.blocked_by, Some(Word::Other("no interface has it".into())));
}

#[test]
fn a_flow_of_a_frontend_that_is_gone_is_still_listed() {
    let flow = a_flow();
    let view = connection(&flow);
    assert!(view.mode == Mode::Passthrough && view.frontend == flow.frontend);
    assert_eq!((view.worker, view.bytes_in), (None, None));
    assert_eq!(view.flow.map(|flow| flow.vip), Some(flow.tuple.vip));
}

#[test]
fn what_is_no_longer_configured_is_marked() {
    let snapshot = site();
    let marked = |change: fn(&mut views::Connection)| {
        let mut view = connection(&a_flow());
        change(&mut view);
        lookup::mark_removed(&snapshot, &mut view);
        (view.frontend_removed, view.server_removed)
    };
    assert_eq!(marked(|_| {}), (false, false));
    assert_eq!(
        marked(|view| view.server = ServerName::new("gone").ok()),
        (false, true)
    );
    let moved =
        |view: &mut views::Connection| view.server_addr = "10.0.0.9:80".parse().ok().map(ServerAddr::new);
    assert_eq!(
        marked(moved),
        (false, true),
        "at another address it is another server"
    );
    let gone = |view: &mut views::Connection| view.frontend = FrontendName::new("gone").expect("a name");
    assert_eq!(marked(gone), (true, false));
    assert_eq!(
        marked(|view| view.backend = BackendName::new("gone").ok()),
        (false, true)
    );
    // until one is connected there is none to be gone
    let connecting = |view: &mut views::Connection| (view.server, view.server_addr) = (None, None);
    assert_eq!(marked(connecting), (false, false));
}

#[test]
fn names_that_nothing_has_are_told_with_those_that_there_are() {
    let snapshot = site();
    let check = |frontend: Option<&str>, backend: Option<&str>, server: Option<&str>| {
        let filter = views::ConnectionFilter {
            frontend: frontend.map(Into::into),
            backend: backend.map(Into::into),
            server: server.map(Into::into),
            client: None,
        };
        lookup::check_names(&snapshot, &filter).map_err(|problem| problem.message)
    };
    assert_eq!(check(None, None, None), Ok(()));
    assert_eq!(check(Some("shop"), Some("web"), Some("a")), Ok(()));
    assert_eq!(check(None, None, Some("b")), Ok(()));
    for (found, message) in [
        (
            check(Some("shpo"), None, None),
            "no frontend `shpo`: did you mean `shop`?",
        ),
        (
            check(None, Some("wbe"), None),
            "no backend `wbe`: did you mean `web`?",
        ),
        (
            check(None, Some("web"), Some("nope")),
            "no server `nope` in backend `web`",
        ),
        (
            check(None, None, Some("nope")),
            "no server `nope` in any backend (servers: a, b)",
        ),
    ] {
        assert!(
            found.as_ref().is_err_and(|found| found.starts_with(message)),
            "{found:?}"
        );
    }
}

#[test]
fn a_frontend_waits_while_one_of_its_addresses_does() {
    let snapshot = site();
    let state = |name: &str, waiting: &Waiting| {
        frontend_state(snapshot.frontends.get(name).expect("a frontend"), waiting)
    };
    assert_eq!(
        state("one", &Waiting::new()),
        (FrontendState::Live, [].into()),
        "a proxied one too"
    );
    assert_eq!(state("shop", &Waiting::new()).0, FrontendState::Live);
    let second: EndpointRange = Endpoint::tcp("192.0.2.2:80".parse().expect("an address")).into();
    let (state, why) = state("shop", &[(second, wait("no interface", true))].into());
    assert_eq!(state, FrontendState::Waiting);
    assert_eq!(why, [(second.listen, "no interface".to_owned())].into());
}

#[test]
fn a_frontend_serves_with_an_eligible_server_and_addresses_that_are_live_or_elsewhere() {
    let snapshot = site();
    let name = FrontendName::new("shop").expect("a name");
    let shop = &snapshot.frontends[&name];
    let second: EndpointRange = Endpoint::tcp("192.0.2.2:80".parse().expect("an address")).into();
    let serves = |wait| serves(&snapshot, shop, &[(second, wait)].into());
    assert!(super::serves(&snapshot, shop, &Waiting::new()));
    assert!(serves(wait("no interface has it", true)), "a standby");
    assert!(!serves(wait("its interface is down", false)));
    let drained = site_where(&[("a", AdminState::Draining)]);
    assert!(
        !super::serves(&drained, &drained.frontends[&name], &Waiting::new()),
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
        locals: ["10.0.0.9".parse().expect("an address")].into(),
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
    let status = PacketStatus {
        engine: EngineChoice::Raw,
        engine_reason: "configured".into(),
        xdp: BTreeMap::new(),
        workers: 2,
        interfaces: vec![],
        network: Arc::new(Network {
            hops: Arc::new(hops),
            links: [(3, "eth1".to_owned())].into(),
            no_way: [(ip("10.0.0.2"), "a blackhole".to_owned())].into(),
            moving: [ip("10.0.0.1")].into(),
        }),
        rules: RulesStatus {
            error: None,
            restored: 2,
            last_restored: Some(Instant::now()),
            ..RulesStatus::default()
        },
        alerts: Arc::new([(None, [Alert::FlowTable].into())].into()),
    };
    let counts = PacketCounts {
        usage: Usage::default(),
        packets: vec![(PacketReason::ToServer, 5), (PacketReason::TooBig, 0)],
        passed: vec![],
    };
    let view = packet(&status, &counts, PortRanges::STOCK);
    assert!(view.alerts.len() == 1 && view.alerts[0] == Alert::FlowTable);
    assert_eq!(view.nat_ports, "10000-32767,61000-65535");
    assert_eq!(view.packets, [(PacketReason::ToServer.into(), 5)].into());
    assert_eq!(
        (view.rules.restored, view.rules.restored_seconds_ago.is_some()),
        (2, true)
    );
    let found = &view.next_hops[&ip("10.0.0.1")];
    assert!(found.state == HopState::Resolved);
    assert_eq!(
        (found.interface.as_deref(), found.mac.as_deref()),
        (Some("eth1"), Some("02:00:00:00:00:02"))
    );
    assert_eq!(
        (found.locals.as_slice(), found.source_moves),
        ([ip("10.0.0.9")].as_slice(), true)
    );
    let lost = &view.next_hops[&ip("10.0.0.2")];
    assert!(lost.state == HopState::NoRoute && lost.reason.as_deref() == Some("a blackhole"));
    let json = serde_json::to_value(&view).expect("JSON");
    assert_eq!(json["next_hops"]["10.0.0.1"]["state"], "resolved");
    assert_eq!(
        (&json["engine"], &json["packets"]["to_server"]),
        (&"raw".into(), &5.into())
    );
}

#[test]
fn stats_of_0_3_5_count_packet_frontends_as_any_other() {
    let snapshot = site();
    let counters = &snapshot.frontends.get("shop").expect("a frontend").live.counters;
    counters.shard(WorkerId(1)).opened.add(2);
    counters.shard(WorkerId(1)).bytes_in.add(70);
    let stats = crate::admin::stats::LegacyStats::of(&snapshot);
    let shop = &stats.frontends["shop"];
    assert_eq!((shop.total_connections, shop.bytes_tx), (2, 70));
    assert_eq!(stats.total_connections, 2);
}
