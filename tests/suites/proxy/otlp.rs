//! Metrics and the connection log as a collector gets them by OTLP; and that no collector holds up anything else.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use convey::{
    admin::views::{OtlpExport, Status},
    base::OtlpSignal,
};
use nix::sys::signal::Signal;

use crate::{
    Test,
    lab::{
        Convey, Host, PATIENCE,
        collector::{Answer, Attributes, Collector, Kind, Point, Value, answer, points, resource},
        open_to_all, wait_until,
    },
    site::{BLIND, Site, backend, frontend},
    tests,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    a_collector_gets_what_metrics_tells_and_a_restart_begins_anew,
    a_record_has_the_fields_of_a_line_of_json_and_sampling_holds_for_both,
    a_collector_that_is_gone_or_silent_holds_up_nobody_and_gets_what_waited,
    a_collector_says_when_to_come_again_and_what_it_does_not_want,
];

/// More than any of these tests makes a second.
pub const UNBOUNDED: &str = "[global]\nwatch_config = false\naccess_log_per_second = 1_000_000\n";

/// A collector at a URL, with more settings.
pub fn otlp(url: &str, more: &str) -> String {
    format!("[otlp]\nendpoint = \"{url}\"\ninterval = \"1s\"\n{more}\n")
}

/// One on a host of its own.
pub fn collector(site: &Site) -> (Host, Collector, String) {
    let host = site.lab.host("collector");
    let collector = Collector::start(&host, 4318);
    let url = format!("http://{}", collector.addr());
    (host, collector, url)
}

fn export(status: &Status, signal: OtlpSignal) -> OtlpExport {
    let found = status.otlp.iter().find(|export| export.signal == signal);
    found.cloned().expect("the signal")
}

pub fn of(convey: &Convey, signal: OtlpSignal) -> OtlpExport {
    export(&convey.status(), signal)
}

/// The series of a point as the text of metrics names them, with their values.
fn series(point: &Point) -> Vec<(String, f64)> {
    let labels = |more: &[(&str, String)]| {
        let text = |value: &Value| match value {
            Value::Text(text) => text.clone(),
            other => panic!("a label {other:?}"),
        };
        let own = point
            .attributes
            .iter()
            .map(|(name, value)| (name.as_str(), text(value)));
        let all: BTreeMap<&str, String> = own
            .chain(more.iter().map(|(name, value)| (*name, value.clone())))
            .collect();
        all.into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect::<Vec<_>>()
            .join(",")
    };
    let named = |suffix: &str, more: &[(&str, String)], value| {
        (format!("{}{suffix}{{{}}}", point.metric, labels(more)), value)
    };
    if point.kind != Kind::Histogram {
        return vec![named("", &[], point.value)];
    }
    let mut below = 0;
    let mut all = vec![
        named("_sum", &[], point.value),
        named("_count", &[], point.count as f64),
    ];
    for (end, count) in &point.buckets {
        below += count;
        let end = if end.is_finite() {
            format!("{end:?}")
        } else {
            "+Inf".to_owned()
        };
        all.push(named("_bucket", &[("le", end)], below as f64));
    }
    all
}

/// The series of the text of metrics, their labels in the order of their names.
fn scraped(convey: &Convey) -> BTreeMap<String, f64> {
    let text = convey.host().run("curl -sS --fail http://127.0.0.1:7000/metrics");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let read = |line: &str| {
        let (name, value) = line.rsplit_once(' ').expect("a value");
        let (name, labels) = name.split_once('{').unwrap_or((name, "}"));
        let labels = labels.trim_end_matches('}').replace('"', "");
        let labels: BTreeSet<&str> = labels.split(',').filter(|label| !label.is_empty()).collect();
        let labels = labels.into_iter().collect::<Vec<_>>().join(",");
        (format!("{name}{{{labels}}}"), value.parse().expect("a number"))
    };
    lines.map(read).collect()
}

