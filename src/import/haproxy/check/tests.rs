//! What servers of a backend do not share, and checks of several steps: nothing of it is lost in silence.

use crate::{
    config::Severity,
    import::{Imported, InputFile, Kind, NoFiles, NoteKind, translate},
};

#[track_caller]
fn backend(lines: &str) -> Imported {
    let text = format!(
        "defaults\n timeout connect 5s\n option redispatch\nlisten b\n bind :80\n{}",
        lines.replace(" | ", "\n")
    );
    let file = InputFile::new("haproxy.cfg", text.as_bytes());
    let imported = translate(Kind::HaProxy, &file, &mut NoFiles).unwrap_or_else(|error| panic!("{error}"));
    let errors: Vec<_> = imported
        .findings
        .iter()
        .filter(|finding| finding.severity == Severity::Error)
        .collect();
    assert!(errors.is_empty(), "{errors:?}\n{}", imported.text);
    imported
}

/// Whether a comment quotes just that.
fn quotes(imported: &Imported, quoted: &str, kind: NoteKind) -> bool {
    let mut notes = imported.notes.iter();
    notes.any(|note| note.quoted.trim() == quoted && note.kind == kind)
}

const NONE: [&str; 0] = [];

/// What comes of a backend, what does not, and which comments there are.
#[track_caller]
fn hold<const N: usize, const M: usize>(lines: &str, there: [&str; N], quoted: [(&str, NoteKind); M]) {
    let imported = backend(lines);
    for part in there {
        let (part, is_wanted) = match part.strip_prefix('!') {
            Some(part) => (part, false),
            None => (part, true),
        };
        let has = imported.text.lines().any(|line| line.starts_with(part));
        assert_eq!(has, is_wanted, "{part}\n{}", imported.text);
    }
    for (quoted, kind) in quoted {
        assert!(
            quotes(&imported, quoted, kind),
            "no comment quotes {quoted}\n{}",
            imported.text
        );
    }
    assert_eq!(
        imported.notes.len(),
        M,
        "{:#?}\n{}",
        imported.notes,
        imported.text
    );
}

use NoteKind::{Differs, NoEqual};

#[test]
fn tls_to_servers_is_never_weaker_than_the_strictest_of_them() {
    let verified = "server v 10.0.0.2:443 ssl verify required ca-file /etc/ca.pem verifyhost b.example";
    let not = "server n 10.0.0.1:443 ssl verify none";
    for lines in [format!("{verified} | {not}"), format!("{not} | {verified}")] {
        hold(
            &lines,
            ["ca = \"/etc/ca.pem\"", "server_name = \"b.example\"", "!verify"],
            [("verify none", Differs), (not, Differs)],
        );
    }
    hold(
        "server a 10.0.0.1:443 ssl verify none alpn h2 | server b 10.0.0.2:443 ssl verify none alpn h2",
        ["verify = false", "alpn = [\"h2\"]"],
        [],
    );
    hold(
        "server a 10.0.0.1:443 ssl verify none alpn h2 crt /a.pem | server b 10.0.0.2:443 ssl verify none alpn http/1.1 crt /b.pem",
        ["alpn = [\"h2\"]", "cert = \"/a.pem\""],
        [("alpn http/1.1", Differs), ("crt /b.pem", Differs)],
    );
}

#[test]
fn the_source_of_one_server_is_not_that_of_all() {
    hold(
        "source 10.1.1.1 | server a 10.0.0.1:443 | server b 10.0.0.2:443 source 10.1.1.2",
        ["source_addr = \"10.1.1.1\""],
        [("source 10.1.1.2", NoEqual)],
    );
    hold(
        "server a 10.0.0.1:443 | server b 10.0.0.2:443 source 10.1.1.2",
        ["!source_addr"],
        [("source 10.1.1.2", NoEqual)],
    );
    hold(
        "server a 10.0.0.1:443 source 10.1.1.2 | server b 10.0.0.2:443 source 10.1.1.2",
        ["source_addr = \"10.1.1.2\""],
        [],
    );
}

