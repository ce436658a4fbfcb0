//! ICMP errors reach the side whose packet they are about.

use std::net::{IpAddr, SocketAddr};

use crate::{
    base::{PacketReason, Protocol},
    config::Mode,
    flow::{Verdict, testing::*},
    packet::{Content, ErrorKind, Quoted, testing::Packet},
};

/// Fragmentation needed, or packet too big.
fn too_big(from: IpAddr, to: IpAddr, about: &Packet) -> Packet {
    let what = if from.is_ipv4() {
        (3, 4, 1_280)
    } else {
        (2, 0, 1_280)
    };
    Packet::error(from, to, what, about, 1_000)
}

fn quoted(sent: &Sent) -> (Quoted, SocketAddr, SocketAddr) {
    let Content::Error(error) = sent.parsed().content else {
        panic!("{:?}", sent.parsed());
    };
    assert_eq!(error.kind, ErrorKind::TooBig { mtu: 1_280 });
    let (source, destination) = error.quoted.sockets();
    (error.quoted, source, destination)
}

fn router(v6: bool) -> IpAddr {
    if v6 { "2001:db8:9::9" } else { "192.0.2.99" }.parse().unwrap()
}

#[test]
fn in_passthrough_an_error_behind_us_reaches_the_client_as_if_the_vip_sent_it() {
    for v6 in [false, true] {
        let mut site = Site::with(Mode::Passthrough, Protocol::Tcp, 2, v6, 64);
        let client = site.client(1, 40_000);
        let (nat, server) = site.connect(client);
        let about = Packet::tcp(nat, server, ACK, &[1; 500]);
        let sent = site.send(&too_big(router(v6), nat.ip(), &about), SERVERS);
        assert_eq!(
            sent.verdict,
            Verdict::Send {
                ifindex: CLIENTS,
                reason: PacketReason::ErrorToClient
            }
        );
        let parsed = sent.parsed();
        assert_eq!(
            (parsed.source, parsed.destination),
            (site.vip().ip(), client.ip())
        );
        assert_eq!((parsed.link_destination, parsed.ttl), (CLIENT_MAC, 63));
        let (_, source, destination) = quoted(&sent);
        assert_eq!((source, destination), (client, site.vip()));
    }
}

#[test]
fn in_passthrough_an_error_about_a_reply_reaches_the_server_in_its_terms() {
    for v6 in [false, true] {
        let mut site = Site::with(Mode::Passthrough, Protocol::Tcp, 2, v6, 64);
        let client = site.client(1, 40_000);
        let (nat, server) = site.connect(client);
        let vip = site.vip();
        let about = Packet::tcp(vip, client, ACK, &[1; 500]);
        let sent = site.send(&too_big(router(v6), vip.ip(), &about), CLIENTS);
        assert_eq!(
            sent.verdict,
            Verdict::Send {
                ifindex: SERVERS,
                reason: PacketReason::ErrorToServer
            }
        );
        let parsed = sent.parsed();
        assert_eq!((parsed.source, parsed.destination), (nat.ip(), server.ip()));
        let (_, source, destination) = quoted(&sent);
        assert_eq!((source, destination), (server, nat));
    }
}

#[test]
fn in_dsr_an_error_about_an_answer_reaches_the_server_with_or_without_a_flow() {
    for v6 in [false, true] {
        for with_flow in [false, true] {
            let mut site = Site::with(Mode::Dsr, Protocol::Udp, 3, v6, 64);
            let client = site.client(1, 40_000);
            let expected = site.explain(client, Protocol::Udp).server.unwrap().1.0;
            if with_flow {
                site.udp(client);
            }
            let vip = site.vip();
            let about = Packet::udp(vip, client, &[1; 500]);
            let sent = site.send(&too_big(router(v6), vip.ip(), &about), CLIENTS);
            assert_eq!(
                sent.verdict,
                Verdict::Send {
                    ifindex: SERVERS,
                    reason: PacketReason::ErrorToServer
                }
            );
            let parsed = sent.parsed();
            assert_eq!((parsed.source, parsed.destination), (router(v6), expected.ip()));
            let (_, source, destination) = quoted(&sent);
            assert_eq!((source, destination), (expected, client));
        }
    }
}

#[test]
fn an_error_that_contradicts_the_flows_is_dropped() {
    let mut site = Site::new(Mode::Passthrough, Protocol::Tcp, 2);
    let client = site.client(1, 40_000);
    let (nat, server) = site.connect(client);
    let (vip, other) = (site.vip(), site.client(7, 7));
    for (to, about) in [
        (nat.ip(), Packet::tcp(nat, other, ACK, &[1; 500])),
        (vip.ip(), Packet::tcp(vip, other, ACK, &[1; 500])),
        (vip.ip(), Packet::tcp(nat, server, ACK, &[1; 500])),
        (nat.ip(), Packet::tcp(vip, client, ACK, &[1; 500])),
    ] {
        let sent = site.send(&too_big(router(false), to, &about), SERVERS);
        assert_eq!(
            sent.verdict,
            Verdict::Done(PacketReason::IcmpUnmatched),
            "{about:?}"
        );
        assert!(sent.answers.is_empty());
    }
}

#[test]
fn echo_and_errors_about_the_hosts_own_packets_are_left_to_the_kernel() {
    let mut site = Site::new(Mode::Passthrough, Protocol::Tcp, 1);
    let (vip, client, nat) = (site.vip(), site.client(1, 1), site.nat_ip());
    let echo = Packet::error(
        client.ip(),
        vip.ip(),
        (8, 0, 1),
        &Packet::udp(client, vip, b""),
        28,
    );
    let own = Packet::tcp(
        SocketAddr::new(nat, 33_000),
        server_addr(false, 1),
        ACK,
        &[0; 500],
    );
    for packet in [echo, too_big(router(false), nat, &own)] {
        let sent = site.send(&packet, CLIENTS);
        assert_eq!(sent.verdict, Verdict::Done(PacketReason::NotOurs));
    }
}

#[test]
fn an_error_does_not_keep_a_flow_alive() {
    let mut site = Site::new(Mode::Passthrough, Protocol::Tcp, 1);
    let client = site.client(1, 40_000);
    let (nat, server) = site.tcp(client, SYN).ends();
    for _ in 0..6 {
        site.expire_after(std::time::Duration::from_secs(10));
        let about = Packet::tcp(nat, server, ACK, &[1; 500]);
        site.send(&too_big(router(false), nat.ip(), &about), SERVERS);
    }
    assert_eq!(site.flows.usage().nat_flows, 0);
}
