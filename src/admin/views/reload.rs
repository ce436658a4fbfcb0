//! Reload.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::base::BackendName;

/// What `POST /v1/reload` is asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ReloadQuery {
    /// Cut the established connections that a change does not leave; else the reload fails.
    pub cut: bool,
}

/// `POST /v1/reload`, success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reloaded {
    /// The new configuration generation.
    pub config_generation: u64,
    /// What changed, a line each; empty when nothing did.
    pub changes: Vec<String>,
    /// Changed settings that need a restart to take effect.
    pub needs_restart: Vec<String>,
    /// Established connections that were cut because their address changed between mode proxy and a packet mode.
    #[serde(default)]
    pub cut: u64,
    /// Backends that are new or changed, or that new or changed frontends lead to.
    #[serde(default)]
    pub backends: Vec<BackendName>,
    /// Rendered warnings, empty without any.
    pub warnings: String,
}
