//! What is in effect: the configuration, the pools and the health of their servers, and the snapshots that are made of them.
//!
//! ```text
//! reload ── apply ──────────┐
//! discovery ── discovered ──┤
//! operator ── set_override ─┼─► pools, checks, health ── (≤ 10 ms) ─► publish ─► snapshot, then what it entails
//! checks ── note_health ────┘
//! ```
//! Whatever changes is published in one snapshot at [`State::due`]; what is said of it in the log, and which connections
//! have to go, follows from that snapshot.

mod agent;
mod discovered;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use tokio::sync::mpsc;

use super::coalesce::Coalescer;
use crate::{
    access::NetworkLists,
    base::{BackendName, FrontendName, ServerAddr, ServerKey, ServerState, time::two_units},
    client::runner::Runner,
    config::{Config, OnDown},
    health::{CheckSockets, Checker, HealthUpdate, Known, TlsToServers, Trial},
    pools::{Discovered, Override, Pool, Pools, Saved},
    snapshot::{BackendView, Builder, Built, FrontendTls, Health, ServerCounts, ServerView, Snapshot},
};

/// See the [module](self).
#[derive(Debug)]
pub struct State {
    config: Config,
    pools: Pools,
    checker: Checker,
    builder: Builder,
    published: Arc<ArcSwap<Snapshot>>,
    coalescer: Coalescer,
    /// State changes of servers that the next snapshot has.
    changes: Vec<Change>,
    /// Backends that were last said to be down.
    down: HashSet<BackendName>,
    tryout: Option<Tryout>,
    agents: agent::AgentLog,
}

/// The servers of a configuration that is not in effect yet.
#[derive(Debug)]
struct Tryout {
    trial: Trial,
    /// Backends that have no server up and may still get one by a first check, with the number of those checks.
    awaited: HashMap<BackendName, usize>,
}

/// A server's state has changed.
#[derive(Debug)]
struct Change {
    key: ServerKey,
    addr: ServerAddr,
    health: Health,
    /// What it had when it went down from being up.
    before: Option<Before>,
}

/// What a server that is down now had before.
#[derive(Debug)]
struct Before {
    up: Duration,
    connections: u64,
}

/// What TLS is spoken with.
#[derive(Debug, Default)]
pub struct TlsViews {
    /// With clients, by frontend.
    pub frontends: HashMap<FrontendName, Arc<FrontendTls>>,
    /// With servers, by backend.
    pub to_servers: TlsToServers,
    /// With servers, of health checks, by backend.
    pub checks: TlsToServers,
}

/// What follows from a snapshot that has been published.
#[derive(Debug)]
pub struct Published {
    /// It, and where it differs from the one before.
    pub built: Built,
    /// Servers that went down and whose established connections are to be closed.
    pub to_close: HashSet<(ServerKey, ServerAddr)>,
}

impl State {
    /// The state of a configuration before anything is checked, with a first snapshot; `saved` are overrides from before the
    /// start. Counters have so many shards, health updates of the checks go to `updates`.
    #[must_use]
    pub fn new(
        config: Config,
        saved: &Saved,
        lists: NetworkLists,
        tls: TlsViews,
        shards: usize,
        updates: mpsc::Sender<HealthUpdate>,
        now: Instant,
    ) -> Self {
        let mut pools = Pools::default();
        let mut builder = Builder::new(shards, Arc::default());
        builder.config_changed(&config, pools.apply(&config));
        builder.lists_changed(lists);
        builder.tls_changed(tls.frontends);
        builder.tls_to_servers_changed(tls.to_servers);
        let mut checker = Checker::new(updates);
        checker.set_tls(tls.checks);
        saved.restore(&mut pools);
        let first = builder.build(&config, &pools, now).snapshot;
        Self {
            config,
            pools,
            checker,
            builder,
            published: Arc::new(ArcSwap::new(first)),
            coalescer: Coalescer::default(),
            changes: Vec::new(),
            down: HashSet::new(),
            tryout: None,
            agents: agent::AgentLog::default(),
        }
    }

