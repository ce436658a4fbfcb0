//! Access rules and limits: who may open a flow, and when what it took is given back.

use std::{net::SocketAddr, num::NonZeroU32, sync::Arc, time::Duration};

use crate::{
    access::PerClient,
    base::{AccessReason, PacketReason, Protocol, ServerState},
    config::{Mode, PortsPerClient},
    flow::{Because, Verdict, testing::*},
    packet::testing::Packet,
};

/// Both packet modes with both protocols and families.
fn sites() -> impl Iterator<Item = Site> {
    let modes = [Mode::Passthrough, Mode::Dsr].into_iter();
    let protocols = modes.flat_map(|mode| [Protocol::Tcp, Protocol::Udp].map(|protocol| (mode, protocol)));
    let families = protocols.flat_map(|(mode, protocol)| [false, true].map(|v6| (mode, protocol, v6)));
    families.map(|(mode, protocol, v6)| {
        let mut site = Site::with(mode, protocol, 2, v6, 1_024);
        if v6 && mode == Mode::Dsr {
            site.backend().dsr_method = crate::config::DsrMethod::Nft;
            site.apply();
        }
        site
    })
}

fn passthrough(protocol: Protocol) -> Site {
    Site::with(Mode::Passthrough, protocol, 1, false, 1_024)
}

fn ports(count: u32) -> PortsPerClient {
    PortsPerClient::Count(NonZeroU32::new(count).unwrap())
}

/// A client's first packet.
fn begin(site: &mut Site, client: SocketAddr) -> Sent {
    match site.config.frontends["a"].protocol {
        Protocol::Tcp => site.tcp(client, SYN),
        Protocol::Udp => site.udp(client),
    }
}

/// A passthrough flow whose client has proven to be who it says; `None` if that is refused.
fn establish(site: &mut Site, client: SocketAddr) -> Option<(SocketAddr, SocketAddr)> {
    let first = begin(site, client);
    if let Verdict::Done(_) = first.verdict {
        return None;
    }
    let (nat, server) = first.ends();
    let next = match site.config.frontends["a"].protocol {
        Protocol::Tcp => {
            site.reply(server, nat, SYN_ACK);
            site.tcp(client, ACK)
        }
        Protocol::Udp => {
            site.send(&Packet::udp(server, nat, b"answer"), SERVERS);
            site.udp(client)
        }
    };
    matches!(next.verdict, Verdict::Send { .. }).then_some((nat, server))
}

fn refused(site: &Site, reason: AccessReason) -> u64 {
    assert_eq!(
        site.frontend().refused[reason as usize],
        site.count(reason.into()),
        "{reason}"
    );
    site.count(reason.into())
}

#[test]
fn a_denied_client_hears_nothing_and_opens_nothing() {
    for mut site in sites() {
        let (denied, allowed) = (site.client(1, 5_000), site.client(2, 5_000));
        site.rules(&[&format!("deny {}", denied.ip())]);
        let sent = begin(&mut site, denied);
        assert_eq!(sent.verdict, Verdict::Done(PacketReason::Denied));
        assert!(sent.answers.is_empty());
        assert_eq!(begin(&mut site, allowed).reason(), Some(PacketReason::ToServer));
        assert_eq!(refused(&site, AccessReason::Denied), 1);
        assert_eq!(site.frontend().opened, 1, "what is refused is no flow");
        site.check();
    }
}

#[test]
fn a_packet_in_the_middle_of_nothing_is_ignored_too_where_its_client_is_denied() {
    for mode in [Mode::Passthrough, Mode::Dsr] {
        let mut site = Site::new(mode, Protocol::Tcp, 2);
        let client = site.client(1, 5_000);
        site.rules(&[&format!("deny {}", client.ip())]);
        let sent = site.tcp(client, ACK);
        assert_eq!(sent.verdict, Verdict::Done(PacketReason::Denied));
        assert!(sent.answers.is_empty(), "no reset");
    }
}

#[test]
fn a_flow_outlives_the_rule_that_would_refuse_it() {
    for mut site in sites() {
        let client = site.client(1, 5_000);
        let first = begin(&mut site, client).ends();
        site.rules(&["deny 0.0.0.0/0", "deny ::/0"]);
        site.ports_per_client(ports(1));
        assert_eq!(begin(&mut site, client).ends(), first);
        let other = site.client(1, 5_001);
        assert_eq!(
            begin(&mut site, other).verdict,
            Verdict::Done(PacketReason::Denied)
        );
    }
}

