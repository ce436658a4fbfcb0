//! Servers, and what an operator sets of them at run time.

use std::time::Instant;

use axum::{Json, http::StatusCode};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    ask::{Ask, JsonBody, Nothing},
    context::{ApiContext, log_request},
    state::BackendPath,
};
use crate::{
    admin::{
        AdminCommand, lookup,
        packets::ServerViews,
        render,
        views::{self, NewServer, Problem, ServerAction, ServerRequest},
    },
    base::{BackendName, NameError, ServerName},
};

/// Path of a server.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct ServerPath {
    /// Its backend.
    backend: String,
    /// Its name.
    server: String,
}

/// One server.
pub async fn server(context: ApiContext, ask: Ask<ServerPath>) -> Result<Json<views::Server>, Problem> {
    let status = context.now();
    let (backend, view) = lookup::find_server(&status.snapshot, &ask.path.backend, &ask.path.server)?;
    let packets = ServerViews::new(&status);
    Ok(Json(render::server(&packets, backend, view, Instant::now())))
}

/// Drains a server, puts it into maintenance, gives it a weight, or clears its override.
pub async fn override_server(
    context: ApiContext,
    ask: Ask<ServerPath, Nothing, JsonBody<ServerRequest>>,
) -> Result<Json<views::Server>, Problem> {
    let ServerPath { backend, server } = ask.path;
    check_names(&backend, &server)?;
    let JsonBody(request) = ask.body;
    log_request(&ask.caller, &format!("{} {backend}/{server}", request.action));
    let by = ask.caller.to_string();
    let command = |reply| AdminCommand::Server {
        backend,
        server,
        request,
        by,
        reply,
    };
    context.command(command, context.limits().reply).await?.map(Json)
}

/// The same for all servers of a backend.
pub async fn override_backend(
    context: ApiContext,
    ask: Ask<BackendPath, Nothing, JsonBody<ServerRequest>>,
) -> Result<Json<views::Backend>, Problem> {
    let BackendPath { backend } = ask.path;
    BackendName::new(&backend).map_err(bad_name)?;
    let JsonBody(request) = ask.body;
    log_request(&ask.caller, &format!("{} all of {backend}", request.action));
    let by = ask.caller.to_string();
    let command = |reply| AdminCommand::Backend {
        backend,
        request,
        by,
        reply,
    };
    context.command(command, context.limits().reply).await?.map(Json)
}

/// Adds a server at run time.
pub async fn add(
    context: ApiContext,
    ask: Ask<BackendPath, Nothing, JsonBody<NewServer>>,
) -> Result<Json<views::AddedServer>, Problem> {
    let BackendPath { backend } = ask.path;
    BackendName::new(&backend).map_err(bad_name)?;
    let JsonBody(server) = ask.body;
    log_request(&ask.caller, &format!("add {:?} to {backend}", server.addr));
    let by = ask.caller.to_string();
    let command = |reply| AdminCommand::AddServer {
        backend,
        server,
        by,
        reply,
    };
    context.command(command, context.limits().reply).await?.map(Json)
}

/// Removes a server that was added at run time.
pub async fn remove(context: ApiContext, ask: Ask<ServerPath>) -> Result<Json<views::AddedServer>, Problem> {
    let ServerPath { backend, server } = ask.path;
    check_names(&backend, &server)?;
    log_request(&ask.caller, &format!("remove {backend}/{server}"));
    let by = ask.caller.to_string();
    let command = |reply| AdminCommand::RemoveServer {
        backend,
        server,
        by,
        reply,
    };
    context.command(command, context.limits().reply).await?.map(Json)
}

/// All overrides.
pub async fn overrides(context: ApiContext, _ask: Ask) -> Result<Json<views::Overrides>, Problem> {
    Ok(Json(render::overrides(&context.now().snapshot)))
}

/// Clears all overrides.
pub async fn clear_overrides(context: ApiContext, ask: Ask) -> Result<Json<views::Overrides>, Problem> {
    log_request(&ask.caller, "clear all overrides");
    let by = ask.caller.to_string();
    let command = |reply| AdminCommand::ClearOverrides { by, reply };
    Ok(Json(context.command(command, context.limits().reply).await?))
}

/// Clears the override of a server.
pub async fn clear_override(
    context: ApiContext,
    ask: Ask<ServerPath>,
) -> Result<Json<views::Server>, Problem> {
    let ServerPath { backend, server } = ask.path;
    check_names(&backend, &server)?;
    log_request(&ask.caller, &format!("clear the override of {backend}/{server}"));
    let by = ask.caller.to_string();
    let command = |reply| AdminCommand::Server {
        backend,
        server,
        request: ServerRequest {
            action: ServerAction::Ready,
            force: false,
        },
        by,
        reply,
    };
    context.command(command, context.limits().reply).await?.map(Json)
}

/// A name that is none exists nowhere, and could break the log's lines.
fn check_names(backend: &str, server: &str) -> Result<(), Problem> {
    BackendName::new(backend).map_err(bad_name)?;
    ServerName::new(server).map_err(bad_name)?;
    Ok(())
}

fn bad_name(error: NameError) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, error.to_string())
}
