//! Start, privileges, service manager, end.

use std::{
    fs,
    io::Write as _,
    path::Path,
    time::{Duration, Instant},
};

use convey::admin::views::Phase;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    Test,
    lab::{Convey, Lab, PATIENCE, servers::TcpServer, wait_until},
    site::{FAST_CHECK, Site, backend, expect_end, frontend, read_line},
    tests,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    no_thread_of_the_daemon_holds_a_capability_or_is_root,
    a_bad_configuration_is_told_and_exits_78,
    an_address_in_use_is_told_and_ends_the_start,
    a_missing_directory_of_the_control_socket_is_a_warning,
    the_service_manager_is_told_of_every_phase,
    the_watchdog_is_fed,
    sigterm_waits_for_connections_and_accepts_no_new_ones,
    clients_that_wait_to_be_accepted_at_sigterm_are_served,
    sigterm_gives_up_waiting_after_shutdown_timeout,
    a_second_sigterm_ends_at_once,
    a_sigterm_during_the_start_ends_it_in_order,
    without_the_broker_the_daemon_ends_with_an_error,
    a_killed_daemon_takes_its_broker_along,
    a_configuration_without_frontends_is_idle,
];

/// Who has such a time is waited for: a test ends sooner only if nobody is.
const NEVER: &str = "shutdown_timeout = \"1h\"";

fn exists(pid: Pid) -> bool {
    // a zombie that nobody has taken in yet is gone for our purpose
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        stat.rsplit_once(')')
            .is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
    })
}

fn no_thread_of_the_daemon_holds_a_capability_or_is_root() {
    let site = Site::new("caps", 1);
    let config = site.config("", FAST_CHECK);
    let convey = site.convey(&config);
    assert_eq!(site.ask(2), [("a".to_owned(), 2)].into(), "port 80 is served");
    convey.reload(&(frontend("second", site.lb.addr(81), "web", "") + &config));
    let tasks = fs::read_dir(format!("/proc/{}/task", convey.pid())).expect("the daemon's threads");
    let mut threads = 0;
    for task in tasks.flatten() {
        let status = match fs::read_to_string(task.path().join("status")) {
            Ok(status) => status,
            // a thread of the runtime's pool may have ended since they were listed
            Err(_) if !task.path().exists() => continue,
            Err(error) => panic!("a thread's status: {error}"),
        };
        threads += 1;
        for key in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert!(
                status.contains(&format!("{key}:\t0000000000000000")),
                "{key} of\n{status}"
            );
        }
        assert!(status.contains("NoNewPrivs:\t1"), "{status}");
        let ids = |key: &str| {
            status
                .lines()
                .find(|line| line.starts_with(key))
                .expect("ids")
                .to_owned()
        };
        for id in ids("Uid:")
            .split_whitespace()
            .chain(ids("Gid:").split_whitespace())
        {
            assert_ne!(id, "0", "root in\n{status}");
        }
    }
    assert!(threads >= 2, "workers are threads");
    let broker =
        fs::read_to_string(format!("/proc/{}/status", convey.broker())).expect("the broker's status");
    assert!(
        !broker.contains("CapEff:\t000001ffffffffff"),
        "the broker keeps only what it needs\n{broker}"
    );
}

fn a_bad_configuration_is_told_and_exits_78() {
    let lab = Lab::new("badstart");
    let lb = lab.host("lb");
    let mut convey = Convey::launch(
        &lb,
        "[frontends.web]\nlisten_addr = \"10.77.0.1:70000\"\nbackend = \"none\"\n",
    );
    assert_eq!(convey.wait_exit(PATIENCE).code(), Some(78));
    let told = convey.stderr();
    assert!(
        told.contains("convey.toml:2:") && told.contains("convey.toml:3:"),
        "all errors at once:\n{told}"
    );
    assert!(!told.contains("panicked"), "{told}");
}

fn an_address_in_use_is_told_and_ends_the_start() {
    let site = Site::new("startinuse", 1);
    let _squatter = TcpServer::echo(&site.lb, 80);
    let mut convey = Convey::launch(&site.lb, &site.config("", FAST_CHECK));
    let status = convey.wait_exit(PATIENCE);
    assert!(!status.success());
    let told = convey.stderr();
    assert!(told.contains(":80") && told.contains("in use"), "{told}");
}

