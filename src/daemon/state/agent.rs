//! What servers' agents say, in the log.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::{base::ServerKey, snapshot::AgentSays};

/// How soon something is said again of an agent that cannot be asked or understood: it may be otherwise each time.
const SAID_AGAIN: Duration = Duration::from_secs(60);

/// Servers of which that is remembered; of more it is said each time.
const MOST: usize = 10_000;

/// When something was last said of agents that cannot be asked.
#[derive(Debug, Default)]
pub(super) struct AgentLog(HashMap<ServerKey, Instant>);

impl AgentLog {
    /// Says what is not as before. Weights and limits, which may follow a server's load, are for debugging.
    pub(super) fn note(
        &mut self,
        key: &ServerKey,
        before: Option<&AgentSays>,
        says: &AgentSays,
        now: Instant,
    ) {
        let silent = AgentSays::default();
        let before = before.unwrap_or(&silent);
        let (backend, server) = (&key.backend, &key.server);
        if before.admin != says.admin {
            // it may also be asked no more
            let what = match says.admin {
                None => "what its agent said of draining or maintenance has ended".to_owned(),
                Some(_) => format!("its agent says {says}"),
            };
            tracing::info!(
                event = "agent",
                backend = %backend,
                server = %server,
                "server {key}: {what}"
            );
        } else if (before.weight_percent, before.max_connections)
            != (says.weight_percent, says.max_connections)
        {
            tracing::debug!(
                event = "agent",
                backend = %backend,
                server = %server,
                "server {key}: its agent says {says}"
            );
        }
        match (&before.problem, &says.problem) {
            (None, Some(why)) if self.is_due(key, now) => tracing::warn!(
                event = "agent_lost",
                backend = %backend,
                server = %server,
                "server {key}: agent: {why}; what the server gets stays as it is"
            ),
            (Some(_), None) => tracing::debug!(
                event = "agent_back",
                backend = %backend,
                server = %server,
                "server {key}: its agent answers"
            ),
            _ => {}
        }
    }

    fn is_due(&mut self, key: &ServerKey, now: Instant) -> bool {
        let is_due = |said: &Instant| now.saturating_duration_since(*said) >= SAID_AGAIN;
        if self.0.get(key).is_some_and(|said| !is_due(said)) {
            return false;
        }
        if self.0.len() >= MOST {
            self.0.retain(|_, said| !is_due(said));
        }
        if self.0.len() < MOST {
            self.0.insert(key.clone(), now);
        }
        true
    }
}
