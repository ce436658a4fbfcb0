//! The admin API on TCP: who is let in, shown with curl.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener},
};

use crate::{
    Test,
    api_site::{BINARY, JSON, Open, PORT, Site, bearer, curl},
    lab::{Convey, Host, PATIENCE, wait_until},
    tests,
    tls::EC,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    only_who_has_a_token_is_let_in_and_does_what_its_role_may,
    pages_of_other_sites_and_foreign_names_are_refused_and_listed_ones_let_in,
    a_request_without_tls_is_told_so_and_a_silent_client_is_not_waited_for,
    whoever_is_on_this_host_may_read_and_nobody_outside_the_group_uses_the_control_socket,
    ten_thousand_failed_logins_are_counted_logged_in_one_line_and_keep_nobody_out,
    tokens_and_certificates_change_while_it_runs_and_broken_ones_leave_the_old,
    the_listener_comes_moves_and_goes_with_reloads_and_whoever_asked_gets_the_answer,
];

fn only_who_has_a_token_is_let_in_and_does_what_its_role_may() {
    let site = Site::new("apitokens");
    let (reader, first) = site.token("grafana", "read");
    let (operator, second) = site.token("deploy", "operate");
    site.write_tokens(&format!("# who may ask\n{first}{second}"));
    let convey = site.lab.convey(&site.lb, &site.admin(&site.keys(PORT, "")));
    let ask = |path: &str, more: &str| site.ask(PORT, path, more);

    let without = ask("/v1/status", "");
    assert_eq!(without.code, 401, "{without:?}");
    assert!(without.has("www-authenticate: Bearer"), "{without:?}");
    assert!(without.has("convey token"), "what to do: {without:?}");
    let (wrong, _) = site.token("other", "configure");
    for header in [&*wrong, "password", "", &reader[..40]] {
        let refused = ask("/v1/status", &bearer(header));
        assert_eq!(refused.code, 401, "{header}: {refused:?}");
        assert!(!refused.has(&wrong), "{refused:?}");
    }
    let basic = ask("/v1/status", "-u admin:admin");
    assert_eq!(basic.code, 401, "{basic:?}");
    assert_eq!(
        ask("/v2/nothing", "").code,
        401,
        "what there is is not said either"
    );

    assert_eq!(ask("/v1/status", &bearer(&reader)).code, 200);
    assert_eq!(ask("/v1/status", &bearer(&operator)).code, 200);
    let refused = ask("/v1/reload", &format!("{JSON} {}", bearer(&reader)));
    assert_eq!(refused.code, 403, "{refused:?}");
    assert!(
        refused.has("needs the role operate") && refused.has("token grafana"),
        "{refused:?}"
    );
    let form = ask("/v1/reload", &format!("-d '' {}", bearer(&operator)));
    assert_eq!(form.code, 415, "{form:?}");
    let reload = ask("/v1/reload", &format!("{JSON} {}", bearer(&operator)));
    assert_eq!(reload.code, 200, "{reload:?}");
    let log = convey.stderr();
    assert!(
        log.contains(&format!("(token deploy from {})", site.client.ip4())),
        "{log}"
    );
    for secret in [reader, operator, wrong] {
        assert!(!log.contains(&secret), "{log}");
    }
    // whether it is well is no secret; there may be no such page
    assert!([200, 404].contains(&ask("/healthz", "").code));
}

