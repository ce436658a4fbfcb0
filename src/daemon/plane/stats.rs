//! The listeners of the admin thread on the network, `/stats`, the admin API and the one where CAs ask by HTTP: their sockets are prepared, then
//! served in the place of those before.

use std::{net::TcpListener, sync::Arc};

use arc_swap::ArcSwap;

use crate::{
    acme::HttpTokens,
    admin::{AdminThread, Answers, HttpListener, auth::ApiAccess},
    base::Endpoint,
    config::Config,
    privilege::{BrokerError, Client, ListenerRef},
};

/// What becomes of them. Dropping it ends those that were prepared.
#[derive(Debug)]
pub struct StatsChange {
    stats: Change,
    challenges: Change,
    /// With what it goes by, which it does from the first connection on.
    api: Option<Option<ServedApi>>,
}

/// The admin API.
#[derive(Debug)]
struct ServedApi {
    endpoint: Endpoint,
    listener: HttpListener,
    access: Arc<ArcSwap<ApiAccess>>,
}

/// What becomes of one.
#[derive(Debug)]
enum Change {
    /// It stays as it is.
    Keep,
    /// It is served on another address, or no longer.
    To(Served),
}

/// Where one is served, if it is.
type Served = Option<(Endpoint, HttpListener)>;

/// What each is to be served on, if that is another address than now: `Some(None)` nowhere.
#[derive(Debug, Clone, Copy)]
pub struct MissingStats {
    stats: Option<Option<Endpoint>>,
    challenges: Option<Option<Endpoint>>,
    api: Option<Option<Endpoint>>,
}

/// What each is to be served on.
#[derive(Debug)]
pub struct StatsSockets {
    stats: Option<Option<(Endpoint, TcpListener)>>,
    challenges: Option<Option<(Endpoint, TcpListener)>>,
    api: Option<Option<(Endpoint, TcpListener)>>,
}

/// Where they are served.
#[derive(Debug, Default)]
pub struct Stats {
    stats: Served,
    challenges: Served,
    api: Option<ServedApi>,
}

impl Stats {
    /// What they are to be served on from now on.
    pub fn missing(&self, config: &Config) -> MissingStats {
        let other = |wanted: Option<Endpoint>, served: Option<Endpoint>| (wanted != served).then_some(wanted);
        let served = |served: &Served| served.as_ref().map(|(endpoint, _)| *endpoint);
        let stats = config.stats.as_ref().map(|stats| Endpoint::tcp(stats.listen.0));
        let challenges = config.acme_http().map(|listen| Endpoint::tcp(listen.0));
        let api = (config.admin.api.as_ref()).map(|api| Endpoint::tcp(api.listen.0));
        MissingStats {
            stats: other(stats, served(&self.stats)),
            challenges: other(challenges, served(&self.challenges)),
            api: other(api, self.api.as_ref().map(|api| api.endpoint)),
        }
    }

    /// Puts what was prepared in the place of what is; the admin API goes by `access` from now on.
    pub fn swap(&mut self, change: StatsChange, access: Option<&Arc<ApiAccess>>) {
        match (change.api, &self.api, access) {
            // whoever asked for this through it gets the answer
            (Some(api), ..) => {
                if let Some(before) = std::mem::replace(&mut self.api, api) {
                    before.listener.retire();
                }
            }
            (None, Some(api), Some(access)) => api.access.store(Arc::clone(access)),
            (None, ..) => {}
        }
        if let Change::To(served) = change.stats {
            self.stats = served;
        }
        if let Change::To(served) = change.challenges {
            self.challenges = served;
        }
    }
}

/// Makes the sockets of those that are to have others.
///
/// # Errors
/// One cannot be bound.
pub async fn bind_stats(wanted: MissingStats, broker: &Client) -> Result<StatsSockets, BrokerError> {
    Ok(StatsSockets {
        stats: bind(wanted.stats, ListenerRef::Stats, broker).await?,
        challenges: bind(wanted.challenges, ListenerRef::AcmeHttp, broker).await?,
        api: bind(wanted.api, ListenerRef::AdminApi, broker).await?,
    })
}

async fn bind(
    wanted: Option<Option<Endpoint>>,
    listener: ListenerRef,
    broker: &Client,
) -> Result<Option<Option<(Endpoint, TcpListener)>>, BrokerError> {
    Ok(match wanted {
        None => None,
        Some(None) => Some(None),
        Some(Some(endpoint)) => Some(Some((endpoint, TcpListener::from(broker.bind(listener).await?)))),
    })
}

/// Serves them on their sockets, those that have others, the admin API to whom `access` lets in.
///
/// # Errors
/// The thread of the endpoints cannot take one.
pub fn serve_stats(
    sockets: StatsSockets,
    endpoints: &AdminThread,
    tokens: &Arc<HttpTokens>,
    access: Option<&Arc<ApiAccess>>,
) -> Result<StatsChange, BrokerError> {
    let stats = serve(sockets.stats, "/stats", |socket| endpoints.serve_stats(socket))?;
    let challenges = serve(sockets.challenges, "http_listen_addr", |socket| {
        let tokens = Arc::clone(tokens);
        endpoints.serve_challenges(socket, Answers::new(move |token| tokens.answer(token)))
    })?;
    let api = match (sockets.api, access) {
        (None, _) => None,
        (Some(Some((endpoint, socket))), Some(access)) => {
            let access = Arc::new(ArcSwap::new(Arc::clone(access)));
            let listener = (endpoints.serve_api(socket, &access))
                .map_err(|source| failed("[admin]", endpoint, source))?;
            Some(Some(ServedApi {
                endpoint,
                listener,
                access,
            }))
        }
        (Some(_), _) => Some(None),
    };
    Ok(StatsChange {
        stats,
        challenges,
        api,
    })
}

fn failed(what: &str, endpoint: Endpoint, source: std::io::Error) -> BrokerError {
    BrokerError::Failed {
        step: format!("serve {what} on {}", endpoint.addr),
        source,
    }
}

fn serve(
    socket: Option<Option<(Endpoint, TcpListener)>>,
    what: &str,
    serve: impl FnOnce(TcpListener) -> std::io::Result<HttpListener>,
) -> Result<Change, BrokerError> {
    let (endpoint, socket) = match socket {
        None => return Ok(Change::Keep),
        Some(None) => return Ok(Change::To(None)),
        Some(Some(socket)) => socket,
    };
    let served = serve(socket).map_err(|source| failed(what, endpoint, source))?;
    Ok(Change::To(Some((endpoint, served))))
}
