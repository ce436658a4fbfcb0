//! The admin API, asked by curl: what it describes, what it answers, and what an operator can do with it.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    path::PathBuf,
};

use convey::admin::views::{
    AddedServer, Certificates, CheckedConfig, Closed, ConfigDiff, ConfigHistory, Connections, Info,
    Overrides, Problem, Reloaded, ServedCertificate,
};
use serde::de::DeserializeOwned;

use crate::{
    Test,
    lab::{Convey, Nginx, PATIENCE, wait_until},
    site::{NO_CHECK, Site, expect_end, frontend},
    tests,
    tls::{EC, Ended},
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    every_answer_is_as_the_document_says,
    a_whole_backend_is_drained_and_everything_cleared_again,
    connections_are_listed_by_pages_and_closed_by_client_server_or_backend,
    a_text_is_checked_and_compared_and_nothing_changes,
    what_was_in_effect_is_kept_with_who_when_and_what,
    servers_are_added_and_removed_at_run_time_and_outlive_a_restart,
    certificates_that_clients_get_are_listed_as_they_are_now,
];

/// What curl got.
pub struct Got {
    pub status: u16,
    pub media: String,
    pub tag: String,
    pub body: String,
}

impl Got {
    /// The body of a request that succeeded.
    #[track_caller]
    pub fn parse<T: DeserializeOwned>(&self) -> T {
        assert_eq!(self.status, 200, "{}", self.body);
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {}", self.body))
    }

    /// What is wrong with one that was refused.
    #[track_caller]
    pub fn refused(&self, status: u16) -> String {
        assert_eq!(
            (self.status, self.media.as_str()),
            (status, Problem::MEDIA),
            "{}",
            self.body
        );
        let problem: Problem = serde_json::from_str(&self.body).expect("a problem");
        problem.message
    }
}

/// Asks at the control socket, with more arguments for curl.
#[track_caller]
pub fn ask(convey: &Convey, method: &str, path: &str, arguments: &str) -> Got {
    let said = convey.host().run(&format!(
        "curl -sS -X {method} --unix-socket {}/admin.sock {arguments} -w '\\n%{{http_code}} %{{content_type}} %header{{etag}}' \
         'http://convey{path}'",
        convey.dir().display()
    ));
    let (body, end) = said.rsplit_once('\n').expect("curl's own line");
    let mut words = end.split(' ');
    let status = words.next().and_then(|status| status.parse().ok());
    Got {
        status: status.unwrap_or_else(|| panic!("no status in {end:?}")),
        media: words.next().unwrap_or_default().to_owned(),
        tag: words.next().unwrap_or_default().to_owned(),
        body: body.to_owned(),
    }
}

/// Arguments that send a text of a configuration.
pub fn toml(convey: &Convey, text: &str) -> String {
    let path = convey.dir().join("sent.toml");
    fs::write(&path, text).expect("a file");
    format!(
        "-H 'Content-Type: application/toml' --data-binary @{}",
        path.display()
    )
}

fn json(text: &str) -> String {
    format!("-H 'Content-Type: application/json' -d '{text}'")
}

