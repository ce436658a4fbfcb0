//! Where lines about connections go.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A place that lines about connections go to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogOutput {
    /// Which: `file PATH` or `syslog SERVER`.
    pub output: String,
    /// Lines that could neither be written nor wait.
    pub dropped: u64,
    /// What is wrong with it now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}
