//! What the checks say, taken into the snapshot.

use std::time::Duration;

use tokio::{sync::mpsc, time::timeout_at};

use super::control::Control;
use crate::{
    base::{ServerKey, ServerState, TerminationReason},
    config::{self, OnDown},
    health::HealthUpdate,
    proxy::Select,
};

/// Longest wait for first results, whatever the checks' own time-outs.
const MAX_FIRST_ROUND: Duration = Duration::from_secs(10);

/// What the wait allows beyond a check's time-out: checks start spread over a moment.
const GRACE: Duration = Duration::from_millis(500);

impl Control {
    /// Waits until no server's first result is outstanding, or the longest check's time-out has passed.
    pub(super) async fn first_round(&mut self, updates: &mut mpsc::Receiver<HealthUpdate>) {
        let timeouts = self
            .config
            .backends
            .values()
            .filter_map(|b| b.health_check.as_ref())
            .map(|c| c.timeout);
        let longest = timeouts.max().unwrap_or_default() + GRACE;
        let deadline = tokio::time::Instant::now() + longest.min(MAX_FIRST_ROUND);
        while self.awaits_first_result() {
            match timeout_at(deadline, updates.recv()).await {
                Ok(Some(update)) => {
                    self.note_health(update);
                }
                Ok(None) | Err(_) => return,
            }
        }
    }

    fn awaits_first_result(&self) -> bool {
        self.inputs.health.iter().any(|(key, health)| {
            health.state == ServerState::Checking
                && self.inputs.overrides.get(key).is_none_or(|o| o.admin.is_none())
        })
    }

    /// A server's health has changed while we run.
    pub(super) fn health_changed(&mut self, update: HealthUpdate) {
        let key = update.key.clone();
        let went_down = update.changed && update.health.state == ServerState::Down;
        if !self.note_health(update) {
            return;
        }
        self.publish();
        if went_down
            && let Some((backend, server)) = self.configured(&key)
            && backend.on_down == OnDown::Close
        {
            let select = Select::Server(key.clone(), server.addr);
            self.workers.close(&select, TerminationReason::ServerDown);
        }
    }

    /// Takes an update in and logs it. False when it is about a server that is not configured any more.
    fn note_health(&mut self, update: HealthUpdate) -> bool {
        let HealthUpdate {
            key,
            addr,
            health,
            changed,
        } = update;
        let Some((_, server)) = self.configured(&key).filter(|(_, server)| server.addr == addr) else {
            return false;
        };
        let addr = server.addr;
        if changed {
            let (backend, server) = (&key.backend, &key.server);
            match health.state {
                ServerState::Down => tracing::warn!(
                    event = "server_down",
                    backend = %backend,
                    server = %server,
                    "server {key} ({addr}) is down: {}",
                    health.reason.as_deref().unwrap_or("no reason known")
                ),
                state => tracing::info!(
                    event = "server_up",
                    backend = %backend,
                    server = %server,
                    "server {key} ({addr}) is {state}"
                ),
            }
        }
        self.inputs.health.insert(key, health);
        true
    }

    fn configured(&self, key: &ServerKey) -> Option<(&config::Backend, &config::Server)> {
        let backend = self.config.backends.get(&key.backend)?;
        Some((backend, backend.servers.get(&key.server)?))
    }
}
