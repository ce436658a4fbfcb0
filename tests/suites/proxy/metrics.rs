//! Metrics and events, as those who watch read them.

use std::{collections::BTreeSet, fs};

use convey::admin::views::Events;

use crate::{
    Test,
    api::ask,
    lab::{Convey, PATIENCE, Process, wait_until},
    site::{NO_CHECK, Site},
    tests,
    tls::{EC, Pki},
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    metrics_are_clean_in_both_forms_and_tell_of_the_traffic,
    rates_and_percentiles_follow_the_traffic,
    a_stream_of_events_tells_what_happens_and_goes_on_after_a_restart,
    listeners_have_places_of_their_own,
];

/// Reads OpenMetrics as strictly as its reference parser does, and prints the names of the families.
const OPEN: &str = "import sys\n\
    from prometheus_client.openmetrics.parser import text_string_to_metric_families as read\n\
    print(*[family.name for family in read(sys.stdin.read())], sep='\\n')";

fn scrape(convey: &Convey, accept: &str, query: &str) -> String {
    let url = format!("http://127.0.0.1:7000/metrics{query}");
    convey
        .host()
        .run(&format!("curl -sS --fail -H 'Accept: {accept}' '{url}'"))
}

/// The value of a series.
#[track_caller]
fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(series));
    let value = line.and_then(|rest| rest.trim().parse().ok());
    value.unwrap_or_else(|| panic!("no {series} in\n{text}"))
}

