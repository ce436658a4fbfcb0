//! Clients behind routers that change while a client only listens: the bytes go on.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use crate::{
    Test,
    lab::{
        Family, Host, PATIENCE, random_bytes,
        servers::{Gate, TcpServer, Witness},
        wait_until,
    },
    networks::Behind,
    site::{PASSTHROUGH, Plan, Port, Transport, Way, eventually, vip},
    tests,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    Any: a_gateway_that_gets_a_new_link_address_loses_no_byte,
    Any: a_gateway_that_changes_again_at_once_takes_its_newest_flows_along,
    Any: another_uplink_takes_the_flows_over,
];

const NEWS: Port = Port::same("news", Transport::Tcp, 9);
const TICKER: Port = Port::same("ticker", Transport::Udp, 7);
const FLOWS_EACH: usize = 4;

fn a_gateway_that_gets_a_new_link_address_loses_no_byte() {
    let behind = Behind::new("gateway", 1);
    bytes_go_on(&behind, |_| {
        change_gateway(&behind, "02:00:00:00:77:77");
        Vec::new()
    });
}

fn a_gateway_that_changes_again_at_once_takes_its_newest_flows_along() {
    let behind = Behind::new("twice", 1);
    bytes_go_on(&behind, |meet| {
        change_gateway(&behind, "02:00:00:00:77:77");
        // their way back is looked up within a second, and is another one before
        let newest = meet();
        change_gateway(&behind, "02:00:00:00:88:88");
        newest
    });
}

fn another_uplink_takes_the_flows_over() {
    let behind = Behind::new("uplink", 2);
    bytes_go_on(&behind, |_| {
        behind.site.lab.unplug(&behind.routers[0]);
        behind.lead_by(1);
        Vec::new()
    });
}

/// The router gets another link address.
#[track_caller]
fn change_gateway(behind: &Behind, address: &str) {
    let router = &behind.routers[0];
    // it says so itself: gratuitous ARP, unsolicited neighbour advertisement
    router.run(&format!(
        "echo 1 > /proc/sys/net/ipv4/conf/eth0/arp_notify
         echo 1 > /proc/sys/net/ipv6/conf/eth0/ndisc_notify
         ip link set eth0 address {address}"
    ));
    for family in Family::ALL {
        wait_for_neighbour(behind, router.addr_of(family, 0).ip(), address);
    }
}

/// Waits until the load balancer's kernel says this of a neighbour.
#[track_caller]
fn wait_for_neighbour(behind: &Behind, address: IpAddr, what: &str) {
    wait_until(&format!("{address} is known by {what}"), PATIENCE, || {
        let command = format!("ip neigh show to {address}");
        behind.site.lb.run(&command).contains(what)
    });
}

type Readers = Vec<(Way, Witness)>;

/// Clients that have said nothing since get what servers send after the change; also those that come while it lasts.
#[track_caller]
fn bytes_go_on(behind: &Behind, change: impl FnOnce(&dyn Fn() -> Readers) -> Readers) {
    let site = &behind.site;
    let server = &site.servers[0];
    let (gate, bytes) = (Arc::<Gate>::default(), random_bytes(5, 300_000));
    let _servers =
        Family::ALL.map(|family| TcpServer::gated(server, server.addr_of(family, 9), &gate, &bytes));
    let balancer = site.balance(&Plan::new(&[NEWS, TICKER], &site.servers).by(&PASSTHROUGH));
    let meet = || -> Readers {
        let ways = PASSTHROUGH
            .into_iter()
            .flat_map(|way| (0..FLOWS_EACH).map(move |_| way));
        ways.map(|way| {
            let reader = Witness::meet(&behind.far, SocketAddr::new(vip(way), 9))
                .unwrap_or_else(|error| panic!("{way:?}: {error}"));
            (way, reader)
        })
        .collect()
    };
    let mut readers = meet();
    let subscribers = PASSTHROUGH.map(|way| Subscriber::new(&behind.far, server, way));
    // a way back that the load balancer has looked up: what changes before that is not a change to it
    for family in Family::ALL {
        wait_for_neighbour(behind, behind.routers[0].addr_of(family, 0).ip(), "lladdr");
    }
    if let Some(convey) = balancer.convey() {
        convey.status();
    }
    readers.extend(change(&meet));
    gate.open();
    for (way, reader) in &mut readers {
        let got = reader.rest().unwrap_or_else(|error| panic!("{way:?}: {error}"));
        assert!(got == bytes, "{way:?}: {} bytes came", got.len());
    }
    for subscriber in subscribers {
        subscriber.expect_news();
    }
}

/// A UDP client that has asked once, and a server that tells it more without being asked again.
struct Subscriber {
    way: Way,
    client: UdpSocket,
    server: UdpSocket,
    /// Our address towards the server.
    nat: SocketAddr,
}

impl Subscriber {
    #[track_caller]
    fn new(client: &Host, server: &Host, way: Way) -> Self {
        let own = match way.1 {
            Family::V4 => "0.0.0.0:0",
            Family::V6 => "[::]:0",
        };
        let bind = |host: &Host, address: SocketAddr| {
            let socket = host
                .inside(|| UdpSocket::bind(address))
                .unwrap_or_else(|error| panic!("cannot bind {address}: {error}"));
            socket.set_read_timeout(Some(PATIENCE)).expect("a time-out");
            socket
        };
        let server = bind(server, server.addr_of(way.1, 7));
        let client_socket = bind(client, own.parse().expect("an address"));
        client
            .inside(|| client_socket.connect(SocketAddr::new(vip(way), 7)))
            .unwrap_or_else(|error| panic!("{way:?}: {error}"));
        let mut buffer = [0; 16];
        // twice: a client that is real
        let mut nat = None;
        for _ in 0..2 {
            client_socket.send(b"more").expect("send");
            let (_, from) = server.recv_from(&mut buffer).expect("the question");
            server.send_to(b"yes", from).expect("send");
            client_socket.recv(&mut buffer).expect("the answer");
            nat = Some(from);
        }
        Self {
            way,
            client: client_socket,
            server,
            nat: nat.expect("an address"),
        }
    }

    /// Datagrams may be lost while the way changes, so it is told again until it has heard.
    #[track_caller]
    fn expect_news(&self) {
        self.client
            .set_read_timeout(Some(Duration::from_millis(100)))
            .expect("a time-out");
        let mut buffer = [0; 16];
        let len = eventually(&format!("{:?}: the news arrives", self.way), || {
            self.server.send_to(b"news", self.nat)?;
            self.client.recv(&mut buffer)
        });
        assert_eq!(&buffer[..len], b"news", "{:?}", self.way);
    }
}
