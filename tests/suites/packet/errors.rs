//! Packets that lie about who sent them, and ICMP errors about packets that nobody sent.

use std::net::{IpAddr, SocketAddr};

use convey::base::PacketReason;

use crate::{
    Test,
    lab::{
        Family, Host, PATIENCE,
        forge::{Forger, Quote, SYN, guesses},
        servers::{TcpServer, Witness},
        udp::{UdpClient, UdpServer},
        wait_until,
    },
    site::{Mode, PASSTHROUGH, Plan, Port, Site, Transport, WAYS, vip},
    tests, told,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    Convey: a_packet_whose_source_is_the_balancer_itself_is_refused,
    Convey: an_icmp_error_tells_a_server_of_no_tiny_mtu,
    Convey: an_icmp_error_about_a_segment_that_nobody_sent_is_refused,
];

const WITNESS: Port = Port::same("witness", Transport::Tcp, 9);
const ECHO: Port = Port::same("echo", Transport::Udp, 7);

fn a_packet_whose_source_is_the_balancer_itself_is_refused() {
    const EACH: u64 = 3;
    let site = Site::new("ownsource", 1);
    let server = &site.servers[0];
    let echoes = Family::ALL.map(|family| UdpServer::echo(server, server.addr_of(family, 7), ""));
    let witnesses = Family::ALL.map(|family| TcpServer::witness(server, server.addr_of(family, 9), "a"));
    let convey = site.convey(&Plan::new(&[WITNESS, ECHO], &site.servers));
    // a router in front of the load balancer: it sends back what comes back
    let router = site.lab.host("router");
    router.forward();
    let forger = Forger::new(&router);
    let reached = || {
        let datagrams: u64 = echoes.iter().map(|echo| echo.seen().bytes).sum();
        let connections: u64 = witnesses.iter().map(TcpServer::accepted).sum();
        datagrams + connections
    };
    let mut sent = 0;
    for way in WAYS {
        let other = match way.0 {
            Mode::Passthrough => (Mode::Dsr, way.1),
            Mode::Dsr => (Mode::Passthrough, way.1),
        };
        for source in [vip(way), vip(other), site.lb.addr_of(way.1, 0).ip()] {
            for turn in 0..EACH {
                // from the echo port itself, as a loop wants it
                forger.udp(SocketAddr::new(source, 7), SocketAddr::new(vip(way), 7), b"loop");
                let port = 1024 + turn as u16;
                forger.tcp(
                    SocketAddr::new(source, port),
                    SocketAddr::new(vip(way), 9),
                    SYN,
                    1,
                    0,
                );
                sent += 2;
            }
        }
        wait_until(&format!("{way:?}: they are refused, or served"), PATIENCE, || {
            told::packets(&convey, PacketReason::OwnSource) >= sent || reached() > 0
        });
        assert_eq!(reached(), 0, "{way:?}: such a packet reached a server");
    }
    assert_eq!(told::packets(&convey, PacketReason::OwnSource), sent, "each once");
    for way in WAYS {
        let client = UdpClient::new(&site.client, SocketAddr::new(vip(way), 7));
        assert_eq!(client.ask(b"honest").expect("an answer"), b"honest", "{way:?}");
        Witness::meet(&site.client, SocketAddr::new(vip(way), 9)).expect("a meeting");
    }
    let honest = 2 * "honest".len() as u64;
    assert!(
        echoes.iter().all(|echo| echo.seen().bytes == honest),
        "nothing else ever reached a server"
    );
}

/// Counts on a host, by `small` and `large`, what it is told of MTUs.
fn count_mtus(host: &Host) {
    host.nft(
        "table inet mtus {
           counter small { }
           counter large { }
           chain in {
             type filter hook prerouting priority -300
             icmp type destination-unreachable icmp code 4 icmp mtu < 1200 counter name small
             icmp type destination-unreachable icmp code 4 icmp mtu >= 1200 counter name large
             icmpv6 type packet-too-big icmpv6 mtu < 1280 counter name small
             icmpv6 type packet-too-big icmpv6 mtu >= 1280 counter name large
           }
         }",
    );
}

