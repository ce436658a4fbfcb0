//! Checks that go another way than connections: over TLS of their own, to and from other addresses, once for several backends.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use convey::base::{CheckOutcome, ServerState};

use crate::{
    Test,
    health_kinds::{check, wait_down, wait_state},
    lab::{Convey, Lab, PATIENCE, servers::TcpServer, wait_until},
    site::{backend, frontend},
    tests,
    tls::EC,
    tls_to_servers::Spoken,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    servers_whose_tls_goes_through_are_checked_over_tls,
    checks_go_to_another_address_and_come_from_another,
    an_address_of_several_backends_is_checked_once_and_each_counts_for_itself,
    checks_over_the_same_tls_are_one_too,
    the_last_checks_are_in_the_status_with_time_and_reason,
];

fn servers_whose_tls_goes_through_are_checked_over_tls() {
    let spoken = Spoken::new("checktls");
    spoken.pki.issue("old", &["web.example"], EC, 0);
    let sites = spoken.site(443, "web", "") + &spoken.site(444, "old", "");
    let _nginx = spoken.nginx(&spoken.web, &sites, 443);
    let plain = TcpServer::smtp(&spoken.web, 25);
    let mute = TcpServer::mute(&spoken.web, 26);
    let ca = spoken.pki.path("ca.pem");
    let tls = |name: &str| format!("tls = {{ ca = \"{ca}\", server_name = \"{name}\" }}");
    let anybody = "tls = { verify = false }";
    let (web, old) = (spoken.web.addr(443), spoken.web.addr(444));
    let backends = [
        ("right", format!("kind = \"tls\", {}", tls("web.example")), web),
        ("other_name", format!("kind = \"tls\", {}", tls("c.example")), web),
        (
            "days",
            format!("kind = \"tls\", min_days_left = 29, {}", tls("web.example")),
            web,
        ),
        (
            "few_days",
            format!("kind = \"tls\", min_days_left = 31, {}", tls("web.example")),
            web,
        ),
        ("plain", format!("kind = \"tls\", {anybody}"), plain.addr()),
        ("mute", format!("kind = \"tls\", {anybody}"), mute.addr()),
        ("expired", format!("kind = \"tls\", {}", tls("web.example")), old),
        (
            "expired_days",
            format!("kind = \"tls\", min_days_left = 1, {anybody}"),
            old,
        ),
        ("anybody", format!("kind = \"tls\", {anybody}"), old),
        (
            "https",
            format!(
                "kind = \"http\", host = \"web.example\", status = 200, {}",
                tls("web.example")
            ),
            web,
        ),
    ];
    let config = backends.iter().fold(
        frontend("through", spoken.lb.addr(443), "https", ""),
        |config, (name, settings, addr)| config + &backend(name, &check(settings), &[("a", *addr, "")]),
    );
    let convey = Convey::start(&spoken.lb, &config);
    for backend in ["right", "days", "anybody", "https"] {
        wait_state(&convey, backend, ServerState::Up);
    }
    for (backend, why) in [
        ("other_name", "TLS: "),
        (
            "few_days",
            "TLS: the certificate is valid for 29 more day(s), less than min_days_left = 31",
        ),
        ("plain", "TLS: "),
        ("mute", "TLS: "),
        ("expired", "TLS: "),
        ("expired_days", "TLS: the certificate has expired"),
    ] {
        wait_down(&convey, backend, why);
    }
    // clients' TLS is theirs
    let answer = spoken.client.run(&format!(
        "curl -sS --max-time 10 --cacert {ca} --connect-to web.example:443:{} https://web.example/",
        spoken.lb.addr(443)
    ));
    assert!(!answer.is_empty());
    // a new certificate of the server is seen by the next check
    let ca_changed = config.replace("min_days_left = 31", "min_days_left = 7");
    convey.reload(&ca_changed);
    wait_state(&convey, "few_days", ServerState::Up);
}

