//! Connections, UDP sessions and flows.

use std::sync::Arc;

use axum::{Json, http::StatusCode};

use super::{
    ask::{Ask, Nothing},
    context::{ApiContext, log_request},
};
use crate::admin::{
    lookup,
    views::{self, ConnectionFilter, ConnectionQuery, Problem},
};

/// Connections listed when the request does not say how many.
const DEFAULT: usize = 1_000;

/// Connections listed at most.
const MOST: usize = 100_000;

/// Those that match, oldest first.
pub async fn list(
    context: ApiContext,
    ask: Ask<Nothing, ConnectionQuery>,
) -> Result<Json<views::Connections>, Problem> {
    let offset = ask.query.offset;
    let limit = ask.query.limit.unwrap_or(DEFAULT);
    let Some(most) = offset.checked_add(limit).filter(|most| *most <= MOST) else {
        return Err(Problem::new(
            StatusCode::BAD_REQUEST,
            format!("offset and limit together must not exceed {MOST}"),
        ));
    };
    let filter = ask.query.filter();
    let mut found = context.connections(filter.clone(), most).await?;
    found.connections.drain(..offset.min(found.connections.len()));
    // connections outlive what they belong to: a name that has some is known
    if found.total == 0 {
        lookup::check_names(&context.now().snapshot, &filter)?;
    }
    Ok(Json(found))
}

/// Closes those of the modes proxy and passthrough that match.
pub async fn close(
    context: ApiContext,
    ask: Ask<Nothing, ConnectionFilter>,
) -> Result<Json<views::Closed>, Problem> {
    let filter = ask.query;
    if filter.is_empty() {
        return Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "name what to close: frontend, backend, server or client",
        ));
    }
    log_request(&ask.caller, &format!("close the connections of {filter}"));
    let closed = context.close(Arc::new(filter.clone())).await?;
    if closed.closed == 0 {
        lookup::check_names(&context.now().snapshot, &filter)?;
    }
    Ok(Json(closed))
}
