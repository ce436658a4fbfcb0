//! What the checks say, taken into the snapshot.

use std::{pin::pin, time::Duration};

use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};

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
    /// At the start: waits until every check has had its first result, or the longest time-out has passed.
    pub(super) async fn first_round(&mut self, updates: &mut mpsc::Receiver<HealthUpdate>) {
        let mut round = pin!(timeout_at(self.longest_check(), self.checker.first_round()));
        loop {
            tokio::select! {
                // results first: what the end of the round announces is in the channel by then
                biased;
                Some(update) = updates.recv() => {
                    self.note_health(update);
                }
                _ = &mut round => return,
            }
        }
    }

    /// At a reload: waits until every backend has a server up, or has heard from all. A new server in a backend that
    /// works without it is not waited for.
    pub(super) async fn servers_to_use(&mut self, updates: &mut mpsc::Receiver<HealthUpdate>) {
        let deadline = self.longest_check();
        while self.lacks_a_server() {
            match timeout_at(deadline, updates.recv()).await {
                Ok(Some(update)) => {
                    self.note_health(update);
                }
                Ok(None) | Err(_) => return,
            }
        }
    }

    /// When the slowest check that starts now has had its time.
    fn longest_check(&self) -> Instant {
        let checks = self
            .config
            .backends
            .values()
            .filter_map(|b| b.health_check.as_ref());
        let longest = checks.map(|c| c.timeout).max().unwrap_or_default() + GRACE;
        Instant::now() + longest.min(MAX_FIRST_ROUND)
    }

    fn lacks_a_server(&self) -> bool {
        let mut backends = self.config.backends.values();
        backends.any(|b| !self.has_server_up(b) && self.awaits_first_result(b))
    }

    fn has_server_up(&self, backend: &config::Backend) -> bool {
        self.states(backend)
            .any(|(state, admin)| state == ServerState::Up && !admin)
    }

    fn awaits_first_result(&self, backend: &config::Backend) -> bool {
        self.states(backend)
            .any(|(state, admin)| state == ServerState::Checking && !admin)
    }

    /// The health of a backend's servers, and whether the operator has taken them out.
    fn states(&self, backend: &config::Backend) -> impl Iterator<Item = (ServerState, bool)> {
        backend.servers.keys().filter_map(|server| {
            let key = ServerKey {
                backend: backend.name.clone(),
                server: server.clone(),
            };
            let health = self.inputs.health.get(&key)?;
            let taken_out = self.inputs.overrides.get(&key).is_some_and(|o| o.admin.is_some());
            Some((health.state, taken_out))
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

    /// Takes an update in and logs it. False when it is about a server that is not checked any more.
    fn note_health(&mut self, update: HealthUpdate) -> bool {
        if !self.checker.is_current(&update) {
            return false;
        }
        let HealthUpdate {
            key,
            addr,
            health,
            changed,
        } = update;
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
