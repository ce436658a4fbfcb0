//! Those who mean no good, and how flows give way.

use std::{net::SocketAddr, time::Duration};

use crate::{
    base::{Mac, PacketReason, Protocol},
    config::Mode,
    flow::{Hop, Resolution, Verdict, testing::*},
    packet::{
        LinkHeader,
        testing::{Body, Packet},
    },
};

fn site(servers: u8) -> Site {
    Site::new(Mode::Passthrough, Protocol::Tcp, servers)
}

#[test]
fn a_flood_of_syns_leaves_established_flows_alone_and_room_for_honest_ones() {
    let mut site = Site::with(Mode::Passthrough, Protocol::Tcp, 2, false, 64);
    let honest = site.client(1, 1_000);
    let ends = site.connect(honest);
    for port in 1..2_000 {
        let attacker = site.client(2, port);
        site.tcp(attacker, SYN);
        site.tcp(attacker, ACK);
        site.tcp(attacker, RST);
        if port % 100 == 0 {
            // in the middle of it
            let next = site.client(1, port);
            let (nat, server) = site.connect(next);
            site.close(next, nat, server);
        }
        site.check();
    }
    assert!(site.flows.usage().half_open <= 16, "a quarter");
    let sent = site.tcp(honest, ACK);
    assert_eq!(sent.ends(), (ends.0, ends.1));
}

#[test]
fn a_flood_of_syns_takes_ports_from_each_other_and_from_nobody_else() {
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let mut site = Site::new(Mode::Passthrough, protocol, 1);
        site.nat_ports(61_000, 61_063);
        let honest = site.client(1, 1_000);
        let talk = |site: &mut Site, client| match protocol {
            Protocol::Tcp => site.connect(client),
            Protocol::Udp => {
                let (nat, server) = site.udp(client).ends();
                site.send(&Packet::udp(server, nat, b"answer"), SERVERS);
                assert_eq!(site.udp(client).ends(), (nat, server));
                (nat, server)
            }
        };
        let ends = talk(&mut site, honest);
        for port in 1..1_000 {
            let attacker = site.client(2, port);
            match protocol {
                Protocol::Tcp => {
                    let (nat, server) = site.tcp(attacker, SYN).ends();
                    // the server answers, again and again
                    site.reply(server, nat, SYN_ACK);
                    site.reply(server, nat, SYN_ACK);
                }
                Protocol::Udp => {
                    let (nat, server) = site.udp(attacker).ends();
                    site.send(&Packet::udp(server, nat, b"answer"), SERVERS);
                }
            }
        }
        assert_eq!(site.flows.usage().nat_flows, 64, "every port is claimed");
        let next = site.client(1, 1_001);
        talk(&mut site, next);
        let still = match protocol {
            Protocol::Tcp => site.tcp(honest, ACK),
            Protocol::Udp => site.udp(honest),
        };
        assert_eq!(still.ends(), ends);
        site.check();
    }
}

#[test]
fn a_closed_flows_port_is_taken_before_a_half_open_one_and_after_a_free_one() {
    let mut site = site(1);
    site.nat_ports(61_000, 61_001);
    let (closed, open) = (site.client(1, 1), site.client(1, 2));
    let (nat, server) = site.connect(closed);
    site.tcp(open, SYN);
    site.close(closed, nat, server);
    site.pass(Duration::from_millis(999));
    let hasty = site.client(1, 3);
    assert_ne!(
        site.tcp(hasty, SYN).ends().0,
        nat,
        "its last packets may be under way"
    );
    site.pass(Duration::from_millis(1));
    let next = site.client(1, 4);
    assert_eq!(site.tcp(next, SYN).ends().0, nat);
    site.check();
}

