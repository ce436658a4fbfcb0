//! What the page stands on: its files, the sessions of browsers, the history. The page itself is driven by a browser
//! (`packaging/page-test`).

use serde_json::Value;

use crate::{
    Test,
    api::ask,
    api_site::{Answer, JSON, PORT, Site, bearer, curl},
    lab::{PATIENCE, wait_until},
    site, tests,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    a_browser_logs_in_with_a_token_and_its_session_ends_with_it,
    no_page_of_others_uses_a_session_or_the_control_socket,
    the_page_comes_to_everybody_with_a_policy_and_nothing_of_the_daemon,
    the_history_tells_what_has_been,
];

/// The cookie that an answer sets, as curl sends it back.
fn cookie(answer: &Answer) -> String {
    let set = answer.text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("set-cookie").then_some(value.trim())
    });
    let set = set.unwrap_or_else(|| panic!("no cookie: {answer:?}"));
    for part in ["; HttpOnly", "; SameSite=Strict", "; Secure", "; Path=/"] {
        assert!(set.contains(part), "{set}");
    }
    let pair = set.split(';').next().expect("a pair");
    format!("-H 'Cookie: other=1; {pair}'")
}

const OUR_PAGE: &str = "-H 'Convey-Page: 1'";

fn a_browser_logs_in_with_a_token_and_its_session_ends_with_it() {
    let site = Site::new("session");
    let (token, line) = site.token("alice", "operate");
    site.write_tokens(&line);
    let config = site.admin(&site.keys(PORT, ""));
    let convey = site.lab.convey(&site.lb, &config);
    let ask = |path: &str, more: &str| site.ask(PORT, path, more);

    assert_eq!(ask("/v1/session", "").code, 401, "who has not logged in");
    assert_eq!(ask("/v1/session", JSON).code, 401);
    let in_again = ask("/v1/session", &format!("{JSON} {}", bearer(&token)));
    assert_eq!(in_again.code, 200, "{in_again:?}");
    let session = cookie(&in_again);
    assert!(!session.contains(&token));

    let who = ask("/v1/session", &session);
    assert!(
        who.code == 200 && who.has("\"role\":\"operate\"") && who.has("\"token\":\"alice\""),
        "{who:?}"
    );
    assert!(
        who.has("\"entry\":\"session\"") && who.has("cache-control: no-store"),
        "{who:?}"
    );
    assert_eq!(ask("/v1/status", &session).code, 200);
    assert_eq!(
        ask("/v1/session", &format!("{JSON} {OUR_PAGE} {session}")).code,
        409,
        "no session of a session"
    );
    let reload = format!("{JSON} {OUR_PAGE} {session}");
    assert_eq!(ask("/v1/reload", &reload).code, 200);
    assert!(
        convey
            .stderr()
            .contains(&format!("(token alice from {})", site.client.ip4()))
    );

    // a role that changes is that of the session at once, and with the token the session goes
    site.write_tokens(&line.replace("operate", "read"));
    convey.reload(&config);
    assert_eq!(ask("/v1/reload", &reload).code, 403);
    site.write_tokens("# nobody\n");
    convey.reload(&config);
    let ended = ask("/v1/status", &session);
    assert!(ended.code == 401 && ended.has("log in again"), "{ended:?}");
    site.write_tokens(&line);
    convey.reload(&config);
    assert_eq!(
        ask("/v1/status", &session).code,
        401,
        "a token that is back begins no old session"
    );
    let session = cookie(&ask("/v1/session", &format!("{JSON} {}", bearer(&token))));
    assert_eq!(ask("/v1/status", &session).code, 200);
    // one that another program has set before does not keep ours out
    let other = format!("__Host-convey-session={}; ", "A".repeat(43));
    let both = session.replacen("Cookie: ", &format!("Cookie: {other}"), 1);
    assert_eq!(ask("/v1/status", &both).code, 200);

    let listening = site.client.start(&format!(
        "exec curl -sSN --max-time 60 --cacert {} --resolve lb1.example:{PORT}:{} {session} -H 'Accept: text/event-stream' \
         https://lb1.example:{PORT}/v1/events",
        site.pki.path("ca.pem"),
        site.lb.ip4()
    ));
    let out = ask("/v1/session", &format!("-X DELETE {OUR_PAGE} {session}"));
    assert!(out.code == 200 && out.has("Max-Age=0"), "{out:?}");
    assert_eq!(ask("/v1/status", &session).code, 401);
    // and what it listens to ends with it
    let ended = listening.finish(PATIENCE);
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert!(!convey.stderr().contains(&token));
}