    /// Has checks that take a socket of the broker's ask here.
    pub fn set_check_sockets(&mut self, sockets: Arc<dyn CheckSockets>) {
        self.checker.set_sockets(sockets);
    }

    /// Has checks by commands run here.
    pub fn set_check_runner(&mut self, runner: Runner) {
        self.checker.set_runner(runner);
    }

    /// The configuration in effect.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// The servers in effect.
    #[must_use]
    pub const fn pools(&self) -> &Pools {
        &self.pools
    }

    /// The checks.
    #[must_use]
    pub const fn checker(&self) -> &Checker {
        &self.checker
    }

    /// Where readers find the snapshot in effect.
    #[must_use]
    pub const fn published(&self) -> &Arc<ArcSwap<Snapshot>> {
        &self.published
    }

    /// The snapshot in effect.
    #[must_use]
    pub const fn snapshot(&self) -> &Arc<Snapshot> {
        self.builder.last()
    }

    /// Starts to check the servers. To be called within the runtime, once.
    pub fn start_checks(&mut self) {
        let all: Vec<_> = self
            .pools
            .iter()
            .map(|pool| pool.backend().name.clone())
            .collect();
        let known = self.checker.apply(&self.pools, &all, Trial::default());
        self.take(known);
    }

    /// The servers that a configuration would have now, with what was discovered for it.
    #[must_use]
    pub fn pools_with(&self, config: &Config, discovered: &Discovered) -> Pools {
        let mut pools = self.pools.clone();
        pools.apply_with(config, discovered);
        pools
    }

    /// Within the runtime starts to check the servers that a configuration would add. Nothing else changes.
    pub fn try_out(&mut self, config: &Config, discovered: &Discovered, tls: &TlsToServers) {
        let mut pools = self.pools.clone();
        let changed = pools.apply_with(config, discovered);
        let trial = self.checker.try_out(&pools, &changed, tls);
        let pools = changed.iter().filter_map(|name| pools.get(name.as_str()));
        let awaited = pools.filter_map(|pool| {
            let states = || states(pool, &trial, &self.builder);
            let checking = states().filter(|state| *state == ServerState::Checking).count();
            let is_up = states().any(|state| state == ServerState::Up);
            (checking > 0 && !is_up).then(|| (pool.backend().name.clone(), checking))
        });
        let awaited = awaited.collect();
        self.tryout = Some(Tryout { trial, awaited });
    }

