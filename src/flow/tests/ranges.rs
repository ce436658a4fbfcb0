//! Frontends with a range of ports.

use super::*;
use crate::{
    base::{IpServerAddr, ListenAddr, ListenRange},
    config::DsrMethod,
};

/// The VIP's ports from 9000 to one, and servers that count from a port.
fn site(mode: Mode, servers: u8, last: u16, from: u16) -> Site {
    let mut site = Site::with(mode, Protocol::Tcp, servers, false, 4_096);
    ports(&mut site, 9_000, last, from);
    site
}

fn ports(site: &mut Site, first: u16, last: u16, from: u16) {
    let vip = ListenAddr::new(vip(false)).with_port(first);
    site.frontend_mut().listen = vec![ListenRange::new(vip, last).unwrap()];
    for server in site.backend().servers.values_mut() {
        server.addr = server.addr.on_network().unwrap().with_port(from).into();
    }
    site.apply();
}

/// Where a client's packet to a port of the VIP leaves from and to.
fn ends(site: &mut Site, client: SocketAddr, port: u16, flags: u8) -> Option<(SocketAddr, SocketAddr)> {
    let vip = SocketAddr::new(vip(false).ip(), port);
    let sent = site.send(
        &Packet::tcp(client, vip, flags, b"").numbered(1_000, 5_001),
        CLIENTS,
    );
    matches!(sent.verdict, Verdict::Send { .. }).then(|| sent.ends())
}

#[test]
fn a_port_leads_to_the_servers_port_that_is_as_far_above_its_first() {
    for (mode, from) in [(Mode::Passthrough, 7_000), (Mode::Dsr, 9_000)] {
        let mut site = site(mode, 1, 9_010, from);
        let client = site.client(1, 40_000);
        for port in [9_000, 9_004, 9_010] {
            let (_, server) = ends(&mut site, client, port, SYN).unwrap();
            assert_eq!(
                server,
                SocketAddr::new(server_addr(false, 1).ip(), port - 9_000 + from)
            );
        }
        for outside in [8_999, 9_011] {
            assert_eq!(ends(&mut site, client, outside, SYN), None, "{mode} {outside}");
        }
        site.check();
    }
}

#[test]
fn an_answer_comes_from_the_port_that_was_asked() {
    let mut site = site(Mode::Passthrough, 1, 9_010, 7_000);
    let client = site.client(1, 40_000);
    let (nat, server) = ends(&mut site, client, 9_004, SYN).unwrap();
    assert_eq!(server.port(), 7_004);
    let answer = site.send(&Packet::tcp(server, nat, SYN_ACK, b""), SERVERS);
    let vip = SocketAddr::new(vip(false).ip(), 9_004);
    assert_eq!(answer.ends(), (vip, client));
    // another port of the same server has nothing to say to it
    let other = SocketAddr::new(server.ip(), 7_005);
    let stray = site.send(&Packet::tcp(other, nat, SYN_ACK, b""), SERVERS);
    assert_eq!(stray.verdict, Verdict::Done(PacketReason::ForeignSource));
}

#[test]
fn with_nft_on_the_servers_the_ports_of_a_range_are_mapped() {
    let mut site = site(Mode::Dsr, 1, 9_010, 9_000);
    site.backend().dsr_method = DsrMethod::Nft;
    ports(&mut site, 9_000, 9_010, 7_000);
    let client = site.client(1, 40_000);
    let (source, server) = ends(&mut site, client, 9_010, SYN).unwrap();
    assert_eq!((source, server.port()), (client, 7_010));
}

#[test]
fn a_client_has_one_server_for_all_ports_of_a_range_and_of_its_own() {
    for mode in [Mode::Passthrough, Mode::Dsr] {
        let mut site = site(mode, 4, 9_019, 9_000);
        let mut servers = std::collections::HashSet::new();
        for host in 1..=50 {
            let mut of_client = std::collections::HashSet::new();
            for offset in 0..20 {
                let client = site.client(host, 40_000 + offset);
                let (_, server) = ends(&mut site, client, 9_000 + offset, SYN).unwrap();
                of_client.insert(server.ip());
            }
            assert_eq!(of_client.len(), 1, "{mode}, client {host}");
            servers.extend(of_client);
        }
        assert_eq!(servers.len(), 4, "{mode}: clients are spread");
    }
}

#[test]
fn ranges_whose_servers_have_the_same_names_choose_alike() {
    let (mut signalling, mut media) = (
        site(Mode::Passthrough, 4, 9_001, 5_060),
        site(Mode::Passthrough, 4, 9_999, 20_000),
    );
    for host in 1..=50 {
        let client = signalling.client(host, 40_000);
        let (_, server) = ends(&mut signalling, client, 9_000, SYN).unwrap();
        let (_, other) = ends(&mut media, client, 9_777, SYN).unwrap();
        assert_eq!((server.ip(), other.port()), (other.ip(), 20_777));
    }
}

#[test]
fn flows_go_on_while_their_range_widens_narrows_and_moves() {
    for mode in [Mode::Passthrough, Mode::Dsr] {
        let mut site = site(mode, 1, 9_010, 9_000);
        let client = site.client(1, 40_000);
        let before = ends(&mut site, client, 9_008, SYN).unwrap();
        let target = |site: &Site| {
            let snapshot = site.snapshot.as_ref().unwrap();
            snapshot.server(&key(1)).unwrap().addr.on_network().unwrap()
        };
        for (first, last) in [(9_000, 9_020), (9_000, 9_009), (8_990, 9_009), (9_000, 9_001)] {
            ports(&mut site, first, last, first);
            assert_eq!(target(&site).0.port(), first);
            assert_eq!(
                ends(&mut site, client, 9_008, ACK),
                Some(before),
                "{mode} {first}-{last}"
            );
        }
        let used = site.flows.in_use(site.now);
        let (hit, server) = used.first().unwrap();
        assert_eq!((hit.port(), *server), (9_008, IpServerAddr::new(before.1)));
        let new = site.client(1, 40_001);
        assert_eq!(ends(&mut site, new, 9_008, SYN), None);
        assert!(ends(&mut site, new, 9_001, SYN).is_some());
    }
}

#[test]
fn a_range_that_is_laid_over_a_nat_port_leaves_its_flow_alone() {
    for mode in [Mode::Passthrough, Mode::Dsr] {
        let mut site = Site::with(Mode::Passthrough, Protocol::Tcp, 1, false, 4_096);
        for hop in site.hops.servers.values_mut() {
            hop.locals = [vip(false).ip()].into();
        }
        site.nat_ports(61_000, 61_003);
        let client = site.client(1, 40_000);
        let (nat, server) = site.connect(client);
        let over = ListenRange::new(ListenAddr::new(nat).with_port(61_000), u16::MAX).unwrap();
        let frontend = site.frontend_mut();
        frontend.listen.push(over);
        frontend.mode = mode;
        site.apply();
        assert_eq!(site.reply(server, nat, ACK).destination(), client, "{mode}");
    }
}
