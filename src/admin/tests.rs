//! The endpoint over a real unix socket.

mod asking;
pub(super) mod daemon;

use std::{
    cell::Cell,
    io::{ErrorKind, Read, Write},
    os::{fd::AsFd, unix::net::UnixStream},
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use super::{
    http::HttpLimits,
    views::{self, Problem, ServerAction, ServerRequest},
};
use crate::{PATIENCE, base::ServerState};
use daemon::{Daemon, Loop};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

fn connect(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("a read time-out");
    stream
}

/// Sends a request and reads until the end; status and body.
fn ask(path: &Path, method: &str, target: &str, body: Option<&str>) -> (u16, String) {
    let mut stream = connect(path);
    let body = body.map_or_else(String::new, |body| {
        format!(
            "Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    });
    let end = if body.is_empty() { "\r\n" } else { "" };
    let request = format!("{method} {target} HTTP/1.1\r\nHost: convey\r\nConnection: close\r\n{body}{end}");
    // the server may answer and close before it has read everything
    let _ = stream.write_all(request.as_bytes());
    parse(&read_all(&mut stream))
}

fn read_all(stream: &mut UnixStream) -> String {
    let mut bytes = Vec::new();
    // a reset after the answer is an end too
    let _ = stream.read_to_end(&mut bytes);
    String::from_utf8(bytes).expect("UTF-8")
}

/// As [`read_all`]; it must end in time.
fn read_to_end(stream: &mut UnixStream) -> String {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("{error} instead of the end"),
        _ => String::from_utf8(bytes).expect("UTF-8"),
    }
}

fn parse(answer: &str) -> (u16, String) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    (
        status.unwrap_or_else(|| panic!("no status in {answer:?}")),
        body.to_owned(),
    )
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "never: {what}");
        sleep(Duration::from_millis(5));
    }
}

fn problem(answer: &(u16, String)) -> Problem {
    let problem: Problem = serde_json::from_str(&answer.1).expect("a problem in JSON");
    assert_eq!(problem.status, answer.0);
    problem
}

fn status(daemon: &Daemon) -> views::Status {
    let (code, body) = ask(&daemon.path, "GET", "/v1/status", None);
    assert_eq!(code, 200, "{body}");
    serde_json::from_str(&body).expect("a status")
}

#[test]
fn a_failed_reload_is_422_with_the_text_for_the_terminal() {
    let daemon = Daemon::start(Loop::Answers, HttpLimits::default());
    let (code, body) = ask(&daemon.path, "POST", "/v1/reload", None);
    assert_eq!(code, 422);
    assert_eq!(problem(&(code, body)).message, "convey.toml:3:1: unknown key");
}

