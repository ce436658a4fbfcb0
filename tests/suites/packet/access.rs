//! Who may open a flow, and how many: rules, limits of clients, and a client's share of the NAT ports.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr},
};

use convey::base::PacketReason;
use socket2::{Domain, Socket, Type};

use crate::{
    Test,
    explain::{connect_from, try_connect_from},
    kept::witnesses,
    lab::{
        Family, PATIENCE, crowd,
        kernel::KernelBalancer,
        servers::Witness,
        udp::{UdpClient, UdpServer},
        wait_until,
    },
    site::{Mode, PASSTHROUGH, Plan, Port, Site, Transport, WAYS, frontend_name, vip},
    tests,
    told::{self, Applicant},
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    Convey: one_client_that_opens_9600_connections_leaves_ports_to_the_next,
    Convey: one_client_takes_every_port_of_the_kernels_nat_and_not_of_convey,
    Convey: a_client_that_the_rules_deny_is_ignored_and_others_are_served,
    Convey: a_client_at_its_limit_does_not_hinder_another,
];

const WITNESS: Port = Port::same("witness", Transport::Tcp, 9);
const ECHO: Port = Port::same("echo", Transport::Udp, 7);

/// Another address of each family on the client's host: another client.
struct Next([IpAddr; 2]);

impl Next {
    fn new(site: &Site) -> Self {
        let add = |address: &str, rest: &str| {
            (site.client).add_address("eth0", &format!("{address}{rest}"));
            address.parse().expect("an address")
        };
        // deprecated: the host's own connections leave from its first one
        Self([add("10.77.0.151", "/24"), add("fd77::151", "/64 preferred_lft 0")])
    }

    fn addr(&self, family: Family) -> SocketAddr {
        let [v4, v6] = self.0;
        SocketAddr::new(if family == Family::V4 { v4 } else { v6 }, 0)
    }
}

/// Connections of one client that are begun all at once.
fn greedy(site: &Site, to: SocketAddr, count: usize) -> Vec<Socket> {
    let connect = |_| {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).expect("a socket");
        socket
            .set_nonblocking(true)
            .expect("a socket that does not block");
        match socket.connect(&to.into()) {
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => socket,
            other => panic!("a connect that begins: {other:?}"),
        }
    };
    site.client.inside(|| (0..count).map(connect).collect())
}

fn connected(sockets: &[Socket]) -> usize {
    let is_connected = |socket: &&Socket| socket.peer_addr().is_ok();
    sockets.iter().filter(is_connected).count()
}

/// Asks a server of a crowd.
#[track_caller]
fn expect_served(site: &Site, own: SocketAddr, to: SocketAddr) {
    let mut stream = try_connect_from(&site.client, own, to).unwrap_or_else(|error| {
        let resets: Vec<String> = (site.hosts())
            .map(|host| format!("{} {}", host.name(), host.kernel_count("Tcp", "OutRsts")))
            .collect();
        panic!("{own} cannot connect to {to}: {error}; resets of the kernels: {resets:?}")
    });
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    let question = *b"sixteen of bytes";
    stream.write_all(&question).expect("a question");
    let mut answer = [0; 24];
    stream.read_exact(&mut answer).expect("an answer");
    assert_eq!(answer[8..], question);
}

fn one_client_that_opens_9600_connections_leaves_ports_to_the_next() {
    const CONNECTIONS: usize = 9_600;
    // an eighth of 4,536 ports of each of two servers
    const SHARE: usize = 567;
    let site = Site::new("greedy", 2);
    let _servers: Vec<_> = (site.servers.iter())
        .map(|host| crowd::servers(host, host.addr(9), u64::from(host.index()), 1))
        .collect();
    let way = PASSTHROUGH[0];
    let convey = site.convey(&Plan::new(&[WITNESS], &site.servers).by(&[way]));
    let to = SocketAddr::new(vip(way), 9);
    let next = Next::new(&site).addr(Family::V4);
    let sockets = greedy(&site, to, CONNECTIONS);
    wait_until("the client holds its share of both servers", PATIENCE, || {
        told::flows(&convey) >= 2 * SHARE as u64
    });
    for _ in 0..20 {
        expect_served(&site, next, to);
    }
    // its connections go on trying meanwhile
    wait_until("more are refused", PATIENCE, || {
        told::packets(&convey, PacketReason::ClientPorts) >= (CONNECTIONS - 2 * SHARE) as u64
    });
    expect_served(&site, next, to);
    let established = told::established(&convey, site.client.ip4().into());
    assert_eq!(established, 2 * SHARE, "no more than its share, and no less");
    drop(sockets);
    wait_until("what has ended counts no more", PATIENCE, || {
        let before = told::packets(&convey, PacketReason::ClientPorts);
        expect_served(&site, site.client.addr(0), to);
        told::packets(&convey, PacketReason::ClientPorts) == before
    });
}