fn every_answer_is_as_the_document_says() {
    let site = Site::new("api-fits", 2);
    let convey = site.convey(&site.config("", ""));
    site.ask(4);
    let document = convey.dir().join("openapi.json");
    let got = ask(&convey, "GET", "/v1/openapi.json", "");
    let described: serde_json::Value = got.parse();
    assert_eq!(described["openapi"], "3.1.0");
    fs::write(&document, &got.body).expect("a file");
    let sends = toml(&convey, "[frontends.x]\nlisten_addr = 7\n");
    let asked = [
        ("GET", "/healthz", "", 200, ""),
        ("GET", "/readyz", "", 200, ""),
        ("GET", "/metrics", "", 200, ""),
        ("GET", "/metrics", "/metrics?scope=all", 400, ""),
        ("GET", "/v1/events", "", 200, ""),
        ("GET", "/v1/events", "/v1/events?level=loud", 400, ""),
        ("GET", "/v1/overrides/history", "", 200, ""),
        ("GET", "/v1/info", "", 200, ""),
        ("GET", "/v1/status", "", 200, ""),
        ("GET", "/v1/frontends", "", 200, ""),
        ("GET", "/v1/frontends/{frontend}", "/v1/frontends/web", 200, ""),
        ("GET", "/v1/frontends/{frontend}", "/v1/frontends/wbe", 404, ""),
        ("GET", "/v1/backends", "", 200, ""),
        ("GET", "/v1/backends/{backend}", "/v1/backends/web", 200, ""),
        (
            "GET",
            "/v1/backends/{backend}/servers/{server}",
            "/v1/backends/web/servers/a",
            200,
            "",
        ),
        ("GET", "/v1/packet", "", 404, ""),
        ("GET", "/v1/firewall", "", 404, ""),
        ("GET", "/v1/session", "", 200, ""),
        ("POST", "/v1/session", "", 409, ""),
        ("DELETE", "/v1/session", "", 200, ""),
        ("GET", "/v1/history", "", 200, ""),
        ("GET", "/v1/history", "/v1/history?backend=wbe", 404, ""),
        ("GET", "/v1/discovery", "", 200, ""),
        ("GET", "/v1/overrides", "", 200, ""),
        ("DELETE", "/v1/overrides", "", 200, ""),
        (
            "DELETE",
            "/v1/overrides/{backend}/{server}",
            "/v1/overrides/web/a",
            200,
            "",
        ),
        ("GET", "/v1/certificates", "", 200, ""),
        ("GET", "/v1/acme", "", 200, ""),
        ("POST", "/v1/acme/renew", "", 409, ""),
        ("GET", "/v1/connections", "/v1/connections?limit=x", 400, ""),
        ("GET", "/v1/connections", "", 200, ""),
        ("DELETE", "/v1/connections", "", 400, ""),
        (
            "GET",
            "/v1/backend-script",
            "/v1/backend-script?frontend=web&server=a",
            404,
            "",
        ),
        ("GET", "/v1/config", "", 200, ""),
        ("PUT", "/v1/config", "", 428, sends.as_str()),
        ("GET", "/v1/config/resolved", "", 200, ""),
        ("POST", "/v1/config/check", "", 200, sends.as_str()),
        ("POST", "/v1/config/check", "", 415, "-d x"),
        ("POST", "/v1/config/diff", "", 422, sends.as_str()),
        ("GET", "/v1/config/history", "", 200, ""),
        (
            "GET",
            "/v1/config/history/{revision}",
            "/v1/config/history/77",
            404,
            "",
        ),
        ("POST", "/v1/reload", "", 200, ""),
    ];
    let mut answers = String::new();
    for (number, (method, template, path, status, arguments)) in asked.into_iter().enumerate() {
        let path = if path.is_empty() { template } else { path };
        let got = ask(&convey, method, path, arguments);
        assert_eq!(got.status, status, "{method} {path}: {}", got.body);
        let file = convey.dir().join(format!("answer-{number}"));
        fs::write(&file, &got.body).expect("a file");
        let media = got.media.split(';').next().unwrap_or_default().to_owned();
        answers += &format!(
            " {} '{template}' {status} '{media}' {}",
            method.to_lowercase(),
            file.display()
        );
    }
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/suites/proxy/answers_fit.py");
    let left = site.lb.run(&format!(
        "python3 -W ignore {} {}{answers}",
        script.display(),
        document.display()
    ));
    let left: Vec<&str> = left.lines().collect();
    assert_eq!(
        left,
        [
            "delete /v1/backends/{backend}/servers/{server}",
            "get /v1/explain",
            "patch /v1/config",
            "post /v1/backends/{backend}",
            "post /v1/backends/{backend}/servers",
            "post /v1/backends/{backend}/servers/{server}",
            "post /v1/config/rollback",
        ],
        "asked by other tests"
    );
    let info: Info = ask(&convey, "GET", "/v1/info", "").parse();
    assert_eq!(info.config_generation, 1);
}

