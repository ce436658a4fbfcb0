//! Counters, `/stats`, and what an idle connection costs.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpStream},
};

use convey::base::{ServerAddr, ServerName, ServerState, TerminationReason};

use crate::{
    Test,
    lab::{Lab, PATIENCE, load::Wrk, servers::TcpServer, wait_until},
    site::{FAST_CHECK, NO_CHECK, Site, backend, frontend, read_line},
    tests,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    bytes_are_counted_exactly_in_both_directions,
    stats_has_the_shape_of_0_3_5,
    connection_counts_return_to_zero,
    open_connections_are_listed,
    an_explanation_of_a_choice_by_addresses_comes_true,
    the_access_log_tells_of_each_connection,
    the_access_log_can_be_turned_off,
];

/// What measures, and runs best alone.
pub const MEASURED: &[Test] = tests![nine_thousand_idle_connections_are_held];

fn bytes_are_counted_exactly_in_both_directions() {
    let lab = Lab::new("count");
    let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("server"));
    let server = TcpServer::start(&host, 9, |mut stream| {
        let mut request = vec![0; 1_234_567];
        stream.read_exact(&mut request)?;
        stream.write_all(&vec![1; 7_654_321])?;
        stream.shutdown(Shutdown::Write)
    });
    let config = frontend("f", lb.addr(9), "b", "") + &backend("b", "", &[("s", server.addr(), "")]);
    let convey = lab.convey(&lb, &config);
    for _ in 0..3 {
        let mut stream = client.connect(lb.addr(9));
        stream.write_all(&vec![2; 1_234_567]).expect("send");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("receive");
        assert_eq!(answer.len(), 7_654_321);
    }
    convey.wait_status("all have ended", |status| {
        status.frontends["f"].traffic.ended(TerminationReason::Normal) == 3
    });
    let status = convey.status();
    for traffic in [
        &status.frontends["f"].traffic,
        &status.backends["b"].traffic,
        &status.backends["b"].servers["s"].traffic,
    ] {
        assert_eq!(
            (traffic.bytes_in, traffic.bytes_out),
            (3 * 1_234_567, 3 * 7_654_321)
        );
        assert_eq!((traffic.connections_total, traffic.connections_current), (3, 0));
    }
}

fn stats_has_the_shape_of_0_3_5() {
    let site = Site::new("stats", 1);
    let config = "[stats]\nport = \"7000\"\n".to_owned() + &site.config("", FAST_CHECK);
    let convey = site.convey(&config);
    assert_eq!(site.ask(3), [("a".to_owned(), 3)].into());
    convey.wait_status("all have ended", |status| {
        status.frontends["web"].traffic.connections_current == 0
    });
    let text = site.lb.run("curl -sf http://127.0.0.1:7000/stats");
    let stats: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(stats["total_connections"], 3);
    assert_eq!(stats["current_connections"], 0);
    let traffic = convey.traffic("web");
    assert_eq!(
        stats["total_bytes_tx"], traffic.bytes_in,
        "tx is from clients to servers"
    );
    assert_eq!(stats["total_bytes_rx"], traffic.bytes_out);
    for part in [&stats["frontends"]["web"], &stats["backends"]["web"]] {
        assert_eq!(part["total_connections"], 3, "{text}");
        assert_eq!(part["bytes_rx"], traffic.bytes_out, "{text}");
    }
    let addr = site.webs[0].addr().to_string();
    assert_eq!(stats["backends"]["web"]["servers"][&addr], true, "{text}");
    let outside = site
        .client
        .try_run(&format!("curl -s http://{}/stats", site.lb.addr(7000)));
    assert_eq!(
        outside.status.code(),
        Some(7),
        "loopback only, unless told otherwise"
    );
}

