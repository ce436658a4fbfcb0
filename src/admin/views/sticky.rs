//! Clients that stay with their servers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Clients that are sent to the server that they had before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StickyClients {
    /// Client networks that are remembered now.
    pub entries: usize,
    /// `max_entries`.
    pub max_entries: u32,
    /// How often there was no room to remember one.
    pub refused: u64,
}
