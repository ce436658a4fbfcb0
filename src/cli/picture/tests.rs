//! Pictures as people see them.

mod alerts;
mod fixtures;
mod narrow;
mod packets;

use super::*;
use crate::{
    admin::views::{
        Discovery, FrontendState, HopState, LogOutput, NextHop, OtlpExport, Packet, PacketFlows, PacketRules,
        Rates, Word,
    },
    base::{BackendName, FrontendName, OtlpSignal, PacketReason, ServerName},
    config::{Algorithm, DiscoveryKind, EngineChoice, Mode},
};
pub(in crate::cli) use fixtures::{a_server, backends_of};

fn draw(status: &Status, earlier: Option<Earlier<'_>>, colour: bool) -> String {
    let look = Look {
        earlier,
        colour,
        ..Look::default()
    };
    super::draw(status, &look)
}

fn listen(addr: &str) -> ListenPlace {
    addr.parse().expect("an address")
}

fn frontend_name(name: &str) -> FrontendName {
    FrontendName::new(name).expect("a name")
}

fn server_name(name: &str) -> ServerName {
    ServerName::new(name).expect("a name")
}

fn traffic(total: u64, current: u64, bytes_in: u64, bytes_out: u64) -> Traffic {
    Traffic {
        connections_total: total,
        connections_current: current,
        bytes_in,
        bytes_out,
        ..Traffic::default()
    }
}

fn server(addr: &str, state: ServerState, seconds: f64, traffic: Traffic) -> Server {
    Server {
        discovered: false,
        addr: addr.parse().expect("an address"),
        state: state.into(),
        state_seconds: Some(seconds),
        state_reason: None,
        eligible: state == ServerState::Up,
        weight: 1,
        configured_weight: 1,
        effective_percent: if state == ServerState::Up { 100 } else { 0 },
        priority: 1,
        max_connections: None,
        overridden: None,
        agent: None,
        last_checks: Vec::new(),
        traffic,
        rates: Rates::default(),
        connect_time: None,
        session_time: None,
        tls_failures: BTreeMap::new(),
        packet: None,
    }
}

/// A status with every kind of server; one frontend has no servers.
pub(in crate::cli) fn example() -> Status {
    use ServerState::{Down, Draining, Up};
    let web = [
        (
            "a",
            server(
                "10.0.0.1:80",
                Up,
                7384.0,
                traffic(61_203, 12, 91_000_000, 4_200_000_000),
            ),
        ),
        (
            "b",
            Server {
                state_reason: Some("connect: Connection refused (os error 111)".into()),
                traffic: Traffic {
                    connect_failures: 3,
                    ..traffic(60_998, 0, 90_000_000, 4_100_000_000)
                },
                ..server("10.0.0.2:80", Down, 14.2, Traffic::default())
            },
        ),
        (
            "c",
            Server {
                weight: 3,
                overridden: "draining, weight 3".parse().ok(),
                max_connections: Some(500),
                ..server("[2001:db8::3]:80", Draining, 192.0, traffic(18, 5, 12_300, 990))
            },
        ),
        (
            "d",
            Server {
                effective_percent: 35,
                ..server("10.0.0.4:80", Up, 10.0, traffic(1, 1, 10, 20))
            },
        ),
        (
            "e",
            Server {
                eligible: false,
                effective_percent: 0,
                priority: 2,
                ..server("10.0.0.5:80", Up, 10.0, traffic(0, 0, 0, 0))
            },
        ),
    ];
    let pool = |servers: Vec<(&str, Server)>, queued, traffic| Backend {
        discovery: None,
        sticky: None,
        balance: Algorithm::RoundRobin.into(),
        state: BackendState::of(servers.len()).into(),
        eligible: servers.iter().filter(|(_, server)| server.eligible).count(),
        queued,
        tls: None,
        traffic,
        rates: Rates::default(),
        connect_time: None,
        session_time: None,
        servers: servers
            .into_iter()
            .map(|(name, server)| (server_name(name), server))
            .collect(),
    };
    let frontend = |addrs: &[&str], backend: &str, max, traffic| Frontend {
        route_backends: Vec::new(),
        logs_tls_keys: false,
        listen: addrs.iter().map(|addr| listen(addr)).collect(),
        mode: Mode::Proxy.into(),
        protocol: Protocol::Tcp.into(),
        serves: backend == "web",
        state: None,
        waiting: [].into(),
        backend: BackendName::new(backend).expect("a name"),
        max_connections: max,
        accept_errors: 0,
        max_sessions: None,
        datagrams_dropped: Default::default(),
        refused: BTreeMap::new(),
        traffic,
        rates: Rates::default(),
        session_time: None,
        handshake_time: None,
    };
    Status {
        version: "1.0.0-dev".into(),
        pid: 4242,
        uptime_seconds: 11_520.0,
        phase: Phase::Running.into(),
        config_file: "/etc/convey/convey.toml".into(),
        config_generation: 3,
        snapshot_generation: 17,
        last_reload_error: None,
        needs_restart: vec![],
        workers: 2,
        proxied_connections: crate::admin::views::ProxiedConnections::default(),
        log_events_dropped: 0,
        log_outputs: Vec::new(),
        otlp: Vec::new(),
        admin_connections_refused: 0,
        admin_logins_failed: 0,
        frontends: [
            (
                frontend_name("mail"),
                frontend(&["0.0.0.0:25"], "empty", Some(10), traffic(10, 10, 0, 0)),
            ),
            (
                frontend_name("web"),
                frontend(
                    &["0.0.0.0:80", "[::]:80"],
                    "web",
                    None,
                    traffic(122_219, 17, 181_012_300, 8_300_000_990),
                ),
            ),
        ]
        .into(),
        backends: [
            (
                BackendName::new("empty").expect("a name"),
                pool(vec![], 0, Traffic::default()),
            ),
            (
                BackendName::new("web").expect("a name"),
                pool(web.into(), 2, traffic(122_219, 18, 181_012_300, 8_300_000_990)),
            ),
        ]
        .into(),
        packet: None,
        acme: None,
    }
}

