//! Export by OTLP: what collectors do, how they are reached, and when exports begin and end.

use std::{fs, path::Path, time::Duration};

use convey::base::OtlpSignal;
use nix::sys::signal::Signal;

use crate::{
    Test,
    lab::{
        PATIENCE,
        collector::{Answer, Collector, answer, points, records},
        load::Wrk,
        wait_until,
    },
    otlp::{UNBOUNDED, collector, of, otlp},
    preambles::nginx,
    site::{BLIND, Site},
    tests,
    tls::{EC, Pki},
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    a_collector_that_babbles_costs_no_memory,
    what_has_no_room_while_a_collector_is_gone_is_dropped_and_counted,
    a_collector_is_verified_and_shown_secrets_that_nobody_else_sees,
    a_reload_turns_exports_on_elsewhere_and_off,
    the_last_metrics_and_records_come_at_the_end,
];

fn a_collector_that_babbles_costs_no_memory() {
    let site = Site::new("otlp-babble", 1);
    let (_host, collector, url) = collector(&site);
    let config =
        UNBOUNDED.to_owned() + &site.config("", BLIND) + &otlp(&url, "timeout = \"2s\"\nconnections = false");
    let convey = site.convey(&config);
    let metrics = || of(&convey, OtlpSignal::Metrics);
    wait_until("it works", PATIENCE, || metrics().requests["accepted"] > 0);
    let memory = convey.private_memory();
    let endless = |head: &str| Answer::Endless(head.as_bytes().to_vec());
    for (babble, counted) in [
        (Answer::Bytes(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()), "failed"),
        (Answer::Bytes(Vec::new()), "failed"),
        (endless("HTTP/1.1 200 OK\r\nX: "), "failed"),
        // its status is enough
        (
            endless("HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n"),
            "accepted",
        ),
        (
            endless("HTTP/1.1 500 Oops\r\nContent-Length: 99999999999\r\n\r\n"),
            "refused",
        ),
        (
            answer(
                "301 Moved Permanently",
                "Location: https://elsewhere.example/\r\n",
                b"",
            ),
            "refused",
        ),
        (
            answer("200 OK", "Content-Encoding: gzip\r\n", b"\xff\xff\xff\xff\x0f"),
            "accepted",
        ),
    ] {
        let before = metrics().requests[counted];
        collector.answer(babble);
        wait_until(counted, PATIENCE, || {
            metrics().requests[counted] > before && collector.untold() == 0
        });
    }
    wait_until("it works", PATIENCE, || metrics().error.is_none());
    assert!(convey.private_memory() < memory + (8 << 20), "{memory}");
    assert_eq!(site.ask(3), [("a".to_owned(), 3)].into());
}

fn what_has_no_room_while_a_collector_is_gone_is_dropped_and_counted() {
    let site = Site::new("otlp-full", 1);
    let host = site.lab.host("collector");
    let config = UNBOUNDED.to_owned()
        + &site.config("connection_log = { journal = false }", BLIND)
        + &otlp(&format!("http://{}", host.addr(4318)), "metrics = false").replace("interval = \"1s\"\n", "");
    let convey = site.convey(&config);
    let dropped = || of(&convey, OtlpSignal::Logs).dropped["queue_full"];
    site.ask(50);
    let memory = convey.private_memory();
    let load = Wrk::endless(&site.client, &site.url(), 16, true);
    wait_until("there is no room", PATIENCE, || dropped() > 1_000);
    assert!(load.stop().requests > 1_000, "connections go on");
    assert!(convey.private_memory() < memory + (24 << 20), "{memory}");
    convey.wait_status("all have ended", |status| {
        status.frontends["web"].traffic.connections_current == 0
    });
    // every one is with the collector in the end, or counted
    let collector = Collector::start(&host, 4318);
    let status = convey.status();
    // what the log itself had no room for does not get there
    let logged = status.frontends["web"].traffic.connections_total - status.log_events_dropped;
    wait_until("the others come", PATIENCE, || {
        collector.records().len() as u64 + dropped() == logged
    });
    let largest = collector
        .requests()
        .iter()
        .map(|request| request.body.len())
        .max();
    assert!(largest.is_some_and(|bytes| bytes < 3 << 19), "{largest:?}");
}

fn save(path: &Path, text: &str) {
    fs::write(path, text).expect("a file");
}

