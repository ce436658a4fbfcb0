//! What servers have to do to be up, shown with servers that do it, do something else, are slow, or say nothing.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, UdpSocket},
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use convey::base::ServerState;
use nix::sys::signal::Signal;

use crate::{
    Test,
    lab::{Convey, Host, Lab, PATIENCE, Process, servers::TcpServer, udp::UdpServer, wait_until},
    site::{backend, frontend},
    tests,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    real_servers_of_each_kind_are_up,
    a_redis_that_hangs_is_down_until_it_answers_again,
    a_postgresql_that_is_full_says_so,
    what_came_instead_of_the_expected_is_in_the_status,
    a_probe_begins_with_a_proxy_header_and_may_go_to_another_port,
    a_port_that_nobody_serves_by_udp_fails_at_once,
    a_silent_server_by_udp_passes_only_where_nothing_is_expected,
    flapping_is_one_event_for_each_change,
];

/// Settings of a fast check of some kind.
pub fn check(settings: &str) -> String {
    format!(
        "health_check = {{ {settings}, interval = \"200ms\", fast_interval = \"100ms\", timeout = \"1s\", rise = 1, fall = 1 }}"
    )
}

/// As [`check`], of one that would take an hour by itself.
fn patient_check(settings: &str) -> String {
    format!("health_check = {{ {settings}, interval = \"1h\", timeout = \"1h\", rise = 1, fall = 1 }}")
}

/// Convey with backends of one server `a` each.
pub fn convey(lb: &Host, backends: &[(&str, String, SocketAddr)]) -> Convey {
    let first = backends.first().expect("a backend").0;
    let config = backends.iter().fold(
        frontend("web", lb.addr(80), first, ""),
        |config, (name, settings, addr)| config + &backend(name, settings, &[("a", *addr, "")]),
    );
    Convey::start(lb, &config)
}

/// Waits until server `a` of a backend is in a state: why it is.
#[track_caller]
pub fn wait_state(convey: &Convey, backend: &str, wanted: ServerState) -> String {
    let mut reason = String::new();
    wait_until(&format!("{backend}/a is {wanted}"), PATIENCE, || {
        let server = convey.server(backend, "a");
        reason = server.state_reason.as_deref().unwrap_or_default().to_owned();
        server.state == wanted
    });
    reason
}

/// Waits until server `a` of a backend is down for a reason that begins so, and gives the whole of it. A check that was cut
/// short by a slow machine, or by the end of its server, has told another one before.
#[track_caller]
pub fn wait_down(convey: &Convey, backend: &str, why: &str) -> String {
    let mut reason = String::new();
    wait_until(&format!("{backend}/a is down: {why}"), PATIENCE, || {
        let server = convey.server(backend, "a");
        reason = server.state_reason.as_deref().unwrap_or_default().to_owned();
        server.state == ServerState::Down && reason.starts_with(why)
    });
    reason
}

fn listens(host: &Host, addr: SocketAddr) {
    wait_until(&format!("somebody listens at {addr}"), PATIENCE, || {
        host.try_connect(addr).is_ok()
    });
}

fn redis(host: &Host, settings: &str) -> (Process, SocketAddr) {
    let addr = host.addr(6379);
    let process = host.start(&format!(
        "exec redis-server --bind {} --port 6379 --protected-mode no --save '' --dir {} {settings}",
        host.ip4(),
        host.dir().display()
    ));
    listens(host, addr);
    (process, addr)
}

/// Answers each query with one datagram.
fn answering(host: &Host, port: u16, answer: impl Fn(&[u8]) -> Vec<u8> + Send + 'static) -> SocketAddr {
    let addr = host.addr(port);
    let socket = host.inside(|| UdpSocket::bind(addr)).expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    thread::spawn(move || {
        let mut buffer = [0; 2_048];
        while let Ok((len, from)) = socket.recv_from(&mut buffer) {
            socket.send_to(&answer(&buffer[..len]), from).ok();
        }
    });
    addr
}

/// As a server of time at stratum 2 answers.
fn time(query: &[u8]) -> Vec<u8> {
    let mut answer = vec![0; 48];
    (answer[0], answer[1]) = (0x24, 2);
    answer[24..32].copy_from_slice(&query[40..48]);
    answer
}

