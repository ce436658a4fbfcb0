//! What a handler answers, and how that is described.

use axum::{
    Json,
    http::{HeaderValue, header},
    response::{IntoResponse as _, Response},
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;

/// An answer.
pub trait Answer: Send + 'static {
    /// Its media type.
    const MEDIA: &'static str;

    /// Its form.
    fn schema(generator: &mut SchemaGenerator) -> Schema;

    /// The response.
    fn into_response(self) -> Response;
}

impl<T: Serialize + JsonSchema + Send + 'static> Answer for Json<T> {
    const MEDIA: &'static str = "application/json";

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<T>()
    }

    fn into_response(self) -> Response {
        axum::response::IntoResponse::into_response(self)
    }
}

/// A text.
#[derive(Debug)]
pub struct Text(pub String);

impl Answer for Text {
    const MEDIA: &'static str = "text/plain";

    fn schema(_generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }

    fn into_response(self) -> Response {
        self.0.into_response()
    }
}

/// The text of a configuration, byte for byte.
#[derive(Debug)]
pub struct TomlText(pub Vec<u8>);

impl Answer for TomlText {
    const MEDIA: &'static str = "application/toml";

    fn schema(_generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }

    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, Self::MEDIA)], self.0).into_response()
    }
}

/// An answer with an entity tag (RFC 9110, 8.8.3), by which a later request says what it has seen.
#[derive(Debug)]
pub struct Tagged<A> {
    /// The tag, between its quotation marks.
    pub tag: String,
    /// The answer.
    pub answer: A,
}

impl<A: Answer> Answer for Tagged<A> {
    const MEDIA: &'static str = A::MEDIA;

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        A::schema(generator)
    }

    fn into_response(self) -> Response {
        let mut response = self.answer.into_response();
        if let Ok(tag) = HeaderValue::from_str(&self.tag) {
            response.headers_mut().insert(header::ETAG, tag);
        }
        response
    }
}