fn one_client_takes_every_port_of_the_kernels_nat_and_not_of_convey() {
    // so few that the kernel looks at each of them
    const PORTS: usize = 128;
    let site = Site::new("share", 1);
    let _servers = crowd::servers(&site.servers[0], site.servers[0].addr(9), 1, 1);
    let way = PASSTHROUGH[0];
    let mut plan = Plan::new(&[WITNESS], &site.servers).by(&[way]);
    plan.nat_ports = "61000-61127";
    let to = SocketAddr::new(vip(way), 9);
    let next = Next::new(&site).addr(Family::V4);

    let kernel = KernelBalancer::start(&site.lb, plan.nat_ports, &plan.services());
    let sockets = greedy(&site, to, 3 * PORTS);
    wait_until("the kernel has given every port away", PATIENCE, || {
        connected(&sockets) == PORTS
    });
    // the next client is that at the host's own address
    let mut applicant = Applicant::new(&site.client, to, None, &[]);
    assert!(applicant.try_connect().is_none(), "conntrack serves nobody else");
    drop((kernel, sockets));
    site.lb.run("sysctl -qw net.ipv4.ip_forward=0");

    let convey = site.convey(&plan);
    let _sockets = greedy(&site, to, 3 * PORTS);
    wait_until("the client is refused more", PATIENCE, || {
        told::packets(&convey, PacketReason::ClientPorts) >= PORTS as u64
    });
    for _ in 0..20 {
        expect_served(&site, next, to);
    }
    let established = told::established(&convey, site.client.ip4().into());
    assert_eq!(established, 32, "the least that a part is");
    let own = SocketAddr::new(site.client.ip4().into(), 20_000);
    let (_, answer) = told::explain(&convey, "tcp", own, to);
    assert_eq!(answer["blocked_by"], PacketReason::ClientPorts.label());
}

fn a_client_that_the_rules_deny_is_ignored_and_others_are_served() {
    let site = Site::new("denied", 2);
    let _witnesses = witnesses(&site);
    let _echoes: Vec<_> = (site.servers.iter())
        .flat_map(|host| Family::ALL.map(|family| UdpServer::echo(host, host.addr_of(family, 7), "")))
        .collect();
    let next = Next::new(&site);
    let open = Plan::new(&[WITNESS, ECHO], &site.servers);
    let mut closed = open.clone();
    closed.frontend = format!(
        "access.rules = [\"deny {}\", \"deny {}\"]",
        site.client.ip4(),
        site.client.ip6()
    );
    let convey = site.convey(&open);
    let mut before = WAYS.map(|way| {
        let to = SocketAddr::new(vip(way), 9);
        Witness::meet(&site.client, to).expect("a meeting before there are rules")
    });
    convey.reload(&closed.config());
    for way in WAYS {
        let to = SocketAddr::new(vip(way), 9);
        let mut applicant = Applicant::new(&site.client, to, Some(&convey), &[PacketReason::Denied]);
        assert!(applicant.try_connect().is_none(), "{way:?}: it is denied");
        let asked = UdpClient::new(&site.client, SocketAddr::new(vip(way), 7));
        let count = told::packets(&convey, PacketReason::Denied);
        asked.socket().send(b"question").expect("a datagram");
        wait_until("its datagrams are ignored too", PATIENCE, || {
            told::packets(&convey, PacketReason::Denied) > count
        });
        let own = site.client.addr_of(way.1, 20_000);
        let (_, answer) = told::explain(&convey, "tcp", own, to);
        assert_eq!(answer["blocked_by"], PacketReason::Denied.label(), "{way:?}");
        let witness = Witness::hear(connect_from(&site.client, next.addr(way.1), to));
        witness.unwrap_or_else(|error| panic!("{way:?}: another client: {error}"));
        let refused = &convey.status_json()["frontends"][frontend_name("witness", way)]["refused"];
        assert!(
            refused[PacketReason::Denied.label()].as_u64() >= Some(1),
            "{way:?}: {refused}"
        );
    }
    for (way, witness) in WAYS.iter().zip(&mut before) {
        let talked = witness.talk(b"still here");
        talked.unwrap_or_else(|error| panic!("{way:?}: a flow from before: {error}"));
    }
    convey.reload(&open.config());
    for way in WAYS {
        Witness::meet(&site.client, SocketAddr::new(vip(way), 9)).expect("a meeting without rules");
    }
}

fn a_client_at_its_limit_does_not_hinder_another() {
    let site = Site::new("limited", 2);
    let _witnesses = witnesses(&site);
    let next = Next::new(&site);
    let mut plan = Plan::new(&[WITNESS], &site.servers);
    // both clients are in one IPv6 network
    "limits.per_client = { prefix6 = 128, connections = 3 }".clone_into(&mut plan.frontend);
    let convey = site.convey(&plan);
    for way in WAYS {
        let to = SocketAddr::new(vip(way), 9);
        let mut held: Vec<_> = (0..3)
            .map(|turn| {
                let met = Witness::meet(&site.client, to);
                met.unwrap_or_else(|error| panic!("{way:?}: connection {turn}: {error}"))
            })
            .collect();
        let reasons = [PacketReason::ClientConnections];
        let mut applicant = Applicant::new(&site.client, to, Some(&convey), &reasons);
        assert!(applicant.try_connect().is_none(), "{way:?}: a fourth");
        let witness = Witness::hear(connect_from(&site.client, next.addr(way.1), to));
        witness.unwrap_or_else(|error| panic!("{way:?}: another client: {error}"));
        // a reload forgets nothing
        plan.frontend += "\nidle_timeout = \"9m\"";
        convey.reload(&plan.config());
        assert!(applicant.try_connect().is_none(), "{way:?}: after a reload");
        for witness in &mut held {
            let talked = witness.talk(b"still here");
            talked.unwrap_or_else(|error| panic!("{way:?}: {error}"));
        }
        if way.0 == Mode::Passthrough {
            held.pop();
            wait_until("an ended connection counts no more", PATIENCE, || {
                applicant.try_connect().is_some()
            });
        }
        plan.frontend
            .truncate(plan.frontend.find('\n').expect("a line more"));
        convey.reload(&plan.config());
    }
}
