//! The control endpoint: HTTP/JSON on a unix socket, and 0.3.5's `/stats` on TCP.
//!
//! ```text
//! client ─ unix socket ─ http (bounds) ─ routes ─ Command ─► control loop ─ reply ─► JSON
//! client ─ TCP ───────── http (bounds) ─ stats ── reads the snapshot's counters ───► JSON
//! ```
//! Everything runs on the control thread's runtime. The socket is [`bind_socket`]'s, [`serve`] and [`serve_stats`] start
//! the endpoints, and [`render`] and [`packets`] make the views.

pub mod holder;
mod http;
pub mod lookup;
pub mod packets;
pub mod render;
mod routes;
mod socket;
mod stats;
pub mod views;

pub use http::HttpListener;
pub use routes::serve;
pub use socket::{BindError, Owner, SocketFile, bind_socket};
pub use stats::{LegacyStats, serve_stats};

use tokio::sync::{mpsc, oneshot};

use crate::flow::FiveTuple;

/// A question or an order from the endpoint to the daemon's control loop.
#[derive(Debug)]
pub enum Command {
    /// The whole state, for `convey status`.
    Status {
        /// Where the answer goes.
        reply: oneshot::Sender<views::Status>,
    },
    /// Read the configuration anew and apply it.
    Reload {
        /// What changed, or why nothing did.
        reply: oneshot::Sender<Result<views::Reloaded, views::ReloadFailed>>,
    },
    /// An operator's order about a server.
    Server {
        /// Backend's name.
        backend: String,
        /// Server's name.
        server: String,
        /// What to do.
        request: views::ServerRequest,
        /// The server afterwards, or what is wrong with the order.
        reply: oneshot::Sender<Result<views::Server, views::Problem>>,
    },
    /// The connections that are open now.
    Connections {
        /// Which, and how many at most.
        filter: views::ConnectionFilter,
        /// Where the answer goes.
        reply: oneshot::Sender<views::Connections>,
    },
    /// Where packets of a 5-tuple would go.
    Explain {
        /// The 5-tuple as the client sends it.
        tuple: FiveTuple,
        /// Where the answer goes.
        reply: oneshot::Sender<views::Explanation>,
    },
    /// What to run on a server so that it answers for a frontend in mode dsr.
    BackendScript {
        /// Frontend's name.
        frontend: String,
        /// Server's name.
        server: String,
        /// The script, or what is wrong with the question.
        reply: oneshot::Sender<Result<String, views::Problem>>,
    },
}

/// Sends commands to the control loop. Bounded: when the loop is that far behind, the endpoint answers 503.
pub type Commands = mpsc::Sender<Command>;

/// What `tests/fuzz` needs besides: a connection of each endpoint, without listener and clock.
#[cfg(fuzzing)]
pub mod fuzzing {
    use std::{sync::Arc, time::Duration};

    use arc_swap::ArcSwap;
    use tokio::io::{AsyncRead, AsyncWrite};

    use super::{Commands, http, routes, stats};
    use crate::snapshot::Snapshot;

    /// How long a connection may live, whatever its client does.
    #[must_use]
    pub fn longest() -> Duration {
        let limits = http::Limits::default();
        limits.connection + limits.last_answer
    }

    /// Serves a connection of the control endpoint to its end.
    pub async fn serve_control(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        commands: Commands,
    ) {
        let limits = http::Limits::default();
        http::serve_connection(stream, None, routes::router(commands, limits), limits).await;
    }

    /// Serves a connection of `/stats` to its end.
    pub async fn serve_stats(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        snapshot: Arc<ArcSwap<Snapshot>>,
    ) {
        http::serve_connection(stream, None, stats::router(snapshot), http::Limits::default()).await;
    }
}

#[cfg(test)]
mod tests;
