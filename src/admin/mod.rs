//! The control endpoint: HTTP/JSON on a unix socket, and 0.3.5's `/stats` on TCP.

pub mod views;

use tokio::sync::{mpsc, oneshot};

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
        /// Server's name; `None` when the order was not addressed to one.
        server: String,
        /// The order.
        action: views::ServerAction,
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
}

/// Sends commands to the control loop. Bounded: when the loop is that far behind, the endpoint answers 503.
pub type Commands = mpsc::Sender<Command>;
