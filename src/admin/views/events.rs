//! What has happened.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Word;
use crate::{
    admin::events::{EventRecord, Level},
    base::{BackendName, FrontendName, ServerName},
};

/// `GET /v1/events`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Events {
    /// They, the oldest first.
    pub events: Vec<Event>,
    /// The number to ask for those `after`, next time.
    pub last: u64,
    /// Whether some that came after the number asked for are kept no more.
    pub gap: bool,
}

/// An event of the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// Its number: higher than that of every event before it, also before a restart.
    pub id: u64,
    /// When it happened (RFC 3339, UTC).
    pub at: String,
    /// How much it matters.
    pub level: Word<Level>,
    /// Its name, as in the log's field `event`.
    pub event: String,
    /// What the log says.
    pub message: String,
    /// What it names, by the names of the log's fields.
    pub fields: BTreeMap<String, String>,
}

/// Which events: those that match everything that is given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EventQuery {
    /// Those after this number, the oldest first; without it the latest.
    pub after: Option<u64>,
    /// How many, at most 1,024.
    pub limit: Option<usize>,
    /// Of these names, between commas.
    pub event: Option<String>,
    /// That matter so much or more: info, warning or error.
    pub level: Option<String>,
    /// That name this frontend.
    pub frontend: Option<FrontendName>,
    /// That name this backend.
    pub backend: Option<BackendName>,
    /// That name this server.
    pub server: Option<ServerName>,
}

/// What of the events is wanted.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    names: Option<Vec<String>>,
    level: Option<Level>,
    fields: Vec<(&'static str, String)>,
}

impl EventQuery {
    /// What is wanted.
    ///
    /// # Errors
    /// The level that there is not.
    pub fn filter(&self) -> Result<EventFilter, String> {
        let level = self.level.as_ref();
        let level = level
            .map(|word| {
                let found = Level::ALL.into_iter().find(|level| level.label() == word);
                found.ok_or_else(|| format!("`{word}` is not a level: info, warning or error"))
            })
            .transpose()?;
        let named = [
            ("frontend", self.frontend.as_ref().map(ToString::to_string)),
            ("backend", self.backend.as_ref().map(ToString::to_string)),
            ("server", self.server.as_ref().map(ToString::to_string)),
        ];
        Ok(EventFilter {
            names: (self.event.as_ref()).map(|names| names.split(',').map(str::to_owned).collect()),
            level,
            fields: (named.into_iter())
                .filter_map(|(name, value)| Some((name, value?)))
                .collect(),
        })
    }
}

impl EventFilter {
    /// Whether an event is wanted.
    #[must_use]
    pub fn matches(&self, event: &EventRecord) -> bool {
        self.names
            .as_ref()
            .is_none_or(|names| names.contains(&event.name))
            && self.level.is_none_or(|level| event.level >= level)
            && (self.fields.iter()).all(|(name, value)| event.fields.get(name) == Some(value))
    }
}

impl Event {
    /// Of a record with its number.
    #[must_use]
    pub fn new(id: u64, record: &EventRecord) -> Self {
        let fields = record.fields.iter();
        Self {
            id,
            at: jiff::Timestamp::try_from(record.at)
                .map(|at| at.to_string())
                .unwrap_or_default(),
            level: record.level.into(),
            event: record.name.clone(),
            message: record.message.clone(),
            fields: fields
                .map(|(name, value)| ((*name).to_owned(), value.clone()))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn an_event_matches_everything_that_is_given() {
        let event = EventRecord {
            at: SystemTime::UNIX_EPOCH,
            level: Level::Warning,
            name: "server_down".to_owned(),
            message: String::new(),
            fields: BTreeMap::from([("backend", "web".to_owned()), ("server", "a".to_owned())]),
        };
        let matches = |query: &str| {
            let query: EventQuery = serde_json::from_str(query).unwrap();
            query.filter().unwrap().matches(&event)
        };
        for query in [
            "{}",
            r#"{"backend":"web"}"#,
            r#"{"backend":"web","server":"a","level":"warning"}"#,
            r#"{"event":"server_up,server_down","level":"info"}"#,
        ] {
            assert!(matches(query), "{query}");
        }
        for query in [
            r#"{"backend":"db"}"#,
            r#"{"frontend":"web"}"#,
            r#"{"level":"error"}"#,
            r#"{"event":"server"}"#,
        ] {
            assert!(!matches(query), "{query}");
        }
        let query: EventQuery = serde_json::from_str(r#"{"level":"warn"}"#).unwrap();
        assert!(query.filter().is_err());
    }
}
