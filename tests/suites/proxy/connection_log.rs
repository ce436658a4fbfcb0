//! Where lines about connections go besides the journal: files that are rotated, syslog servers; and that none of them holds
//! up connections.

use std::{
    collections::BTreeMap,
    fs,
    io::Read as _,
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::unix::{fs::PermissionsExt as _, net::UnixDatagram},
    path::{Path, PathBuf},
};

use convey::base::TerminationReason;
use nix::sys::signal::Signal;

use crate::{
    Test,
    lab::{Convey, Host, PATIENCE, load::Wrk, open_to_all, wait_until},
    site::{BLIND, FAST_CHECK, NO_CHECK, Site, backend, frontend},
    tests,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    a_file_that_is_renamed_under_traffic_loses_no_line,
    syslog_servers_get_what_rfc_5424_says_over_udp_and_tcp_and_at_a_socket,
    one_of_ten_connections_is_logged_and_every_one_that_failed,
    a_dead_server_and_a_missing_directory_hold_up_nobody_and_are_told_of,
];

/// More than any of these tests makes a second.
const UNBOUNDED: &str = "[global]\nwatch_config = false\naccess_log_per_second = 1_000_000\n";

/// A directory that the daemon's user may write to.
fn directory(host: &Host, name: &str) -> PathBuf {
    let path = host.path(name);
    fs::create_dir_all(&path).expect("a directory");
    open_to_all(&path);
    path
}

fn lines(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    assert!(text.is_empty() || text.ends_with('\n'), "the last line is whole");
    text.lines().map(str::to_owned).collect()
}

fn a_file_that_is_renamed_under_traffic_loses_no_line() {
    let site = Site::new("log-rotate", 1);
    let logs = directory(&site.lb, "logs");
    let (now, at) = (logs.join("web.log"), |n: usize| logs.join(format!("web.log.{n}")));
    let log = format!("connection_log = {{ journal = \"errors\", file = {now:?} }}");
    let convey = site.convey(&(UNBOUNDED.to_owned() + &site.config(&log, FAST_CHECK)));
    let load = Wrk::endless(&site.client, &site.url(), 8, true);
    for turn in 1..=3 {
        wait_until("lines in the file", PATIENCE, || lines_now(&now) > 100);
        fs::rename(&now, at(turn)).expect("rename");
        convey.signal(Signal::SIGUSR1);
        wait_until("the next file", PATIENCE, || now.exists());
    }
    load.stop();
    convey.wait_status("all have ended", |status| {
        status.frontends["web"].traffic.connections_current == 0
    });
    let status = convey.status();
    let ended = status.frontends["web"].traffic.connections_total;
    let written = || -> usize {
        let files = (1..=3).map(at).chain([now.clone()]);
        files.map(|file| lines_now(&file)).sum()
    };
    wait_until("every line", PATIENCE, || written() as u64 >= ended);
    assert_eq!((written() as u64, status.log_events_dropped), (ended, 0));
    assert_eq!(convey.status().log_outputs[0].dropped, 0);
    assert_eq!(
        fs::metadata(&now).expect("the file").permissions().mode() & 0o777,
        0o640
    );
    let one = lines(&at(1));
    let client = site.client.ip4().to_string();
    assert!(
        one.iter()
            .all(|line| line.starts_with(&client) && line.contains(" web web/a ")),
        "{:?}",
        one.first()
    );
    let journal = convey.stderr();
    let mut orderly = journal
        .lines()
        .filter(|line| line.contains(" web web/a ") && line.contains(" -- "));
    assert_eq!(orderly.next(), None, "the journal has errors alone");
    // a reload goes on with another file, in another form
    let json = logs.join("web.json");
    let log = format!("connection_log = {{ file = {json:?}, format = \"json\" }}");
    convey.reload(&(UNBOUNDED.to_owned() + &site.config(&log, FAST_CHECK)));
    site.ask(1);
    wait_until("a line of JSON", PATIENCE, || lines_now(&json) == 1);
    let line: serde_json::Value = serde_json::from_str(&lines(&json)[0]).expect("JSON");
    assert_eq!(
        (&line["event"], &line["server"], &line["reason"]),
        (&"access".into(), &"a".into(), &"normal".into())
    );
}