#[test]
fn of_ports_in_a_servers_time_wait_one_is_taken_whose_clock_is_before_the_clients() {
    let mut site = site(1);
    site.nat_ports(61_000, 61_031);
    let clock = |tsval: u32| {
        let mut option = vec![1, 1, 8, 10];
        option.extend(tsval.to_be_bytes());
        option.extend([0; 4]);
        option
    };
    let with_clock = |mut packet: Packet, tsval| {
        if let Body::Tcp { options, .. } = &mut packet.body {
            *options = clock(tsval);
        }
        packet
    };
    let mut clocks = std::collections::HashMap::new();
    for port in 1..=32 {
        let client = site.client(1, port);
        let (nat, server) = site.connect(client);
        let tsval = u32::from(port) * 1_000;
        site.reply(server, nat, FIN_ACK);
        let fin = with_clock(site.segment(client, FIN_ACK), tsval);
        site.send(&fin, CLIENTS);
        site.reply(server, nat, ACK);
        clocks.insert(nat, tsval);
    }
    site.pass(Duration::from_secs(2));
    for port in 100..110 {
        let client = site.client(2, port);
        let syn = with_clock(site.segment(client, SYN), 16_500);
        let (nat, _) = site.send(&syn, CLIENTS).ends();
        assert!(clocks[&nat] < 16_500, "TIME_WAIT would refuse it for a second");
    }
    site.check();
}

#[test]
fn a_forger_ends_moves_and_diverts_nothing() {
    let mut site = site(1);
    let client = site.client(1, 40_000);
    let (nat, server) = site.connect(client);
    let from = |packet: Packet, sequence: u32| Packet {
        link_source: Mac([2, 9, 9, 9, 9, 9]),
        ..packet.numbered(sequence, sequence.wrapping_mul(7))
    };
    // a million from each side. A number of 2^32 fits what a flow has seen (RFC 5961): 10^6 / 2^32 hits are expected, 0.0002
    for sequence in (0..250_000_u32).map(|n| n.wrapping_mul(2_654_435_761)) {
        for flags in [RST, SYN, FIN_ACK, ACK] {
            let vip = site.vip();
            site.send(&from(Packet::tcp(client, vip, flags, b"x"), sequence), CLIENTS);
            // on the servers' network
            site.send(&from(Packet::tcp(server, nat, flags, b"x"), sequence), SERVERS);
        }
    }
    assert_eq!(site.tcp(client, ACK).ends(), (nat, server));
    let reply = site.reply(server, nat, ACK);
    assert_eq!(reply.destination(), client);
    assert_eq!(reply.parsed().link_destination, CLIENT_MAC);
    assert_eq!(site.frontend().opened, 1);
}

#[test]
fn a_servers_packet_counts_only_by_the_interface_that_leads_to_it() {
    let mut site = site(1);
    let client = site.client(1, 40_000);
    let (nat, server) = site.connect(client);
    let packet = site.reply_segment(server, nat, RST_ACK);
    assert_eq!(
        site.send(&packet, CLIENTS).verdict,
        Verdict::Done(PacketReason::WrongInterface)
    );
    assert_eq!(site.tcp(client, ACK).ends(), (nat, server));
    site.config.packet.any_interface = true;
    site.apply();
    assert_eq!(site.send(&packet, CLIENTS).destination(), client);
}

#[test]
fn replies_take_the_new_way_when_the_route_to_the_client_changes() {
    let mut site = site(1);
    let client = site.client(1, 40_000);
    let (nat, server) = site.connect(client);
    let (old, new) = (
        gateway(&site, CLIENT_MAC),
        gateway(&site, Mac([2, 7, 7, 7, 7, 7])),
    );
    assert_eq!(site.flows.return_clients(), [client.ip()].into());
    for (hop, mac) in [
        (&old, CLIENT_MAC),
        (&new, Mac([2, 7, 7, 7, 7, 7])),
        (&old, CLIENT_MAC),
    ] {
        site.hops.clients.insert(client.ip(), hop.clone());
        site.apply();
        let reply = site.reply(server, nat, ACK);
        assert_eq!(reply.parsed().link_destination, mac);
    }
    site.close(client, nat, server);
    site.expire_after(Duration::from_secs(10));
    assert!(site.flows.return_clients().is_empty());
}

