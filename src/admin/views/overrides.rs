//! What an operator has set at run time.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Overridden, Word};
use crate::base::{BackendName, ServerName};

/// `GET /v1/overrides`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Overrides {
    /// Those in effect, by backend and server.
    pub overrides: Vec<OverriddenServer>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OverriddenServer {
    /// The server's backend.
    pub backend: BackendName,
    /// The server.
    pub server: ServerName,
    /// What is set.
    pub overridden: Word<Overridden>,
}