fn a_whole_backend_is_drained_and_everything_cleared_again() {
    let site = Site::new("api-backend", 2);
    let convey = site.convey(&site.config("", NO_CHECK));
    let drain = json("{\"action\": \"drain\"}");
    let why = ask(&convey, "POST", "/v1/backends/web", &drain).refused(409);
    assert!(why.contains("no eligible server"), "{why}");
    assert_eq!(site.ask(4).len(), 2, "nothing has changed");
    let forced = json("{\"action\": \"drain\", \"force\": true}");
    assert_eq!(ask(&convey, "POST", "/v1/backends/web", &forced).status, 200);
    let listed: Overrides = ask(&convey, "GET", "/v1/overrides", "").parse();
    let names: Vec<_> = listed.overrides.iter().map(|one| one.server.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(convey.server("web", "a").state.to_string(), "draining");
    let one: serde_json::Value = ask(&convey, "DELETE", "/v1/overrides/web/a", "").parse();
    assert_eq!(one["state"], "up");
    let cleared: Overrides = ask(&convey, "DELETE", "/v1/overrides", "").parse();
    assert_eq!(cleared.overrides.len(), 1);
    assert_eq!(site.ask(4).len(), 2);
    let why = ask(&convey, "POST", "/v1/backends/wbe", &drain).refused(404);
    assert!(why.contains("did you mean `web`?"), "{why}");
}

fn connections_are_listed_by_pages_and_closed_by_client_server_or_backend() {
    let site = Site::new("api-close", 2);
    let convey = site.convey(&site.config("", NO_CHECK));
    let mut streams: Vec<_> = (0..4).map(|_| site.client.connect(site.lb.addr(80))).collect();
    let list =
        |query: &str| -> Connections { ask(&convey, "GET", &format!("/v1/connections?{query}"), "").parse() };
    wait_until("all are there", PATIENCE, || {
        list("").connections.iter().filter(|c| c.server.is_some()).count() == 4
    });
    let (first, rest) = (list("limit=1"), list("offset=1&limit=100"));
    assert_eq!((first.total, first.connections.len()), (4, 1));
    assert_eq!((rest.total, rest.connections.len()), (4, 3));
    assert!(
        !rest.connections.contains(&first.connections[0]),
        "pages do not overlap"
    );
    // one of them, by its client
    let mut one = streams.remove(0);
    let client = one.local_addr().expect("an address");
    assert_eq!(list(&format!("client={client}")).total, 1);
    let closed: Closed = ask(&convey, "DELETE", &format!("/v1/connections?client={client}"), "").parse();
    assert_eq!(closed.closed, 1);
    expect_end(&mut one);
    // those of a server
    let of_a = list("backend=web&server=a");
    let closed: Closed = ask(&convey, "DELETE", "/v1/connections?backend=web&server=a", "").parse();
    assert_eq!(closed.closed, of_a.total);
    // all of a frontend
    let closed: Closed = ask(&convey, "DELETE", "/v1/connections?frontend=web", "").parse();
    assert_eq!(closed.closed, 3 - of_a.total);
    for stream in &mut streams {
        expect_end(stream);
        assert_eq!(stream.read(&mut [0]).ok().unwrap_or(0), 0);
    }
    let why = ask(&convey, "DELETE", "/v1/connections?server=q", "").refused(404);
    assert!(why.contains("no server `q`"), "{why}");
    assert!(
        convey
            .stderr()
            .contains("close the connections of frontend \"web\"")
    );
}

fn a_text_is_checked_and_compared_and_nothing_changes() {
    let site = Site::new("api-check", 2);
    let text = site.config("", NO_CHECK);
    let convey = site.convey(&text);
    let shown = ask(&convey, "GET", "/v1/config", "");
    assert_eq!(shown.media, "application/toml");
    assert_eq!(
        shown.body,
        fs::read_to_string(convey.config_path()).expect("the file")
    );
    let bad = toml(
        &convey,
        "[backends.web]\nservers.a = { addr = \"10.0.0.1:80\", wieght = 3 }\n",
    );
    let checked: CheckedConfig = ask(&convey, "POST", "/v1/config/check", &bad).parse();
    assert!(!checked.valid);
    let found = &checked.findings[0];
    assert_eq!(
        (found.severity.as_str(), found.line, found.column),
        ("error", 2, 37)
    );
    assert!(
        found.help.as_deref().is_some_and(|help| help.contains("weight")),
        "{found:?}"
    );
    let new = shown
        .body
        .replace("[backends.web]", "[backends.web]\nbalance = \"random\"");
    let compared: ConfigDiff = ask(&convey, "POST", "/v1/config/diff", &toml(&convey, &new)).parse();
    assert_eq!(compared.changes.len(), 1, "{compared:?}");
    assert!(compared.changes[0].contains("random"), "{compared:?}");
    assert!(
        compared.lines.contains("\n+balance = \"random\"\n"),
        "{}",
        compared.lines
    );
    let resolved: serde_json::Value = ask(&convey, "GET", "/v1/config/resolved", "").parse();
    assert_eq!(
        resolved["backends"]["web"]["balance"], "round_robin",
        "nothing has changed"
    );
    let why = ask(
        &convey,
        "PUT",
        "/v1/config",
        &format!("-H 'If-Match: {}' {}", shown.tag, toml(&convey, &new)),
    );
    assert!(why.refused(403).contains("allow_config_writes"));
    // more than any configuration has
    let large = convey.dir().join("large");
    fs::write(&large, vec![b'#'; 5 << 20]).expect("a file");
    let large = format!(
        "-H 'Content-Type: application/toml' --data-binary @{}",
        large.display()
    );
    let why = ask(&convey, "POST", "/v1/config/check", &large).refused(413);
    assert!(why.contains("limit: 4194304 bytes"), "{why}");
}

fn what_was_in_effect_is_kept_with_who_when_and_what() {
    let site = Site::new("api-history", 2);
    let first = site.config("", NO_CHECK);
    let mut convey = site.convey(&first);
    let history = |convey: &Convey| -> ConfigHistory { ask(convey, "GET", "/v1/config/history", "").parse() };
    wait_until("the start is kept", PATIENCE, || {
        history(&convey).revisions.len() == 1
    });
    let before = ask(&convey, "GET", "/v1/config", "").body;
    let second = site.config("", &format!("balance = \"random\"\n{NO_CHECK}"));
    convey.write_config(&second);
    let reloaded: Reloaded = ask(&convey, "POST", "/v1/reload", "").parse();
    assert_eq!(reloaded.changes.len(), 1);
    wait_until("it is kept", PATIENCE, || history(&convey).revisions.len() == 2);
    let kept = history(&convey);
    assert_eq!(kept.revisions[0].changes, reloaded.changes);
    assert!(kept.revisions[0].by.starts_with("uid 0, pid "), "{kept:?}");
    assert_eq!(kept.revisions[1].by, "start");
    assert_eq!(
        ask(&convey, "GET", "/v1/config/history/1", "").body,
        before,
        "byte for byte"
    );
    // numbers go on after a restart
    convey.signal(nix::sys::signal::Signal::SIGTERM);
    convey.wait_exit(PATIENCE);
    convey.start_again(&first);
    wait_until("the start is kept", PATIENCE, || {
        history(&convey).revisions.len() == 3
    });
    assert_eq!(history(&convey).revisions[0].revision, 3);
}

fn servers_are_added_and_removed_at_run_time_and_outlive_a_restart() {
    let site = Site::new("api-servers", 2);
    let one = &site.webs[0];
    let of_api = "discovery = { kind = \"api\", max_servers = 2 }";
    let text =
        frontend("web", site.lb.addr(80), "web", "") + &format!("[backends.web]\n{NO_CHECK}\n{of_api}\n");
    let mut convey = site.convey(&text);
    let add = |convey: &Convey, server: &str| ask(convey, "POST", "/v1/backends/web/servers", &json(server));
    let server = |name: &str, web: &Nginx| format!("{{\"name\": \"{name}\", \"addr\": \"{}\"}}", web.addr());
    let added: AddedServer = add(&convey, &server("a", one)).parse();
    assert_eq!((added.server.as_str(), added.pending), ("a", false));
    assert_eq!(
        site.ask(4),
        BTreeMap::from([("a".to_owned(), 4)]),
        "it serves at once"
    );
    for (wrong, status, why) in [
        ("{\"addr\": \"10.9.9.9\"}", 422, "has no port"),
        ("{\"addr\": \"127.0.0.1:80\"}", 422, "loopback"),
        ("{\"addr\": \"10.77.0.99:80\", \"wieght\": 3}", 400, "wieght"),
    ] {
        let said = add(&convey, wrong).refused(status);
        assert!(said.contains(why), "{wrong}: {said}");
    }
    let _: AddedServer = add(&convey, &server("b", &site.webs[1])).parse();
    assert_eq!(site.ask(4).len(), 2);
    let said = add(&convey, "{\"addr\": \"10.77.0.99:80\"}").refused(422);
    assert!(said.contains("max_servers"), "{said}");
    let same = format!("{{\"name\": \"c\", \"addr\": \"{}\"}}", one.addr());
    assert!(
        add(&convey, &same)
            .refused(409)
            .contains("web/a has that address")
    );
    // what was added is there after a reload and after a restart
    convey.order("reload");
    assert_eq!(site.ask(4).len(), 2);
    convey.signal(nix::sys::signal::Signal::SIGTERM);
    convey.wait_exit(PATIENCE);
    convey.start_again(&text);
    assert_eq!(site.ask(4).len(), 2);
    let mut open = site.client.connect(site.lb.addr(80));
    let removed: AddedServer = ask(&convey, "DELETE", "/v1/backends/web/servers/a", "").parse();
    assert_eq!(removed.server.as_str(), "a");
    assert_eq!(site.ask(4), BTreeMap::from([("b".to_owned(), 4)]));
    // whoever was connected stays so
    open.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("sent");
    let mut answer = String::new();
    open.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(
        ask(&convey, "DELETE", "/v1/backends/web/servers/a", "")
            .refused(404)
            .contains("no server `a`")
    );
    // a backend of the file takes none
    convey.reload(&site.config("", NO_CHECK));
    assert!(
        add(&convey, &server("x", one))
            .refused(409)
            .contains("kind = \"api\"")
    );
}

fn certificates_that_clients_get_are_listed_as_they_are_now() {
    let ended = Ended::new("api-certs");
    ended
        .pki
        .issue("b.example", &["b.example", "*.c.example"], EC, 20);
    let convey = ended.lab.convey(&ended.lb, &ended.config(&["b.example"], ""));
    let listed = || -> Vec<ServedCertificate> {
        let all: Certificates = ask(&convey, "GET", "/v1/certificates", "").parse();
        all.certificates
    };
    let before = listed();
    let one = &before[0];
    assert_eq!(before.len(), 1);
    assert_eq!(one.names, ["b.example", "*.c.example"]);
    assert_eq!((one.key.as_str(), one.ordered), ("ecdsa", false));
    assert!((one.expires_seconds / 86_400.0 - 20.0).abs() < 0.1, "{one:?}");
    ended.pki.issue("b.example", &["b.example"], EC, 30);
    convey.order("reload");
    assert_ne!(listed()[0].serial, one.serial, "it was replaced");
}
