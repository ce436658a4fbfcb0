//! What people read.

use super::*;
use std::net::SocketAddr;

use crate::{
    base::{BackendName, ClientAddr, FrontendName, ListenAddr, ServerAddr, ServerName, ServerState},
    cli::args::{DaemonArgs, Transport},
    config::Mode,
};

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn by_maglev() -> Explanation {
    Explanation {
        protocol: Protocol::Tcp.into(),
        client: ClientAddr(addr("192.0.2.1:40000")),
        vip: ListenAddr::new(addr("10.0.0.1:80")),
        frontend: FrontendName::new("web").ok(),
        mode: Some(Mode::Passthrough.into()),
        backend: BackendName::new("app").ok(),
        because: Because::Packets(flow::Because::Maglev).into(),
        server: ServerName::new("a").ok(),
        server_addr: Some(ServerAddr::new(addr("10.1.0.2:8080"))),
        server_state: Some(ServerState::Up.into()),
        candidates: 2,
        route: None,
        refused: None,
        balance: None,
        shares: Vec::new(),
        server_tls: None,
        slot: Some(4711),
        sticky: false,
        flow: None,
        blocked_by: None,
    }
}

fn nobody() -> Explanation {
    Explanation {
        server: None,
        server_addr: None,
        server_state: None,
        slot: None,
        ..by_maglev()
    }
}

#[test]
fn a_new_flow_is_explained_by_its_slot() {
    assert_eq!(
        draw(&by_maglev(), false),
        "\
tcp 192.0.2.1:40000 -> 10.0.0.1:80
frontend  web, mode passthrough, backend app
server    a at 10.1.0.2:8080 (up)
because   it has no flow yet; its address hash selects slot 4711 (2 servers eligible)
"
    );
    assert_eq!(status(&by_maglev()), exit::OK);
}

#[test]
fn a_flow_is_shown_with_its_port_its_age_and_what_blocks_it() {
    let found = Explanation {
        because: Because::Packets(flow::Because::FlowDraining).into(),
        server_state: Some(ServerState::Draining.into()),
        flow: Some(Flow {
            vip: ListenAddr::new(addr("10.0.0.1:80")),
            nat: Some(addr("10.1.0.1:61234")),
            state: flow::FlowState::Established.into(),
            idle_seconds: 3.2,
            expires_in_seconds: 896.8,
        }),
        blocked_by: Some(PacketReason::Unresolved.into()),
        ..by_maglev()
    };
    assert_eq!(
        draw(&found, false),
        "\
tcp 192.0.2.1:40000 -> 10.0.0.1:80
frontend  web, mode passthrough, backend app
server    a at 10.1.0.2:8080 (draining)
because   it has a flow, which stays with its server until it ends; new ones go elsewhere
flow      established, source 10.1.0.1:61234, idle 3s, expires in 14m 56s
warning   dropped: the next hop to the server has not answered yet (ARP, neighbour discovery)
"
    );
    assert_eq!(status(&found), exit::OK);
}

#[test]
fn who_would_be_refused_is_told_why() {
    let told = |reason: PacketReason| {
        let blocked_by = Some(reason.into());
        draw(
            &Explanation {
                blocked_by,
                ..by_maglev()
            },
            false,
        )
    };
    let denied = told(PacketReason::Denied);
    assert!(
        denied.ends_with("warning   dropped: the frontend's access rules deny this client\n"),
        "{denied}"
    );
    let full = told(PacketReason::ClientPorts);
    assert!(
        full.ends_with(
            "warning   dropped: the client holds its share of the server's NAT ports; see [packet] max_ports_per_client\n"
        ),
        "{full}"
    );
}

#[test]
fn an_address_that_nobody_serves_is_left_to_the_kernel() {
    let found = Explanation {
        frontend: None,
        mode: None,
        backend: None,
        because: Because::Packets(flow::Because::NotServed).into(),
        ..nobody()
    };
    assert_eq!(
        draw(&found, false),
        "\
tcp 192.0.2.1:40000 -> 10.0.0.1:80
server    none
because   no frontend has this address, port and protocol: packets are left to the kernel
"
    );
    assert_eq!(status(&found), exit::UNAVAILABLE);
}

/// A proxied connection between a of weight 2 and b that is full.
fn proxied(balance: Algorithm) -> Explanation {
    let candidate = |name: &str, percent, connections| Candidate {
        server: ServerName::new(name).expect("a name"),
        addr: ServerAddr::new(addr("10.1.0.2:8080")),
        percent,
        connections,
    };
    Explanation {
        mode: Some(Mode::Proxy.into()),
        because: Because::Proxied.into(),
        balance: Some(balance.into()),
        shares: vec![
            candidate("a", 66.7, 3),
            candidate("b", 33.3, 1),
            candidate("c", 0.0, 5),
        ],
        candidates: 3,
        ..nobody()
    }
}