fn real_servers_of_each_kind_are_up() {
    let lab = Lab::new("kinds");
    let (lb, host) = (lab.host("lb"), lab.host("server"));
    let (_redis, redis) = redis(&host, "--requirepass secret");
    let smtp = TcpServer::smtp(&host, 25);
    // the greeting of a MariaDB 10.11
    let mysql = TcpServer::start(&host, 3306, |mut stream| {
        stream.write_all(
            b"d\0\0\0\n5.5.5-10.11.19-MariaDB-0+deb12u1\0\x03\0\0\0kx:V\"Bhd\0\xfe\xf7\x08\x02\0\xff\x81\x15\0\0\0\0\0\0\x1d\0\0\0\
              @OMt$N@71-1N\0mysql_native_password\0",
        )?;
        stream.read_to_end(&mut Vec::new()).map(drop)
    });
    let _dnsmasq = host.start(&format!(
        "exec dnsmasq --keep-in-foreground --conf-file=/dev/null --pid-file= --no-resolv --no-hosts --bind-interfaces \
         --listen-address={} --port=53 --address=/lab.test/192.0.2.1 --user=root",
        host.ip4()
    ));
    listens(&host, host.addr(53));
    let ntp = answering(&host, 123, time);
    let dns = host.addr(53);
    let convey = convey(
        &lb,
        &[
            ("redis", check("kind = \"redis\""), redis),
            ("smtp", check("kind = \"smtp\""), smtp.addr()),
            ("mysql", check("kind = \"mysql\""), mysql.addr()),
            ("root", check("kind = \"dns\""), dns),
            ("named", check("kind = \"dns\", name = \"www.lab.test\""), dns),
            (
                "unknown",
                check("kind = \"dns\", name = \"www.example.com\""),
                dns,
            ),
            ("ntp", check("kind = \"ntp\""), ntp),
            ("mistaken", check("kind = \"redis\""), smtp.addr()),
        ],
    );
    for backend in ["redis", "smtp", "mysql", "root", "named", "ntp"] {
        wait_state(&convey, backend, ServerState::Up);
    }
    let refused = "answered REFUSED";
    assert_eq!(wait_down(&convey, "unknown", refused), refused);
    wait_down(&convey, "mistaken", r#"answered "220 lab ESMTP\r\n"#);
}

fn a_redis_that_hangs_is_down_until_it_answers_again() {
    let lab = Lab::new("redis");
    let (lb, host) = (lab.host("lb"), lab.host("server"));
    let (mut process, addr) = redis(&host, "");
    let tcp = check("kind = \"tcp\"");
    let convey = convey(
        &lb,
        &[("redis", check("kind = \"redis\""), addr), ("tcp", tcp, addr)],
    );
    wait_state(&convey, "redis", ServerState::Up);
    process.signal(Signal::SIGSTOP);
    let silent = r#"no answer within 1s (expected "+PONG")"#;
    assert_eq!(wait_down(&convey, "redis", silent), silent);
    let server = convey.server("tcp", "a");
    assert_eq!(
        server.state,
        ServerState::Up,
        "the kernel accepts for it: {server:?}"
    );
    process.signal(Signal::SIGCONT);
    wait_state(&convey, "redis", ServerState::Up);
    process.kill();
    wait_down(&convey, "redis", "connection refused");
}

/// A PostgreSQL of user `nobody`, with one connection besides those of superusers.
fn postgresql(host: &Host) -> (Process, SocketAddr) {
    let found = fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL of Debian (run packaging/test)");
    let bin = found
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .find(|bin| bin.join("initdb").exists())
        .expect("initdb");
    let dir: PathBuf = host.path("postgresql");
    fs::create_dir(&dir).expect("a directory");
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).expect("open to all");
    let (bin, dir) = (bin.display(), dir.display());
    let user = "setpriv --reuid nobody --regid nogroup --clear-groups";
    host.run(&format!(
        "cd / && {user} {bin}/initdb -D {dir}/data -U watch -A trust -N --no-locale -E UTF8 && \
         echo 'host all all all trust' >>{dir}/data/pg_hba.conf"
    ));
    let process = host.start(&format!(
        "cd / && exec {user} {bin}/postgres -D {dir}/data -h {} -p 5432 -k {dir} -F -c max_connections=2 \
         -c superuser_reserved_connections=0 -c max_wal_senders=0 -c autovacuum=off",
        host.ip4()
    ));
    let addr = host.addr(5432);
    wait_until("PostgreSQL is ready", PATIENCE, || {
        let ready = format!("{bin}/pg_isready -q -h {} -p 5432", host.ip4());
        host.try_run(&ready).status.success()
    });
    (process, addr)
}