fn no_page_of_others_uses_a_session_or_the_control_socket() {
    let site = Site::new("csrf");
    let (token, line) = site.token("alice", "operate");
    site.write_tokens(&line);
    let keys = site.keys(PORT, "allowed_origins = [\"https://dashboard.example\"]");
    let convey = site.lab.convey(&site.lb, &site.admin(&keys));
    let ask = |path: &str, more: &str| site.ask(PORT, path, more);
    let session = cookie(&ask("/v1/session", &format!("{JSON} {}", bearer(&token))));

    let forged = ask("/v1/reload", &format!("{JSON} {session}"));
    assert!(forged.code == 403 && forged.has("Convey-Page"), "{forged:?}");
    let elsewhere = format!("-H 'Origin: https://lb1.example:8443' {OUR_PAGE} {session}");
    assert_eq!(
        ask("/v1/reload", &format!("{JSON} {elsewhere}")).code,
        403,
        "another port is another origin"
    );
    let asked_before = "-X OPTIONS -H 'Origin: https://dashboard.example' -H 'Access-Control-Request-Method: POST' \
                        -H 'Access-Control-Request-Headers: convey-page'";
    let preflight = ask("/v1/reload", asked_before);
    assert!(
        preflight.code == 204 && !preflight.has("convey-page"),
        "{preflight:?}"
    );
    assert!(!preflight.has("allow-credentials"), "{preflight:?}");
    assert_eq!(
        ask("/v1/reload", &format!("{JSON} {OUR_PAGE} {session}")).code,
        200
    );

    // who forwards a port to the control socket has a browser there
    let socket = convey.dir().join("admin.sock");
    let local = |more: &str| {
        let arguments = format!("--unix-socket {} {more}", socket.display());
        curl(&site.lb, &arguments).code
    };
    assert_eq!(local("http://localhost:8080/v1/status"), 200);
    assert_eq!(local("http://evil.example/v1/status"), 403);
    assert_eq!(
        local(&format!(
            "{JSON} -H 'Origin: http://evil.example' http://localhost/v1/reload"
        )),
        403
    );
    assert_eq!(
        local(&format!(
            "{JSON} -H 'Sec-Fetch-Site: cross-site' http://localhost/v1/reload"
        )),
        403
    );
    assert_eq!(
        local(&format!(
            "{JSON} -H 'Origin: http://localhost:8080' http://localhost:8080/v1/reload"
        )),
        200
    );
}

fn the_page_comes_to_everybody_with_a_policy_and_nothing_of_the_daemon() {
    let site = Site::new("pagefiles");
    site.write_tokens("# nobody\n");
    let config = site.admin(&site.keys(PORT, ""));
    let convey = site.lab.convey(&site.lb, &config);
    let index = site.ask(PORT, "/", "");
    assert_eq!(index.code, 200, "{index:?}");
    for part in [
        "content-type: text/html; charset=utf-8",
        "content-security-policy: default-src 'none';",
        "x-content-type-options: nosniff",
        "<title>Convey",
    ] {
        assert!(index.has(part), "{part}: {index:?}");
    }
    for other in ["/page/nothing.js", "/page/..%2Fmod.rs", "/page/"] {
        assert_eq!(site.ask(PORT, other, "").code, 404, "{other}");
    }
    assert_eq!(site.ask(PORT, "/", JSON).code, 405);
    // a link of a wiki leads there, and to nothing else
    let link = "-H 'Sec-Fetch-Site: cross-site' -H 'Sec-Fetch-Mode: navigate'";
    assert_eq!(site.ask(PORT, "/", link).code, 200);
    assert_eq!(site.ask(PORT, "/v1/status", link).code, 403);
    let foreign = site.ask(PORT, "/", "-H 'Host: evil.example'");
    assert_eq!(foreign.code, 403, "{foreign:?}");
    let socket = format!(
        "--unix-socket {}/admin.sock http://localhost/",
        convey.dir().display()
    );
    assert!(curl(&site.lb, &socket).has("<title>Convey"));
}

/// The sum of a list of an answer.
fn sum(history: &Value, list: &str) -> f64 {
    let values = history[list].as_array().expect("a list");
    values.iter().filter_map(Value::as_f64).sum()
}

fn the_history_tells_what_has_been() {
    let site = site::Site::new("history", 2);
    let convey = site.convey(&site.config("", site::NO_CHECK));
    let shares = site.ask(20);
    let of = |query: &str| -> Value {
        let answer = ask(&convey, "GET", &format!("/v1/history{query}"), "");
        assert_eq!(answer.status, 200, "{}", answer.body);
        serde_json::from_str(&answer.body).expect("JSON")
    };
    // steps of five seconds
    wait_until("all connections in the history", PATIENCE, || {
        (sum(&of(""), "connections") * 5.0 - 20.0).abs() < 0.01
    });
    let whole = of("");
    assert_eq!(whole["step_seconds"], 5);
    for list in ["failures", "bytes_in", "bytes_out", "open"] {
        let length = |list: &str| whole[list].as_array().map(Vec::len);
        assert_eq!(length(list), length("connections"), "{list}");
    }
    assert!(sum(&whole, "bytes_out") > sum(&whole, "bytes_in") && sum(&whole, "failures") == 0.0);
    assert!(whole["packets"].is_null(), "no packet modes");
    assert_eq!(sum(&of("?frontend=web"), "connections"), 4.0);
    assert_eq!(sum(&of("?backend=web"), "connections"), 4.0);
    for (server, share) in shares {
        let seen = sum(&of(&format!("?backend=web&server={server}")), "connections");
        assert!((seen * 5.0 - f64::from(share)).abs() < 0.01, "{server}: {seen}");
    }
    ask(&convey, "GET", "/v1/history?backend=wbe", "").refused(404);
    for odd in ["?server=a", "?frontend=web&backend=web", "?step=1"] {
        ask(&convey, "GET", &format!("/v1/history{odd}"), "").refused(400);
    }
}