fn connection_counts_return_to_zero() {
    let mut site = Site::new("zero", 2);
    let convey = site.convey(&site.config("", FAST_CHECK));
    let load = Wrk::endless(&site.client, &site.url(), 50, true);
    let served = || convey.server("web", "a").traffic.bytes_out;
    wait_until("a serves", PATIENCE, || served() > 10_000);
    // failures of every kind must not make the counts drift
    site.webs[0].kill();
    convey.wait_status("a is down", |status| {
        status.backends["web"].servers["a"].state == ServerState::Down
    });
    site.webs[0].revive();
    let before = served();
    wait_until("a serves again", PATIENCE, || served() > before + 10_000);
    load.stop();
    convey.wait_status("nothing is open", |status| {
        let current = |traffic: &convey::admin::views::Traffic| traffic.connections_current;
        status
            .frontends
            .values()
            .map(|part| current(&part.traffic))
            .sum::<u64>()
            == 0
            && status
                .backends
                .values()
                .map(|part| current(&part.traffic))
                .sum::<u64>()
                == 0
            && status.backends["web"]
                .servers
                .values()
                .map(|part| current(&part.traffic))
                .sum::<u64>()
                == 0
    });
    let traffic = convey.traffic("web");
    assert_eq!(traffic.ended.values().sum::<u64>(), traffic.connections_total);
}

fn open_connections_are_listed() {
    let lab = Lab::new("listed");
    let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("server"));
    let echo = TcpServer::echo(&host, 9);
    let config = frontend("f", lb.addr(9), "b", "") + &backend("b", "", &[("s", echo.addr(), "")]);
    let convey = lab.convey(&lb, &config);
    let mut stream = client.connect(lb.addr(9));
    stream.write_all(b"12345").expect("send");
    stream.read_exact(&mut [0; 5]).expect("the echo");
    // they are counted when they have been sent, and the client may be faster
    let mut listed = convey.connections();
    wait_until("the echo is counted", PATIENCE, || {
        listed = convey.connections();
        (listed.connections.iter()).all(|connection| connection.bytes_out == Some(5))
    });
    assert_eq!(listed.total, 1);
    let connection = &listed.connections[0];
    assert_eq!(
        connection.client.socket_addr().expect("its address"),
        stream.local_addr().expect("our address")
    );
    let server = connection.server.as_ref().map(ServerName::as_str);
    assert_eq!((connection.frontend.as_str(), server), ("f", Some("s")));
    assert_eq!((connection.bytes_in, connection.bytes_out), (Some(5), Some(5)));
    assert_eq!(connection.server_addr, Some(ServerAddr::new(echo.addr())));
    let local = connection.local.expect("a local address");
    assert!(local.ip() == lb.addr(9).ip() && local.port() != 9, "{local}");
    let (idle, age) = (
        connection.idle_seconds.expect("seconds"),
        connection.age_seconds.expect("seconds"),
    );
    assert!(idle <= age + 0.1, "idle {idle}, {age} old");
    assert!(!connection.server_removed && !connection.frontend_removed);
    // a name that nobody has is a slip of the operator's, not an empty list
    for (name, words) in [
        ("--server nope", "no server `nope` in any backend (servers: s)"),
        ("--frontend nope", "no frontend `nope`"),
        ("--backend nope", "no backend `nope`"),
    ] {
        let output = convey.cli(&format!("connections {name}"));
        assert_eq!(output.status.code(), Some(64), "{output:?}");
        assert!(output.stderr.contains(words), "{output:?}");
    }
    drop(stream);
    wait_until("the list is empty", PATIENCE, || convey.connections().total == 0);
}

