//! How a snapshot is made.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use super::{
    AdminState, BackendView, FrontendView, Inputs, LiveSet, ServerView, Snapshot, initial_state,
    live::{BackendLive, FrontendLive, ServerLive},
};
use crate::{
    balance::{Candidate, Pool, WEIGHT_UNIT},
    base::{BackendName, ServerKey, ServerState},
    config::{self, Algorithm, Config},
};

/// Builds a snapshot. `previous` lends the pools of backends in which nothing changed, so that the threads keep
/// their place in the round.
///
/// A server that has come up since `previous` starts with no failures in a row: what it did before counts no more.
#[must_use]
pub fn build(
    config: &Config,
    inputs: &Inputs,
    live: &mut LiveSet,
    previous: Option<&Snapshot>,
    generation: u64,
    now: Instant,
) -> Snapshot {
    let mut snapshot = Snapshot {
        generation,
        nat_ports: config.passthrough.nat_ports,
        ..Snapshot::default()
    };
    let by_packets: HashSet<&BackendName> = (config.frontends.values())
        .filter(|frontend| frontend.mode.is_packet())
        .map(|frontend| &frontend.backend)
        .collect();
    for (name, backend) in &config.backends {
        let builder = Builder {
            backend,
            inputs,
            previous: previous.and_then(|p| p.backends.get(name)).map(Arc::as_ref),
            by_packets: by_packets.contains(name),
            now,
        };
        let view = builder.backend(live, generation);
        snapshot.backends.insert(name.clone(), Arc::new(view));
    }
    for (name, frontend) in &config.frontends {
        // a resolved configuration names no missing backend
        if let Some(backend) = snapshot.backends.get(&frontend.backend) {
            let view = FrontendView {
                config: Arc::clone(frontend),
                backend: Arc::clone(backend),
                live: live.frontend(frontend),
            };
            snapshot.frontends.insert(name.clone(), Arc::new(view));
        }
    }
    live.forget_unused(config);
    snapshot
}

/// When the snapshot must be rebuilt for a running slow start; `None` when none runs.
#[must_use]
pub fn next_ramp_step(config: &Config, inputs: &Inputs, now: Instant) -> Option<Duration> {
    let mut next: Option<Duration> = None;
    for backend in config.backends.values().filter(|b| !b.slow_start.is_zero()) {
        // fine enough to be smooth, and rebuilding a Maglev table (1.8 ms in its paper) stays cheap
        let step = (backend.slow_start / 50).clamp(Duration::from_millis(100), Duration::from_secs(1));
        for server in backend.servers.keys() {
            let key = ServerKey {
                backend: backend.name.clone(),
                server: server.clone(),
            };
            let is_out = inputs.overrides.get(&key).is_some_and(|o| o.admin.is_some());
            let Some(health) = inputs.health.get(&key) else {
                continue;
            };
            let Some(from) = health.ramp_from else { continue };
            let left = backend
                .slow_start
                .saturating_sub(now.saturating_duration_since(from));
            if health.state == ServerState::Up && !is_out && !left.is_zero() {
                let wait = step.min(left);
                next = Some(next.map_or(wait, |next| next.min(wait)));
            }
        }
    }
    next
}

struct Builder<'a> {
    backend: &'a Arc<config::Backend>,
    inputs: &'a Inputs,
    previous: Option<&'a BackendView>,
    /// Whether a frontend in a packet mode uses it.
    by_packets: bool,
    now: Instant,
}

