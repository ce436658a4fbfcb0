//! The routes under `/v1`: what asks is answered from [`Status`] and [`Live`], what changes something becomes a [`AdminCommand`].
//!
//! | method and path | answer |
//! |---|---|
//! | `GET /v1/status` | [`views::Status`] |
//! | `POST /v1/reload?cut=…` | [`views::Reloaded`]; 422 or 500 with [`views::ReloadFailed`] |
//! | `GET /v1/backends` | [`views::Backend`] by name |
//! | `GET /v1/backends/{backend}` | [`views::Backend`] |
//! | `GET /v1/backends/{backend}/servers/{server}` | [`views::Server`] |
//! | `POST /v1/backends/{backend}/servers/{server}` | takes a [`views::ServerRequest`]; [`views::Server`] as it is then; 409 if no eligible server would be left |
//! | `GET /v1/acme` | [`views::Acme`] |
//! | `POST /v1/acme/renew?name=…` | [`views::Renewing`]; 404 if there is no such certificate, 409 if none are ordered here |
//! | `GET /v1/connections?frontend=…&backend=…&server=…&limit=…` | [`views::Connections`] |
//! | `GET /v1/explain?protocol=…&client=…&vip=…` | [`views::Explanation`] |
//! | `GET /v1/backend-script?frontend=…&server=…` | a shell script, as text |
//!
//! Whoever asks never waits for the control loop. A walk through all flows runs on a thread of its own, one at a time, so
//! that others are answered meanwhile.
//!
//! Anything else is a [`views::Problem`] with its HTTP status. Names in paths are percent-encoded, `/` too.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use arc_swap::{ArcSwap, Guard};
use axum::{
    Extension, Json, Router,
    extract::{Path, Query, Request, State, rejection::PathRejection, rejection::QueryRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
    routing::post,
};
use tokio::{
    sync::{Semaphore, mpsc::error::TrySendError, oneshot},
    task::spawn_blocking,
    time::timeout,
};

use super::{
    AdminCommand, Commands,
    caller::Caller,
    http::{self, HttpLimits},
    lookup, packets,
    packets::ServerViews,
    render,
    status::{Listed, Live, Status},
    views::{self, ConnectionFilter, Problem},
};
use crate::{
    base::{BackendName, CertificateName, ClientAddr, FrontendName, ListenAddr, NameError, ServerName},
    flow::{FiveTuple, FlowInfo},
};

/// Connections listed when the request does not say how many.
const DEFAULT_CONNECTIONS: usize = 1_000;

/// Connections listed at most.
const MAX_CONNECTIONS: usize = 100_000;

/// The routes of the control endpoint.
pub(super) fn router(control: ControlRoutes) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/reload", post(reload))
        .route("/v1/backends", get(backends))
        .route("/v1/backends/{backend}", get(backend))
        .route(
            "/v1/backends/{backend}/servers/{server}",
            get(server).post(set_override),
        )
        .route("/v1/acme", get(acme))
        .route("/v1/acme/renew", post(renew))
        .route("/v1/connections", get(connections))
        .route("/v1/explain", get(explain))
        .route("/v1/backend-script", get(backend_script))
        .fallback(http::not_found)
        .method_not_allowed_fallback(http::method_not_allowed)
        .with_state(control)
}

/// What the handlers share.
#[derive(Clone)]
pub(super) struct ControlRoutes {
    status: Arc<ArcSwap<Status>>,
    live: Arc<dyn Live>,
    commands: Commands,
    refused: Arc<AtomicU64>,
    failed_logins: Arc<AtomicU64>,
    /// Held by the walk through all flows that is under way.
    walk: Arc<Semaphore>,
    limits: HttpLimits,
}

impl ControlRoutes {
    pub fn new(
        status: Arc<ArcSwap<Status>>,
        live: Arc<dyn Live>,
        commands: Commands,
        limits: HttpLimits,
    ) -> Self {
        Self {
            status,
            live,
            commands,
            refused: Arc::default(),
            failed_logins: Arc::default(),
            walk: Arc::new(Semaphore::new(1)),
            limits,
        }
    }

    /// The same with other limits.
    pub fn within(&self, limits: HttpLimits) -> Self {
        Self {
            limits,
            ..self.clone()
        }
    }

    /// Where the status is published.
    pub const fn published(&self) -> &Arc<ArcSwap<Status>> {
        &self.status
    }

    /// Connections to the endpoints turned away.
    pub const fn refused(&self) -> &Arc<AtomicU64> {
        &self.refused
    }

    /// Failed logins at the API on TCP.
    pub const fn failed_logins(&self) -> &Arc<AtomicU64> {
        &self.failed_logins
    }

    fn now(&self) -> Guard<Arc<Status>> {
        self.status.load()
    }

