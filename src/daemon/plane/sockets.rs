//! Transparent sockets for the workers, of the broker's making.

use tokio::sync::oneshot;

use crate::{
    base::SocketKind,
    privilege::Client,
    proxy::{Batch, SocketPool},
};

/// The broker makes them.
#[derive(Debug)]
pub struct BrokerSockets(pub Client);

impl SocketPool for BrokerSockets {
    fn ask(&self, kind: SocketKind, answer: oneshot::Sender<Batch>) {
        // an answer that is dropped unsent says as much
        let _ = self.0.ask_transparent_sockets(kind, move |made| {
            let _ = answer.send(made.map_err(|error| error.to_string()));
        });
    }
}
