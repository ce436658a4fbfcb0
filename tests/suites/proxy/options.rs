//! What a frontend may say of each connection besides where it goes: how it is accepted, how fast it is, how long it lives.

use std::{
    io::{Read as _, Write as _},
    net::Shutdown,
    time::{Duration, Instant},
};

use convey::base::TerminationReason;

use crate::{
    Test,
    lab::{
        Convey, Lab, PATIENCE,
        servers::TcpServer,
        udp::{UdpClient, UdpServer},
        wait_until,
    },
    site::{NO_CHECK, Site, backend, frontend, read_line},
    tests,
    udp::{alone, ask, config, open, quoted},
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    a_busy_connection_ends_with_its_lifetime,
    a_busy_session_ends_with_its_lifetime_and_begins_anew,
    each_connection_has_its_own_rate,
    a_client_that_was_here_before_sends_its_request_with_its_first_packet,
    a_deferred_connection_is_none_until_its_client_has_sent_something,
    a_backlog_is_as_long_as_the_file_says_and_follows_a_reload,
];

const PORT: u16 = 9;

fn a_busy_connection_ends_with_its_lifetime() {
    let lab = Lab::new("lifetime");
    let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("server"));
    let server = TcpServer::named(&host, PORT, "s");
    let text = frontend("f", lb.addr(PORT), "b", "max_lifetime = \"1s\"")
        + &backend("b", NO_CHECK, &[("s", server.addr(), "")]);
    let convey = lab.convey(&lb, &text);
    let start = Instant::now();
    let mut stream = client.connect(lb.addr(PORT));
    assert_eq!(read_line(&mut stream).expect("the greeting"), "s");
    while stream.write_all(b"x\n").is_ok() && read_line(&mut stream).is_ok_and(|echo| echo == "x") {}
    let lived = start.elapsed();
    assert!(lived >= Duration::from_secs(1), "too early: {lived:?}");
    convey.wait_status("it is counted", |status| {
        status.frontends["f"]
            .traffic
            .ended(TerminationReason::MaxLifetime)
            == 1
    });
    wait_until("the log says why", PATIENCE, || {
        let log = convey.stderr();
        log.lines().any(|line| line.contains(" PD "))
    });
}

fn a_busy_session_ends_with_its_lifetime_and_begins_anew() {
    let lab = Lab::new("udp-lifetime");
    let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("server"));
    let servers = [
        UdpServer::echo(&host, host.addr(7_001), "a"),
        UdpServer::echo(&host, host.addr(7_002), "b"),
    ];
    let settings = "max_lifetime = \"1s\"\n";
    let text = config(&quoted(lb.addr(53)), &[&servers[0], &servers[1]], settings, "");
    let convey = lab.convey(&lb, &alone(&text));
    let client = UdpClient::new(&client, lb.addr(53));
    let first = ask(&client, "x");
    // what is on its way when a session ends is not answered: then it asks again
    let lost = Some(Duration::from_secs(1));
    client.socket().set_read_timeout(lost).expect("a time-out");
    // the round has the other server next
    wait_until("another session has another server", PATIENCE, || {
        std::thread::sleep(Duration::from_millis(50));
        let answer = client.ask(b"x");
        answer.is_ok_and(|answer| answer != first.as_bytes())
    });
    // the second may be over by now, too
    assert!(open(&convey) <= 1, "the first goes on beside the second");
    convey.wait_status("it is counted", |status| {
        status.frontends["echo"]
            .traffic
            .ended(TerminationReason::MaxLifetime)
            >= 1
    });
}

fn each_connection_has_its_own_rate() {
    let lab = Lab::new("rate");
    let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("server"));
    let server = TcpServer::echo(&host, PORT);
    let settings = "upload_rate = 2_000_000\ndownload_rate = 1_000_000";
    let text =
        frontend("f", lb.addr(PORT), "b", settings) + &backend("b", NO_CHECK, &[("s", server.addr(), "")]);
    let convey = lab.convey(&lb, &text);
    let bytes = vec![b'x'; 2_000_000];
    let before = sleeps(&convey);
    let start = Instant::now();
    let downloads: Vec<_> = (0..2)
        .map(|_| {
            let mut stream = client.connect(lb.addr(PORT));
            let mut writer = stream.try_clone().expect("another handle");
            let bytes = bytes.clone();
            let writing = std::thread::spawn(move || {
                writer.write_all(&bytes).expect("sent");
                writer.shutdown(Shutdown::Write).expect("ended");
            });
            std::thread::spawn(move || {
                let mut back = Vec::new();
                stream.read_to_end(&mut back).expect("given back");
                writing.join().expect("sent");
                (back.len(), start.elapsed())
            })
        })
        .collect();
    for download in downloads {
        let (len, took) = download.join().expect("done");
        assert_eq!(len, bytes.len());
        // both at once, and not one after the other
        assert!(took >= Duration::from_millis(1_850), "{took:?}");
    }
    // two ways of two connections go on twenty times a second each: who polled or was woken by each packet slept more often
    let (slept, seconds) = (sleeps(&convey) - before, start.elapsed().as_secs_f64());
    assert!(
        (slept as f64) < 400.0 * seconds,
        "slept {slept} times in {seconds} s"
    );
}

