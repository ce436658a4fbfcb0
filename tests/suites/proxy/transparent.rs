//! Servers that see the clients' own addresses: `source = "client"`.

use std::{
    fs,
    io::Write as _,
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use convey::base::TerminationReason;

use crate::{
    Test,
    lab::{
        Convey, Family, Host, Lab, PATIENCE,
        servers::{TcpServer, Witness},
        udp::{UdpClient, UdpServer},
        wait_until,
    },
    tests,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    tcp_servers_see_the_clients_own_address_in_both_families,
    udp_servers_see_the_clients_own_address_in_both_families,
    a_server_that_says_its_port_is_closed_loses_its_session_and_that_is_counted,
    a_narrower_way_to_the_servers_is_learnt_in_both_families,
    servers_that_come_by_themselves_see_the_clients_own_address,
    a_client_of_a_proxy_header_is_who_the_server_sees,
    a_reload_turns_it_on_and_off_under_traffic,
    a_failed_reload_leaves_it_on,
    a_client_without_a_server_of_its_family_is_refused_and_counted,
    a_wave_of_new_udp_clients_waits_for_sockets_and_loses_nobody,
    without_the_capability_connections_are_refused_and_the_log_says_why,
];

/// A client, a load balancer and a server whose way to the client leads through the load balancer.
struct Site {
    client: Host,
    lb: Host,
    server: Host,
    // last: the hosts are gone with it
    lab: Lab,
}

impl Site {
    fn new(name: &str) -> Self {
        let lab = Lab::new(name);
        let (client, lb, server) = (lab.host("client"), lab.host("lb"), lab.host("server"));
        for (to, via) in [
            (IpAddr::V4(client.ip4()), IpAddr::V4(lb.ip4())),
            (IpAddr::V6(client.ip6()), IpAddr::V6(lb.ip6())),
        ] {
            route(&server, to, via);
        }
        Self {
            client,
            lb,
            server,
            lab,
        }
    }

    /// A load balancer of this configuration, on a host that keeps what `convey check` says it must.
    #[track_caller]
    fn convey(&self, config: &str) -> Convey {
        let convey = self.lab.convey(&self.lb, config);
        keep_answers(&convey);
        convey
    }

    /// `frontend` and `backend` in front of one server of each family.
    fn config(&self, protocol: &str, source: &str) -> String {
        format!(
            "[frontends.f]\nprotocol = \"{protocol}\"\nlisten_addr = [\"{}\", \"{}\"]\nbackend = \"b\"\n{source}\n\
             [backends.b]\nservers.v4 = {{ addr = \"{}\" }}\nservers.v6 = {{ addr = \"{}\" }}\n",
            self.lb.addr(80),
            self.lb.addr6(80),
            self.server.addr(9_000),
            self.server.addr6(9_000),
        )
    }

    fn witnesses(&self) -> [TcpServer; 2] {
        Family::ALL.map(|family| TcpServer::witness(&self.server, self.server.addr_of(family, 9_000), "s"))
    }
}

pub fn route(host: &Host, to: IpAddr, via: IpAddr) {
    let (ip, bits) = if to.is_ipv4() { ("ip", 32) } else { ("ip -6", 128) };
    host.run(&format!("{ip} route replace {to}/{bits} via {via}"));
}

/// Runs the very commands that `convey check` prints.
#[track_caller]
pub fn keep_answers(convey: &Convey) {
    let checked = convey.tool("check");
    let commands: Vec<&str> = (checked.stderr.lines())
        .filter_map(|line| line.strip_prefix("    "))
        .filter(|line| line.starts_with("ip"))
        .collect();
    assert!(commands.len() >= 3, "{}", checked.stderr);
    for command in commands {
        convey.host().run(command);
    }
}

const CLIENT: &str = "source = \"client\"";

fn tcp_servers_see_the_clients_own_address_in_both_families() {
    let site = Site::new("source-tcp");
    let _servers = site.witnesses();
    let convey = site.convey(&site.config("tcp", CLIENT));
    for family in Family::ALL {
        for _ in 0..100 {
            let mut met = Witness::meet(&site.client, site.lb.addr_of(family, 80)).expect("a server");
            let own = met.stream().local_addr().expect("an address");
            assert_eq!(met.seen.ip(), own.ip());
            met.talk(&[7; 100_000]).expect("bytes both ways");
        }
    }
    // before this host kept answers to anybody else
    let log = convey.stderr();
    for server in ["v4", "v6"] {
        assert!(
            log.contains(&format!("server b/{server} (")),
            "checks come from the host's own address"
        );
    }
    let listed = convey.order("explain tcp 192.0.2.9:1000 10.77.0.2:80");
    assert!(listed.contains("frontend  f"), "{listed}");
}

fn udp_servers_see_the_clients_own_address_in_both_families() {
    let site = Site::new("source-udp");
    let servers =
        Family::ALL.map(|family| UdpServer::echo(&site.server, site.server.addr_of(family, 9_000), ""));
    let _convey = site.convey(&site.config("udp", CLIENT));
    for (family, server) in Family::ALL.into_iter().zip(&servers) {
        let to = site.lb.addr_of(family, 80);
        let clients: Vec<_> = (0..20).map(|_| UdpClient::new(&site.client, to)).collect();
        for client in &clients {
            for length in [0, 1, 1_200, 20_000] {
                let sent = vec![length as u8; length];
                assert_eq!(client.ask(&sent).expect("an answer"), sent);
            }
        }
        let seen = server.seen().senders;
        assert_eq!(seen.len(), clients.len());
        let own = clients[0].own().ip();
        assert!(seen.keys().all(|sender| sender.ip() == own), "{seen:?}");
    }
}

fn a_server_that_says_its_port_is_closed_loses_its_session_and_that_is_counted() {
    let site = Site::new("source-closed");
    let servers =
        Family::ALL.map(|family| UdpServer::echo(&site.server, site.server.addr_of(family, 9_000), ""));
    let convey = site.convey(&site.config("udp", CLIENT));
    let clients = Family::ALL.map(|family| UdpClient::new(&site.client, site.lb.addr_of(family, 80)));
    for client in &clients {
        assert_eq!(client.ask(b"x").expect("an answer"), b"x");
    }
    let [one, other] = servers;
    drop(one);
    other.close(&site.server);
    // of a session that was answered, and of one that never was
    for (round, reason) in (1..).zip([TerminationReason::ServerAbort, TerminationReason::ServerConnect]) {
        for client in &clients {
            client.socket().send(b"lost").expect("sent");
        }
        // it says so to the client's address
        convey.wait_status("both servers' failures are counted", |status| {
            let servers = &status.backends["b"].servers;
            (servers.values()).all(|server| server.traffic.connect_failures == round)
        });
        convey.wait_status("both sessions have ended", |status| {
            let traffic = &status.frontends["f"].traffic;
            (traffic.ended(reason), traffic.connections_current) == (2, 0)
        });
    }
    // the client itself hears of nothing
    for client in &clients {
        client.socket().set_nonblocking(true).expect("set");
        let heard = client.socket().recv(&mut [0; 9]).expect_err("nothing");
        assert_eq!(heard.kind(), std::io::ErrorKind::WouldBlock);
    }
}

fn a_narrower_way_to_the_servers_is_learnt_in_both_families() {
    for (name, protocol) in [("source-mtu-tcp", "tcp"), ("source-mtu-udp", "udp")] {
        let site = Site::new(name);
        let router = site.lab.host("router");
        router.forward();
        for family in Family::ALL {
            let [client, lb, via, server] =
                [&site.client, &site.lb, &router, &site.server].map(|host| host.addr_of(family, 0).ip());
            route(&site.lb, server, via);
            // so that what the router says to the client comes by the load balancer
            route(&router, client, lb);
            let ip = if server.is_ipv4() { "ip" } else { "ip -6" };
            router.run(&format!("{ip} route replace {server} dev eth0 mtu lock 1280"));
        }
        let _echo =
            Family::ALL.map(|family| UdpServer::echo(&site.server, site.server.addr_of(family, 9_000), ""));
        let _witnesses = site.witnesses();
        let convey = site.convey(&site.config(protocol, CLIENT));
        if protocol == "tcp" {
            for family in Family::ALL {
                let mut met = Witness::meet(&site.client, site.lb.addr_of(family, 80)).expect("a server");
                met.talk(&[7; 300_000]).expect("bytes both ways");
            }
            continue;
        }
        for family in Family::ALL {
            let client = UdpClient::new(&site.client, site.lb.addr_of(family, 80));
            let patience = Some(Duration::from_millis(300));
            client.socket().set_read_timeout(patience).expect("a time-out");
            let sent = [7; 1_400];
            // that it is too long for the way is heard by the first one
            let answer = (0..20).find_map(|_| client.ask(&sent).ok());
            assert_eq!(answer.as_deref(), Some(&sent[..]), "{family:?}");
        }
        let status = convey.status();
        assert_eq!(
            status.frontends["f"].traffic.connections_current, 2,
            "nobody's fault"
        );
        assert_eq!(status.backends["b"].traffic.connect_failures, 0);
    }
}

fn servers_that_come_by_themselves_see_the_clients_own_address() {
    let site = Site::new("source-discovered");
    let _servers = site.witnesses();
    let file = site.lab.dir().join("b.servers");
    let named = Family::ALL.map(|family| format!("{}\n", site.server.addr_of(family, 9_000)));
    fs::write(&file, named.concat()).expect("a file");
    let text = |within: &str| {
        format!(
            "[frontends.f]\nlisten_addr = [\"{}\", \"{}\"]\nbackend = \"b\"\n{CLIENT}\n[backends.b.discovery]\n\
             kind = \"file\"\npath = \"{}\"\n{within}\n",
            site.lb.addr(80),
            site.lb.addr6(80),
            file.display()
        )
    };
    let convey = site.lab.convey(&site.lb, &text(""));
    convey.wait_status("both servers are up", |status| {
        let servers = &status.backends["b"].servers;
        servers.values().filter(|server| server.eligible).count() == 2
    });
    // wherever they may be, then where these are
    let within = "servers_within = [\"10.77.0.0/24\", \"fd77::/64\"]";
    for within in ["", within] {
        convey.reload(&text(within));
        keep_answers(&convey);
        for family in Family::ALL {
            let met = Witness::meet(&site.client, site.lb.addr_of(family, 80)).expect("a server");
            assert_eq!(met.seen.ip(), site.client.addr_of(family, 0).ip());
        }
        for family in ["iptables", "ip6tables"] {
            site.lb.run(&format!("{family} -t mangle -F PREROUTING"));
        }
        for ip in ["ip", "ip -6"] {
            site.lb
                .run(&format!("{ip} rule del fwmark 1 && {ip} route flush table 100"));
        }
    }
}

fn a_client_of_a_proxy_header_is_who_the_server_sees() {
    let site = Site::new("source-header");
    let _servers = site.witnesses();
    for (to, via) in [
        ("192.0.2.77", IpAddr::V4(site.lb.ip4())),
        ("2001:db8::77", IpAddr::V6(site.lb.ip6())),
    ] {
        route(&site.server, to.parse().expect("an address"), via);
    }
    let from = format!("{CLIENT}\nproxy_protocol = {{ from = [\"10.77.0.0/24\"] }}");
    let _convey = site.convey(&site.config("tcp", &from));
    for (header, client) in [
        ("PROXY TCP4 192.0.2.77 192.0.2.1 1234 80\r\n", "192.0.2.77"),
        ("PROXY TCP6 2001:db8::77 2001:db8::1 1234 80\r\n", "2001:db8::77"),
    ] {
        let mut stream = site.client.connect(site.lb.addr(80));
        stream.write_all(header.as_bytes()).expect("a header");
        let met = Witness::hear(stream).expect("a server");
        assert_eq!(met.seen.ip().to_string(), client);
    }
}

fn a_reload_turns_it_on_and_off_under_traffic() {
    let site = Site::new("source-reload");
    let _servers = site.witnesses();
    let [on, off] = [CLIENT, ""].map(|source| site.config("tcp", source));
    let convey = site.convey(&on);
    let own = SocketAddr::new(IpAddr::V4(site.client.ip4()), 0).ip();
    let stop = AtomicBool::new(false);
    let mut long = Witness::meet(&site.client, site.lb.addr(80)).expect("a server");
    thread::scope(|scope| {
        let traffic = scope.spawn(|| {
            let mut met = 0_u32;
            while !stop.load(Ordering::Relaxed) {
                let mut server = Witness::meet(&site.client, site.lb.addr(80)).expect("a server");
                server.talk(b"now").expect("an echo");
                met += 1;
            }
            met
        });
        for _ in 0..10 {
            for (config, is_on) in [(&off, false), (&on, true)] {
                convey.reload(config);
                // a worker may have taken the connection up just before
                wait_until("new connections follow", PATIENCE, || {
                    let met = Witness::meet(&site.client, site.lb.addr(80)).expect("a server");
                    (met.seen.ip() == own) == is_on
                });
            }
        }
        stop.store(true, Ordering::Relaxed);
        assert!(traffic.join().expect("no connection fails") > 0);
    });
    long.talk(b"still here").expect("a connection outlives all of it");
}

fn a_failed_reload_leaves_it_on() {
    let site = Site::new("source-failed");
    let _servers = site.witnesses();
    let convey = site.convey(&site.config("tcp", CLIENT));
    let off = site.config("tcp", "") + "[stats]\nport = 81\nlisten_addr = \"10.77.0.2\"\n";
    let _taken = site
        .lb
        .inside(|| std::net::TcpListener::bind("10.77.0.2:81").expect("a listener"));
    convey.write_config(&off);
    assert!(!convey.cli("reload").status.success(), "its port is taken");
    // more than a worker has in stock
    for _ in 0..300 {
        let met = Witness::meet(&site.client, site.lb.addr(80)).expect("a server");
        assert_eq!(met.seen.ip(), IpAddr::V4(site.client.ip4()));
    }
}

fn a_client_without_a_server_of_its_family_is_refused_and_counted() {
    let site = Site::new("source-family");
    let _servers = site.witnesses();
    let config = format!(
        "[frontends.f]\nlisten_addr = \"[::]:80\"\nbackend = \"b\"\n{CLIENT}\n\
         [backends.b]\nservers.v4 = {{ addr = \"{}\" }}\n",
        site.server.addr(9_000)
    );
    let convey = site.convey(&config);
    let met = Witness::meet(&site.client, site.lb.addr(80)).expect("a server");
    assert_eq!(met.seen.ip(), IpAddr::V4(site.client.ip4()));
    assert!(Witness::meet(&site.client, site.lb.addr6(80)).is_err());
    ended(&convey, "client_source", 1);
}

fn ended(convey: &Convey, reason: &str, count: u64) {
    convey.wait_status(reason, |status| {
        let ended = &status.frontends["f"].traffic.ended;
        let of_it = ended.iter().filter(|(label, _)| label.to_string() == reason);
        of_it.map(|(_, count)| *count).sum::<u64>() == count
    });
}

fn a_wave_of_new_udp_clients_waits_for_sockets_and_loses_nobody() {
    let site = Site::new("source-wave");
    let server = UdpServer::echo(&site.server, site.server.addr(9_000), "");
    let config = "[global]\nworkers = 1\n".to_owned() + &site.config("udp", CLIENT);
    let convey = site.convey(&config);
    // more than are in stock, and no more than the listener has room for
    let clients: Vec<_> = (0..200)
        .map(|_| UdpClient::new(&site.client, site.lb.addr(80)))
        .collect();
    for client in &clients {
        client.socket().send(b"first").expect("sent");
    }
    for client in &clients {
        assert_eq!(client.socket().recv(&mut [0; 9]).expect("an answer"), 5);
    }
    assert_eq!(server.seen().senders.len(), clients.len());
    let status = convey.status();
    assert!(status.frontends["f"].datagrams_dropped.is_empty());
}

fn without_the_capability_connections_are_refused_and_the_log_says_why() {
    let site = Site::new("source-incapable");
    let _servers = site.witnesses();
    let launcher = ["setpriv", "--bounding-set=-net_raw,-net_admin"];
    let mut convey = Convey::launch_with(&site.lb, &site.config("tcp", CLIENT), &launcher);
    convey.wait_ready();
    assert!(Witness::meet(&site.client, site.lb.addr(80)).is_err());
    ended(&convey, "no_source_socket", 1);
    wait_until("the log says why", PATIENCE, || {
        let log = convey.stderr();
        log.contains("no sockets towards servers (IPv4 tcp, transparent)")
            && log.contains("Operation not permitted")
    });
}
