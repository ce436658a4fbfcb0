//! DSR: only the destination changes, and only the client's side is seen.

use std::{net::SocketAddr, time::Duration};

use crate::{
    base::{PacketReason, Protocol, ServerDrop, ServerState},
    config::{DsrMethod, Mode},
    flow::{Verdict, testing::*},
    packet::testing::Packet,
    pools::AdminState,
};

fn site(servers: u8) -> Site {
    Site::new(Mode::Dsr, Protocol::Tcp, servers)
}

fn host_of(server: SocketAddr) -> u8 {
    (1..=9)
        .find(|host| server_addr(server.is_ipv6(), *host) == server)
        .unwrap()
}

#[test]
fn only_the_destination_changes_in_both_families_and_protocols() {
    for v6 in [false, true] {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let mut site = Site::with(Mode::Dsr, protocol, 2, v6, 64);
            let client = site.client(1, 40_000);
            let sent = match protocol {
                Protocol::Tcp => site.tcp(client, SYN),
                Protocol::Udp => site.udp(client),
            };
            assert_eq!(
                sent.verdict,
                Verdict::Send {
                    ifindex: SERVERS,
                    reason: PacketReason::ToServer
                }
            );
            let (source, server) = sent.ends();
            assert_eq!((source, server.port()), (client, 80));
            let parsed = sent.parsed();
            assert_eq!(
                (parsed.ttl, parsed.link_destination),
                (63, server_mac(host_of(server)))
            );
            site.check();
        }
    }
}

#[test]
fn with_nft_on_the_servers_the_port_is_mapped_too() {
    for (method, port) in [(DsrMethod::Nft, 8_080), (DsrMethod::Tc, 80)] {
        let mut site = site(1);
        let backend = site.backend();
        backend.dsr_method = method;
        let server = backend.servers.get_mut("s1").unwrap();
        server.addr = server.addr.on_network().unwrap().with_port(8_080).into();
        site.apply();
        let client = site.client(1, 40_000);
        assert_eq!(site.tcp(client, SYN).destination().port(), port);
    }
}

/// A site whose servers have the VIP.
fn l2_site(protocol: Protocol, servers: u8, v6: bool) -> Site {
    let mut site = Site::with(Mode::Dsr, protocol, servers, v6, 64);
    site.backend().dsr_method = DsrMethod::L2;
    site.apply();
    site
}

#[test]
fn by_method_l2_only_link_addresses_and_ttl_change() {
    for v6 in [false, true] {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let mut site = l2_site(protocol, 1, v6);
            let (client, vip) = (site.client(1, 40_000), site.vip());
            for _ in 0..2 {
                let sent = match protocol {
                    Protocol::Tcp => site.tcp(client, SYN),
                    Protocol::Udp => site.udp(client),
                };
                assert_eq!(sent.ends(), (client, vip));
                let parsed = sent.parsed();
                assert_eq!((parsed.ttl, parsed.link_destination), (63, server_mac(1)));
            }
            assert_eq!(site.flows.usage().dsr_flows, 1);
            site.check();
        }
    }
}

#[test]
fn by_method_l2_nothing_is_given_to_a_gateway() {
    let mut site = l2_site(Protocol::Tcp, 1, false);
    let client = site.client(1, 40_000);
    site.tcp(client, SYN);
    site.hops.behind_gateways.insert(server_addr(false, 1).ip());
    site.apply();
    let late = site.client(1, 40_001);
    for (client, flags) in [(client, ACK), (late, SYN)] {
        let sent = site.tcp(client, flags);
        assert_eq!(sent.verdict, Verdict::Done(PacketReason::BehindGateway));
        assert!(sent.answers.is_empty());
    }
    let explained = site.explain(late, Protocol::Tcp);
    assert_eq!(explained.blocked_by, Some(PacketReason::BehindGateway));
    assert_eq!(site.server(1).dropped[ServerDrop::Gateway as usize], 2);
    // other methods rewrite the destination, and routers may forward that
    site.backend().dsr_method = DsrMethod::Tc;
    site.apply();
    assert_eq!(site.tcp(late, SYN).destination(), server_addr(false, 1));
}

#[test]
fn connections_keep_the_method_that_they_began_with() {
    let mut site = site(1);
    let (client, late, vip) = (site.client(1, 40_000), site.client(1, 40_001), site.vip());
    site.tcp(client, SYN);
    site.tcp(client, ACK);
    site.backend().dsr_method = DsrMethod::L2;
    site.apply();
    assert_eq!(site.tcp(client, ACK).destination(), server_addr(false, 1));
    assert_eq!(site.tcp(late, SYN).destination(), vip);
}

#[test]
fn a_packet_in_the_middle_of_an_unknown_connection_goes_where_its_syn_would() {
    let (mut one, mut two) = (site(3), site(3));
    for port in 1..50 {
        let client = one.client(1, port);
        assert_eq!(
            one.tcp(client, SYN).destination(),
            two.tcp(client, ACK).destination()
        );
    }
}

