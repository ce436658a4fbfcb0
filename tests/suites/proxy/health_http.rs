//! Servers that are checked by requests of HTTP, and over TLS.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};

use convey::base::ServerState;

use crate::{
    Test,
    health_kinds::{check, convey, wait_down, wait_state},
    lab::{Convey, Lab, servers::TcpServer},
    site::{backend, frontend},
    tests,
    tls_to_servers::{Spoken, tls},
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    a_request_is_judged_by_status_and_body,
    a_request_goes_over_tls_and_asks_for_http_1_1,
    a_probe_over_tls_reads_what_the_server_says,
];

fn a_request_is_judged_by_status_and_body() {
    let lab = Lab::new("http");
    let (lb, host) = (lab.host("lb"), lab.host("server"));
    let mut web = lab.nginx("web", "hello");
    let mute = TcpServer::mute(&host, 80);
    let smtp = TcpServer::smtp(&host, 25);
    let failing = TcpServer::start(&host, 81, |mut stream| {
        stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
    });
    let chunked = TcpServer::start(&host, 82, |mut stream| {
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        let asked = lines.next().transpose()?.unwrap_or_default();
        let host = lines.next().transpose()?.unwrap_or_default();
        let (size, says) = (asked.len() + host.len() + 2, format!("{asked}\r\n{host}"));
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{size:x}\r\n{says}\r\n"
        )?;
        // the answer has no end: what is expected was in it
        stream.read_to_end(&mut Vec::new()).map(drop)
    });
    let http = |more: &str| check(&format!("kind = \"http\"{more}"));
    let convey = convey(
        &lb,
        &[
            ("right", http(""), web.addr()),
            ("body", http(", expect = \"ell\""), web.addr()),
            ("other_body", http(", expect = { regex = '^jello' }"), web.addr()),
            (
                "other_status",
                http(", method = \"HEAD\", status = [204, \"300-399\"]"),
                web.addr(),
            ),
            ("failing", http(""), failing.addr()),
            (
                "chunked",
                http(
                    ", path = \"/a?b\", host = \"c:1\", method = \"OPTIONS\", expect = \"OPTIONS /a?b HTTP/1.1\\r\\nHost: c:1\"",
                ),
                chunked.addr(),
            ),
            ("mute", http(""), mute.addr()),
            ("smtp", http(""), smtp.addr()),
        ],
    );
    for backend in ["right", "body", "chunked"] {
        wait_state(&convey, backend, ServerState::Up);
    }
    for (backend, why) in [
        (
            "other_body",
            r#"answered 200 OK with "hello" instead of a match of "^jello" in it"#,
        ),
        ("other_status", "answered 200 OK instead of 204, 300-399"),
        ("failing", "answered 503 Service Unavailable instead of 200-399"),
        ("mute", "no answer within 1s (expected an answer of HTTP)"),
    ] {
        assert_eq!(wait_down(&convey, backend, why), why, "{backend}");
    }
    wait_down(&convey, "smtp", "answered \"220 lab ESMTP");
    web.kill();
    wait_down(&convey, "right", "connection refused");
    web.revive();
    wait_state(&convey, "right", ServerState::Up);
}

fn a_request_goes_over_tls_and_asks_for_http_1_1() {
    let spoken = Spoken::new("https");
    // one that clients speak HTTP/2 with
    let site = spoken
        .site(443, "web", "http2 on;")
        .replace("443 ssl", "443 ssl http2")
        .replace("http2 on;", "");
    let _nginx = spoken.nginx(&spoken.web, &site, 443);
    let settings = format!(
        "ca = \"{}\"\nserver_name = \"web.example\"\nalpn = [\"h2\", \"http/1.1\"]",
        spoken.pki.path("ca.pem")
    );
    let addr = spoken.web.addr(443);
    let other_name = settings.replace("web.example", "other.example");
    let config = [("right", &settings), ("other_name", &other_name)].iter().fold(
        frontend("web", spoken.lb.addr(80), "right", ""),
        |config, (name, settings)| {
            let check = check("kind = \"http\", host = \"web.example\", status = 200");
            config + &backend(name, &check, &[("a", addr, "")]) + &tls(name, settings)
        },
    );
    let convey = Convey::start(&spoken.lb, &config);
    wait_state(&convey, "right", ServerState::Up);
    let reason = wait_down(&convey, "other_name", "TLS: ");
    assert!(reason.contains("other.example"), "{reason}");
}

fn a_probe_over_tls_reads_what_the_server_says() {
    let spoken = Spoken::new("probetls");
    let _nginx = spoken.nginx(&spoken.web, &spoken.site(443, "web", ""), 443);
    let addr = spoken.web.addr(443);
    let probe = |expect: &str| {
        check(&format!(
            "kind = \"probe\", send = \"GET / HTTP/1.0\\r\\nHost: web.example\\r\\n\\r\\n\", expect = \"{expect}\""
        ))
    };
    let settings = format!(
        "ca = \"{}\"\nserver_name = \"web.example\"",
        spoken.pki.path("ca.pem")
    );
    let config = ["right", "wrong"]
        .iter()
        .zip(["HTTP/1.1 200 OK", "HTTP/1.1 204"])
        .fold(
            frontend("web", spoken.lb.addr(80), "right", ""),
            |config, (name, expect)| {
                config + &backend(name, &probe(expect), &[("a", addr, "")]) + &tls(name, &settings)
            },
        );
    let convey = Convey::start(&spoken.lb, &config);
    wait_state(&convey, "right", ServerState::Up);
    wait_down(&convey, "wrong", "answered \"HTTP/1.1 200 OK\\r\\n");
}
