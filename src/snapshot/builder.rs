//! From one snapshot to the next.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Instant,
};

use super::{
    BackendTls, BackendView, FrontendTls, FrontendView, Health, Routes, ServerCounts, Snapshot,
    backend::{HealthOf, Parts},
    stats_set::StatsSet,
};
use crate::{
    access::{FrontendAccess, NetworkLists, Subjects},
    balance::HashKey,
    base::{BackendName, FrontendName, ListenerId, NetworkListName, ServerKey},
    config::{self, Config},
    pools::{Pool, Pools},
};

/// Builds snapshots, each from the one before: what did not change is shared with it.
///
/// Whoever changes a pool, a server's health or the configuration says so here, and [`build`](Self::build) makes the views
/// of what was named. Time is an argument: of a backend with a running slow start a view is due at
/// [`next_ramp_step`](Self::next_ramp_step) too.
#[derive(Debug)]
pub struct Builder {
    last: Arc<Snapshot>,
    /// Whether that is another builder's.
    is_lent: bool,
    live: StatsSet,
    health: HashMap<BackendName, HealthOf>,
    users: HashMap<BackendName, Users>,
    /// Backends whose views are to be made anew.
    dirty: BTreeSet<BackendName>,
    /// What clients are mapped to servers with.
    key: HashKey,
    /// Whether any frontend may have changed.
    is_config_new: bool,
    /// Backends with a running slow start, and when they need another view.
    ramps: HashMap<BackendName, Instant>,
    /// Of the frontends where TLS ends.
    tls: HashMap<FrontendName, Arc<FrontendTls>>,
    /// To the servers of backends.
    tls_to_servers: HashMap<BackendName, Arc<BackendTls>>,
    /// What access rules name.
    lists: NetworkLists,
    /// Those of them that changed since the last build.
    changed_lists: BTreeSet<NetworkListName>,
}

/// The frontends that send to a backend.
#[derive(Debug, Default)]
struct Users {
    frontends: BTreeSet<FrontendName>,
    /// Whether one of them is in a packet mode.
    by_packets: bool,
}

/// A new snapshot, and where it differs from the one before.
#[derive(Debug)]
pub struct Built {
    /// The snapshot.
    pub snapshot: Arc<Snapshot>,
    /// Backends that were made anew, added or removed.
    pub backends: Vec<Replaced<BackendView>>,
    /// Frontends that were made anew, added or removed.
    pub frontends: Vec<Replaced<FrontendView>>,
    /// Whether what the packet modes serve may have changed.
    pub concerns_packets: bool,
}

/// A view that took another's place.
#[derive(Debug)]
pub struct Replaced<T> {
    /// Before; `None` if it was added.
    pub before: Option<Arc<T>>,
    /// After; `None` if it was removed.
    pub after: Option<Arc<T>>,
}

impl Builder {
    /// A builder whose counters have so many shards. The first snapshot is made from scratch, but takes choosers that would
    /// be the same from `lender`, another builder's snapshot.
    #[must_use]
    pub fn new(workers: usize, lender: Arc<Snapshot>) -> Self {
        Self {
            dirty: lender.backends.keys().cloned().collect(),
            last: lender,
            is_lent: true,
            live: StatsSet::new(workers),
            health: HashMap::new(),
            users: HashMap::new(),
            key: HashKey::default(),
            is_config_new: true,
            ramps: HashMap::new(),
            lists: NetworkLists::new(),
            tls: HashMap::new(),
            tls_to_servers: HashMap::new(),
            changed_lists: BTreeSet::new(),
        }
    }

    /// The network lists in effect.
    #[must_use]
    pub const fn lists(&self) -> &NetworkLists {
        &self.lists
    }

    /// There are other network lists; those that did not change are the same [`Arc`].
    pub fn lists_changed(&mut self, lists: NetworkLists) {
        self.is_config_new = true;
        let changed = lists.iter().filter(|(name, list)| {
            let before = self.lists.get(*name);
            before.is_none_or(|before| !Arc::ptr_eq(before, list))
        });
        self.changed_lists.extend(changed.map(|(name, _)| name.clone()));
        self.lists = lists;
    }

    /// The TLS of frontends is another; what did not change is the same [`Arc`].
    pub fn tls_changed(&mut self, tls: HashMap<FrontendName, Arc<FrontendTls>>) {
        self.is_config_new = true;
        self.tls = tls;
    }