    /// Puts a command before the control loop and waits for its reply.
    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> AdminCommand,
        limit: Duration,
    ) -> Result<T, Problem> {
        let (reply, answer) = oneshot::channel();
        self.commands
            .try_send(command(reply))
            .map_err(|error| match error {
                TrySendError::Full(_) => Problem::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "convey is busy with earlier requests: try again",
                ),
                TrySendError::Closed(_) => stopping(),
            })?;
        (timeout(limit, answer).await)
            .map_err(|_| too_slow(limit))?
            .map_err(|_| stopping())
    }

    /// Flows that match.
    async fn flows(&self, filter: Arc<ConnectionFilter>, limit: usize) -> Listed<FlowInfo> {
        if self.now().packet.is_none() {
            return (0, Vec::new());
        }
        let Ok(turn) = Arc::clone(&self.walk).acquire_owned().await else {
            return (0, Vec::new());
        };
        let live = Arc::clone(&self.live);
        let walk = spawn_blocking(move || {
            let _turn = turn;
            let wanted = |flow: &FlowInfo| {
                filter.matches(
                    &flow.frontend,
                    Some(&flow.server.backend),
                    Some(&flow.server.server),
                )
            };
            live.flows(&wanted, limit)
        });
        walk.await.unwrap_or_default()
    }

    /// Connections of the proxy, oldest first, then flows.
    async fn connections(&self, filter: ConnectionFilter, limit: usize) -> views::Connections {
        let filter = Arc::new(filter);
        let (mut total, mut connections) = self.live.connections(Arc::clone(&filter), limit).await;
        let room = limit.saturating_sub(connections.len());
        let (count, flows) = self.flows(filter, room).await;
        total += count;
        let status = self.now();
        connections.extend(flows.iter().map(packets::connection));
        for connection in &mut connections {
            lookup::mark_removed(&status.snapshot, connection);
        }
        views::Connections { total, connections }
    }
}

impl ConnectionFilter {
    /// Whether it lets a connection through.
    #[must_use]
    pub fn matches(
        &self,
        frontend: &FrontendName,
        backend: Option<&BackendName>,
        server: Option<&ServerName>,
    ) -> bool {
        let is = |wanted: &Option<String>, name: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| Some(wanted) == name)
        };
        is(&self.frontend, Some(frontend.as_str()))
            && is(&self.backend, backend.map(BackendName::as_str))
            && is(&self.server, server.map(ServerName::as_str))
    }
}

fn too_slow(limit: Duration) -> Problem {
    Problem::new(
        StatusCode::GATEWAY_TIMEOUT,
        format!(
            "convey accepted the request but did not answer within {} s",
            limit.as_secs()
        ),
    )
}

fn stopping() -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "convey is stopping")
}

/// One line in the log for each changing request, before it takes effect: who asked for what.
fn log_request(peer: Option<Extension<Caller>>, what: &str) {
    let (uid, pid) = peer
        .as_ref()
        .and_then(|caller| caller.peer())
        .map_or((None, None), |peer| (Some(peer.uid), peer.pid));
    let whose = peer.map_or_else(String::new, |Extension(caller)| format!(" ({caller})"));
    tracing::info!(event = "admin", uid, pid, what, "admin request{whose}: {what}");
}

async fn status(State(control): State<ControlRoutes>) -> Json<views::Status> {
    let status = control.now();
    let counts = render::Counts {
        proxied_connections: control.live.proxied_connections(),
        log_events_dropped: control.live.log_events_dropped(),
        connections_refused: control.refused.load(Ordering::Relaxed),
        logins_failed: control.failed_logins.load(Ordering::Relaxed),
        packets: control.live.packet_counts(),
    };
    Json(render::status(&status, &counts, Instant::now()))
}

async fn reload(
    State(control): State<ControlRoutes>,
    peer: Option<Extension<Caller>>,
    query: Result<Query<views::ReloadQuery>, QueryRejection>,
) -> Result<Json<views::Reloaded>, Response> {
    let Query(views::ReloadQuery { cut }) = query.map_err(|error| bad_query(&error).into_response())?;
    log_request(peer, if cut { "reload --cut" } else { "reload" });
    let command = |reply| AdminCommand::Reload { cut, reply };
    match control.ask(command, control.limits.reload).await {
        Ok(Ok(reloaded)) => Ok(Json(reloaded)),
        Ok(Err(failed)) => {
            let status = if failed.config_error {
                StatusCode::UNPROCESSABLE_ENTITY
            } else {
                StatusCode::INTERNAL_SERVER_ERROR
            };
            Err((status, Json(failed)).into_response())
        }
        Err(problem) => Err(problem.into_response()),
    }
}

async fn backends(State(control): State<ControlRoutes>) -> Json<BTreeMap<BackendName, views::Backend>> {
    Json(render::backends(&control.now(), Instant::now()).collect())
}