#[test]
fn a_flow_stays_while_its_server_drains_and_weights_change() {
    let mut site = site(2);
    let clients: Vec<_> = (1..=40).map(|port| site.client(1, port)).collect();
    let mut servers = Vec::new();
    for client in &clients {
        servers.push(site.tcp(*client, SYN).destination());
        site.tcp(*client, ACK);
    }
    site.admin(1, Some(AdminState::Draining));
    for (client, server) in clients.iter().zip(&servers) {
        assert_eq!(site.tcp(*client, ACK).destination(), *server);
    }
    site.admin(1, None);
    site.backend().servers.get_mut("s2").unwrap().weight = 0;
    site.apply();
    for (client, server) in clients.iter().zip(&servers) {
        assert_eq!(site.tcp(*client, ACK).destination(), *server);
    }
    let late = site.client(2, 1);
    assert_eq!(site.tcp(late, SYN).destination(), server_addr(false, 1));
}

#[test]
fn a_flow_whose_server_is_down_is_sent_to_another() {
    let mut site = site(2);
    let client = site.client(1, 40_000);
    let host = host_of(site.tcp(client, SYN).destination());
    site.health(host, ServerState::Down);
    assert_eq!(site.tcp(client, ACK).destination(), server_addr(false, 3 - host));
    site.check();
}

#[test]
fn a_flow_does_not_wait_for_the_servers_fin() {
    let mut site = site(2);
    let client = site.client(1, 40_000);
    site.tcp(client, SYN);
    site.tcp(client, ACK);
    site.expire_after(Duration::from_secs(899));
    assert_eq!(site.flows.usage().dsr_flows, 1);
    site.tcp(client, FIN_ACK);
    site.expire_after(Duration::from_secs(10));
    assert_eq!(site.flows.usage().dsr_flows, 0);
}

#[test]
fn a_syn_on_a_closed_flow_chooses_the_server_anew() {
    let mut site = site(2);
    let client = site.client(1, 40_000);
    let host = host_of(site.tcp(client, SYN).destination());
    site.tcp(client, ACK);
    site.admin(host, Some(AdminState::Draining));
    site.tcp(client, FIN_ACK);
    assert_eq!(site.tcp(client, ACK).destination(), server_addr(false, host));
    assert_eq!(site.tcp(client, SYN).destination(), server_addr(false, 3 - host));
}

#[test]
fn a_flood_does_not_push_established_flows_out() {
    let mut site = Site::with(Mode::Dsr, Protocol::Tcp, 2, false, 256);
    let clients: Vec<_> = (1..=40).map(|port| site.client(1, port)).collect();
    let mut servers = Vec::new();
    for client in &clients {
        servers.push(site.tcp(*client, SYN).destination());
        site.tcp(*client, ACK);
    }
    for port in 1..5_000 {
        let attacker = site.client(2, port);
        site.tcp(attacker, [SYN, ACK][usize::from(port % 2)]);
    }
    site.check();
    assert!(site.flows.usage().dsr_flows <= 128, "half of max_flows");
    site.admin(1, Some(AdminState::Draining));
    for (client, server) in clients.iter().zip(&servers) {
        assert_eq!(site.tcp(*client, ACK).destination(), *server);
    }
}

#[test]
fn losing_an_entry_costs_nothing() {
    let mut site = Site::with(Mode::Dsr, Protocol::Tcp, 3, false, 2);
    let clients: Vec<_> = (1..=100).map(|port| site.client(1, port)).collect();
    let first: Vec<_> = clients
        .iter()
        .map(|client| site.tcp(*client, SYN).destination())
        .collect();
    let then: Vec<_> = clients
        .iter()
        .map(|client| site.tcp(*client, ACK).destination())
        .collect();
    assert_eq!(first, then);
    assert_eq!(site.flows.usage().dsr_flows, 1);
    site.check();
}

#[test]
fn flows_outlive_their_frontend_and_its_mode() {
    let mut site = site(2);
    let client = site.client(1, 40_000);
    let server = site.tcp(client, SYN).destination();
    site.tcp(client, ACK);
    site.frontend_mut().mode = Mode::Passthrough;
    site.apply();
    assert_eq!(site.tcp(client, ACK).ends(), (client, server));
    site.config.frontends.remove("a");
    site.apply();
    assert_eq!(site.tcp(client, ACK).ends(), (client, server));
    assert_eq!(site.flows.in_use(site.now).len(), 1);
}

#[test]
fn bytes_are_counted_towards_the_server_only() {
    let mut site = site(1);
    let client = site.client(1, 40_000);
    site.tcp(client, SYN);
    let vip = site.vip();
    site.send(&Packet::tcp(client, vip, ACK, &[0; 100]), CLIENTS);
    let totals = site.server(1);
    assert_eq!((totals.bytes_in, totals.bytes_out, totals.current), (180, 0, 1));
}
