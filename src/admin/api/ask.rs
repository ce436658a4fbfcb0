//! What a request brings, by the types of its handler.

use std::{any::TypeId, time::Duration};

use axum::{
    RequestExt as _,
    body::to_bytes,
    extract::{Path, Query, Request},
    http::{HeaderName, Method, StatusCode, header},
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    admin::{admission::Admission, caller::Caller, views::Problem},
    config::MAX_CONFIG_BYTES,
};

/// Largest JSON body of a request, in bytes.
pub const MAX_JSON_BYTES: usize = 16 << 10;

/// What a browser sends when it goes on with a stream of events.
static LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// What a handler is asked.
#[derive(Debug)]
pub struct Ask<P = Nothing, Q = Nothing, B = Nothing> {
    /// Who asks.
    pub caller: Caller,
    /// What the path names.
    pub path: P,
    /// The query.
    pub query: Q,
    /// The body.
    pub body: B,
    /// The entity tag of what the asker has seen (`If-Match`), if it says so.
    pub if_match: Option<String>,
    /// The media types that the asker takes (`Accept`), if it says so.
    pub accept: Option<String>,
    /// The last event that the asker has heard (`Last-Event-ID`), if it says so.
    pub last_event_id: Option<u64>,
    /// Whether the asker still would be let in, for answers that go on.
    pub admission: Admission,
}

/// Of a handler that does not ask for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// A body.
pub trait Body: Sized + Send + 'static {
    /// Its media type; `None`: there is none.
    const MEDIA: Option<&'static str>;

    /// Its largest size in bytes.
    const MOST: usize;

    /// Its form.
    fn schema(generator: &mut SchemaGenerator) -> Schema;

    /// Reads it.
    ///
    /// # Errors
    /// 400: it has another form.
    fn parse(bytes: Vec<u8>) -> Result<Self, Problem>;
}

impl Body for Nothing {
    const MEDIA: Option<&'static str> = None;
    const MOST: usize = 0;

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<Self>()
    }

    fn parse(_bytes: Vec<u8>) -> Result<Self, Problem> {
        Ok(Self {})
    }
}

/// A body in JSON.
#[derive(Debug)]
pub struct JsonBody<T>(pub T);

impl<T: DeserializeOwned + JsonSchema + Send + 'static> Body for JsonBody<T> {
    const MEDIA: Option<&'static str> = Some("application/json");
    const MOST: usize = MAX_JSON_BYTES;

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<T>()
    }

    fn parse(bytes: Vec<u8>) -> Result<Self, Problem> {
        let mut json = serde_json::Deserializer::from_slice(&bytes);
        let read = serde_path_to_error::deserialize(&mut json).map_err(|error| {
            let pointer = pointer(error.path());
            let why = format!("invalid request body: {}", in_words(&error.inner().to_string()));
            Problem::new(StatusCode::BAD_REQUEST, why).at(pointer)
        })?;
        json.end()
            .map_err(|error| bad(&format!("invalid request body: {error}")))?;
        Ok(Self(read))
    }
}

/// What serde says, without the names of our types.
fn in_words(said: &str) -> String {
    let Some((before, after)) = said.split_once("expected ") else {
        return said.to_owned();
    };
    let ours = ["struct ", "internally tagged enum ", "tuple struct ", "map"];
    let Some(named) = ours.iter().find_map(|kind| after.strip_prefix(kind)) else {
        return said.to_owned();
    };
    // behind the name comes where it stands
    let rest = named.find(" at line").map_or("", |at| &named[at..]);
    format!("{before}expected an object{rest}")
}

/// The place of a field as a JSON pointer (RFC 6901); the whole body is "".
fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let mut pointer = String::new();
    for segment in path {
        let part = match segment {
            Segment::Seq { index } => index.to_string(),
            Segment::Map { key } => key.replace('~', "~0").replace('/', "~1"),
            Segment::Enum { variant } => variant.clone(),
            Segment::Unknown => break,
        };
        pointer.push('/');
        pointer.push_str(&part);
    }
    pointer
}

/// The text of a configuration.
#[derive(Debug)]
pub struct Toml(pub Vec<u8>);

impl Body for Toml {
    const MEDIA: Option<&'static str> = Some("application/toml");
    const MOST: usize = MAX_CONFIG_BYTES;

    fn schema(_generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }

    fn parse(bytes: Vec<u8>) -> Result<Self, Problem> {
        Ok(Self(bytes))
    }
}

/// What is to change (RFC 7396).
#[derive(Debug)]
pub struct MergePatch(pub Value);

impl Body for MergePatch {
    const MEDIA: Option<&'static str> = Some("application/merge-patch+json");
    const MOST: usize = MAX_CONFIG_BYTES;

    fn schema(_generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object" })
    }

