//! The endpoints: HTTP/JSON on a unix socket and on TCP, and 0.3.5's `/stats`, served by a thread of their own.
//!
//! ```text
//!                                ┌─► api ──── reads ─► Status, Live ──────────────► JSON
//! client ─ unix socket ─ http ───┤
//!                       (bounds) └─► api ──── Command ─► control loop ─ reply ─► JSON       what changes something
//! client ─ TCP ───────── http ─ auth ─► api
//! client ─ TCP ───────── http ────────► stats ── reads ─► Status ─────────────────► JSON
//! ```
//! Whoever asks is answered from [`Status`], which the daemon publishes, and from what [`Live`] counts: never by the control
//! loop, which may have other things to do. The control socket is [`bind_socket`]'s, [`AdminThread`] serves it and
//! `/stats`, and [`render`] and [`packets`] make the views.

mod admission;
mod api;
mod api_listener;
pub(crate) mod auth;
mod caller;
mod candidates;
mod challenges;
mod events;
pub(crate) mod holder;
mod http;
pub mod lookup;
mod metrics;
pub(crate) mod packets;
mod page;
pub mod render;
mod shares;
mod socket;
mod stats;
pub mod status;
mod strangers;
mod thread;
pub mod views;
mod words;

pub(crate) use challenges::Answers;
pub use events::{EventLog, EventRecord, Level};
pub(crate) use http::HttpListener;
#[cfg(feature = "otlp")]
pub(crate) use metrics::Parts;
pub(crate) use socket::{BindError, Owner, SocketFile, bind_socket};
pub use status::{Live, Status};
pub(crate) use thread::AdminThread;

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::config::Config;

/// What shall change, from the endpoint to the daemon's control loop.
#[derive(Debug)]
pub enum AdminCommand {
    /// Read the configuration anew and apply it.
    Reload {
        /// Even if that cuts established connections.
        cut: bool,
        /// Who asks, for the history.
        by: String,
        /// What changed, or why nothing did.
        reply: oneshot::Sender<Result<views::Reloaded, views::ReloadFailed>>,
    },
    /// Count what a configuration would cut.
    CountCut {
        /// The configuration.
        config: Arc<Config>,
        /// What it would cut.
        reply: oneshot::Sender<views::WouldCut>,
    },
    /// Replace the configuration file.
    WriteConfig {
        /// The new text.
        text: Vec<u8>,
        /// What the file has now; `None`: the text in effect.
        replaces: Option<Vec<u8>>,
        /// The entity tag of the text in effect, as the asker has seen it.
        expected: String,
        /// Done, or why not.
        reply: oneshot::Sender<Result<(), views::Problem>>,
    },
    /// Add a server to a backend whose servers operators name.
    AddServer {
        /// The backend's name.
        backend: String,
        /// The server.
        server: views::NewServer,
        /// Who asks, for the log.
        by: String,
        /// The server's name, and whether it is there already; or what is wrong with the request.
        reply: oneshot::Sender<Result<views::AddedServer, views::Problem>>,
    },
    /// Remove a server that was added so.
    RemoveServer {
        /// The backend's name.
        backend: String,
        /// The server's name.
        server: String,
        /// Who asks, for the log.
        by: String,
        /// Done, or what is wrong with the request.
        reply: oneshot::Sender<Result<views::AddedServer, views::Problem>>,
    },
    /// Order certificates now.
    Renew {
        /// Which; `None`: all.
        name: Option<String>,
        /// Those that are ordered, or what is wrong with the request.
        reply: oneshot::Sender<Result<Vec<String>, views::Problem>>,
    },
    /// Clear every override.
    ClearOverrides {
        /// Who asks, for the log.
        by: String,
        /// Those that were cleared.
        reply: oneshot::Sender<views::Overrides>,
    },
    /// Override all servers of a backend.
    Backend {
        /// Its name.
        backend: String,
        /// What to do.
        request: views::ServerRequest,
        /// Who asks, for the log.
        by: String,
        /// The backend afterwards, or what is wrong with the request.
        reply: oneshot::Sender<Result<views::Backend, views::Problem>>,
    },
    /// Override a server.
    Server {
        /// Backend's name.
        backend: String,
        /// Server's name.
        server: String,
        /// What to do.
        request: views::ServerRequest,
        /// Who asks, for the log.
        by: String,
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

    use super::{Commands, Live, Status, api, caller, http, stats};

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
        let context = api::context::ApiContext::new(status, live, commands, limits);
        http::serve_connection(
            stream,
            Some(caller::Caller::Local(None)),
            api::router(context),
            limits,
        )
        .await;
    }

    /// Serves a connection of `/stats` to its end.
    pub async fn serve_stats(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        status: Arc<ArcSwap<Status>>,
        live: Arc<dyn Live>,
    ) {
        http::serve_connection(
            stream,
            None,
            {
                // nothing is commanded here
                let (commands, _) = tokio::sync::mpsc::channel(1);
                let limits = http::HttpLimits::default();
                let context = api::context::ApiContext::new(status, live, commands, limits);
                stats::router(context, stats::Reach::Loopback)
            },
            http::HttpLimits::default(),
        )
        .await;
    }
}

#[cfg(test)]
mod tests;
