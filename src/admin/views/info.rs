//! The process.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Phase, Word};

/// `GET /v1/info`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Info {
    /// Version of the running daemon.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime_seconds: f64,
    /// What it is doing.
    pub phase: Word<Phase>,
    /// The configuration file.
    pub config_file: String,
    /// Number of successful configuration loads (1 = the one at start).
    pub config_generation: u64,
    /// The last reload that failed since the last one that succeeded, as text.
    pub last_reload_error: Option<String>,
    /// Changed settings that need a restart to take effect.
    pub needs_restart: Vec<String>,
    /// Whether the API may replace the configuration file (`allow_config_writes`, as it was at the start).
    #[serde(default)]
    pub allow_config_writes: bool,
}
