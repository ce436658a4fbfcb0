//! `GET /stats` on TCP: the JSON of Convey 0.3.5, for the tools that read it.
//!
//! The directions are 0.3.5's (its proxy and packet modes agree): `tx` is what clients sent and Convey
//! transmitted to servers, `rx` is what servers answered and Convey returned to clients.

use std::{collections::BTreeMap, sync::Arc};

use arc_swap::ArcSwap;
use axum::{Json, Router, extract::State, routing::get};
use serde::{Deserialize, Serialize};

use super::{http, status::Status};
use crate::{
    base::ServerState,
    snapshot::{Snapshot, live::Totals},
};

/// `GET /stats`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LegacyStats {
    /// Connections accepted by the frontends.
    pub total_connections: u64,
    /// Connections open now.
    pub current_connections: u64,
    /// Bytes from clients to servers.
    pub total_bytes_tx: u64,
    /// Bytes from servers to clients.
    pub total_bytes_rx: u64,
    /// By name.
    pub backends: BTreeMap<String, LegacyBackend>,
    /// By name.
    pub frontends: BTreeMap<String, LegacyCounts>,
}

/// Counters of a frontend or backend.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LegacyCounts {
    /// Connections since start.
    pub total_connections: u64,
    /// Connections open now.
    pub current_connections: u64,
    /// Bytes from clients to servers.
    pub bytes_tx: u64,
    /// Bytes from servers to clients.
    pub bytes_rx: u64,
}

/// A backend.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LegacyBackend {
    /// Its counters, in the same object.
    #[serde(flatten)]
    pub counts: LegacyCounts,
    /// Whether each server, by `ip:port`, is up.
    pub servers: BTreeMap<String, bool>,
}

impl From<Totals> for LegacyCounts {
    fn from(totals: Totals) -> Self {
        Self {
            total_connections: totals.opened,
            current_connections: totals.current,
            bytes_tx: totals.bytes_in,
            bytes_rx: totals.bytes_out,
        }
    }
}

impl LegacyStats {
    /// The counters of everything in a snapshot.
    #[must_use]
    pub fn of(snapshot: &Snapshot) -> Self {
        let mut stats = Self::default();
        for (name, frontend) in &snapshot.frontends {
            let counts = LegacyCounts::from(frontend.live.counters.totals());
            stats.total_connections += counts.total_connections;
            stats.current_connections += counts.current_connections;
            stats.total_bytes_tx += counts.bytes_tx;
            stats.total_bytes_rx += counts.bytes_rx;
            stats.frontends.insert(name.to_string(), counts);
        }
        for (name, backend) in &snapshot.backends {
            let mut servers = BTreeMap::new();
            for server in &backend.servers {
                // two names for one address: it is up if either is
                *servers.entry(server.addr.to_string()).or_default() |= server.state == ServerState::Up;
            }
            let counts = LegacyCounts::from(backend.live.counters.totals());
            stats
                .backends
                .insert(name.to_string(), LegacyBackend { counts, servers });
        }
        stats
    }
}

/// The one route.
pub(super) fn router(published: Arc<ArcSwap<Status>>) -> Router {
    Router::new()
        .route("/stats", get(stats))
        .fallback(http::not_found)
        .method_not_allowed_fallback(http::method_not_allowed)
        .with_state(published)
}

async fn stats(State(published): State<Arc<ArcSwap<Status>>>) -> Json<LegacyStats> {
    Json(LegacyStats::of(&published.load().snapshot))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::{admin::render::tests::site, base::WorkerId};

    fn snapshot_with_traffic() -> Arc<Snapshot> {
        let snapshot = site(Instant::now());
        let frontend = snapshot.frontends["http"].live.counters.shard(WorkerId(0));
        let backend = snapshot.backends["web"].live.counters.shard(WorkerId(1));
        for shard in [frontend, backend] {
            shard.opened.add(3);
            shard.closed.add(1);
            shard.bytes_in.add(100);
            shard.bytes_out.add(2000);
        }
        snapshot
    }

    #[test]
    fn the_json_is_that_of_0_3_5() {
        let stats = serde_json::to_value(LegacyStats::of(&snapshot_with_traffic())).expect("JSON");
        assert_eq!(
            stats,
            serde_json::json!({
                "total_connections": 3,
                "current_connections": 2,
                "total_bytes_tx": 100,
                "total_bytes_rx": 2000,
                "backends": {
                    "web": {
                        "total_connections": 3,
                        "current_connections": 2,
                        "bytes_tx": 100,
                        "bytes_rx": 2000,
                        "servers": { "192.0.2.1:80": true, "192.0.2.2:80": false, "192.0.2.3:80": true },
                    },
                },
                "frontends": {
                    "http": { "total_connections": 3, "current_connections": 2, "bytes_tx": 100, "bytes_rx": 2000 },
                },
            })
        );
    }
}
