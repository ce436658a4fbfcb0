//! The views of a snapshot: pure, but for the counters that they read.

mod acme;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Instant, SystemTime},
};

pub use acme::{acme, certificates};

use super::{
    packets::{self, ServerViews},
    status::{PacketCounts, SourceStatus, Status},
    views::{self, Overridden, Percentiles, Traffic},
};
use crate::{
    base::{
        AccessReason, BackendName, BackendState, DatagramDrop, FrontendName, ServerTlsFailure,
        TerminationReason,
    },
    config::ServerTrust,
    snapshot::{
        BackendView, CheckLog, CheckRecord, FrontendView, ServerView, Snapshot,
        live::{Counters, Totals},
    },
};

/// What only counters tell.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// All connections of proxy frontends.
    pub proxied_connections: views::ProxiedConnections,
    /// Log and access events dropped.
    pub log_events_dropped: u64,
    /// Where lines about connections go besides the journal.
    pub log_outputs: Vec<views::LogOutput>,
    /// What is exported by OTLP.
    pub otlp: Vec<views::OtlpExport>,
    /// Connections to the endpoints turned away.
    pub connections_refused: u64,
    /// Failed logins at the API on TCP.
    pub logins_failed: u64,
    /// Of the packet engine.
    pub packets: PacketCounts,
}

/// The process.
#[must_use]
pub fn info(status: &Status, now: Instant) -> views::Info {
    views::Info {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        uptime_seconds: now.saturating_duration_since(status.started).as_secs_f64(),
        phase: status.phase.into(),
        config_file: status.config_file.to_string(),
        config_generation: status.config_generation,
        last_reload_error: status.last_reload_error.clone(),
        needs_restart: status.needs_restart.clone(),
        allow_config_writes: status.config.may_write,
    }
}

/// Everything, for `GET /v1/status`.
#[must_use]
pub fn status(status: &Status, counts: &Counts, now: Instant) -> views::Status {
    let process = info(status, now);
    views::Status {
        version: process.version,
        pid: process.pid,
        uptime_seconds: process.uptime_seconds,
        phase: process.phase,
        config_file: process.config_file,
        config_generation: process.config_generation,
        snapshot_generation: status.snapshot.generation,
        last_reload_error: process.last_reload_error,
        needs_restart: process.needs_restart,
        workers: status.workers,
        proxied_connections: counts.proxied_connections,
        log_events_dropped: counts.log_events_dropped,
        log_outputs: counts.log_outputs.clone(),
        otlp: counts.otlp.clone(),
        admin_connections_refused: counts.connections_refused,
        admin_logins_failed: counts.logins_failed,
        frontends: frontends(status, now),
        backends: backends(status, now).collect(),
        packet: packet(status, &counts.packets),
        acme: (status.acme.directory.is_some()).then(|| acme(&status.acme, now, SystemTime::now())),
    }
}

/// The packet modes; `None` while no frontend has needed them.
#[must_use]
pub fn packet(status: &Status, counts: &PacketCounts) -> Option<views::Packet> {
    let packet = status.packet.as_ref()?;
    Some(packets::packet(packet, counts, status.snapshot.nat_ports))
}

/// Every frontend by name.
#[must_use]
pub fn frontends(status: &Status, now: Instant) -> BTreeMap<FrontendName, views::Frontend> {
    let frontends = status.snapshot.frontends.iter();
    frontends
        .map(|(name, view)| (name.clone(), frontend(status, view, now)))
        .collect()
}

/// The sources of servers by backend.
#[must_use]
pub fn sources(status: &Status, now: Instant) -> BTreeMap<BackendName, views::Discovery> {
    let sources = status.discovery.iter();
    sources
        .map(|(backend, source)| (backend.clone(), discovery(source, now)))
        .collect()
}

/// What operators have overridden.
#[must_use]
pub fn overrides(snapshot: &Snapshot) -> views::Overrides {
    let overridden = |(backend, server): (&BackendName, &ServerView)| {
        (!server.overridden.is_none()).then(|| views::OverriddenServer {
            backend: backend.clone(),
            server: server.name.clone(),
            overridden: Overridden(server.overridden).into(),
        })
    };
    let servers = (snapshot.backends.iter())
        .flat_map(|(name, view)| view.servers.iter().map(move |server| (name, server)));
    views::Overrides {
        overrides: servers.filter_map(overridden).collect(),
    }
}