#[test]
fn names_travel_percent_encoded_with_any_character() {
    let daemon = Daemon::start(Loop::Answers, HttpLimits::default());
    let target = "/v1/backends/web%20%2541/servers/gr%C3%B6%C3%9Fe%201%2F2";
    let (code, _) = ask(
        &daemon.path,
        "POST",
        target,
        Some(r#"{"action":"weight","weight":3}"#),
    );
    assert_eq!(code, 200);
    assert_eq!(daemon.heard(), r#"weight 3 of "größe 1/2" in "web %41""#);
    let (code, body) = ask(&daemon.path, "GET", target, None);
    assert_eq!(code, 200, "{body}");
    let server: views::Server = serde_json::from_str(&body).expect("a server");
    assert!(server.state == ServerState::Up && server.eligible);
    let answer = ask(&daemon.path, "GET", "/v1/backends/%FF", None);
    assert_eq!(problem(&answer).status, 400);
}

#[test]
fn every_action_has_its_json_form() {
    let daemon = Daemon::start(Loop::Answers, HttpLimits::default());
    for action in [
        ServerAction::Drain,
        ServerAction::Ready,
        ServerAction::Maintenance,
        ServerAction::Weight { weight: 0 },
    ] {
        for (force, heard) in [(false, ""), (true, ", forced")] {
            let body = serde_json::to_string(&ServerRequest { action, force }).expect("JSON");
            let (code, _) = ask(&daemon.path, "POST", "/v1/backends/b/servers/s", Some(&body));
            assert_eq!(code, 200);
            assert_eq!(daemon.heard(), format!(r#"{action}{heard} of "s" in "b""#));
        }
    }
}

#[test]
fn a_name_that_does_not_exist_is_404_with_the_known_ones() {
    let daemon = Daemon::start(Loop::Answers, HttpLimits::default());
    let answer = ask(&daemon.path, "GET", "/v1/backends/web%2041", None);
    assert_eq!(answer.0, 404);
    assert!(
        problem(&answer).message.contains("did you mean `web %41`?"),
        "{answer:?}"
    );
}

#[test]
fn an_unknown_path_is_404_and_a_wrong_method_405_in_json() {
    let daemon = Daemon::start(Loop::Answers, HttpLimits::default());
    assert_eq!(problem(&ask(&daemon.path, "GET", "/v2/status", None)).status, 404);
    let answer = ask(&daemon.path, "GET", "/v1/reload", None);
    assert_eq!(problem(&answer).status, 405);
    assert_eq!(problem(&answer).message, "method GET not allowed on /v1/reload");
}

#[test]
fn connections_are_filtered_and_limited() {
    let daemon = Daemon::start(Loop::Answers, HttpLimits::default());
    let (code, _) = ask(&daemon.path, "GET", "/v1/connections?backend=web%20%2541", None);
    assert_eq!(code, 200);
    let expected = views::ConnectionFilter {
        backend: Some("web %41".into()),
        ..Default::default()
    };
    assert_eq!(daemon.heard(), format!("{expected:?}, at most 1000"));
    for wrong in ["limit=100001", "limit=-1", "lmit=3"] {
        let answer = ask(&daemon.path, "GET", &format!("/v1/connections?{wrong}"), None);
        assert_eq!(problem(&answer).status, 400, "{wrong}");
    }
}

#[test]
fn a_five_tuple_is_explained_if_it_is_one() {
    let daemon = Daemon::start(Loop::Answers, HttpLimits::default());
    let target =
        "/v1/explain?protocol=udp&client=%5B2001%3Adb8%3A%3A1%5D%3A9&vip=%5B2001%3Adb8%3A%3A2%5D%3A53";
    let (code, body) = ask(&daemon.path, "GET", target, None);
    assert_eq!(code, 200, "{body}");
    assert_eq!(daemon.heard(), "udp [2001:db8::1]:9 [2001:db8::2]:53");
    assert!(body.contains(r#""because":"not_served""#), "{body}");
    for wrong in [
        "",
        "protocol=sctp&client=10.0.0.1:1&vip=10.0.0.2:80",
        "protocol=tcp&client=10.0.0.1&vip=10.0.0.2:80",
        "protocol=tcp&client=10.0.0.1:1&vip=[::1]:80",
        "protocol=tcp&client=10.0.0.1:1&vip=10.0.0.2:80&x=1",
    ] {
        let answer = ask(&daemon.path, "GET", &format!("/v1/explain?{wrong}"), None);
        assert_eq!(problem(&answer).status, 400, "{wrong}");
    }
}

#[test]
fn the_script_of_a_server_is_plain_text() {
    let daemon = Daemon::start(Loop::Answers, HttpLimits::default());
    let (code, body) = ask(
        &daemon.path,
        "GET",
        "/v1/backend-script?frontend=f%201&server=gr%C3%B6%C3%9Fe%201%2F2",
        None,
    );
    assert_eq!((code, body.as_str()), (200, "#!/bin/sh\n"));
    assert_eq!(daemon.heard(), r#"script for "größe 1/2" of "f 1""#);
    let answer = ask(&daemon.path, "GET", "/v1/backend-script?frontend=f", None);
    assert_eq!(problem(&answer).status, 400);
    let answer = ask(
        &daemon.path,
        "GET",
        "/v1/backend-script?frontend=f%201&server=x",
        None,
    );
    assert_eq!((answer.0, problem(&answer).message.as_str()), (404, "no x"));
    let answer = ask(
        &daemon.path,
        "GET",
        "/v1/backend-script?frontend=f%202&server=x",
        None,
    );
    assert!(
        problem(&answer).message.contains("did you mean `f 1`?"),
        "{answer:?}"
    );
}

#[test]
fn a_body_that_is_no_order_is_refused_with_the_reason() {
    let daemon = Daemon::start(Loop::Answers, HttpLimits::default());
    let target = "/v1/backends/b/servers/s";
    let refused = |body: &str| problem(&ask(&daemon.path, "POST", target, Some(body)));
    assert!(
        refused(r#"{"action":"explode"}"#)
            .message
            .contains("expected one of")
    );
    assert_eq!(refused(r#"{"action":"weight","weight":70000}"#).status, 400);
    assert_eq!(refused(&" ".repeat(20 << 10)).status, 413);
    assert_eq!(problem(&ask(&daemon.path, "POST", target, None)).status, 415);
}

#[test]
fn a_header_that_is_too_long_is_refused() {
    let daemon = Daemon::start(Loop::Answers, HttpLimits::default());
    let (code, _) = ask(
        &daemon.path,
        "GET",
        &format!("/v1/status?{}", "x".repeat(70_000)),
        None,
    );
    assert!([414, 431].contains(&code), "{code}");
    let mut stream = connect(&daemon.path);
    let _ = stream.write_all(&[0xff; 1000]);
    assert_eq!(parse(&read_all(&mut stream)).0, 400, "binary junk");
}

#[test]
fn a_control_loop_that_is_behind_is_503_at_once() {
    let daemon = Daemon::start(Loop::Stuck, HttpLimits::default());
    let mut waiting: Vec<_> = (0..3).map(|_| connect(&daemon.path)).collect();
    for client in &mut waiting {
        client
            .write_all(b"POST /v1/reload HTTP/1.0\r\n\r\n")
            .expect("write");
    }
    while waiting.len() > 1 {
        let mut client = waiting.remove(first_answered(&waiting));
        assert_eq!(problem(&parse(&read_all(&mut client))).status, 503);
    }
    // one sits in the queue of one, while another is answered
    assert_eq!(ask(&daemon.path, "POST", "/v1/reload", None).0, 503);
    waiting[0]
        .set_nonblocking(true)
        .expect("a stream that does not block");
    let error = waiting[0].read(&mut [0]).expect_err("no answer");
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
}

/// Which of them is answered first.
fn first_answered(clients: &[UnixStream]) -> usize {
    let mut fds: Vec<_> = (clients.iter())
        .map(|client| PollFd::new(client.as_fd(), PollFlags::POLLIN))
        .collect();
    let patience = PollTimeout::try_from(PATIENCE).expect("a time-out");
    assert_ne!(poll(&mut fds, patience), Ok(0), "nobody is answered");
    let is_ready = |fd: &PollFd<'_>| fd.any() == Some(true);
    fds.iter().position(is_ready).expect("one that is ready")
}

#[test]
fn silent_and_slow_clients_hold_up_nobody() {
    // they may stay longer than the test has patience
    let limits = HttpLimits {
        header: 10 * PATIENCE,
        body: 10 * PATIENCE,
        ..HttpLimits::default()
    };
    let daemon = Daemon::start(Loop::Answers, limits);
    let _slow = silent_and_slow(&daemon.path);
    assert_eq!(ask(&daemon.path, "GET", "/v1/status", None).0, 200);
}

#[test]
fn silent_and_slow_clients_lose_their_place() {
    let limits = HttpLimits {
        header: Duration::from_secs(1),
        body: Duration::from_secs(1),
        ..HttpLimits::default()
    };
    let daemon = Daemon::start(Loop::Answers, limits);
    let [mut silent, mut half, mut bodiless] = silent_and_slow(&daemon.path);
    assert_eq!(read_to_end(&mut silent), "");
    assert!(["", "408"].contains(&read_to_end(&mut half).split(' ').nth(1).unwrap_or("")));
    assert_eq!(parse(&read_to_end(&mut bodiless)).0, 408);
}

/// One that says nothing, one that stops in the header, one that stops in the body.
fn silent_and_slow(path: &Path) -> [UnixStream; 3] {
    let [silent, mut half, mut bodiless] = [(); 3].map(|()| connect(path));
    half.write_all(b"GET /v1/sta").expect("write");
    let head = "POST /v1/backends/b/servers/s HTTP/1.1\r\nHost: c\r\nContent-Type: application/json\r\n";
    write!(
        bodiless,
        "{head}Content-Length: 20\r\nConnection: close\r\n\r\n{{"
    )
    .expect("write");
    [silent, half, bodiless]
}

#[test]
fn a_connection_is_kept_for_further_requests_but_not_idle() {
    let limits = HttpLimits {
        header: Duration::from_secs(2),
        ..HttpLimits::default()
    };
    let daemon = Daemon::start(Loop::Answers, limits);
    let mut stream = connect(&daemon.path);
    let request = b"GET /v1/connections HTTP/1.1\r\nHost: convey\r\n\r\n";
    for _ in 0..2 {
        stream.write_all(request).expect("write");
        let mut buffer = [0; 4096];
        let read = stream.read(&mut buffer).expect("an answer");
        assert_eq!(parse(&String::from_utf8_lossy(&buffer[..read])).0, 200);
    }
    assert_eq!(read_to_end(&mut stream), "", "idle for too long");
}

#[test]
fn no_connection_lives_longer_than_its_time_however_busy() {
    let limits = HttpLimits {
        connection: Duration::from_millis(500),
        ..HttpLimits::default()
    };
    let daemon = Daemon::start(Loop::Answers, limits);
    let mut stream = connect(&daemon.path);
    let started = Instant::now();
    let mut buffer = [0; 4096];
    while stream
        .write_all(b"GET /v1/connections HTTP/1.1\r\nHost: c\r\n\r\n")
        .is_ok()
        && stream.read(&mut buffer).is_ok_and(|read| read > 0)
    {
        assert!(started.elapsed() < PATIENCE, "it goes on for ever");
        sleep(Duration::from_millis(20));
    }
}

#[test]
fn one_connection_too_many_is_told_so_and_counted() {
    let limits = HttpLimits {
        connections: 2,
        ..HttpLimits::default()
    };
    let daemon = Daemon::start(Loop::Answers, limits);
    let held = [connect(&daemon.path), connect(&daemon.path)];
    let mut third = connect(&daemon.path);
    let answer = parse(&read_all(&mut third));
    assert_eq!(problem(&answer).status, 503);
    drop(held);
    let refused = Cell::new(1);
    wait_until("the places are given back", || {
        let is_served = ask(&daemon.path, "GET", "/v1/connections", None).0 == 200;
        refused.set(refused.get() + u64::from(!is_served));
        is_served
    });
    // it may come before the last has gone
    wait_until("the status is had", || {
        let (code, body) = ask(&daemon.path, "GET", "/v1/status", None);
        refused.set(refused.get() + u64::from(code == 503));
        code == 200 && body.contains(&format!("\"admin_connections_refused\":{},", refused.get()))
    });
}

#[test]
fn every_order_is_logged_with_who_gave_it_and_no_question_is() {
    let daemon = Daemon::start(Loop::Answers, HttpLimits::default());
    ask(&daemon.path, "GET", "/v1/status", None);
    assert_eq!(daemon.log.text(), "");
    ask(&daemon.path, "POST", "/v1/reload", None);
    let drain = Some(r#"{"action":"drain"}"#);
    ask(&daemon.path, "POST", "/v1/backends/web/servers/a", drain);
    let log = daemon.log.text();
    let lines: Vec<_> = log.lines().collect();
    let who = format!("uid={} pid={}", nix::unistd::getuid(), std::process::id());
    assert_eq!(lines.len(), 2, "{log}");
    for (line, what) in lines.iter().zip(["reload", "drain web/a"]) {
        assert!(
            line.contains(&who) && line.contains(&format!("what=\"{what}\"")),
            "{line}"
        );
    }
}

#[test]
fn a_name_that_would_break_a_log_line_is_refused() {
    let daemon = Daemon::start(Loop::Answers, HttpLimits::default());
    let drain = Some(r#"{"action":"drain"}"#);
    let answer = ask(&daemon.path, "POST", "/v1/backends/a%0Ab/servers/a", drain);
    assert_eq!(
        problem(&answer).message,
        "a name must not contain control characters"
    );
    assert_eq!(daemon.log.text(), "");
}

#[test]
fn a_client_that_has_closed_its_half_still_gets_its_answer() {
    let daemon = Daemon::start(Loop::Answers, HttpLimits::default());
    let mut stream = connect(&daemon.path);
    stream
        .write_all(b"GET /v1/status HTTP/1.0\r\n\r\n")
        .expect("write");
    stream.shutdown(std::net::Shutdown::Write).expect("shutdown");
    assert_eq!(parse(&read_all(&mut stream)).0, 200);
}
