//! Passthrough: full NAT, both ways.

use std::{net::SocketAddr, time::Duration};

use crate::{
    base::{Mac, PacketReason, PortRanges, Protocol, ServerState},
    config::Mode,
    flow::{Resolution, Verdict, testing::*},
    packet::{parse, testing::Packet},
    pools::AdminState,
};

fn site(servers: u8) -> Site {
    Site::new(Mode::Passthrough, Protocol::Tcp, servers)
}

#[test]
fn a_connection_goes_to_a_server_and_back_in_both_families() {
    for v6 in [false, true] {
        let mut site = Site::with(Mode::Passthrough, Protocol::Tcp, 2, v6, 64);
        let client = site.client(1, 40_000);
        let syn = site.tcp(client, SYN);
        let (nat, server) = syn.ends();
        assert_eq!(nat.ip(), site.nat_ip());
        assert!(PortRanges::STOCK.contains(nat.port()));
        assert_eq!(
            syn.verdict,
            Verdict::Send {
                ifindex: SERVERS,
                reason: PacketReason::ToServer
            }
        );
        let parsed = syn.parsed();
        assert_eq!((parsed.ttl, parsed.link_source), (63, own_mac(SERVERS)));
        let host = if server == server_addr(v6, 1) { 1 } else { 2 };
        assert_eq!(parsed.link_destination, server_mac(host));

        let reply = site.reply(server, nat, SYN_ACK);
        assert_eq!(
            reply.verdict,
            Verdict::Send {
                ifindex: CLIENTS,
                reason: PacketReason::ToClient
            }
        );
        assert_eq!(reply.ends(), (site.vip(), client));
        let parsed = reply.parsed();
        assert_eq!(
            (parsed.link_source, parsed.link_destination),
            (own_mac(CLIENTS), CLIENT_MAC)
        );
        assert_eq!(site.tcp(client, ACK).ends(), (nat, server));
        site.check();
    }
}

#[test]
fn a_datagram_is_answered_over_the_same_flow() {
    let mut site = Site::new(Mode::Passthrough, Protocol::Udp, 2);
    let client = site.client(1, 40_000);
    let (nat, server) = site.udp(client).ends();
    let answer = site.send(&Packet::udp(server, nat, b"answer"), SERVERS);
    assert_eq!(answer.ends(), (site.vip(), client));
    assert_eq!(site.udp(client).ends(), (nat, server));
    assert_eq!(site.flows.usage().half_open, 0);
    site.expire_after(Duration::from_secs(60));
    assert_eq!(site.flows.usage().nat_flows, 0);
}

#[test]
fn the_clients_own_port_is_kept_if_it_is_in_the_range() {
    let mut site = site(1);
    let client = site.client(1, 62_000);
    assert_eq!(site.connect(client).0.port(), 62_000);
    let other = site.client(2, 62_000);
    assert_ne!(
        site.connect(other).0.port(),
        62_000,
        "it is taken towards this server"
    );
}

#[test]
fn replies_follow_a_client_that_moves_and_proves_that_it_is_the_client() {
    let mut site = site(1);
    let client = site.client(1, 40_000);
    let (nat, server) = site.connect(client);
    let mut moved = site.segment(client, ACK);
    moved.link_source = Mac([2, 9, 9, 9, 9, 9]);
    moved.tags = vec![0x81, 0x00, 0x00, 0x07];
    let onward = site.send(&moved, SERVERS);
    assert!(!onward.parsed().tags.is_empty(), "the same interface: tags stay");
    let reply = site.reply(server, nat, ACK);
    assert_eq!(
        reply.verdict,
        Verdict::Send {
            ifindex: SERVERS,
            reason: PacketReason::ToClient
        }
    );
    assert_eq!(reply.parsed().link_destination, moved.link_source);
    assert_eq!(reply.parsed().tags, onward.parsed().tags);
    let mut from_other = site.segment(client, ACK);
    from_other.tags = moved.tags;
    let from_other = site.send(&from_other, CLIENTS);
    assert!(from_other.parsed().tags.is_empty(), "another interface: tags go");
}

#[test]
fn nobody_but_the_flows_server_reaches_the_client() {
    let mut site = site(2);
    let client = site.client(1, 40_000);
    let (nat, server) = site.connect(client);
    let other_port = SocketAddr::new(server.ip(), 81);
    let other_server = [1, 2]
        .map(|host| server_addr(false, host))
        .into_iter()
        .find(|s| *s != server)
        .unwrap();
    for forged in [other_port, other_server, site.client(9, 80)] {
        let sent = site.reply(forged, nat, ACK);
        assert_eq!(sent.verdict, Verdict::Done(PacketReason::ForeignSource));
        assert!(sent.answers.is_empty());
    }
    let other_protocol = site.send(&Packet::udp(server, nat, b""), SERVERS);
    assert_eq!(other_protocol.verdict, Verdict::Done(PacketReason::ForeignSource));
}

