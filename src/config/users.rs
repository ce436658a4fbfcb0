//! Which frontends use which backend: found once, asked for each backend.

use std::collections::HashMap;

use super::model::{Config, Frontend};

/// The frontends that send to each backend, by the backend's name.
#[derive(Debug)]
pub struct Users<'a>(HashMap<&'a str, Vec<&'a Frontend>>);

impl<'a> Users<'a> {
    /// Those of a configuration.
    pub fn of(config: &'a Config) -> Self {
        let mut users: HashMap<&str, Vec<&Frontend>> = HashMap::new();
        for frontend in config.frontends.values() {
            users.entry(frontend.backend.as_str()).or_default().push(frontend);
        }
        Self(users)
    }

    /// Those that send to one backend, sorted by name.
    pub fn of_backend(&self, backend: &str) -> &[&'a Frontend] {
        self.0.get(backend).map_or(&[], Vec::as_slice)
    }

    /// Whether frontends use a backend, all of them in packet modes.
    pub fn are_only_packets(&self, backend: &str) -> bool {
        let users = self.of_backend(backend);
        !users.is_empty() && users.iter().all(|frontend| frontend.mode.is_packet())
    }
}
