//! Servers fail, come back, are drained and weighted.

use std::{io::Write as _, time::Instant};

use convey::base::{BackendState, ServerState, TerminationReason};

use crate::{
    Test,
    lab::{Convey, Host, Lab, PATIENCE, load::Wrk, servers::TcpServer, wait_until},
    site::{BLIND, FAST_CHECK, NO_CHECK, Site, backend, expect_end, expect_turned_away, frontend, read_line},
    tests,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    a_killed_server_fails_requests_only_until_it_is_detected,
    with_retries_a_killed_server_fails_only_what_it_had_taken,
    a_server_that_comes_back_gets_traffic_again,
    a_failed_connect_is_retried_on_another_server,
    a_connect_that_times_out_is_retried_on_another_server,
    servers_that_refuse_connections_are_ejected_and_let_back,
    no_connection_is_given_to_a_server_before_its_first_check,
    the_next_priority_group_takes_over,
    a_drained_server_keeps_connections_and_gets_no_new_ones,
    a_server_in_maintenance_is_not_checked,
    an_operators_weight_is_in_effect_at_once,
    an_order_about_an_unknown_server_is_refused,
    established_connections_of_a_down_server_are_kept_by_default,
    established_connections_of_a_down_server_are_closed_on_request,
    without_any_server_up_connections_are_ended,
    a_backend_says_when_its_last_server_goes_and_when_one_is_back,
    the_last_eligible_server_is_taken_out_only_by_force,
    quiet_is_0_only_while_every_frontend_is_served,
    the_last_server_of_a_backend_is_not_ejected,
];

fn state(convey: &Convey, server: &str) -> ServerState {
    (convey.server("web", server).state.known()).expect("a state of this version")
}

#[track_caller]
fn wait_state(convey: &Convey, server: &str, wanted: ServerState) {
    wait_until(&format!("{server} is {wanted}"), PATIENCE, || {
        state(convey, server) == wanted
    });
}

/// Waits until a server has given a hundred answers from now on.
#[track_caller]
fn wait_answers(convey: &Convey, server: &str) {
    let sent = || convey.server("web", server).traffic.bytes_out;
    let before = sent();
    wait_until(&format!("{server} serves"), PATIENCE, || sent() > before + 30_000);
}

/// Connections that got no answer, as the access log has them, when all have ended.
fn unanswered(convey: &Convey) -> Vec<serde_json::Value> {
    convey.wait_status("all have ended", |status| {
        status.frontends["web"].traffic.connections_current == 0
    });
    let status = convey.status();
    assert_eq!(status.log_events_dropped, 0, "the log is not whole");
    let total = status.frontends["web"].traffic.connections_total;
    let mut records: Vec<serde_json::Value> = Vec::new();
    wait_until("all are logged", PATIENCE, || {
        let log = convey.stderr();
        let lines = log.lines().filter_map(|line| serde_json::from_str(line).ok());
        records = lines
            .filter(|record: &serde_json::Value| record["event"] == "access")
            .collect();
        records.len() as u64 == total
    });
    // a connection that asks nothing, as wrk's first one, is answered with nothing
    let is_empty = |record: &serde_json::Value| record["reason"] == "normal" && record["bytes_in"] == 0;
    records.retain(|record| record["bytes_out"] == 0 && !is_empty(record));
    records
}

fn a_killed_server_fails_requests_only_until_it_is_detected() {
    let mut site = Site::new("killed", 2);
    let convey = site.convey(&site.config("", &format!("retries = 0\n{FAST_CHECK}")));
    let load = Wrk::endless(&site.client, &site.url(), 8, true);
    wait_answers(&convey, "a");
    site.webs[0].kill();
    let killed = Instant::now();
    wait_state(&convey, "a", ServerState::Down);
    let detection = killed.elapsed();
    let during = load.stop();
    let load = Wrk::endless(&site.client, &site.url(), 8, true);
    wait_answers(&convey, "b");
    let after = load.stop();
    assert_eq!(after.errors, 0, "{}", after.text);
    // first that connections have failed, if they were faster than its check
    wait_until("the status says why", PATIENCE, || {
        let reason = convey.server("web", "a").state_reason;
        reason.is_some_and(|reason| reason.contains("refused"))
    });
    eprintln!(
        "a killed server without retries: {} of {} requests failed, detected in {detection:.1?}; then 0 of {}",
        during.errors, during.requests, after.requests
    );
}

