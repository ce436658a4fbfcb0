//! Limits and time-outs.

use std::{
    io::{Read as _, Write as _},
    net::Shutdown,
    time::{Duration, Instant},
};

use crate::{
    Test,
    lab::{Convey, Host, Lab, servers::TcpServer},
    site::{backend, expect_end, expect_turned_away, frontend, is_silent, read_line},
    tests,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    a_connection_above_a_servers_limit_waits_for_a_free_place,
    a_connection_above_a_servers_limit_goes_to_another_server,
    waiting_ends_after_queue_timeout,
    a_full_queue_turns_connections_away,
    a_connection_above_a_frontends_limit_waits_in_the_accept_queue,
    an_idle_connection_is_closed_after_idle_timeout,
    traffic_keeps_a_connection_beyond_idle_timeout,
    a_half_closed_connection_is_closed_after_fin_timeout,
];

const PORT: u16 = 9;

/// One server that names itself `s` and echoes, behind one frontend.
struct Single {
    convey: Convey,
    client: Host,
    lb: Host,
    _server: TcpServer,
    _lab: Lab,
}

impl Single {
    fn new(name: &str, frontend_settings: &str, backend_settings: &str, server_settings: &str) -> Self {
        let lab = Lab::new(name);
        let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("server"));
        let server = TcpServer::named(&host, PORT, "s");
        let config = frontend("f", lb.addr(PORT), "b", frontend_settings)
            + &backend("b", backend_settings, &[("s", server.addr(), server_settings)]);
        Self {
            convey: lab.convey(&lb, &config),
            client,
            lb,
            _server: server,
            _lab: lab,
        }
    }

    fn connect(&self) -> std::net::TcpStream {
        self.client.connect(self.lb.addr(PORT))
    }

    #[track_caller]
    fn wait_ended(&self, reason: &str) {
        self.convey
            .wait_status(&format!("one connection ended by {reason}"), |status| {
                status.frontends["f"].traffic.ended.get(reason) == Some(&1)
            });
    }
}

fn a_connection_above_a_servers_limit_waits_for_a_free_place() {
    let single = Single::new(
        "serverlimit",
        "",
        "queue_timeout = \"20s\"",
        "max_connections = 1",
    );
    let mut first = single.connect();
    assert_eq!(read_line(&mut first).expect("the greeting"), "s");
    let mut second = single.connect();
    assert!(
        is_silent(&mut second, Duration::from_millis(500)),
        "the second one waits"
    );
    assert_eq!(single.convey.status().backends["b"].queued, 1);
    drop(first);
    assert_eq!(read_line(&mut second).expect("the greeting"), "s");
    assert_eq!(single.convey.status().backends["b"].queued, 0);
}

fn a_connection_above_a_servers_limit_goes_to_another_server() {
    let lab = Lab::new("overflow");
    let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("server"));
    let (small, large) = (
        TcpServer::named(&host, 9, "small"),
        TcpServer::named(&host, 10, "large"),
    );
    let servers = [
        ("small", small.addr(), "max_connections = 1"),
        ("large", large.addr(), ""),
    ];
    let config = frontend("f", lb.addr(9), "b", "") + &backend("b", "", &servers);
    let _convey = lab.convey(&lb, &config);
    let mut open = Vec::new();
    let mut names: Vec<String> = (0..6)
        .map(|_| {
            let mut stream = client.connect(lb.addr(9));
            let name = read_line(&mut stream).expect("the greeting");
            open.push(stream);
            name
        })
        .collect();
    names.sort();
    assert_eq!(names.join(" "), "large large large large large small");
}

fn waiting_ends_after_queue_timeout() {
    let single = Single::new(
        "queuetimeout",
        "",
        "queue_timeout = \"500ms\"",
        "max_connections = 1",
    );
    let mut first = single.connect();
    assert_eq!(read_line(&mut first).expect("the greeting"), "s");
    let start = Instant::now();
    expect_turned_away(&single.client, single.lb.addr(PORT));
    let waited = start.elapsed();
    assert!((400..3000).contains(&waited.as_millis()), "{waited:?}");
    single.wait_ended("queue_timeout");
}

fn a_full_queue_turns_connections_away() {
    let single = Single::new(
        "queuefull",
        "",
        "queue_timeout = \"20s\"\nmax_queue = 1",
        "max_connections = 1",
    );
    let mut first = single.connect();
    assert_eq!(read_line(&mut first).expect("the greeting"), "s");
    let mut second = single.connect();
    assert!(
        is_silent(&mut second, Duration::from_millis(300)),
        "the second one waits"
    );
    let start = Instant::now();
    expect_turned_away(&single.client, single.lb.addr(PORT));
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "the third one is turned away at once"
    );
    single.wait_ended("queue_full");
    drop(first);
    assert_eq!(read_line(&mut second).expect("the greeting"), "s");
}

fn a_connection_above_a_frontends_limit_waits_in_the_accept_queue() {
    let single = Single::new("frontendlimit", "max_connections = 2", "", "");
    let mut open: Vec<_> = (0..2).map(|_| single.connect()).collect();
    for stream in &mut open {
        assert_eq!(read_line(stream).expect("the greeting"), "s");
    }
    let mut third = single.connect();
    assert!(
        is_silent(&mut third, Duration::from_millis(500)),
        "the third one waits"
    );
    assert_eq!(single.convey.traffic("f").connections_current, 2);
    open.pop();
    assert_eq!(read_line(&mut third).expect("the greeting"), "s");
}

fn an_idle_connection_is_closed_after_idle_timeout() {
    let single = Single::new("idle", "idle_timeout = \"1s\"", "", "");
    let mut stream = single.connect();
    assert_eq!(read_line(&mut stream).expect("the greeting"), "s");
    let start = Instant::now();
    expect_end(&mut stream);
    let idle = start.elapsed();
    assert!((800..3500).contains(&idle.as_millis()), "{idle:?}");
    single
        .convey
        .wait_status("it is counted as a time-out", |status| {
            let ended = &status.frontends["f"].traffic.ended;
            ended.contains_key("client_timeout") || ended.contains_key("server_timeout")
        });
}

fn traffic_keeps_a_connection_beyond_idle_timeout() {
    let single = Single::new("busy", "idle_timeout = \"1s\"", "", "");
    let mut stream = single.connect();
    assert_eq!(read_line(&mut stream).expect("the greeting"), "s");
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(3) {
        stream.write_all(b"x\n").expect("send");
        assert_eq!(read_line(&mut stream).expect("the echo"), "x");
        std::thread::sleep(Duration::from_millis(300));
    }
}

fn a_half_closed_connection_is_closed_after_fin_timeout() {
    let lab = Lab::new("fin");
    let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("mute"));
    let server = TcpServer::mute(&host, PORT);
    let config = frontend(
        "f",
        lb.addr(PORT),
        "b",
        "idle_timeout = \"60s\"\nfin_timeout = \"1s\"",
    ) + &backend("b", "", &[("s", server.addr(), "")]);
    let convey = lab.convey(&lb, &config);
    let mut stream = client.connect(lb.addr(PORT));
    stream.write_all(b"x").expect("send");
    stream.shutdown(Shutdown::Write).expect("half close");
    let start = Instant::now();
    assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)));
    let waited = start.elapsed();
    assert!((800..3500).contains(&waited.as_millis()), "{waited:?}");
    convey.wait_status("the server was waited for", |status| {
        status.frontends["f"].traffic.ended.get("server_timeout") == Some(&1)
    });
}
