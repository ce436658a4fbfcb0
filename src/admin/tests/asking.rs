//! Whoever asks is answered by the admin thread alone, whatever else stands still; and how endpoints come and go.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    time::{Duration, SystemTime},
};

use socket2::{Domain, Socket, Type};

use super::{
    ask, connect,
    daemon::{Daemon, Loop, engine},
    parse, problem, read_all, read_to_end, status, wait_until,
};
use crate::{
    PATIENCE,
    admin::{
        EventRecord, Level, Live as _,
        http::HttpLimits,
        views::{self, Phase},
    },
};

#[test]
fn the_status_is_what_was_published_last_and_what_is_counted_now() {
    let daemon = Daemon::start(Loop::Stuck, HttpLimits::default());
    let first = status(&daemon);
    assert!(first.phase == Phase::Running && first.backends.contains_key("web %41"));
    assert_eq!((first.pid, first.log_events_dropped), (std::process::id(), 3));
    daemon.publish(|status| {
        status.phase = Phase::Stopping;
        status.last_reload_error = Some("unknown key".into());
    });
    let then = status(&daemon);
    assert!(then.phase == Phase::Stopping);
    assert_eq!(then.last_reload_error.as_deref(), Some("unknown key"));
}

#[test]
fn whoever_asks_is_answered_while_the_control_loop_answers_nothing() {
    let daemon = Daemon::start(Loop::Stuck, HttpLimits::default());
    // fills its queue of one
    let mut waiting = connect(&daemon.path);
    waiting
        .write_all(b"POST /v1/reload HTTP/1.0\r\n\r\n")
        .expect("write");
    for question in [
        "/v1/status",
        "/v1/backends",
        "/v1/backends/web%20%2541",
        "/v1/backends/web%20%2541/servers/gr%C3%B6%C3%9Fe%201%2F2",
        "/v1/connections",
        "/v1/explain?protocol=tcp&client=192.0.2.9:1&vip=192.0.2.1:80",
        "/v1/backend-script?frontend=f%201&server=gr%C3%B6%C3%9Fe%201%2F2",
    ] {
        assert_eq!(ask(&daemon.path, "GET", question, None).0, 200, "{question}");
    }
    let (address, _stats) = daemon.serve_stats();
    assert!(stats(address).expect("an answer").contains("total_connections"));
}