fn checks_go_to_another_address_and_come_from_another() {
    let lab = Lab::new("checkaddr");
    let (lb, web) = (lab.host("lb"), lab.host("web"));
    let other = |last: u8| -> IpAddr { [10, 99, 0, last].into() };
    lb.add_address("eth0", "10.99.0.1/24");
    web.add_address("eth0", "10.99.0.2/24");
    let management = TcpServer::start_at(&web, SocketAddr::new(other(2), 8081), answer_ok);
    // nobody listens where connections would go
    let addr = web.addr(80);
    let servers = |more: &str| [("a", addr, format!("check_addr = \"10.99.0.2{more}\""))];
    let of = |name: &str, settings: &str, more: &str| {
        let servers = servers(more);
        let servers = servers
            .each_ref()
            .map(|(name, addr, more)| (*name, *addr, more.as_str()));
        backend(name, &check(settings), &servers)
    };
    let http = "kind = \"http\"";
    let source = "kind = \"http\", source_addr = \"10.99.0.1\", host = \"own.source\"";
    let config = frontend("web", lb.addr(80), "own", "")
        + &of("own", http, ":8081")
        + &of("of_check", &format!("{http}, port = 8081"), "")
        + &of("source", source, ":8081")
        + &of("closed", http, "");
    let convey = Convey::start(&lb, &config);
    for backend in ["own", "of_check", "source"] {
        wait_state(&convey, backend, ServerState::Up);
    }
    wait_state(&convey, "closed", ServerState::Down);
    let peers = management.peers();
    assert!(peers.iter().any(|peer| peer.ip() == other(1)), "{peers:?}");
    // it moves with a reload, and the server's state with it
    convey.reload(&config.replace("10.99.0.2:8081", "10.99.0.2:8082"));
    wait_state(&convey, "own", ServerState::Down);
    drop(management);
    wait_state(&convey, "of_check", ServerState::Down);
}

fn an_address_of_several_backends_is_checked_once_and_each_counts_for_itself() {
    let lab = Lab::new("share");
    let (lb, web) = (lab.host("lb"), lab.host("web"));
    let works = Arc::new(AtomicBool::new(true));
    let (shared, alone) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
    let serve = |port: u16, counter: &Arc<AtomicU64>| {
        let (works, counter) = (Arc::clone(&works), Arc::clone(counter));
        TcpServer::start(&web, port, move |stream| {
            counter.fetch_add(1, Ordering::Relaxed);
            match works.load(Ordering::Relaxed) {
                true => answer_ok(stream),
                false => answer(stream, "503 Service Unavailable"),
            }
        })
    };
    let (many, single) = (serve(80, &shared), serve(81, &alone));
    let sharing = check("kind = \"http\", share = true");
    let slow = sharing.replace("fall = 1", "fall = 4");
    let config = frontend("web", lb.addr(80), "one", "")
        + &backend("one", &sharing, &[("a", many.addr(), "")])
        + &backend("two", &sharing, &[("a", many.addr(), "")])
        + &backend("three", &sharing, &[("a", many.addr(), "")])
        + &backend("slow", &slow, &[("a", many.addr(), "")])
        + &backend("single", &sharing, &[("a", single.addr(), "")]);
    let convey = Convey::start(&lb, &config);
    for backend in ["one", "two", "three", "slow", "single"] {
        wait_state(&convey, backend, ServerState::Up);
    }
    let begin = (shared.load(Ordering::Relaxed), alone.load(Ordering::Relaxed));
    wait_until("twenty checks of the server of one backend", PATIENCE, || {
        alone.load(Ordering::Relaxed) >= begin.1 + 20
    });
    let (of_four, of_one) = (
        shared.load(Ordering::Relaxed) - begin.0,
        alone.load(Ordering::Relaxed) - begin.1,
    );
    // the first of four that is due leads: a tenth earlier, as jitter has it
    assert!(
        of_four < 2 * of_one,
        "{of_four} checks for four backends, {of_one} for one"
    );
    works.store(false, Ordering::Relaxed);
    for backend in ["one", "two", "three", "slow"] {
        wait_down(&convey, backend, "answered 503");
    }
    // whoever leads may go: the others make the check
    works.store(true, Ordering::Relaxed);
    let fewer = frontend("web", lb.addr(80), "three", "")
        + &backend("three", &sharing, &[("a", many.addr(), "")])
        + &backend("slow", &slow, &[("a", many.addr(), "")]);
    convey.reload(&fewer);
    wait_state(&convey, "three", ServerState::Up);
    wait_state(&convey, "slow", ServerState::Up);
    drop(many);
    wait_state(&convey, "three", ServerState::Down);
    wait_state(&convey, "slow", ServerState::Down);
}

