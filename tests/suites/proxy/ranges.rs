//! Frontends with a range of ports, and addresses of one link.

use std::{
    collections::BTreeMap,
    io::Write as _,
    net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpStream},
    ops::RangeInclusive,
};

use nix::{net::if_::if_nametoindex, sys::signal::Signal};

use crate::{
    Test,
    lab::{Convey, Host, Lab, PATIENCE, servers::TcpServer, wait_until},
    site::{FAST_CHECK, NO_CHECK, read_line},
    tests,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    a_port_of_a_range_leads_to_the_servers_port_that_is_as_far_above_its_first,
    a_range_widens_and_narrows_under_its_connections_and_listeners,
    a_server_is_reached_at_a_link_local_address_by_the_name_of_its_interface,
    clients_of_one_link_are_served_at_a_link_local_address,
];

/// A server of a name on each of these ports, which greets with the port.
fn servers(host: &Host, ports: RangeInclusive<u16>) -> Vec<TcpServer> {
    ports
        .map(|port| TcpServer::named(host, port, &port.to_string()))
        .collect()
}

/// Ports of the load balancer whose first leads to port 7000 of a server.
fn range(lb: &Host, ports: &str, server: &Host, settings: &str) -> String {
    format!(
        "[frontends.data]\nlisten_addr = \"{}:{ports}\"\nbackend = \"data\"\n\
         [backends.data]\n{settings}\nservers.a = {{ addr = \"{}\" }}\n",
        lb.ip4(),
        server.addr(7_000)
    )
}

#[track_caller]
fn greeting(stream: &mut TcpStream) -> String {
    read_line(stream).expect("the greeting")
}

#[track_caller]
fn expect_alive(stream: &mut TcpStream) {
    stream.write_all(b"still here\n").expect("send");
    assert_eq!(read_line(stream).expect("the echo"), "still here");
}

fn a_port_of_a_range_leads_to_the_servers_port_that_is_as_far_above_its_first() {
    let lab = Lab::new("range");
    let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("server"));
    let _servers = servers(&host, 7_000..=7_010);
    let config = "[global]\nlog_format = \"json\"\n".to_owned() + &range(&lb, "9000-9010", &host, FAST_CHECK);
    let convey = lab.convey(&lb, &config);
    for port in 9_000..=9_010_u16 {
        let answer = greeting(&mut client.connect(lb.addr(port)));
        assert_eq!(answer, (port - 2_000).to_string());
    }
    for outside in [8_999, 9_011] {
        client.try_connect(lb.addr(outside)).expect_err("nothing listens");
    }
    let status = convey.status();
    let listen: Vec<_> = status.frontends["data"]
        .listen
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(listen, [format!("{}:9000-9010", lb.ip4())]);
    assert_eq!(status.frontends["data"].traffic.connections_total, 11);
    let shown = convey.order("status");
    assert_eq!(shown.matches(":9000-9010").count(), 1, "{shown}");
    let told = convey.order(&format!("explain tcp {} {}", client.addr(40_000), lb.addr(9_005)));
    assert!(
        told.contains("frontend  data, mode proxy, backend data"),
        "{told}"
    );
    // the port that was asked, and the one that it leads to
    let logged = [
        format!("\"listen\":\"{}:9010\"", lb.ip4()),
        format!("\"server_addr\":\"{}:7010\"", host.ip4()),
    ];
    wait_until("the last connection is logged", PATIENCE, || {
        let log = convey.stderr();
        log.lines()
            .any(|line| logged.iter().all(|part| line.contains(part)))
    });
}

/// The sockets that listen on the load balancer, by port.
fn listeners(lb: &Host) -> BTreeMap<u16, Vec<String>> {
    let mut by_port = BTreeMap::<u16, Vec<String>>::new();
    for line in lb.run("ss -ltnHe").lines() {
        let fields: Vec<_> = line.split_whitespace().collect();
        let port = fields[3].rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        let inode = fields.iter().find(|field| field.starts_with("ino:"));
        if let (Some(port), Some(inode)) = (port, inode) {
            by_port.entry(port).or_default().push((*inode).to_owned());
        }
    }
    for inodes in by_port.values_mut() {
        inodes.sort();
    }
    by_port
}

fn a_range_widens_and_narrows_under_its_connections_and_listeners() {
    let lab = Lab::new("widen");
    let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("server"));
    let _servers = servers(&host, 7_000..=7_020);
    let config = |ports| range(&lb, ports, &host, NO_CHECK);
    let convey = lab.convey(&lb, &config("9000-9010"));
    let mut kept = [9_001, 9_008].map(|port| client.connect(lb.addr(port)));
    assert_eq!(kept.each_mut().map(greeting), ["7001", "7008"]);
    let before = listeners(&lb);

    convey.reload(&config("9000-9020"));
    assert_eq!(greeting(&mut client.connect(lb.addr(9_020))), "7020");
    kept.iter_mut().for_each(expect_alive);
    let wide = listeners(&lb);
    let of_before = |all: &BTreeMap<u16, Vec<String>>| {
        all.range(9_000..=9_010)
            .map(|(p, i)| (*p, i.clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        of_before(&wide),
        of_before(&before),
        "listeners that stay are not touched"
    );
    assert_eq!(wide.range(9_000..=9_020).count(), 21);

    convey.reload(&config("9000-9004"));
    wait_until("port 9008 is closed", PATIENCE, || {
        client.try_connect(lb.addr(9_008)).is_err()
    });
    kept.iter_mut().for_each(expect_alive);
    assert_eq!(greeting(&mut client.connect(lb.addr(9_004))), "7004");
    wait_until("no port but these is listened on", PATIENCE, || {
        listeners(&lb)
            .range(9_000..=9_020)
            .map(|(port, _)| *port)
            .eq(9_000..=9_004)
    });
}

/// Gives a host a link-local address of its own.
fn link_local(host: &Host) -> Ipv6Addr {
    let address = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x100 + u16::from(host.index()));
    host.run(&format!("ip address add {address}/64 dev eth0 nodad"));
    address
}

