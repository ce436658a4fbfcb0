//! What servers' agents say, in the log.

use crate::{base::ServerKey, snapshot::AgentSays};

/// Says what is not as before.
pub(super) fn say(key: &ServerKey, before: Option<&AgentSays>, now: &AgentSays) {
    let silent = AgentSays::default();
    let before = before.unwrap_or(&silent);
    if before == now {
        return;
    }
    let (backend, server) = (&key.backend, &key.server);
    let orders = |says: &AgentSays| (says.admin, says.weight_percent, says.max_connections);
    if orders(before) != orders(now) {
        tracing::info!(
            event = "agent",
            backend = %backend,
            server = %server,
            "server {key}: its agent says {now}"
        );
    }
    match (&before.problem, &now.problem) {
        (None, Some(why)) => tracing::warn!(
            event = "agent_lost",
            backend = %backend,
            server = %server,
            "server {key}: agent: {why}; what it said before stays in effect"
        ),
        (Some(_), None) => tracing::info!(
            event = "agent_back",
            backend = %backend,
            server = %server,
            "server {key}: its agent answers"
        ),
        _ => {}
    }
}