fn a_postgresql_that_is_full_says_so() {
    let lab = Lab::new("postgresql");
    let (lb, host) = (lab.host("lb"), lab.host("server"));
    let (mut process, addr) = postgresql(&host);
    let convey = convey(
        &lb,
        &[
            ("strange", check("kind = \"postgresql\""), addr),
            ("known", check("kind = \"postgresql\", user = \"watch\""), addr),
        ],
    );
    wait_state(&convey, "strange", ServerState::Up);
    wait_state(&convey, "known", ServerState::Up);
    // sessions that stay
    let startup = b"\0\0\0\x26\0\x03\0\0user\0watch\0database\0postgres\0\0";
    let hold = || {
        let mut stream = host.connect(addr);
        stream.write_all(startup).expect("a first message");
        let mut kind = [0];
        stream.read_exact(&mut kind).expect("an answer");
        (kind[0] == b'R').then_some(stream)
    };
    let mut held = Vec::new();
    wait_until("no connection is left", PATIENCE, || {
        held.extend(hold());
        held.len() >= 2
    });
    let reason = wait_down(&convey, "known", "PostgreSQL says: ");
    assert!(reason.ends_with("(53300)"), "{reason}");
    drop(held);
    wait_state(&convey, "known", ServerState::Up);
    process.kill();
    wait_state(&convey, "known", ServerState::Down);
}