async fn backend(
    State(control): State<ControlRoutes>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<views::Backend>, Problem> {
    let Path(name) = path.map_err(|rejection| bad_path(&rejection))?;
    let status = control.now();
    let view = lookup::find_backend(&status.snapshot, &name)?;
    let packets = ServerViews::new(&status);
    Ok(Json(render::backend(
        &packets,
        view,
        status.discovery.get(&view.config.name),
        Instant::now(),
    )))
}

async fn server(
    State(control): State<ControlRoutes>,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Json<views::Server>, Problem> {
    let Path((backend, server)) = path.map_err(|rejection| bad_path(&rejection))?;
    let status = control.now();
    let (backend, view) = lookup::find_server(&status.snapshot, &backend, &server)?;
    let packets = ServerViews::new(&status);
    Ok(Json(render::server(&packets, backend, view, Instant::now())))
}

async fn set_override(
    State(control): State<ControlRoutes>,
    peer: Option<Extension<Caller>>,
    path: Result<Path<(String, String)>, PathRejection>,
    request: Request,
) -> Result<Json<views::Server>, Problem> {
    let Path((backend, server)) = path.map_err(|rejection| bad_path(&rejection))?;
    // an invalid name exists nowhere, and could break the log's lines
    BackendName::new(&backend).map_err(bad_name)?;
    ServerName::new(&server).map_err(bad_name)?;
    let request: views::ServerRequest = http::json_body(request, control.limits.body).await?;
    log_request(peer, &format!("{} {backend}/{server}", request.action));
    let command = |reply| AdminCommand::Server {
        backend,
        server,
        request,
        reply,
    };
    control.ask(command, control.limits.reply).await?.map(Json)
}

async fn acme(State(control): State<ControlRoutes>) -> Json<views::Acme> {
    Json(render::acme(
        &control.now().acme,
        Instant::now(),
        SystemTime::now(),
    ))
}

async fn renew(
    State(control): State<ControlRoutes>,
    peer: Option<Extension<Caller>>,
    query: Result<Query<views::RenewQuery>, QueryRejection>,
) -> Result<Json<views::Renewing>, Problem> {
    let Query(views::RenewQuery { name }) = query.map_err(|rejection| bad_query(&rejection))?;
    // what is no name exists nowhere, and could break the log's lines
    if let Some(name) = &name {
        name.parse::<CertificateName>().map_err(|error| {
            Problem::new(
                StatusCode::BAD_REQUEST,
                format!("the name of a certificate: {error}"),
            )
        })?;
    }
    log_request(
        peer,
        &format!("acme renew {}", name.as_deref().unwrap_or("(all)")),
    );
    let command = |reply| AdminCommand::Renew { name, reply };
    let certificates = control.ask(command, control.limits.reply).await??;
    Ok(Json(views::Renewing { certificates }))
}

async fn connections(
    State(control): State<ControlRoutes>,
    query: Result<Query<ConnectionFilter>, QueryRejection>,
) -> Result<Json<views::Connections>, Problem> {
    let Query(filter) = query.map_err(|rejection| bad_query(&rejection))?;
    let limit = filter.limit.unwrap_or(DEFAULT_CONNECTIONS);
    if limit > MAX_CONNECTIONS {
        return Err(Problem::new(
            StatusCode::BAD_REQUEST,
            format!("limit must not exceed {MAX_CONNECTIONS}"),
        ));
    }
    let patience = control.limits.reply;
    let found = (timeout(patience, control.connections(filter.clone(), limit)).await)
        .map_err(|_| too_slow(patience))?;
    // connections outlive what they belong to: a name that has some is known
    if found.total == 0 {
        lookup::check_names(&control.now().snapshot, &filter)?;
    }
    Ok(Json(found))
}

async fn explain(
    State(control): State<ControlRoutes>,
    query: Result<Query<views::ExplainQuery>, QueryRejection>,
) -> Result<Json<views::Explanation>, Problem> {
    let Query(query) = query.map_err(|rejection| bad_query(&rejection))?;
    let tuple = FiveTuple {
        protocol: query.protocol,
        client: ClientAddr(query.client),
        vip: ListenAddr::new(query.vip),
    };
    if query.client.is_ipv4() != query.vip.is_ipv4() {
        return Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "client and vip must both be IPv4 or both IPv6",
        ));
    }
    let status = control.now();
    let found = control.live.explain(&tuple);
    let asks = packets::Asks {
        sni: query
            .sni
            .map(|sni| sni.trim_end_matches('.').to_ascii_lowercase()),
        alpn: query.alpn.iter().flat_map(|list| list.split(',')).collect(),
    };
    Ok(Json(packets::explanation(
        &status.snapshot,
        &tuple,
        &asks,
        found,
        &status.waiting,
    )))
}

async fn backend_script(
    State(control): State<ControlRoutes>,
    query: Result<Query<views::ScriptQuery>, QueryRejection>,
) -> Result<String, Problem> {
    let Query(views::ScriptQuery { frontend, server }) = query.map_err(|rejection| bad_query(&rejection))?;
    let status = control.now();
    let view = lookup::find_frontend(&status.snapshot, &frontend)?;
    (control.live.backend_script(view, &server)).map_err(|why| Problem::new(StatusCode::NOT_FOUND, why))
}

fn bad_query(rejection: &QueryRejection) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, rejection.body_text())
}

fn bad_name(error: NameError) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, error.to_string())
}

fn bad_path(rejection: &PathRejection) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, rejection.body_text())
}