fn with_retries_a_killed_server_fails_only_what_it_had_taken() {
    let mut site = Site::new("retried", 2);
    let convey = site.convey(
        &("[global]\nlog_format = \"json\"\naccess_log_per_second = 1000000\n".to_owned()
            + &site.config("", FAST_CHECK)),
    );
    let load = Wrk::endless(&site.client, &site.url(), 8, true);
    wait_answers(&convey, "a");
    site.webs[0].kill();
    wait_state(&convey, "a", ServerState::Down);
    wait_answers(&convey, "b");
    let report = load.stop();
    let cut = unanswered(&convey);
    // the load's own end leaves some without an answer, too
    let (left, cut): (Vec<_>, Vec<_>) =
        (cut.into_iter()).partition(|connection| connection["reason"] == "client_abort");
    assert!(left.len() <= 8, "{left:?}");
    for connection in &cut {
        assert!(
            connection["server"] == "a" && connection["connect_ms"].is_number(),
            "the dead server had not taken it: {connection}"
        );
    }
    assert!(
        report.errors <= cut.len() as u64,
        "{} connections were cut: {}",
        cut.len(),
        report.text
    );
    let traffic = convey.traffic("web");
    for reason in [TerminationReason::ServerConnect, TerminationReason::NoServer] {
        assert_eq!(traffic.ended(reason), 0, "a refused connect is tried elsewhere");
    }
    assert!(traffic.retries > 0 || convey.server("web", "a").traffic.connect_failures == 0);
    eprintln!(
        "a killed server with retries: {} of {} requests failed",
        report.errors, report.requests
    );
}

fn a_server_that_comes_back_gets_traffic_again() {
    let mut site = Site::new("back", 2);
    let convey = site.convey(&site.config("", FAST_CHECK));
    site.webs[0].kill();
    wait_state(&convey, "a", ServerState::Down);
    assert_eq!(site.ask(6), [("b".to_owned(), 6)].into());
    site.webs[0].revive();
    wait_state(&convey, "a", ServerState::Up);
    let answers = site.ask(8);
    assert!(
        answers.contains_key("a") && answers.contains_key("b"),
        "{answers:?}"
    );
}

fn a_failed_connect_is_retried_on_another_server() {
    let mut site = Site::new("retry", 2);
    let convey = site.convey(&site.config("", BLIND));
    site.webs[0].kill();
    assert_eq!(site.ask(10), [("b".to_owned(), 10)].into());
    let failed = convey.server("web", "a").traffic.connect_failures;
    assert!(failed > 0, "a was tried");
    assert_eq!(convey.traffic("web").retries, failed);
}

fn a_connect_that_times_out_is_retried_on_another_server() {
    let site = Site::new("timeout", 2);
    // a gets the SYN, but has no way back to the load balancer
    site.webs[0]
        .host()
        .run(&format!("ip route add blackhole {}/32", site.lb.ip4()));
    let settings = format!("connect_timeout = \"1s\"\n{BLIND}");
    let convey = site.convey(&site.config("", &settings));
    assert_eq!(site.ask(4), [("b".to_owned(), 4)].into());
    assert!(convey.server("web", "a").traffic.connect_failures > 0);
    convey.reload(&site.config("", &format!("retries = 0\n{settings}")));
    let answers = site.ask(4);
    assert!(
        answers.contains_key("failed"),
        "without retries the time-out shows: {answers:?}"
    );
    let traffic = convey.traffic("web");
    assert!(
        traffic.ended(TerminationReason::ConnectTimeout) > 0,
        "{traffic:?}"
    );
}

fn servers_that_refuse_connections_are_ejected_and_let_back() {
    let mut site = Site::new("ejected", 2);
    let passive = r#"passive_check = { max_failures = 2, ejection_time = "1s" }"#;
    let convey = site.convey(&site.config("", &format!("{NO_CHECK}\n{passive}")));
    site.webs[0].kill();
    assert_eq!(site.ask(12).get("failed"), None);
    // it may have been let back meanwhile
    wait_until("a has been ejected", PATIENCE, || {
        let log = convey.stderr();
        log.lines()
            .any(|line| line.contains("event=\"server_down\"") && line.contains("server=a"))
    });
    site.webs[0].revive();
    wait_state(&convey, "a", ServerState::Up);
    wait_until("a answers again", PATIENCE, || site.ask(4).contains_key("a"));
}

