//! Which servers there are: the configuration's, with what an operator has overridden at run time.
//!
//! ```text
//! configuration ─► apply ─────────┐
//!                                 ├─► Pools: a Pool for each backend ─► snapshot · checks · packet services · scripts
//! operator ─────► set_override ───┘          └─ names the backends that changed
//! ```
//! Everything in the daemon that asks "which servers?" asks here. The broker does not: its policy is the file.
//!
//! A [`Pool`] is immutable and shared. Each change returns the names of the backends whose pools are others than before;
//! every other pool stays the same [`Arc`], so that whoever derives something from pools derives it for those alone.
//! An override outlives every change of its server's configuration, and goes with the server. It outlives the process too,
//! as [`Saved`].

mod saved;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    base::{BackendName, HostPattern, ServerAddr, ServerKey, ServerName},
    config::{self, Config, PacketService},
};
pub(crate) use saved::{MAX_FILE_BYTES, MAX_OVERRIDES, Saved, SavedOverride};

/// The servers of every backend.
#[derive(Debug, Clone, Default)]
pub struct Pools {
    pools: BTreeMap<BackendName, Arc<Pool>>,
}

/// The servers of one backend.
#[derive(Debug, Clone)]
pub struct Pool {
    backend: Arc<config::Backend>,
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
    /// A backend whose configuration is the same [`Arc`] costs one comparison ([`Config::keep`] makes it so).
    pub fn apply(&mut self, config: &Config) -> Vec<BackendName> {
        let mut changed: Vec<_> = (self.pools.keys())
            .filter(|name| !config.backends.contains_key(*name))
            .cloned()
            .collect();
        for name in &changed {
            self.pools.remove(name);
        }
        for (name, backend) in &config.backends {
            let before = self.pools.get(name);
            if before.is_some_and(|pool| Arc::ptr_eq(&pool.backend, backend)) {
                continue;
            }
            let pool = Pool::new(Arc::clone(backend), before.map(Arc::as_ref));
            self.pools.insert(name.clone(), Arc::new(pool));
            changed.push(name.clone());
        }
        changed
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
    fn new(backend: Arc<config::Backend>, before: Option<&Self>) -> Self {
        let servers = (backend.servers.values())
            .map(|server| Server {
                name: server.name.clone(),
                addr: server.addr,
                priority: server.priority,
                max_connections: server.max_connections.map(Into::into),
                sni: server.sni.as_slice().into(),
                configured_weight: server.weight,
                overridden: (before.and_then(|pool| pool.server(server.name.as_str())))
                    .map(|before| before.overridden)
                    .unwrap_or_default(),
            })
            .collect();
        Self { backend, servers }
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
