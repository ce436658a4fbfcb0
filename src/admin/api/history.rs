//! What has gone on in the last quarter of an hour.

use std::time::Instant;

use axum::{Json, http::StatusCode};

use super::{
    ask::{Ask, Nothing},
    context::ApiContext,
};
use crate::{
    admin::{
        lookup,
        views::{History, HistoryQuery, PacketHistory, Problem},
    },
    snapshot::trend::step_at,
};

/// Of the whole, or of a frontend, backend or server.
pub async fn history(context: ApiContext, ask: Ask<Nothing, HistoryQuery>) -> Result<Json<History>, Problem> {
    let status = context.now();
    let (snapshot, now) = (&status.snapshot, Instant::now());
    let lived = usize::try_from(step_at(status.started, now)).unwrap_or(usize::MAX);
    let query = (ask.query.frontend, ask.query.backend, ask.query.server);
    Ok(Json(match query {
        (None, None, None) => {
            let frontends = snapshot.frontends.values();
            let mut whole = History::sum(lived, frontends.map(|frontend| frontend.live.trend.steps(now)));
            let packets = context.packet_trend().steps(now);
            whole.packets = status
                .packet
                .as_ref()
                .map(|_| PacketHistory::from(packets.as_slice()));
            whole
        }
        (Some(name), None, None) => History::sum(
            lived,
            [lookup::find_frontend(snapshot, &name)?.live.trend.steps(now)],
        ),
        (None, Some(name), None) => History::sum(
            lived,
            [lookup::find_backend(snapshot, &name)?.live.trend.steps(now)],
        ),
        (None, Some(backend), Some(name)) => {
            let (_, server) = lookup::find_server(snapshot, &backend, &name)?;
            History::sum(lived, [server.live.trend.steps(now)])
        }
        (None, None, Some(_)) | (Some(_), Some(_), _) | (Some(_), _, Some(_)) => {
            return Err(Problem::new(
                StatusCode::BAD_REQUEST,
                "ask for a frontend, for a backend, or for a backend and its server",
            ));
        }
    }))
}