fn no_connection_is_given_to_a_server_before_its_first_check() {
    let site = Site::new("initial", 1);
    let dead = site.lab.host("dead");
    let servers = [("a", site.webs[0].addr(), ""), ("dead", dead.addr(80), "")];
    let config = frontend("web", site.lb.addr(80), "web", "")
        + &backend("web", &format!("retries = 0\n{FAST_CHECK}"), &servers);
    let convey = site.convey(&config);
    assert_eq!(site.ask(6), [("a".to_owned(), 6)].into());
    assert_eq!(convey.server("web", "dead").traffic.connect_failures, 0);
    assert_eq!(state(&convey, "dead"), ServerState::Down);
}

fn the_next_priority_group_takes_over() {
    let mut site = Site::new("priority", 2);
    let servers = [
        ("a", site.webs[0].addr(), "priority = 1"),
        ("b", site.webs[1].addr(), "priority = 2"),
    ];
    let config = frontend("web", site.lb.addr(80), "web", "") + &backend("web", FAST_CHECK, &servers);
    let convey = site.convey(&config);
    assert_eq!(site.ask(6), [("a".to_owned(), 6)].into());
    site.webs[0].kill();
    wait_state(&convey, "a", ServerState::Down);
    assert_eq!(site.ask(6), [("b".to_owned(), 6)].into());
}

/// Two servers that name themselves behind port 9, and their hosts.
fn named_pair(lab: &Lab, settings: &str) -> (String, [TcpServer; 2], [Host; 2]) {
    let hosts = ["a", "b"].map(|name| lab.host(name));
    let servers = hosts
        .each_ref()
        .map(|host| TcpServer::named(host, 9, host.name()));
    let list = [("a", servers[0].addr(), ""), ("b", servers[1].addr(), "")];
    (backend("web", settings, &list), servers, hosts)
}

fn a_drained_server_keeps_connections_and_gets_no_new_ones() {
    let lab = Lab::new("drain");
    let (client, lb) = (lab.host("client"), lab.host("lb"));
    let (backend, _servers, _) = named_pair(&lab, FAST_CHECK);
    let convey = lab.convey(&lb, &(frontend("web", lb.addr(9), "web", "") + &backend));
    let mut on_a = loop {
        let mut stream = client.connect(lb.addr(9));
        if read_line(&mut stream).expect("the greeting") == "a" {
            break stream;
        }
    };
    convey.order("server drain web/a");
    assert_eq!(state(&convey, "a"), ServerState::Draining);
    for _ in 0..6 {
        assert_eq!(
            read_line(&mut client.connect(lb.addr(9))).expect("the greeting"),
            "b"
        );
    }
    on_a.write_all(b"still here\n").expect("send");
    assert_eq!(read_line(&mut on_a).expect("the echo"), "still here");
    assert_eq!(convey.server("web", "a").traffic.connections_current, 1);
}

fn a_server_in_maintenance_is_not_checked() {
    let lab = Lab::new("maintenance");
    let (client, lb) = (lab.host("client"), lab.host("lb"));
    let (backend, _servers, hosts) = named_pair(&lab, FAST_CHECK);
    let convey = lab.convey(&lb, &(frontend("web", lb.addr(9), "web", "") + &backend));
    // most checks are over before the server's program could hear of them
    for host in &hosts {
        host.nft(
            "table inet count {
               chain in {
                 type filter hook input priority 0
                 tcp flags & (syn | ack) == syn tcp dport 9 counter
               }
             }",
        );
    }
    let checks = |host: &Host| {
        let rules = host.run("nft list table inet count");
        let mut words = rules.split_whitespace().skip_while(|word| *word != "packets");
        words
            .nth(1)
            .and_then(|count| count.parse::<u32>().ok())
            .expect("a count")
    };
    wait_until("both are checked", PATIENCE, || {
        hosts.iter().all(|host| checks(host) > 0)
    });
    convey.order("server maintenance web/a");
    assert_eq!(state(&convey, "a"), ServerState::Maintenance);
    let rounds = |count: u32| {
        let before = checks(&hosts[1]);
        wait_until("b is checked further", PATIENCE, || {
            checks(&hosts[1]) >= before + count
        });
    };
    // one may have been under way
    rounds(1);
    let before = checks(&hosts[0]);
    rounds(5);
    assert_eq!(checks(&hosts[0]), before, "no check in maintenance");
    for _ in 0..6 {
        assert_eq!(
            read_line(&mut client.connect(lb.addr(9))).expect("the greeting"),
            "b"
        );
    }
    convey.order("server ready web/a");
    wait_state(&convey, "a", ServerState::Up);
}

