//! Answers, right and wrong, whole and in pieces. What MariaDB and PostgreSQL say is as they have sent it.

use proptest::prelude::*;

use super::*;
use crate::config::{HttpMethod, Probe, ProbeBytes, StatusRange};

fn text(text: &str) -> ProbeBytes {
    ProbeBytes::Text(text.to_owned())
}

fn probe(send: Option<&str>, expect: Option<Expected>) -> Check {
    Check::Probe(Probe {
        protocol: Protocol::Tcp,
        send: send.map(text),
        expect,
    })
}

fn begins(with: &str) -> Check {
    probe(Some("PING\r\n"), Some(Expected::Begins(text(with))))
}

fn matches(pattern: &str) -> Check {
    probe(None, Some(Expected::Matches(ProbeRegex::new(pattern).unwrap())))
}

fn postgresql() -> Check {
    Check::Postgresql {
        user: "convey".to_owned(),
    }
}

fn dns(name: Option<&str>) -> Check {
    Check::Dns {
        name: name.map(str::to_owned),
    }
}

fn every_kind() -> Vec<Check> {
    vec![
        begins("+PONG"),
        matches(r"^\d+ OK"),
        probe(Some("x"), None),
        http("", None),
        http("", Some("ready")),
        Check::Redis,
        postgresql(),
        Check::Mysql,
        Check::Smtp,
        dns(None),
        dns(Some("www.example.com")),
        Check::Ntp,
    ]
}

fn server() -> ServerAddr {
    "10.0.0.1:80".parse().unwrap()
}

fn judge(check: &Check, answer: &[u8], end: End) -> Verdict {
    Dialogue::of(check, server(), RANDOM).unwrap().judge(answer, end)
}

/// Of a dialogue that has just this in its query.
const RANDOM: u64 = 0x1234_5678_9abc_def0;

#[track_caller]
fn passes(check: &Check, answer: &[u8]) {
    assert_eq!(
        judge(check, answer, End::Open),
        Verdict::Passed,
        "{}",
        quoted(answer)
    );
    // whatever its pieces are, none of them decides otherwise
    for cut in 0..answer.len() {
        let begin = judge(check, &answer[..cut], End::Open);
        assert!(
            matches!(begin, Verdict::More | Verdict::Passed),
            "{begin:?} after {cut} bytes"
        );
    }
}

