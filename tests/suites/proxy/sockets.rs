//! Options of the sockets of both sides: their interface, the class of their packets, their buffers.

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket},
};

use convey::base::ServerState;
use nix::sys::signal::Signal;

use crate::{
    Test,
    lab::{
        Convey, Family, Host, Lab, PATIENCE,
        servers::{TcpServer, Witness},
        udp::{UdpClient, UdpServer},
        wait_until,
    },
    site::{BLIND, FAST_CHECK, NO_CHECK, backend, read_line},
    tests,
    udp::{alone, ask, config, quoted},
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    a_frontend_serves_what_arrives_on_its_interface_and_nothing_else,
    one_address_leads_to_other_servers_by_each_interface,
    an_interface_that_is_not_there_is_named_and_changes_nothing,
    a_restart_takes_the_listeners_of_an_interface_over,
    servers_are_reached_by_the_interface_whatever_the_routes_say,
    packets_of_tcp_have_their_class_both_ways_and_follow_a_reload,
    datagrams_have_their_class_both_ways_beside_their_congestion_marks,
    sockets_have_the_buffers_that_the_file_says,
    a_burst_at_a_busy_listener_is_not_lost,
];

const PORT: u16 = 80;

/// A frontend on every IPv4 and IPv6 address.
fn frontend(name: &str, protocol: &str, settings: &str) -> String {
    format!(
        "[frontends.{name}]\nprotocol = \"{protocol}\"\nlisten_addr = [\"0.0.0.0:{PORT}\", \"[::]:{PORT}\"]\n\
         backend = \"{name}\"\n{settings}\n"
    )
}

/// A client on each of two networks of the load balancer, and the servers' host on the first.
struct TwoLinks {
    near: Host,
    far: Host,
    lb: Host,
    host: Host,
    lab: Lab,
}

impl TwoLinks {
    fn new(name: &str) -> Self {
        let lab = Lab::new(name);
        let [near, far, lb, host] = ["near", "far", "lb", "server"].map(|name| lab.host(name));
        lab.cable((&lb, "far0"), (&far, "lb0"));
        for (at, interface, last) in [(&lb, "far0", 1), (&far, "lb0", 2)] {
            at.add_address(interface, &format!("10.66.0.{last}/24"));
            at.add_address(interface, &format!("fd66::{last}/64"));
        }
        Self {
            near,
            far,
            lb,
            host,
            lab,
        }
    }

    /// The load balancer as the client on the second network sees it.
    fn far_addr(&self, family: Family) -> SocketAddr {
        let ip: IpAddr = match family {
            Family::V4 => [10, 66, 0, 1].into(),
            Family::V6 => "fd66::1".parse().expect("an address"),
        };
        (ip, PORT).into()
    }
}

/// Which server answers over TCP.
fn greeting(client: &Host, to: SocketAddr) -> String {
    let mut stream = client.connect(to);
    read_line(&mut stream).expect("a greeting")
}

fn is_refused(client: &Host, to: SocketAddr) -> bool {
    let error = client.try_connect(to).expect_err("nobody listens there");
    error.kind() == io::ErrorKind::ConnectionRefused
}

/// A socket of the second network's client.
fn far_socket(links: &TwoLinks, family: Family) -> UdpSocket {
    let any: IpAddr = match family {
        Family::V4 => [0, 0, 0, 0].into(),
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
    };
    let to = links.far_addr(family);
    links.far.inside(move || {
        let socket = UdpSocket::bind((any, 0)).expect("a socket");
        socket.connect(to).expect("a way");
        socket.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        socket
    })
}

fn a_frontend_serves_what_arrives_on_its_interface_and_nothing_else() {
    let links = TwoLinks::new("interface");
    let tcp = TcpServer::named(&links.host, 9_000, "s");
    let udp = UdpServer::echo(&links.host, links.host.addr(9_000), "");
    let text = frontend("tcp", "tcp", "interface = \"far0\"")
        + &frontend("udp", "udp", "interface = \"far0\"")
        + &backend("tcp", NO_CHECK, &[("s", tcp.addr(), "")])
        + &backend("udp", "", &[("s", udp.addr(), "")]);
    let _convey = links.lab.convey(&links.lb, &text);
    for family in Family::ALL {
        assert_eq!(greeting(&links.far, links.far_addr(family)), "s");
        let to = links.lb.addr_of(family, PORT);
        assert!(is_refused(&links.near, to), "{family:?}");
        // an address of another interface is none of it, whichever way its packets come
        let far = far_socket(&links, family);
        far.send(b"far").expect("sent");
        assert_eq!(far.recv(&mut [0; 9]).expect("an answer"), 3);
        let near = UdpClient::new(&links.near, to);
        let error = near.ask(b"near").expect_err("a closed port");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{family:?}");
    }
}

