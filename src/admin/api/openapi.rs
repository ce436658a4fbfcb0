//! The OpenAPI 3.1 document, made from the types of the handlers.

use schemars::{
    JsonSchema, Schema, SchemaGenerator,
    generate::{Contract, SchemaSettings},
};
use serde_json::{Map, Value, json};

use super::{answer::Answer, ask::Body};
use crate::{admin::views::Problem, base::Role};

/// Where the document has its schemas.
const SCHEMAS: &str = "/components/schemas";

/// A method of HTTP that the API uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Looks.
    Get,
    /// Does something.
    Post,
    /// Replaces something.
    Put,
    /// Changes parts of something.
    Patch,
    /// Removes something.
    Delete,
}

impl Method {
    /// As OpenAPI writes it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Post => "post",
            Self::Put => "put",
            Self::Patch => "patch",
            Self::Delete => "delete",
        }
    }
}

/// What a handler does.
#[derive(Debug)]
pub struct Operation {
    /// Its method.
    pub method: Method,
    /// Its path, with names in braces.
    pub path: &'static str,
    /// Who may.
    pub needed: Role,
    /// In a few words.
    pub summary: &'static str,
    /// Its name.
    pub id: &'static str,
}

/// The document while it is made.
#[derive(Debug)]
pub struct Document {
    paths: Map<String, Value>,
    /// Of what is answered.
    answers: SchemaGenerator,
    /// Of what is asked: of a type's other side, so never by reference.
    asks: SchemaGenerator,
}

impl Default for Document {
    fn default() -> Self {
        let settings = |contract, inline| {
            SchemaSettings::draft2020_12().with(|settings| {
                settings.meta_schema = None;
                settings.definitions_path = SCHEMAS.into();
                settings.contract = contract;
                settings.inline_subschemas = inline;
            })
        };
        Self {
            paths: Map::new(),
            answers: settings(Contract::Serialize, false).into_generator(),
            asks: settings(Contract::Deserialize, true).into_generator(),
        }
    }
}

impl Document {
    /// Describes a handler by what it takes and what it answers.
    pub fn add<P: JsonSchema, Q: JsonSchema, B: Body, A: Answer>(&mut self, operation: &Operation) {
        let mut parameters = parameters("path", &self.asks.subschema_for::<P>());
        parameters.extend(self::parameters("query", &self.asks.subschema_for::<Q>()));
        let mut described = json!({
            "operationId": operation.id,
            "summary": operation.summary,
            "tags": [tag(operation.path)],
            "description": format!("Needs the role `{}`.", operation.needed),
            "responses": {
                "200": content("Done.", A::MEDIA, &A::schema(&mut self.answers)),
                "default": content("A problem (RFC 9457).", Problem::MEDIA, &self.answers.subschema_for::<Problem>()),
            },
        });
        let must_match = matches!(operation.method, Method::Put | Method::Patch);
        if must_match || operation.path.ends_with("/rollback") {
            parameters.push(json!({
                "name": "If-Match",
                "in": "header",
                "required": must_match,
                "description": "The ETag of what is replaced.",
                "schema": { "type": "string" },
            }));
        }
        if !parameters.is_empty() {
            described["parameters"] = parameters.into();
        }
        if let Some(media) = B::MEDIA {
            let schema = B::schema(&mut self.asks);
            described["requestBody"] =
                json!({ "required": true, "content": { (media): { "schema": schema } } });
        }
        let path = self.paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method.label()] = described;
    }

    /// The paths so far.
    #[cfg(test)]
    pub fn paths(&self) -> Vec<String> {
        self.paths.keys().cloned().collect()
    }

    /// The document.
    pub fn finish(mut self) -> Value {
        let schemas = self.answers.take_definitions(true);
        json!({
            "openapi": "3.1.0",
            "info": {
                "title": "Convey",
                "version": env!("CARGO_PKG_VERSION"),
                "description": "The admin API of Convey, at its control socket and, if `[admin] listen_addr` is set, on TCP.",
            },
            "servers": [{ "url": "/" }],
            "security": [{ "token": [] }, {}],
            "paths": self.paths,
            "components": {
                "schemas": schemas,
                "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
            },
        })
    }
}

/// The resource that a path belongs to.
fn tag(path: &str) -> &str {
    let path = path.strip_prefix("/v1/").unwrap_or(path);
    path.trim_start_matches('/').split('/').next().unwrap_or_default()
}

fn content(description: &str, media: &str, schema: &Schema) -> Value {
    json!({ "description": description, "content": { (media): { "schema": schema } } })
}

/// The fields of an object as parameters.
fn parameters(place: &str, schema: &Schema) -> Vec<Value> {
    let field = |name| schema.get(name);
    let required: Vec<&str> = field("required")
        .and_then(Value::as_array)
        .map(|names| names.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    let Some(properties) = field("properties").and_then(Value::as_object) else {
        return Vec::new();
    };
    let parameter = |(name, schema): (&String, &Value)| {
        let mut described = json!({
            "name": name,
            "in": place,
            "required": place == "path" || required.contains(&name.as_str()),
            "schema": schema,
        });
        if let Some(text) = schema.get("description") {
            described["description"] = text.clone();
        }
        described
    };
    properties.iter().map(parameter).collect()
}
