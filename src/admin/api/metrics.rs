//! `GET /metrics`.

use axum::{
    body::Body,
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use super::{
    answer::Answer,
    ask::{Ask, Nothing},
    context::ApiContext,
};
use crate::admin::{
    metrics::{Format, Scope, ScrapeBody},
    views::Problem,
};

/// What is asked for.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MetricsQuery {
    /// Only what is about these, between commas: `process`, `frontend`, `backend`, `server`, `source`, `packet`.
    #[serde(default)]
    pub scope: Option<String>,
}

impl MetricsQuery {
    /// The scopes; none if all are asked for.
    ///
    /// # Errors
    /// 400: one is unknown.
    pub fn scopes(&self) -> Result<Vec<Scope>, Problem> {
        let words = self.scope.iter().flat_map(|scopes| scopes.split(','));
        words
            .map(|word| {
                let found = Scope::ALL.into_iter().find(|scope| scope.label() == word);
                found.ok_or_else(|| {
                    let known = Scope::ALL.map(Scope::label).join(", ");
                    let why = format!("`{word}` is not a scope: there are {known}");
                    Problem::new(StatusCode::BAD_REQUEST, why)
                })
            })
            .collect()
    }
}

/// The metrics as text.
pub struct MetricsText(Format, ScrapeBody);

impl MetricsText {
    /// Those of now.
    pub fn new(context: &ApiContext, accept: Option<&str>, scopes: Vec<Scope>) -> Self {
        let format = Format::accepted(accept);
        Self(format, ScrapeBody::new(context.scrape(), format, scopes))
    }
}

impl Answer for MetricsText {
    const MEDIA: &'static str = "text/plain";

    fn schema(_generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }

    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, self.0.media())], Body::new(self.1)).into_response()
    }
}

/// Everything that is counted and measured, for Prometheus.
pub async fn metrics(context: ApiContext, ask: Ask<Nothing, MetricsQuery>) -> Result<MetricsText, Problem> {
    Ok(MetricsText::new(
        &context,
        ask.accept.as_deref(),
        ask.query.scopes()?,
    ))
}