/// The picture without the line ends' noise of a literal.
fn assert_drawn(drawn: &str, expected: &str) {
    assert_eq!(drawn, expected.trim_start_matches('\n'), "\n{drawn}");
}

#[test]
fn the_whole_picture() {
    assert_drawn(&draw(&example(), None, false), "
convey 1.0.0-dev  pid 4242, running, up 3h 12m, 2 workers
configuration /etc/convey/convey.toml (generation 3)

FRONTEND  LISTENS ON  MODE   BACKEND  CONNS  MAX   TOTAL      IN     OUT  NOTE
mail      0.0.0.0:25  proxy  empty       10   10      10     0 B     0 B  full
web       0.0.0.0:80  proxy  web         17    -  122219  181 MB  8.3 GB
          [::]:80

BACKEND/SERVER  ADDRESS           STATE             SINCE  WEIGHT  CONNS  MAX   TOTAL      IN     OUT  FAILED  NOTE
empty           round_robin       0 of 0 eligible                      0            0     0 B     0 B       0  no servers
web             round_robin       2 of 5 eligible                     18       122219  181 MB  8.3 GB       0  2 connections waiting for a server
  a             10.0.0.1:80       up                2h 3m       1     12    -   61203   91 MB  4.2 GB       0
  b             10.0.0.2:80       down                14s       1      0    -   60998   90 MB  4.1 GB       3  connect: Connection refused (os error 111)
  c             [2001:db8::3]:80  draining         3m 12s       3      5  500      18   12 kB   990 B       0  override: draining, weight 3 (configured 1)
  d             10.0.0.4:80       up                  10s       1      1    -       1    10 B    20 B       0  slow start, 35 %
  e             10.0.0.5:80       up                  10s       1      0    -       0     0 B     0 B       0  standby, priority 2
");
}

#[test]
fn a_backend_without_an_eligible_server_says_what_clients_get() {
    let mut status = example();
    if let Some(web) = status.backends.get_mut("web") {
        web.servers.retain(|name, _| name.as_str() == "c");
        (web.state, web.eligible, web.queued) = (BackendState::Down.into(), 0, 0);
    }
    let drawn = draw(&status, None, false);
    assert!(drawn.contains("0 of 1 eligible"), "{drawn}");
    assert!(
        drawn.contains("no eligible server: new connections are refused"),
        "{drawn}"
    );
    let source = Discovery {
        kind: DiscoveryKind::Docker.into(),
        source: "docker unix:/var/run/docker.sock".into(),
        servers: 1,
        answered_seconds: Some(4.0),
        left_out: 0,
        duplicates: 0,
        problem: None,
    };
    for backend in status.backends.values_mut() {
        backend.discovery = Some(source.clone());
    }
    let drawn = draw(&status, None, false);
    for line in [
        "no eligible server: new connections are refused; docker: 1 server, read 4s ago",
        "no servers; docker: 1 server, read 4s ago",
    ] {
        assert!(drawn.contains(line), "{drawn}");
    }
}

#[test]
fn a_server_that_is_used_although_it_is_down_says_why() {
    let last = Server {
        state_reason: Some("3 connects in a row failed, out for 10s".into()),
        eligible: true,
        ..server("10.0.0.2:80", ServerState::Down, 1.0, Traffic::default())
    };
    assert_eq!(
        server_note(&last),
        "3 connects in a row failed, out for 10s; used anyway: no other server is eligible"
    );
}

#[test]
fn with_an_earlier_picture_rates_stand_in_place_of_sums() {
    let then = example();
    let mut now = example();
    now.frontends.remove("mail");
    now.backends.remove("empty");
    if let Some(web) = now.frontends.get_mut("web") {
        web.traffic.connections_total += 100;
        web.traffic.bytes_out += 5_000_000;
    }
    if let Some(web) = now.backends.get_mut("web") {
        web.servers.retain(|name, _| name.as_str() == "a");
        web.servers.insert(
            server_name("new"),
            server("10.0.0.9:80", ServerState::Checking, 0.0, Traffic::default()),
        );
        web.queued = 0;
        web.eligible = 1;
    }
    let earlier = Earlier {
        status: &then,
        seconds: 2.0,
    };
    assert_drawn(
        &draw(&now, Some(earlier), false),
        "
convey 1.0.0-dev  pid 4242, running, up 3h 12m, 2 workers
configuration /etc/convey/convey.toml (generation 3)

FRONTEND  LISTENS ON  MODE   BACKEND  CONNS  MAX  CONN/S  IN/S   OUT/S  NOTE
web       0.0.0.0:80  proxy  web         17    -      50   0 B  2.5 MB
          [::]:80

BACKEND/SERVER  ADDRESS      STATE            SINCE  WEIGHT  CONNS  MAX  CONN/S  IN/S  OUT/S  FAILED  NOTE
web             round_robin  1 of 2 eligible                    18          0.0   0 B    0 B       0
  a             10.0.0.1:80  up               2h 3m       1     12    -     0.0   0 B    0 B       0
  new           10.0.0.9:80  checking            0s       1      0    -       -     -      -       0
",
    );
}

#[test]
fn an_idle_convey_says_what_to_do_next() {
    let mut status = example();
    status.frontends.clear();
    status.backends.clear();
    status.config_generation = 1;
    assert_drawn(
        &draw(&status, None, false),
        "
convey 1.0.0-dev  pid 4242, running, up 3h 12m, 2 workers
configuration /etc/convey/convey.toml (generation 1)

No frontend is configured yet, so clients cannot connect. What to do next:
  1. Add a [frontends.NAME] and its [backends.NAME] to /etc/convey/convey.toml.
     Every setting is in `man convey.toml`, examples are in /usr/share/doc/convey/examples.
  2. convey check /etc/convey/convey.toml
  3. convey reload
",
    );
}

#[test]
fn what_went_wrong_is_told_first() {
    let mut status = example();
    status.frontends.clear();
    status.backends.clear();
    status.phase = Phase::Stopping.into();
    status.last_reload_error = Some("convey.toml:3:1: unknown key `lisen`\n  | lisen\n".into());
    status.needs_restart = vec!["global.workers".into(), "admin.socket".into()];
    status.log_events_dropped = 12;
    let output = |output: &str, dropped, error: Option<&str>| LogOutput {
        output: output.into(),
        dropped,
        error: error.map(str::to_owned),
    };
    status.log_outputs = vec![
        output("syslog tcp://192.0.2.9:514", 3, Some("connection refused")),
        output("syslog udp://192.0.2.9:514", 1, None),
        output("file /var/log/convey/connections.log", 0, None),
    ];
    status.otlp = vec![OtlpExport {
        signal: OtlpSignal::Metrics.into(),
        url: "http://192.0.2.9:4318/v1/metrics".into(),
        requests: [("accepted".to_owned(), 4)].into(),
        dropped: [("late".to_owned(), 60), ("refused".to_owned(), 2)].into(),
        last_success: None,
        error: Some("no answer within 10s".into()),
    }];
    status.admin_connections_refused = 1;
    assert_drawn(
        &draw(&status, None, false),
        "
convey 1.0.0-dev  pid 4242, stopping, up 3h 12m, 2 workers
configuration /etc/convey/convey.toml (generation 3)
The last reload failed; the configuration before it stays in effect:
  convey.toml:3:1: unknown key `lisen`
    | lisen
Needs a restart to take effect: global.workers, admin.socket
12 log events dropped
1 connection to the control socket or /stats refused
Export of metrics to http://192.0.2.9:4318/v1/metrics fails: no answer within 10s; 62 data points dropped
Connection log to syslog tcp://192.0.2.9:514 fails: connection refused; 3 lines dropped
connection log to syslog udp://192.0.2.9:514: 1 line dropped

No frontend is configured yet, so clients cannot connect. What to do next:
  1. Add a [frontends.NAME] and its [backends.NAME] to /etc/convey/convey.toml.
     Every setting is in `man convey.toml`, examples are in /usr/share/doc/convey/examples.
  2. convey check /etc/convey/convey.toml
  3. convey reload
",
    );
}

#[test]
fn colour_marks_states() {
    let drawn = draw(&example(), None, true);
    assert!(drawn.contains("\x1b[32mup\x1b[0m"));
    assert!(drawn.contains("\x1b[1m\x1b[31mdown\x1b[0m"));
    assert!(drawn.contains("\x1b[33mdraining\x1b[0m"));
}

#[test]
fn a_long_error_does_not_hide_the_state() {
    let mut status = example();
    status.last_reload_error = Some("line\n".repeat(40));
    let drawn = draw(&status, None, false);
    assert_eq!(drawn.matches("  line\n").count(), 16);
    let rest = "  (24 more lines: see `convey check /etc/convey/convey.toml`)\n";
    assert!(drawn.contains(rest), "{drawn}");
}
