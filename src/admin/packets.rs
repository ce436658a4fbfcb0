//! The views of the packet modes: pure, from what the daemon knows of its engine.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use super::views;
use crate::{
    base::{Endpoint, ListenAddr, PacketReason, PortRange, Protocol},
    flow::{self, Because, FiveTuple, FlowInfo, Hop, Hops, Resolution, Usage},
    snapshot::{FrontendView, Snapshot},
};

/// What only the daemon knows of the packet modes.
#[derive(Debug, Clone, Default)]
pub struct PacketInfo {
    /// The engine's label; empty if none runs.
    pub engine: &'static str,
    /// Why this engine.
    pub engine_reason: String,
    /// Its worker threads.
    pub workers: usize,
    /// Names of the interfaces that are served.
    pub interfaces: Vec<String>,
    /// How full the tables are.
    pub usage: Usage,
    /// Packets by what became of them.
    pub packets: Vec<(PacketReason, u64)>,
    /// The ways to the servers.
    pub hops: Arc<Hops>,
    /// Names of interfaces by index.
    pub links: BTreeMap<u32, String>,
    /// Why there is no way to a server.
    pub no_way: BTreeMap<IpAddr, String>,
    /// Why VIPs wait, those that do.
    pub waiting: Waiting,
}

/// Why VIPs wait.
pub type Waiting = BTreeMap<Endpoint, Wait>;

/// Why a VIP waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    /// In words.
    pub why: String,
    /// Whether no interface of this host has it: another load balancer may.
    pub is_elsewhere: bool,
}

/// The packet modes, for `GET /v1/status`.
#[must_use]
pub fn packet(info: &PacketInfo, nat_ports: PortRange) -> views::Packet {
    let counted = info.packets.iter().filter(|(_, count)| *count > 0);
    let hops = info.hops.servers.iter();
    views::Packet {
        engine: info.engine.to_owned(),
        engine_reason: info.engine_reason.clone(),
        workers: info.workers,
        nat_ports: nat_ports.to_string(),
        interfaces: info.interfaces.clone(),
        flows: views::PacketFlows {
            nat: info.usage.nat_flows,
            half_open: info.usage.half_open,
            dsr: info.usage.dsr_flows,
            max: info.usage.max_flows,
            fragments_waiting: info.usage.fragments_waiting,
        },
        packets: counted
            .map(|(reason, count)| (reason.label().to_owned(), *count))
            .collect(),
        next_hops: hops
            .map(|(ip, hop)| (ip.to_string(), next_hop(*ip, hop, info)))
            .collect(),
    }
}

fn next_hop(ip: IpAddr, hop: &Hop, info: &PacketInfo) -> views::NextHop {
    let (state, link) = match &hop.resolution {
        Resolution::Known(link) => ("known", Some(link)),
        Resolution::Unresolved => ("unresolved", None),
        Resolution::NoRoute => ("no_route", None),
    };
    views::NextHop {
        state: state.to_owned(),
        reason: info.no_way.get(&ip).cloned(),
        interface: link.map(|link| {
            let name = info.links.get(&link.ifindex).cloned();
            name.unwrap_or_else(|| format!("interface {}", link.ifindex))
        }),
        mac: link.map(|link| link.destination.to_string()),
        local: hop.local.to_string(),
        mtu: hop.mtu,
    }
}

/// Whether packets to a frontend's addresses reach us, and why not; nothing of a proxied one.
#[must_use]
pub fn frontend_state(view: &FrontendView, waiting: &Waiting) -> (Option<String>, BTreeMap<String, String>) {
    if !view.config.mode.is_packet() {
        return (None, BTreeMap::new());
    }
    let waiting: BTreeMap<String, String> = waits(view, waiting)
        .map(|(vip, wait)| (vip.to_string(), wait.why.clone()))
        .collect();
    let state = if waiting.is_empty() { "live" } else { "waiting" };
    (Some(state.to_owned()), waiting)
}

/// Whether clients are served that reach a frontend: its backend has an eligible server, and each of its addresses is live,
/// or on no interface of this host. (So is every address of a standby, which would not take over if that were a fault.)
#[must_use]
pub fn serves(view: &FrontendView, waiting: &Waiting) -> bool {
    view.backend.counts.eligible > 0 && waits(view, waiting).all(|(_, wait)| wait.is_elsewhere)
}

fn waits<'a>(view: &'a FrontendView, waiting: &'a Waiting) -> impl Iterator<Item = (ListenAddr, &'a Wait)> {
    let endpoints = view.config.endpoints();
    endpoints.filter_map(|endpoint| Some((endpoint.addr, waiting.get(&endpoint)?)))
}