#[test]
fn explain_names_what_would_refuse_a_client() {
    let mut site = passthrough(Protocol::Tcp);
    let client = site.client(1, 5_000);
    site.rules(&[&format!("deny {}", client.ip())]);
    let denied = site.explain(client, Protocol::Tcp);
    assert_eq!(
        (denied.because, denied.blocked_by),
        (Because::Maglev, Some(PacketReason::Denied))
    );
    site.rules(&[]);
    site.ports_per_client(ports(1));
    assert_eq!(site.explain(client, Protocol::Tcp).blocked_by, None);
    establish(&mut site, client).unwrap();
    assert_eq!(
        site.explain(client, Protocol::Tcp).blocked_by,
        None,
        "it has a flow"
    );
    let second = site.explain(site.client(1, 5_001), Protocol::Tcp);
    assert_eq!(second.blocked_by, Some(PacketReason::ClientPorts));
}

#[test]
fn a_client_has_so_many_connections_and_another_is_not_hindered() {
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let mut site = passthrough(protocol);
        site.per_client(3, 0);
        let clients: Vec<_> = (1..=4).map(|port| site.client(1, port)).collect();
        for client in &clients[..3] {
            establish(&mut site, *client).unwrap();
        }
        let sent = begin(&mut site, clients[3]);
        assert_eq!(sent.verdict, Verdict::Done(PacketReason::ClientConnections));
        assert!(sent.answers.is_empty());
        assert_eq!(refused(&site, AccessReason::ClientConnections), 1);
        let other = site.client(2, 1);
        establish(&mut site, other).unwrap();
        // a reload forgets nothing, and a larger limit counts at once
        site.frontend_mut().idle_timeout = Some(Duration::from_secs(77));
        site.apply();
        assert!(establish(&mut site, clients[3]).is_none());
        site.per_client(4, 0);
        establish(&mut site, clients[3]).unwrap();
        site.check();
    }
}

#[test]
fn an_ipv6_client_is_its_network() {
    let mut site = Site::with(Mode::Passthrough, Protocol::Tcp, 1, true, 1_024);
    site.per_client(1, 0);
    let (one, two) = (site.client(1, 1), site.client(2, 1));
    establish(&mut site, one).unwrap();
    assert_eq!(
        begin(&mut site, two).verdict,
        Verdict::Done(PacketReason::ClientConnections)
    );
}

#[test]
fn forged_packets_use_up_nobodys_connections_and_ports() {
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let mut site = passthrough(protocol);
        site.per_client(2, 0);
        site.ports_per_client(ports(2));
        for port in 1..100 {
            let forged = site.client(1, port);
            let (nat, server) = begin(&mut site, forged).ends();
            match protocol {
                Protocol::Tcp => site.reply(server, nat, SYN_ACK),
                Protocol::Udp => site.send(&Packet::udp(server, nat, b"answer"), SERVERS),
            };
        }
        let client = site.client(1, 5_000);
        establish(&mut site, client).unwrap();
        site.check();
    }
}

#[test]
fn of_connections_that_begin_at_once_those_beyond_the_limit_end_when_the_client_answers() {
    for reason in [PacketReason::ClientConnections, PacketReason::ClientPorts] {
        let mut site = passthrough(Protocol::Tcp);
        if reason == PacketReason::ClientPorts {
            site.ports_per_client(ports(2));
        } else {
            site.per_client(2, 0);
        }
        let clients: Vec<_> = (1..=5).map(|port| site.client(1, port)).collect();
        for client in &clients {
            let (nat, server) = site.tcp(*client, SYN).ends();
            site.reply(server, nat, SYN_ACK);
        }
        let answers: Vec<_> = clients.iter().map(|client| site.tcp(*client, ACK)).collect();
        assert!(
            answers[..2]
                .iter()
                .all(|sent| sent.reason() == Some(PacketReason::ToServer))
        );
        assert!(answers[2..].iter().all(|sent| sent.reason() == Some(reason)));
        assert_eq!(site.flows.usage().nat_flows, 2);
        let next = site.tcp(clients[4], ACK);
        assert_eq!(
            next.verdict,
            Verdict::Done(PacketReason::ResetNoFlow),
            "it is told"
        );
        site.check();
    }
}

