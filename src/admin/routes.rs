//! The routes under `/v1`: each turns a request into a [`Command`] and the reply into JSON.
//!
//! | method and path | answer |
//! |---|---|
//! | `GET /v1/status` | [`views::Status`] |
//! | `POST /v1/reload` | [`views::Reloaded`]; 422 or 500 with [`views::ReloadFailed`] |
//! | `GET /v1/backends` | [`views::Backend`] by name |
//! | `GET /v1/backends/{backend}` | [`views::Backend`] |
//! | `GET /v1/backends/{backend}/servers/{server}` | [`views::Server`] |
//! | `POST /v1/backends/{backend}/servers/{server}` | takes a [`views::ServerRequest`]; [`views::Server`] as it is then; 409 if no eligible server would be left |
//! | `GET /v1/connections?frontend=…&backend=…&server=…&limit=…` | [`views::Connections`] |
//! | `GET /v1/explain?protocol=…&client=…&vip=…` | [`views::Explanation`] |
//! | `GET /v1/backend-script?frontend=…&server=…` | a shell script, as text |
//!
//! Anything else is a [`views::Problem`] with its HTTP status. Names in paths are percent-encoded, `/` too.

use std::{io, os::unix::net::UnixListener as StdUnixListener, time::Duration};

use axum::{
    Extension, Json, Router,
    extract::{Path, Query, Request, State, rejection::PathRejection, rejection::QueryRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
    routing::post,
};
use tokio::{
    net::UnixListener,
    sync::{mpsc::error::TrySendError, oneshot},
    time::timeout,
};

use super::{
    Command, Commands,
    http::{self, HttpListener, Limits, Peer},
    lookup,
    views::{self, Problem},
};
use crate::{
    base::{BackendName, ClientAddr, ListenAddr, NameError, ServerName},
    flow::FiveTuple,
};

/// How long the control loop may take to answer.
const REPLY: Duration = Duration::from_secs(4);

/// How long a reload may take: it waits for new listeners and for the broker.
const RELOAD_REPLY: Duration = Duration::from_secs(55);

/// Connections listed when the request does not say how many.
const DEFAULT_CONNECTIONS: usize = 1_000;

/// Connections listed at most.
const MAX_CONNECTIONS: usize = 100_000;

/// Serves the control endpoint on a socket made by [`super::bind_socket`], from tasks of the current runtime.
///
/// # Errors
/// The runtime cannot take the listener.
pub fn serve(listener: StdUnixListener, commands: Commands) -> io::Result<HttpListener> {
    serve_within(listener, commands, Limits::default())
}

pub(super) fn serve_within(
    listener: StdUnixListener,
    commands: Commands,
    limits: Limits,
) -> io::Result<HttpListener> {
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    Ok(http::serve(listener, router(commands, limits), limits))
}

/// The routes, with what their handlers share.
pub(super) fn router(commands: Commands, limits: Limits) -> Router {
    let control = Control {
        commands,
        body: limits.body,
    };
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/reload", post(reload))
        .route("/v1/backends", get(backends))
        .route("/v1/backends/{backend}", get(backend))
        .route("/v1/backends/{backend}/servers/{server}", get(server).post(order))
        .route("/v1/connections", get(connections))
        .route("/v1/explain", get(explain))
        .route("/v1/backend-script", get(backend_script))
        .fallback(http::not_found)
        .method_not_allowed_fallback(http::method_not_allowed)
        .with_state(control)
}

/// What the handlers share.
#[derive(Debug, Clone)]
struct Control {
    commands: Commands,
    body: Duration,
}

impl Control {
    /// Puts a command before the control loop and waits for its reply.
    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
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
        timeout(limit, answer)
            .await
            .map_err(|_| {
                Problem::new(
                    StatusCode::GATEWAY_TIMEOUT,
                    format!(
                        "convey took the request but did not answer within {} s",
                        limit.as_secs()
                    ),
                )
            })?
            .map_err(|_| stopping())
    }

    async fn status(&self) -> Result<views::Status, Problem> {
        self.ask(|reply| Command::Status { reply }, REPLY).await
    }
}

fn stopping() -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "convey is stopping")
}

