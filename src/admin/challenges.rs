//! What a CA is answered that asks by HTTP whether a name is ours (HTTP-01, RFC 8555, section 8.3). Anybody may ask, so this has
//! bounds of its own, and nothing else is there.

use std::{fmt, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};

use super::http::HttpLimits;

/// Longest token that is looked for, in bytes: one has 43 of Let's Encrypt, and 22 at least (RFC 8555, section 8.1).
const MAX_TOKEN_BYTES: usize = 256;

/// What is answered to a token.
#[derive(Clone)]
pub struct Answers(Arc<Answer>);

/// The answer to a token, if there is one.
type Answer = dyn Fn(&str) -> Option<String> + Send + Sync;

impl Answers {
    /// As this says.
    pub fn new(answer: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(answer))
    }
}

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answers")
    }
}

/// The one path.
pub(super) fn router(answers: Answers) -> Router {
    Router::new()
        .route("/.well-known/acme-challenge/{token}", get(token))
        .fallback(nothing)
        .method_not_allowed_fallback(nothing)
        .with_state(answers)
}

/// What one of those who ask may take: a CA asks once, from a few places.
pub(super) fn limits() -> HttpLimits {
    HttpLimits {
        connections: 64,
        per_peer: 8,
        header: Duration::from_secs(5),
        connection: Duration::from_secs(10),
        ..HttpLimits::default()
    }
}

async fn token(State(answers): State<Answers>, Path(token): Path<String>) -> Response {
    let answer = Some(token).filter(|token| token.len() <= MAX_TOKEN_BYTES);
    match answer.and_then(|token| (answers.0)(&token)) {
        Some(answer) => ([(header::CONTENT_TYPE, "application/octet-stream")], answer).into_response(),
        None => nothing().await,
    }
}

async fn nothing() -> Response {
    StatusCode::NOT_FOUND.into_response()
}
