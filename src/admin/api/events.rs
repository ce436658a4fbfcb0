//! What has happened, and what happens.

use std::sync::Arc;

use axum::{
    Json,
    body::Body,
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use schemars::{Schema, SchemaGenerator};

use super::{
    answer::Answer,
    ask::{Ask, Nothing},
    context::ApiContext,
};
use crate::admin::{
    events::{EventLog, EventStream, Found},
    http::LongLived,
    views::{Event, EventFilter, EventQuery, Events, Problem},
};

/// Events listed when the request does not say how many.
const DEFAULT: usize = 100;

/// Media type of a stream.
const STREAM: &str = "text/event-stream";

/// Some events, or all that come from now on.
pub enum ListOrStream {
    /// Some.
    List(Events),
    /// As they come.
    Stream(EventStream),
}

impl Answer for ListOrStream {
    const MEDIA: &'static str = "application/json";

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<Events>()
    }

    fn into_response(self) -> Response {
        match self {
            Self::List(events) => Answer::into_response(Json(events)),
            Self::Stream(stream) => {
                let head = [
                    (header::CONTENT_TYPE, STREAM),
                    (header::CACHE_CONTROL, "no-store"),
                ];
                let mut response = (head, Body::new(stream)).into_response();
                response.extensions_mut().insert(LongLived);
                response
            }
        }
    }
}

/// The last events; with `Accept: text/event-stream` those that come, after `Last-Event-ID` or `after`.
pub async fn events(context: ApiContext, ask: Ask<Nothing, EventQuery>) -> Result<ListOrStream, Problem> {
    let filter = ask.query.filter();
    let filter = filter.map_err(|why| Problem::new(StatusCode::BAD_REQUEST, why))?;
    if !ask.accept.is_some_and(|accept| accept.contains(STREAM)) {
        let limit = ask.query.limit.unwrap_or(DEFAULT);
        let log = context.live().events();
        return Ok(ListOrStream::List(list(log, ask.query.after, limit, &filter)));
    }
    let log = Arc::clone(context.live().events());
    let text = |number, event: &_| serde_json::to_string(&Event::new(number, event)).unwrap_or_default();
    let after = ask.last_event_id.or(ask.query.after);
    let wanted = move |event: &_| filter.matches(event);
    let stream = context.streams().begin(log, after, ask.admission, wanted, text);
    stream.map(ListOrStream::Stream).ok_or_else(|| {
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "there are too many streams of events: close some, or ask for a list",
        )
    })
}

/// When which override was set or cleared: the last of them since the start, whatever else has happened.
pub async fn overrides(context: ApiContext, _ask: Ask) -> Result<Json<Events>, Problem> {
    let found = context.live().events().overrides();
    Ok(Json(view(&found)))
}

fn list(log: &EventLog, after: Option<u64>, limit: usize, filter: &EventFilter) -> Events {
    view(&log.after(after, limit, |event| filter.matches(event)))
}

fn view(found: &Found) -> Events {
    let events = found.events.iter();
    Events {
        events: events.map(|(number, event)| Event::new(*number, event)).collect(),
        last: found.last,
        gap: found.is_gap,
    }
}
