//! Connections and flows.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Word;
use crate::{
    base::{BackendName, ClientAddr, FrontendName, ListenAddr, Protocol, Remote, ServerAddr, ServerName},
    config::Mode,
    flow::FlowState,
};

/// Query of `DELETE /v1/connections`: which. All that is given must apply.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConnectionFilter {
    /// Only of this frontend.
    pub frontend: Option<String>,
    /// Only to this backend.
    pub backend: Option<String>,
    /// Only to this server.
    pub server: Option<String>,
    /// Only of this client: an IP address, or one with a port.
    pub client: Option<WantedClient>,
}

/// Query of `GET /v1/connections`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConnectionQuery {
    /// Only of this frontend.
    pub frontend: Option<String>,
    /// Only to this backend.
    pub backend: Option<String>,
    /// Only to this server.
    pub server: Option<String>,
    /// Only of this client: an IP address, or one with a port.
    pub client: Option<WantedClient>,
    /// How many are left out first (default 0).
    #[serde(default)]
    pub offset: usize,
    /// How many follow (default 1,000); with the offset at most 100,000.
    pub limit: Option<usize>,
}

/// `DELETE /v1/connections`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Closed {
    /// How many.
    pub closed: usize,
    /// Flows of mode dsr that match: their answers do not come through here, so that only their ends can end them.
    #[serde(default)]
    pub dsr_flows: usize,
}

/// A client as a filter names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum WantedClient {
    /// One connection of it.
    Connection(SocketAddr),
    /// All of them.
    Host(IpAddr),
}

impl WantedClient {
    fn is(self, client: Remote<ClientAddr>) -> bool {
        match (self, client) {
            (_, Remote::Unix) => false,
            // an IPv4 client of a listener of both families is one however it is written
            (Self::Connection(wanted), Remote::Addr(ClientAddr(client))) => {
                (wanted.ip().to_canonical(), wanted.port()) == (client.ip().to_canonical(), client.port())
            }
            (Self::Host(wanted), Remote::Addr(ClientAddr(client))) => {
                wanted.to_canonical() == client.ip().to_canonical()
            }
        }
    }
}

impl TryFrom<String> for WantedClient {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let connection = text.parse().map(Self::Connection);
        connection
            .or_else(|_| text.parse().map(Self::Host))
            .map_err(|_| format!("`{text}` is no client: write an IP address, or IP:port"))
    }
}

impl From<WantedClient> for String {
    fn from(client: WantedClient) -> Self {
        client.to_string()
    }
}

impl fmt::Display for WantedClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connection(client) => client.fmt(f),
            Self::Host(client) => client.fmt(f),
        }
    }
}

impl ConnectionQuery {
    /// Which.
    #[must_use]
    pub fn filter(&self) -> ConnectionFilter {
        ConnectionFilter {
            frontend: self.frontend.clone(),
            backend: self.backend.clone(),
            server: self.server.clone(),
            client: self.client,
        }
    }
}

impl ConnectionFilter {
    /// Whether it lets all through.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it lets a connection through.
    #[must_use]
    pub fn matches(
        &self,
        client: Remote<ClientAddr>,
        frontend: &FrontendName,
        backend: Option<&BackendName>,
        server: Option<&ServerName>,
    ) -> bool {
        let is = |wanted: &Option<String>, name: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| Some(wanted) == name)
        };
        is(&self.frontend, Some(frontend.as_str()))
            && is(&self.backend, backend.map(BackendName::as_str))
            && is(&self.server, server.map(ServerName::as_str))
            && self.client.is_none_or(|wanted| wanted.is(client))
    }
}

/// In one line, whatever the names are.
impl fmt::Display for ConnectionFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            ("frontend", &self.frontend),
            ("backend", &self.backend),
            ("server", &self.server),
        ];
        let mut between = "";
        for (what, name) in names {
            if let Some(name) = name {
                write!(f, "{between}{what} {name:?}")?;
                between = ", ";
            }
        }
        match self.client {
            Some(client) => write!(f, "{between}client {client}"),
            None => Ok(()),
        }
    }
}

/// `GET /v1/connections`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Connections {
    /// How many match.
    pub total: usize,
    /// Some of them, oldest first.
    pub connections: Vec<Connection>,
}

/// Proxied connections against what the limit of open files allows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProxiedConnections {
    /// Open now.
    pub open: u32,
    /// Maximum; the rest waits in the kernel's queues.
    pub most: u32,
    /// How often a listener has stopped accepting because there were that many.
    pub accept_pauses: u64,
}

/// TLS between a client and its frontend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
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
