//! The views of a snapshot: pure, so that the daemon only calls [`status`] and [`server`].

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use super::views::{self, Traffic};
use crate::{
    balance::WEIGHT_UNIT,
    base::{ServerKey, TerminationReason},
    config::{Algorithm, Mode},
    snapshot::{
        AdminState, BackendView, FrontendView, Override, ServerView, Snapshot,
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
    /// Log and access events dropped.
    pub log_events_dropped: u64,
    /// Sum of [`super::Endpoint::refused`].
    pub admin_connections_refused: u64,
}

/// The operator's overrides, as in [`crate::snapshot::Inputs::overrides`].
pub type Overrides = HashMap<ServerKey, Override>;

/// Everything, for `GET /v1/status`.
#[must_use]
pub fn status(snapshot: &Snapshot, info: DaemonInfo, overrides: &Overrides, now: Instant) -> views::Status {
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
        log_events_dropped: info.log_events_dropped,
        admin_connections_refused: info.admin_connections_refused,
        frontends: snapshot
            .frontends
            .iter()
            .map(|(name, view)| (name.to_string(), frontend(view)))
            .collect(),
        backends: snapshot
            .backends
            .iter()
            .map(|(name, view)| (name.to_string(), backend(view, overrides, now)))
            .collect(),
    }
}

/// One server of a backend.
#[must_use]
pub fn server(
    backend: &BackendView,
    server: &ServerView,
    overrides: &Overrides,
    now: Instant,
) -> views::Server {
    let key = ServerKey {
        backend: backend.config.name.clone(),
        server: server.name.clone(),
    };
    let configured_weight = backend
        .config
        .servers
        .get(&server.name)
        .map_or(server.weight, |configured| configured.weight);
    views::Server {
        addr: server.addr.to_string(),
        state: server.state,
        state_seconds: server
            .state_since
            .map(|since| now.saturating_duration_since(since).as_secs_f64()),
        state_reason: server.state_reason.as_deref().map(str::to_owned),
        weight: server.weight,
        configured_weight,
        effective_percent: effective_percent(server),
        priority: server.priority,
        max_connections: server.max_connections,
        overridden: overrides.get(&key).and_then(override_text),
        traffic: traffic(&server.live.counters),
    }
}

fn frontend(view: &FrontendView) -> views::Frontend {
    let totals = view.live.counters.totals();
    views::Frontend {
        listen: view.config.listen.iter().map(ToString::to_string).collect(),
        mode: mode_label(view.config.mode).to_owned(),
        backend: view.config.backend.to_string(),
        max_connections: view.config.max_connections.map(Into::into),
        accept_errors: totals.accept_errors,
        traffic: totals.into(),
    }
}

fn backend(view: &BackendView, overrides: &Overrides, now: Instant) -> views::Backend {
    views::Backend {
        balance: algorithm_label(view.config.balance).to_owned(),
        queued: view.live.queue.used(),
        traffic: traffic(&view.live.counters),
        servers: view
            .servers
            .iter()
            .map(|each| (each.name.to_string(), server(view, each, overrides, now)))
            .collect(),
    }
}

/// How much of its weight a server gets, in percent: 0 only if it gets nothing at all.
fn effective_percent(server: &ServerView) -> u32 {
    let full = u64::from(server.weight) * u64::from(WEIGHT_UNIT);
    let effective = u64::from(server.effective_weight);
    if full == 0 || effective == 0 {
        return 0;
    }
    u32::try_from((effective * 100 / full).clamp(1, 100)).unwrap_or(100)
}

fn override_text(order: &Override) -> Option<String> {
    let admin = order.admin.map(|state| match state {
        AdminState::Draining => "draining".to_owned(),
        AdminState::Maintenance => "maintenance".to_owned(),
    });
    let weight = order.weight.map(|weight| format!("weight {weight}"));
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

/// The word of the configuration file.
const fn mode_label(mode: Mode) -> &'static str {
    match mode {
        Mode::Proxy => "proxy",
        Mode::Passthrough => "passthrough",
        Mode::Dsr => "dsr",
    }
}

/// The word of the configuration file.
const fn algorithm_label(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::RoundRobin => "round_robin",
        Algorithm::Random => "random",
        Algorithm::LeastConnections => "least_connections",
        Algorithm::PowerOfTwo => "power_of_two",
        Algorithm::SourceHash => "source_hash",
        Algorithm::Maglev => "maglev",
        Algorithm::First => "first",
    }
}
