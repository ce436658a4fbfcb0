//! The `/stats` endpoint: its socket is prepared, then served in the place of the one before.

use std::net::TcpListener;

use crate::{
    admin::{AdminThread, HttpListener},
    base::Endpoint,
    config::Config,
    privilege::{BrokerError, Client, ListenerRef},
};

/// What becomes of the endpoint. Dropping it ends one that was prepared.
#[derive(Debug)]
pub enum StatsChange {
    /// It stays as it is.
    Keep,
    /// It is served on another address, or no longer.
    To(Option<(Endpoint, HttpListener)>),
}

/// What it is to be served on; `None` nowhere.
pub type StatsSocket = Option<(Endpoint, TcpListener)>;

/// Where it is served.
#[derive(Debug, Default)]
pub struct Stats(Option<(Endpoint, HttpListener)>);

impl Stats {
    /// What it is to be served on from now on, if that is another address than now.
    pub fn missing(&self, config: &Config) -> Option<Option<Endpoint>> {
        let wanted = config.stats.as_ref().map(|stats| Endpoint::tcp(stats.listen.0));
        (wanted != self.0.as_ref().map(|(endpoint, _)| *endpoint)).then_some(wanted)
    }

    /// Puts what was prepared in the place of what is.
    pub fn swap(&mut self, change: StatsChange) {
        if let StatsChange::To(served) = change {
            self.0 = served;
        }
    }
}

/// Makes the socket, if it is to be another.
///
/// # Errors
/// It cannot be bound.
pub async fn bind_stats(
    wanted: Option<Option<Endpoint>>,
    broker: &Client,
) -> Result<Option<StatsSocket>, BrokerError> {
    Ok(match wanted {
        None => None,
        Some(None) => Some(None),
        Some(Some(endpoint)) => {
            let socket = broker.bind(ListenerRef::Stats).await?;
            Some(Some((endpoint, TcpListener::from(socket))))
        }
    })
}

/// Serves it on a socket, if there is one.
///
/// # Errors
/// The thread of the endpoints cannot take it.
pub fn serve_stats(socket: Option<StatsSocket>, endpoints: &AdminThread) -> Result<StatsChange, BrokerError> {
    let (endpoint, socket) = match socket {
        None => return Ok(StatsChange::Keep),
        Some(None) => return Ok(StatsChange::To(None)),
        Some(Some(socket)) => socket,
    };
    let served = endpoints
        .serve_stats(socket)
        .map_err(|source| BrokerError::Failed {
            step: format!("serve /stats on {}", endpoint.addr),
            source,
        })?;
    Ok(StatsChange::To(Some((endpoint, served))))
}