    /// Whether each backend that is tried out has a server that is up, or has heard from all.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.tryout
            .as_ref()
            .is_none_or(|tryout| tryout.awaited.is_empty())
    }

    /// Ends what is tried out.
    pub fn abandon_tryout(&mut self) {
        self.tryout = None;
    }

    /// The network lists in effect.
    #[must_use]
    pub const fn lists(&self) -> &NetworkLists {
        self.builder.lists()
    }

    /// Puts a configuration in effect, from the next snapshot on, with all that was read, discovered and tried out for it.
    pub fn apply(&mut self, config: Config, discovered: &Discovered, lists: NetworkLists, tls: TlsViews) {
        let trial = self.tryout.take().map(|tryout| tryout.trial).unwrap_or_default();
        for (key, addr, health) in trial.findings() {
            let change = Change {
                key: key.clone(),
                addr,
                health: health.clone(),
                before: None,
            };
            change.log(None);
        }
        let before = self.pools.clone();
        let changed = self.pools.apply_with(&config, discovered);
        for name in changed.iter().map(BackendName::as_str) {
            discovered::say(
                before.get(name).map(Arc::as_ref),
                self.pools.get(name).map(Arc::as_ref),
            );
        }
        let mut to_check = changed.clone();
        to_check.extend(self.checker.set_tls(tls.checks));
        to_check.sort();
        to_check.dedup();
        let known = self.checker.apply(&self.pools, &to_check, trial);
        self.builder.config_changed(&config, changed);
        self.builder.lists_changed(lists);
        self.builder.tls_changed(tls.frontends);
        self.builder.tls_to_servers_changed(tls.to_servers);
        self.config = config;
        self.take(known);
    }

    /// Backends without an eligible server.
    #[must_use]
    pub fn backends_down(&self) -> usize {
        self.down.len()
    }

    /// The override of a server; `None` if there is no such server.
    #[must_use]
    pub fn overridden(&self, key: &ServerKey) -> Option<Override> {
        let pool = self.pools.get(key.backend.as_str())?;
        Some(pool.server(key.server.as_str())?.overridden)
    }

    /// Whether an override would leave a backend that has an eligible server without any.
    #[must_use]
    pub fn would_be_the_last(&self, key: &ServerKey, overridden: Override, now: Instant) -> bool {
        self.pools.get(key.backend.as_str()).is_some_and(|pool| {
            let with = pool.with_override(key.server.as_str(), overridden);
            self.builder.eligible(&with, now) == 0 && self.builder.eligible(pool, now) > 0
        })
    }

    /// Sets or clears a server's override, from the next snapshot on. Maintenance stops its checks, and the end of it starts
    /// them.
    pub fn set_override(&mut self, key: &ServerKey, overridden: Override) {
        if !self.pools.set_override(key, overridden) {
            return;
        }
        self.builder.pool_changed(&key.backend);
        let found = self.pools.get(key.backend.as_str());
        let server = found.and_then(|pool| Some((pool, pool.server(key.server.as_str())?)));
        if let Some((pool, server)) = server {
            let known = self.checker.apply_override(pool, server);
            self.take(known);
        }
    }

    /// Takes what a check found. False when it is about a server that is not checked any more.
    pub fn note_health(&mut self, update: HealthUpdate, now: Instant) -> bool {
        if !self.checker.is_current(&update) {
            if let Some(tryout) = &mut self.tryout
                && let Some(before) = tryout.trial.note(&update)
            {
                tryout.heard(&update, before);
            }
            return false;
        }
        if let Some(tryout) = &mut self.tryout
            && let Some(before) = self.builder.health(&update.key)
        {
            tryout.heard(&update, before.state);
        }
        let HealthUpdate {
            key,
            addr,
            health,
            changed,
            ..
        } = update;
        if changed {
            let change = Change {
                before: self.before(&key, &health),
                key: key.clone(),
                addr,
                health: health.clone(),
            };
            // the first results of many servers are no change of what their backends had
            let is_first = self
                .builder
                .health(&key)
                .is_none_or(|h| h.state == ServerState::Checking);
            if is_first {
                change.log(None);
            } else {
                self.changes.push(change);
            }
        }
        let before = self.builder.health(&key).map(|health| &health.agent);
        self.agents.note(&key, before, &health.agent, now);
        self.builder.set_health(&key, Some(health));
        self.coalescer.want(now);
        true
    }

    /// When the next snapshot is to be published; `None` while nothing changes.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.coalescer.due()
    }

    /// Builds a snapshot of what is known now and puts it in effect.
    pub fn publish(&mut self, now: Instant) -> Published {
        let built = self.builder.build(&self.config, &self.pools, now);
        self.published.store(Arc::clone(&built.snapshot));
        self.coalescer.published(now);
        if let Some(step) = self.builder.next_ramp_step() {
            self.coalescer.want(step);
        }
        let mut to_close = HashSet::new();
        for change in std::mem::take(&mut self.changes) {
            let Some(backend) = built.snapshot.backends.get(&change.key.backend) else {
                continue;
            };
            let is_used = (backend.server(change.key.server.as_str())).is_some_and(ServerView::is_eligible);
            change.log(Some((backend.counts, is_used)));
            let is_out = change.health.state == ServerState::Down && !is_used;
            if is_out && backend.config.on_down == OnDown::Close {
                to_close.insert((change.key, change.addr));
            }
        }
        for backend in &built.backends {
            self.log_backend(backend.before.as_deref(), backend.after.as_deref());
        }
        Published { built, to_close }
    }

    fn take(&mut self, known: Known) {
        for (key, health) in known {
            self.builder.set_health(&key, health);
        }
    }

    /// What a server had that goes down, if it was up before.
    fn before(&self, key: &ServerKey, now: &Health) -> Option<Before> {
        let before = self.builder.health(key)?;
        let went_down = before.state == ServerState::Up && now.state == ServerState::Down;
        let server = self.snapshot().server(key);
        went_down.then(|| Before {
            up: now.since.saturating_duration_since(before.since),
            connections: server.map_or(0, |server| server.live.counters.totals().current),
        })
    }

    /// Says which backends have no server from the beginning, for their sources have named none.
    pub fn say_empty(&mut self) {
        let snapshot = self.published.load_full();
        for backend in snapshot.backends.values() {
            if backend.config.discovery.is_some() && backend.counts.servers == 0 {
                self.log_backend(None, Some(&**backend));
            }
        }
    }

    /// Says that a backend has lost its last eligible server, or has one again.
    fn log_backend(&mut self, before: Option<&BackendView>, after: Option<&BackendView>) {
        let Some(view) = after else {
            if let Some(before) = before {
                self.down.remove(&before.config.name);
            }
            return;
        };
        let name = &view.config.name;
        let ServerCounts {
            servers, eligible, ..
        } = view.counts;
        if eligible == 0 && self.down.insert(name.clone()) {
            let why = match servers {
                0 => "it has no servers".to_owned(),
                1 => "its only server is not eligible".to_owned(),
                _ => format!("none of its {servers} servers is eligible"),
            };
            tracing::error!(event = "backend_down", backend = %name, servers, "backend {name} is down: {why}");
        } else if eligible > 0 && self.down.remove(name) {
            tracing::info!(
                event = "backend_up",
                backend = %name,
                servers,
                eligible,
                "backend {name} is up: {eligible} of {servers} server(s) eligible"
            );
        }
    }
}

