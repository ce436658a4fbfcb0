//! `GET /stats` on TCP: the JSON of Convey 0.3.5, for the tools that read it.
//!
//! The directions are 0.3.5's (its proxy and packet modes agree): `tx` is what clients sent and Convey
//! transmitted to servers, `rx` is what servers answered and Convey returned to clients.

use std::{collections::BTreeMap, io, net::TcpListener as StdTcpListener, sync::Arc};

use arc_swap::ArcSwap;
use axum::{Json, Router, extract::State, routing::get};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use super::http::{self, Endpoint, Limits};
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

/// Serves `/stats` on a listener (the broker's), from tasks of the current runtime, until the endpoint is dropped.
///
/// # Errors
/// The runtime cannot take the listener.
pub fn serve_stats(listener: StdTcpListener, snapshot: Arc<ArcSwap<Snapshot>>) -> io::Result<Endpoint> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let router = Router::new()
        .route("/stats", get(stats))
        .fallback(http::not_found)
        .method_not_allowed_fallback(http::method_not_allowed)
        .with_state(snapshot);
    Ok(http::serve(listener, router, Limits::default()))
}

async fn stats(State(snapshot): State<Arc<ArcSwap<Snapshot>>>) -> Json<LegacyStats> {
    Json(LegacyStats::of(&snapshot.load()))
}