#[test]
fn a_proxied_connection_is_explained_by_the_shares_of_the_servers() {
    assert_eq!(
        draw(&proxied(Algorithm::RoundRobin), false),
        "\
tcp 192.0.2.1:40000 -> 10.0.0.1:80
frontend  web, mode proxy, backend app (round_robin)
because   proxied: each connection gets its own server; 3 eligible
servers   a at 10.1.0.2:8080: 67 % of new connections by weight, 3 open connections
          b at 10.1.0.2:8080: 33 % of new connections by weight, 1 open connection
          c at 10.1.0.2:8080: no room, 5 open connections
"
    );
}

#[test]
fn where_the_choice_is_certain_the_server_is_named_and_why() {
    let certain = Explanation {
        server: ServerName::new("a").ok(),
        server_addr: Some(ServerAddr::new(addr("10.1.0.2:8080"))),
        server_state: Some(ServerState::Up.into()),
        ..proxied(Algorithm::SourceHash)
    };
    assert_eq!(
        draw(&certain, false),
        "\
tcp 192.0.2.1:40000 -> 10.0.0.1:80
frontend  web, mode proxy, backend app (source_hash)
server    a at 10.1.0.2:8080 (up)
because   proxied: the hash of the client's address selects the server (3 servers eligible)
"
    );
    assert_eq!(status(&certain), exit::OK);
}

#[test]
fn the_route_is_named_and_a_refusal_says_why() {
    let routed = Explanation {
        route: std::num::NonZeroU32::new(2),
        ..proxied(Algorithm::RoundRobin)
    };
    assert!(draw(&routed, false).contains("\nroute     2\n"));
    let refused = |reason: TerminationReason| Explanation {
        refused: Some(reason.into()),
        backend: None,
        candidates: 0,
        shares: Vec::new(),
        ..proxied(Algorithm::RoundRobin)
    };
    let unexpected = refused(TerminationReason::UnexpectedSni);
    assert_eq!(
        draw(&unexpected, false),
        "\
tcp 192.0.2.1:40000 -> 10.0.0.1:80
frontend  web, mode proxy
server    none
because   proxied: neither a route nor a server expects the name that it asks for
"
    );
    assert_eq!(status(&unexpected), exit::UNAVAILABLE);
    let unmatched = draw(&refused(TerminationReason::RouteRejected), false);
    assert!(
        unmatched.contains("because   proxied: no route matches"),
        "{unmatched}"
    );
    let by_route = Explanation {
        route: std::num::NonZeroU32::new(2),
        ..refused(TerminationReason::RouteRejected)
    };
    let rejected = draw(&by_route, false);
    assert!(
        rejected.ends_with("route     2\nserver    none\nbecause   proxied: route 2 rejects it\n"),
        "{rejected}"
    );
}

#[test]
fn without_a_server_that_is_up_the_exit_status_is_69() {
    let status_of = |because: &str, candidates, server: Option<&str>| {
        status(&Explanation {
            because: because.parse().expect("any text is a word"),
            candidates,
            server: server.and_then(|name| ServerName::new(name).ok()),
            ..nobody()
        })
    };
    assert_eq!(status_of("no_server", 0, None), exit::UNAVAILABLE);
    assert_eq!(status_of("flow_server_down", 1, Some("a")), exit::UNAVAILABLE);
    assert_eq!(status_of("proxied", 0, None), exit::UNAVAILABLE);
    assert_eq!(status_of("proxied", 1, None), exit::OK);
    assert_eq!(status_of("flow", 1, Some("a")), exit::OK);
}

#[test]
fn what_only_a_newer_convey_knows_is_shown_as_it_says_it() {
    let found = Explanation {
        because: Word::Other("by_the_moon".into()),
        blocked_by: Some(Word::Other("10.0.0.1 is on no interface".into())),
        ..by_maglev()
    };
    let drawn = draw(&found, false);
    assert!(drawn.contains("because   by_the_moon\n"), "{drawn}");
    assert!(
        drawn.ends_with("warning   10.0.0.1 is on no interface\n"),
        "{drawn}"
    );
    assert_eq!(status(&found), exit::OK);
}

#[test]
fn addresses_travel_percent_encoded() {
    let args = |sni: Option<&str>| ExplainArgs {
        protocol: Transport::Udp,
        client: addr("[2001:db8::1]:1"),
        vip: addr("[2001:db8::2]:53"),
        sni: sni.map(Into::into),
        alpn: sni.map(|_| "h2,http/1.1".to_owned()),
        json: false,
        target: DaemonArgs::default(),
    };
    let tuple =
        "/v1/explain?protocol=udp&client=%5B2001%3Adb8%3A%3A1%5D%3A1&vip=%5B2001%3Adb8%3A%3A2%5D%3A53";
    assert_eq!(target(&args(None)), tuple);
    assert_eq!(
        target(&args(Some("a&b"))),
        format!("{tuple}&sni=a%26b&alpn=h2%2Chttp%2F1.1")
    );
}