#[test]
fn what_one_server_has_and_all_get_is_said_at_those_that_have_it_not() {
    let plain = "server a 10.0.0.1:443 check";
    hold(
        &format!("{plain} | server b 10.0.0.2:443 check slowstart 60s"),
        ["slow_start = \"1m\""],
        [(plain, Differs)],
    );
    hold(
        &format!("{plain} | server b 10.0.0.2:443 check on-marked-down shutdown-sessions"),
        ["on_down = \"close\""],
        [(plain, Differs)],
    );
    hold(
        &format!("{plain} | server b 10.0.0.2:443 check observe layer4 error-limit 2 on-error mark-down"),
        ["passive_check = { max_failures = 2 }"],
        [("on-error mark-down", NoEqual), (plain, Differs)],
    );
    hold(
        "server a 10.0.0.1:443 check observe layer4",
        ["passive_check = { max_failures = 10 }"],
        [("observe layer4", Differs)],
    );
    hold(
        "server a 10.0.0.1:443 agent-check agent-port 99 | server b 10.0.0.2:443 agent-check agent-port 98 agent-send x",
        ["port = 99"],
        [("agent-port 98", Differs), ("agent-send x", Differs)],
    );
}

#[test]
fn comments_quote_what_is_in_the_file() {
    let plain = "server b 10.0.0.2:443 check";
    hold(
        &format!("server a 10.0.0.1:443 check inter 1s fall 1 | {plain}"),
        NONE,
        [(plain, Differs)],
    );
    hold(
        "server a 10.0.0.1:443 check inter 1s | server b 10.0.0.2:443 check inter 1000",
        NONE,
        [],
    );
}

#[test]
fn an_expected_text_counts_whatever_the_status() {
    hold(
        "option httpchk GET /a | http-check expect string File | server a 10.0.0.1:80 check",
        ["status = \"100-599\"", "expect = \"File\""],
        [],
    );
    hold(
        "option httpchk GET /a | http-check expect status 200 | http-check expect string File | server a 10.0.0.1:80 check",
        ["status = \"200\"", "expect = \"File\""],
        [],
    );
    hold(
        "option httpchk GET /a | http-check expect string File | http-check expect ! status 500 | server a 10.0.0.1:80 check",
        ["!status", "expect = \"File\""],
        [("http-check expect ! status 500", NoEqual)],
    );
    hold(
        "option httpchk HEAD /a | http-check expect string File | server a 10.0.0.1:80 check",
        ["!method", "expect = \"File\""],
        [("option httpchk HEAD /a", Differs)],
    );
}

#[test]
fn what_is_asked_for_is_kept_or_said() {
    hold(
        "option httpchk GET https://x.example/z | server a 10.0.0.1:80 check",
        ["path = \"/z\"", "host = \"x.example\""],
        [("option httpchk GET https://x.example/z", Differs)],
    );
    hold(
        "option httpchk OPTIONS * | server a 10.0.0.1:80 check",
        ["method = \"OPTIONS\"", "!path"],
        [("option httpchk OPTIONS *", NoEqual)],
    );
    let with_headers = "option httpchk GET /a HTTP/1.1\\r\\nhost:\\ x\\r\\nAuthorization:\\ Basic\\ abc";
    hold(
        &format!("{with_headers} | server a 10.0.0.1:80 check"),
        ["host = \"x\""],
        [(with_headers, NoEqual)],
    );
    hold(
        "option httpchk GET /a HTTP/1.1\\r\\nHost:\\ x | server a 10.0.0.1:80 check",
        ["host = \"x\""],
        [],
    );
}

#[test]
fn of_several_requests_the_first_counts_and_the_others_are_said() {
    hold(
        "option httpchk | http-check connect | http-check send meth GET uri /one | http-check expect status 200 \
         | http-check connect | http-check send meth GET uri /two | http-check expect status 204 | server a 10.0.0.1:80 check",
        ["path = \"/one\"", "status = \"200\""],
        [
            ("http-check connect", NoEqual),
            ("http-check send meth GET uri /two", NoEqual),
            ("http-check expect status 204", NoEqual),
        ],
    );
}

