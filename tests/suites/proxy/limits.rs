//! Limits and time-outs.

use std::{
    io::Write as _,
    net::{Shutdown, TcpStream},
    time::{Duration, Instant},
};

use convey::base::TerminationReason;

use crate::{
    Test,
    lab::{Convey, Host, Lab, PATIENCE, servers::TcpServer, wait_until},
    site::{NO_CHECK, backend, expect_end, expect_turned_away, frontend, is_silent, read_line},
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
    server: TcpServer,
    _lab: Lab,
}

impl Single {
    fn new(name: &str, frontend_settings: &str, backend_settings: &str, server_settings: &str) -> Self {
        let lab = Lab::new(name);
        let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("server"));
        let server = TcpServer::named(&host, PORT, "s");
        let config = frontend("f", lb.addr(PORT), "b", frontend_settings)
            // checks would be counted as clients
            + &backend(
                "b",
                &format!("{NO_CHECK}\n{backend_settings}"),
                &[("s", server.addr(), server_settings)],
            );
        Self {
            convey: lab.convey(&lb, &config),
            client,
            lb,
            server,
            _lab: lab,
        }
    }

    fn connect(&self) -> TcpStream {
        self.client.connect(self.lb.addr(PORT))
    }

    /// A connection that waits in the backend's queue.
    #[track_caller]
    fn connect_and_wait(&self) -> TcpStream {
        let stream = self.connect();
        self.convey
            .wait_status("it waits", |status| status.backends["b"].queued == 1);
        stream
    }

    /// `waiting` has been given to no server, although a connection that has one carries bytes.
    #[track_caller]
    fn expect_waiting(&self, waiting: &TcpStream, served: &mut TcpStream, servers: u64) {
        served.write_all(b"x\n").expect("send");
        assert_eq!(read_line(served).expect("the echo"), "x");
        assert_eq!(self.server.accepted(), servers);
        assert!(is_silent(waiting), "it was answered");
    }

    #[track_caller]
    fn wait_ended(&self, reason: &str) {
        let reason: TerminationReason = reason.parse().expect("a reason");
        self.convey
            .wait_status(&format!("one connection ended by {reason}"), |status| {
                status.frontends["f"].traffic.ended(reason) == 1
            });
    }
}

fn a_connection_above_a_servers_limit_waits_for_a_free_place() {
    let single = Single::new("serverlimit", "", "queue_timeout = \"1h\"", "max_connections = 1");
    let mut first = single.connect();
    assert_eq!(read_line(&mut first).expect("the greeting"), "s");
    let mut second = single.connect_and_wait();
    single.expect_waiting(&second, &mut first, 1);
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
    assert!(waited >= Duration::from_millis(500), "too early: {waited:?}");
    single.wait_ended("queue_timeout");
}

fn a_full_queue_turns_connections_away() {
    let single = Single::new(
        "queuefull",
        "",
        "queue_timeout = \"1h\"\nmax_queue = 1",
        "max_connections = 1",
    );
    let mut first = single.connect();
    assert_eq!(read_line(&mut first).expect("the greeting"), "s");
    let mut second = single.connect_and_wait();
    // at once: whoever waits has an hour
    expect_turned_away(&single.client, single.lb.addr(PORT));
    single.wait_ended("queue_full");
    single.expect_waiting(&second, &mut first, 1);
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
    wait_until("the third one is in the kernel's queue", PATIENCE, || {
        let listeners = single.lb.run("ss -Htln sport = :9");
        // state, queue
        let mut queues = listeners
            .lines()
            .filter_map(|line| line.split_whitespace().nth(1));
        queues.any(|queue| queue == "1")
    });
    single.expect_waiting(&third, &mut open[0], 2);
    assert_eq!(single.convey.traffic("f").connections_current, 2);
    open.pop();
    assert_eq!(read_line(&mut third).expect("the greeting"), "s");
}

fn an_idle_connection_is_closed_after_idle_timeout() {
    let single = Single::new("idle", "idle_timeout = \"1s\"", "", "");
    let start = Instant::now();
    let mut stream = single.connect();
    assert_eq!(read_line(&mut stream).expect("the greeting"), "s");
    expect_end(&mut stream);
    let idle = start.elapsed();
    assert!(idle >= Duration::from_secs(1), "too early: {idle:?}");
    single
        .convey
        .wait_status("it is counted as a time-out", |status| {
            let traffic = &status.frontends["f"].traffic;
            let reasons = [TerminationReason::ClientTimeout, TerminationReason::ServerTimeout];
            reasons.iter().any(|reason| traffic.ended(*reason) > 0)
        });
}

fn traffic_keeps_a_connection_beyond_idle_timeout() {
    let single = Single::new("busy", "idle_timeout = \"3s\"", "", "");
    let [mut busy, mut idle] = [single.connect(), single.connect()];
    for stream in [&mut busy, &mut idle] {
        assert_eq!(read_line(stream).expect("the greeting"), "s");
    }
    let mut talk = || {
        busy.write_all(b"x\n").expect("send");
        assert_eq!(read_line(&mut busy).expect("the echo"), "x");
    };
    // the idle one is the younger one, and ends first
    wait_until("the idle one has ended", PATIENCE, || {
        talk();
        !is_silent(&idle)
    });
    expect_end(&mut idle);
    talk();
}

fn a_half_closed_connection_is_closed_after_fin_timeout() {
    let lab = Lab::new("fin");
    let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("mute"));
    let server = TcpServer::mute(&host, PORT);
    let config = frontend(
        "f",
        lb.addr(PORT),
        "b",
        "idle_timeout = \"1h\"\nfin_timeout = \"1s\"",
    ) + &backend("b", "", &[("s", server.addr(), "")]);
    let convey = lab.convey(&lb, &config);
    let mut stream = client.connect(lb.addr(PORT));
    let start = Instant::now();
    stream.write_all(b"x").expect("send");
    stream.shutdown(Shutdown::Write).expect("half close");
    expect_end(&mut stream);
    let waited = start.elapsed();
    assert!(waited >= Duration::from_secs(1), "too early: {waited:?}");
    convey.wait_status("the server was waited for", |status| {
        status.frontends["f"]
            .traffic
            .ended(TerminationReason::ServerTimeout)
            == 1
    });
}
