//! Which frontends use which backend: found once, asked for each backend.

use std::collections::{HashMap, HashSet};

use super::model::{Config, Frontend};
use crate::base::Protocol;

/// Most fallbacks in a row.
pub const MOST_FALLBACKS: usize = 8;

/// The frontends that send to each backend, by the backend's name: directly, by a route, or as a fallback.
#[derive(Debug)]
pub struct Users<'a>(HashMap<&'a str, Vec<&'a Frontend>>);

impl<'a> Users<'a> {
    /// Those of a configuration.
    pub fn of(config: &'a Config) -> Self {
        let mut users: HashMap<&str, Vec<&Frontend>> = HashMap::new();
        for frontend in config.frontends.values() {
            let mut known: HashSet<&str> = HashSet::new();
            for target in frontend.targets() {
                let next = |name: &&'a str| Some(config.backends.get(*name)?.fallback.as_ref()?.as_str());
                // packets know no fallback
                let most = if frontend.mode.is_packet() {
                    0
                } else {
                    MOST_FALLBACKS
                };
                let row = std::iter::successors(Some(target.as_str()), next).take(1 + most);
                for backend in row.take_while(|name| known.insert(*name)) {
                    users.entry(backend).or_default().push(frontend);
                }
            }
        }
        Self(users)
    }

    /// Those that send to one backend, sorted by name.
    pub fn of_backend(&self, backend: &str) -> &[&'a Frontend] {
        self.0.get(backend).map_or(&[], Vec::as_slice)
    }

    /// Whether frontends use a backend, all of them by UDP.
    pub fn are_only_udp(&self, backend: &str) -> bool {
        let users = self.of_backend(backend);
        !users.is_empty() && users.iter().all(|frontend| frontend.protocol == Protocol::Udp)
    }

    /// Whether a frontend in mode proxy sends UDP to a backend, and none TCP.
    pub fn are_sessions(&self, backend: &str) -> bool {
        let users = self.of_backend(backend);
        let has_connections = |user: &&Frontend| !user.mode.is_packet() && user.protocol == Protocol::Tcp;
        users.iter().any(|user| user.has_sessions()) && !users.iter().any(has_connections)
    }

    /// Whether frontends use a backend, all of them in packet modes.
    pub fn are_only_packets(&self, backend: &str) -> bool {
        let users = self.of_backend(backend);
        !users.is_empty() && users.iter().all(|frontend| frontend.mode.is_packet())
    }
}
