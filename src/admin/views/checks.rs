//! What checks and agents have found out of a server.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Word;
use crate::base::CheckOutcome;

/// One health check.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CheckResult {
    /// How it ended.
    pub outcome: Word<CheckOutcome>,
    /// Seconds since it began.
    pub seconds_ago: f64,
    /// How long it took, in milliseconds.
    pub milliseconds: f64,
    /// Why, unless it passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Arc<str>>,
}

/// What a server's agent says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Agent {
    /// What the server should get: `drain` or `maint`, its weight, its connections; empty if nothing in particular.
    pub says: String,
    /// Why it was not understood or not reached, the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Arc<str>>,
}
