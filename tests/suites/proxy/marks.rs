//! Marks of packets, by which this host routes and filters: `client_socket.mark`, `server_socket.mark`.

use std::io::Read as _;

use convey::base::ServerState;

use crate::{
    Test,
    lab::{
        Convey, Family, Host, Lab,
        servers::{TcpServer, Witness},
        udp::{UdpClient, UdpServer},
    },
    tests,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    connections_and_checks_take_the_route_of_their_mark,
    sessions_of_udp_take_the_route_of_their_mark,
    a_reload_gives_servers_another_mark,
    answers_to_clients_have_the_mark_of_their_frontend,
    a_listener_that_stays_keeps_its_mark_and_the_reload_says_so,
    a_restart_opens_a_listener_with_its_new_mark,
];

/// A server that only packets with mark 7 are routed to, at an address of each family.
fn behind_a_mark(lab: &Lab) -> (Host, Host, Host) {
    let (client, lb, server) = (lab.host("client"), lab.host("lb"), lab.host("server"));
    for (ip, address, bits) in [("ip", "10.88.0.9", 32), ("ip -6", "fd88::9", 128)] {
        server.add_address("eth0", &format!("{address}/{bits}"));
        lb.run(&format!(
            "{ip} rule add fwmark 7 lookup 77; {ip} route add {address}/{bits} dev eth0 table 77; \
             {ip} route add unreachable {address}/{bits}"
        ));
    }
    (client, lb, server)
}

const SERVERS: [&str; 2] = ["10.88.0.9:9000", "[fd88::9]:9000"];

fn config(protocol: &str, lb: &Host, server: &str, backend: &str) -> String {
    format!(
        "[frontends.f]\nprotocol = \"{protocol}\"\nlisten_addr = \"{}\"\nbackend = \"b\"\n\
         [backends.b]\n{backend}\nservers.s = {{ addr = \"{server}\" }}\n",
        lb.addr(80),
    )
}

const MARK: &str = "server_socket.mark = 0x7";

fn is_up(convey: &Convey) -> bool {
    convey.server("b", "s").state == ServerState::Up
}

fn connections_and_checks_take_the_route_of_their_mark() {
    for server in SERVERS {
        let lab = Lab::new("mark-tcp");
        let (client, lb, host) = behind_a_mark(&lab);
        let _server = TcpServer::witness(&host, server.parse().expect("an address"), "s");
        let convey = lab.convey(&lb, &config("tcp", &lb, server, MARK));
        assert!(is_up(&convey), "checks have the mark");
        for _ in 0..200 {
            let mut met = Witness::meet(&client, lb.addr(80)).expect("a server");
            met.talk(&[7; 10_000]).expect("bytes both ways");
        }
        convey.reload(&config("tcp", &lb, server, ""));
        assert!(Witness::meet(&client, lb.addr(80)).is_err());
    }
}

fn sessions_of_udp_take_the_route_of_their_mark() {
    for server in SERVERS {
        let lab = Lab::new("mark-udp");
        let (client, lb, host) = behind_a_mark(&lab);
        let _server = UdpServer::echo(&host, server.parse().expect("an address"), "");
        let _convey = lab.convey(&lb, &config("udp", &lb, server, MARK));
        let clients: Vec<_> = (0..200).map(|_| UdpClient::new(&client, lb.addr(80))).collect();
        for client in &clients {
            client.socket().send(b"first").expect("sent");
        }
        for client in &clients {
            assert_eq!(client.socket().recv(&mut [0; 9]).expect("an answer"), 5);
        }
    }
}