fn a_missing_directory_of_the_control_socket_is_a_warning() {
    let site = Site::new("nosocket", 1);
    let config = site.config("", FAST_CHECK) + "[admin]\nsocket = \"/nonexistent/convey/admin.sock\"\n";
    let convey = site.convey(&config);
    assert_eq!(site.ask(2), [("a".to_owned(), 2)].into());
    let told = convey.stderr();
    assert!(told.contains("/nonexistent/convey"), "the log says so: {told}");
}

fn the_service_manager_is_told_of_every_phase() {
    let site = Site::new("notify", 1);
    let config = site.config("", FAST_CHECK);
    let mut convey = site.convey(&config);
    let started = convey.notify().assignments();
    assert!(started.iter().any(|line| line == "READY=1"), "{started:?}");
    convey.reload(&site.config("max_connections = 9", FAST_CHECK));
    wait_until("ready again", PATIENCE, || {
        convey.notify().assignments()[started.len()..].contains(&"READY=1".to_owned())
    });
    let all = convey.notify().assignments();
    let reload = &all[started.len()..];
    let position = |prefix: &str| reload.iter().position(|line| line.starts_with(prefix));
    let reloading = position("RELOADING=1").expect("RELOADING=1");
    let stamp = position("MONOTONIC_USEC=").expect("MONOTONIC_USEC");
    assert!(
        reload[stamp]["MONOTONIC_USEC=".len()..]
            .parse::<u64>()
            .is_ok_and(|usec| usec > 0)
    );
    let ready = reload
        .iter()
        .rposition(|line| line == "READY=1")
        .expect("READY=1");
    assert!(reloading < ready, "{reload:?}");
    assert!(all.iter().any(|line| line.starts_with("STATUS=")), "{all:?}");
    convey.write_config("rubbish");
    assert!(!convey.cli("reload").status.success());
    let before = all.len();
    assert!(
        convey.notify().wait_for("READY=1", before, PATIENCE, || false),
        "a failed reload is over as well"
    );
    convey.signal(Signal::SIGTERM);
    assert!(convey.wait_exit(PATIENCE).success());
    assert!(convey.notify().assignments().contains(&"STOPPING=1".to_owned()));
}

fn the_watchdog_is_fed() {
    let site = Site::new("watchdog", 1);
    let config = site.config("", FAST_CHECK);
    // systemd also sets WATCHDOG_PID, which must be absent or the daemon's own
    let mut convey = Convey::launch_with(&site.lb, &config, &["env", "WATCHDOG_USEC=1000000"]);
    convey.wait_ready();
    let fed = |convey: &Convey| {
        let assignments = convey.notify().assignments();
        assignments.iter().filter(|line| *line == "WATCHDOG=1").count()
    };
    let before = fed(&convey);
    wait_until("the watchdog is fed", PATIENCE, || fed(&convey) >= before + 3);
}

/// One named echo server behind Convey with these `[global]` settings, and an open connection.
fn with_connection(name: &str, global: &str) -> (std::net::TcpStream, Convey, TcpServer, Lab) {
    let lab = Lab::new(name);
    let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("server"));
    let server = TcpServer::named(&host, 9, "s");
    let config = format!("[global]\n{global}\n")
        + &frontend("f", lb.addr(9), "b", "")
        + &backend("b", "", &[("s", server.addr(), "")]);
    let convey = lab.convey(&lb, &config);
    let mut stream = client.connect(lb.addr(9));
    assert_eq!(read_line(&mut stream).expect("the greeting"), "s");
    (stream, convey, server, lab)
}

fn sigterm_waits_for_connections_and_accepts_no_new_ones() {
    let (mut stream, mut convey, _server, lab) = with_connection("sigterm", NEVER);
    let (late, lb) = (lab.host("late"), convey.host().addr(9));
    convey.signal(Signal::SIGTERM);
    wait_until("the listener is closed", PATIENCE, || {
        late.try_connect(lb).is_err()
    });
    stream.write_all(b"still here\n").expect("send");
    assert_eq!(read_line(&mut stream).expect("the echo"), "still here");
    assert!(convey.ended().is_none(), "it waits");
    // it goes when the last connection has gone
    drop(stream);
    let status = convey.wait_exit(PATIENCE);
    assert!(status.success(), "{status}");
}

