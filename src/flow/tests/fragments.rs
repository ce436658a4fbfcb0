//! All fragments of a datagram reach the same place, or none.

use std::{net::SocketAddr, time::Duration};

use crate::{
    base::{PacketReason, Protocol},
    config::Mode,
    flow::{Verdict, testing::*},
    packet::{
        parse,
        testing::{Cut, Packet},
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