fn pages_of_other_sites_and_foreign_names_are_refused_and_listed_ones_let_in() {
    let site = Site::new("apipages");
    let (token, line) = site.token("page", "operate");
    site.write_tokens(&line);
    let more = "allowed_hosts = [\"api.example\"]\nallowed_origins = [\"https://dashboard.example\"]";
    let _convey = site.lab.convey(&site.lb, &site.admin(&site.keys(PORT, more)));
    let ask = |more: &str| site.ask(PORT, "/v1/status", &format!("{} {more}", bearer(&token)));

    for host in ["evil.example", "evil.example:7001", "127.0.0.1.evil.example"] {
        let refused = ask(&format!("-H 'Host: {host}'"));
        assert_eq!(refused.code, 403, "{host}: {refused:?}");
        assert!(refused.has("allowed_hosts"), "what to do: {refused:?}");
    }
    // its certificate has the first
    for host in [
        "lb1.example:7001",
        "API.example",
        "127.0.0.1",
        "localhost:7001",
        "lb1",
    ] {
        assert_eq!(ask(&format!("-H 'Host: {host}'")).code, 200, "{host}");
    }

    for page in [
        "https://evil.example",
        "null",
        "http://lb1.example:7001",
        "https://lb1.example",
        "https://dashboard.example.evil.example",
    ] {
        let refused = ask(&format!("-H 'Origin: {page}'"));
        assert_eq!(refused.code, 403, "{page}: {refused:?}");
        assert!(!refused.has("access-control-allow-origin"), "{refused:?}");
    }
    assert_eq!(ask("-H 'Sec-Fetch-Site: cross-site'").code, 403);
    assert_eq!(ask("-H 'Sec-Fetch-Site: same-origin'").code, 200);
    assert_eq!(ask("-H 'Origin: https://lb1.example:7001'").code, 200);
    let listed = ask("-H 'Origin: https://dashboard.example' -H 'Sec-Fetch-Site: cross-site'");
    assert_eq!(listed.code, 200, "{listed:?}");
    assert!(
        listed.has("access-control-allow-origin: https://dashboard.example\r\n")
            && listed.has("vary: origin"),
        "{listed:?}"
    );

    let preflight = |page: &str| {
        let how = "-X OPTIONS -H 'Access-Control-Request-Method: POST' -H 'Access-Control-Request-Headers: authorization'";
        site.ask(PORT, "/v1/reload", &format!("{how} -H 'Origin: {page}'"))
    };
    let asked = preflight("https://dashboard.example");
    assert_eq!(asked.code, 204, "{asked:?}");
    assert!(
        asked.has("access-control-allow-methods:")
            && asked.has("access-control-allow-headers: authorization"),
        "{asked:?}"
    );
    assert_eq!(preflight("https://evil.example").code, 403);
    // what a listed page is answered for want of a token it may read
    let without = site.ask(PORT, "/v1/status", "-H 'Origin: https://dashboard.example'");
    assert_eq!(without.code, 401);
    assert!(without.has("access-control-allow-origin"), "{without:?}");
}

fn a_request_without_tls_is_told_so_and_a_silent_client_is_not_waited_for() {
    let site = Site::new("apiplain");
    let (token, line) = site.token("a", "read");
    site.write_tokens(&line);
    let _convey = site.lab.convey(&site.lb, &site.admin(&site.keys(PORT, "")));
    let at = site.lb.addr(PORT);
    let plain = curl(&site.client, &format!("{} http://{at}/v1/status", bearer(&token)));
    assert_eq!(plain.code, 400, "{plain:?}");
    assert!(plain.has("https://"), "{plain:?}");
    let silent = ended(&site.client, at, b"");
    let half = ended(&site.client, at, b"\x16\x03\x01\x02");
    assert_eq!((silent, half), (String::new(), String::new()));
    // TLS as frontends have it
    let old = site.ask(PORT, "/v1/status", "--tls-max 1.1 --ciphers DEFAULT@SECLEVEL=0");
    assert_eq!(old.code, 0, "{old:?}");
    assert_eq!(
        site.ask(PORT, "/v1/status", &format!("--tls-max 1.2 {}", bearer(&token)))
            .code,
        200
    );
}