fn an_explanation_of_a_choice_by_addresses_comes_true() {
    let lab = Lab::new("explained");
    let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("server"));
    let servers = [9, 10, 11].map(|port| TcpServer::named(&host, port, &format!("s{port}")));
    let named: Vec<_> = ["s9", "s10", "s11"]
        .iter()
        .zip(&servers)
        .map(|(name, server)| (*name, server.addr(), ""))
        .collect();
    let config = |balance: &str| {
        let settings = format!("balance = \"{balance}\"\n{NO_CHECK}");
        frontend("f", lb.addr(9), "b", "") + &backend("b", &settings, &named)
    };
    let convey = lab.convey(&lb, &config("source_hash"));
    for balance in ["source_hash", "maglev", "first"] {
        convey.reload(&config(balance));
        let mut stream = client.connect(lb.addr(9));
        let own = stream.local_addr().expect("an address");
        let told = convey.order(&format!("explain tcp {own} {}", lb.addr(9)));
        let server = read_line(&mut stream).expect("the greeting");
        assert!(
            told.contains(&format!("server    {server} at ")),
            "{balance}: {server}: {told}"
        );
    }
    convey.reload(&config("round_robin"));
    let told = convey.order(&format!("explain tcp {} {}", client.addr(40_000), lb.addr(9)));
    for name in ["s9", "s10", "s11"] {
        let share = format!("{name} at ");
        let line = told.lines().find(|line| line.contains(&share));
        assert!(
            line.is_some_and(|line| line.contains("33 % of new connections")),
            "{name}: {told}"
        );
    }
}

fn the_access_log_tells_of_each_connection() {
    let site = Site::new("access", 1);
    let config = "[global]\nlog_format = \"json\"\n".to_owned() + &site.config("", FAST_CHECK);
    let convey = site.convey(&config);
    assert_eq!(site.ask(3), [("a".to_owned(), 3)].into());
    let client = site.client.ip4().to_string();
    wait_until("three access events", PATIENCE, || {
        convey
            .stderr()
            .lines()
            .filter(|line| line.contains(&client))
            .count()
            == 3
    });
    for line in convey.stderr().lines() {
        assert!(
            serde_json::from_str::<serde_json::Value>(line).is_ok(),
            "one JSON object a line: {line}"
        );
    }
}

fn the_access_log_can_be_turned_off() {
    let site = Site::new("noaccess", 1);
    let config =
        frontend("told", site.lb.addr(81), "web", "") + &site.config("access_log = false", FAST_CHECK);
    let convey = site.convey(&config);
    assert_eq!(site.ask(3), [("a".to_owned(), 3)].into());
    convey.wait_status("all have ended", |status| {
        status.frontends["web"].traffic.ended(TerminationReason::Normal) == 3
    });
    // what is logged after them shows that they were not
    site.client.run(&format!("curl -s http://{}/", site.lb.addr(81)));
    let client = site.client.ip4().to_string();
    let lines = || {
        let log = convey.stderr();
        let lines = log.lines().filter(|line| line.contains(&client));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    wait_until("the other frontend's is logged", PATIENCE, || !lines().is_empty());
    assert!(
        matches!(&lines()[..], [line] if line.contains(" told ")),
        "{:?}",
        lines()
    );
}

fn nine_thousand_idle_connections_are_held() {
    const COUNT: usize = 9000;
    let site = Site::new("idle", 1);
    let convey = site.convey(&site.config("access_log = false", FAST_CHECK));
    assert_eq!(site.ask(2), [("a".to_owned(), 2)].into(), "warmed up");
    let before = convey.private_memory();
    let addr = site.lb.addr(80);
    let mut streams: Vec<TcpStream> = site.client.inside(|| {
        (0..COUNT)
            .map(|_| TcpStream::connect_timeout(&addr, PATIENCE).expect("connect"))
            .collect()
    });
    convey.wait_status("all are established on both sides", |status| {
        status.backends["web"].servers["a"].traffic.connections_current == COUNT as u64
    });
    let per_connection = (convey.private_memory() - before) / COUNT as u64;
    eprintln!("{COUNT} idle connections: {per_connection} bytes of process memory each");
    // every hundredth one still works
    for stream in streams.iter_mut().step_by(100) {
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n")
            .expect("a request");
        let mut status = [0; 12];
        stream.read_exact(&mut status).expect("an answer");
        assert_eq!(&status, b"HTTP/1.1 200");
    }
    drop(streams);
    convey.wait_status("none is left", |status| {
        status.frontends["web"].traffic.connections_current == 0
    });
    assert!(
        per_connection <= 3 << 10,
        "{per_connection} bytes for each idle connection, more than 3 KiB"
    );
}