#[test]
fn a_packet_in_the_middle_of_an_unknown_connection_is_reset() {
    let mut site = site(1);
    let client = site.client(1, 40_000);
    for flags in [ACK, FIN_ACK, SYN_ACK] {
        let sent = site.tcp(client, flags);
        assert_eq!(sent.verdict, Verdict::Done(PacketReason::ResetNoFlow));
        let answer = parse(&sent.answers[0]).unwrap();
        let (_, source, destination) = answer.tuple().unwrap();
        assert_eq!((source, destination), (site.vip(), client));
    }
    assert!(site.tcp(client, RST).answers.is_empty(), "a RST is not answered");
    assert_eq!(site.flows.usage().nat_flows, 0);
}

#[test]
fn resets_are_limited() {
    let mut site = site(1);
    let client = site.client(1, 40_000);
    let answered = (0..10_100)
        .filter(|_| !site.tcp(client, ACK).answers.is_empty())
        .count();
    assert_eq!(answered, 10_000);
    assert_eq!(site.count(PacketReason::AnswerLimited), 100);
}

#[test]
fn when_the_ports_are_exhausted_the_new_is_refused_and_the_old_spared() {
    let mut site = site(2);
    site.nat_ports(61_000, 61_003);
    let mut connected = Vec::new();
    for port in 1..200 {
        let client = site.client(1, port);
        let sent = site.tcp(client, SYN);
        match sent.verdict {
            Verdict::Send { .. } => {
                let (nat, server) = sent.ends();
                site.reply(server, nat, SYN_ACK);
                site.tcp(client, ACK);
                connected.push((client, (nat, server)));
            }
            verdict => assert_eq!(verdict, Verdict::Done(PacketReason::PortsExhausted)),
        }
    }
    assert_eq!(connected.len(), 8, "ports times servers");
    for (client, ends) in connected {
        assert_eq!(site.tcp(client, ACK).ends(), ends);
    }
    assert_eq!(site.count(PacketReason::PortsExhausted), 191);
    site.check();
}

#[test]
fn a_full_table_refuses_the_new_and_spares_the_old() {
    let mut site = Site::with(Mode::Passthrough, Protocol::Tcp, 2, false, 64);
    let clients: Vec<_> = (1..=64).map(|port| site.client(1, port)).collect();
    for client in &clients {
        site.connect(*client);
    }
    let late = site.client(2, 1);
    assert_eq!(
        site.tcp(late, SYN).verdict,
        Verdict::Done(PacketReason::TableFull)
    );
    for client in &clients {
        assert_eq!(site.tcp(*client, ACK).reason(), Some(PacketReason::ToServer));
    }
    site.check();
}

#[test]
fn the_same_client_port_reused_after_fin_begins_a_new_connection() {
    let mut site = site(2);
    let client = site.client(1, 40_000);
    let (nat, server) = site.connect(client);
    site.close(client, nat, server);
    assert_eq!(site.frontend().current, 1, "its last packets still pass");
    let host = if server == server_addr(false, 1) { 1 } else { 2 };
    site.admin(host, Some(AdminState::Draining));
    let (_, new_server) = site.connect(client);
    assert_ne!(new_server, server, "the server is chosen anew");
    assert_eq!((site.frontend().opened, site.frontend().current), (2, 1));
    site.check();
}

#[test]
fn a_syn_that_is_sent_again_changes_nothing() {
    let mut site = site(2);
    let client = site.client(1, 40_000);
    let ends = site.tcp(client, SYN).ends();
    assert_eq!(site.tcp(client, SYN).ends(), ends);
    assert_eq!(site.frontend().opened, 1);
}

#[test]
fn a_closed_flow_gives_its_port_back_after_ten_seconds_an_idle_one_after_its_timeout() {
    let mut site = site(1);
    site.nat_ports(61_000, 61_001);
    let (closing, idle) = (site.client(1, 1), site.client(1, 2));
    let (nat, server) = site.connect(closing);
    site.connect(idle);
    site.close(closing, nat, server);
    site.expire_after(Duration::from_secs(9));
    assert_eq!(site.flows.usage().nat_flows, 2);
    site.expire_after(Duration::from_secs(1));
    assert_eq!(site.flows.usage().nat_flows, 1);
    let third = site.client(1, 3);
    assert_eq!(site.connect(third).0, nat);
    site.expire_after(Duration::from_secs(900));
    assert_eq!((site.flows.usage().nat_flows, site.frontend().current), (0, 0));
}

