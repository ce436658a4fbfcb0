//! TLS between Convey and the servers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a server has agreed on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ServerTls {
    /// Its version, such as `TLSv1.3`.
    pub version: String,
    /// The suite, by its IANA name.
    pub cipher: String,
    /// The group of its key exchange.
    pub group: Option<String>,
    /// The protocol that the server has chosen.
    pub alpn: Option<String>,
    /// Whether it goes on with an earlier session.
    pub resumed: bool,
}

/// How a backend's servers are spoken to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TlsToServers {
    /// Whether their certificates are verified.
    pub verified: bool,
    /// The name that they are asked for and that their certificates must have: `address`, `server`, `client` or a host name;
    /// of one connection, what these stand for.
    pub server_name: String,
}
