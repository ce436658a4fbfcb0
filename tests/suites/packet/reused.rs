//! Ports of connections that have ended serve new ones.

use std::{
    io::Write as _,
    net::{IpAddr, SocketAddr},
    thread,
    time::Duration,
};

use convey::base::PacketReason;

use crate::{
    Test,
    explain::connect_from,
    kept::witnesses,
    lab::{
        Family,
        servers::{TcpServer, Witness},
    },
    site::{PASSTHROUGH, Plan, Port, Site, Transport, Way, vip},
    tests, told,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    Convey: more_connections_than_ports_that_clients_close_first,
    Convey: more_connections_than_ports_that_servers_close_first,
    Convey: a_port_that_the_server_remembers_in_time_wait_serves_another_client,
];

const WITNESS: Port = Port::same("witness", Transport::Tcp, 9);
const BRIEF: Port = Port::same("brief", Transport::Tcp, 99);
/// Clients' addresses: each has a clock of its own for its timestamps.
const CLIENTS: usize = 8;

fn clients(site: &Site) -> [Vec<IpAddr>; 2] {
    Family::ALL.map(|family| {
        (0..CLIENTS)
            .map(|number| {
                let (address, bits) = match family {
                    Family::V4 => (format!("10.77.0.{}", 150 + number), 24),
                    Family::V6 => (format!("fd77::{}", 150 + number), 64),
                };
                site.client.add_address("eth0", &format!("{address}/{bits}"));
                address.parse().expect("an address")
            })
            .collect()
    })
}

/// Servers that say who they are and close.
fn brief(site: &Site) -> Vec<TcpServer> {
    let server = &site.servers[0];
    Family::ALL
        .map(|family| {
            TcpServer::start_at(server, server.addr_of(family, BRIEF.port), |mut stream| {
                writeln!(stream, "brief {}", stream.peer_addr()?)
            })
        })
        .into()
}

fn more_connections_than_ports_that_clients_close_first() {
    more_connections_than_ports(&WITNESS);
}

fn more_connections_than_ports_that_servers_close_first() {
    more_connections_than_ports(&BRIEF);
}

fn more_connections_than_ports(port: &Port) {
    const CONNECTIONS: usize = 600;
    let site = Site::new("reused", 1);
    let (_witnesses, _brief) = (witnesses(&site), brief(&site));
    let clients = clients(&site);
    let mut plan = Plan::new(std::slice::from_ref(port), &site.servers).by(&PASSTHROUGH);
    plan.nat_ports = "61000-61255";
    let convey = site.convey(&plan);
    for turn in 0..CONNECTIONS {
        for (way, clients) in PASSTHROUGH.into_iter().zip(&clients) {
            converse(&site, way, clients[turn % CLIENTS], port);
        }
        // all ports in two and a half seconds at most: what has ended may rest for one
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(
        told::packets(&convey, PacketReason::PortsExhausted),
        0,
        "none is refused"
    );
}

/// A connection from beginning to end.
#[track_caller]
fn converse(site: &Site, way: Way, client: IpAddr, port: &Port) -> SocketAddr {
    let to = SocketAddr::new(vip(way), port.port);
    let stream = connect_from(&site.client, SocketAddr::new(client, 0), to);
    stream
        .set_read_timeout(Some(crate::lab::PATIENCE))
        .expect("a time-out");
    let mut witness = Witness::hear(stream).unwrap_or_else(|error| panic!("{client} to {to}: {error}"));
    if port.port == BRIEF.port {
        let rest = witness
            .rest()
            .unwrap_or_else(|error| panic!("{client} to {to}: {error}"));
        assert!(rest.is_empty(), "the server has closed");
    }
    witness.seen
}

fn a_port_that_the_server_remembers_in_time_wait_serves_another_client() {
    let site = Site::new("timewait", 1);
    let _brief = brief(&site);
    let clients = clients(&site);
    let mut plan = Plan::new(&[BRIEF], &site.servers).by(&PASSTHROUGH);
    // every client's connections use the one before's
    plan.nat_ports = "61000-61000";
    let _convey = site.convey(&plan);
    for (way, clients) in PASSTHROUGH.into_iter().zip(&clients) {
        for client in &clients[..4] {
            let seen = converse(&site, way, *client, &BRIEF);
            assert_eq!(seen.port(), 61_000, "{way:?}");
        }
        let remembered = site.servers[0].run("ss -Htan state time-wait");
        assert!(remembered.contains(":61000"), "{way:?}: {remembered}");
    }
}