/// What comes on a connection on which this is sent, until it is closed.
fn ended(client: &Host, at: SocketAddr, sent: &[u8]) -> String {
    let mut stream = client.connect(at);
    stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    stream.write_all(sent).expect("it is sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("its end");
    answer
}

fn whoever_is_on_this_host_may_read_and_nobody_outside_the_group_uses_the_control_socket() {
    let site = Site::new("apiloopback");
    let config = |role: &str| site.admin(&format!("listen_addr = \"127.0.0.1:{PORT}\"\n{role}"));
    let convey = site.lab.convey(&site.lb, &config(""));
    let url = format!("http://127.0.0.1:{PORT}/v1");
    assert_eq!(curl(&site.lb, &format!("{url}/status")).code, 200);
    let refused = curl(&site.lb, &format!("{JSON} {url}/reload"));
    assert_eq!(refused.code, 403, "{refused:?}");
    assert!(refused.has("loopback_role"), "what to do: {refused:?}");
    let rebound = format!("-H 'Host: evil.example:{PORT}' {url}/status");
    assert_eq!(curl(&site.lb, &rebound).code, 403);
    assert!(site.client.try_connect(site.lb.addr(PORT)).is_err());
    convey.reload(&config("loopback_role = \"operate\""));
    assert_eq!(curl(&site.lb, &format!("{JSON} {url}/reload")).code, 200);
    let form = format!("-X POST -d a=b {url}/reload");
    assert_eq!(curl(&site.lb, &form).code, 415);

    let socket = convey.dir().join("admin.sock");
    let ask = format!(
        "curl -sS --unix-socket {} http://localhost/v1/status",
        socket.display()
    );
    let stranger = site
        .lb
        .try_run(&format!("setpriv --reuid 1 --regid 1 --clear-groups {ask}"));
    assert!(!stranger.status.success(), "{stranger:?}");
    assert_eq!(stranger.stdout, "");
    let member = site
        .lb
        .try_run(&format!("setpriv --reuid 1 --regid 1 --groups 65534 {ask}"));
    assert!(member.stdout.contains("\"version\""), "{member:?}");
}

fn ten_thousand_failed_logins_are_counted_logged_in_one_line_and_keep_nobody_out() {
    let site = Site::new("apilogins");
    let (token, line) = site.token("a", "read");
    let (wrong, _) = site.token("b", "read");
    site.write_tokens(&line);
    let convey = site.lab.convey(&site.lb, &site.admin(&site.keys(PORT, "")));
    let before = convey.private_memory();
    let tries = site.client.start(&format!(
        "curl -s -o /dev/null -w '%{{http_code}}\\n' --max-time 100 --cacert {} --resolve lb1.example:{PORT}:{} {} \
         'https://lb1.example:{PORT}/v1/status?try=[1-10000]' | sort | uniq -c",
        site.pki.path("ca.pem"),
        site.lb.ip4(),
        bearer(&wrong)
    ));
    let failed = |convey: &Convey| convey.status().admin_logins_failed;
    wait_until("the first fail", PATIENCE, || failed(&convey) > 0);
    // meanwhile the control socket answers, and whoever has a token is let in from the same address
    let asked = site.ask(PORT, "/v1/status", &bearer(&token));
    assert_eq!(asked.code, 200, "{asked:?}");
    assert!(failed(&convey) < 10_000, "they are not over");
    let said = tries.finish(PATIENCE).stdout;
    let count = |code: &str| {
        let line = said.lines().find(|line| line.trim().ends_with(code));
        line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok())
            .unwrap_or(0)
    };
    assert_eq!(count("401") + count("429"), 10_000, "{said}");
    assert!((10..200).contains(&count("401")), "{said}");
    assert_eq!(failed(&convey), 10_000);
    let limited = site.ask(PORT, "/v1/status", &bearer(&wrong));
    assert!(limited.code == 429 && limited.has("retry-after:"), "{limited:?}");
    assert_eq!(site.ask(PORT, "/v1/status", &bearer(&token)).code, 200);
    let log = convey.stderr();
    let lines = log.lines().filter(|line| line.contains("failed login")).count();
    assert!((1..=2).contains(&lines), "{log}");
    let grown = convey.private_memory().saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes");
    assert!(convey.order("status").contains("logins to the admin API failed"));
}