    /// TLS to servers is another; what did not change is the same [`Arc`].
    pub fn tls_to_servers_changed(&mut self, tls: HashMap<BackendName, Arc<BackendTls>>) {
        let before = std::mem::replace(&mut self.tls_to_servers, tls);
        let names = before.keys().chain(self.tls_to_servers.keys());
        let of = |all: &HashMap<_, Arc<BackendTls>>, name| all.get(name).map(Arc::as_ptr);
        let changed = names.filter(|name| of(&before, *name) != of(&self.tls_to_servers, *name));
        self.dirty.extend(changed.cloned());
    }

    /// The last snapshot.
    #[must_use]
    pub const fn last(&self) -> &Arc<Snapshot> {
        &self.last
    }

    /// There is another configuration; `changed` are the backends that [`Pools::apply`] has named. Another `hash_seed` has
    /// every table made anew.
    pub fn config_changed(&mut self, config: &Config, changed: impl IntoIterator<Item = BackendName>) {
        self.is_config_new = true;
        self.dirty.extend(changed);
        let key = HashKey::of(config.global.hash_seed.as_ref());
        if std::mem::replace(&mut self.key, key) != key {
            self.dirty.extend(self.last.backends.keys().cloned());
        }
        let mut users: HashMap<BackendName, Users> = HashMap::new();
        for (name, frontend) in &config.frontends {
            for target in frontend.targets() {
                let users = users.entry(target.clone()).or_default();
                users.frontends.insert(name.clone());
                users.by_packets |= frontend.mode.is_packet();
            }
        }
        let by_packets = |users: &HashMap<BackendName, Users>, name| {
            users.get(name).is_some_and(|users: &Users| users.by_packets)
        };
        for name in users.keys().chain(self.users.keys()) {
            if by_packets(&users, name) != by_packets(&self.users, name) {
                self.dirty.insert(name.clone());
            }
        }
        self.users = users;
    }

    /// A backend's pool has changed.
    pub fn pool_changed(&mut self, backend: &BackendName) {
        self.dirty.insert(backend.clone());
    }

    /// Takes what is known of a server's health; `None` is nothing.
    pub fn set_health(&mut self, key: &ServerKey, health: Option<Health>) {
        match health {
            Some(health) => {
                let of_backend = self.health.entry(key.backend.clone()).or_default();
                of_backend.insert(key.server.clone(), health);
            }
            None => {
                if let Some(of_backend) = self.health.get_mut(&key.backend) {
                    of_backend.remove(&key.server);
                }
            }
        }
        if !self.dirty.contains(&key.backend) {
            self.dirty.insert(key.backend.clone());
        }
    }

    /// What is known of a server's health.
    #[must_use]
    pub fn health(&self, key: &ServerKey) -> Option<&Health> {
        self.health.get(&key.backend)?.get(&key.server)
    }

    /// How many servers of a backend could be chosen if this were its pool.
    #[must_use]
    pub fn eligible(&self, pool: &Pool, now: Instant) -> usize {
        let parts = Parts {
            pool,
            health: self.health.get(&pool.backend().name),
            previous: None,
            is_lent: false,
            by_packets: false,
            tls: None,
            key: self.key,
            now,
        };
        parts.eligible()
    }

    /// When a running slow start needs another snapshot; `None` when none runs.
    #[must_use]
    pub fn next_ramp_step(&self) -> Option<Instant> {
        self.ramps.values().min().copied()
    }

    /// The next snapshot: of this configuration and these pools, which are those that were told of.
    pub fn build(&mut self, config: &Config, pools: &Pools, now: Instant) -> Built {
        let due = self.ramps.iter().filter(|(_, at)| **at <= now);
        self.dirty.extend(due.map(|(name, _)| name.clone()));
        let mut next = Snapshot {
            generation: self.last.generation + 1,
            frontends: self.last.frontends.clone(),
            backends: self.last.backends.clone(),
            listeners: Arc::clone(&self.last.listeners),
            counts: self.last.counts,
            nat_ports: config.packet.nat_ports,
            nat_addresses: config.packet.nat_addresses.as_slice().into(),
            any_interface: config.packet.any_interface,
            ports_per_client: config.packet.max_ports_per_client,
        };
        let backends: Vec<_> = (std::mem::take(&mut self.dirty).into_iter())
            .map(|name| self.replace_backend(&mut next, name, pools, now))
            .collect();
        let frontends = if std::mem::take(&mut self.is_config_new) {
            self.replace_frontends(&mut next, config)
        } else {
            self.follow_backends(&mut next, &backends)
        };
        let concerns_packets = next.nat_ports != self.last.nat_ports
            || next.nat_addresses != self.last.nat_addresses
            || next.any_interface != self.last.any_interface
            || next.ports_per_client != self.last.ports_per_client
            || concern_packets(&frontends);
        (self.last, self.is_lent) = (Arc::new(next), false);
        Built {
            snapshot: Arc::clone(&self.last),
            backends,
            frontends,
            concerns_packets,
        }
    }