/// Every backend by name.
pub fn backends(status: &Status, now: Instant) -> impl Iterator<Item = (BackendName, views::Backend)> {
    let packets = ServerViews::new(status);
    (status.snapshot.backends.iter()).map(move |(name, view)| {
        (
            name.clone(),
            backend(&packets, view, status.discovery.get(name), now),
        )
    })
}

/// One server, with what the packet modes know of it.
#[must_use]
pub fn server(
    packets: &ServerViews<'_>,
    backend: &BackendView,
    server: &ServerView,
    now: Instant,
) -> views::Server {
    views::Server {
        packet: packets.of(backend, server),
        ..state_of(server, now)
    }
}

/// One server, without what the packet modes know of it.
#[must_use]
pub fn state_of(server: &ServerView, now: Instant) -> views::Server {
    let overridden = Some(server.overridden).filter(|overridden| !overridden.is_none());
    let [sessions, connects] = server.live.trend.earlier();
    views::Server {
        addr: server.addr,
        state: server.state.into(),
        state_seconds: server
            .state_since
            .map(|since| now.saturating_duration_since(since).as_secs_f64()),
        state_reason: server.state_reason.clone(),
        eligible: server.is_eligible(),
        weight: server.weight,
        configured_weight: server.configured_weight,
        effective_percent: server.effective_percent(),
        priority: server.priority,
        max_connections: server.max_connections,
        discovered: server.is_discovered,
        overridden: overridden.map(|overridden| Overridden(overridden).into()),
        agent: (!server.agent.is_silent()).then(|| views::Agent {
            says: server.agent.to_string(),
            problem: server.agent.problem.clone(),
        }),
        last_checks: last_checks(server.checks.as_deref()),
        traffic: traffic(&server.live.counters),
        rates: server.live.trend.rates(now).into(),
        connect_time: Percentiles::between(&connects, &server.live.connect_time.times()),
        session_time: Percentiles::between(&sessions, &server.live.session_time.times()),
        tls_failures: ServerTlsFailure::ALL
            .into_iter()
            .zip(server.live.counters.totals().tls_failures)
            .filter(|(_, count)| *count > 0)
            .map(|(why, count)| (why.into(), count))
            .collect(),
        packet: None,
    }
}

fn last_checks(log: Option<&CheckLog>) -> Vec<views::CheckResult> {
    let now = SystemTime::now();
    let records = log.map(CheckLog::last).unwrap_or_default();
    let result = |record: CheckRecord| views::CheckResult {
        outcome: record.outcome.into(),
        seconds_ago: now.duration_since(record.at).unwrap_or_default().as_secs_f64(),
        milliseconds: record.took.as_secs_f64() * 1e3,
        reason: record.reason,
    };
    records.into_iter().map(result).collect()
}

/// One backend.
#[must_use]
pub fn backend(
    packets: &ServerViews<'_>,
    view: &BackendView,
    source: Option<&SourceStatus>,
    now: Instant,
) -> views::Backend {
    let [sessions, connects] = view.live.trend.earlier();
    views::Backend {
        balance: view.config.balance.into(),
        state: BackendState::of(view.counts.eligible).into(),
        eligible: view.counts.eligible,
        queued: view.live.queue.used(),
        sticky: view.config.sticky.map(|sticky| views::StickyClients {
            entries: view.live.sticky().entries(sticky.ttl, now),
            max_entries: sticky.max_entries.get(),
            refused: view.live.sticky().refused(),
        }),
        tls: view.config.tls.as_ref().map(|tls| views::TlsToServers {
            verified: tls.trust != ServerTrust::Anybody,
            server_name: tls.server_name.label(),
        }),
        discovery: source.map(|source| discovery(source, now)),
        traffic: traffic(&view.live.counters),
        rates: view.live.trend.rates(now).into(),
        connect_time: Percentiles::between(&connects, &view.live.connect_time.times()),
        session_time: Percentiles::between(&sessions, &view.live.session_time.times()),
        servers: (view.servers.iter())
            .map(|each| (each.name.clone(), server(packets, view, each, now)))
            .collect(),
    }
}

fn discovery(source: &SourceStatus, now: Instant) -> views::Discovery {
    let seconds = |since: Instant| now.saturating_duration_since(since).as_secs_f64();
    views::Discovery {
        kind: source.kind.into(),
        source: Arc::clone(&source.source),
        servers: source.servers,
        answered_seconds: source.answered.map(seconds),
        left_out: source.left_out,
        duplicates: source.duplicates,
        problem: source.problem.as_ref().map(|problem| views::DiscoveryProblem {
            held: problem.is_held,
            reason: problem.label.into(),
            text: Arc::clone(&problem.text),
            seconds: seconds(problem.since),
        }),
    }
}