fn an_operators_weight_is_in_effect_at_once() {
    let site = Site::new("operator", 2);
    let config = "[global]\nworkers = 1\n".to_owned() + &site.config("", FAST_CHECK);
    let convey = site.convey(&config);
    convey.order("server weight web/a 4");
    assert_eq!(site.ask(20), [("a".to_owned(), 16), ("b".to_owned(), 4)].into());
    convey.order("server weight web/a 0");
    assert_eq!(site.ask(5), [("b".to_owned(), 5)].into());
}

fn an_order_about_an_unknown_server_is_refused() {
    let site = Site::new("unknown", 1);
    let convey = site.convey(&site.config("", FAST_CHECK));
    let output = convey.cli("server drain web/nobody");
    assert!(!output.status.success());
    assert!(output.stderr.contains("nobody"), "{output:?}");
    let output = convey.cli("server drain nowhere/a");
    assert!(!output.status.success());
    assert!(output.stderr.contains("nowhere"), "{output:?}");
}

fn established_connections_of_a_down_server_are_kept_by_default() {
    let lab = Lab::new("keep");
    let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("a"));
    let server = TcpServer::named(&host, 9, "a");
    let backend = backend("web", FAST_CHECK, &[("a", server.addr(), "")]);
    let convey = lab.convey(&lb, &(frontend("web", lb.addr(9), "web", "") + &backend));
    let mut stream = client.connect(lb.addr(9));
    assert_eq!(read_line(&mut stream).expect("the greeting"), "a");
    drop(server);
    wait_state(&convey, "a", ServerState::Down);
    stream.write_all(b"still here\n").expect("send");
    assert_eq!(read_line(&mut stream).expect("the echo"), "still here");
}

fn established_connections_of_a_down_server_are_closed_on_request() {
    let lab = Lab::new("close");
    let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("a"));
    let server = TcpServer::named(&host, 9, "a");
    let settings = format!("on_down = \"close\"\n{FAST_CHECK}");
    let backend = backend("web", &settings, &[("a", server.addr(), "")]);
    let convey = lab.convey(&lb, &(frontend("web", lb.addr(9), "web", "") + &backend));
    let mut stream = client.connect(lb.addr(9));
    assert_eq!(read_line(&mut stream).expect("the greeting"), "a");
    drop(server);
    wait_state(&convey, "a", ServerState::Down);
    expect_end(&mut stream);
    convey.wait_status("the connection is counted out", |status| {
        status.frontends["web"]
            .traffic
            .ended(TerminationReason::ServerDown)
            == 1
    });
}

fn without_any_server_up_connections_are_ended() {
    let mut site = Site::new("noserver", 1);
    // at once, not after a time-out: these are longer than anything is waited for here
    let settings = format!("queue_timeout = \"1h\"\nconnect_timeout = \"1h\"\n{FAST_CHECK}");
    let convey = site.convey(&site.config("", &settings));
    site.webs[0].kill();
    wait_state(&convey, "a", ServerState::Down);
    expect_turned_away(&site.client, site.lb.addr(80));
    convey.wait_status("it is counted", |status| {
        status.frontends["web"].traffic.ended(TerminationReason::NoServer) == 1
    });
}

/// Waits for a line of the log with all of these.
#[track_caller]
fn wait_logged(convey: &Convey, words: &[&str]) {
    wait_until(&format!("a line with {words:?}"), PATIENCE, || {
        let log = convey.stderr();
        log.lines()
            .any(|line| words.iter().all(|word| line.contains(word)))
    });
}

