//! What is: the process, frontends, backends, the packet modes.

use std::{collections::BTreeMap, sync::atomic::Ordering, time::Instant};

use axum::{Json, http::StatusCode};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{answer::Text, ask::Ask, context::ApiContext};
use crate::{
    admin::{
        lookup,
        packets::{self, ServerViews},
        render,
        views::{self, Phase, Problem},
    },
    base::{BackendName, FrontendName},
};

/// Path of a frontend.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct FrontendPath {
    /// Its name.
    frontend: String,
}

/// Path of a backend.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct BackendPath {
    /// Its name.
    pub backend: String,
}

/// It answers, so it is alive.
pub async fn healthz(_context: ApiContext, _ask: Ask) -> Result<Text, Problem> {
    Ok(Text("ok\n".into()))
}

/// Whether traffic may be sent to it: for load balancers in front of it, and for who waits for its start.
pub async fn readyz(context: ApiContext, _ask: Ask) -> Result<Text, Problem> {
    let not = |why| Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, why));
    match context.now().phase {
        Phase::Running => Ok(Text("ok\n".into())),
        Phase::Starting => not("convey is starting"),
        Phase::Stopping => not("convey is stopping"),
    }
}

/// The process and its configuration.
pub async fn info(context: ApiContext, _ask: Ask) -> Result<Json<views::Info>, Problem> {
    Ok(Json(render::info(&context.now(), Instant::now())))
}

/// Everything at once.
pub async fn status(context: ApiContext, _ask: Ask) -> Result<Json<views::Status>, Problem> {
    let status = context.now();
    let live = context.live();
    let counts = render::Counts {
        proxied_connections: live.proxied_connections(),
        log_events_dropped: live.log_events_dropped(),
        log_outputs: live.log_outputs(),
        connections_refused: context.refused().load(Ordering::Relaxed),
        logins_failed: context.failed_logins().load(Ordering::Relaxed),
        packets: live.packet_counts(),
    };
    Ok(Json(render::status(&status, &counts, Instant::now())))
}

/// All frontends.
pub async fn frontends(
    context: ApiContext,
    _ask: Ask,
) -> Result<Json<BTreeMap<FrontendName, views::Frontend>>, Problem> {
    Ok(Json(render::frontends(&context.now(), Instant::now())))
}

/// One of them.
pub async fn frontend(context: ApiContext, ask: Ask<FrontendPath>) -> Result<Json<views::Frontend>, Problem> {
    let status = context.now();
    let view = lookup::find_frontend(&status.snapshot, &ask.path.frontend)?;
    Ok(Json(render::frontend(&status, view, Instant::now())))
}

/// All backends.
pub async fn backends(
    context: ApiContext,
    _ask: Ask,
) -> Result<Json<BTreeMap<BackendName, views::Backend>>, Problem> {
    Ok(Json(render::backends(&context.now(), Instant::now()).collect()))
}

/// One of them.
pub async fn backend(context: ApiContext, ask: Ask<BackendPath>) -> Result<Json<views::Backend>, Problem> {
    let status = context.now();
    let view = lookup::find_backend(&status.snapshot, &ask.path.backend)?;
    let packets = ServerViews::new(&status);
    Ok(Json(render::backend(
        &packets,
        view,
        status.discovery.get(&view.config.name),
        Instant::now(),
    )))
}

/// The packet modes.
pub async fn packet(context: ApiContext, _ask: Ask) -> Result<Json<views::Packet>, Problem> {
    let counts = context.live().packet_counts();
    let packet = render::packet(&context.now(), &counts);
    packet.map(Json).ok_or_else(no_packet_modes)
}

/// The firewall rules of the packet modes.
pub async fn firewall(context: ApiContext, _ask: Ask) -> Result<Json<views::Firewall>, Problem> {
    let status = context.now();
    let packet = status.packet.as_ref().ok_or_else(no_packet_modes)?;
    Ok(Json(packets::firewall(&packet.rules)))
}

fn no_packet_modes() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "no frontend has needed the packet modes since the start",
    )
}

/// The sources of servers.
pub async fn discovery(
    context: ApiContext,
    _ask: Ask,
) -> Result<Json<BTreeMap<BackendName, views::Discovery>>, Problem> {
    Ok(Json(render::sources(&context.now(), Instant::now())))
}
