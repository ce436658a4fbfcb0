//! The view of one backend: states, weights, and the choosers that are made of them.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use super::{
    AgentSays, BackendTls, BackendView, Health, NameClass, ServerCounts, ServerView, initial_state,
    live::{BackendStats, ServerStats},
    stats_set::StatsSet,
};
use crate::{
    balance::{Balancer, Candidate, HashKey, WEIGHT_UNIT},
    base::{HostPattern, ServerName, ServerState},
    config::Algorithm,
    pools::{AdminState, Pool, Server},
};

/// What is known of the health of one backend's servers.
pub(super) type HealthOf = BTreeMap<ServerName, Health>;

/// What the view of a backend is made of.
pub(super) struct Parts<'a> {
    pub pool: &'a Pool,
    pub health: Option<&'a HealthOf>,
    /// Lends what would be the same.
    pub previous: Option<&'a BackendView>,
    /// Whether that is another builder's, whose counters are not these.
    pub is_lent: bool,
    /// Whether a frontend in a packet mode uses it.
    pub by_packets: bool,
    /// What clients are mapped to servers with.
    pub key: HashKey,
    /// TLS to its servers.
    pub tls: Option<&'a Arc<BackendTls>>,
    pub now: Instant,
}

/// A server's state and weight.
struct Standing<'a> {
    server: &'a Server,
    /// Index of its class.
    class: u16,
    health: Option<&'a Health>,
    state: ServerState,
    /// As if its priority group were the one in use.
    weight: u32,
    /// What is left of a slow start.
    ramp_left: Option<Duration>,
}

impl<'a> Parts<'a> {
    /// The view, and how long until a running slow start needs another one.
    ///
    /// A server that has come up since the previous one starts with no failures in a row: what it did before counts no
    /// more.
    pub fn view(&self, live: &mut StatsSet, generation: u64) -> (BackendView, Option<Duration>) {
        let backend = self.pool.backend();
        let (standings, classes) = self.standings();
        let mut counts = ServerCounts::default();
        let mut ramp_left: Option<Duration> = None;
        let mut servers = Vec::with_capacity(standings.len());
        let mut before = self.previous.into_iter().flat_map(|p| &p.servers).peekable();
        for standing in &standings {
            let server = standing.server;
            // both are sorted by name
            while before.next_if(|before| before.name < server.name).is_some() {}
            let before = before.next_if(|before| before.name == server.name);
            // at another address it is another server
            let before = before.filter(|before| before.addr == server.addr && !self.is_lent);
            let live = match before {
                Some(before) => Arc::clone(&before.live),
                None => live.server(&backend.name, server),
            };
            let view = self.server(standing, &classes, before, live);
            counts.add(&view);
            ramp_left = [ramp_left, standing.ramp_left].into_iter().flatten().min();
            servers.push(view);
        }
        let candidates = candidates(&servers, None);
        let before = self
            .previous
            .map(|previous| (&previous.balancer, previous.balancer_generation));
        let (balancer, balancer_generation) = self.balancer(before, &candidates, generation);
        let names = self.names(&classes, &servers, generation);
        let maglev = self.by_packets.then(|| self.maglev(&balancer, &candidates));
        let live: Arc<BackendStats> = live.backend(&backend.name);
        // fine enough to be smooth, and rebuilding a Maglev table (1.8 ms in its paper) stays cheap
        let step = (backend.slow_start / 50).clamp(Duration::from_millis(100), Duration::from_secs(1));
        let view = BackendView {
            config: Arc::clone(backend),
            servers,
            counts,
            balancer,
            balancer_generation,
            names,
            maglev,
            tls: self.tls.map(Arc::clone),
            live,
        };
        (view, ramp_left.map(|left| left.min(step)))
    }

    /// How many servers could be chosen.
    pub fn eligible(&self) -> usize {
        let (standings, classes) = self.standings();
        (standings.iter())
            .filter(|standing| classes.weight(standing) > 0)
            .count()
    }