fn a_backend_says_when_its_last_server_goes_and_when_one_is_back() {
    let mut site = Site::new("backend", 2);
    let convey = site.convey(&site.config("", FAST_CHECK));
    site.webs[0].kill();
    wait_logged(
        &convey,
        &["server web/a", "is down", "1 of 2 left", "it was up for"],
    );
    assert!(!convey.stderr().contains("backend web is down"), "b still serves");
    site.webs[1].kill();
    wait_logged(&convey, &["server web/b", "is down", "0 of 2 left"]);
    wait_logged(
        &convey,
        &["ERROR", "backend web is down: none of its 2 servers is eligible"],
    );
    let web = &convey.status().backends["web"];
    assert_eq!((web.state.known(), web.eligible), (Some(BackendState::Down), 0));
    site.webs[1].revive();
    wait_logged(&convey, &["backend web is up: 1 of 2 server(s) eligible"]);
    let web = &convey.status().backends["web"];
    assert_eq!((web.state.known(), web.eligible), (Some(BackendState::Up), 1));
}

fn the_last_eligible_server_is_taken_out_only_by_force() {
    let site = Site::new("force", 2);
    let convey = site.convey(&site.config("", FAST_CHECK));
    convey.order("server drain web/a");
    for refused in ["drain web/b", "maintenance web/b", "weight web/b 0"] {
        let output = convey.cli(&format!("server {refused}"));
        assert_eq!(output.status.code(), Some(64), "{output:?}");
        assert!(
            output
                .stderr
                .contains("server web/b is the last eligible server of backend web"),
            "{output:?}"
        );
        assert!(output.stderr.contains("--force"), "{output:?}");
    }
    assert_eq!(state(&convey, "b"), ServerState::Up, "nothing was changed");
    assert!(convey.order("status").contains("1 of 2 eligible"));
    convey.order("server drain web/b --force");
    let status = convey.order("status");
    assert!(status.contains("0 of 2 eligible"), "{status}");
    assert!(
        status.contains("no eligible server: new connections are refused"),
        "{status}"
    );
    // it cannot get worse
    convey.order("server maintenance web/a");
    convey.order("server ready web/b");
    assert_eq!(site.ask(4), [("b".to_owned(), 4)].into());
}

fn quiet_is_0_only_while_every_frontend_is_served() {
    let mut site = Site::new("quiet", 2);
    let servers = |index: usize| [("s", site.webs[index].addr(), "")];
    let config = frontend("one", site.lb.addr(80), "one", "")
        + &backend("one", FAST_CHECK, &servers(0))
        + &frontend("two", site.lb.addr(81), "two", "")
        + &backend("two", FAST_CHECK, &servers(1));
    let convey = site.convey(&config);
    let quiet = |more: &str| convey.cli(&format!("status --quiet {more}")).status.code();
    assert_eq!((quiet(""), quiet("--frontend one")), (Some(0), Some(0)));
    site.webs[0].kill();
    convey.wait_status("one is down", |status| {
        status.backends["one"].state == BackendState::Down
    });
    assert_eq!(quiet(""), Some(69));
    assert_eq!(
        (quiet("--frontend one"), quiet("--frontend two")),
        (Some(69), Some(0))
    );
    assert_eq!(quiet("--frontend three"), Some(64), "there is none of that name");
    convey.order("server drain two/s --force");
    assert_eq!(quiet("--frontend two"), Some(69), "nothing new is accepted there");
}

fn the_last_server_of_a_backend_is_not_ejected() {
    let mut site = Site::new("last", 1);
    let passive = r#"passive_check = { max_failures = 2, ejection_time = "1h", max_ejection_time = "1h" }"#;
    let convey = site.convey(&site.config("", &format!("retries = 0\n{NO_CHECK}\n{passive}")));
    site.webs[0].kill();
    assert_eq!(site.ask(8), [("failed".to_owned(), 8)].into());
    wait_state(&convey, "a", ServerState::Down);
    let a = convey.server("web", "a");
    assert!(a.eligible, "{a:?}");
    site.webs[0].revive();
    assert_eq!(
        site.ask(4),
        [("a".to_owned(), 4)].into(),
        "an hour before its time is over"
    );
}
