//! All fragments of a datagram reach the same place, or none.

use std::{net::SocketAddr, time::Duration};

use crate::{
    base::{PacketReason, Protocol},
    config::Mode,
    flow::{Verdict, testing::*},
    packet::{
        parse,
        testing::{Cut, Packet, SumKind},
    },
};

/// A datagram in fragments of so many bytes.
fn fragments(source: SocketAddr, destination: SocketAddr, id: u32, len: u16, size: u16) -> Vec<Packet> {
    let whole = Packet::udp(source, destination, &vec![7; usize::from(len)]);
    let total = len + 8;
    (0..total.div_ceil(size))
        .map(|index| {
            let offset = index * size;
            let len = size.min(total - offset);
            let more = offset + len < total;
            Packet {
                fragment: Some(Cut {
                    id,
                    offset,
                    len,
                    more,
                }),
                ..whole.clone()
            }
        })
        .collect()
}

fn to_ip(frame: &[u8]) -> std::net::IpAddr {
    parse(frame).unwrap().destination
}

#[test]
fn fragments_follow_the_first_both_ways_in_both_families_and_modes() {
    for v6 in [false, true] {
        for mode in [Mode::Passthrough, Mode::Dsr] {
            let mut site = Site::with(mode, Protocol::Udp, 3, v6, 64);
            let (client, vip) = (site.client(1, 40_000), site.vip());
            let mut ends = None;
            for packet in fragments(client, vip, 5, 20_000, 1_400) {
                let sent = site.send(&packet, CLIENTS);
                assert_eq!(sent.reason(), Some(PacketReason::ToServer));
                let parsed = sent.parsed();
                match ends {
                    None => ends = Some(sent.ends()),
                    Some((nat, server)) => {
                        assert_eq!((parsed.source, parsed.destination), (nat.ip(), server.ip()));
                    }
                }
            }
            let (nat, server) = ends.unwrap();
            if mode == Mode::Passthrough {
                for packet in fragments(server, nat, 6, 20_000, 1_400) {
                    let parsed = site.send(&packet, SERVERS).parsed();
                    assert_eq!((parsed.source, parsed.destination), (vip.ip(), client.ip()));
                    assert_eq!(parsed.link_destination, CLIENT_MAC);
                }
                assert!(site.frontend().bytes_out > 20_000);
            }
            assert!(site.frontend().bytes_in > 20_000);
        }
    }
}

#[test]
fn early_fragments_wait_for_the_first_and_follow_it() {
    let mut site = Site::new(Mode::Passthrough, Protocol::Udp, 2);
    let (client, vip) = (site.client(1, 40_000), site.vip());
    let mut parts = fragments(client, vip, 5, 5_000, 1_400);
    let first = parts.remove(0);
    for part in parts.iter().rev() {
        assert_eq!(site.send(part, CLIENTS).verdict, Verdict::Kept);
    }
    assert_eq!(site.flows.usage().fragments_waiting, 3);
    let sent = site.send(&first, CLIENTS);
    let server = sent.destination();
    assert_eq!(sent.answers.len(), 3);
    assert!(sent.answers.iter().all(|frame| to_ip(frame) == server.ip()));
    assert_eq!(site.flows.usage().fragments_waiting, 0);
    assert_eq!(site.count(PacketReason::ToServer), 4);
}

#[test]
fn fragments_without_a_first_one_are_dropped_after_a_second() {
    let mut site = Site::new(Mode::Passthrough, Protocol::Udp, 2);
    let (client, vip) = (site.client(1, 40_000), site.vip());
    let parts = fragments(client, vip, 5, 3_000, 1_400);
    for part in &parts[1..] {
        site.send(part, CLIENTS);
    }
    site.expire_after(Duration::from_secs(1));
    assert_eq!(site.count(PacketReason::FragmentTimeout), 2);
    assert_eq!(site.flows.usage().fragments_waiting, 0);
}

#[test]
fn an_early_fragment_that_is_too_late_is_counted_even_if_another_takes_its_place_first() {
    let mut site = Site::new(Mode::Passthrough, Protocol::Udp, 2);
    let (client, vip) = (site.client(1, 40_000), site.vip());
    let parts = fragments(client, vip, 5, 3_000, 1_400);
    assert_eq!(site.send(&parts[1], CLIENTS).verdict, Verdict::Kept);
    // nobody looks for what is over
    site.pass(Duration::from_secs(1));
    assert_eq!(site.send(&parts[2], CLIENTS).verdict, Verdict::Kept);
    assert_eq!(site.count(PacketReason::FragmentTimeout), 1);
    assert_eq!(site.flows.usage().fragments_waiting, 1);
}

#[test]
fn overlapping_fragments_are_dropped() {
    let mut site = Site::new(Mode::Passthrough, Protocol::Udp, 2);
    let (client, vip) = (site.client(1, 40_000), site.vip());
    let parts = fragments(client, vip, 5, 5_000, 1_400);
    site.send(&parts[0], CLIENTS);
    let overlapping = Packet {
        fragment: Some(Cut {
            id: 5,
            offset: 8,
            len: 1_400,
            more: true,
        }),
        ..parts[0].clone()
    };
    assert_eq!(
        site.send(&overlapping, CLIENTS).verdict,
        Verdict::Done(PacketReason::BadFragment)
    );
    assert_eq!(
        site.send(&parts[1], CLIENTS).reason(),
        Some(PacketReason::ToServer)
    );
    assert_eq!(
        site.send(&parts[1], CLIENTS).verdict,
        Verdict::Done(PacketReason::BadFragment)
    );
}