#[track_caller]
fn fails(check: &Check, answer: &[u8], end: End) -> String {
    match judge(check, answer, end) {
        Verdict::Failed(fault) => fault.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_came_instead_is_said() {
    let pong = begins("+PONG");
    passes(&pong, b"+PONG\r\n");
    assert_eq!(
        fails(&pong, b"-ERR unknown command 'PING'\r\n", End::Open),
        r#"answered "-ERR unknown command 'PING'\r\n" instead of "+PONG""#
    );
    assert_eq!(
        fails(&pong, b"\0\x1b[31m\"\xff", End::Open),
        r#"answered "\x00\x1b[31m\"\xff" instead of "+PONG""#
    );
    let long = fails(&pong, &[b'a'; 10_000], End::Open);
    assert_eq!(
        long,
        format!("answered \"{}\"… instead of \"+PONG\"", "a".repeat(60))
    );
    assert_eq!(
        fails(&pong, b"+PO", End::Closed),
        r#"closed the connection after "+PO" (expected "+PONG")"#
    );
    assert_eq!(
        fails(&pong, b"", End::Closed),
        r#"closed the connection without an answer (expected "+PONG")"#
    );
    let dialogue = Dialogue::of(&pong, server(), 0).unwrap();
    let silent = |so_far: &[u8]| dialogue.silent(so_far, Duration::from_secs(1)).to_string();
    assert_eq!(silent(b""), r#"no answer within 1s (expected "+PONG")"#);
    assert_eq!(silent(b"+P"), r#"no more than "+P" within 1s (expected "+PONG")"#);
}

#[test]
fn a_pattern_may_be_anywhere_and_is_waited_for() {
    let ok = matches(r"\d+ OK");
    passes(&ok, b"hello\r\n200 OK");
    assert_eq!(judge(&ok, b"hello\r\n200", End::Open), Verdict::More);
    assert_eq!(
        fails(&ok, b"no", End::Whole),
        r#"answered "no" instead of a match of "\\d+ OK""#
    );
}

#[test]
fn bytes_are_sent_as_they_are_written() {
    let hex = Check::Probe(Probe {
        protocol: Protocol::Udp,
        send: ProbeBytes::from_hex("00 ff"),
        expect: None,
    });
    let dialogue = Dialogue::of(&hex, server(), 0).unwrap();
    assert_eq!(
        (dialogue.protocol, dialogue.first.as_slice()),
        (Protocol::Udp, &[0, 0xff][..])
    );
    assert!(dialogue.wants_nothing());
    assert!(
        Dialogue::of(&Check::Tcp, server(), 0).is_none(),
        "a connect says it all"
    );
}

fn http(status: &str, expect: Option<&str>) -> Check {
    Check::Http(HttpCheck {
        method: HttpMethod::Get,
        path: "/ready".into(),
        host: None,
        status: vec![status.parse().unwrap_or(StatusRange::DEFAULT)],
        expect: expect.map(|expect| Expected::Begins(text(expect))),
    })
}

#[test]
fn an_answer_of_http_is_judged_by_its_status() {
    passes(&http("", None), b"HTTP/1.1 200 OK\r\n");
    passes(&http("", None), b"HTTP/1.0 302\n");
    passes(
        &http("204", None),
        b"HTTP/1.1 100 Continue\r\nA: b\r\n\r\nHTTP/1.1 204 No Content\r\n",
    );
    assert_eq!(
        fails(
            &http("", None),
            b"HTTP/1.1 503 Service Unavailable\r\n",
            End::Open
        ),
        "answered 503 Service Unavailable instead of 200-399"
    );
    for wrong in [
        &b"SSH-2.0-x"[..],
        b"HTTP/2 200\r\n",
        b"HTTP/1.1 20\r\n",
        b"HTTP/1.1 2000\r\n",
        b"\n",
    ] {
        let why = fails(&http("", None), wrong, End::Open);
        assert!(why.ends_with("instead of an answer of HTTP"), "{why}");
    }
    let first = Dialogue::of(&http("", None), server(), 0).unwrap().first;
    let request = String::from_utf8(first).unwrap();
    assert!(
        request.starts_with("GET /ready HTTP/1.1\r\nHost: 10.0.0.1:80\r\n"),
        "{request}"
    );
    assert!(request.ends_with("\r\nConnection: close\r\n\r\n"), "{request}");
}

#[test]
fn a_body_of_http_has_what_is_expected_however_it_comes() {
    let ready = http("", Some("ready"));
    passes(
        &ready,
        b"HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\nI am ready.\n",
    );
    passes(
        &ready,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n3;x=y\r\nI r\r\n4\r\neady\r\n0\r\n\r\n",
    );
    passes(&ready, b"HTTP/1.0 200 OK\n\nready");
    let not_yet = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nnot yet, says a second answer: ready";
    assert_eq!(
        fails(&ready, not_yet, End::Open),
        r#"answered 200 OK with "not yet" instead of "ready" in it"#
    );
    let cut = b"HTTP/1.1 200 OK\r\n\r\nrea";
    assert_eq!(judge(&ready, cut, End::Open), Verdict::More);
    assert_eq!(
        fails(&ready, cut, End::Closed),
        r#"answered 200 OK with "rea" instead of "ready" in it"#
    );
    let chunk = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nready";
    assert_eq!(
        fails(&ready, chunk, End::Open),
        r#"answered 200 OK with "" instead of "ready" in it"#
    );
}

#[test]
fn redis_is_there_if_it_wants_a_password_and_not_while_it_loads() {
    passes(&Check::Redis, b"+PONG\r\n");
    passes(&Check::Redis, b"-NOAUTH Authentication required.\r\n");
    assert_eq!(
        fails(
            &Check::Redis,
            b"-LOADING Redis is loading the dataset in memory\r\n",
            End::Open
        ),
        r#"answered "-LOADING Redis is loading the dataset in memory\r\n" instead of "+PONG""#
    );
}

#[test]
fn a_greeting_of_smtp_is_heard_to_its_end() {
    passes(
        &Check::Smtp,
        b"220 mail.example.com ESMTP Postfix (Debian/GNU)\r\n",
    );
    passes(&Check::Smtp, b"220-one\r\n220-two\r\n220 three\r\n");
    passes(&Check::Smtp, b"220\r\n");
    assert_eq!(
        judge(&Check::Smtp, b"220-one\r\n220 tw", End::Open),
        Verdict::More
    );
    for wrong in [
        &b"554 no\r\n"[..],
        b"421 4.3.2 too busy\r\n",
        b"220-one\r\n421 no\r\n",
        b"2200",
        b"SSH-2.0-OpenSSH\r\n",
    ] {
        assert!(fails(&Check::Smtp, wrong, End::Open).ends_with("instead of \"220 \""));
    }
}

/// As MariaDB 10.11 greets.
const MARIADB: &[u8] = b"d\0\0\0\n5.5.5-10.11.19-MariaDB-0+deb12u1\0\x03\0\0\0kx:V\"Bhd\0\xfe\xf7\x08\x02\0\xff\x81\x15\0\0\0\0\0\0\x1d\0\0\0@OMt$N@71-1N\0mysql_native_password\0";

#[test]
fn a_greeting_of_mysql_is_told_from_an_error() {
    passes(&Check::Mysql, MARIADB);
    let error = |text: &[u8], code: u16| {
        let body = [&[0xff][..], &code.to_le_bytes(), text].concat();
        [&[u8::try_from(body.len()).unwrap(), 0, 0, 0], &body[..]].concat()
    };
    let full = error(b"Too many connections", 1040);
    assert_eq!(
        fails(&Check::Mysql, &full, End::Open),
        "MySQL says: Too many connections (1040)"
    );
    assert_eq!(judge(&Check::Mysql, &full[..7], End::Open), Verdict::More);
    let later = error(b"#08004Too many connections", 1040);
    assert_eq!(
        fails(&Check::Mysql, &later, End::Open),
        "MySQL says: Too many connections (1040)"
    );
    for wrong in [
        &b"SSH-2.0-x"[..],
        &[0, 0, 0, 0],
        &[9, 0, 0, 1, 10, 0, 0, 0],
        &[4, 0, 0, 0, 9, 0, 0, 0],
        &[1, 1, 1],
    ] {
        let why = fails(&Check::Mysql, wrong, End::Open);
        assert!(why.ends_with("instead of a greeting of MySQL"), "{why}");
    }
}

#[test]
fn postgresql_is_up_if_it_asks_who_we_are_or_does_not_know_us() {
    let check = postgresql();
    let error = |code: &str, message: &str| {
        let body =
            format!("SFATAL\0VFATAL\0C{code}\0M{message}\0Fpostmaster.c\0L2368\0RProcessStartupPacket\0\0");
        let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        [b"E", &length[..], body.as_bytes()].concat()
    };
    passes(&check, b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0");
    passes(&check, b"R\0\0\0\x08\0\0\0\0S\0\0\0\x16application_name\0");
    passes(
        &check,
        &error(
            "28000",
            "no pg_hba.conf entry for host \"10.77.0.2\", user \"convey\"",
        ),
    );
    for (code, message) in [
        ("57P03", "the database system is starting up"),
        ("57P03", "the database system is shutting down"),
        ("53300", "sorry, too many clients already"),
    ] {
        let why = fails(&check, &error(code, message), End::Open);
        assert_eq!(why, format!("PostgreSQL says: {message} ({code})"));
    }
    for wrong in [
        &b"HTTP/1.1 400 Bad Request\r\n"[..],
        b"E\0\0\0\0",
        b"Ecould not fork\0",
        b"R\xff\xff\xff\xff",
    ] {
        let why = fails(&check, wrong, End::Open);
        assert!(why.ends_with("instead of an answer of PostgreSQL"), "{why}");
    }
    assert_eq!(judge(&check, b"E\0\0\0\x50SFATAL", End::Open), Verdict::More);
}

#[test]
fn an_answer_of_dns_is_to_our_query() {
    let answer = |flags: u8, codes: u8| [&[0x12, 0x34, flags, codes, 0, 1][..], &[0; 11]].concat();
    for (name, codes) in [
        (None, 0),
        (None, 3),
        (None, 5),
        (Some("a.example"), 0),
        (None, 0x80),
    ] {
        let got = judge(&dns(name), &answer(0x81, codes), End::Whole);
        assert_eq!(got, Verdict::Passed, "{name:?} {codes}");
    }
    for (name, code, why) in [
        (None, 2, "answered SERVFAIL"),
        (None, 1, "answered FORMERR"),
        (Some("a.example"), 3, "answered NXDOMAIN"),
        (Some("a.example"), 5, "answered REFUSED"),
        (None, 11, "answered response code 11"),
    ] {
        assert_eq!(fails(&dns(name), &answer(0x81, code), End::Whole), why);
    }
    let mut another = answer(0x81, 0);
    another[1] = 0x35;
    for wrong in [another, answer(0x01, 0), b"\x12\x34".to_vec(), Vec::new()] {
        let why = fails(&dns(None), &wrong, End::Whole);
        assert!(why.ends_with("instead of an answer of DNS"), "{why}");
    }
}

#[test]
fn a_query_of_dns_is_as_the_rfc_has_it() {
    let first = |check: &Check| Dialogue::of(check, server(), RANDOM).unwrap().first;
    let root = [&[0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], &[0, 0, 6, 0, 1]].concat();
    assert_eq!(first(&dns(None)), root);
    let named = [&root[..12], b"\x03www\x07example\0", &[0, 1, 0, 1]].concat();
    assert_eq!(first(&dns(Some("www.example"))), named);
}

#[test]
fn an_answer_of_ntp_repeats_our_time_and_is_synchronised() {
    let query = Dialogue::of(&Check::Ntp, server(), RANDOM).unwrap().first;
    assert_eq!((query.len(), query[0]), (48, 0x23));
    let answer = |first: u8, stratum: u8| {
        let mut answer = vec![0; 48];
        (answer[0], answer[1]) = (first, stratum);
        answer[12..16].copy_from_slice(b"RATE");
        answer[24..32].copy_from_slice(&query[40..]);
        answer
    };
    assert_eq!(judge(&Check::Ntp, &answer(0x24, 10), End::Whole), Verdict::Passed);
    for (first, stratum, why) in [
        (0xe4, 2, "its clock is not synchronised"),
        (0x24, 16, "its clock is not synchronised"),
        (0x24, 0, "refused with \"RATE\""),
    ] {
        assert_eq!(fails(&Check::Ntp, &answer(first, stratum), End::Whole), why);
    }
    let mut another = answer(0x24, 2);
    another[31] ^= 1;
    for wrong in [another, query.clone(), answer(0x24, 2)[..47].to_vec(), Vec::new()] {
        let why = fails(&Check::Ntp, &wrong, End::Whole);
        assert!(why.ends_with("instead of an answer of NTP"), "{why}");
    }
}

proptest! {
    /// Nothing that a server sends ends in a panic, goes on after its end, or makes a long text.
    #[test]
    fn whatever_comes_has_a_short_verdict(
        begin in prop::sample::select(vec![&b""[..], b"HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n", b"HTTP/1.1 100 \r\n\r\nHTTP", b"E\0\0", b"R\0\0\0", b"\x10\0\0\0\xff", b"\x12\x34\x81", b"220-", b"\x24\x02"]),
        rest in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let answer = [begin, &rest].concat();
        for check in every_kind() {
            for end in [End::Open, End::Closed, End::Whole] {
                match judge(&check, &answer, end) {
                    Verdict::More => prop_assert_eq!(end, End::Open),
                    Verdict::Failed(fault) => {
                        let text = fault.to_string();
                        prop_assert!(text.chars().count() < 500 && !text.chars().any(char::is_control), "{}", text);
                    }
                    Verdict::Passed => {}
                }
            }
        }
    }
}