/// One line in the log for each changing request, before it takes effect: who asked for what.
fn log_order(peer: Option<Extension<Peer>>, what: &str) {
    let uid = peer.as_ref().map(|peer| peer.uid);
    let pid = peer.and_then(|peer| peer.pid);
    tracing::info!(event = "admin", uid, pid, what, "order from an operator");
}

async fn status(State(control): State<Control>) -> Result<Json<views::Status>, Problem> {
    control.status().await.map(Json)
}

async fn reload(
    State(control): State<Control>,
    peer: Option<Extension<Peer>>,
) -> Result<Json<views::Reloaded>, Response> {
    log_order(peer, "reload");
    match control.ask(|reply| Command::Reload { reply }, RELOAD_REPLY).await {
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

async fn backends(
    State(control): State<Control>,
) -> Result<Json<std::collections::BTreeMap<String, views::Backend>>, Problem> {
    Ok(Json(control.status().await?.backends))
}

async fn backend(
    State(control): State<Control>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<views::Backend>, Problem> {
    let Path(name) = path.map_err(|rejection| bad_path(&rejection))?;
    let mut backends = control.status().await?.backends;
    match backends.remove(&name) {
        Some(backend) => Ok(Json(backend)),
        None => Err(lookup::no_backend(&name, backends.keys().map(String::as_str))),
    }
}

async fn server(
    State(control): State<Control>,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Json<views::Server>, Problem> {
    let Path((backend, server)) = path.map_err(|rejection| bad_path(&rejection))?;
    let mut backends = control.status().await?.backends;
    let Some(mut pool) = backends.remove(&backend) else {
        return Err(lookup::no_backend(&backend, backends.keys().map(String::as_str)));
    };
    match pool.servers.remove(&server) {
        Some(server) => Ok(Json(server)),
        None => Err(lookup::no_server(
            &backend,
            &server,
            pool.servers.keys().map(String::as_str),
        )),
    }
}

async fn order(
    State(control): State<Control>,
    peer: Option<Extension<Peer>>,
    path: Result<Path<(String, String)>, PathRejection>,
    request: Request,
) -> Result<Json<views::Server>, Problem> {
    let Path((backend, server)) = path.map_err(|rejection| bad_path(&rejection))?;
    // what is no name exists nowhere, and could break the log's lines
    BackendName::new(&backend).map_err(bad_name)?;
    ServerName::new(&server).map_err(bad_name)?;
    let request: views::ServerRequest = http::json_body(request, control.body).await?;
    log_order(peer, &format!("{} {backend}/{server}", request.action));
    let command = |reply| Command::Server {
        backend,
        server,
        request,
        reply,
    };
    control.ask(command, REPLY).await?.map(Json)
}

async fn connections(
    State(control): State<Control>,
    query: Result<Query<views::ConnectionFilter>, QueryRejection>,
) -> Result<Json<views::Connections>, Problem> {
    let Query(mut filter) = query.map_err(|rejection| bad_query(&rejection))?;
    let limit = *filter.limit.get_or_insert(DEFAULT_CONNECTIONS);
    if limit > MAX_CONNECTIONS {
        return Err(Problem::new(
            StatusCode::BAD_REQUEST,
            format!("limit is at most {MAX_CONNECTIONS}"),
        ));
    }
    control
        .ask(|reply| Command::Connections { filter, reply }, REPLY)
        .await
        .map(Json)
}

async fn explain(
    State(control): State<Control>,
    query: Result<Query<views::ExplainQuery>, QueryRejection>,
) -> Result<Json<views::Explanation>, Problem> {
    let Query(query) = query.map_err(|rejection| bad_query(&rejection))?;
    let tuple = FiveTuple {
        protocol: query.protocol,
        client: ClientAddr(query.client),
        vip: ListenAddr(query.vip),
    };
    if query.client.is_ipv4() != query.vip.is_ipv4() {
        return Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "client and vip must both be IPv4 or both IPv6",
        ));
    }
    control
        .ask(|reply| Command::Explain { tuple, reply }, REPLY)
        .await
        .map(Json)
}

async fn backend_script(
    State(control): State<Control>,
    query: Result<Query<views::ScriptQuery>, QueryRejection>,
) -> Result<String, Problem> {
    let Query(views::ScriptQuery { frontend, server }) = query.map_err(|rejection| bad_query(&rejection))?;
    let command = |reply| Command::BackendScript {
        frontend,
        server,
        reply,
    };
    control.ask(command, REPLY).await?
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