/// One frontend.
#[must_use]
pub fn frontend(status: &Status, view: &FrontendView, now: Instant) -> views::Frontend {
    let totals = view.live.counters.totals();
    let serves = packets::serves(&status.snapshot, view, &status.waiting);
    let (state, waiting) = packets::frontend_state(view, &status.waiting);
    let [sessions, handshakes] = view.live.trend.earlier();
    views::Frontend {
        listen: view.config.places().collect(),
        mode: view.config.mode.into(),
        protocol: view.config.protocol.into(),
        serves,
        state: Some(state.into()),
        waiting,
        backend: view.config.backend.clone(),
        route_backends: (view.targets.iter().skip(1))
            .map(|target| target.config.name.clone())
            .collect(),
        max_connections: view.config.most_connections(),
        logs_tls_keys: (view.config.tls.as_ref()).is_some_and(|tls| tls.key_log),
        accept_errors: totals.accept_errors,
        refused: AccessReason::ALL
            .iter()
            .zip(totals.refused)
            .filter(|(_, count)| *count > 0)
            .map(|(reason, count)| ((*reason).into(), count))
            .collect(),
        max_sessions: view.config.udp.map(|udp| udp.max_sessions.get()),
        datagrams_dropped: (DatagramDrop::ALL.iter())
            .zip(totals.lost)
            .filter(|(_, count)| *count > 0)
            .map(|(reason, count)| ((*reason).into(), count))
            .collect(),
        traffic: totals.into(),
        rates: view.live.trend.rates(now).into(),
        session_time: Percentiles::between(&sessions, &view.live.session_time.times()),
        handshake_time: Percentiles::between(&handshakes, &view.live.handshake_times()),
    }
}

fn traffic(counters: &Counters) -> Traffic {
    counters.totals().into()
}