#[test]
fn an_expired_flow_is_not_used_even_before_it_is_swept() {
    let mut site = site(1);
    let client = site.client(1, 40_000);
    let (nat, server) = site.connect(client);
    site.pass(Duration::from_secs(901));
    assert_eq!(
        site.reply(server, nat, ACK).verdict,
        Verdict::Done(PacketReason::ForeignSource)
    );
    assert_eq!(
        site.tcp(client, ACK).verdict,
        Verdict::Done(PacketReason::ResetNoFlow)
    );
    site.check();
}

#[test]
fn a_half_open_flow_has_sixty_seconds() {
    let mut site = site(1);
    let client = site.client(1, 40_000);
    site.tcp(client, SYN);
    site.expire_after(Duration::from_secs(59));
    assert_eq!(site.flows.usage().half_open, 1);
    site.expire_after(Duration::from_secs(1));
    assert_eq!(
        (site.flows.usage().half_open, site.flows.usage().nat_flows),
        (0, 0)
    );
}

#[test]
fn a_draining_server_keeps_its_flows_and_gets_no_new_ones() {
    let mut site = site(2);
    let clients: Vec<_> = (1..=20).map(|port| site.client(1, port)).collect();
    let ends: Vec<_> = clients.iter().map(|client| site.connect(*client)).collect();
    site.admin(1, Some(AdminState::Draining));
    for (client, ends) in clients.iter().zip(&ends) {
        assert_eq!(site.tcp(*client, ACK).ends(), *ends);
    }
    for port in 100..120 {
        let client = site.client(1, port);
        assert_eq!(site.connect(client).1, server_addr(false, 2));
    }
}

#[test]
fn when_a_server_goes_down_its_connections_are_reset_and_the_others_live() {
    let mut site = site(2);
    let clients: Vec<_> = (1..=20).map(|port| site.client(1, port)).collect();
    let ends: Vec<_> = clients.iter().map(|client| site.connect(*client)).collect();
    site.health(1, ServerState::Down);
    for (client, (nat, server)) in clients.iter().zip(&ends) {
        let sent = site.tcp(*client, ACK);
        if *server == server_addr(false, 1) {
            assert_eq!(sent.verdict, Verdict::Done(PacketReason::ResetServerDown));
            assert_eq!(sent.answers.len(), 1);
            assert_eq!(
                site.tcp(*client, ACK).verdict,
                Verdict::Done(PacketReason::ResetNoFlow)
            );
        } else {
            assert_eq!(sent.ends(), (*nat, *server));
        }
    }
    assert_eq!(site.server(1).current, 0);
    site.check();
}

#[test]
fn a_udp_client_of_a_server_that_goes_down_is_sent_to_another() {
    let mut site = Site::new(Mode::Passthrough, Protocol::Udp, 2);
    let client = site.client(1, 40_000);
    let server = site.udp(client).destination();
    let host = if server == server_addr(false, 1) { 1 } else { 2 };
    site.health(host, ServerState::Down);
    assert_eq!(site.udp(client).destination(), server_addr(false, 3 - host));
    assert_eq!(site.flows.usage().nat_flows, 1);
    site.check();
}

#[test]
fn without_a_server_tcp_is_reset_and_udp_told_by_icmp() {
    for (protocol, reason) in [
        (Protocol::Tcp, PacketReason::ResetNoServer),
        (Protocol::Udp, PacketReason::UnreachableNoServer),
    ] {
        for mode in [Mode::Passthrough, Mode::Dsr] {
            let mut site = Site::new(mode, protocol, 1);
            site.health(1, ServerState::Down);
            let client = site.client(1, 40_000);
            let sent = match protocol {
                Protocol::Tcp => site.tcp(client, SYN),
                Protocol::Udp => site.udp(client),
            };
            assert_eq!(sent.verdict, Verdict::Done(reason));
            let answer = parse(&sent.answers[0]).unwrap();
            assert_eq!(
                (answer.source, answer.destination),
                (site.vip().ip(), client.ip())
            );
        }
    }
}

#[test]
fn established_flows_survive_the_removal_of_their_server_and_frontend() {
    let mut site = site(1);
    let client = site.client(1, 40_000);
    let (nat, server) = site.connect(client);
    site.backend().servers.clear();
    site.apply();
    assert_eq!(site.tcp(client, ACK).ends(), (nat, server));
    let frontend = site.config.frontends.remove("a").unwrap();
    site.apply();
    assert_eq!(site.tcp(client, ACK).ends(), (nat, server));
    assert_eq!(site.reply(server, nat, ACK).destination(), client);
    let used = site.flows.in_use(site.now);
    let endpoint = frontend.endpoints().next().unwrap();
    assert!(used.contains(&(endpoint, crate::base::IpServerAddr::new(server))));
    let new = site.client(1, 40_001);
    assert_eq!(site.tcp(new, SYN).verdict, Verdict::Done(PacketReason::NotOurs));
}

