//! The views of a snapshot: pure, so that the daemon only calls [`status`] and [`server`].

use std::time::{Duration, Instant};

use super::{
    packets::{self, PacketInfo, Waiting},
    views::{self, Traffic},
};
use crate::{
    base::{BackendState, TerminationReason},
    pools::{AdminState, Override},
    snapshot::{
        BackendView, FrontendView, ServerView, Snapshot,
        live::{Counters, Totals},
    },
};

/// What only the daemon knows.
#[derive(Debug, Clone)]
pub struct DaemonInfo {
    /// Its process id.
    pub pid: u32,
    /// Time since it started.
    pub uptime: Duration,
    /// `starting`, `running` or `stopping`.
    pub phase: &'static str,
    /// The configuration file.
    pub config_file: String,
    /// Number of successful configuration loads.
    pub config_generation: u64,
    /// The last failed reload, unless one has succeeded since.
    pub last_reload_error: Option<String>,
    /// Configured settings that wait for a restart.
    pub needs_restart: Vec<String>,
    /// Worker threads.
    pub workers: usize,
    /// All connections of proxy frontends.
    pub proxied_connections: views::ProxiedConnections,
    /// Log and access events dropped.
    pub log_events_dropped: u64,
    /// Sum of [`super::Endpoint::refused`].
    pub admin_connections_refused: u64,
    /// The packet modes, if the engine runs.
    pub packet: Option<PacketInfo>,
}

/// Everything, for `GET /v1/status`.
#[must_use]
pub fn status(snapshot: &Snapshot, info: DaemonInfo, now: Instant) -> views::Status {
    let nothing = Waiting::new();
    let waiting = info.packet.as_ref().map_or(&nothing, |packet| &packet.waiting);
    views::Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: info.pid,
        uptime_seconds: info.uptime.as_secs_f64(),
        phase: info.phase.to_owned(),
        config_file: info.config_file,
        config_generation: info.config_generation,
        snapshot_generation: snapshot.generation,
        last_reload_error: info.last_reload_error,
        needs_restart: info.needs_restart,
        workers: info.workers,
        proxied_connections: info.proxied_connections,
        log_events_dropped: info.log_events_dropped,
        admin_connections_refused: info.admin_connections_refused,
        frontends: snapshot
            .frontends
            .iter()
            .map(|(name, view)| (name.to_string(), frontend(view, waiting)))
            .collect(),
        backends: snapshot
            .backends
            .iter()
            .map(|(name, view)| (name.to_string(), backend(view, now)))
            .collect(),
        packet: (info.packet.as_ref()).map(|packet| packets::packet(packet, snapshot.nat_ports)),
    }
}

/// One server.
#[must_use]
pub fn server(server: &ServerView, now: Instant) -> views::Server {
    views::Server {
        addr: server.addr.to_string(),
        state: server.state,
        state_seconds: server
            .state_since
            .map(|since| now.saturating_duration_since(since).as_secs_f64()),
        state_reason: server.state_reason.as_deref().map(str::to_owned),
        eligible: server.is_eligible(),
        weight: server.weight,
        configured_weight: server.configured_weight,
        effective_percent: server.effective_percent(),
        priority: server.priority,
        max_connections: server.max_connections,
        overridden: override_text(server.overridden),
        traffic: traffic(&server.live.counters),
    }
}

fn frontend(view: &FrontendView, waiting: &Waiting) -> views::Frontend {
    let totals = view.live.counters.totals();
    let serves = packets::serves(view, waiting);
    let (state, waiting) = packets::frontend_state(view, waiting);
    views::Frontend {
        listen: view.config.listen.iter().map(ToString::to_string).collect(),
        mode: view.config.mode.label().to_owned(),
        protocol: view.config.protocol.label().to_owned(),
        serves,
        state,
        waiting,
        backend: view.config.backend.to_string(),
        max_connections: view.config.max_connections.map(Into::into),
        accept_errors: totals.accept_errors,
        traffic: totals.into(),
    }
}

fn backend(view: &BackendView, now: Instant) -> views::Backend {
    views::Backend {
        balance: view.config.balance.label().to_owned(),
        state: BackendState::of(view.counts.eligible),
        eligible: view.counts.eligible,
        queued: view.live.queue.used(),
        traffic: traffic(&view.live.counters),
        servers: view
            .servers
            .iter()
            .map(|each| (each.name.to_string(), server(each, now)))
            .collect(),
    }
}