fn a_collector_gets_what_metrics_tells_and_a_restart_begins_anew() {
    let site = Site::new("otlp-metrics", 2);
    let (_host, collector, url) = collector(&site);
    let config = site.config("", BLIND)
        + "[stats]\nport = 7000\n"
        + &otlp(
            &format!("{url}/tenant/"),
            "instance = \"lb 1\"\nconnections = false",
        );
    let mut convey = site.convey(&config);
    assert_eq!(site.ask(12).values().sum::<u32>(), 12);
    convey.wait_status("all have ended", |status| {
        status.backends["web"].traffic.connections_current == 0
    });
    let before = scraped(&convey);
    // the one that comes next may have been made before
    collector.next("/tenant/v1/metrics");
    let request = collector.next("/tenant/v1/metrics");
    let after = scraped(&convey);
    assert_eq!(request.headers["content-type"], "application/x-protobuf");
    assert!(request.length < request.body.len() / 2, "packed by gzip");
    let who = resource(&request.body);
    let named = |name: &str| match &who[name] {
        Value::Text(text) => text.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(named("service.name"), "convey");
    assert_eq!(named("service.instance.id"), "lb 1");
    assert_eq!(named("service.version"), env!("CARGO_PKG_VERSION"));
    assert!(!named("host.name").is_empty());

    let exported = points(&request.body);
    let told: BTreeMap<String, f64> = exported.iter().flat_map(series).collect();
    let own = before.iter().filter(|(name, _)| name.starts_with("convey_"));
    let still = own.filter(|(name, value)| after.get(*name) == Some(*value));
    let mut compared = 0;
    for (name, value) in still {
        assert_eq!(told.get(name), Some(value), "{name}");
        compared += 1;
    }
    assert!(compared > 100, "{compared} of {}", before.len());
    let unknown: Vec<_> = told.keys().filter(|name| !after.contains_key(*name)).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    assert_eq!(told["convey_frontend_connections_total{frontend=web}"], 12.0);
    assert_eq!(
        told["convey_frontend_session_time_seconds_count{frontend=web}"],
        12.0
    );
    assert_eq!(told["convey_build_info{version=1.0.0-dev}"], 1.0);

    let started = |points: &[Point]| {
        let begun = points
            .iter()
            .find(|point| point.metric == "process_start_time_seconds");
        let begun = begun.expect("the start").value;
        for point in points {
            match point.kind {
                Kind::Gauge => assert_eq!(point.start, 0, "{}", point.metric),
                Kind::Sum | Kind::Histogram => {
                    assert!(
                        (point.start as f64 / 1e9 - begun).abs() < 0.001,
                        "{}",
                        point.metric
                    );
                    assert!(point.start < point.time);
                }
            }
            let unit = match () {
                () if point.metric.contains("_seconds") => "s",
                () if point.metric.contains("_bytes") => "By",
                () => "",
            };
            assert_eq!(point.unit, unit, "{}", point.metric);
        }
        begun
    };
    let begun = started(&exported);
    convey.signal(Signal::SIGTERM);
    assert!(convey.wait_exit(PATIENCE).success());
    convey.start_again(&config);
    let again = points(&collector.next("/tenant/v1/metrics").body);
    assert!(started(&again) > begun);
    let total = again
        .iter()
        .find(|point| point.metric == "convey_frontend_connections_total");
    assert_eq!(total.expect("the counter").value, 0.0);
    let metrics = of(&convey, OtlpSignal::Metrics);
    assert_eq!((metrics.error, metrics.dropped.values().sum::<u64>()), (None, 0));
    assert!(metrics.requests["accepted"] > 0 && metrics.last_success.is_some());
    assert_eq!(
        convey.status().otlp.len(),
        1,
        "the connection log is not exported"
    );
}

/// The fields of a line of JSON, as attributes.
fn fields(line: &str) -> Attributes {
    let json: BTreeMap<String, serde_json::Value> = serde_json::from_str(line).expect("JSON");
    let own = json
        .into_iter()
        .filter(|(name, _)| !["timestamp", "level", "message"].contains(&name.as_str()));
    own.map(|(name, value)| {
        let value = match value {
            serde_json::Value::String(text) => Value::Text(text),
            serde_json::Value::Bool(yes) => Value::Bool(yes),
            serde_json::Value::Number(number) => Value::Integer(number.as_i64().expect("an integer")),
            other => panic!("{name} = {other}"),
        };
        (name, value)
    })
    .collect()
}

fn a_record_has_the_fields_of_a_line_of_json_and_sampling_holds_for_both() {
    let site = Site::new("otlp-records", 1);
    let (_host, collector, url) = collector(&site);
    let logs = site.lb.path("logs");
    fs::create_dir_all(&logs).expect("a directory");
    open_to_all(&logs);
    let file = logs.join("web.json");
    let sampled = format!(
        "connection_log = {{ journal = false, sample = \"1/10\", file = {file:?}, format = \"json\" }}"
    );
    let nobody = site.webs[0].host().addr(9);
    let config = UNBOUNDED.to_owned()
        + &site.config(&sampled, BLIND)
        + &frontend("broken", site.lb.addr(81), "broken", &sampled)
        + &frontend("quiet", site.lb.addr(82), "web", "access_log = false")
        + &backend("broken", &format!("{BLIND}\nretries = 0"), &[("s", nobody, "")])
        + &otlp(&url, "metrics = false\ncompression = \"none\"");
    let config = config.replace("interval = \"1s\"\n", "");
    let convey = site.convey(&config);
    site.client.run(&format!("curl -sS http://{}/", site.lb.addr(82)));
    assert_eq!(site.ask(21), [("a".to_owned(), 21)].into());
    site.client.try_run(&format!(
        "for i in 1 2 3; do curl -s http://{}/; done",
        site.lb.addr(81)
    ));
    // of 21 the 1st, 11th and 21st
    let lines = || fs::read_to_string(&file).unwrap_or_default();
    wait_until("every line", PATIENCE, || lines().lines().count() == 6);
    wait_until("every record", PATIENCE, || collector.records().len() >= 6);
    let text = lines();
    let got = collector.records();
    assert_eq!(got.len(), 6);
    for (line, record) in text.lines().zip(&got) {
        assert_eq!(record.attributes, fields(line));
        let json: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(
            record.body,
            Value::Text(json["message"].as_str().expect("a text").to_owned())
        );
        let is_orderly = json["reason"] == "normal";
        let severity = if is_orderly { (9, "INFO") } else { (13, "WARN") };
        assert_eq!((record.severity.0, record.severity.1.as_str()), severity);
        assert!(record.time > 1_700_000_000_000_000_000, "{record:?}");
    }
    let last = collector.requests().pop().expect("a request");
    assert_eq!(
        (last.path.as_str(), last.headers.get("content-encoding")),
        ("/v1/logs", None)
    );
    let logs = of(&convey, OtlpSignal::Logs);
    assert_eq!((logs.error, logs.dropped.values().sum::<u64>()), (None, 0));
    // one that ends soon after another is not another request
    assert!(logs.requests["accepted"] < 6, "{:?}", logs.requests);
    let output = &convey.status().log_outputs;
    assert!(
        output
            .iter()
            .any(|output| output.output == format!("otlp {url}/v1/logs") && output.error.is_none())
    );
}

fn a_collector_that_is_gone_or_silent_holds_up_nobody_and_gets_what_waited() {
    let site = Site::new("otlp-dead", 1);
    let host = site.lab.host("collector");
    let addr = host.addr(4318);
    let config = UNBOUNDED.to_owned()
        + "[stats]\nport = 7000\n"
        + &site.config("connection_log = { journal = false }", BLIND)
        + &otlp(&format!("http://{addr}"), "timeout = \"1s\"");
    let convey = site.convey(&config);
    assert_eq!(site.ask(20), [("a".to_owned(), 20)].into());
    let fails = |signal, why: &str| {
        wait_until(why, PATIENCE, || {
            of(&convey, signal).error.is_some_and(|error| error.contains(why))
        });
    };
    for signal in OtlpSignal::ALL {
        fails(signal, "refused");
    }
    let shown = convey.order("status");
    assert!(
        shown.contains(&format!("Export of metrics to http://{addr}/v1/metrics fails: "))
            && shown.contains(&format!("Connection log to otlp http://{addr}/v1/logs fails: ")),
        "{shown}"
    );
    assert_eq!(scraped(&convey)["convey_otlp_up{signal=logs}"], 0.0);
    wait_until("metrics are given up", PATIENCE, || {
        of(&convey, OtlpSignal::Metrics).dropped["late"] > 100
    });
    assert_eq!(of(&convey, OtlpSignal::Logs).dropped["late"], 0);

    // who is there and says nothing is no better
    let collector = Collector::start(&host, 4318);
    collector.answer(Answer::Silence);
    collector.answer(Answer::Silence);
    wait_until("both are told", PATIENCE, || collector.untold() == 0);
    assert_eq!(site.ask(5), [("a".to_owned(), 5)].into());
    // what was sent to who said nothing comes again
    wait_until("every record", PATIENCE, || {
        let records = collector.records();
        let of_web = records
            .iter()
            .filter(|record| record.attributes["frontend"] == Value::Text("web".to_owned()));
        of_web
            .map(|record| format!("{record:?}"))
            .collect::<BTreeSet<_>>()
            .len()
            == 25
    });
    for signal in OtlpSignal::ALL {
        wait_until("it works again", PATIENCE, || of(&convey, signal).error.is_none());
    }
    let said = convey.stderr();
    let times = |text: &str| said.matches(text).count();
    assert_eq!(
        (
            times("export of metrics by OTLP: connect to"),
            times("export of metrics by OTLP works again")
        ),
        (1, 1)
    );
    assert_eq!(scraped(&convey)["convey_otlp_up{signal=metrics}"], 1.0);
    assert_eq!(of(&convey, OtlpSignal::Logs).dropped.values().sum::<u64>(), 0);
}

/// A google.rpc.Status with a message.
fn status_message(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).expect("a short text");
    [&[8, 3, 18, length], text.as_bytes()].concat()
}