fn tokens_and_certificates_change_while_it_runs_and_broken_ones_leave_the_old() {
    let site = Site::new("apifiles");
    let (first, line) = site.token("first", "read");
    let (second, other) = site.token("second", "read");
    site.write_tokens(&line);
    let config = "[global]\nwatch_config = true\n".to_owned() + &site.admin(&site.keys(PORT, ""));
    let convey = site.lab.convey(&site.lb, &config);
    let code = |token: &str| site.ask(PORT, "/v1/status", &bearer(token)).code;
    assert_eq!((code(&first), code(&second)), (200, 401));
    // a connection that is open goes by what holds at each request
    let mut open = Open::new(&site, &first);
    assert!(open.ask().starts_with("HTTP/1.1 200"));
    site.write_tokens(&other);
    let mut said = String::new();
    wait_until("the new token is good", PATIENCE, || {
        said = open.ask();
        code(&second) == 200
    });
    // by now it may have been tried too often
    assert!([401, 429].contains(&code(&first)));
    assert!(!said.is_empty() && open.ask().starts_with("HTTP/1.1 4"));
    assert!(
        convey.stderr().contains("token first: removed"),
        "{}",
        convey.stderr()
    );

    let generation = convey.status().config_generation;
    site.write_tokens("second reed sha256:00\n");
    let broken = || convey.stderr().matches("tokens from before stay valid").count();
    wait_until("it is said", PATIENCE, || broken() == 1);
    assert!(convey.stderr().contains("line 1: there is no role \"reed\""));
    assert_eq!(code(&second), 200);
    convey.order("reload");
    assert_eq!(broken(), 1, "once");
    assert!(convey.status().config_generation > generation);
    let check = site
        .lb
        .try_run(&format!("{} check {}", BINARY, convey.config_path().display()));
    assert!(
        !check.status.success() && check.stderr.contains("line 1: there is no role \"reed\""),
        "{check:?}"
    );
    site.write_tokens(&format!("{line}{other}"));
    wait_until("both are good", PATIENCE, || code(&first) == 200);

    let serial = || {
        let asked = site.client.try_run(&format!(
            "openssl s_client -connect {} -CAfile {} </dev/null 2>/dev/null | openssl x509 -noout -serial",
            site.lb.addr(PORT),
            site.pki.path("ca.pem")
        ));
        asked.stdout
    };
    let (old, mut open) = (serial(), Open::new(&site, &first));
    site.pki.issue("lb1.example", &["lb1.example"], EC, 30);
    wait_until("the new certificate is served", PATIENCE, || {
        assert!(open.ask().starts_with("HTTP/1.1 200"), "the connection goes on");
        serial() != old
    });
    let new = serial();
    fs::write(site.pki.path("lb1.example.pem"), "no certificate").expect("a broken file");
    wait_until("it is said", PATIENCE, || {
        convey.stderr().contains("certificate from before stays in use")
    });
    assert_eq!(serial(), new);
    assert_eq!(code(&first), 200);
}

fn the_listener_comes_moves_and_goes_with_reloads_and_whoever_asked_gets_the_answer() {
    let site = Site::new("apimoves");
    let (token, line) = site.token("ops", "operate");
    site.write_tokens(&line);
    let convey = site.lab.convey(&site.lb, &site.admin(""));
    let at = |port| site.ask(port, "/v1/status", &bearer(&token)).code;
    assert_eq!(at(PORT), 0);
    convey.reload(&site.admin(&site.keys(PORT, "")));
    assert_eq!(at(PORT), 200);

    // nothing changes with one that fails: a broken file that has none before it, and a port that is taken
    let nowhere = site.keys(PORT, "").replace("lb1.example.pem", "missing.pem");
    convey.write_config(&site.admin(&nowhere));
    let failed = convey.cli("reload");
    assert!(
        !failed.status.success() && failed.stderr.contains("missing.pem"),
        "{failed:?}"
    );
    assert_eq!(at(PORT), 200);
    let taken = site
        .lb
        .inside(|| TcpListener::bind(site.lb.addr(PORT + 1)).expect("a port"));
    convey.write_config(&site.admin(&site.keys(PORT + 1, "")));
    let failed = convey.cli("reload");
    assert!(
        !failed.status.success() && failed.stderr.contains(&format!(":{}", PORT + 1)),
        "{failed:?}"
    );
    assert_eq!(at(PORT), 200);
    drop(taken);

    // whoever has it moved, by itself, is told that it has moved
    let mut open = Open::new(&site, &token);
    assert!(open.ask().starts_with("HTTP/1.1 200"));
    let reload = |port| site.ask(port, "/v1/reload", &format!("{JSON} {}", bearer(&token)));
    let moved = reload(PORT);
    assert!(moved.code == 200 && moved.has("listen_addr"), "{moved:?}");
    assert_eq!((at(PORT), at(PORT + 1)), (0, 200));
    let mut rest = Vec::new();
    let output = open.process.stdout.as_mut().expect("its output");
    // an idle connection ends with its listener
    output.read_to_end(&mut rest).expect("its end");

    // without TLS at the same address of loopback, and then with none
    convey.write_config(&site.admin(&format!(
        "listen_addr = \"127.0.0.1:{PORT}\"\nloopback_role = \"operate\""
    )));
    assert_eq!(reload(PORT + 1).code, 200);
    assert_eq!(at(PORT + 1), 0);
    let url = format!("http://127.0.0.1:{PORT}/v1");
    assert_eq!(curl(&site.lb, &format!("{url}/status")).code, 200);
    convey.write_config(&site.admin(""));
    let gone = curl(&site.lb, &format!("{JSON} {url}/reload"));
    assert_eq!(gone.code, 200, "{gone:?}");
    assert_eq!(curl(&site.lb, &format!("{url}/status")).code, 0);
}