fn what_came_instead_of_the_expected_is_in_the_status() {
    let lab = Lab::new("instead");
    let (lb, host) = (lab.host("lb"), lab.host("server"));
    let answers = |port, pieces: &'static [&'static str], pause: Duration| {
        TcpServer::start(&host, port, move |mut stream| {
            let mut line = String::new();
            BufReader::new(stream.try_clone()?).read_line(&mut line)?;
            for piece in pieces {
                stream.write_all(piece.as_bytes())?;
                thread::sleep(pause);
            }
            Ok(())
        })
    };
    let right = answers(1, &["+PONG\r\n"], Duration::ZERO);
    let slow = answers(2, &["+P", "ON", "G"], Duration::from_millis(100));
    let wrong = answers(3, &["-ERR \u{1b}[2Jno\r\n"], Duration::ZERO);
    let closes = answers(4, &["+PO"], Duration::ZERO);
    let too_slow = answers(5, &["+", "P"], PATIENCE);
    let mute = TcpServer::mute(&host, 6);
    let endless = TcpServer::start(&host, 7, |mut stream| {
        loop {
            stream.write_all(&[b'x'; 4_096])?;
        }
    });
    let probe = check("kind = \"probe\", send = \"PING\\r\\n\", expect = \"+PONG\"");
    let regex = check("kind = \"probe\", send = \"PING\\r\\n\", expect = { regex = '^[+-]\\w+\\s' }");
    let convey = convey(
        &lb,
        &[
            ("right", probe.clone(), right.addr()),
            ("slow", probe.clone(), slow.addr()),
            ("wrong", probe.clone(), wrong.addr()),
            ("closes", probe.clone(), closes.addr()),
            ("too_slow", probe.clone(), too_slow.addr()),
            ("mute", probe, mute.addr()),
            ("pattern", regex.clone(), wrong.addr()),
            ("endless", regex, endless.addr()),
        ],
    );
    for backend in ["right", "slow", "pattern"] {
        wait_state(&convey, backend, ServerState::Up);
    }
    for (backend, why) in [
        (
            "wrong",
            r#"answered "-ERR \x1b[2Jno\r\n" instead of "+PONG""#.to_owned(),
        ),
        (
            "closes",
            r#"closed the connection after "+PO" (expected "+PONG")"#.to_owned(),
        ),
        (
            "too_slow",
            r#"no more than "+" within 1s (expected "+PONG")"#.to_owned(),
        ),
        ("mute", r#"no answer within 1s (expected "+PONG")"#.to_owned()),
        (
            "endless",
            format!(
                "answered \"{}\"… instead of a match of \"^[+-]\\\\w+\\\\s\"",
                "x".repeat(60)
            ),
        ),
    ] {
        assert_eq!(wait_down(&convey, backend, &why), why, "{backend}");
    }
    let status = convey.order("status");
    assert!(
        status.contains(r#"answered "-ERR \x1b[2Jno\r\n" instead of "+PONG""#),
        "{status}"
    );
}

fn a_probe_begins_with_a_proxy_header_and_may_go_to_another_port() {
    let lab = Lab::new("header");
    let (lb, host) = (lab.host("lb"), lab.host("server"));
    let server = TcpServer::start(&host, 8081, |mut stream| {
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        let header = lines.next().transpose()?.unwrap_or_default();
        let asked = lines.next().transpose()?.unwrap_or_default();
        let is_right = header.starts_with("PROXY TCP4 ") && header.ends_with(" 8081") && asked == "PING";
        write!(stream, "{}\r\n", if is_right { "+PONG" } else { "-NO" })
    });
    let settings =
        "kind = \"probe\", send = \"PING\\r\\n\", expect = \"+PONG\", port = 8081, send_proxy = true";
    let settings = format!("send_proxy = \"v1\"\n{}", check(settings));
    let convey = convey(&lb, &[("a", settings, host.addr(8080))]);
    wait_state(&convey, "a", ServerState::Up);
    drop(server);
    wait_down(&convey, "a", "connection refused");
}

fn a_port_that_nobody_serves_by_udp_fails_at_once() {
    let lab = Lab::new("icmp");
    let (lb, host) = (lab.host("lb"), lab.host("server"));
    let config = frontend("web", lb.addr(80), "a", "")
        + &backend(
            "a",
            &patient_check("kind = \"probe\", protocol = \"udp\", send = \"x\""),
            &[("a", host.addr(999), "")],
        );
    let convey = Convey::start(&lb, &config);
    assert!(wait_state(&convey, "a", ServerState::Down).starts_with("connection refused"));
}

fn a_silent_server_by_udp_passes_only_where_nothing_is_expected() {
    let lab = Lab::new("silent");
    let (lb, host) = (lab.host("lb"), lab.host("server"));
    let silent = host.addr(514);
    let _socket = host.inside(|| UdpSocket::bind(silent)).expect("a socket");
    let echo = UdpServer::echo(&host, host.addr(7), "");
    let probe = |more: &str| {
        check(&format!(
            "kind = \"probe\", protocol = \"udp\", send = {{ hex = \"00ff\" }}{more}"
        ))
    };
    let convey = convey(
        &lb,
        &[
            ("log", probe(""), silent),
            ("mute", probe(", expect = { hex = \"00\" }"), silent),
            ("right", probe(", expect = { hex = \"00ff\" }"), echo.addr()),
            ("wrong", probe(", expect = \"x\""), echo.addr()),
        ],
    );
    wait_state(&convey, "log", ServerState::Up);
    wait_state(&convey, "right", ServerState::Up);
    let silent = r#"no answer within 1s (expected "\x00")"#;
    assert_eq!(wait_down(&convey, "mute", silent), silent);
    let other = r#"answered "\x00\xff" instead of "x""#;
    assert_eq!(wait_down(&convey, "wrong", other), other);
}

fn flapping_is_one_event_for_each_change() {
    let lab = Lab::new("flaps");
    let (lb, host) = (lab.host("lb"), lab.host("server"));
    let is_right = Arc::new(AtomicBool::new(true));
    let answer = Arc::clone(&is_right);
    let server = TcpServer::start(&host, 6379, move |mut stream| {
        let right = answer.load(Ordering::Relaxed);
        stream.write_all(if right { b"+PONG\r\n" } else { b"-LOADING\r\n" })
    });
    let convey = convey(&lb, &[("a", check("kind = \"redis\""), server.addr())]);
    wait_state(&convey, "a", ServerState::Up);
    const CHANGES: usize = 3;
    for _ in 0..CHANGES {
        is_right.store(false, Ordering::Relaxed);
        wait_state(&convey, "a", ServerState::Down);
        // several checks, one event
        let before = server.accepted();
        wait_until("it is checked again", PATIENCE, || server.accepted() > before + 2);
        is_right.store(true, Ordering::Relaxed);
        wait_state(&convey, "a", ServerState::Up);
    }
    let count = |event: &str| {
        let log = convey.stderr();
        log.lines()
            .filter(|line| line.contains(&format!("event=\"{event}\"")))
            .count()
    };
    wait_until("the last change is logged", PATIENCE, || {
        count("server_up") > CHANGES
    });
    assert_eq!((count("server_down"), count("server_up")), (CHANGES, CHANGES + 1));
}