fn counted(host: &Host, counter: &str) -> u64 {
    let text = host.run(&format!("nft list counter inet mtus {counter}"));
    let count = text
        .split_whitespace()
        .skip_while(|word| *word != "packets")
        .nth(1);
    count
        .and_then(|count| count.parse().ok())
        .unwrap_or_else(|| panic!("no count in {text}"))
}

fn an_icmp_error_tells_a_server_of_no_tiny_mtu() {
    let site = Site::new("tinymtu", 1);
    let server = &site.servers[0];
    let _echoes = Family::ALL.map(|family| UdpServer::echo(server, server.addr_of(family, 7), ""));
    count_mtus(server);
    let _convey = site.convey(&Plan::new(&[ECHO], &site.servers).by(&PASSTHROUGH));
    let liar = site.lab.host("liar");
    let forger = Forger::new(&liar);
    for (turn, way) in PASSTHROUGH.into_iter().enumerate() {
        let to = SocketAddr::new(vip(way), 7);
        let client = UdpClient::new(&site.client, to);
        client.ask(b"hello").expect("an answer");
        let answer = Quote {
            from: to,
            to: client.own(),
            sequence: None,
            len: 8,
        };
        forger.too_big(liar.addr_of(way.1, 0).ip(), &answer, 68);
        wait_until(&format!("{way:?}: the server is told"), PATIENCE, || {
            counted(server, "small") + counted(server, "large") > turn as u64
        });
        assert_eq!(counted(server, "small"), 0, "{way:?}: of 68 bytes");
        assert_eq!(client.ask(b"and now").expect("an answer"), b"and now", "{way:?}");
    }
    let learned = server.run(&format!("ip route get {}", site.lb.ip4()));
    assert!(!learned.contains("mtu 552"), "the kernel's own least: {learned}");
}

fn an_icmp_error_about_a_segment_that_nobody_sent_is_refused() {
    const EACH: usize = 20;
    let site = Site::new("unsent", 1);
    let server = &site.servers[0];
    let _witnesses = Family::ALL.map(|family| TcpServer::witness(server, server.addr_of(family, 9), "a"));
    for host in [server, &site.client] {
        count_mtus(host);
    }
    let convey = site.convey(&Plan::new(&[WITNESS], &site.servers).by(&PASSTHROUGH));
    let liar = site.lab.host("liar");
    let forger = Forger::new(&liar);
    let told_of_any = || [server, &site.client].map(|host| counted(host, "small") + counted(host, "large"));
    let mut sent = 0;
    for way in PASSTHROUGH {
        let from: IpAddr = liar.addr_of(way.1, 0).ip();
        let vip = SocketAddr::new(vip(way), 9);
        let mut witness = Witness::meet(&site.client, vip).expect("a meeting");
        let own = witness.stream().local_addr().expect("an own address");
        for guess in guesses(11, EACH) {
            // the server's segment to the client, and the client's to the server
            for (from_addr, to_addr) in [(vip, own), (witness.seen, server.addr_of(way.1, 9))] {
                // ports alone, what RFC 792 wants at least, and the whole header
                for len in [4, 8, 20] {
                    let segment = Quote {
                        from: from_addr,
                        to: to_addr,
                        sequence: Some(guess),
                        len,
                    };
                    forger.too_big(from, &segment, 1_300);
                    sent += 1;
                }
            }
        }
        wait_until(
            &format!("{way:?}: they are refused, or delivered"),
            PATIENCE,
            || told::packets(&convey, PacketReason::IcmpUnmatched) >= sent || told_of_any() != [0, 0],
        );
        assert_eq!(told_of_any(), [0, 0], "{way:?}: told of an MTU");
        witness.talk(&[7; 20_000]).expect("the flow goes on");
    }
}