#[test]
fn a_client_opens_so_many_flows_a_second() {
    for mut site in sites() {
        site.per_client(0, 2);
        let opened = |site: &mut Site| {
            (1..=5)
                .filter(|port| {
                    let client = site.client(1, site.now.0 as u16 + port);
                    begin(site, client).reason() == Some(PacketReason::ToServer)
                })
                .count()
        };
        assert_eq!(opened(&mut site), 2);
        assert_eq!(refused(&site, AccessReason::ClientRate), 3);
        site.pass(Duration::from_millis(500));
        site.rules(&["allow 0.0.0.0/0"]);
        assert_eq!(opened(&mut site), 1, "a reload does not fill its bucket");
        let other = site.client(2, 1);
        // of the same IPv6 network, but of another IPv4 one
        let expected = if other.is_ipv4() {
            PacketReason::ToServer
        } else {
            PacketReason::ClientRate
        };
        assert_eq!(begin(&mut site, other).reason(), Some(expected));
    }
}

#[test]
fn a_client_sends_so_many_datagrams_a_second_of_flows_that_exist_too() {
    for mode in [Mode::Passthrough, Mode::Dsr] {
        let mut site = Site::new(mode, Protocol::Udp, 2);
        let per_client = PerClient {
            datagrams_per_second: NonZeroU32::new(4),
            ..PerClient::default()
        };
        site.frontend_mut().limits.per_client = Some(per_client);
        site.apply();
        let (one, again, other) = (site.client(1, 1), site.client(1, 2), site.client(2, 1));
        let passed = |site: &mut Site, client| site.udp(client).reason() == Some(PacketReason::ToServer);
        assert_eq!((0..3).filter(|_| passed(&mut site, one)).count(), 3);
        assert_eq!((0..3).filter(|_| passed(&mut site, again)).count(), 1);
        assert_eq!(site.udp(one).reason(), Some(PacketReason::ClientDatagrams));
        assert_eq!(refused(&site, AccessReason::ClientDatagrams), 3);
        assert!(passed(&mut site, other), "another client's are its own");
        site.pass(Duration::from_millis(500));
        site.rules(&["allow 0.0.0.0/0"]);
        assert_eq!(
            (0..5).filter(|_| passed(&mut site, one)).count(),
            2,
            "a reload fills nothing"
        );
        site.check();
    }
}

#[test]
fn a_frontend_takes_so_many_new_flows_a_second_from_all() {
    for mut site in sites() {
        site.frontend_mut().limits.new_per_second = NonZeroU32::new(3);
        site.apply();
        for host in 1..=5 {
            let client = site.client(host, 1);
            let expected = if host <= 3 {
                PacketReason::ToServer
            } else {
                PacketReason::FrontendRate
            };
            assert_eq!(begin(&mut site, client).reason(), Some(expected));
        }
        assert_eq!(refused(&site, AccessReason::FrontendRate), 2);
    }
}

#[test]
fn dsr_counts_a_connection_from_its_first_packet_until_it_is_forgotten() {
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let mut site = Site::new(Mode::Dsr, protocol, 2);
        site.per_client(1, 0);
        let (one, two) = (site.client(1, 1), site.client(1, 2));
        begin(&mut site, one);
        assert_eq!(
            begin(&mut site, two).verdict,
            Verdict::Done(PacketReason::ClientConnections)
        );
        assert_eq!(
            begin(&mut site, one).reason(),
            Some(PacketReason::ToServer),
            "its own goes on"
        );
        site.expire_after(Duration::from_secs(1_000));
        assert_eq!(begin(&mut site, two).reason(), Some(PacketReason::ToServer));
    }
}

#[test]
fn a_dsr_connection_under_way_is_not_limited_and_its_next_syn_is() {
    let mut site = Site::new(Mode::Dsr, Protocol::Tcp, 2);
    site.per_client(1, 0);
    let (one, two) = (site.client(1, 1), site.client(1, 2));
    site.tcp(one, SYN);
    for _ in 0..2 {
        assert_eq!(site.tcp(two, ACK).reason(), Some(PacketReason::ToServer));
    }
    assert_eq!(
        site.tcp(two, SYN).verdict,
        Verdict::Done(PacketReason::ClientConnections),
        "an ACK before it is no way around the limit"
    );
    site.check();
}

#[test]
fn a_client_holds_its_share_of_a_servers_ports_and_leaves_the_rest_to_others() {
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let mut site = passthrough(protocol);
        // the default: an eighth, and 32 at least
        site.nat_ports(61_000, 61_799);
        let held = (1..=300)
            .filter(|port| {
                let client = site.client(1, *port);
                establish(&mut site, client).is_some()
            })
            .count();
        assert_eq!(held, 100);
        assert_eq!(refused(&site, AccessReason::ClientPorts), 200);
        let other = site.client(2, 1);
        establish(&mut site, other).unwrap();
        site.ports_per_client(PortsPerClient::Unlimited);
        let client = site.client(1, 300);
        establish(&mut site, client).unwrap();
        site.check();
    }
}