/// How often the threads of the daemon have gone to sleep, all of them.
fn sleeps(convey: &Convey) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", convey.pid())).expect("its threads");
    let of = |task: std::fs::DirEntry| -> u64 {
        let status = std::fs::read_to_string(task.path().join("status")).unwrap_or_default();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
    };
    tasks.flatten().map(of).sum()
}

fn a_client_that_was_here_before_sends_its_request_with_its_first_packet() {
    let site = Site::new("fastopen", 1);
    let convey = site.convey(&site.config("tcp_fast_open = true", ""));
    let took = || -> u64 {
        let line = site.lb.run("nstat -asz TcpExtTCPFastOpenPassive");
        let counters = line.lines().filter(|line| line.starts_with("TcpExt"));
        let value = counters.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        value.sum()
    };
    let ask = || {
        site.client
            .run(&format!("curl -s --tcp-fastopen --max-time 60 {}", site.url()))
    };
    // as on a stock host
    site.lb.run("sysctl -qw net.ipv4.tcp_fastopen=1");
    assert_eq!(ask(), "a");
    let check = convey.tool("check");
    let named = "tcp_fast_open of frontend `web` has no effect: net.ipv4.tcp_fastopen is 1";
    assert!(check.stderr.contains(named), "{}", check.stderr);
    site.lb.run("sysctl -qw net.ipv4.tcp_fastopen=3");
    assert!(!convey.tool("check").stderr.contains("tcp_fast_open"));
    wait_until("requests come with the first packet", PATIENCE, || {
        assert_eq!(ask(), "a");
        took() > 0
    });
}

fn a_deferred_connection_is_none_until_its_client_has_sent_something() {
    let lab = Lab::new("deferred");
    let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("server"));
    let server = TcpServer::named(&host, PORT, "s");
    let text = frontend("f", lb.addr(PORT), "b", "defer_accept = true")
        + &backend("b", NO_CHECK, &[("s", server.addr(), "")]);
    let convey = lab.convey(&lb, &text);
    // after a second it is accepted all the same: on a slow machine that may come first
    wait_until(
        "a silent one is not counted while another is served",
        PATIENCE,
        || {
            let before = convey.traffic("f").connections_total;
            let silent = client.connect(lb.addr(PORT));
            let mut talking = client.connect(lb.addr(PORT));
            talking.write_all(b"x\n").expect("sent");
            assert_eq!(read_line(&mut talking).expect("the greeting"), "s");
            let is_deferred = convey.traffic("f").connections_total == before + 1;
            drop(silent);
            is_deferred
        },
    );
    // and nobody is forgotten
    let mut patient = client.connect(lb.addr(PORT));
    assert_eq!(read_line(&mut patient).expect("the greeting"), "s");
}

fn a_backlog_is_as_long_as_the_file_says_and_follows_a_reload() {
    let lab = Lab::new("backlog");
    let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("server"));
    let server = TcpServer::named(&host, PORT, "s");
    let text = |settings: &str| {
        frontend("f", lb.addr(PORT), "b", settings) + &backend("b", NO_CHECK, &[("s", server.addr(), "")])
    };
    let convey = lab.convey(&lb, &text("backlog = 77"));
    let backlogs = || -> Vec<String> {
        let listeners = lb.run("ss -Htln sport = :9");
        // state, queue, backlog
        let third = listeners
            .lines()
            .filter_map(|line| line.split_whitespace().nth(2));
        third.map(str::to_owned).collect()
    };
    let are_all = |wanted: &str| {
        let backlogs = backlogs();
        !backlogs.is_empty() && backlogs.iter().all(|backlog| backlog == wanted)
    };
    assert!(are_all("77"), "{:?}", backlogs());
    convey.reload(&text("backlog = 99"));
    // each listener takes it up with its next connection
    wait_until("all have it", PATIENCE, || {
        let mut stream = client.connect(lb.addr(PORT));
        assert_eq!(read_line(&mut stream).expect("the greeting"), "s");
        are_all("99")
    });
}