    fn parse(bytes: Vec<u8>) -> Result<Self, Problem> {
        JsonBody::parse(bytes).map(|JsonBody(patch)| Self(patch))
    }
}

/// A request as its handler wants it.
///
/// # Errors
/// 400, 408, 413, 415: it is not as it should be. 401: nobody knows who asks.
pub async fn read<P, Q, B>(mut request: Request, limit: Duration) -> Result<Ask<P, Q, B>, Problem>
where
    P: DeserializeOwned + Send + 'static,
    Q: DeserializeOwned + Send + 'static,
    B: Body,
{
    let caller = request
        .extensions()
        .get::<Caller>()
        .cloned()
        .ok_or_else(|| Problem::new(StatusCode::UNAUTHORIZED, "nobody knows who you are"))?;
    let path = if TypeId::of::<P>() == TypeId::of::<Nothing>() {
        serde_json::from_value(json!({})).map_err(|error| bad(&error))?
    } else {
        let path = request.extract_parts::<Path<P>>().await;
        path.map_err(|rejection| bad(&rejection.body_text()))?.0
    };
    let query = Query::<Q>::try_from_uri(request.uri());
    let query = query.map_err(|rejection| bad(&rejection.body_text()))?.0;
    let if_match = text_of(&request, &header::IF_MATCH);
    let accept = text_of(&request, &header::ACCEPT);
    let admission = (request.extensions().get::<Admission>().cloned()).unwrap_or_default();
    let last_event_id = text_of(&request, &LAST_EVENT_ID).and_then(|id| id.parse().ok());
    let is_local = matches!(caller, Caller::Local(_));
    let body = body::<B>(request, is_local, limit).await?;
    Ok(Ask {
        caller,
        path,
        query,
        body,
        if_match,
        accept,
        last_event_id,
        admission,
    })
}

fn text_of(request: &Request, name: &HeaderName) -> Option<String> {
    let value = request.headers().get(name)?;
    value.to_str().ok().map(str::to_owned)
}

fn bad(why: &dyn std::fmt::Display) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, why.to_string())
}

/// Whether no form of a web page sends this: what changes something must say so, unless it comes by the control socket.
fn is_no_form(media: &str) -> bool {
    let media = media.to_ascii_lowercase();
    media.starts_with("application/") && media != "application/x-www-form-urlencoded"
}

/// Whether a method changes something, and is sent by forms: a browser asks first before it sends others.
fn changes(method: &Method) -> bool {
    *method == Method::POST
}

async fn body<B: Body>(request: Request, is_local: bool, limit: Duration) -> Result<B, Problem> {
    let sent = (request.headers().get(header::CONTENT_TYPE))
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .map(str::trim);
    let Some(media) = B::MEDIA else {
        return match is_local || sent.is_some_and(is_no_form) || !changes(request.method()) {
            true => B::parse(Vec::new()),
            false => Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "send Content-Type: application/json, with an empty body, too",
            )),
        };
    };
    if !sent.is_some_and(|sent| sent.eq_ignore_ascii_case(media)) {
        // required so that no web page can send requests with a plain form
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            format!("send the body with Content-Type: {media}"),
        ));
    }
    let bytes = timeout(limit, to_bytes(request.into_body(), B::MOST))
        .await
        .map_err(|_| Problem::new(StatusCode::REQUEST_TIMEOUT, "timed out reading the request body"))?
        .map_err(|error| {
            Problem::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("cannot read the request body (limit: {} bytes): {error}", B::MOST),
            )
        })?;
    B::parse(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_body_is_said_without_names_of_types() {
        let wrong = |body: &str| match JsonBody::<crate::admin::views::ServerRequest>::parse(body.into()) {
            Ok(request) => panic!("{request:?}"),
            Err(problem) => problem.message,
        };
        assert!(
            wrong("7").contains("invalid type: integer `7`, expected an object at line 1"),
            "{}",
            wrong("7")
        );
        for body in [
            "7",
            "[]",
            "{}",
            "null",
            r#"{"action": 7}"#,
            r#"{"action": "drian"}"#,
        ] {
            let said = wrong(body);
            assert!(!said.contains("struct ") && !said.contains("enum "), "{said}");
        }
    }

    #[test]
    fn what_changes_something_says_that_no_form_of_a_page_sends_it() {
        for media in [
            "application/json",
            "application/toml",
            "Application/Merge-Patch+JSON",
        ] {
            assert!(is_no_form(media), "{media}");
        }
        for media in [
            "",
            "text/plain",
            "multipart/form-data",
            "Application/X-WWW-Form-Urlencoded",
        ] {
            assert!(!is_no_form(media), "{media}");
        }
        assert!(changes(&Method::POST));
        // a browser asks before it sends these to another site
        assert!(
            ![Method::GET, Method::DELETE, Method::PUT, Method::PATCH]
                .iter()
                .any(changes)
        );
    }
}
