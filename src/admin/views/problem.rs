//! What is wrong.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is wrong with a request, as RFC 9457 has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// HTTP status.
    pub status: u16,
    /// What is wrong and what would be right.
    #[serde(rename = "detail")]
    pub message: String,
    /// Which field of the body is wrong, as a JSON pointer (RFC 6901).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pointer: Option<Box<str>>,
}

/// Why a reload has changed nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReloadFailed {
    /// What is wrong, rendered.
    pub message: String,
    /// Whether it is the configuration, and not the system.
    pub config_error: bool,
}

impl Problem {
    /// The media type.
    pub const MEDIA: &str = "application/problem+json";

    /// A problem with an HTTP status.
    #[must_use]
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status: status.as_u16(),
            message: message.into(),
            pointer: None,
        }
    }

    /// The same of a field.
    #[must_use]
    pub fn at(self, pointer: impl Into<Box<str>>) -> Self {
        Self {
            pointer: Some(pointer.into()),
            ..self
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self)).into_response();
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static(Problem::MEDIA));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            // a reload or a change of the firewall takes about so long
            let headers = response.headers_mut();
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