impl Tryout {
    /// A check has found something out.
    fn heard(&mut self, update: &HealthUpdate, before: ServerState) {
        let (backend, now) = (&update.key.backend, update.health.state);
        let Some(checking) = self.awaited.get_mut(backend) else {
            return;
        };
        if before == ServerState::Checking && now != ServerState::Checking {
            *checking = checking.saturating_sub(1);
        }
        if now == ServerState::Up || *checking == 0 {
            self.awaited.remove(backend);
        }
    }
}

/// The states by health of a pool's servers that no operator has taken out of service, as they are tried out or known.
fn states(pool: &Pool, trial: &Trial, known: &Builder) -> impl Iterator<Item = ServerState> {
    let in_service = pool.servers().iter().filter(|s| s.overridden.admin.is_none());
    in_service.filter_map(move |server| {
        let key = pool.key(server);
        let health = trial.health(&key).or_else(|| known.health(&key))?;
        Some(health.state)
    })
}

impl Change {
    /// Says it; of a server that went down with what its backend has left, and whether it is used all the same.
    fn log(&self, left: Option<(ServerCounts, bool)>) {
        let (key, addr, state) = (&self.key, self.addr, self.health.state);
        let (backend, server) = (&key.backend, &key.server);
        if state != ServerState::Down {
            tracing::info!(
                event = "server_up",
                backend = %backend,
                server = %server,
                "server {key} ({addr}) is {state}"
            );
            return;
        }
        let before = self.before.as_ref();
        tracing::warn!(
            event = "server_down",
            backend = %backend,
            server = %server,
            eligible = left.map(|(left, _)| left.eligible),
            servers = left.map(|(left, _)| left.servers),
            up_seconds = before.map(|before| before.up.as_secs()),
            connections = before.map(|before| before.connections),
            "server {key} ({addr}) is down: {}{}{}",
            self.health.reason.as_deref().unwrap_or("unknown reason"),
            match left {
                None => String::new(),
                Some((_, true)) => "; still used: no other server is eligible".to_owned(),
                Some((left, false)) => format!("; {} of {} left", left.eligible, left.servers),
            },
            before.map_or_else(String::new, |before| format!(
                "; it was up for {} and has {} connection(s)",
                two_units(before.up),
                before.connections
            )),
        );
    }
}
