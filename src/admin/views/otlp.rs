//! What is exported by OTLP.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Word;
use crate::base::OtlpSignal;

/// Metrics, or the connection log, exported by OTLP.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OtlpExport {
    /// Which.
    pub signal: Word<OtlpSignal>,
    /// Where it goes.
    pub url: String,
    /// Requests since the start, by what the collector has said of them: `accepted`, `partial` (something in it was rejected),
    /// `refused`, `later`, `failed` (no answer).
    pub requests: BTreeMap<String, u64>,
    /// Data points or log records that got lost since the start: `refused` or `rejected` by the collector, `late` (not taken in
    /// time), `queue_full`.
    pub dropped: BTreeMap<String, u64>,
    /// When a request was accepted last, in seconds since 1970; `None`: never since the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_success: Option<f64>,
    /// What is wrong now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}