/// As a host connects to it or listens on it.
fn on_link(host: &Host, address: Ipv6Addr, port: u16) -> SocketAddr {
    let index = host.inside(|| if_nametoindex("eth0").expect("the index of eth0"));
    SocketAddrV6::new(address, port, 0, index).into()
}

fn a_server_is_reached_at_a_link_local_address_by_the_name_of_its_interface() {
    let lab = Lab::new("linklocal");
    let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("server"));
    let address = link_local(&host);
    link_local(&lb);
    let _server = TcpServer::witness(&host, on_link(&host, address, 9), "near");
    let config = |servers: &str| {
        format!(
            "[frontends.f]\nlisten_addr = \"{}\"\nbackend = \"b\"\n[backends.b]\n{FAST_CHECK}\n{servers}",
            lb.addr(9)
        )
    };
    let near = format!("servers.near = {{ addr = \"[{address}%eth0]:9\" }}\n");
    let far = format!("servers.far = {{ addr = \"[{address}%eth7]:9\" }}\n");
    let convey = lab.convey(&lb, &config(&(near.clone() + &far)));
    convey.wait_status("one is up, the other is not", |status| {
        let state = |name: &str| status.backends["b"].servers[name].state.to_string();
        (state("near"), state("far")) == ("up".to_owned(), "down".to_owned())
    });
    let status = convey.status();
    let server = |name: &str| &status.backends["b"].servers[name];
    assert_eq!(server("near").addr.to_string(), format!("[{address}%eth0]:9"));
    let why = server("far").state_reason.as_deref().unwrap_or_default();
    assert!(why.contains("no interface eth7"), "{why}");
    for _ in 0..4 {
        let line = greeting(&mut client.connect(lb.addr(9)));
        assert!(line.starts_with("near [fe80:"), "{line}");
    }
    // an interface that comes, by whatever number, is found by its name
    lb.run("ip link set eth0 down && ip link set eth0 name eth7 && ip link set eth7 up");
    link_local_again(&lb);
    convey.wait_status("the other is up now", |status| {
        let state = |name: &str| status.backends["b"].servers[name].state.to_string();
        (state("near"), state("far")) == ("down".to_owned(), "up".to_owned())
    });
}

/// An interface that was down has lost its IPv6 addresses.
fn link_local_again(host: &Host) {
    let address = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x100 + u16::from(host.index()));
    host.run(&format!("ip address replace {address}/64 dev eth7 nodad"));
}

fn clients_of_one_link_are_served_at_a_link_local_address() {
    let lab = Lab::new("onlink");
    let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("server"));
    let address = link_local(&lb);
    link_local(&client);
    let _servers = servers(&host, 7_000..=7_002);
    let config = format!(
        "[frontends.f]\nlisten_addr = \"[{address}%eth0]:9000-9002\"\nbackend = \"b\"\n\
         [backends.b]\n{NO_CHECK}\nservers.a = {{ addr = \"{}\" }}\n",
        host.addr(7_000)
    );
    let mut convey = Convey::launch_with(&lb, &config, &["env", Convey::FD_STORE]);
    convey.wait_ready();
    for port in 9_000..=9_002 {
        let to = on_link(&client, address, port);
        assert_eq!(greeting(&mut client.connect(to)), (port - 2_000).to_string());
    }
    let listen = convey.status().frontends["f"].listen[0].to_string();
    assert_eq!(listen, format!("[{address}%eth0]:9000-9002"));
    // the sockets, which know the interface by its number, outlive the process
    let before = listeners(&lb);
    convey.signal(Signal::SIGTERM);
    assert!(convey.wait_exit(PATIENCE).success());
    convey.start_again(&config);
    assert_eq!(listeners(&lb), before);
    // elsewhere nobody listens
    client
        .try_connect(SocketAddr::new(IpAddr::V4(lb.ip4()), 9_000))
        .expect_err("nothing listens");
    convey.write_config(&config.replace("eth0", "eth7"));
    let output = convey.cli("reload");
    assert_ne!(output.status.code(), Some(0));
    assert!(output.stderr.contains("find the interface"), "{}", output.stderr);
    assert_eq!(
        greeting(&mut client.connect(on_link(&client, address, 9_001))),
        "7001"
    );
}