fn one_address_leads_to_other_servers_by_each_interface() {
    let links = TwoLinks::new("interfaces");
    let mut text = String::new();
    let mut servers = Vec::new();
    for (protocol, port) in [("tcp", 9_000), ("udp", 9_100)] {
        for (offset, name, interface) in [
            (0, "near", "interface = \"eth0\""),
            (1, "far", "interface = \"far0\""),
        ] {
            let addr = links.host.addr(port + offset);
            let whole = format!("{protocol}-{name}");
            text += &frontend(&whole, protocol, interface);
            text += &backend(&whole, BLIND, &[("s", addr, "")]);
            match protocol {
                "tcp" => servers.push((Some(TcpServer::named(&links.host, port + offset, name)), None)),
                _ => servers.push((None, Some(UdpServer::echo(&links.host, addr, name)))),
            }
        }
    }
    let convey = links.lab.convey(&links.lb, &text);
    for family in Family::ALL {
        let (near, far) = (links.lb.addr_of(family, PORT), links.far_addr(family));
        assert_eq!(greeting(&links.near, near), "near");
        assert_eq!(greeting(&links.far, far), "far");
        // to the kernel this comes in where the address is
        assert_eq!(greeting(&links.lb, near), "near");
        let own: IpAddr = match family {
            Family::V4 => [127, 0, 0, 1].into(),
            Family::V6 => Ipv6Addr::LOCALHOST.into(),
        };
        assert!(is_refused(&links.lb, (own, PORT).into()), "by lo");
        assert_eq!(ask(&UdpClient::new(&links.near, near), "x"), "near:x");
        let socket = far_socket(&links, family);
        socket.send(b"x").expect("sent");
        let mut answer = [0; 9];
        let len = socket.recv(&mut answer).expect("an answer");
        assert_eq!(&answer[..len], b"far:x");
    }
    // two names of one address in what operators see
    let listen = convey.status().frontends["tcp-far"].listen.clone();
    let listen: Vec<_> = listen.iter().map(ToString::to_string).collect();
    assert_eq!(listen, ["0.0.0.0%far0:80", "[::%far0]:80"]);
    drop(servers);
}

fn an_interface_that_is_not_there_is_named_and_changes_nothing() {
    let links = TwoLinks::new("interface-gone");
    let server = TcpServer::named(&links.host, 9_000, "s");
    let of = |interface: &str| {
        frontend("f", "tcp", &format!("interface = \"{interface}\""))
            + &backend("f", NO_CHECK, &[("s", server.addr(), "")])
    };
    let convey = links.lab.convey(&links.lb, &of("eth0"));
    convey.write_config(&of("later0"));
    let refused = convey.tool("reload");
    let why = "bind 0.0.0.0%later0:80: find the interface: ";
    assert!(refused.stderr.contains(why), "{}", refused.stderr);
    assert_eq!(greeting(&links.near, links.lb.addr(PORT)), "s");
    // once it is there a reload takes it
    links
        .lb
        .run("ip link set far0 down; ip link set dev far0 name later0; ip link set later0 up");
    convey.reload(&of("later0"));
    assert_eq!(greeting(&links.far, links.far_addr(Family::V4)), "s");
    assert!(is_refused(&links.near, links.lb.addr(PORT)));
}