/// Lines of a file that is written to, a torn last one not counted.
fn lines_now(path: &Path) -> usize {
    let bytes = fs::read(path).unwrap_or_default();
    bytes.iter().filter(|byte| **byte == b'\n').count()
}

/// A message of RFC 5424, section 6.
#[derive(Debug, PartialEq, Eq)]
struct SyslogMessage {
    facility: u8,
    severity: u8,
    host: String,
    process: u32,
    text: String,
}

/// Reads one as strictly as the grammar is.
fn parse_5424(message: &str) -> SyslogMessage {
    let rest = message.strip_prefix('<').expect("PRI");
    let (priority, rest) = rest.split_once('>').expect("PRI");
    assert!(!priority.is_empty() && (priority == "0" || !priority.starts_with('0')));
    let priority: u8 = priority.parse().expect("PRIVAL");
    assert!(priority <= 191, "{message}");
    let fields: Vec<&str> = rest.splitn(8, ' ').collect();
    let [version, time, host, app, process, id, data, text] = fields[..] else {
        panic!("a header with seven fields: {message}")
    };
    assert_eq!(
        (version, app, id, data),
        ("1", "convey", "access", "-"),
        "{message}"
    );
    assert!(is_rfc_5424_time(time), "{time}");
    for (field, longest) in [(host, 255), (app, 48), (process, 128), (id, 32)] {
        let is_print = field.bytes().all(|byte| (33..=126).contains(&byte));
        assert!(is_print && (1..=longest).contains(&field.len()), "{field}");
    }
    SyslogMessage {
        facility: priority / 8,
        severity: priority % 8,
        host: host.to_owned(),
        process: process.parse().expect("PROCID"),
        text: text.to_owned(),
    }
}

/// `2026-11-30T10:00:00.123Z`: upper case, at most six digits after the second.
fn is_rfc_5424_time(text: &str) -> bool {
    let form = "dddd-dd-ddTdd:dd:dd.dddZ";
    text.len() == form.len()
        && text.bytes().zip(form.bytes()).all(|(byte, form)| match form {
            b'd' => byte.is_ascii_digit(),
            other => byte == other,
        })
}

/// Reads messages after their lengths (RFC 6587, section 3.4.1).
fn read_counted(stream: &mut TcpStream) -> Option<String> {
    let mut length = String::new();
    loop {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        match byte[0] {
            b' ' => break,
            digit @ b'0'..=b'9' => length.push(digit.into()),
            other => panic!("{other} in a length"),
        }
    }
    assert!(!length.starts_with('0'), "MSG-LEN = NONZERO-DIGIT *DIGIT");
    let mut message = vec![0; length.parse().expect("a length")];
    stream.read_exact(&mut message).ok()?;
    Some(String::from_utf8(message).expect("UTF-8"))
}