fn override_text(overridden: Override) -> Option<String> {
    let admin = overridden.admin.map(|state| match state {
        AdminState::Draining => "draining".to_owned(),
        AdminState::Maintenance => "maintenance".to_owned(),
    });
    let weight = overridden.weight.map(|weight| format!("weight {weight}"));
    match (admin, weight) {
        (Some(admin), Some(weight)) => Some(format!("{admin}, {weight}")),
        (one, other) => one.or(other),
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
            connect_failures: totals.connect_failures,
            retries: totals.retries,
            ended: TerminationReason::ALL
                .iter()
                .zip(totals.ended)
                .filter(|(_, count)| *count > 0)
                .map(|(reason, count)| (reason.label().to_owned(), count))
                .collect(),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        base::{BackendName, ServerKey, ServerName, ServerState, WorkerId},
        config::{self, Options, Source},
        pools::Pools,
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
            state,
            since,
            ramp_from: None,
            is_ejected: false,
            reason: reason.map(Arc::from),
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

    fn info() -> DaemonInfo {
        DaemonInfo {
            pid: 42,
            uptime: Duration::from_millis(1500),
            phase: "running",
            config_file: "site.toml".into(),
            config_generation: 2,
            last_reload_error: None,
            needs_restart: vec![],
            workers: 2,
            proxied_connections: views::ProxiedConnections::default(),
            log_events_dropped: 3,
            admin_connections_refused: 4,
            packet: None,
        }
    }

    #[test]
    fn the_status_shows_states_their_reasons_and_overrides() {
        let now = Instant::now();
        let snapshot = site(now);
        let status = status(&snapshot, info(), now);
        assert_eq!(
            (status.pid, status.uptime_seconds, status.snapshot_generation),
            (42, 1.5, 1)
        );
        let http = &status.frontends["http"];
        assert_eq!(http.listen, ["127.0.0.1:80", "[::1]:80"]);
        assert_eq!((http.mode.as_str(), http.backend.as_str()), ("proxy", "web"));
        assert_eq!(http.max_connections, Some(100));
        let web = &status.backends["web"];
        assert_eq!(web.balance, "least_connections");
        assert_eq!((web.state, web.eligible), (BackendState::Up, 1));

        let a = &web.servers["a"];
        assert_eq!((a.state, a.state_seconds), (ServerState::Up, Some(20.0)));
        assert_eq!((a.weight, a.configured_weight, a.effective_percent), (3, 2, 100));
        assert_eq!(a.overridden.as_deref(), Some("weight 3"));
        let b = &web.servers["b"];
        assert_eq!(
            (b.state, b.state_reason.as_deref()),
            (ServerState::Down, Some("refused"))
        );
        assert_eq!(
            (b.effective_percent, b.max_connections, &b.overridden),
            (0, Some(5), &None)
        );
        let spare = &web.servers["spare"];
        assert_eq!(
            (spare.state, spare.effective_percent, spare.priority),
            (ServerState::Up, 0, 2)
        );
    }

    #[test]
    fn counters_of_all_threads_are_summed_and_only_reasons_that_occurred_are_listed() {
        let now = Instant::now();
        let snapshot = site(now);
        let counters = &snapshot.backends["web"].servers[0].live.counters;
        counters.shard(WorkerId(0)).opened.add(5);
        counters.shard(WorkerId(1)).opened.add(2);
        counters.shard(WorkerId(1)).closed.add(1);
        counters.shard(WorkerId(1)).bytes_out.add(1 << 40);
        counters.shard(WorkerId(0)).ended[TerminationReason::ServerAbort as usize].add(1);
        let status = status(&snapshot, info(), now);
        let traffic = &status.backends["web"].servers["a"].traffic;
        assert_eq!((traffic.connections_total, traffic.connections_current), (7, 6));
        assert_eq!(traffic.bytes_out, 1 << 40);
        assert_eq!(traffic.ended, [("server_abort".to_owned(), 1)].into());
    }

    #[test]
    fn overrides_are_told_in_words() {
        let text = |admin, weight| override_text(Override { admin, weight });
        assert_eq!(text(None, None), None);
        assert_eq!(
            text(Some(AdminState::Maintenance), None).as_deref(),
            Some("maintenance")
        );
        assert_eq!(
            text(Some(AdminState::Draining), Some(0)).as_deref(),
            Some("draining, weight 0")
        );
    }
}
