//! `dsr_method = "l2"`: packets keep their addresses, for the servers have the VIP themselves, on lo.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use convey::base::PacketReason;

use crate::{
    Test,
    lab::{
        Family, Host, PATIENCE,
        checksums::Checksums,
        random_bytes,
        servers::{TcpServer, Witness},
        udp::{UdpClient, UdpServer},
        wait_until,
    },
    site::{DSR, Mode, Plan, Port, Site, Transport, eventually, vip},
    tests, told,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    Convey: servers_that_have_the_vip_answer_from_it_and_see_the_client,
    Convey: only_the_load_balancer_answers_arp_for_the_vip,
    Convey: a_server_behind_a_gateway_gets_nothing_until_it_is_on_link,
];

const WITNESS: Port = Port::same("witness", Transport::Tcp, 9);
const ECHO: Port = Port::same("echo", Transport::Udp, 7);

fn plan(site: &Site) -> Plan {
    Plan {
        method: "l2",
        ..Plan::new(&[WITNESS, ECHO], &site.servers).by(&DSR)
    }
}

/// Witnesses and echoes at the VIPs of every server, and nowhere else.
fn serve(site: &Site) -> (Vec<TcpServer>, Vec<UdpServer>) {
    let places: Vec<(&Host, SocketAddr)> = (site.servers.iter())
        .flat_map(|host| DSR.map(|way| (host, SocketAddr::new(vip(way), 0))))
        .collect();
    let at = |addr: SocketAddr, port| SocketAddr::new(addr.ip(), port);
    let witnesses = (places.iter()).map(|(host, addr)| TcpServer::witness(host, at(*addr, 9), host.name()));
    let echoes = (places.iter()).map(|(host, addr)| UdpServer::echo(host, at(*addr, 7), host.name()));
    (witnesses.collect(), echoes.collect())
}

fn servers_that_have_the_vip_answer_from_it_and_see_the_client() {
    let site = Site::new("l2", 2);
    let plan = plan(&site);
    site.prepare_servers(&plan);
    let _servers = serve(&site);
    let _checksums = Checksums::of(site.hosts());
    let _convey = site.convey(&plan);
    for way in DSR {
        let mut by = BTreeSet::new();
        for round in 0..24 {
            let to = SocketAddr::new(vip(way), 9);
            let mut witness =
                Witness::meet(&site.client, to).unwrap_or_else(|error| panic!("{way:?}: {error}"));
            let own = witness.stream().local_addr().expect("an own address");
            assert_eq!(witness.seen, own, "{way:?}");
            by.insert(witness.server.clone());
            if round == 0 {
                witness.talk(&random_bytes(1, 100_000)).expect("talk");
            }
        }
        assert_eq!(by.len(), 2, "{way:?}: only {by:?} serve");
        let client = UdpClient::new(&site.client, SocketAddr::new(vip(way), 7));
        // whole, and in fragments, which follow the first one
        for len in [1, 512, 1_472, 1_473, 5_000] {
            let datagram = random_bytes(len as u64, len);
            let back = client
                .ask(&datagram)
                .unwrap_or_else(|error| panic!("{way:?}, {len} bytes: {error}"));
            assert!(
                back.ends_with(&datagram),
                "{way:?}: {len} bytes came back otherwise"
            );
        }
    }
}

/// Counts questions for the VIP that reach a host, and its answers.
fn count_arp(host: &Host, vip: &str) {
    host.nft(&format!(
        "table netdev seen {{
           counter asked {{ }}
           counter answered {{ }}
           chain in {{
             type filter hook ingress device eth0 priority 0
             arp operation request arp daddr ip {vip} counter name asked
           }}
           chain out {{
             type filter hook egress device eth0 priority 0
             arp operation reply arp saddr ip {vip} counter name answered
           }}
         }}"
    ));
}

fn counted(host: &Host, counter: &str) -> u64 {
    let shown = host.run(&format!("nft list counter netdev seen {counter}"));
    let number = shown
        .split("packets ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next());
    number
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("no count in {shown}"))
}

fn only_the_load_balancer_answers_arp_for_the_vip() {
    let site = Site::new("l2-arp", 2);
    let plan = plan(&site);
    site.prepare_servers(&plan);
    let _servers = serve(&site);
    let vip = vip((Mode::Dsr, Family::V4));
    for host in [&site.lb].into_iter().chain(&site.servers) {
        count_arp(host, &vip.to_string());
    }
    let _convey = site.convey(&plan);
    let ask = || {
        site.client.run(&format!("ip neigh flush to {vip}"));
        Witness::meet(&site.client, SocketAddr::new(vip, 9))
    };
    ask().expect("an answer");
    assert!(counted(&site.lb, "answered") > 0);
    for server in &site.servers {
        // the kernel answers a question before it takes the next frame
        wait_until("the question reaches the server", PATIENCE, || {
            counted(server, "asked") > 0
        });
        assert_eq!(counted(server, "answered"), 0, "{} answers", server.name());
    }
    // the same host without the settings: what was to be kept from happening
    let server = &site.servers[0];
    server.run("sysctl -qw net.ipv4.conf.all.arp_ignore=0");
    eventually("the server answers for the VIP", || {
        let _either = ask();
        (counted(server, "answered") > 0).then_some(()).ok_or("not yet")
    });
}

fn a_server_behind_a_gateway_gets_nothing_until_it_is_on_link() {
    let site = Site::new("l2-gateway", 2);
    let server = site.servers[0].clone();
    let plan = Plan {
        servers: vec![(server.clone(), 1)],
        ..plan(&site)
    };
    site.prepare_servers(&plan);
    let _servers = serve_one(&server);
    let by = &site.servers[1];
    for family in Family::ALL {
        let (to, by) = (server.addr_of(family, 0).ip(), by.addr_of(family, 0).ip());
        site.lb.run(&format!("ip route add {to} via {by}"));
    }
    let convey = site.convey(&plan);
    for way in DSR {
        let to = SocketAddr::new(vip(way), 7);
        let client = UdpClient::new(&site.client, to);
        let before = told::packets(&convey, PacketReason::BehindGateway);
        client.socket().send(b"lost").expect("send");
        wait_until("it is counted", PATIENCE, || {
            told::packets(&convey, PacketReason::BehindGateway) > before
        });
        let (_, answer) = told::explain(&convey, "udp", client.own(), to);
        assert_eq!(
            answer["blocked_by"],
            PacketReason::BehindGateway.label(),
            "{answer}"
        );
    }
    let check = convey.tool("check");
    for family in Family::ALL {
        let ip = by.addr_of(family, 0).ip();
        assert!(
            check.stderr.contains(&format!("behind the gateway {ip}")),
            "{}",
            check.stderr
        );
    }
    for family in Family::ALL {
        let to = server.addr_of(family, 0).ip();
        site.lb.run(&format!("ip route del {to}"));
    }
    for way in DSR {
        let client = UdpClient::new(&site.client, SocketAddr::new(vip(way), 7));
        // what comes before the new next hop is resolved is lost
        let socket = client.socket();
        socket
            .set_read_timeout(Some(Duration::from_secs(1)))
            .expect("a time-out");
        eventually("it is served", || client.ask(b"found"));
    }
}

fn serve_one(server: &Host) -> [UdpServer; 2] {
    DSR.map(|way| UdpServer::echo(server, SocketAddr::new(vip(way), 7), ""))
}