fn a_collector_is_verified_and_shown_secrets_that_nobody_else_sees() {
    let site = Site::new("otlp-tls", 1);
    let (host, collector, _) = collector(&site);
    let pki = Pki::new(&host, "ca");
    pki.issue("first", &["collector.example"], EC, 30);
    let tls = format!(
        "server {{ listen {at}:443 ssl; ssl_certificate {cert}; ssl_certificate_key {key};\n\
         location / {{ client_max_body_size 9m; proxy_pass http://{to}; }} }}",
        at = host.ip4(),
        cert = pki.path("first.pem"),
        key = pki.path("first.key"),
        to = collector.addr(),
    );
    let _nginx = nginx(&host, &tls, host.addr(443));
    let (ca, key) = (site.lb.path("ca.pem"), site.lb.path("otlp.key"));
    let authority = fs::read_to_string(pki.path("ca.pem")).expect("the CA");
    save(
        &ca,
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    );
    save(&key, "Bearer s3cret\n");
    let settings = |name: &str| {
        let more = format!(
            "connections = false\nheaders = {{ authorization = \"file:{}\", x-org = \"file:{}\" }}\n\
             tls = {{ ca = {ca:?}, server_name = \"{name}\" }}",
            key.display(),
            key.display()
        );
        site.config("", BLIND) + &otlp(&format!("https://{}", host.addr(443)), &more)
    };
    let convey = site.convey(&settings("collector.example"));
    let fails = |why: &str| {
        wait_until(why, PATIENCE, || {
            of(&convey, OtlpSignal::Metrics)
                .error
                .is_some_and(|error| error.contains(why))
        });
    };
    fails("tls");
    assert!(collector.requests().is_empty());
    save(&ca, &authority);
    let request = collector.next("/v1/metrics");
    assert_eq!(request.headers["authorization"], "Bearer s3cret");
    assert_eq!(request.headers["x-org"], "Bearer s3cret");
    assert!(!points(&request.body).is_empty());
    // a collector that does not want the secret, and says which
    collector.answer(answer("401 Unauthorized", "", b"not Bearer s3cret"));
    fails("the collector answers 401 Unauthorized: not *************");
    save(&key, "Bearer other\n");
    wait_until("the secret is read again", PATIENCE, || {
        collector
            .requests()
            .last()
            .is_some_and(|last| last.headers["authorization"] == "Bearer other")
    });
    save(&key, "Bearer a\u{7}b\n");
    collector.answer(answer("403 Forbidden", "", b""));
    fails("characters that no header may have");
    save(&key, "Bearer s3cret\n");
    convey.reload(&settings("other.example"));
    fails("TLS with");
    for text in [
        convey.order("config show"),
        convey.stderr(),
        convey.order("status --json"),
    ] {
        assert!(!text.contains("s3cret"), "{text}");
    }
}

fn a_reload_turns_exports_on_elsewhere_and_off() {
    let site = Site::new("otlp-reload", 1);
    let (host, one, url) = collector(&site);
    let other = Collector::start(&host, 4319);
    let without = UNBOUNDED.to_owned() + &site.config("connection_log = { journal = false }", BLIND);
    let convey = site.convey(&without);
    assert!(convey.status().otlp.is_empty());
    site.ask(1);
    convey.reload(&(without.clone() + &otlp(&url, "")));
    site.ask(10);
    one.next("/v1/metrics");
    // what is on its way to the one goes there, what ends afterwards to the other
    convey.reload(&(without.clone() + &otlp(&format!("http://{}", other.addr()), "")));
    site.ask(10);
    wait_until("every record", PATIENCE, || {
        one.records().len() + other.records().len() == 20
    });
    assert!(other.records().len() >= 10);
    other.next("/v1/metrics");
    let before = one.requests().len();
    // the same under other settings of what does not concern the connection log
    convey.reload(
        &(without.clone()
            + &otlp(&format!("http://{}", other.addr()), "metrics = false")
                .replace("interval = \"1s\"\n", "")),
    );
    assert_eq!(convey.status().otlp.len(), 1);
    site.ask(1);
    wait_until("the record", PATIENCE, || {
        other.records().len() + one.records().len() == 21
    });
    convey.reload(&without);
    assert!(convey.status().otlp.is_empty());
    let after = other.requests().len();
    convey.reload(&(without.clone() + &otlp(&url, "connections = false")));
    one.next("/v1/metrics");
    site.ask(1);
    one.next("/v1/metrics");
    assert_eq!(
        (
            other.requests().len(),
            one.records().len() + other.records().len()
        ),
        (after, 21)
    );
    assert!(one.requests().len() > before);
}

fn the_last_metrics_and_records_come_at_the_end() {
    let site = Site::new("otlp-end", 1);
    let (_host, collector, url) = collector(&site);
    let settings = otlp(&url, "").replace("\"1s\"", "\"1h\"");
    let config =
        UNBOUNDED.to_owned() + &site.config("connection_log = { journal = false }", BLIND) + &settings;
    let mut convey = site.convey(&config);
    // the first come at the start
    wait_until("the first", PATIENCE, || {
        of(&convey, OtlpSignal::Metrics).requests["accepted"] == 1
    });
    site.ask(7);
    convey.wait_status("all have ended", |status| {
        status.backends["web"].traffic.connections_current == 0
    });
    convey.signal(Signal::SIGTERM);
    assert!(convey.wait_exit(PATIENCE).success());
    let requests = collector.requests();
    let metrics: Vec<_> = requests
        .iter()
        .filter(|request| request.path == "/v1/metrics")
        .collect();
    assert_eq!(metrics.len(), 2);
    let last = points(&metrics[1].body);
    let total = last
        .iter()
        .find(|point| point.metric == "convey_frontend_connections_total");
    assert_eq!(total.expect("the counter").value, 7.0);
    let logged = requests.iter().filter(|request| request.path == "/v1/logs");
    assert_eq!(logged.flat_map(|request| records(&request.body)).count(), 7);

    // one that says nothing holds up the end for some seconds at most: the process ends long before it gives up
    collector.answer(Answer::Silence);
    convey.launch_again(&config.replace("[otlp]\n", "[otlp]\ntimeout = \"1h\"\n"));
    convey.wait_ready();
    wait_until("it is asked", PATIENCE, || collector.untold() == 0);
    site.ask(1);
    collector.answer(Answer::Silence);
    collector.answer(Answer::Silence);
    convey.signal(Signal::SIGTERM);
    assert!(convey.wait_exit(Duration::from_secs(60)).success());
}