fn a_restart_takes_the_listeners_of_an_interface_over() {
    let links = TwoLinks::new("interface-restart");
    let server = TcpServer::named(&links.host, 9_000, "s");
    let text =
        frontend("f", "tcp", "interface = \"far0\"") + &backend("f", NO_CHECK, &[("s", server.addr(), "")]);
    let mut convey = Convey::launch_with(&links.lb, &text, &["env", Convey::FD_STORE]);
    convey.wait_ready();
    convey.signal(Signal::SIGTERM);
    convey.wait_exit(PATIENCE);
    // it waits in the queue of the listener that is kept
    let mut waiting = links.far.connect(links.far_addr(Family::V4));
    convey.start_again(&text);
    assert_eq!(read_line(&mut waiting).expect("a greeting"), "s");
    convey.signal(Signal::SIGTERM);
    convey.wait_exit(PATIENCE);
    // one of that name that is another interface: the old listeners are none of it
    links.lb.run("ip link delete far0");
    links.lab.cable((&links.lb, "far0"), (&links.far, "lb0"));
    links.lb.add_address("far0", "10.66.0.1/24");
    links.far.add_address("lb0", "10.66.0.2/24");
    convey.start_again(&text);
    assert_eq!(greeting(&links.far, links.far_addr(Family::V4)), "s");
    assert!(is_refused(&links.near, links.lb.addr(PORT)));
}

fn servers_are_reached_by_the_interface_whatever_the_routes_say() {
    let links = TwoLinks::new("interface-servers");
    // of two hosts with one address the routes prefer the near one
    for (at, interface) in [(&links.far, "lb0"), (&links.host, "eth0")] {
        at.add_address(interface, "10.88.0.9/32");
        at.add_address(interface, "fd88::9/128");
    }
    links.lb.run(
        "ip route add 10.88.0.9/32 dev eth0; ip -6 route add fd88::9/128 dev eth0; \
         ip route add 10.88.0.9/32 dev far0 metric 900; ip -6 route add fd88::9/128 dev far0 metric 9000",
    );
    for server in ["10.88.0.9:9000", "[fd88::9]:9000"] {
        let addr: SocketAddr = server.parse().expect("an address");
        let tcp = [
            TcpServer::witness(&links.host, addr, "near"),
            TcpServer::witness(&links.far, addr, "far"),
        ];
        let _udp = [
            UdpServer::echo(&links.host, addr, "near"),
            UdpServer::echo(&links.far, addr, "far"),
        ];
        let of = |interface: &str| {
            let settings = match interface {
                "" => String::new(),
                name => format!("server_socket.interface = \"{name}\""),
            };
            frontend("tcp", "tcp", "")
                + &frontend("udp", "udp", "")
                + &backend("tcp", &format!("{settings}\n{FAST_CHECK}"), &[("s", addr, "")])
                + &backend("udp", &settings, &[("s", addr, "")])
        };
        let convey = links.lab.convey(&links.lb, &of("far0"));
        for _ in 0..8 {
            drop(links.near.connect(links.lb.addr(PORT)));
            let client = UdpClient::new(&links.near, links.lb.addr(PORT));
            assert_eq!(ask(&client, "x"), "far:x");
        }
        wait_until("all have come by the second link", PATIENCE, || {
            tcp[1].accepted() >= 8
        });
        assert_eq!(tcp[0].accepted(), 0, "not even a check");
        convey.reload(&of(""));
        let client = UdpClient::new(&links.near, links.lb.addr(PORT));
        assert_eq!(ask(&client, "x"), "near:x");
        // one that is not there is the servers' fault, as a broken cable is
        convey.reload(&of("nowhere0"));
        wait_until("it is down", PATIENCE, || {
            convey.server("tcp", "s").state == ServerState::Down
        });
        drop(convey);
    }
}

/// Drops what comes in without this class, and counts what has congestion marks.
fn only(host: &Host, packets: &str, class: &str) {
    let rules = |family: &str| {
        format!(
            "table {family} classes {{}}\ndelete table {family} classes\n\
             table {family} classes {{\n chain in {{\n  type filter hook input priority 0;\n  \
             {packets} {family} dscp != {class} drop\n  {packets} {family} ecn != not-ect counter\n }}\n}}\n"
        )
    };
    host.nft(&(rules("ip") + &rules("ip6")));
}

