//! `GET /stats` on TCP: the JSON of Convey 0.3.5, for the tools that read it; and `GET /metrics` beside it.
//!
//! The directions are 0.3.5's (its proxy and packet modes agree): `tx` is what clients sent and Convey
//! transmitted to servers, `rx` is what servers answered and Convey returned to clients.
//!
//! On loopback no web page may read it: one whose name its owner lets point to 127.0.0.1 (see [`auth`](super::auth)) is told by
//! its name in `Host`. There it is answered to addresses and to names without a dot, which nobody can register. On other addresses, where monitoring asks for it by whatever name the host has, every name will do.

use std::{collections::BTreeMap, net::IpAddr};

use axum::{
    Json, Router,
    extract::{Query, State},
    http::{
        HeaderMap, HeaderValue, StatusCode, Uri,
        header::{ACCEPT, HOST},
    },
    response::Response,
    routing::get,
};
use serde::{Deserialize, Serialize};

use super::{
    api::{
        answer::Answer as _,
        context::ApiContext,
        metrics::{MetricsQuery, MetricsText},
    },
    auth::{host_of, is_no_domain},
    http,
    views::Problem,
};
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

/// Who may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// This host.
    Loopback,
    /// Whoever can reach the address.
    Network,
}

impl Reach {
    /// That of an endpoint on an address.
    pub fn of(address: IpAddr) -> Self {
        if address.to_canonical().is_loopback() {
            Self::Loopback
        } else {
            Self::Network
        }
    }

    /// Whether a request for this host is answered.
    fn takes(self, host: &HeaderValue) -> bool {
        self == Self::Network || host_of(host).is_some_and(|name| is_no_domain(&name))
    }
}

#[derive(Clone)]
struct Served {
    context: ApiContext,
    reach: Reach,
}

/// The two routes.
pub(super) fn router(context: ApiContext, reach: Reach) -> Router {
    Router::new()
        .route("/stats", get(stats))
        .route("/metrics", get(metrics))
        .fallback(http::not_found)
        .method_not_allowed_fallback(http::method_not_allowed)
        .with_state(Served { context, reach })
}

async fn stats(State(served): State<Served>, headers: HeaderMap) -> Result<Json<LegacyStats>, Problem> {
    admit(served.reach, &headers)?;
    Ok(Json(LegacyStats::of(&served.context.now().snapshot)))
}

async fn metrics(State(served): State<Served>, headers: HeaderMap, uri: Uri) -> Result<Response, Problem> {
    admit(served.reach, &headers)?;
    let query = Query::<MetricsQuery>::try_from_uri(&uri)
        .map_err(|rejection| Problem::new(StatusCode::BAD_REQUEST, rejection.body_text()))?
        .0;
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
    Ok(MetricsText::new(&served.context, accept, query.scopes()?).into_response())
}

/// Refuses what a web page may have asked for.
fn admit(reach: Reach, headers: &HeaderMap) -> Result<(), Problem> {
    // browsers always name one; HTTP/1.0 and what is typed by hand need not
    let alien = headers.get_all(HOST).iter().find(|host| !reach.takes(host));
    if let Some(host) = alien {
        return Err(Problem::new(
            StatusCode::FORBIDDEN,
            format!(
                "this endpoint is on loopback and does not answer to the name {host:?}, which a web page could have: ask \
                 for localhost or an address (a proxy in front of it can send `Host: localhost`), or have it listen on \
                 another address of this host: [stats] listen_addr"
            ),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Instant};

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
    fn on_loopback_only_addresses_and_names_that_nobody_can_register_are_answered() {
        let takes = |reach: Reach, host: &str| reach.takes(&HeaderValue::from_str(host).expect("a value"));
        for host in [
            "localhost",
            "localhost:7000",
            "LOCALHOST.",
            "stats.localhost:7000",
            "127.0.0.1:7000",
            "192.0.2.1",
            "[::1]:7000",
            "[2001:db8::1]",
            "lb1:7000",
        ] {
            assert!(takes(Reach::Loopback, host), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:7000",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "evillocalhost.example.",
            "user@evil.example",
            "",
        ] {
            assert!(!takes(Reach::Loopback, host), "{host}");
            assert!(takes(Reach::Network, host), "{host}");
        }
        assert_eq!(Reach::of([127, 0, 0, 9].into()), Reach::Loopback);
        assert_eq!(
            Reach::of("::ffff:127.0.0.1".parse().expect("an address")),
            Reach::Loopback
        );
        assert_eq!(Reach::of([0, 0, 0, 0].into()), Reach::Network);
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
