//! The overrides of discovered servers that are away.

use std::collections::VecDeque;

use super::Override;
use crate::base::{BackendName, ServerKey, ServerName};

/// Most of them; of more the oldest are forgotten.
const MOST: usize = 1_000;

/// See the [module](self). The one that went last is at the end.
#[derive(Debug, Clone, Default)]
pub(super) struct Absent(VecDeque<(ServerKey, Override)>);

impl Absent {
    /// A server has gone.
    pub fn gone(&mut self, backend: &BackendName, server: &ServerName, overridden: Override) {
        if overridden.is_none() {
            return;
        }
        self.back(backend, server);
        if self.0.len() >= MOST {
            self.0.pop_front();
        }
        let key = ServerKey {
            backend: backend.clone(),
            server: server.clone(),
        };
        self.0.push_back((key, overridden));
    }

    /// A server is back: its override, which is forgotten here.
    pub fn back(&mut self, backend: &BackendName, server: &ServerName) -> Override {
        let mut all = self.0.iter();
        let index = all.position(|(key, _)| key.backend == *backend && key.server == *server);
        let found = index.and_then(|index| self.0.remove(index));
        found.map(|(_, overridden)| overridden).unwrap_or_default()
    }

    /// Forgets those of other backends.
    pub fn retain(&mut self, backends: impl Fn(&BackendName) -> bool) {
        self.0.retain(|(key, _)| backends(&key.backend));
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (ServerKey, Override)> {
        self.0.iter().cloned()
    }
}
