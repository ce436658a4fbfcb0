//! Servers that operators add at run time.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::base::{BackendName, ServerName};

/// `POST /v1/backends/{backend}/servers`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewServer {
    /// Its name. Default: its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its address, `IP:port`.
    pub addr: String,
    /// Its weight. Default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u16>,
    /// Its priority group; only the lowest with a server up is used. Default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u16>,
    /// Its limit of connections. Default, and 0: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<u32>,
    /// The name that it serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sni: Option<String>,
}

/// A server that was added or removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AddedServer {
    /// Its backend.
    pub backend: BackendName,
    /// Its name.
    pub server: ServerName,
    /// Whether that takes effect a moment later: where packets are forwarded the firewall comes first.
    pub pending: bool,
}