#[test]
fn a_change_that_the_control_loop_does_not_answer_is_504_in_bounded_time() {
    let limits = HttpLimits {
        reply: Duration::from_millis(10),
        reload: Duration::from_millis(10),
        ..HttpLimits::default()
    };
    let daemon = Daemon::start(Loop::Stuck, limits);
    let answer = ask(&daemon.path, "POST", "/v1/reload", None);
    assert_eq!(problem(&answer).status, 504);
    let daemon = Daemon::start(Loop::Stuck, limits);
    let drain = Some(r#"{"action":"drain"}"#);
    let answer = ask(&daemon.path, "POST", "/v1/backends/web/servers/a", drain);
    assert_eq!(problem(&answer).status, 504);
}

#[test]
fn stuck_workers_cost_the_list_of_connections_and_nothing_else() {
    let limits = HttpLimits {
        reply: Duration::from_millis(10),
        ..HttpLimits::default()
    };
    let daemon = Daemon::start(Loop::Answers, limits);
    daemon.live.workers_are_stuck();
    let answer = ask(&daemon.path, "GET", "/v1/connections", None);
    assert_eq!(problem(&answer).status, 504);
    status(&daemon);
}

#[test]
fn a_walk_through_all_flows_keeps_nobody_else_waiting() {
    let daemon = Daemon::start(Loop::Answers, HttpLimits::default());
    daemon.publish(|status| status.packet = Some(engine()));
    daemon.live.may_walk(false);
    let mut walking = connect(&daemon.path);
    walking
        .write_all(b"GET /v1/connections HTTP/1.0\r\n\r\n")
        .expect("write");
    assert!(daemon.heard().starts_with("ConnectionFilter"));
    assert_eq!(daemon.heard(), "a walk");
    assert!(status(&daemon).packet.is_some());
    daemon.live.may_walk(true);
    let (code, body) = parse(&read_all(&mut walking));
    let listed: views::Connections = serde_json::from_str(&body).expect("connections");
    assert_eq!((code, listed.total), (200, 7));
}

/// The answer to `GET /stats`; an error if nothing listens.
fn stats(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /stats HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn stats_are_served_until_their_guard_is_dropped_and_then_elsewhere() {
    let daemon = Daemon::start(Loop::Stuck, HttpLimits::default());
    let (old, guard) = daemon.serve_stats();
    let answer = stats(old).expect("an answer");
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    assert!(answer.contains("content-type: application/json"), "{answer}");
    let (new, _guard) = daemon.serve_stats();
    drop(guard);
    wait_until("the old port is free", || TcpStream::connect(old).is_err());
    assert!(stats(new).expect("an answer").starts_with("HTTP/1.0 200"));
    status(&daemon);
}

#[test]
fn who_listens_to_events_outlives_the_time_that_a_connection_has() {
    let limits = HttpLimits {
        connection: Duration::from_millis(20),
        last_answer: Duration::from_millis(20),
        ..HttpLimits::default()
    };
    let daemon = Daemon::start(Loop::Answers, limits);
    let mut listening = connect(&daemon.path);
    listening
        .write_all(b"GET /v1/events HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n")
        .expect("write");
    let mut said = String::new();
    read_until(&mut listening, &mut said, "retry:");
    // those that began later, and listen to nothing, have had their time one after the other
    for _ in 0..3 {
        assert_eq!(read_all(&mut connect(&daemon.path)), "");
    }
    daemon.live.events().add(EventRecord {
        at: SystemTime::now(),
        level: Level::Warning,
        name: "late".to_owned(),
        message: String::new(),
        fields: BTreeMap::new(),
    });
    read_until(&mut listening, &mut said, r#""event":"late""#);
}

/// Reads until this has come.
#[track_caller]
fn read_until(stream: &mut UnixStream, said: &mut String, part: &str) {
    let mut buffer = [0; 1_024];
    while !said.contains(part) {
        let read = stream.read(&mut buffer).expect("more");
        assert!(read > 0, "the end before {part}: {said}");
        said.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
}

#[test]
fn the_control_endpoint_can_end_before_the_others() {
    let mut daemon = Daemon::start(Loop::Stuck, HttpLimits::default());
    let (address, _guard) = daemon.serve_stats();
    let mut held = connect(&daemon.path);
    daemon.end_control();
    assert_eq!(read_to_end(&mut held), "");
    assert!(stats(address).is_ok());
}

#[test]
fn the_end_of_the_thread_ends_every_endpoint_and_every_connection() {
    let mut daemon = Daemon::start(Loop::Stuck, HttpLimits::default());
    let (address, _guard) = daemon.serve_stats();
    let mut held = connect(&daemon.path);
    daemon.end();
    assert_eq!(read_to_end(&mut held), "");
    assert!(TcpStream::connect(address).is_err());
    assert!(UnixStream::connect(&daemon.path).is_err());
}

#[test]
fn a_web_page_that_has_a_name_for_loopback_gets_no_stats() {
    let daemon = Daemon::start(Loop::Stuck, HttpLimits::default());
    let (address, _guard) = daemon.serve_stats();
    let ask = |host: &str| {
        let mut stream = TcpStream::connect(address).expect("connect");
        let request = format!("GET /stats HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("write");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        parse(&answer)
    };
    assert_eq!(ask("localhost:7000").0, 200);
    assert_eq!(ask(&address.to_string()).0, 200);
    let refused = ask("evil.example:7000");
    assert_eq!(refused.0, 403);
    let message = problem(&refused).message;
    assert!(
        message.contains("evil.example") && message.contains("listen_addr"),
        "{message}"
    );
}

#[test]
fn two_hundred_silent_connections_of_one_host_keep_no_other_from_the_stats() {
    let daemon = Daemon::start(Loop::Stuck, HttpLimits::default());
    let (address, _guard) = daemon.serve_stats();
    let _silent: Vec<_> = (0..200)
        .map(|_| TcpStream::connect(address).expect("connect"))
        .collect();
    let other = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let its_address = SocketAddr::from(([127, 0, 0, 2], 0));
    other.bind(&its_address.into()).expect("bind");
    other.connect(&address.into()).expect("connect");
    let mut other = TcpStream::from(other);
    other.write_all(b"GET /stats HTTP/1.0\r\n\r\n").expect("write");
    let mut answer = String::new();
    other.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
}

#[test]
fn who_has_a_share_of_the_connections_is_told_so_in_words() {
    let limits = HttpLimits {
        header: 10 * PATIENCE,
        per_peer: 2,
        ..HttpLimits::default()
    };
    let daemon = Daemon::start(Loop::Answers, limits);
    let _silent = [connect(&daemon.path), connect(&daemon.path)];
    let answer = ask(&daemon.path, "GET", "/v1/status", None);
    assert_eq!(answer.0, 503);
    let message = problem(&answer).message;
    assert!(message.starts_with("there are too many connections"), "{message}");
    assert!(
        message.contains("from your address, user or process"),
        "{message}"
    );
}
