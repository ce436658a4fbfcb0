//! The configuration: its text, what is wrong with one, what one would change, and what there was.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::{Diagnostic, Severity};

/// `POST /v1/config/check`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CheckedConfig {
    /// Whether it can be used, as far as that is seen without the files that it names.
    pub valid: bool,
    /// What is wrong with it, in the order of the text.
    pub findings: Vec<Finding>,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// `error`: it cannot be used. `warning`: it can, but probably not as meant.
    pub severity: String,
    /// Line, from 1; 0 if it is about the text as a whole.
    pub line: usize,
    /// Column in characters, from 1; 0 if it is about the text as a whole.
    pub column: usize,
    /// Which key, such as `frontends.web.listen_addr`; empty for the text as a whole.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub help: Option<String>,
}

impl From<&Diagnostic> for Finding {
    fn from(found: &Diagnostic) -> Self {
        Self {
            severity: match found.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
            }
            .to_owned(),
            line: found.line,
            column: found.column,
            path: found.path.clone(),
            message: found.message.clone(),
            help: found.help.clone(),
        }
    }
}

/// `POST /v1/config/diff`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConfigDiff {
    /// What would change, a line each; empty if nothing would.
    pub changes: Vec<String>,
    /// Settings that would take effect only after a restart.
    pub needs_restart: Vec<String>,
    /// The lines that differ, as a unified diff.
    pub lines: String,
    /// What would be removed while it has connections, which go on until they end.
    #[serde(default)]
    pub draining: Vec<Draining>,
    /// Established connections that would be cut, without which the reload fails (`POST /v1/reload?cut=true`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut: Option<WouldCut>,
    /// What is wrong with the text although it can be used.
    #[serde(default)]
    pub warnings: Vec<Finding>,
}

/// Something that would be removed while it has connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Draining {
    /// What: `frontend mail`, `server web/a`.
    pub what: String,
    /// Its connections and flows now.
    pub connections: u64,
}

/// What cannot go on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WouldCut {
    /// How many connections and flows.
    pub connections: u64,
    /// Which, and why.
    pub why: String,
}

/// `GET /v1/config/history`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConfigHistory {
    /// The texts that were in effect, the latest first.
    pub revisions: Vec<Revision>,
}

/// A text that was in effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Revision {
    /// Its number, which goes on over restarts.
    pub revision: u64,
    /// When it took effect (RFC 3339, UTC).
    pub at: String,
    /// Who asked for it, or what was noticed.
    pub by: String,
    /// The generation that it was in its process.
    pub generation: u64,
    /// What it changed, a line each.
    pub changes: Vec<String>,
    /// Its size in bytes.
    pub bytes: u64,
}

/// `POST /v1/config/rollback`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rollback {
    /// The number of the text that shall be in effect again.
    pub revision: u64,
}