fn metrics_are_clean_in_both_forms_and_tell_of_the_traffic() {
    let site = Site::new("metrics", 2);
    let pki = Pki::new(&site.lb, "ca");
    pki.issue("lb", &["lb.example"], EC, 30);
    let secure = format!(
        "[frontends.secure]\nlisten_addr = \"{}\"\nbackend = \"web\"\n\
         tls.certificates = [{{ cert = {:?}, key = {:?} }}]\n",
        site.lb.addr(443),
        pki.path("lb.pem"),
        pki.path("lb.key"),
    );
    let config = site.config("", "health_check.interval = \"100ms\"") + &secure + "[stats]\nport = 7000\n";
    let convey = site.convey(&config);
    assert_eq!(site.ask(4).values().sum::<u32>(), 4);
    site.client.run(&format!(
        "curl -sS --insecure --fail --tlsv1.3 https://{}/",
        site.lb.addr(443)
    ));
    convey.wait_status("all have ended", |status| {
        status.backends["web"].traffic.connections_current == 0
    });
    let text = scrape(&convey, "text/plain", "");
    let file = convey.dir().join("metrics");
    fs::write(&file, &text).expect("a file");
    let checked = convey
        .host()
        .try_run(&format!("promtool check metrics < {}", file.display()));
    assert!(
        checked.status.success() && checked.stdout.is_empty() && checked.stderr.is_empty(),
        "{checked:?}"
    );
    for (series, expected) in [
        (r#"convey_frontend_connections_total{frontend="web"}"#, 4.0),
        (r#"convey_frontend_current_connections{frontend="web"}"#, 0.0),
        (r#"convey_frontend_up{frontend="secure"}"#, 1.0),
        (
            r#"convey_frontend_ended_connections_total{frontend="web",reason="normal"}"#,
            4.0,
        ),
        (
            r#"convey_frontend_session_time_seconds_count{frontend="web"}"#,
            4.0,
        ),
        (
            r#"convey_frontend_tls_handshake_time_seconds_count{frontend="secure"}"#,
            1.0,
        ),
        (r#"convey_backend_connect_time_seconds_count{backend="web"}"#, 5.0),
        (
            r#"convey_backend_session_time_seconds_bucket{le="+Inf",backend="web"}"#,
            5.0,
        ),
        (r#"convey_backend_servers{backend="web",state="up"}"#, 2.0),
        (r#"convey_server_state{backend="web",server="a",state="up"}"#, 1.0),
        (r#"convey_events_total{event="ready",level="info"}"#, 1.0),
        ("convey_config_last_reload_successful", 1.0),
    ] {
        assert_eq!(value(&text, series), expected, "{series}");
    }
    let shares = ["a", "b"].map(|server| {
        let series = format!("convey_server_connections_total{{backend=\"web\",server=\"{server}\"}}");
        value(&text, &series)
    });
    assert_eq!(shares.iter().sum::<f64>(), 5.0);
    assert!(
        value(
            &text,
            r#"convey_server_checks_total{backend="web",server="a",result="passed"}"#
        ) > 0.0
    );
    assert!(value(&text, "process_resident_memory_bytes") > 1e6);
    assert!(
        text.contains(r#"convey_frontend_tls_sessions_total{frontend="secure",version="TLSv1.3",cipher="#)
    );

    let open = scrape(&convey, "application/openmetrics-text; version=1.0.0", "");
    fs::write(&file, &open).expect("a file");
    let families = convey
        .host()
        .run(&format!("/usr/bin/python3 -c \"{OPEN}\" < {}", file.display()));
    let families: BTreeSet<_> = families.lines().collect();
    assert!(families.contains("convey_frontend_in_bytes") && families.contains("convey_build"));
    // the control socket has the same
    let own = ask(&convey, "GET", "/metrics", "");
    assert_eq!(
        value(&own.body, r#"convey_frontend_connections_total{frontend="web"}"#),
        4.0
    );
    let servers = scrape(&convey, "text/plain", "?scope=server");
    assert!(servers.contains("convey_server_weight") && !servers.contains("convey_frontend_"));
    assert!(
        ask(&convey, "GET", "/metrics?scope=sever", "")
            .refused(400)
            .contains("frontend")
    );
}

fn rates_and_percentiles_follow_the_traffic() {
    let site = Site::new("rates", 1);
    let convey = site.convey(&site.config("", NO_CHECK));
    site.ask(20);
    // rates are of steps of five seconds
    convey.wait_status("a rate of the last ten seconds", |status| {
        status.frontends["web"].rates.connections.ten_seconds > 0.0
    });
    let status = convey.status();
    let (frontend, backend) = (&status.frontends["web"], &status.backends["web"]);
    let server = &backend.servers["a"];
    for rates in [&frontend.rates, &backend.rates, &server.rates] {
        // of a young process every window is its life
        let windows = &rates.connections;
        assert!(
            windows.minute > 0.0 && windows.minute == windows.five_minutes,
            "{rates:?}"
        );
        assert!(
            rates.bytes_out.ten_seconds > rates.bytes_in.ten_seconds,
            "{rates:?}"
        );
        assert_eq!(rates.failures.five_minutes, 0.0);
    }
    let sessions = frontend.session_time.expect("sessions have ended");
    assert_eq!(sessions.count, 20);
    assert!(sessions.p50 <= sessions.p90 && sessions.p90 <= sessions.p99 && sessions.p50 > 0.0);
    assert_eq!(server.connect_time.expect("connects").count, 20);
    assert_eq!(frontend.handshake_time, None);
}

/// Runs curl that listens to events.
fn listen(convey: &Convey, arguments: &str) -> Process {
    convey.host().start(&format!(
        "exec curl -sSN --unix-socket {}/admin.sock -H 'Accept: text/event-stream' {arguments} 'http://convey/v1/events'",
        convey.dir().display()
    ))
}

/// The first line with this in it, once it has come.
#[track_caller]
fn hears(stream: &Process, part: &str) -> String {
    let line = || {
        let said = stream.stdout();
        said.lines().find(|line| line.contains(part)).map(str::to_owned)
    };
    wait_until(&format!("an event with {part}"), PATIENCE, || line().is_some());
    line().expect("it has come")
}

fn a_stream_of_events_tells_what_happens_and_goes_on_after_a_restart() {
    let site = Site::new("events", 2);
    let config = site.config("", NO_CHECK);
    let mut convey = site.convey(&config);
    let stream = listen(&convey, "");
    hears(&stream, "retry:");
    convey.order("server drain web/a");
    let id = hears(&stream, "id:");
    let told = hears(&stream, "\"event\":\"server_override\"");
    assert!(
        told.contains("\"backend\":\"web\"")
            && told.contains("\"server\":\"a\"")
            && told.contains("web/a: drain"),
        "{told}"
    );
    let history: Events = ask(&convey, "GET", "/v1/overrides/history", "").parse();
    let [drained] = &history.events[..] else {
        panic!("{history:?}")
    };
    assert!(drained.fields["by"].starts_with("uid 0, pid "), "{drained:?}");
    let listed: Events = ask(&convey, "GET", "/v1/events?server=a&level=info&limit=5", "").parse();
    assert!(listed.events.iter().any(|event| event.event == "server_override"));
    assert!(
        ask(&convey, "GET", "/v1/events?level=loud", "")
            .refused(400)
            .contains("warning")
    );
    // who has heard that one hears what has come since, and that something was in between which nobody has kept
    let last = id.trim_start_matches("id: ").to_owned();
    convey.signal(nix::sys::signal::Signal::SIGKILL);
    convey.wait_exit(PATIENCE);
    convey.start_again(&config);
    let stream = listen(&convey, &format!("-H 'Last-Event-ID: {last}'"));
    hears(&stream, "event: gap");
    hears(&stream, "\"event\":\"ready\"");
    let numbers: Events = ask(&convey, "GET", &format!("/v1/events?after={last}"), "").parse();
    assert!(numbers.gap && numbers.events.iter().any(|event| event.event == "ready"));
    assert!(numbers.events.windows(2).all(|pair| pair[0].id < pair[1].id));
}

fn listeners_have_places_of_their_own() {
    let site = Site::new("listeners", 1);
    let convey = site.convey(&site.config("", NO_CHECK));
    let streams: Vec<_> = (0..40).map(|_| listen(&convey, "")).collect();
    wait_until("everybody is answered", PATIENCE, || {
        streams.iter().all(|stream| !stream.stdout().is_empty())
    });
    let count = |beginning: &str| {
        let begun = streams
            .iter()
            .filter(|stream| stream.stdout().contains(beginning));
        begun.count()
    };
    assert_eq!((count("retry:"), count("too many streams")), (24, 16));
    // others are answered meanwhile
    assert!(convey.status().frontends.contains_key("web"));
    drop(streams);
    wait_until("the places are free again", PATIENCE, || {
        let stream = listen(&convey, "");
        wait_until("an answer", PATIENCE, || !stream.stdout().is_empty());
        stream.stdout().contains("retry:")
    });
}