    fn replace_backend(
        &mut self,
        next: &mut Snapshot,
        name: BackendName,
        pools: &Pools,
        now: Instant,
    ) -> Replaced<BackendView> {
        let before = next.backends.remove(&name);
        if let Some(before) = &before {
            next.counts = next.counts.without(before.counts);
        }
        let Some(pool) = pools.get(name.as_str()) else {
            self.health.remove(&name);
            self.ramps.remove(&name);
            return Replaced { before, after: None };
        };
        let parts = Parts {
            pool,
            health: self.health.get(&name),
            previous: before.as_deref(),
            is_lent: self.is_lent,
            by_packets: self.users.get(&name).is_some_and(|users| users.by_packets),
            tls: self.tls_to_servers.get(&name),
            key: self.key,
            now,
        };
        let (view, ramp) = parts.view(&mut self.live, next.generation);
        match ramp {
            Some(wait) => self.ramps.insert(name.clone(), now + wait),
            None => self.ramps.remove(&name),
        };
        next.counts = next.counts.with(view.counts);
        let gone = before.iter().flat_map(|before| &before.servers);
        let mut gone = gone
            .filter(|server| server.is_discovered && view.server(server.name.as_str()).is_none())
            .map(|server| Arc::clone(&server.live))
            .peekable();
        if gone.peek().is_some() {
            self.live.gone(&name, gone);
        }
        let after = Arc::new(view);
        next.backends.insert(name, Arc::clone(&after));
        Replaced {
            before,
            after: Some(after),
        }
    }

    /// After a change of the configuration: looks at every frontend.
    fn replace_frontends(&mut self, next: &mut Snapshot, config: &Config) -> Vec<Replaced<FrontendView>> {
        let mut before = std::mem::take(&mut next.frontends);
        let mut replaced = Vec::new();
        for (name, frontend) in &config.frontends {
            // a resolved configuration names no missing backend
            let Some(targets) = targets(frontend, next) else {
                continue;
            };
            let before = before.remove(name);
            let tls = self.tls.get(name);
            let same = (before.as_ref()).filter(|before| {
                Arc::ptr_eq(&before.config, frontend)
                    && before.tls.as_ref().map(Arc::as_ptr) == tls.map(Arc::as_ptr)
                    && (before.targets.iter().zip(&targets)).all(|(before, now)| Arc::ptr_eq(before, now))
                    && !frontend.lists().any(|name| self.changed_lists.contains(name))
            });
            let view = match same {
                Some(same) => Arc::clone(same),
                None => {
                    let index = |name: &_| targets.iter().position(|target| target.config.name == *name);
                    let list = |name: &_| self.lists.get(name).map(Arc::clone);
                    let proxies = frontend.proxy_protocol.as_ref();
                    let routes = Routes::new(&frontend.routing, &self.lists, index).map(Arc::new);
                    let view = Arc::new(FrontendView {
                        config: Arc::clone(frontend),
                        backend: Arc::clone(&targets[0]),
                        needs_hello: Routes::need_hello(routes.as_deref(), &frontend.routing, &targets),
                        routes,
                        tls: tls.map(Arc::clone),
                        proxies: proxies.map(|proxies| Arc::new(Subjects::new(&proxies.from, list))),
                        live: self.live.frontend(name),
                        access: self.access(frontend, before.as_deref()),
                        targets: targets.into(),
                    });
                    replaced.push(Replaced {
                        before,
                        after: Some(Arc::clone(&view)),
                    });
                    view
                }
            };
            next.frontends.insert(name.clone(), view);
        }
        replaced.extend(before.into_values().map(|removed| Replaced {
            before: Some(removed),
            after: None,
        }));
        self.changed_lists.clear();
        next.listeners = Arc::new(listeners(config));
        self.live.forget_unused();
        replaced
    }