impl Builder<'_> {
    fn backend(&self, live: &mut LiveSet, generation: u64) -> BackendView {
        let mut servers: Vec<ServerView> = (self.backend.servers.values())
            .map(|server| self.server(server, live))
            .collect();
        let group = servers
            .iter()
            .filter(|s| s.effective_weight > 0)
            .map(|s| s.priority)
            .min();
        for server in &mut servers {
            if Some(server.priority) != group {
                server.effective_weight = 0;
            }
        }
        let candidates: Vec<Candidate> = servers
            .iter()
            .map(|server| Candidate {
                name: server.name.as_str().to_owned(),
                weight: server.effective_weight,
            })
            .collect();
        let (pool, pool_generation) = self.pool(&candidates, generation);
        let maglev = self.by_packets.then(|| self.maglev(&pool, &candidates));
        BackendView {
            config: Arc::clone(self.backend),
            servers,
            pool,
            pool_generation,
            maglev,
            live: live.backend(self.backend),
        }
    }

    /// One server as if its priority group were the one in use.
    fn server(&self, server: &config::Server, live: &mut LiveSet) -> ServerView {
        let key = ServerKey {
            backend: self.backend.name.clone(),
            server: server.name.clone(),
        };
        let live = live.server(&key, server);
        let before = (self.previous.and_then(|p| p.server(server.name.as_str())))
            .filter(|before| Arc::ptr_eq(&before.live, &live));
        let health = self.inputs.health.get(&key);
        let over = self.inputs.overrides.get(&key).cloned().unwrap_or_default();
        let by_health = health.map_or_else(|| initial_state(self.backend.health_check.as_ref()), |h| h.state);
        let state = match over.admin {
            Some(AdminState::Maintenance) => ServerState::Maintenance,
            Some(AdminState::Draining) => ServerState::Draining,
            None => by_health,
        };
        let state_since = if over.admin.is_none() {
            health.map(|h| h.since)
        } else {
            let same = before.filter(|before| before.state == state);
            same.map_or(Some(self.now), |same| same.state_since)
        };
        if state == ServerState::Up && before.is_some_and(|before| before.state != state) {
            live.failures_in_a_row.store(0, Ordering::Relaxed);
        }
        let weight = over.weight.unwrap_or(server.weight);
        let effective_weight = if state == ServerState::Up {
            self.ramped(weight, health.and_then(|h| h.ramp_from))
        } else {
            0
        };
        ServerView {
            name: server.name.clone(),
            addr: server.addr,
            max_connections: server.max_connections.map(std::num::NonZero::get),
            priority: server.priority,
            weight,
            effective_weight,
            state,
            state_since,
            state_reason: health.and_then(|h| h.reason.clone()),
            overridden: over.admin.is_some() || over.weight.is_some(),
            live,
        }
    }

    /// A weight in units, reduced while a slow start runs: linear in time, but at least one unit of any weight.
    fn ramped(&self, weight: u16, from: Option<Instant>) -> u32 {
        let full = u32::from(weight) * WEIGHT_UNIT;
        let whole = self.backend.slow_start.as_nanos();
        let run = from.map_or(whole, |from| self.now.saturating_duration_since(from).as_nanos());
        if run >= whole {
            return full;
        }
        let part = u128::from(full) * run / whole;
        u32::try_from(part).map_or(full, |part| part.max(u32::from(full > 0)))
    }

    /// The previous pool if a new one would be the same, else a new one of this generation.
    fn pool(&self, candidates: &[Candidate], generation: u64) -> (Arc<Pool>, u64) {
        match self.previous {
            Some(previous) if previous.pool.is_of(self.backend.balance, candidates) => {
                (Arc::clone(&previous.pool), previous.pool_generation)
            }
            _ => {
                let pool = Pool::new(self.backend.balance, candidates);
                (Arc::new(pool), generation)
            }
        }
    }

    /// The pool if it is a Maglev table, else the previous table if a new one would be the same, else a new one.
    fn maglev(&self, pool: &Arc<Pool>, candidates: &[Candidate]) -> Arc<Pool> {
        if self.backend.balance == Algorithm::Maglev {
            return Arc::clone(pool);
        }
        (self.previous.and_then(|previous| previous.maglev.as_ref()))
            .filter(|maglev| maglev.is_of(Algorithm::Maglev, candidates))
            .map_or_else(|| Arc::new(Pool::new(Algorithm::Maglev, candidates)), Arc::clone)
    }
}

impl LiveSet {
    fn frontend(&mut self, frontend: &config::Frontend) -> Arc<FrontendLive> {
        let workers = self.workers;
        let entry = self.frontends.entry(frontend.name.clone());
        Arc::clone(entry.or_insert_with(|| FrontendLive::new(workers)))
    }

    fn backend(&mut self, backend: &config::Backend) -> Arc<BackendLive> {
        let workers = self.workers;
        let entry = self.backends.entry(backend.name.clone());
        Arc::clone(entry.or_insert_with(|| BackendLive::new(workers)))
    }

    fn server(&mut self, key: &ServerKey, server: &config::Server) -> Arc<ServerLive> {
        let workers = self.workers;
        let entry = self.servers.entry((key.clone(), server.addr));
        Arc::clone(entry.or_insert_with(|| ServerLive::new(workers)))
    }

    /// Drops what is neither configured nor held by an older snapshot or a connection.
    fn forget_unused(&mut self, config: &Config) {
        fn keep<K, V>(map: &mut HashMap<K, Arc<V>>, is_configured: impl Fn(&K) -> bool) {
            // a handle with no other owner can get none any more but through this map
            map.retain(|key, live| Arc::strong_count(live) > 1 || is_configured(key));
        }
        keep(&mut self.frontends, |name| config.frontends.contains_key(name));
        keep(&mut self.backends, |name| config.backends.contains_key(name));
        keep(&mut self.servers, |(key, addr)| {
            (config.backends.get(&key.backend))
                .and_then(|backend| backend.servers.get(&key.server))
                .is_some_and(|server| server.addr == *addr)
        });
    }
}