#[test]
fn the_fragments_that_wait_are_bounded() {
    let mut site = Site::new(Mode::Passthrough, Protocol::Udp, 2);
    let (client, vip) = (site.client(1, 40_000), site.vip());
    for id in 0..10_000 {
        let parts = fragments(client, vip, id, 2_000, 1_400);
        site.send(&parts[1], CLIENTS);
    }
    assert!(site.flows.usage().fragments_waiting <= 4_096);
    assert!(site.count(PacketReason::FragmentTableFull) >= 5_904);
    let whole = fragments(client, vip, 20_000, 2_000, 1_400);
    for part in &whole {
        assert_eq!(
            site.send(part, CLIENTS).reason(),
            Some(PacketReason::ToServer),
            "the first makes room"
        );
    }
}

#[test]
fn fragments_of_what_is_not_ours_or_refused_go_nowhere() {
    let mut site = Site::new(Mode::Passthrough, Protocol::Udp, 2);
    let (client, vip) = (site.client(1, 40_000), site.vip());
    let elsewhere = SocketAddr::new("198.51.100.77".parse().unwrap(), 80);
    let other = fragments(client, elsewhere, 5, 3_000, 1_400);
    for part in &other {
        assert_eq!(
            site.send(part, CLIENTS).verdict,
            Verdict::Done(PacketReason::NotOurs)
        );
    }
    site.hops.servers.clear();
    site.apply();
    for part in fragments(client, vip, 5, 3_000, 1_400) {
        assert_eq!(
            site.send(&part, CLIENTS).verdict,
            Verdict::Done(PacketReason::NoRoute)
        );
    }
}

#[test]
fn fragments_to_a_nat_port_from_anybody_but_the_flows_server_are_dropped() {
    let mut site = Site::new(Mode::Passthrough, Protocol::Udp, 2);
    let client = site.client(1, 40_000);
    let (nat, server) = site.udp(client).ends();
    let stranger = SocketAddr::new(server.ip(), 81);
    for part in fragments(stranger, nat, 5, 3_000, 1_400) {
        assert_eq!(
            site.send(&part, SERVERS).verdict,
            Verdict::Done(PacketReason::ForeignSource)
        );
    }
}

#[test]
fn what_may_be_fragmented_is_sent_in_fragments_that_the_way_takes() {
    let mut site = Site::new(Mode::Passthrough, Protocol::Udp, 1);
    for hop in site.hops.servers.values_mut() {
        hop.mtu = 600;
    }
    site.apply();
    let (client, vip) = (site.client(1, 40_000), site.vip());
    let data: Vec<u8> = (0..1_400_u32).map(|byte| byte as u8).collect();
    for sum in [SumKind::Right, SumKind::Unfinished] {
        let packet = Packet {
            dont_fragment: false,
            id: 77,
            // record route is not copied to later fragments, router alert is
            options: vec![7, 3, 4, 0x94, 4, 0, 0, 0],
            sum,
            ..Packet::udp(client, vip, &data)
        };
        let sent = site.send(&packet, CLIENTS);
        assert_eq!(sent.verdict, Verdict::Done(PacketReason::ToServer));
        let mut datagram: Vec<u8> = Vec::new();
        for (index, frame) in sent.answers.iter().enumerate() {
            let parsed = parse(frame).unwrap();
            let fragment = parsed.fragment.unwrap();
            assert!(parsed.ip_len() <= 600);
            assert_eq!((fragment.id, usize::from(fragment.offset)), (77, datagram.len()));
            assert_eq!(fragment.more, index + 1 < sent.answers.len());
            assert_eq!((parsed.destination, parsed.ttl), (server_addr(false, 1).ip(), 63));
            assert_eq!(parsed.link_destination, server_mac(1));
            let options = &frame[parsed.network + 20..parsed.transport];
            let record_route = if index == 0 { [7, 3, 4] } else { [1, 1, 1] };
            assert_eq!(options, [&record_route[..], &[0x94, 4, 0, 0, 0]].concat());
            datagram.extend(&frame[parsed.transport..parsed.end]);
        }
        assert_eq!(datagram[8..], data);
        let nat = site.explain(client, Protocol::Udp).flow.unwrap().nat.unwrap();
        let whole = Packet::udp(nat, server_addr(false, 1), &data).ip_packet();
        assert_eq!(datagram, whole[20..], "the checksum is finished and right");
    }
}

#[test]
fn a_fragment_that_the_way_does_not_take_is_split_again() {
    let mut site = Site::new(Mode::Dsr, Protocol::Udp, 1);
    for hop in site.hops.servers.values_mut() {
        hop.mtu = 1_000;
    }
    site.apply();
    let (client, vip) = (site.client(1, 40_000), site.vip());
    let mut ranges = Vec::new();
    let packets = fragments(client, vip, 5, 4_000, 1_480);
    for packet in packets {
        let packet = Packet {
            dont_fragment: false,
            ..packet
        };
        for frame in site.send(&packet, CLIENTS).answers {
            let fragment = parse(&frame).unwrap().fragment.unwrap();
            ranges.push((fragment.offset, fragment.offset + fragment.len, fragment.more));
        }
    }
    assert_eq!(
        ranges,
        [
            (0, 976, true),
            (976, 1_480, true),
            (1_480, 2_456, true),
            (2_456, 2_960, true),
            (2_960, 3_936, true),
            (3_936, 4_008, false)
        ]
    );
}
