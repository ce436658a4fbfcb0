//! Packets from those who mean no good.

use std::net::{IpAddr, SocketAddr};

use convey::base::PacketReason;

use crate::{
    Test,
    lab::{
        Family, PATIENCE,
        checksums::Checksums,
        forge::{ACK, Forger, RST},
        random_bytes,
        servers::{TcpServer, Witness},
        udp::{UdpClient, UdpServer},
        wait_until,
    },
    site::{PASSTHROUGH, Plan, Port, Site, Transport, WAYS, vip},
    tests, told,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    Any: only_the_flows_own_server_reaches_its_client,
    Any: broken_packets_disturb_nobody,
    Convey: a_segment_without_a_flow_is_answered_with_a_reset,
];

const ECHO: Port = Port::same("echo", Transport::Udp, 7);
const WITNESS: Port = Port::same("witness", Transport::Tcp, 9);

fn only_the_flows_own_server_reaches_its_client() {
    let site = Site::new("forged", 2);
    let liar = site.lab.host("liar");
    let forger = Forger::new(&liar);
    let mut servers = Vec::new();
    let mut echoes = Vec::new();
    for host in &site.servers {
        for family in Family::ALL {
            servers.push(TcpServer::witness(host, host.addr_of(family, 9), host.name()));
            echoes.push(UdpServer::echo(host, host.addr_of(family, 7), host.name()));
        }
    }
    let balancer = site.balance(&Plan::new(&[WITNESS, ECHO], &site.servers).by(&PASSTHROUGH));
    let mut forged = 0;
    for way in PASSTHROUGH {
        let client = UdpClient::new(&site.client, SocketAddr::new(vip(way), 7));
        let answer = client.ask(b"who").expect("an answer");
        let nat: SocketAddr = echoes
            .iter()
            .flat_map(|echo| echo.seen().senders.into_keys())
            .find(|sender| Family::of(sender.ip()) == way.1)
            .expect("the NAT address and port");
        let mut witness = Witness::meet(&site.client, SocketAddr::new(vip(way), 9)).expect("a meeting");
        // the pool's other server, another port of the right server, another host
        let pair = |name: &str| match name {
            "a" => (&site.servers[0], &site.servers[1]),
            _ => (&site.servers[1], &site.servers[0]),
        };
        let name = String::from_utf8_lossy(&answer[..1]).into_owned();
        let ((udp_own, udp_other), (tcp_own, tcp_other)) = (pair(&name), pair(&witness.server));
        for _ in 0..20 {
            for from in [
                udp_other.addr_of(way.1, 7),
                udp_own.addr_of(way.1, 8),
                liar.addr_of(way.1, 7),
            ] {
                forger.udp(from, nat, b"evil");
            }
            for from in [
                tcp_other.addr_of(way.1, 9),
                tcp_own.addr_of(way.1, 8),
                liar.addr_of(way.1, 9),
            ] {
                forger.tcp(from, witness.seen, RST | ACK, 1, 1);
            }
        }
        if let Some(convey) = balancer.convey() {
            // those who are no server at all do not even reach the daemon
            forged += 2 * 20;
            wait_until("the forged packets are counted", PATIENCE, || {
                told::packets(convey, PacketReason::ForeignSource) >= forged
            });
        }
        witness.talk(b"unharmed").expect("the flow goes on");
        // a forged one would have come before
        let heard = client.ask(b"who").expect("the flow goes on");
        assert_eq!(heard, answer, "{way:?}: the client heard a forged datagram");
    }
}

fn broken_packets_disturb_nobody() {
    let site = Site::new("broken", 1);
    let server = &site.servers[0];
    let _witnesses = [server.addr(9), server.addr6(9)].map(|addr| TcpServer::witness(server, addr, "a"));
    let _echoes = [server.addr(7), server.addr6(7)].map(|addr| UdpServer::echo(server, addr, ""));
    let _balancer = site.balance(&Plan::new(&[WITNESS, ECHO], &site.servers));
    let liar = site.lab.host("liar");
    let forger = Forger::new(&liar);
    let mut witnesses: Vec<Witness> = WAYS
        .iter()
        .map(|way| Witness::meet(&site.client, SocketAddr::new(vip(*way), 9)).expect("a meeting"))
        .collect();
    let targets: Vec<IpAddr> = WAYS
        .iter()
        .map(|way| vip(*way))
        .chain([IpAddr::V4(site.lb.ip4()), IpAddr::V6(site.lb.ip6())])
        .collect();
    for turn in 0..6000_u64 {
        let to = targets[turn as usize % targets.len()];
        let from = liar.addr_of(Family::of(to), 0).ip();
        let mut noise = random_bytes(turn, (turn % 97) as usize);
        // every other one looks like one of ours at first sight
        if turn % 2 == 0 && noise.len() >= 4 {
            let port: u16 = [9, 7, 61_000, 65_535][turn as usize / 2 % 4];
            noise[2..4].copy_from_slice(&port.to_be_bytes());
        }
        // TCP, UDP, ICMP, ICMPv6, fragment header, hop-by-hop header
        let protocol = [6, 17, 1, 58, 44, 0][turn as usize / targets.len() % 6];
        forger.raw(from, to, protocol, &noise);
    }
    for (way, witness) in WAYS.iter().zip(&mut witnesses) {
        witness
            .talk(b"unharmed")
            .unwrap_or_else(|error| panic!("{way:?}: {error}"));
        let client = UdpClient::new(&site.client, SocketAddr::new(vip(*way), 7));
        assert_eq!(client.ask(b"new").expect("a new flow"), b"new", "{way:?}");
    }
}

fn a_segment_without_a_flow_is_answered_with_a_reset() {
    let site = Site::new("noflow", 1);
    let liar = site.lab.host("liar");
    // counts what the liar's own stack would never tell
    liar.nft(
        "table inet count {
           chain in {
             type filter hook prerouting priority 0
             tcp flags & rst == rst tcp sport 9 tcp dport 4321 counter
           }
         }",
    );
    let server = &site.servers[0];
    let _witnesses = [server.addr(9), server.addr6(9)].map(|addr| TcpServer::witness(server, addr, "a"));
    let _checksums = Checksums::of(site.hosts().chain([&liar]));
    let convey = site.convey(&Plan::new(&[WITNESS], &site.servers).by(&PASSTHROUGH));
    let forger = Forger::new(&liar);
    for (turn, way) in PASSTHROUGH.into_iter().enumerate() {
        let from = liar.addr_of(way.1, 4321);
        forger.tcp(from, SocketAddr::new(vip(way), 9), ACK, 1000, 2000);
        wait_until(&format!("{way:?}: the reset arrives"), PATIENCE, || {
            liar.run("nft list table inet count")
                .contains(&format!("counter packets {} ", turn + 1))
        });
    }
    assert_eq!(told::packets(&convey, PacketReason::ResetNoFlow), 2);
}