#[test]
fn a_flow_whose_way_back_was_not_looked_up_yet_goes_with_the_others_of_its_router() {
    let mut site = site(1);
    let (old, young) = (site.client(1, 40_000), site.client(2, 40_000));
    let (first, third) = (Mac([2, 7, 7, 7, 7, 1]), Mac([2, 7, 7, 7, 7, 3]));
    site.connect(old);
    let from_first = Packet {
        link_source: first,
        ..site.segment(old, ACK)
    };
    site.send(&from_first, CLIENTS);
    for mac in [first, CLIENT_MAC] {
        lead(&mut site, old, mac);
    }
    let (nat, server) = site.connect(young);
    lead(&mut site, old, third);
    assert_eq!(site.reply(server, nat, ACK).parsed().link_destination, third);
    for mac in [third, first] {
        lead(&mut site, young, mac);
        assert_eq!(site.reply(server, nat, ACK).parsed().link_destination, mac);
    }
}

#[test]
fn replies_follow_a_client_that_hears_nothing_and_sends_again_by_another_way() {
    let (asked, heard) = (ISN + 1, SERVER_ISN + 1);
    let other = Mac([2, 9, 9, 9, 9, 9]);
    let again = [
        ((asked, heard), other),
        // nobody else: one of the numbers is guessed
        ((asked, heard + (1 << 20)), CLIENT_MAC),
        ((asked + (1 << 20), heard), CLIENT_MAC),
        ((asked.wrapping_sub(1 << 21), heard), CLIENT_MAC),
    ];
    for ((sequence, acknowledged), mac) in again {
        let mut site = site(1);
        let client = site.client(1, 40_000);
        let (nat, server) = site.connect(client);
        let vip = site.vip();
        let question = |sequence, acknowledged, link_source| Packet {
            link_source,
            ..Packet::tcp(client, vip, ACK, b"question").numbered(sequence, acknowledged)
        };
        let answer = Packet::tcp(server, nat, ACK, b"answer").numbered(heard, asked + 8);
        site.send(&question(asked, heard, CLIENT_MAC), CLIENTS);
        site.send(&answer, SERVERS);
        site.send(&question(sequence, acknowledged, other), CLIENTS);
        let reply = site.send(&answer, SERVERS);
        assert_eq!(reply.parsed().link_destination, mac, "{sequence} {acknowledged}");
    }
}

/// The route to a client leads by this router now.
fn lead(site: &mut Site, client: SocketAddr, mac: Mac) {
    let hop = gateway(site, mac);
    site.hops.clients.insert(client.ip(), hop);
    site.apply();
}

fn gateway(site: &Site, mac: Mac) -> Hop {
    Hop {
        resolution: Resolution::Known(LinkHeader {
            ifindex: CLIENTS,
            source: own_mac(CLIENTS),
            destination: mac,
        }),
        mtu: 1_400,
        locals: [site.nat_ip()].into(),
    }
}

#[test]
fn a_vip_that_is_not_here_opens_nothing_and_answers_nothing_and_its_flows_go_on() {
    for mode in [Mode::Passthrough, Mode::Dsr] {
        let mut site = Site::new(mode, Protocol::Udp, 1);
        let to_server = |verdict| {
            matches!(
                verdict,
                Verdict::Send {
                    reason: PacketReason::ToServer,
                    ..
                }
            )
        };
        let (known, new) = (client(false, 1, 4_000), client(false, 2, 4_000));
        assert!(to_server(site.udp(known).verdict));
        site.hops.absent_vips.insert(site.vip().ip());
        site.apply();
        assert!(to_server(site.udp(known).verdict));
        let sent = site.udp(new);
        assert_eq!(sent.verdict, Verdict::Done(PacketReason::VipAbsent));
        assert!(sent.answers.is_empty());
        site.hops.absent_vips.clear();
        site.apply();
        assert!(to_server(site.udp(new).verdict));
    }
}