impl From<Totals> for Traffic {
    fn from(totals: Totals) -> Self {
        Self {
            connections_total: totals.opened,
            connections_current: totals.current,
            bytes_in: totals.bytes_in,
            bytes_out: totals.bytes_out,
            datagrams_in: totals.datagrams_in,
            datagrams_out: totals.datagrams_out,
            connect_failures: totals.connect_failures,
            retries: totals.retries,
            ended: TerminationReason::ALL
                .iter()
                .zip(totals.ended.iter().copied())
                .filter(|(_, count)| *count > 0)
                .map(|(reason, count)| ((*reason).into(), count))
                .collect(),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;
    use crate::{
        admin::{status::ConfigInEffect, views::Phase},
        base::{BackendName, ServerKey, ServerName, ServerState, WorkerId},
        config::{self, Algorithm, Mode, Options, Source},
        pools::{Override, Pools},
        snapshot::{Builder, Health},
    };

    const SITE: &str = r#"
        [frontends.http]
        listen_addr = ["127.0.0.1:80", "[::1]:80"]
        backend = "web"
        max_connections = 100

        [backends.web]
        balance = "least_connections"
        [backends.web.servers.a]
        addr = "192.0.2.1:80"
        weight = 2
        [backends.web.servers.b]
        addr = "192.0.2.2:80"
        max_connections = 5
        [backends.web.servers.spare]
        addr = "192.0.2.3:80"
        priority = 2
    "#;

    fn key(server: &str) -> ServerKey {
        ServerKey {
            backend: BackendName::new("web").expect("a name"),
            server: ServerName::new(server).expect("a name"),
        }
    }

    fn health(state: ServerState, since: Instant, reason: Option<&str>) -> Health {
        Health {
            reason: reason.map(Arc::from),
            ..Health::new(state, since)
        }
    }

    /// Server a up for 20 s, b down for 10 s, the spare up; the operator gave a the weight 3.
    pub(in crate::admin) fn site(now: Instant) -> Arc<Snapshot> {
        let source = Source {
            name: "site.toml".into(),
            bytes: SITE.into(),
        };
        let config = config::load(&source, Options::default())
            .expect("a good configuration")
            .config;
        let mut pools = Pools::default();
        let mut builder = Builder::new(2, Arc::default());
        builder.config_changed(&config, pools.apply(&config));
        let ago = |seconds| now - Duration::from_secs(seconds);
        for (server, health) in [
            ("a", health(ServerState::Up, ago(20), None)),
            ("b", health(ServerState::Down, ago(10), Some("refused"))),
            ("spare", health(ServerState::Up, ago(20), None)),
        ] {
            builder.set_health(&key(server), Some(health));
        }
        let weight = Override {
            admin: None,
            weight: Some(3),
        };
        pools.set_override(&key("a"), weight);
        builder.build(&config, &pools, now).snapshot
    }

    /// A daemon with [`site`] that has run for 1.5 s.
    pub(in crate::admin) fn running(now: Instant) -> Status {
        Status {
            started: now - Duration::from_millis(1500),
            phase: Phase::Running,
            config_file: "site.toml".into(),
            config_generation: 2,
            config: Arc::new(ConfigInEffect::new(
                Source {
                    name: "site.toml".to_owned(),
                    bytes: SITE.into(),
                },
                Options::default(),
                true,
                now,
            )),
            last_reload_error: None,
            needs_restart: vec![],
            workers: 2,
            snapshot: site(now),
            waiting: BTreeMap::new(),
            discovery: Arc::default(),
            acme: Arc::default(),
            packet: None,
        }
    }

    #[test]
    fn the_status_shows_states_their_reasons_and_overrides() {
        let now = Instant::now();
        let status = status(&running(now), &Counts::default(), now);
        assert_eq!((status.uptime_seconds, status.snapshot_generation), (1.5, 1));
        let http = &status.frontends["http"];
        let listen: Vec<_> = http.listen.iter().map(ToString::to_string).collect();
        assert_eq!(listen, ["127.0.0.1:80", "[::1]:80"]);
        assert!(http.mode == Mode::Proxy && http.backend.as_str() == "web");
        assert_eq!(http.max_connections, Some(100));
        let web = &status.backends["web"];
        assert!(web.balance == Algorithm::LeastConnections);
        assert!(web.state == BackendState::Up && web.eligible == 1);

        let a = &web.servers["a"];
        assert!(a.state == ServerState::Up && a.state_seconds == Some(20.0));
        assert_eq!((a.weight, a.configured_weight, a.effective_percent), (3, 2, 100));
        let text = a.overridden.as_ref().map(ToString::to_string);
        assert_eq!(text.as_deref(), Some("weight 3"));
        let b = &web.servers["b"];
        assert!(b.state == ServerState::Down && b.state_reason.as_deref() == Some("refused"));
        assert_eq!(
            (b.effective_percent, b.max_connections, &b.overridden),
            (0, Some(5), &None)
        );
        let spare = &web.servers["spare"];
        assert!(spare.state == ServerState::Up);
        assert_eq!((spare.effective_percent, spare.priority), (0, 2));
    }

    #[test]
    fn counters_of_all_threads_are_summed_and_only_reasons_that_occurred_are_listed() {
        let now = Instant::now();
        let running = running(now);
        let counters = &running.snapshot.backends["web"].servers[0].live.counters;
        counters.shard(WorkerId(0)).opened.add(5);
        counters.shard(WorkerId(1)).opened.add(2);
        counters.shard(WorkerId(1)).closed.add(1);
        counters.shard(WorkerId(1)).bytes_out.add(1 << 40);
        counters.shard(WorkerId(0)).ended[TerminationReason::ServerAbort as usize].add(1);
        let status = status(&running, &Counts::default(), now);
        let traffic = &status.backends["web"].servers["a"].traffic;
        assert_eq!((traffic.connections_total, traffic.connections_current), (7, 6));
        assert_eq!(traffic.bytes_out, 1 << 40);
        assert_eq!(traffic.ended, [(TerminationReason::ServerAbort.into(), 1)].into());
    }

    #[test]
    fn the_answer_reads_as_it_always_has() {
        let now = Instant::now();
        let json = serde_json::to_value(status(&running(now), &Counts::default(), now)).expect("JSON");
        assert_eq!(json["phase"], "running");
        assert_eq!(json["frontends"]["http"]["listen"][1], "[::1]:80");
        assert_eq!(json["frontends"]["http"]["protocol"], "tcp");
        assert_eq!(json["backends"]["web"]["balance"], "least_connections");
        let a = &json["backends"]["web"]["servers"]["a"];
        assert_eq!(
            (&a["addr"], &a["state"], &a["overridden"]),
            (&"192.0.2.1:80".into(), &"up".into(), &"weight 3".into())
        );
        let read: views::Status = serde_json::from_value(json.clone()).expect("a status");
        assert_eq!(serde_json::to_value(read).expect("JSON"), json);
    }
}