#[test]
fn each_server_has_ports_of_its_own() {
    let mut site = Site::new(Mode::Passthrough, Protocol::Tcp, 2);
    site.ports_per_client(ports(5));
    let held = (1..=100)
        .filter(|port| {
            let client = site.client(1, *port);
            establish(&mut site, client).is_some()
        })
        .count();
    assert_eq!(held, 10);
}

/// Ends a flow in some way.
type End = fn(&mut Site, SocketAddr, (SocketAddr, SocketAddr));

#[test]
fn however_a_flow_ends_its_client_has_its_place_back() {
    let ends: [(&str, End); 7] = [
        ("both close", |site, client, (nat, server)| {
            site.close(client, nat, server);
        }),
        ("the client resets", |site, client, _| {
            site.tcp(client, RST);
        }),
        ("the server resets", |site, _, (nat, server)| {
            site.reply(server, nat, RST_ACK);
        }),
        ("it expires", |site, _, _| {
            site.expire_after(Duration::from_secs(901));
        }),
        ("the server goes down", |site, client, _| {
            site.health(1, ServerState::Down);
            site.tcp(client, ACK);
            site.health(1, ServerState::Up);
        }),
        ("it expires after its frontend is removed", |site, _, _| {
            let frontend = site.config.frontends.remove("a").unwrap();
            site.apply();
            site.expire_after(Duration::from_secs(901));
            site.config.frontends.insert(frontend.name.clone(), frontend);
            site.apply();
        }),
        ("it expires after the mode has changed", |site, _, _| {
            site.frontend_mut().mode = Mode::Dsr;
            site.apply();
            site.expire_after(Duration::from_secs(901));
            site.frontend_mut().mode = Mode::Passthrough;
            site.apply();
        }),
    ];
    for (way, end) in ends {
        let mut site = passthrough(Protocol::Tcp);
        site.per_client(1, 0);
        site.ports_per_client(ports(1));
        let (one, two) = (site.client(1, 1), site.client(1, 2));
        let (nat, server) = establish(&mut site, one).unwrap();
        assert!(establish(&mut site, two).is_none(), "{way}");
        end(&mut site, one, (nat, server));
        site.check();
        assert!(establish(&mut site, two).is_some(), "{way}");
        site.expire_after(Duration::from_secs(1_000));
        assert_eq!(site.flows.store.shares().held(), 0, "{way}");
    }
}

#[test]
fn what_gives_its_port_up_counts_no_more() {
    let mut site = passthrough(Protocol::Tcp);
    site.nat_ports(61_000, 61_000);
    site.per_client(1, 0);
    for port in 1..=20 {
        // closed flows of client 1 give the only port to client 2, and the other way round
        let client = site.client(1 + (port % 2) as u8, port);
        let (nat, server) = establish(&mut site, client).unwrap();
        site.tcp(client, FIN_ACK);
        site.reply(server, nat, FIN_ACK);
        site.tcp(client, ACK);
        site.pass(Duration::from_secs(2));
        site.check();
    }
    assert_eq!(site.flows.store.shares().held(), 0);
}

#[test]
fn the_frontends_prefixes_say_whose_share_it_is() {
    let mut site = passthrough(Protocol::Tcp);
    site.ports_per_client(ports(1));
    let prefix4 = |site: &mut Site, prefix4| {
        let per_client = PerClient {
            prefix4,
            ..Default::default()
        };
        site.frontend_mut().limits.per_client = Some(per_client);
        site.apply();
    };
    prefix4(&mut site, 24);
    let (one, two) = (site.client(1, 1), site.client(2, 1));
    establish(&mut site, one).unwrap();
    assert_eq!(
        begin(&mut site, two).verdict,
        Verdict::Done(PacketReason::ClientPorts)
    );
    prefix4(&mut site, 32);
    establish(&mut site, two).unwrap();
    site.check();
}

#[test]
fn frontends_without_limits_have_nothing_to_ask() {
    let site = passthrough(Protocol::Tcp);
    let frontend = Arc::clone(&site.snapshot.as_ref().unwrap().frontends["a"]);
    assert!(frontend.access.is_none());
}