fn syslog_servers_get_what_rfc_5424_says_over_udp_and_tcp_and_at_a_socket() {
    let site = Site::new("log-syslog", 1);
    let server = site.webs[0].host();
    let (udp, tcp) = server.inside(|| {
        let udp = UdpSocket::bind(server.addr(514)).expect("udp");
        let tcp = TcpListener::bind(server.addr(601)).expect("tcp");
        udp.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        (udp, tcp)
    });
    let socket = directory(&site.lb, "dev").join("log");
    let local = UnixDatagram::bind(&socket).expect("a socket");
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).expect("permissions");
    local.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    let to = |port, target: &str, more: &str| {
        let settings = format!("connection_log = {{ journal = false, syslog = \"{target}\", {more} }}");
        frontend(&format!("f{port}"), site.lb.addr(port), "web", &settings)
    };
    let config = UNBOUNDED.to_owned()
        + &to(
            81,
            &format!("udp://{}", server.addr(514)),
            "facility = \"local7\"",
        )
        + &to(82, &format!("tcp://{}", server.addr(601)), "format = \"json\"")
        + &to(83, &format!("unix:{}", socket.display()), "")
        + &frontend(
            "nobody",
            site.lb.addr(84),
            "nobody",
            &format!("connection_log = {{ syslog = \"tcp://{}\" }}", server.addr(601)),
        )
        + &site.config("", FAST_CHECK)
        + &backend("nobody", NO_CHECK, &[]);
    let convey = site.convey(&config);
    let ask = |port: u16| {
        site.client
            .try_run(&format!("curl -s http://{}/", site.lb.addr(port)));
    };
    ask(81);
    let mut message = [0; 4_096];
    let length = udp.recv(&mut message).expect("a message");
    let read = parse_5424(std::str::from_utf8(&message[..length]).expect("UTF-8"));
    assert_eq!((read.facility, read.severity), (23, 6), "{read:?}");
    assert_eq!(read.process, u32::try_from(convey.pid().as_raw()).expect("a pid"));
    assert!(read.text.starts_with(&site.client.ip4().to_string()), "{read:?}");
    assert!(read.text.contains("] f81 web/a "), "{read:?}");

    // each frontend has a connection of its own, for their lines differ
    ask(82);
    let accept = || {
        let (stream, _) = server.inside(|| tcp.accept()).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        stream
    };
    let mut json = accept();
    let read = parse_5424(&read_counted(&mut json).expect("a message"));
    assert_eq!((read.facility, read.severity), (3, 6));
    let fields: serde_json::Value = serde_json::from_str(&read.text).expect("JSON");
    assert_eq!(
        (&fields["frontend"], &fields["server"]),
        (&"f82".into(), &"a".into())
    );
    ask(84);
    let mut text = accept();
    let failed = parse_5424(&read_counted(&mut text).expect("a message"));
    assert_eq!(
        (failed.facility, failed.severity),
        (3, 4),
        "a warning: {failed:?}"
    );
    assert_eq!(failed.host, read.host);
    // a server that comes back gets what comes then
    drop(json);
    let before = convey.status();
    ask(82);
    let mut again = accept();
    let read = parse_5424(&read_counted(&mut again).expect("a message"));
    assert!(read.text.contains("f82"), "{read:?}");
    assert_eq!(before.log_events_dropped, 0);

    ask(83);
    let length = local.recv(&mut message).expect("a message");
    let text = String::from_utf8_lossy(&message[..length]).into_owned();
    assert!(
        text.starts_with(&format!("<30>convey[{}]: ", convey.pid())),
        "{text}"
    );
    assert!(text.contains(" f83 web/a "), "{text}");
    // whoever listens there next gets what comes then
    drop(local);
    fs::remove_file(&socket).expect("remove");
    let local = UnixDatagram::bind(&socket).expect("a socket");
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).expect("permissions");
    local.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    ask(83);
    assert!(local.recv(&mut message).expect("a message") > 0);
    for output in convey.status().log_outputs {
        assert_eq!((output.dropped, output.error), (0, None), "{}", output.output);
    }
}

