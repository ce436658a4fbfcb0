//! Connections and flows.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::Word;
use crate::{
    base::{BackendName, ClientAddr, FrontendName, ListenAddr, Protocol, Remote, ServerAddr, ServerName},
    config::Mode,
    flow::FlowState,
};

/// Query of `GET /v1/connections`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectionFilter {
    /// Only of this frontend.
    pub frontend: Option<String>,
    /// Only to this backend.
    pub backend: Option<String>,
    /// Only to this server.
    pub server: Option<String>,
    /// Limit (default 1,000, at most 100,000).
    pub limit: Option<usize>,
}

/// `GET /v1/connections`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Connections {
    /// How many match.
    pub total: usize,
    /// Some of them, oldest first.
    pub connections: Vec<Connection>,
}

/// Proxied connections against what the limit of open files allows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxiedConnections {
    /// Open now.
    pub open: u32,
    /// Maximum; the rest waits in the kernel's queues.
    pub most: u32,
    /// How often a listener has stopped accepting because there were that many.
    pub accept_pauses: u64,
}

/// TLS between a client and its frontend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tls {
    /// Its version, such as `TLSv1.3`.
    pub version: String,
    /// The suite, by its IANA name.
    pub cipher: String,
    /// The group of its key exchange.
    pub group: Option<String>,
    /// The protocol agreed on.
    pub alpn: Option<String>,
    /// Whether it goes on with an earlier session.
    pub resumed: bool,
    /// The subject of the client's certificate.
    pub client_subject: Option<String>,
}

/// One open connection of the proxy, or one flow of a packet mode.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Connection {
    /// Client's address; `unix` if it has none.
    pub client: Remote<ClientAddr>,
    /// Its protocol.
    pub protocol: Word<Protocol>,
    /// Its frontend's mode.
    pub mode: Word<Mode>,
    /// Frontend's name.
    pub frontend: FrontendName,
    /// Backend's name; `None` until one is chosen.
    pub backend: Option<BackendName>,
    /// Server's name; `None` while none is connected.
    pub server: Option<ServerName>,
    /// The server's address.
    #[serde(default)]
    pub server_addr: Option<ServerAddr>,
    /// Whether the server is no longer configured, or at another address.
    #[serde(default)]
    pub server_removed: bool,
    /// Whether the frontend is no longer configured.
    #[serde(default)]
    pub frontend_removed: bool,
    /// The name that the client of a connection has asked for in its ClientHello, where that was read.
    #[serde(default)]
    pub sni: Option<String>,
    /// What the client of a connection has agreed on in TLS that ends here.
    #[serde(default)]
    pub tls: Option<Tls>,
    /// What the server of a connection has agreed on, where connections to it go through TLS.
    #[serde(default)]
    pub server_tls: Option<super::ServerTls>,
    /// Address and port on our side towards the server.
    #[serde(default)]
    pub local: Option<SocketAddr>,
    /// Seconds since either side has sent data; of a flow, since its last packet.
    #[serde(default)]
    pub idle_seconds: Option<f64>,
    /// Worker thread that owns a connection.
    pub worker: Option<usize>,
    /// Seconds since a connection was accepted.
    pub age_seconds: Option<f64>,
    /// Bytes of a connection from client to server.
    pub bytes_in: Option<u64>,
    /// Bytes of a connection from server to client.
    pub bytes_out: Option<u64>,
    /// What only a flow has.
    pub flow: Option<Flow>,
}

/// A flow of the packet modes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Flow {
    /// Destination of the client's packets.
    pub vip: ListenAddr,
    /// Source address and port towards the server, in passthrough.
    pub nat: Option<SocketAddr>,
    /// Its TCP state.
    pub state: Word<FlowState>,
    /// Seconds since its last packet.
    pub idle_seconds: f64,
    /// Seconds until it expires if no packet comes.
    pub expires_in_seconds: f64,
}
