//! The endpoints: HTTP/JSON on a unix socket and on TCP, and 0.3.5's `/stats`, served by a thread of their own.
//!
//! ```text
//!                                ┌─► routes ─ reads ─► Status, Live ──────────────► JSON
//! client ─ unix socket ─ http ───┤
//!                       (bounds) └─► routes ─ Command ─► control loop ─ reply ─► JSON       what changes something
//! client ─ TCP ───────── http ─ auth ─► routes
//! client ─ TCP ───────── http ────────► stats ── reads ─► Status ─────────────────► JSON
//! ```
//! Whoever asks is answered from [`Status`], which the daemon publishes, and from what [`Live`] counts: never by the control
//! loop, which may have other things to do. The control socket is [`bind_socket`]'s, [`AdminThread`] serves it and
//! `/stats`, and [`render`] and [`packets`] make the views.

mod api_listener;
pub(crate) mod auth;
mod caller;
mod candidates;
mod challenges;
pub(crate) mod holder;
mod http;
pub mod lookup;
pub(crate) mod packets;
pub mod render;
mod routes;
mod shares;
mod socket;
mod stats;
pub mod status;
mod strangers;
mod thread;
pub mod views;
mod words;

pub(crate) use challenges::Answers;
pub(crate) use http::HttpListener;
pub(crate) use socket::{BindError, Owner, SocketFile, bind_socket};
pub use status::{Live, Status};
pub(crate) use thread::AdminThread;

use tokio::sync::{mpsc, oneshot};

/// What shall change, from the endpoint to the daemon's control loop.
#[derive(Debug)]
pub enum AdminCommand {
    /// Read the configuration anew and apply it.
    Reload {
        /// Even if that cuts established connections.
        cut: bool,
        /// What changed, or why nothing did.
        reply: oneshot::Sender<Result<views::Reloaded, views::ReloadFailed>>,
    },
    /// Order certificates now.
    Renew {
        /// Which; `None`: all.
        name: Option<String>,
        /// Those that are ordered, or what is wrong with the request.
        reply: oneshot::Sender<Result<Vec<String>, views::Problem>>,
    },
    /// Override a server.
    Server {
        /// Backend's name.
        backend: String,
        /// Server's name.
        server: String,
        /// What to do.
        request: views::ServerRequest,
        /// The server afterwards, or what is wrong with the request.
        reply: oneshot::Sender<Result<views::Server, views::Problem>>,
    },
}

/// Sends commands to the control loop. Bounded: when the loop is that far behind, the endpoint answers 503.
pub type Commands = mpsc::Sender<AdminCommand>;

/// What `tests/fuzz` needs besides: a connection of each endpoint, without listener and clock.
#[cfg(fuzzing)]
pub mod fuzzing {
    use std::{sync::Arc, time::Duration};

    use arc_swap::ArcSwap;
    use tokio::io::{AsyncRead, AsyncWrite};

    use super::{Commands, Live, Status, http, routes, stats};

    /// How long a connection may live, whatever its client does.
    #[must_use]
    pub fn longest() -> Duration {
        let limits = http::HttpLimits::default();
        limits.connection + limits.last_answer
    }

    /// Serves a connection of the control endpoint to its end.
    pub async fn serve_control(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        status: Arc<ArcSwap<Status>>,
        live: Arc<dyn Live>,
        commands: Commands,
    ) {
        let limits = http::HttpLimits::default();
        let control = routes::ControlRoutes::new(status, live, commands, limits);
        http::serve_connection(stream, None, routes::router(control), limits).await;
    }

    /// Serves a connection of `/stats` to its end.
    pub async fn serve_stats(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        status: Arc<ArcSwap<Status>>,
    ) {
        http::serve_connection(
            stream,
            None,
            stats::router(status, stats::Reach::Loopback),
            http::HttpLimits::default(),
        )
        .await;
    }
}

#[cfg(test)]
mod tests;