fn one_of_ten_connections_is_logged_and_every_one_that_failed() {
    let site = Site::new("log-sample", 1);
    let logs = directory(&site.lb, "logs");
    let file = logs.join("all.log");
    let sampled = format!("connection_log = {{ journal = false, sample = \"1/10\", file = {file:?} }}");
    let nobody: SocketAddr = site.webs[0].host().addr(9);
    let config = UNBOUNDED.to_owned()
        + &site.config(&sampled, BLIND)
        + &frontend("broken", site.lb.addr(81), "broken", &sampled)
        + &backend("broken", &format!("{BLIND}\nretries = 0"), &[("s", nobody, "")]);
    let convey = site.convey(&config);
    assert_eq!(site.ask(41), [("a".to_owned(), 41)].into());
    site.client.try_run(&format!(
        "for i in $(seq 7); do curl -s http://{}/; done",
        site.lb.addr(81)
    ));
    convey.wait_status("all have ended", |status| {
        let ended = |name: &str| status.frontends[name].traffic.connections_total;
        let open = |name: &str| status.frontends[name].traffic.connections_current;
        (ended("web"), ended("broken"), open("web"), open("broken")) == (41, 7, 0, 0)
    });
    // of 41 the 1st, 11th, 21st, 31st and 41st
    wait_until("every line", PATIENCE, || lines_now(&file) >= 12);
    let mut counts: BTreeMap<bool, usize> = BTreeMap::new();
    for line in lines(&file) {
        *counts.entry(line.contains(" web web/a ")).or_default() += 1;
    }
    assert_eq!(counts, [(true, 5), (false, 7)].into());
    assert_eq!(
        convey.status().frontends["web"]
            .traffic
            .ended(TerminationReason::Normal),
        41
    );
}

/// What is said of the place whose name has this in it.
fn trouble(convey: &Convey, name: &str) -> Option<String> {
    let outputs = convey.status().log_outputs;
    let output = outputs.into_iter().find(|output| output.output.contains(name));
    output.expect("the output").error
}

fn a_dead_server_and_a_missing_directory_hold_up_nobody_and_are_told_of() {
    let site = Site::new("log-dead", 1);
    let server = site.webs[0].host();
    // it accepts connections in its queue and reads nothing
    let stuck = server.inside(|| TcpListener::bind(server.addr(601)).expect("tcp"));
    let missing = directory(&site.lb, "logs").join("later/web.log");
    let config = UNBOUNDED.to_owned()
        + &site.config(
            &format!(
                "connection_log = {{ journal = false, file = {missing:?}, syslog = \"tcp://{}\" }}",
                server.addr(602)
            ),
            FAST_CHECK,
        )
        + &frontend(
            "stuck",
            site.lb.addr(81),
            "web",
            &format!(
                "connection_log = {{ journal = false, syslog = \"tcp://{}\" }}",
                stuck.local_addr().expect("its address")
            ),
        );
    let convey = site.convey(&config);
    assert_eq!(site.ask(20), [("a".to_owned(), 20)].into());
    site.client.run(&format!("curl -s http://{}/", site.lb.addr(81)));
    wait_until("both are known", PATIENCE, || {
        trouble(&convey, ":602").is_some() && trouble(&convey, "later/web.log").is_some()
    });
    let said = convey.order("status");
    assert!(
        said.contains("no such directory") && said.contains(":602 fails: "),
        "{said}"
    );
    wait_until("every line that is lost is counted", PATIENCE, || {
        convey.order("status").contains("20 lines dropped")
    });
    // an operator who makes the directory need not wait
    let parent = missing.parent().expect("a directory");
    fs::create_dir(parent).expect("make it");
    open_to_all(parent);
    convey.signal(Signal::SIGUSR1);
    wait_until("it is open", PATIENCE, || missing.exists());
    site.ask(1);
    wait_until("the line", PATIENCE, || lines_now(&missing) == 1);
    wait_until("it is all right again", PATIENCE, || {
        trouble(&convey, "later/web.log").is_none()
    });
    // and the lines for the server wait until it is there
    let tcp = server.inside(|| TcpListener::bind(server.addr(602)).expect("tcp"));
    let (mut stream, _) = server.inside(|| tcp.accept()).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    for _ in 0..21 {
        let message = parse_5424(&read_counted(&mut stream).expect("a message"));
        assert!(message.text.contains(" web web/a "), "{message:?}");
    }
}
