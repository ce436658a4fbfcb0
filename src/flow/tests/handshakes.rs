//! What is counted of handshakes and of packets that cannot leave, for each server.

use std::time::Duration;

use crate::{
    base::{Handshake, PacketReason, Protocol, ServerDrop},
    config::Mode,
    flow::{Hop, Resolution, testing::*},
};

fn site(mode: Mode) -> Site {
    Site::new(mode, Protocol::Tcp, 1)
}

fn handshakes(site: &Site, handshake: Handshake) -> u64 {
    site.server(1).handshakes[handshake as usize]
}

fn all_handshakes(site: &Site) -> u64 {
    site.server(1).handshakes.iter().sum()
}

#[test]
fn a_passthrough_handshake_counts_by_how_far_it_came() {
    let mut site = site(Mode::Passthrough);
    let (completed, silent_server, silent_client) = (site.client(1, 1), site.client(1, 2), site.client(1, 3));
    site.connect(completed);
    assert_eq!(handshakes(&site, Handshake::Completed), 1);
    site.tcp(silent_server, SYN);
    let (nat, server) = site.tcp(silent_client, SYN).ends();
    site.reply(server, nat, SYN_ACK);
    assert_eq!(all_handshakes(&site), 1, "two are under way");
    site.expire_after(Duration::from_secs(60));
    assert_eq!(handshakes(&site, Handshake::Unanswered), 1);
    assert_eq!(handshakes(&site, Handshake::Unacknowledged), 1);
    assert_eq!(all_handshakes(&site), 3);
    site.check();
}

#[test]
fn a_refused_connection_is_no_incomplete_handshake() {
    let mut site = site(Mode::Passthrough);
    let client = site.client(1, 1);
    let (nat, server) = site.tcp(client, SYN).ends();
    site.reply(server, nat, RST_ACK);
    site.expire_after(Duration::from_secs(60));
    assert_eq!(all_handshakes(&site), 0);
}

#[test]
fn a_client_that_sends_its_third_syn_has_no_answer() {
    for (mode, handshake) in [
        (Mode::Passthrough, Handshake::Unanswered),
        (Mode::Dsr, Handshake::DsrIncomplete),
    ] {
        let mut site = site(mode);
        let client = site.client(1, 1);
        for (wait, expected) in [(0, 0), (1, 0), (2, 1), (4, 1)] {
            site.pass(Duration::from_secs(wait));
            site.tcp(client, SYN);
            assert_eq!(handshakes(&site, handshake), expected, "{mode}");
        }
        site.expire_after(Duration::from_secs(60));
        assert_eq!(all_handshakes(&site), 1, "{mode}");
    }
}

#[test]
fn a_dsr_handshake_completes_with_the_clients_acknowledgement() {
    let mut site = site(Mode::Dsr);
    let (first, second, older) = (site.client(1, 1), site.client(1, 2), site.client(1, 3));
    site.tcp(first, SYN);
    site.tcp(first, ACK);
    site.tcp(second, SYN);
    // it began before we did
    site.tcp(older, ACK);
    assert_eq!(handshakes(&site, Handshake::DsrCompleted), 1);
    site.expire_after(Duration::from_secs(60));
    assert_eq!(handshakes(&site, Handshake::DsrIncomplete), 1);
    assert_eq!(all_handshakes(&site), 2);
    site.check();
}

#[test]
fn a_datagram_shakes_no_hands() {
    for mode in [Mode::Passthrough, Mode::Dsr] {
        let mut site = Site::new(mode, Protocol::Udp, 1);
        let client = site.client(1, 1);
        site.udp(client);
        site.udp(client);
        site.expire_after(Duration::from_secs(60));
        assert_eq!(all_handshakes(&site), 0, "{mode}");
    }
}

#[test]
fn packets_that_cannot_leave_count_at_their_server() {
    let mut site = site(Mode::Passthrough);
    site.nat_ports(60_000, 60_000);
    let (first, second) = (site.client(1, 1), site.client(1, 2));
    site.connect(first);
    assert_eq!(site.tcp(second, SYN).reason(), Some(PacketReason::PortsExhausted));
    let dropped = |site: &Site| site.server(1).dropped;
    let mut expected = [0; ServerDrop::ALL.len()];
    expected[ServerDrop::NatPorts as usize] = 1;
    assert_eq!(dropped(&site), expected);
    for (resolution, drop) in [
        (Resolution::Unresolved { ifindex: SERVERS }, ServerDrop::NextHop),
        (Resolution::NoRoute, ServerDrop::Route),
    ] {
        let ip = server_addr(false, 1).ip();
        let hop: &mut Hop = site.hops.servers.get_mut(&ip).unwrap();
        hop.resolution = resolution;
        site.apply();
        site.tcp(first, ACK);
        site.tcp(second, SYN);
        expected[drop as usize] = 2;
        assert_eq!(dropped(&site), expected);
    }
}