#[test]
fn established_flows_survive_another_nat_range_and_another_mode() {
    let mut site = site(1);
    let client = site.client(1, 40_000);
    let (nat, server) = site.connect(client);
    site.nat_ports(50_000, 54_095);
    assert_eq!(site.tcp(client, ACK).ends(), (nat, server));
    assert_eq!(site.reply(server, nat, ACK).destination(), client);
    site.frontend_mut().mode = Mode::Dsr;
    site.apply();
    assert_eq!(site.tcp(client, ACK).ends(), (nat, server));
}

#[test]
fn a_syn_that_cannot_be_sent_makes_no_flow() {
    let mut site = site(1);
    let client = site.client(1, 40_000);
    for (resolution, reason) in [
        (
            Resolution::Unresolved { ifindex: SERVERS },
            PacketReason::Unresolved,
        ),
        (Resolution::NoRoute, PacketReason::NoRoute),
    ] {
        for hop in site.hops.servers.values_mut() {
            hop.resolution = resolution;
        }
        site.apply();
        assert_eq!(site.tcp(client, SYN).verdict, Verdict::Done(reason));
    }
    site.hops.servers.clear();
    site.apply();
    assert_eq!(
        site.tcp(client, SYN).verdict,
        Verdict::Done(PacketReason::NoRoute)
    );
    assert_eq!(site.flows.usage().nat_flows, 0);
}

#[test]
fn an_address_that_clients_send_to_is_no_nat_port() {
    let mut site = site(1);
    for hop in site.hops.servers.values_mut() {
        hop.locals = [vip(false).ip()].into();
    }
    let frontend = site.frontend_mut();
    let second = frontend.listen[0].first().with_port(61_000);
    frontend.listen.push(second.into());
    site.nat_ports(61_000, 61_000);
    let client = site.client(1, 40_000);
    assert_eq!(
        site.tcp(client, SYN).verdict,
        Verdict::Done(PacketReason::PortsExhausted)
    );
}

#[test]
fn bytes_are_counted_for_frontend_and_server_in_both_directions() {
    let mut site = site(1);
    let client = site.client(1, 40_000);
    let (nat, server) = site.connect(client);
    let vip = site.vip();
    site.send(&Packet::tcp(client, vip, ACK, &[0; 100]), CLIENTS);
    site.send(&Packet::tcp(server, nat, ACK, &[0; 1_000]), SERVERS);
    for totals in [site.frontend(), site.server(1)] {
        assert_eq!((totals.bytes_in, totals.bytes_out), (40 + 40 + 140, 40 + 1_040));
        assert_eq!((totals.opened, totals.current), (1, 1));
    }
}

#[test]
fn a_packet_whose_time_is_up_is_answered_and_not_sent() {
    let mut site = site(1);
    let client = site.client(1, 40_000);
    let packet = Packet {
        ttl: 1,
        ..Packet::tcp(client, site.vip(), SYN, b"")
    };
    let sent = site.send(&packet, CLIENTS);
    assert_eq!(sent.verdict, Verdict::Done(PacketReason::TimeExceeded));
    assert_eq!(sent.answers.len(), 1);
    assert_eq!(site.flows.usage().nat_flows, 0);
}

#[test]
fn a_packet_that_the_way_does_not_take_is_answered_with_its_mtu_in_both_directions() {
    let mut site = site(1);
    let client = site.client(1, 40_000);
    let (nat, server) = site.connect(client);
    for hop in site.hops.servers.values_mut() {
        hop.mtu = 1_400;
    }
    site.hops.interfaces.get_mut(&CLIENTS).unwrap().mtu = 1_300;
    site.apply();
    let vip = site.vip();
    for (packet, ifindex, mtu) in [
        (Packet::tcp(client, vip, ACK, &[0; 1_361]), CLIENTS, 1_400),
        (Packet::tcp(server, nat, ACK, &[0; 1_261]), SERVERS, 1_300),
    ] {
        let sent = site.send(&packet, ifindex);
        assert_eq!(sent.verdict, Verdict::Done(PacketReason::TooBig));
        let answer = parse(&sent.answers[0]).unwrap();
        assert_eq!(
            (answer.source, answer.destination),
            (packet.destination, packet.source)
        );
        let crate::packet::Content::Error(error) = answer.content else {
            panic!("{answer:?}");
        };
        assert_eq!(error.kind, crate::packet::ErrorKind::TooBig { mtu });
    }
    let fits = site.send(&Packet::tcp(client, vip, ACK, &[0; 1_360]), CLIENTS);
    assert_eq!(fits.destination(), server);
}