fn a_reload_gives_servers_another_mark() {
    let lab = Lab::new("mark-reload");
    let (client, lb, host) = behind_a_mark(&lab);
    let [server, _] = SERVERS;
    let _server = TcpServer::witness(&host, server.parse().expect("an address"), "s");
    let blind = "health_check.enabled = false\npassive_check.enabled = false\nretries = 0\n";
    let of = |mark: u32| {
        let backend = format!("{blind}server_socket.mark = {mark}");
        config("tcp", &lb, server, &backend)
    };
    let convey = lab.convey(&lb, &of(7));
    let mut long = Witness::meet(&client, lb.addr(80)).expect("a server");
    for _ in 0..5 {
        convey.reload(&of(8));
        assert!(
            Witness::meet(&client, lb.addr(80)).is_err(),
            "no route has this mark"
        );
        convey.reload(&of(7));
        Witness::meet(&client, lb.addr(80)).expect("a server");
    }
    long.talk(b"still here").expect("a connection outlives all of it");
}

/// Nothing leaves for clients without this mark.
fn hold_back(lb: &Host, mark: u32) {
    let rules = [
        "table inet marks {}".to_owned(),
        "delete table inet marks".to_owned(),
        "table inet marks {".to_owned(),
        "chain output {".to_owned(),
        "type filter hook output priority 0;".to_owned(),
        format!("tcp sport 80 meta mark != {mark} drop"),
        format!("udp sport 80 meta mark != {mark} drop"),
        "}".to_owned(),
        "}".to_owned(),
        String::new(),
    ];
    lb.nft(&rules.join("\n"));
}

fn marked(protocol: &str, lb: &Host, server: &str, mark: u32) -> String {
    config(protocol, lb, server, "health_check.enabled = false")
        .replace(
            "backend = \"b\"\n",
            &format!("backend = \"b\"\nclient_socket.mark = {mark}\n"),
        )
        .replace(
            &format!("\"{}\"", lb.addr(80)),
            &format!("[\"{}\", \"{}\"]", lb.addr(80), lb.addr6(80)),
        )
}

fn answers_to_clients_have_the_mark_of_their_frontend() {
    let lab = Lab::new("mark-clients");
    let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("server"));
    let tcp = TcpServer::named(&host, 9_000, "s");
    let udp = UdpServer::echo(&host, host.addr(9_000), "");
    hold_back(&lb, 9);
    let convey = lab.convey(&lb, &marked("tcp", &lb, &tcp.addr().to_string(), 9));
    for family in Family::ALL {
        let mut stream = client.connect(lb.addr_of(family, 80));
        stream.read_exact(&mut [0; 2]).expect("a greeting");
    }
    drop(convey);
    let _convey = lab.convey(&lb, &marked("udp", &lb, &udp.addr().to_string(), 9));
    for family in Family::ALL {
        let client = UdpClient::new(&client, lb.addr_of(family, 80));
        assert_eq!(client.ask(b"who").expect("an answer"), b"who");
    }
}

fn a_listener_that_stays_keeps_its_mark_and_the_reload_says_so() {
    let lab = Lab::new("mark-stays");
    let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("server"));
    let server = TcpServer::named(&host, 9_000, "s");
    hold_back(&lb, 9);
    let addr = server.addr().to_string();
    let convey = lab.convey(&lb, &marked("tcp", &lb, &addr, 9));
    convey.write_config(&marked("tcp", &lb, &addr, 10));
    let said = convey.order("reload");
    assert!(said.contains("frontends.f.client_socket.mark"), "{said}");
    let mut stream = client.connect(lb.addr(80));
    stream.read_exact(&mut [0; 2]).expect("a greeting");
}

fn a_restart_opens_a_listener_with_its_new_mark() {
    let lab = Lab::new("mark-restart");
    let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("server"));
    let server = TcpServer::named(&host, 9_000, "s");
    let addr = server.addr().to_string();
    let mut convey = Convey::launch_with(&lb, &marked("tcp", &lb, &addr, 9), &["env", Convey::FD_STORE]);
    convey.wait_ready();
    convey.signal(nix::sys::signal::Signal::SIGTERM);
    convey.wait_exit(crate::lab::PATIENCE);
    hold_back(&lb, 10);
    convey.start_again(&marked("tcp", &lb, &addr, 10));
    for family in Family::ALL {
        let mut stream = client.connect(lb.addr_of(family, 80));
        stream.read_exact(&mut [0; 2]).expect("a greeting");
    }
}