fn packets_of_tcp_have_their_class_both_ways_and_follow_a_reload() {
    let lab = Lab::new("dscp-tcp");
    let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("server"));
    let servers = Family::ALL.map(|family| TcpServer::witness(&host, host.addr_of(family, 9_000), "s"));
    let text = |to_clients: &str, to_servers: &str| {
        let settings = format!("server_socket.dscp = {to_servers}\n{FAST_CHECK}");
        let both = [("a", servers[0].addr(), ""), ("b", servers[1].addr(), "")];
        alone(&frontend(
            "b",
            "tcp",
            &format!("client_socket.dscp = {to_clients}"),
        )) + &backend("b", &settings, &both)
    };
    let visit = |family| {
        let mut met = Witness::meet(&client, lb.addr_of(family, PORT)).expect("a server");
        met.talk(&[7; 10_000]).expect("bytes both ways");
    };
    only(&client, "tcp sport 80", "af41");
    only(&host, "tcp dport 9000", "ef");
    let convey = lab.convey(&lb, &text("\"af41\"", "46"));
    for family in Family::ALL {
        (0..4).for_each(|_| visit(family));
    }
    for server in ["a", "b"] {
        let state = convey.server("b", server).state;
        assert_eq!(state, ServerState::Up, "checks have the class");
    }
    // a listener takes it up with its next connection
    only(&client, "tcp sport 1", "cs0");
    only(&host, "tcp dport 9000", "cs0");
    convey.reload(&text("13", "0"));
    Family::ALL.into_iter().for_each(visit);
    only(&client, "tcp sport 80", "13");
    for family in Family::ALL {
        (0..4).for_each(|_| visit(family));
    }
}

fn datagrams_have_their_class_both_ways_beside_their_congestion_marks() {
    let lab = Lab::new("dscp-udp");
    let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("server"));
    let servers = [
        UdpServer::echo(&host, host.addr(7_001), ""),
        UdpServer::echo(&host, host.addr6(7_001), ""),
    ];
    let text = |class: &str| {
        let listen = format!("[\"{}\", \"[::]:54\"]", lb.addr(53));
        let to_clients = format!("client_socket.dscp = \"{class}\"");
        let both = [&servers[0], &servers[1]];
        alone(&config(
            &listen,
            &both,
            &to_clients,
            "server_socket.dscp = \"ef\"",
        ))
    };
    only(&host, "udp dport 7001", "ef");
    only(&client, "udp sport 53-54", "cs5");
    let convey = lab.convey(&lb, &text("cs5"));
    let ask_all = || {
        for to in [lb.addr(53), lb.addr(54), lb.addr6(54)] {
            // in turn to both servers
            for _ in 0..2 {
                assert_eq!(ask(&UdpClient::new(&client, to), "x"), "x", "{to}");
            }
        }
    };
    ask_all();
    assert_eq!((marked(&host), marked(&client)), (0, 0));
    for (at, mark) in [(&client, "ect0"), (&host, "ce")] {
        for family in ["ip", "ip6"] {
            at.nft(&format!(
                "table {family} marks {{\n chain out {{\n  type filter hook output priority 0;\n  \
                 meta l4proto udp {family} ecn set {mark}\n }}\n}}\n"
            ));
        }
    }
    ask_all();
    assert_eq!((marked(&host), marked(&client)), (6, 6), "ECN bits beside it");
    // sessions that live on, too
    let one = UdpClient::new(&client, lb.addr(53));
    assert_eq!(ask(&one, "x"), "x");
    convey.reload(&text("af11"));
    only(&client, "udp sport 53-54", "af11");
    assert_eq!(ask(&one, "x"), "x");
}

/// Packets with congestion marks that have come in with the right class.
fn marked(host: &Host) -> u64 {
    let of = |family: &str| -> u64 {
        let listed = host.run(&format!("nft list chain {family} classes in"));
        let number = listed
            .split("packets ")
            .nth(1)
            .and_then(|rest| rest.split(' ').next());
        number.and_then(|number| number.parse().ok()).expect("a counter")
    };
    of("ip") + of("ip6")
}

