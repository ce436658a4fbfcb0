//! Discovered servers, taken into the state.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Instant};

use super::State;
use crate::{
    base::{BackendName, ServerAddr, ServerKey, ServerState},
    config,
    health::Trial,
    pools::{Pool, Server},
};

/// Servers that one log line names.
const NAMED: usize = 10;

impl State {
    /// Takes what was discovered for a backend, from the next snapshot on; new servers are checked. Whether its servers are
    /// others than before, which is said.
    ///
    /// To be called within the runtime.
    pub fn discovered(
        &mut self,
        backend: &BackendName,
        servers: Arc<[config::Server]>,
        now: Instant,
    ) -> bool {
        let before = self.pools.get(backend.as_str()).cloned();
        if !self.pools.discover(&self.config, backend, servers) {
            return false;
        }
        say(
            before.as_deref(),
            self.pools.get(backend.as_str()).map(Arc::as_ref),
        );
        let trial = match before.is_some_and(|before| self.would_be_emptied(&before, now)) {
            true => self.checker.presume_up(&self.pools, backend),
            false => Trial::default(),
        };
        let known = self.checker.apply(&self.pools, [backend], trial);
        self.take(known);
        self.builder.pool_changed(backend);
        self.coalescer.want(now);
        true
    }
}

impl State {
    /// Forgets the override of a server that is away.
    pub fn forget_absent_override(&mut self, key: &ServerKey) {
        self.pools.forget_absent(key);
    }

    /// Whether a backend that had eligible servers has none now that stays one: it would refuse everybody until the first
    /// checks of those that have come.
    fn would_be_emptied(&self, before: &Pool, now: Instant) -> bool {
        let Some(after) = self.pools.get(before.backend().name.as_str()) else {
            return false;
        };
        let stays_up = |server: &Server| {
            let same = after
                .server(server.name.as_str())
                .filter(|same| same.addr == server.addr);
            let health = self.builder.health(&before.key(server));
            same.is_some_and(|same| same.overridden.admin.is_none() && same.weight() > 0)
                && health.is_none_or(|health| health.state == ServerState::Up)
        };
        !before.servers().iter().any(stays_up) && self.builder.eligible(before, now) > 0
    }
}

/// Says which servers came and went by discovery, if any did.
pub(super) fn say(before: Option<&Pool>, after: Option<&Pool>) {
    let Some(pool) = after else { return };
    let of = |pool: Option<&Pool>| -> BTreeMap<ServerAddr, Server> {
        let servers = pool.map_or(&[][..], Pool::servers);
        let discovered = servers.iter().filter(|server| server.is_discovered);
        discovered.map(|server| (server.addr, server.clone())).collect()
    };
    let (before, after) = (of(before), of(Some(pool)));
    let added: Vec<_> = after
        .iter()
        .filter(|(addr, _)| !before.contains_key(addr))
        .collect();
    let removed: Vec<_> = before
        .iter()
        .filter(|(addr, _)| !after.contains_key(addr))
        .collect();
    if before == after {
        return;
    }
    let backend = &pool.backend().name;
    tracing::info!(
        event = "discovery_changed",
        backend = %backend,
        added = added.len(),
        removed = removed.len(),
        servers = after.len(),
        "backend {backend}: {} server(s) discovered{}{}",
        after.len(),
        Named("new", &added),
        Named("gone", &removed),
    );
}

/// Servers of a kind, the first of them by name; nothing if there is none.
struct Named<'a>(&'static str, &'a [(&'a ServerAddr, &'a Server)]);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(kind, servers) = self;
        if servers.is_empty() {
            return Ok(());
        }
        write!(f, "; {} {kind}: ", servers.len())?;
        for (index, (addr, server)) in servers.iter().take(NAMED).enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{}", server.name)?;
            if server.name.as_str() != addr.to_string() {
                write!(f, " ({addr})")?;
            }
        }
        match servers.len().saturating_sub(NAMED) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}
