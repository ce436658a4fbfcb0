//! Metrics as Prometheus reads them.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use super::{Format, Scope, Scrape, families, family::Kind};
use crate::{
    admin::{render::tests::running, tests::daemon::Sources},
    base::{TerminationReason, WorkerId},
    sys::usage::Usage,
};

/// Of a daemon with a frontend, a backend and three servers, one of which is down, after some traffic.
pub(super) fn scrape() -> Arc<Scrape> {
    let now = Instant::now();
    let status = running(now);
    let frontend = &status.snapshot.frontends["http"].live;
    let shard = frontend.counters.shard(WorkerId(0));
    shard.opened.add(3);
    shard.closed.add(1);
    shard.bytes_in.add(100);
    shard.ended[TerminationReason::NoServer as usize].add(1);
    for millis in [2, 40] {
        frontend
            .session_time
            .own(WorkerId(1))
            .add(Duration::from_millis(millis));
    }
    Arc::new(Scrape {
        status: Arc::new(status),
        live: Arc::new(Sources::unheard()),
        packets: crate::admin::status::PacketCounts::default(),
        usage: Usage::read().ok(),
        connections_refused: 5,
        logins_failed: 0,
        now,
        wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000),
    })
}

fn text(format: Format) -> String {
    let scrape = scrape();
    let mut text = String::new();
    for family in families() {
        format
            .write(&mut text, family, &scrape)
            .expect("a text takes everything");
    }
    text
}

#[track_caller]
fn has(text: &str, lines: &str) {
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        assert!(
            text.lines().any(|found| found == line),
            "no line `{line}` in\n{text}"
        );
    }
}

#[test]
fn prometheus_own_form_names_counters_with_their_suffix() {
    let text = text(Format::Prometheus);
    has(
        &text,
        r#"
        # HELP convey_frontend_connections_total Connections, sessions or flows.
        # TYPE convey_frontend_connections_total counter
        convey_frontend_connections_total{frontend="http"} 3
        convey_frontend_current_connections{frontend="http"} 2
        convey_frontend_in_bytes_total{frontend="http"} 100
        convey_frontend_ended_connections_total{frontend="http",reason="no_server"} 1
        # TYPE convey_frontend_session_time_seconds histogram
        convey_frontend_session_time_seconds_sum{frontend="http"} 0.042
        convey_frontend_session_time_seconds_count{frontend="http"} 2
        convey_frontend_session_time_seconds_bucket{le="0.001",frontend="http"} 0
        convey_frontend_session_time_seconds_bucket{le="0.0025",frontend="http"} 1
        convey_frontend_session_time_seconds_bucket{le="+Inf",frontend="http"} 2
        convey_backend_servers{backend="web",state="up"} 2
        convey_server_state{backend="web",server="b",state="down"} 1
        convey_server_eligible{backend="web",server="a"} 1
        convey_server_eligible{backend="web",server="b"} 0
        convey_server_weight{backend="web",server="a"} 3
        convey_server_last_change_timestamp_seconds{backend="web",server="a"} 999980.0
        # TYPE convey_build_info gauge
        convey_admin_refused_connections_total 5
        convey_config_generation 2
        "#,
    );
    assert!(!text.contains("# UNIT") && !text.contains("# EOF"));
}

#[test]
fn openmetrics_names_families_and_units() {
    has(
        &text(Format::OpenMetrics),
        r#"
        # TYPE convey_frontend_connections counter
        convey_frontend_connections_total{frontend="http"} 3
        # UNIT convey_frontend_in_bytes bytes
        # TYPE convey_build info
        "#,
    );
}

#[test]
fn what_never_happened_has_no_lines() {
    let text = text(Format::Prometheus);
    for absent in [
        "convey_packet",
        "reason=\"killed\"",
        "tls_handshake_time",
        "convey_acme",
    ] {
        assert!(!text.contains(absent), "{absent}");
    }
}

#[test]
fn names_are_told_once_and_as_is_customary() {
    let mut known = HashSet::new();
    for family in families() {
        let name = family.full_name();
        assert!(known.insert(name.clone()), "{name} twice");
        assert!(
            name.starts_with("convey_") || name.starts_with("process_"),
            "{name}"
        );
        for suffix in ["_total", "_count", "_sum", "_bucket", "_info"] {
            assert!(!name.ends_with(suffix), "{name}");
        }
        assert!(!family.help.ends_with('.'), "{name}");
        if family.kind == Kind::Histogram || name.contains("_time") {
            assert_eq!(family.unit, Some("seconds"), "{name}");
        }
    }
    let scopes: BTreeSet<_> = families().map(|family| family.scope.label()).collect();
    assert_eq!(scopes.len(), Scope::ALL.len(), "every scope has something");
}

#[test]
fn openmetrics_is_for_those_who_prefer_it() {
    let prefers = |accept| Format::accepted(Some(accept)) == Format::OpenMetrics;
    // Prometheus 2.42
    assert!(prefers(
        "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
    ));
    assert!(prefers("application/openmetrics-text"));
    for other in [
        "",
        "*/*",
        "text/plain",
        "text/html,application/xhtml+xml",
        "application/openmetrics-text;q=0.3, text/plain",
        "application/openmetrics-text; q=0",
    ] {
        assert!(!prefers(other), "{other}");
    }
    assert_eq!(Format::accepted(None), Format::Prometheus);
}

#[test]
fn alerts_and_dashboard_ask_for_what_there_is() {
    let shipped = [
        include_str!("../../../configs/prometheus/alerts.yml"),
        include_str!("../../../configs/prometheus/alerts-test.yml"),
        include_str!("../../../configs/grafana/convey.json"),
    ];
    let known: HashSet<_> = families()
        .map(|family| (family.full_name(), family.kind))
        .collect();
    let is_known = |name: &str| {
        let with_kind = |suffix: &str, kind| {
            let name = name.strip_suffix(suffix);
            name.is_some_and(|name| known.contains(&(name.to_owned(), kind)))
        };
        with_kind("_total", Kind::Counter)
            || with_kind("", Kind::Gauge)
            || with_kind("_bucket", Kind::Histogram)
            || with_kind("_info", Kind::Info)
    };
    let is_of_a_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    for text in shipped {
        let names = text
            .split(|c| !is_of_a_name(c))
            .filter(|word| word.starts_with("convey_"));
        let names: BTreeSet<_> = names.collect();
        assert!(names.len() > 10, "{names:?}");
        for name in names {
            assert!(is_known(name), "{name}");
        }
    }
}