/// The buffers of sockets as ss shows them: each once, what they receive and what they send.
fn buffers(host: &Host, which: &str) -> Vec<(u64, u64)> {
    let listed = host.run(&format!("ss -Hnm {which}"));
    let number = |memory: &str, name: &str| {
        let field = memory.split(',').find_map(|field| field.strip_prefix(name));
        field.and_then(|number| number.parse().ok()).expect("a size")
    };
    let all = listed.split("skmem:(").skip(1);
    let mut all: Vec<(u64, u64)> = all
        .map(|memory| (number(memory, "rb"), number(memory, "tb")))
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn sockets_have_the_buffers_that_the_file_says() {
    let lab = Lab::new("buffers");
    let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("server"));
    let tcp = TcpServer::named(&host, 9_000, "s");
    let udp = UdpServer::echo(&host, host.addr(9_000), "");
    // more than a host allows that nobody has set up for it
    let large = 2 * lb
        .run("cat /proc/sys/net/core/rmem_max")
        .trim()
        .parse::<u64>()
        .expect("bytes");
    let of_clients =
        |receive: u64| format!("client_socket = {{ receive_buffer = {receive}, send_buffer = 100_000 }}");
    let of_servers = "server_socket = { receive_buffer = 50_000, send_buffer = 60_000 }";
    let text = |receive: u64| {
        "[global]\nshutdown_timeout = \"1s\"\n".to_owned()
            + &frontend("tcp", "tcp", &of_clients(receive))
            + &frontend("udp", "udp", &of_clients(receive))
            + "[frontends.plain]\nprotocol = \"udp\"\nlisten_addr = \"0.0.0.0:53\"\nbackend = \"udp\"\n"
            + &backend(
                "tcp",
                &format!("{NO_CHECK}\n{of_servers}"),
                &[("s", tcp.addr(), "")],
            )
            + &backend("udp", of_servers, &[("s", udp.addr(), "")])
    };
    let mut convey = Convey::launch_with(&lb, &text(large), &["env", Convey::FD_STORE]);
    convey.wait_ready();
    let chosen = [(2 * large, 200_000)];
    assert_eq!(buffers(&lb, "-tl sport = :80"), chosen);
    assert_eq!(buffers(&lb, "-ual sport = :80"), chosen);
    let plain = buffers(&lb, "-ual sport = :53");
    assert!(plain.iter().all(|(receive, _)| *receive == 4 << 20), "{plain:?}");
    let mut stream = client.connect(lb.addr(PORT));
    assert_eq!(read_line(&mut stream).expect("a greeting"), "s");
    assert_eq!(buffers(&lb, "-t sport = :80"), chosen, "inherited");
    assert_eq!(ask(&UdpClient::new(&client, lb.addr(PORT)), "x"), "x");
    for protocol in ["-t", "-u"] {
        assert_eq!(
            buffers(&lb, &format!("{protocol} dport = :9000")),
            [(100_000, 120_000)]
        );
    }
    // listeners that stay keep theirs, and the reload says so
    convey.write_config(&text(70_000));
    let said = convey.order("reload");
    assert!(
        said.contains("frontends.tcp.client_socket.receive_buffer"),
        "{said}"
    );
    assert!(!said.contains("send_buffer"), "{said}");
    assert_eq!(buffers(&lb, "-tl sport = :80"), chosen);
    drop(stream);
    convey.signal(Signal::SIGTERM);
    convey.wait_exit(PATIENCE);
    convey.start_again(&text(70_000));
    assert_eq!(buffers(&lb, "-tl sport = :80"), [(140_000, 200_000)]);
    // those of UDP end when the service manager has heard that they are kept no longer
    wait_until("the old sockets are gone", PATIENCE, || {
        buffers(&lb, "-ual sport = :80") == [(140_000, 200_000)]
    });
    assert_eq!(greeting(&client, lb.addr(PORT)), "s");
}

fn a_burst_at_a_busy_listener_is_not_lost() {
    let lab = Lab::new("burst");
    let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("server"));
    let server = UdpServer::echo(&host, host.addr(7_001), "");
    let convey = lab.convey(&lb, &config(&quoted(lb.addr(53)), &[&server], "", ""));
    let client = UdpClient::new(&client, lb.addr(53));
    assert_eq!(ask(&client, "x"), "x");
    const SENT: u64 = 2_000;
    convey.signal(Signal::SIGSTOP);
    for _ in 0..SENT {
        client.socket().send(b"burst").expect("sent");
    }
    convey.signal(Signal::SIGCONT);
    convey.wait_status("each has passed", |status| {
        status.frontends["echo"].traffic.datagrams_in == SENT + 1
    });
}
