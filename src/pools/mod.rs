//! Which servers there are: the configuration's and discovered ones, with what an operator has overridden at run time.
//!
//! ```text
//! configuration ─► apply ─────────┐
//! discovery ────► discover ───────┼─► Pools: a Pool for each backend ─► snapshot · checks · packet services · scripts
//! operator ─────► set_override ───┘          └─ names the backends that changed
//! ```
//! Everything in the daemon that asks "which servers?" asks here. The broker does not: its policy is the file.
//!
//! A server of the file goes before a discovered one of the same name or address.
//!
//! A [`Pool`] is immutable and shared. Each change returns the names of the backends whose pools are others than before;
//! every other pool stays the same [`Arc`], so that whoever derives something from pools derives it for those alone.
//! An override outlives every change of its server's configuration, and goes with the server. That of a discovered server is
//! remembered while the server is away, for it may come back. It outlives the process too, as [`Saved`].

mod absent;
mod saved;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    base::{BackendName, HostPattern, ServerAddr, ServerKey, ServerName},
    config::{self, CheckAddr, Config, PacketService},
};
use absent::Absent;
pub(crate) use saved::{MAX_FILE_BYTES, MAX_OVERRIDES, Saved, SavedOverride};

/// The servers of every backend.
#[derive(Debug, Clone, Default)]
pub struct Pools {
    pools: BTreeMap<BackendName, Arc<Pool>>,
    /// What was discovered for backends with `[discovery]`, sorted by name.
    discovered: BTreeMap<BackendName, Arc<[config::Server]>>,
    absent: Absent,
}

/// What was discovered for backends, each sorted by name.
pub type Discovered = BTreeMap<BackendName, Arc<[config::Server]>>;

/// The servers of one backend.
#[derive(Debug, Clone)]
pub struct Pool {
    backend: Arc<config::Backend>,
    /// What of it was discovered and fits.
    discovered: Arc<[config::Server]>,
    /// Sorted by name.
    servers: Vec<Server>,
}

/// A server of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Its name.
    pub name: ServerName,
    /// Where it is.
    pub addr: ServerAddr,
    /// Its priority group.
    pub priority: u16,
    /// `max_connections`.
    pub max_connections: Option<u32>,
    /// The names that it serves.
    pub sni: Arc<[HostPattern]>,
    /// Its weight without an override.
    pub configured_weight: u16,
    /// Whether it is not in the file.
    pub is_discovered: bool,
    /// Where its checks go, if not to its address.
    pub check_addr: Option<CheckAddr>,
    /// What an operator has set.
    pub overridden: Override,
}

/// What an operator has set for a server at run time (`convey server …`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Override {
    /// Draining or maintenance; `None` when ready.
    pub admin: Option<AdminState>,
    /// A weight instead of the configured one.
    pub weight: Option<u16>,
}

/// An administrative state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AdminState {
    /// No new connections.
    Draining,
    /// No new connections and no checks.
    Maintenance,
}