/// An answer that rejects a number of items.
fn partial(rejected: u8, text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).expect("a short text");
    let inner = [&[8, rejected, 18, length], text.as_bytes()].concat();
    [
        &[10, u8::try_from(inner.len()).expect("a short text")],
        inner.as_slice(),
    ]
    .concat()
}

fn a_collector_says_when_to_come_again_and_what_it_does_not_want() {
    let site = Site::new("otlp-answers", 1);
    let (_host, collector, url) = collector(&site);
    let config = UNBOUNDED.to_owned()
        + &site.config("connection_log = { journal = false }", BLIND)
        + &otlp(&url, "metrics = false");
    let convey = site.convey(&config.replace("interval = \"1s\"\n", ""));
    let logs = || of(&convey, OtlpSignal::Logs);
    for later in [
        answer("429 Too Many Requests", "Retry-After: 1\r\n", b""),
        answer("503 Service Unavailable", "", b"busy\n"),
    ] {
        collector.answer(later);
    }
    site.ask(1);
    wait_until("it is taken", PATIENCE, || logs().requests["accepted"] == 1);
    let requests = collector.requests();
    let bodies: BTreeSet<&[u8]> = requests.iter().map(|request| request.body.as_slice()).collect();
    assert_eq!(
        (requests.len(), bodies.len()),
        (3, 1),
        "the very same, three times"
    );
    assert_eq!((logs().requests["later"], logs().error), (2, None));
    assert_eq!(logs().dropped.values().sum::<u64>(), 0);

    let bad = |status: &str, body: &[u8], says: &str, reason: &str| {
        let before = logs();
        collector.answer(answer(status, "", body));
        site.ask(3);
        wait_until(says, PATIENCE, || {
            logs().error.is_some_and(|error| error.contains(says))
        });
        let dropped = logs().dropped[reason] - before.dropped[reason];
        assert_eq!(collector.untold(), 0);
        dropped
    };
    let refused = "the collector answers 400 Bad Request: no such tenant";
    assert!(
        bad(
            "400 Bad Request",
            &status_message("no such tenant"),
            refused,
            "refused"
        ) > 0
    );
    assert!(
        bad(
            "404 Not Found",
            b"<html>",
            "the collector answers 404 Not Found",
            "refused"
        ) > 0
    );
    assert_eq!(
        bad(
            "200 OK",
            &partial(1, "too old"),
            "the collector has rejected 1: too old",
            "rejected"
        ),
        1
    );
    site.ask(1);
    wait_until("it is taken", PATIENCE, || logs().error.is_none());
    assert!(convey.order("status").contains("lines dropped"));
}