fn clients_that_wait_to_be_accepted_at_sigterm_are_served() {
    for round in 0..5 {
        let (stream, mut convey, _server, lab) = with_connection(&format!("queue{round}"), "");
        let (late, addr) = (lab.host("late"), convey.host().addr(9));
        drop(stream);
        convey.wait_status("nothing is open", |status| {
            status.frontends["f"].traffic.connections_current == 0
        });
        convey.signal(Signal::SIGSTOP);
        let mut waiting: Vec<_> = (0..20).map(|_| late.connect(addr)).collect();
        convey.signal(Signal::SIGTERM);
        convey.signal(Signal::SIGCONT);
        for stream in &mut waiting {
            assert_eq!(read_line(stream).expect("the greeting"), "s");
        }
        drop(waiting);
        assert!(convey.wait_exit(PATIENCE).success());
    }
}

fn sigterm_gives_up_waiting_after_shutdown_timeout() {
    let (mut stream, mut convey, _server, _lab) = with_connection("giveup", "shutdown_timeout = \"1s\"");
    let start = Instant::now();
    convey.signal(Signal::SIGTERM);
    let status = convey.wait_exit(PATIENCE);
    assert!(status.success(), "{status}");
    let waited = start.elapsed();
    assert!(waited >= Duration::from_secs(1), "too early: {waited:?}");
    expect_end(&mut stream);
}

fn a_second_sigterm_ends_at_once() {
    let (mut stream, mut convey, _server, _lab) = with_connection("twice", NEVER);
    convey.signal(Signal::SIGTERM);
    assert!(convey.notify().wait_for("STOPPING=1", 0, PATIENCE, || false));
    convey.signal(Signal::SIGTERM);
    convey.wait_exit(PATIENCE);
    expect_end(&mut stream);
}

fn a_sigterm_during_the_start_ends_it_in_order() {
    let lab = Lab::new("early");
    let (lb, host) = (lab.host("lb"), lab.host("server"));
    // the first check gets no answer, so that the start waits for it as long as it waits for any
    host.run(&format!("ip route add blackhole {}/32", lb.ip4()));
    let check = "health_check = { timeout = \"1h\" }";
    let config = frontend("f", lb.addr(9), "b", "") + &backend("b", check, &[("s", host.addr(9), "")]);
    let mut convey = Convey::launch(&lb, &config);
    let socket = convey.dir().join("admin.sock");
    wait_until("the check is under way", PATIENCE, || {
        !lb.run("ss -Htn state syn-sent").is_empty()
    });
    assert!(socket.exists(), "it has begun");
    convey.signal(Signal::SIGTERM);
    let status = convey.wait_exit(PATIENCE);
    assert!(status.success(), "{status}");
    let said = convey.notify().assignments();
    assert!(!said.contains(&"READY=1".to_owned()), "{said:?}");
    assert!(!socket.exists(), "it cleans up behind itself");
}

fn without_the_broker_the_daemon_ends_with_an_error() {
    let site = Site::new("broker", 1);
    let mut convey = site.convey(&site.config("", FAST_CHECK));
    let broker = convey.broker();
    // it is deaf to what a terminal or an operator's mistake sends
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        kill(broker, signal).expect("signal the broker");
    }
    assert_eq!(site.ask(2), [("a".to_owned(), 2)].into());
    assert!(exists(broker), "the broker ignores TERM, INT and HUP");
    kill(broker, Signal::SIGKILL).expect("kill the broker");
    let status = convey.wait_exit(PATIENCE);
    assert!(!status.success());
    assert!(convey.stderr().contains("broker"), "{}", convey.stderr());
}

fn a_killed_daemon_takes_its_broker_along() {
    let site = Site::new("orphan", 1);
    let mut convey = site.convey(&site.config("", FAST_CHECK));
    let broker = convey.broker();
    convey.signal(Signal::SIGKILL);
    convey.wait_exit(PATIENCE);
    wait_until("the broker is gone", PATIENCE, || !exists(broker));
}

fn a_configuration_without_frontends_is_idle() {
    let lab = Lab::new("empty");
    let lb = lab.host("lb");
    let convey = lab.convey(&lb, "# nothing yet\n");
    let status = convey.status();
    assert_eq!(status.phase, Phase::Running);
    assert!(status.frontends.is_empty());
    assert!(Path::new(&status.config_file).ends_with("convey.toml"));
}