    /// Every server's standing, and their classes.
    fn standings(&self) -> (Vec<Standing<'a>>, Classes<'a>) {
        let servers = self.pool.servers();
        let mut classes = Classes::default();
        let mut standings = Vec::with_capacity(servers.len());
        let mut known = self.health.into_iter().flatten().peekable();
        for server in servers {
            // both are sorted by name
            while known.next_if(|(name, _)| **name < server.name).is_some() {}
            let health = known.next_if(|(name, _)| **name == server.name);
            let class = classes.enter(&server.sni);
            standings.push(self.standing(server, class, health.map(|(_, health)| health)));
        }
        let mut serves = vec![false; classes.0.len()];
        for standing in &standings {
            serves[usize::from(standing.class)] |= standing.weight > 0;
        }
        for standing in &mut standings {
            // connects to a server that is the last one are worth a try: it is not ejected (as in nginx)
            let is_ejected =
                standing.state == ServerState::Down && standing.health.is_some_and(|h| h.is_ejected);
            if is_ejected && !serves[usize::from(standing.class)] {
                standing.weight = u32::from(weight(standing.server, standing.health)) * WEIGHT_UNIT;
            }
            classes.note(standing);
        }
        (standings, classes)
    }

    fn standing(&self, server: &'a Server, class: u16, health: Option<&'a Health>) -> Standing<'a> {
        let agent = health.map(|health| &health.agent);
        let admin = (server.overridden.admin).or_else(|| agent.and_then(|agent| agent.admin));
        let state = match admin {
            Some(AdminState::Maintenance) => ServerState::Maintenance,
            Some(AdminState::Draining) => ServerState::Draining,
            None => health.map_or_else(
                || initial_state(self.pool.backend().health_check.as_ref()),
                |health| health.state,
            ),
        };
        let mut standing = Standing {
            server,
            class,
            health,
            state,
            weight: 0,
            ramp_left: None,
        };
        if state == ServerState::Up {
            let full = u32::from(weight(server, health)) * WEIGHT_UNIT;
            let whole = self.pool.backend().slow_start;
            let left = health.and_then(|h| h.ramp_from).map_or(Duration::ZERO, |from| {
                whole.saturating_sub(self.now.saturating_duration_since(from))
            });
            standing.weight = ramped(full, whole, left);
            standing.ramp_left = (!left.is_zero()).then_some(left);
        }
        standing
    }

    fn server(
        &self,
        standing: &Standing<'_>,
        classes: &Classes<'_>,
        before: Option<&ServerView>,
        live: Arc<ServerStats>,
    ) -> ServerView {
        let Standing {
            server,
            class,
            health,
            state,
            ..
        } = *standing;
        let agent = health.map_or_else(AgentSays::default, |health| health.agent.clone());
        let state_since = if server.overridden.admin.is_none() && agent.admin.is_none() {
            health.map(|h| h.since)
        } else {
            let same = before.filter(|before| before.state == state);
            same.map_or(Some(self.now), |same| same.state_since)
        };
        if state == ServerState::Up && before.is_some_and(|before| before.state != state) {
            live.failures_in_a_row.store(0, Ordering::Relaxed);
        }
        ServerView {
            name: server.name.clone(),
            addr: server.addr,
            max_connections: agent.max_connections(server.max_connections),
            priority: server.priority,
            weight: weight(server, health),
            configured_weight: server.configured_weight,
            class,
            effective_weight: classes.weight(standing),
            state,
            state_since,
            state_reason: health.and_then(|h| h.reason.clone()),
            is_discovered: server.is_discovered,
            overridden: server.overridden,
            agent,
            checks: health.map(|health| Arc::clone(&health.checks)),
            live,
        }
    }

    /// The servers by the names that they serve, if they differ in them.
    fn names(&self, classes: &Classes<'_>, servers: &[ServerView], generation: u64) -> Box<[NameClass]> {
        if classes.0.iter().all(|class| class.sni.is_empty()) {
            return Box::default();
        }
        let before = self.previous.map_or(&[][..], |previous| &previous.names);
        (classes.0.iter().zip(0_u16..))
            .map(|(class, index)| {
                let candidates = candidates(servers, Some(index));
                let before = (before.iter().find(|before| before.sni == *class.sni))
                    .map(|before| (&before.balancer, before.balancer_generation));
                let (balancer, balancer_generation) = self.balancer(before, &candidates, generation);
                NameClass {
                    sni: Arc::clone(class.sni),
                    balancer,
                    balancer_generation,
                    eligible: candidates.iter().filter(|candidate| candidate.weight > 0).count(),
                }
            })
            .collect()
    }

    /// The balancer before if a new one would be the same, else a new one of this generation.
    fn balancer(
        &self,
        before: Option<(&Arc<Balancer>, u64)>,
        candidates: &[Candidate],
        generation: u64,
    ) -> (Arc<Balancer>, u64) {
        let backend = self.pool.backend();
        let (algorithm, bound) = (backend.balance, backend.hash_balance_factor);
        match before {
            Some((balancer, generation))
                if balancer.is_of(algorithm, candidates, self.key) && balancer.has_bound(bound) =>
            {
                (Arc::clone(balancer), generation)
            }
            _ => {
                let balancer = Balancer::new(algorithm, candidates, self.key).bounded(bound);
                (Arc::new(balancer), generation)
            }
        }
    }

    /// The balancer if it is a Maglev table, else the previous table if a new one would be the same, else a new one.
    fn maglev(&self, balancer: &Arc<Balancer>, candidates: &[Candidate]) -> Arc<Balancer> {
        if self.pool.backend().balance == Algorithm::Maglev {
            return Arc::clone(balancer);
        }
        (self.previous.and_then(|previous| previous.maglev.as_ref()))
            .filter(|maglev| maglev.is_of(Algorithm::Maglev, candidates, self.key))
            .map_or_else(
                || Arc::new(Balancer::new(Algorithm::Maglev, candidates, self.key)),
                Arc::clone,
            )
    }
}

