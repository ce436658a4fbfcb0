//! Which frontends, backends and servers have lasting parts.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Weak},
};

use super::live::{BackendStats, FrontendStats, ServerStats};
use crate::{
    base::{BackendName, FrontendName, ServerAddr, ServerName},
    pools::Server,
};

/// The lasting parts by name. Snapshots and connections own them: what is removed goes on counting while a connection holds
/// it, and is found again when it comes back meanwhile.
#[derive(Debug, Default)]
pub struct StatsSet {
    workers: usize,
    frontends: HashMap<FrontendName, Weak<FrontendStats>>,
    backends: HashMap<BackendName, Weak<BackendStats>>,
    /// Keyed by address too: a server that moves to another address is another server.
    servers: HashMap<BackendName, HashMap<(ServerName, ServerAddr), Weak<ServerStats>>>,
    /// Those of discovered servers that are away, for they may come back; the one that went last is at the end.
    away: VecDeque<Arc<ServerStats>>,
}

/// Most discovered servers that are away and whose counters are kept, some 1 KB for each worker; of more the oldest are
/// forgotten.
const MOST_AWAY: usize = 1_000;

impl StatsSet {
    /// An empty set for so many workers.
    pub fn new(workers: usize) -> Self {
        Self {
            workers,
            ..Self::default()
        }
    }

    /// A frontend's.
    pub fn frontend(&mut self, name: &FrontendName) -> Arc<FrontendStats> {
        let weak = self.frontends.entry(name.clone()).or_default();
        shared(weak, || FrontendStats::new(self.workers))
    }

    /// A backend's.
    pub fn backend(&mut self, name: &BackendName) -> Arc<BackendStats> {
        let weak = self.backends.entry(name.clone()).or_default();
        shared(weak, || BackendStats::new(self.workers))
    }

    /// A server's.
    pub fn server(&mut self, backend: &BackendName, server: &Server) -> Arc<ServerStats> {
        let servers = match self.servers.get_mut(backend) {
            Some(servers) => servers,
            None => self.servers.entry(backend.clone()).or_default(),
        };
        let weak = servers.entry((server.name.clone(), server.addr)).or_default();
        shared(weak, || ServerStats::new(self.workers))
    }

    /// Discovered servers of a backend have gone: their counters are kept for a while. What nobody holds of the backend's
    /// others is forgotten.
    pub fn gone(&mut self, backend: &BackendName, gone: impl Iterator<Item = Arc<ServerStats>>) {
        for stats in gone {
            // it was away before, and back meanwhile
            self.away.retain(|away| !Arc::ptr_eq(away, &stats));
            if self.away.len() >= MOST_AWAY {
                self.away.pop_front();
            }
            self.away.push_back(stats);
        }
        if let Some(servers) = self.servers.get_mut(backend) {
            servers.retain(|_, weak| weak.strong_count() > 0);
        }
    }

    /// Forgets what nobody holds any more.
    pub fn forget_unused(&mut self) {
        fn is_held<T>(weak: &Weak<T>) -> bool {
            weak.strong_count() > 0
        }
        self.frontends.retain(|_, weak| is_held(weak));
        self.backends.retain(|_, weak| is_held(weak));
        self.servers.retain(|_, servers| {
            servers.retain(|_, weak| is_held(weak));
            !servers.is_empty()
        });
    }
}

fn shared<T>(weak: &mut Weak<T>, make: impl FnOnce() -> Arc<T>) -> Arc<T> {
    weak.upgrade().unwrap_or_else(|| {
        let new = make();
        *weak = Arc::downgrade(&new);
        new
    })
}