/// A passthrough flow among the connections.
#[must_use]
pub fn connection(flow: &FlowInfo, snapshot: &Snapshot) -> views::Connection {
    // a flow outlives its frontend
    let mode = snapshot
        .frontends
        .get(&flow.frontend)
        .map(|view| view.config.mode.label());
    views::Connection {
        client: flow.tuple.client.to_string(),
        protocol: flow.tuple.protocol.label().to_owned(),
        mode: mode.unwrap_or("passthrough").to_owned(),
        frontend: flow.frontend.to_string(),
        backend: flow.server.backend.to_string(),
        server: Some(flow.server.server.to_string()),
        worker: None,
        age_seconds: None,
        bytes_in: None,
        bytes_out: None,
        flow: Some(flow_view(flow)),
    }
}

fn flow_view(flow: &FlowInfo) -> views::Flow {
    views::Flow {
        vip: flow.tuple.vip.to_string(),
        nat: flow.nat.map(|nat| nat.to_string()),
        state: flow.state.to_owned(),
        idle_seconds: flow.idle.as_secs_f64(),
        expires_in_seconds: flow.expires_in.as_secs_f64(),
    }
}

/// Where packets of a 5-tuple would go. `found` is the engine's answer; `None` if no engine runs.
#[must_use]
pub fn explanation(
    snapshot: &Snapshot,
    tuple: &FiveTuple,
    found: Option<flow::Explanation>,
    waiting: &Waiting,
) -> views::Explanation {
    let found = found.filter(|found| found.because != Because::NotServed);
    let mut view = views::Explanation {
        protocol: tuple.protocol.label().to_owned(),
        client: tuple.client.to_string(),
        vip: tuple.vip.to_string(),
        frontend: None,
        mode: None,
        backend: None,
        because: Because::NotServed.label().to_owned(),
        server: None,
        server_addr: None,
        server_state: None,
        candidates: 0,
        slot: None,
        flow: None,
        hindrance: None,
    };
    match found {
        Some(found) => packet_explanation(&mut view, snapshot, tuple, found, waiting),
        None => {
            if let Some(frontend) = proxied_by(snapshot, tuple) {
                name_frontend(&mut view, snapshot, frontend);
                "proxied".clone_into(&mut view.because);
            }
        }
    }
    view
}

fn packet_explanation(
    view: &mut views::Explanation,
    snapshot: &Snapshot,
    tuple: &FiveTuple,
    found: flow::Explanation,
    waiting: &Waiting,
) {
    if let Some(name) = &found.frontend {
        match snapshot.frontends.get(name) {
            Some(frontend) => name_frontend(view, snapshot, frontend),
            None => view.frontend = Some(name.to_string()),
        }
    }
    if let Some((key, addr)) = &found.server {
        let server = (snapshot.backends.get(&key.backend))
            .and_then(|backend| backend.servers.iter().find(|server| server.name == key.server));
        view.backend = Some(key.backend.to_string());
        view.server = Some(key.server.to_string());
        view.server_addr = Some(addr.to_string());
        view.server_state = server.map(|server| server.state);
    }
    found.because.label().clone_into(&mut view.because);
    view.slot = found.slot;
    view.flow = found.flow.as_ref().map(flow_view);
    let waits = (found.frontend).and_then(|_| waiting.get(&tuple.endpoint()));
    view.hindrance = match (waits, found.hindrance) {
        (Some(wait), _) => Some(wait.why.clone()),
        (None, hindrance) => hindrance.map(|reason| reason.label().to_owned()),
    };
}

fn name_frontend(view: &mut views::Explanation, snapshot: &Snapshot, frontend: &FrontendView) {
    view.frontend = Some(frontend.config.name.to_string());
    view.mode = Some(frontend.config.mode.label().to_owned());
    view.backend = Some(frontend.config.backend.to_string());
    view.candidates = snapshot
        .backends
        .get(&frontend.config.backend)
        .map_or(0, |backend| backend.counts.eligible);
}

/// The frontend whose listener takes connections to an address: that of the address itself before a wildcard's.
fn proxied_by<'a>(snapshot: &'a Snapshot, tuple: &FiveTuple) -> Option<&'a FrontendView> {
    if tuple.protocol != Protocol::Tcp {
        return None;
    }
    let wanted = tuple.vip.0;
    let rank = |listen: &ListenAddr| {
        let listen = listen.0;
        if listen == wanted {
            return Some(0);
        }
        if listen.port() != wanted.port() || !listen.ip().is_unspecified() {
            return None;
        }
        // [::] takes IPv4 too, after 0.0.0.0
        match (listen.is_ipv4(), wanted.is_ipv4()) {
            (same, other) if same == other => Some(1),
            (false, true) => Some(2),
            _ => None,
        }
    };
    (snapshot.frontends.values())
        .filter(|view| !view.config.mode.is_packet())
        .filter_map(|view| Some((view.config.listen.iter().filter_map(rank).min()?, view)))
        .min_by_key(|(rank, view)| (*rank, view.config.name.clone()))
        .map(|(_, view)| view.as_ref())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::{
        base::{
            BackendName, ClientAddr, FrontendName, Mac, ServerAddr, ServerKey, ServerName, ServerState,
            WorkerId,
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
}