#[test]
fn a_packet_from_an_address_of_ours_is_refused() {
    for mode in [Mode::Passthrough, Mode::Dsr] {
        let mut site = Site::new(mode, Protocol::Udp, 1);
        let own = "192.0.2.254".parse().unwrap();
        site.hops.own.insert(own);
        site.apply();
        for ip in [site.vip().ip(), own] {
            let sent = site.udp(SocketAddr::new(ip, 7));
            assert_eq!(sent.verdict, Verdict::Done(PacketReason::OwnSource));
            assert!(sent.answers.is_empty());
        }
    }
}

#[test]
fn a_handshake_that_moves_at_its_last_packet_counts_once_at_its_return_hop() {
    let mut site = site(1);
    let client = site.client(1, 40_000);
    let (nat, server) = site.tcp(client, SYN).ends();
    site.reply(server, nat, SYN_ACK);
    let mut last = site.segment(client, ACK);
    last.link_source = Mac([2, 9, 9, 9, 9, 9]);
    site.send(&last, CLIENTS);
    site.check();
    let fin = Packet {
        link_source: last.link_source,
        ..site.segment(client, FIN_ACK)
    };
    site.send(&fin, CLIENTS);
    site.reply(server, nat, FIN_ACK);
    let end = Packet {
        link_source: last.link_source,
        ..site.segment(client, ACK)
    };
    site.send(&end, CLIENTS);
    site.expire_after(Duration::from_secs(11));
    assert!(site.flows.return_clients().is_empty(), "no hop is left behind");
}

#[test]
fn where_the_share_of_half_open_flows_is_full_no_flow_takes_another_servers_port() {
    let mut site = Site::with(Mode::Passthrough, Protocol::Tcp, 2, false, 16);
    site.nat_ports(61_000, 61_003);
    let full = server_addr(false, 1);
    let (mut established, mut half_open) = (Vec::new(), Vec::new());
    for port in 1..400 {
        let client = site.client(1, port);
        let goes_to_full = site.explain(client, Protocol::Tcp).server.unwrap().1.0 == full;
        if goes_to_full && established.len() < 4 {
            established.push((client, site.connect(client)));
        } else if !goes_to_full && half_open.len() < 4 {
            half_open.push((client, site.tcp(client, SYN).ends()));
        }
    }
    assert_eq!(
        (established.len(), half_open.len()),
        (4, 4),
        "its ports, and a quarter of the table"
    );
    let late = (400..500)
        .map(|port| site.client(1, port))
        .find(|client| site.explain(*client, Protocol::Tcp).server.unwrap().1.0 == full)
        .unwrap();
    assert_eq!(
        site.tcp(late, SYN).verdict,
        Verdict::Done(PacketReason::SynShareFull)
    );
    for (client, (nat, server)) in half_open {
        assert_eq!(site.reply(server, nat, SYN_ACK).destination(), client);
    }
    for (client, ends) in established {
        assert_eq!(site.tcp(client, ACK).ends(), ends);
    }
    site.check();
}

#[test]
fn a_datagram_that_was_answered_gives_its_port_before_one_whose_answer_would_reach_the_next() {
    let mut site = Site::new(Mode::Passthrough, Protocol::Udp, 1);
    site.nat_ports(61_000, 61_001);
    let (waiting, answered) = (site.client(1, 1), site.client(1, 2));
    let (nat, server) = site.udp(waiting).ends();
    site.pass(Duration::from_secs(1));
    let (other, _) = site.udp(answered).ends();
    site.send(&Packet::udp(server, other, b"answer"), SERVERS);
    let next = site.client(1, 3);
    assert_eq!(site.udp(next).ends().0, other);
    let late = site.send(&Packet::udp(server, nat, b"late"), SERVERS);
    assert_eq!(late.destination(), waiting);
    site.check();
}