impl Pools {
    /// The servers of a configuration, without overrides.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let mut pools = Self::default();
        pools.apply(config);
        pools
    }

    /// Takes the servers of a configuration; overrides stay with the servers that it still has. The names of the backends
    /// whose pools are not as before: added, changed, removed.
    ///
    /// A backend whose configuration is the same [`Arc`] costs one comparison ([`Config::keep`] makes it so); one with
    /// `[discovery]` costs its discovered servers, for another frontend may not let them all in.
    pub fn apply(&mut self, config: &Config) -> Vec<BackendName> {
        let mut changed: Vec<_> = (self.pools.keys())
            .filter(|name| !config.backends.contains_key(*name))
            .cloned()
            .collect();
        for name in &changed {
            self.pools.remove(name);
        }
        let discovers = |name: &BackendName| {
            let backend = config.backends.get(name);
            backend.is_some_and(|backend| backend.discovery.is_some())
        };
        self.discovered.retain(|name, _| discovers(name));
        self.absent.retain(discovers);
        for (name, backend) in &config.backends {
            let discovered = self.fitting(config, name);
            let before = self.pools.get(name);
            let is_same = before
                .is_some_and(|pool| Arc::ptr_eq(&pool.backend, backend) && pool.has_discovered(&discovered));
            if !is_same {
                self.replace(Arc::clone(backend), discovered);
                changed.push(name.clone());
            }
        }
        changed
    }

    /// As [`apply`](Self::apply), of a configuration for which servers were discovered already.
    pub fn apply_with(&mut self, config: &Config, discovered: &Discovered) -> Vec<BackendName> {
        for (backend, servers) in discovered {
            self.discovered.insert(backend.clone(), Arc::clone(servers));
        }
        self.apply(config)
    }

    /// Takes what was discovered for a backend of the configuration that was applied last, sorted by name. Whether its servers
    /// are others than before.
    pub fn discover(
        &mut self,
        config: &Config,
        backend: &BackendName,
        servers: Arc<[config::Server]>,
    ) -> bool {
        let of = config.backends.get(backend);
        let Some(settings) = of.filter(|settings| settings.discovery.is_some()) else {
            return false;
        };
        self.discovered.insert(backend.clone(), servers);
        let fitting = self.fitting(config, backend);
        let before = self.pools.get(backend);
        if before.is_some_and(|pool| pool.has_discovered(&fitting)) {
            return false;
        }
        self.replace(Arc::clone(settings), fitting);
        true
    }

    /// What was last discovered for a backend, sorted by name.
    #[must_use]
    pub fn discovered(&self, backend: &str) -> Option<&Arc<[config::Server]>> {
        self.discovered.get(backend)
    }

    /// What was discovered for a backend, without what its frontends do not let in.
    fn fitting(&self, config: &Config, backend: &BackendName) -> Arc<[config::Server]> {
        let Some(servers) = self.discovered.get(backend) else {
            return Arc::default();
        };
        let Some(rules) = config.server_rules(backend.as_str()) else {
            return Arc::default();
        };
        // what is an address of this host was left out when it was discovered
        let host = BTreeSet::new();
        let fits = |server: &&config::Server| rules.unfit(server, &host).is_none();
        let fitting = servers.iter().filter(fits).count();
        if fitting == servers.len() && fitting <= rules.max_servers() {
            return Arc::clone(servers);
        }
        let fitting = servers.iter().filter(fits).take(rules.max_servers());
        fitting.cloned().collect()
    }

    fn replace(&mut self, backend: Arc<config::Backend>, discovered: Arc<[config::Server]>) {
        let name = backend.name.clone();
        let before = self.pools.get(&name).cloned();
        let pool = Pool::new(backend, discovered, |server, is_discovered| {
            let before = before.as_ref().and_then(|pool| pool.server(server.as_str()));
            match before {
                Some(before) => before.overridden,
                None if is_discovered => self.absent.back(&name, server),
                None => Override::default(),
            }
        });
        for server in before.iter().flat_map(|pool| pool.servers()) {
            let is_gone = pool.server(server.name.as_str()).is_none();
            if is_gone && server.is_discovered && pool.backend.discovery.is_some() {
                self.absent.gone(&name, &server.name, server.overridden);
            }
        }
        self.pools.insert(name, Arc::new(pool));
    }

    /// Sets an override from before the start: of a server that may still be discovered, once it is.
    pub fn restore_override(&mut self, key: &ServerKey, overridden: Override) {
        let of = self.pools.get(&key.backend);
        let discovers = of.is_some_and(|pool| pool.backend.discovery.is_some());
        if !self.set_override(key, overridden) && discovers {
            self.absent.gone(&key.backend, &key.server, overridden);
        }
    }

    /// The overrides of discovered servers that are away.
    pub fn absent(&self) -> impl Iterator<Item = (ServerKey, Override)> {
        self.absent.iter()
    }

    /// Replaces a server's override; [`Override::default`] clears it. Whether there is such a server.
    pub fn set_override(&mut self, key: &ServerKey, overridden: Override) -> bool {
        let Some(pool) = self.pools.get_mut(&key.backend) else {
            return false;
        };
        let Some(index) = pool.index(key.server.as_str()) else {
            return false;
        };
        Arc::make_mut(pool).servers[index].overridden = overridden;
        true
    }

    /// Forgets the override of a server that is away: one that an operator adds anew is another one.
    pub fn forget_absent(&mut self, key: &ServerKey) {
        self.absent.back(&key.backend, &key.server);
    }

    /// A backend's servers, if there is one of that name.
    #[must_use]
    pub fn get(&self, backend: &str) -> Option<&Arc<Pool>> {
        self.pools.get(backend)
    }

    /// Every backend's servers, by the backend's name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Pool>> {
        self.pools.values()
    }

    /// The services that the packet modes need of the kernel, sorted: the frontends of a configuration with these servers.
    #[must_use]
    pub fn packet_services(&self, config: &Config) -> Vec<PacketService> {
        config.packet_services_with(|backend| {
            let servers = self.get(backend.as_str()).map_or(&[][..], |pool| pool.servers());
            servers.iter().filter_map(|server| server.addr.on_network())
        })
    }
}

