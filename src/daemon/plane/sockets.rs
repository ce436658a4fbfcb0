//! Sockets towards servers, of the broker's making: for the workers, and for health checks.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

use crate::{
    base::SocketKind,
    health::CheckSockets,
    privilege::Client,
    proxy::{Batch, SocketPool},
};

/// The broker makes them.
#[derive(Debug, Clone)]
pub struct BrokerSockets {
    broker: Client,
    /// For checks: what is left of a batch of each kind.
    stock: Arc<Mutex<BTreeMap<SocketKind, Vec<OwnedFd>>>>,
}

impl BrokerSockets {
    /// None in stock.
    #[must_use]
    pub fn new(broker: Client) -> Self {
        Self {
            broker,
            stock: Arc::default(),
        }
    }

    /// Closes what checks have in stock of other kinds.
    pub fn keep_for_checks(&self, kinds: &BTreeSet<SocketKind>) {
        self.stock().retain(|kind, _| kinds.contains(kind));
    }

    fn stock(&self) -> MutexGuard<'_, BTreeMap<SocketKind, Vec<OwnedFd>>> {
        self.stock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SocketPool for BrokerSockets {
    fn ask(&self, kind: SocketKind, answer: oneshot::Sender<Batch>) {
        // an answer that is dropped unsent says as much
        let _ = self.broker.ask_server_sockets(kind, move |made| {
            let _ = answer.send(made.map_err(|error| error.to_string()));
        });
    }
}

impl CheckSockets for BrokerSockets {
    fn ask(&self, kind: SocketKind, answer: oneshot::Sender<Result<OwnedFd, String>>) {
        let in_stock = self.stock().get_mut(&kind).and_then(Vec::pop);
        if let Some(socket) = in_stock {
            let _ = answer.send(Ok(socket));
            return;
        }
        let this = self.clone();
        let _ = self.broker.ask_server_sockets(kind, move |made| {
            let _ = answer.send(made.map_err(|error| error.to_string()).and_then(|mut sockets| {
                let one = sockets.pop().ok_or_else(|| "the broker made none".to_owned());
                // of several batches that were under way one stays
                this.stock().insert(kind, sockets);
                one
            }));
        });
    }
}