fn checks_over_the_same_tls_are_one_too() {
    let spoken = Spoken::new("sharetls");
    let site = spoken.site(443, "web", "access_log handshakes.log;");
    let _nginx = spoken.nginx(&spoken.web, &site, 443);
    let addr = spoken.web.addr(443);
    let tls = format!(
        "tls = {{ ca = \"{}\", server_name = \"web.example\" }}",
        spoken.pki.path("ca.pem")
    );
    let of = |name: &str, share: bool, path: &str| {
        let settings = check(&format!(
            "kind = \"http\", path = \"{path}\", share = {share}, {tls}"
        ));
        backend(name, &settings, &[("a", addr, "")])
    };
    let config = |share: bool| {
        frontend("web", spoken.lb.addr(80), "one", "")
            + &of("one", share, "/many")
            + &of("two", share, "/many")
            + &of("three", share, "/many")
            + &of("single", share, "/single")
    };
    let convey = Convey::start(&spoken.lb, &config(false));
    let requests = |path: &str| {
        let log = std::fs::read_to_string(spoken.web.path("nginx-tls").join("handshakes.log"));
        log.unwrap_or_default().matches(&format!("GET {path} ")).count()
    };
    for backend in ["one", "two", "three", "single"] {
        wait_state(&convey, backend, ServerState::Up);
    }
    // it becomes one with a reload
    convey.reload(&config(true));
    let before = (requests("/many"), requests("/single"));
    wait_until("twenty checks of the server of one backend", PATIENCE, || {
        requests("/single") >= before.1 + 20
    });
    let (of_three, of_one) = (requests("/many") - before.0, requests("/single") - before.1);
    assert!(
        of_three < 2 * of_one,
        "{of_three} checks for three backends, {of_one} for one"
    );
}

fn the_last_checks_are_in_the_status_with_time_and_reason() {
    let lab = Lab::new("lastchecks");
    let (lb, web) = (lab.host("lb"), lab.host("web"));
    let slow = TcpServer::start(&web, 80, |stream| {
        std::thread::sleep(Duration::from_millis(50));
        answer(stream, "500 Internal Server Error")
    });
    let config = frontend("web", lb.addr(80), "web", "")
        + &backend("web", &check("kind = \"http\""), &[("a", slow.addr(), "")]);
    let convey = Convey::start(&lb, &config);
    wait_state(&convey, "web", ServerState::Down);
    wait_until("three checks", PATIENCE, || {
        convey.server("web", "a").last_checks.len() == 3
    });
    for check in convey.server("web", "a").last_checks {
        assert_eq!(check.outcome, CheckOutcome::Failed);
        // whatever more a slow machine makes of it, and never microseconds
        assert!((50.0..50_000.0).contains(&check.milliseconds), "{check:?}");
        assert!(check.seconds_ago < PATIENCE.as_secs_f64(), "{check:?}");
        assert!(check.reason.is_some_and(|why| why.starts_with("answered 500")));
    }
    let shown = convey.order("status web");
    assert!(
        shown.contains("LAST CHECKS") && shown.contains("failed after "),
        "{shown}"
    );
}

fn answer_ok(stream: TcpStream) -> std::io::Result<()> {
    answer(stream, "200 OK")
}

fn answer(mut stream: TcpStream, status: &str) -> std::io::Result<()> {
    let mut asked = [0; 1_024];
    let _ = stream.read(&mut asked)?;
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )
}
