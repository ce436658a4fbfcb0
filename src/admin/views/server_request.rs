//! What is asked of a server.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `POST /v1/backends/{backend}/servers/{server}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ServerRequest {
    /// What to do.
    #[serde(flatten)]
    pub action: ServerAction,
    /// Do it even if the backend then has no eligible server.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
}

/// An operator's request about a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "action")]
pub enum ServerAction {
    /// Keep connections, send no new ones.
    Drain,
    /// Clear all overrides: health checks and the configured weight apply again.
    Ready,
    /// No new connections, no checks.
    Maintenance,
    /// Override the configured weight.
    Weight {
        /// The weight; 0 takes it out of service.
        weight: u16,
    },
}

impl fmt::Display for ServerAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Drain => f.write_str("drain"),
            Self::Ready => f.write_str("ready"),
            Self::Maintenance => f.write_str("maintenance"),
            Self::Weight { weight } => write!(f, "weight {weight}"),
        }
    }
}