    /// Who may open a connection to a frontend; what clients have of it is taken over, but not between proxy and packet
    /// modes, whose clocks differ.
    fn access(
        &self,
        frontend: &config::Frontend,
        before: Option<&FrontendView>,
    ) -> Option<Arc<FrontendAccess>> {
        FrontendAccess::new(
            frontend.access.as_ref(),
            frontend.limits,
            |name| self.lists.get(name).map(Arc::clone),
            before
                .filter(|before| !self.is_lent && before.config.mode.is_packet() == frontend.mode.is_packet())
                .and_then(|before| before.access.as_deref()),
        )
    }

    /// Without such a change: the frontends of backends that were replaced.
    fn follow_backends(
        &self,
        next: &mut Snapshot,
        backends: &[Replaced<BackendView>],
    ) -> Vec<Replaced<FrontendView>> {
        let names: BTreeSet<&FrontendName> = (backends.iter())
            .filter_map(|backend| self.users.get(&backend.after.as_ref()?.config.name))
            .flat_map(|users| &users.frontends)
            .collect();
        let mut replaced = Vec::new();
        for name in names {
            let Some(before) = next.frontends.get(name).map(Arc::clone) else {
                continue;
            };
            let Some(targets) = targets(&before.config, next) else {
                continue;
            };
            let after = Arc::new(FrontendView {
                config: Arc::clone(&before.config),
                backend: Arc::clone(&targets[0]),
                needs_hello: Routes::need_hello(before.routes.as_deref(), &before.config.routing, &targets),
                targets: targets.into(),
                routes: before.routes.clone(),
                tls: before.tls.clone(),
                proxies: before.proxies.clone(),
                live: Arc::clone(&before.live),
                access: before.access.clone(),
            });
            next.frontends.insert(name.clone(), Arc::clone(&after));
            replaced.push(Replaced {
                before: Some(before),
                after: Some(after),
            });
        }
        replaced
    }
}

/// The backends that a frontend may send to, its own first, each once; `None` if one is missing.
fn targets(frontend: &config::Frontend, snapshot: &Snapshot) -> Option<Vec<Arc<BackendView>>> {
    let mut seen = HashSet::new();
    let names = frontend.targets().filter(|name| seen.insert(*name));
    names
        .map(|name| snapshot.backends.get(name).map(Arc::clone))
        .collect()
}

/// Proxy frontends by what they listen on.
fn listeners(config: &Config) -> HashMap<ListenerId, FrontendName> {
    let proxied = config.frontends.values().filter(|f| !f.mode.is_packet());
    proxied
        .flat_map(|frontend| {
            frontend
                .listeners()
                .map(|listener| (listener, frontend.name.clone()))
        })
        .collect()
}

fn concern_packets(frontends: &[Replaced<FrontendView>]) -> bool {
    let sides = frontends.iter().flat_map(|f| [&f.before, &f.after]);
    (sides.flatten()).any(|frontend| frontend.config.mode.is_packet())
}

impl Built {
    /// Wakes every connection that waits for a server, and every listener that waits for a slot of its frontend, where
    /// something changed, so that they look at the snapshot in effect. To be called once it is.
    pub fn wake_queues(&self) {
        for frontend in self.frontends.iter().filter_map(|f| f.before.as_ref()) {
            frontend.live.slots.freed().notify_waiters();
            // it may send to other backends now
            for backend in &frontend.targets {
                backend.live.server_freed.notify_waiters();
            }
        }
        for backend in self.backends.iter().filter_map(|b| b.before.as_ref()) {
            backend.live.server_freed.notify_waiters();
        }
    }
}

impl ServerCounts {
    fn with(self, other: Self) -> Self {
        Self {
            servers: self.servers + other.servers,
            up: self.up + other.up,
            eligible: self.eligible + other.eligible,
        }
    }

    /// The counts without those of a part that they include.
    fn without(self, part: Self) -> Self {
        Self {
            servers: self.servers - part.servers,
            up: self.up - part.up,
            eligible: self.eligible - part.eligible,
        }
    }
}