/// The servers of a pool by their `sni`, in the order in which the first of each comes.
#[derive(Default)]
struct Classes<'a>(Vec<Class<'a>>);

struct Class<'a> {
    sni: &'a Arc<[HostPattern]>,
    /// The priority group that is in use: the lowest with a server that has a weight.
    group: Option<u16>,
}

impl<'a> Classes<'a> {
    /// The index of a class.
    fn enter(&mut self, sni: &'a Arc<[HostPattern]>) -> u16 {
        let known = self.0.iter().position(|class| class.sni == sni);
        let index = known.unwrap_or_else(|| {
            self.0.push(Class { sni, group: None });
            self.0.len() - 1
        });
        // no file has room for so many
        u16::try_from(index).unwrap_or(u16::MAX)
    }

    fn note(&mut self, standing: &Standing<'_>) {
        if let Some(class) = self
            .0
            .get_mut(usize::from(standing.class))
            .filter(|_| standing.weight > 0)
        {
            let priority = standing.server.priority;
            class.group = Some(class.group.map_or(priority, |group| group.min(priority)));
        }
    }

    /// A server's weight if its priority group is in use.
    fn weight(&self, standing: &Standing<'_>) -> u32 {
        let group = self
            .0
            .get(usize::from(standing.class))
            .and_then(|class| class.group);
        if group == Some(standing.server.priority) {
            standing.weight
        } else {
            0
        }
    }
}

/// The servers as a balancer takes them: all of them, or with those of other classes at weight 0.
fn candidates(servers: &[ServerView], class: Option<u16>) -> Vec<Candidate> {
    let weight = |server: &ServerView| match class {
        Some(class) if class != server.class => 0,
        _ => server.effective_weight,
    };
    (servers.iter())
        .map(|server| Candidate {
            name: server.name.clone(),
            weight: weight(server),
        })
        .collect()
}

/// A server's weight: the operator's, or that of the configuration as its agent changes it.
fn weight(server: &Server, health: Option<&Health>) -> u16 {
    let by_agent = || {
        health.map_or(server.configured_weight, |health| {
            health.agent.weight(server.configured_weight)
        })
    };
    server.overridden.weight.unwrap_or_else(by_agent)
}

/// A weight in units, reduced while a slow start runs: linear in time, but at least one unit of any weight.
fn ramped(full: u32, whole: Duration, left: Duration) -> u32 {
    if left.is_zero() {
        return full;
    }
    let run = whole.saturating_sub(left).as_nanos();
    let part = u128::from(full) * run / whole.as_nanos().max(1);
    u32::try_from(part).map_or(full, |part| part.max(u32::from(full > 0)))
}
