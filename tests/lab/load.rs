//! Load: wrk for requests, iperf3 for bulk.

use std::{net::SocketAddr, time::Duration};

use nix::sys::signal::Signal;

use super::{Host, PATIENCE, Process, wait_until};

/// What wrk found.
#[derive(Debug, Clone, PartialEq)]
pub struct WrkReport {
    /// Requests answered.
    pub requests: u64,
    /// Requests a second.
    pub per_second: f64,
    /// Socket errors and answers other than 2xx and 3xx.
    pub errors: u64,
    /// 99th percentile of the latency, in seconds.
    pub p99: f64,
    /// Its whole text.
    pub text: String,
}

/// A running wrk.
pub struct Wrk {
    process: Process,
    limit: Duration,
}

impl Wrk {
    /// Starts `connections` clients on one thread of `host` for so many seconds. `close` makes each request a new
    /// connection.
    #[track_caller]
    pub fn start(host: &Host, url: &str, connections: u32, seconds: u32, close: bool) -> Self {
        let header = if close { "-H 'Connection: close'" } else { "" };
        // how long an answer takes is no failure
        let command =
            format!("exec wrk -t1 -c{connections} -d{seconds}s --timeout 30s --latency {header} {url}");
        Self {
            process: host.start(&command),
            limit: PATIENCE + Duration::from_secs(seconds.into()),
        }
    }

    /// As [`start`](Self::start), until [`stop`](Self::stop). It must have made a request before it is stopped.
    #[track_caller]
    pub fn endless(host: &Host, url: &str, connections: u32, close: bool) -> Self {
        Self::start(host, url, connections, 24 * 3600, close)
    }

    /// Ends it now; it reports as ever.
    #[track_caller]
    pub fn stop(mut self) -> WrkReport {
        // again and again: wrk sleeps through one that comes before it has gone to sleep
        wait_until("wrk ends", PATIENCE, || {
            let has_ended = self.process.ended().is_some();
            if !has_ended {
                self.process.signal(Signal::SIGINT);
            }
            has_ended
        });
        self.finish()
    }

    /// Waits for its end.
    #[track_caller]
    pub fn finish(self) -> WrkReport {
        let output = self.process.finish(self.limit);
        assert!(
            output.status.success(),
            "wrk: {}\n{}{}",
            output.status,
            output.stdout,
            output.stderr
        );
        WrkReport::parse(&output.stdout)
    }
}

impl WrkReport {
    /// Reads wrk 4's text.
    #[track_caller]
    pub fn parse(text: &str) -> Self {
        let line = |key: &str| text.lines().find_map(|line| line.trim().split_once(key));
        let number = |text: &str| {
            text.trim()
                .parse::<f64>()
                .unwrap_or_else(|_| panic!("a number: {text:?}"))
        };
        let requests = line(" requests in ")
            .map(|(count, _)| number(count))
            .expect("wrk's requests");
        let socket_errors: f64 = line("Socket errors:").map_or(0.0, |(_, rest)| {
            rest.split(',')
                .filter_map(|part| part.split_whitespace().last())
                .map(number)
                .sum()
        });
        let bad_answers = line("Non-2xx or 3xx responses:").map_or(0.0, |(_, rest)| number(rest));
        Self {
            requests: requests as u64,
            per_second: line("Requests/sec:")
                .map(|(_, rest)| number(rest))
                .expect("wrk's rate"),
            errors: (socket_errors + bad_answers) as u64,
            // "Latency … 94.99%" is another line
            p99: text
                .lines()
                .find_map(|line| line.trim().strip_prefix("99%"))
                .map(|rest| seconds(rest.trim()))
                .expect("wrk's percentiles"),
            text: text.to_owned(),
        }
    }
}

/// A time as wrk prints it, such as `1.20ms`.
fn seconds(text: &str) -> f64 {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let value: f64 = digits.parse().unwrap_or_else(|_| panic!("a time: {text:?}"));
    match &text[digits.len()..] {
        "us" => value / 1e6,
        "ms" => value / 1e3,
        "s" => value,
        "m" => value * 60.0,
        unit => panic!("a time: {text:?} has the unit {unit}"),
    }
}

/// Sends with one TCP stream from `client` to an `iperf3 -s` behind `target`, or `reverse`d. Returns bytes received.
#[track_caller]
pub fn iperf3(client: &Host, target: SocketAddr, seconds: u32, reverse: bool) -> u64 {
    run_iperf3(client, target, &format!("-t {seconds}"), reverse)
}

/// As [`iperf3`], until so many MiB have been sent, however long that takes. What is on the way then is not counted as
/// received.
#[track_caller]
pub fn transfer(client: &Host, target: SocketAddr, mebibytes: u32, reverse: bool) -> u64 {
    run_iperf3(client, target, &format!("-n {mebibytes}M"), reverse)
}

#[track_caller]
fn run_iperf3(client: &Host, target: SocketAddr, amount: &str, reverse: bool) -> u64 {
    let (ip, port) = (target.ip(), target.port());
    let reverse = if reverse { "-R" } else { "" };
    let command = format!("iperf3 -J -c {ip} -p {port} {amount} {reverse}");
    let mut report = serde_json::Value::Null;
    wait_until("iperf3 has let its last client go", PATIENCE, || {
        let output = client.try_run(&command);
        report = serde_json::from_str(&output.stdout)
            .unwrap_or_else(|error| panic!("{error} in iperf3's JSON {output:?}"));
        // it takes one client at a time
        let error = report["error"].as_str();
        !error.is_some_and(|error| error.contains("busy"))
    });
    assert!(report.get("error").is_none(), "iperf3: {}", report["error"]);
    report["end"]["sum_received"]["bytes"]
        .as_u64()
        .expect("iperf3's bytes")
}