#[test]
fn a_probe_can_succeed_if_its_server_is_well() {
    let server = "server a 10.0.0.1:25 check";
    hold(
        &format!(
            "option tcp-check | tcp-check expect rstring ^220 | tcp-check send QUIT\\r\\n | tcp-check expect rstring ^221 | {server}"
        ),
        ["expect = { regex = \"(?:^220)\" }", "!send"],
        [("tcp-check send QUIT\\r\\n", NoEqual)],
    );
    hold(
        &format!(
            "option tcp-check | tcp-check send-binary 0001 | tcp-check expect binary 00 | tcp-check expect rstring ^foo | {server}"
        ),
        [
            "send = { hex = \"0001\" }",
            "expect = { regex = \"(?-u:\\\\x00)\" }",
        ],
        [("tcp-check expect rstring ^foo", NoEqual)],
    );
    hold(
        &format!(
            "option tcp-check | tcp-check send x | tcp-check expect string a | tcp-check expect rstring b[^c] | {server}"
        ),
        ["expect = { regex = \"(?s)a.*?(?:b[^c])\" }"],
        [("tcp-check send x", Differs)],
    );
    hold(
        &format!("option tcp-check | tcp-check send x | tcp-check connect | tcp-check send y | {server}"),
        ["!kind"],
        [("tcp-check connect", NoEqual)],
    );
}

#[test]
fn checks_go_to_an_address_or_to_the_port_of_all() {
    hold(
        "server a 10.0.0.1:443 addr status.internal check port 9000",
        ["servers.a = { addr = \"10.0.0.1:443\", check_addr = \"10.0.0.1:9000\" }"],
        [("addr status.internal", NoEqual)],
    );
    hold(
        "default-server port 9000 | server a a.internal:443 addr 10.0.0.9 check | server b b.internal:443 check",
        ["port = 9000", "servers.a = { addr = \"a.internal:443\" }"],
        [("addr 10.0.0.9", NoEqual)],
    );
    hold(
        "server a a.internal:443 port 9000 check | server b b.internal:443 port 9001 check",
        ["!port"],
        [("port 9000", NoEqual), ("port 9001", NoEqual)],
    );
}

#[test]
fn the_name_of_a_service_is_discovered_by_its_srv_records() {
    let template = "server-template srv 3 _http._tcp.example.com maxconn 10 check";
    hold(
        &format!("{template} | server spare 10.0.0.9:80 backup check"),
        [
            "kind = \"srv\"",
            "name = \"_http._tcp.example.com\"",
            "servers.spare",
        ],
        [(template, Differs), ("maxconn 10", NoEqual)],
    );
    let second = "server-template other 3 _http._tcp.example.org check";
    hold(
        &format!("server-template srv 3 _http._tcp.example.com check | {second}"),
        ["name = \"_http._tcp.example.com\""],
        [
            ("server-template srv 3 _http._tcp.example.com check", Differs),
            (second, NoEqual),
        ],
    );
}

#[test]
fn what_has_no_end_there_has_one_here_and_that_is_said() {
    hold(
        "timeout connect 0 | server a 10.0.0.1:443",
        ["!connect_timeout"],
        [("timeout connect 0", Differs)],
    );
    hold(
        "timeout connect 2h | server a 10.0.0.1:443",
        ["connect_timeout = \"1h\"", "queue_timeout = \"1h\""],
        [("timeout connect 2h", Differs)],
    );
    hold(
        "stick-table type ip size 1k expire 0 | stick on src | server a 10.0.0.1:443",
        ["sticky = { ttl = \"1d\""],
        [("stick-table type ip size 1k expire 0", Differs)],
    );
    let once = "# Without `timeout connect`";
    let text = "listen a\n bind :80\n server a 10.0.0.1:80\nlisten b\n bind :81\n server b 10.0.0.1:81\n";
    let file = InputFile::new("haproxy.cfg", text.as_bytes());
    let imported = translate(Kind::HaProxy, &file, &mut NoFiles).expect("a configuration");
    assert_eq!(imported.text.matches(once).count(), 1, "{}", imported.text);
    assert!(
        imported.text.contains("# Without `option redispatch`"),
        "{}",
        imported.text
    );
    let said = backend("server a 10.0.0.1:443");
    assert!(!said.text.contains("# Without"), "{}", said.text);
}
