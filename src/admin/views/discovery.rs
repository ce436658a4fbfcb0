//! Sources of servers, as they are shown.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Word;
use crate::config::DiscoveryKind;

/// A source of servers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Discovery {
    /// Its kind.
    pub kind: Word<DiscoveryKind>,
    /// What it is, such as `file /etc/convey/web.servers`.
    pub source: Arc<str>,
    /// Servers in effect that are not in the configuration.
    pub servers: usize,
    /// Seconds since its last answer that was obeyed.
    pub answered_seconds: Option<f64>,
    /// Servers of that answer that may not be taken.
    pub left_out: usize,
    /// Servers that it named again.
    pub duplicates: usize,
    /// What is wrong, if something is: the servers stay, unless `on_failure` is "empty".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<DiscoveryProblem>,
}

/// What is wrong with a source of servers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DiscoveryProblem {
    /// Whether it has answered, but would take too many servers away.
    pub held: bool,
    /// The reason in one word.
    pub reason: Arc<str>,
    /// In words.
    pub text: Arc<str>,
    /// Seconds since it is so.
    pub seconds: f64,
}