impl Pool {
    /// The servers of a backend's file and those of `discovered` that these leave room for, each with its override.
    fn new(
        backend: Arc<config::Backend>,
        discovered: Arc<[config::Server]>,
        mut overridden: impl FnMut(&ServerName, bool) -> Override,
    ) -> Self {
        let mut server = |server: &config::Server, is_discovered| Server {
            name: server.name.clone(),
            addr: server.addr,
            priority: server.priority,
            max_connections: server.max_connections.map(Into::into),
            sni: server.sni.as_slice().into(),
            configured_weight: server.weight,
            is_discovered,
            check_addr: server.check_addr,
            overridden: overridden(&server.name, is_discovered),
        };
        let configured = &backend.servers;
        let addresses: BTreeSet<ServerAddr> = match discovered.is_empty() {
            true => BTreeSet::new(),
            false => configured.values().map(|server| server.addr).collect(),
        };
        let is_new = |server: &&config::Server| {
            !configured.contains_key(&server.name) && !addresses.contains(&server.addr)
        };
        let mut servers: Vec<_> = configured.values().map(|s| server(s, false)).collect();
        servers.extend(discovered.iter().filter(is_new).map(|s| server(s, true)));
        servers.sort_by(|a, b| a.name.cmp(&b.name));
        Self {
            backend,
            discovered,
            servers,
        }
    }

    fn has_discovered(&self, discovered: &Arc<[config::Server]>) -> bool {
        Arc::ptr_eq(&self.discovered, discovered) || self.discovered == *discovered
    }

    /// The backend's settings.
    #[must_use]
    pub const fn backend(&self) -> &Arc<config::Backend> {
        &self.backend
    }

    /// Its servers, sorted by name.
    #[must_use]
    pub fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// A server, if there is one of that name.
    #[must_use]
    pub fn server(&self, name: &str) -> Option<&Server> {
        self.index(name).map(|index| &self.servers[index])
    }

    /// This pool if a server had another override.
    #[must_use]
    pub fn with_override(&self, server: &str, overridden: Override) -> Self {
        let mut pool = self.clone();
        if let Some(index) = pool.index(server) {
            pool.servers[index].overridden = overridden;
        }
        pool
    }

    /// The identity of one of its servers.
    #[must_use]
    pub fn key(&self, server: &Server) -> ServerKey {
        ServerKey {
            backend: self.backend.name.clone(),
            server: server.name.clone(),
        }
    }

    fn index(&self, name: &str) -> Option<usize> {
        self.servers
            .binary_search_by(|server| server.name.as_str().cmp(name))
            .ok()
    }
}

impl Server {
    /// The weight in effect.
    #[must_use]
    pub fn weight(&self) -> u16 {
        self.overridden.weight.unwrap_or(self.configured_weight)
    }
}

impl Override {
    /// Whether it sets nothing.
    #[must_use]
    pub const fn is_none(&self) -> bool {
        self.admin.is_none() && self.weight.is_none()
    }
}
