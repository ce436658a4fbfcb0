//! What the access log says of one connection.

use std::{
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{
    BackendName, ClientAddr, FrontendName, ListenPlace, PeerAddr, Protocol, Remote, ServerAddr, ServerName,
    ServerTlsFailure, ServerTlsRecord, TerminationReason, UniqueId,
};

/// One finished connection, as HAProxy's tcplog describes it.
///
/// Made on the worker thread by moving values in; all formatting is the logging thread's.
#[derive(Debug, Clone)]
pub struct AccessRecord {
    /// When the connection was accepted.
    pub accepted_at: SystemTime,
    /// The other end of the accepted connection.
    pub peer: Remote<PeerAddr>,
    /// The client's address; the peer's if the connection ended before the client was known.
    pub client: Remote<ClientAddr>,
    /// The local address, or the path, that the client connected to.
    pub listen: ListenPlace,
    /// By which protocol.
    pub protocol: Protocol,
    /// The frontend that accepted it.
    pub frontend: FrontendName,
    /// The backend that it belonged to at the end; `None` if it ended before it was routed.
    pub backend: Option<BackendName>,
    /// The backend's server that was connected, or tried last; `None` when none of it was chosen.
    pub server: Option<(ServerName, ServerAddr)>,
    /// Time spent waiting for a free server; `None` if it ended before a server was chosen.
    pub queue_time: Option<Duration>,
    /// Time from choosing the server to the established connection; `None` if none was established.
    pub connect_time: Option<Duration>,
    /// Time from accept to the end.
    pub total_time: Duration,
    /// Bytes from client to server.
    pub bytes_in: u64,
    /// Bytes from server to client.
    pub bytes_out: u64,
    /// Datagrams of a UDP session: from client to server, and from server to client.
    pub datagrams: Option<(u64, u64)>,
    /// How it ended.
    pub reason: TerminationReason,
    /// Connects that failed before the one that counted.
    pub retries: u32,
    /// Whether a retry went to another server than the first choice.
    pub redispatched: bool,
    /// Connections of the frontend at the end, this one included.
    pub frontend_connections: u64,
    /// Connections of the server at the end, this one included.
    pub server_connections: u64,
    /// The route that has decided, counted from 1; `None` if none has.
    pub route: Option<NonZeroU32>,
    /// The name that the client has asked for, where that was read.
    pub sni: Option<Arc<str>>,
    /// Its number, if the server was told of it.
    pub unique_id: Option<UniqueId>,
    /// What client and frontend have agreed on, where TLS ends here.
    pub tls: Option<Arc<TlsRecord>>,
    /// Why the handshake has failed: the label.
    pub tls_failure: Option<&'static str>,
    /// What the server and Convey have agreed on, where connections to it go through TLS.
    pub server_tls: Option<Arc<ServerTlsRecord>>,
    /// Why there was no TLS with the last server that was tried.
    pub server_tls_failure: Option<ServerTlsFailure>,
}

/// A TLS session as the log knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsRecord {
    /// Its version, such as `TLSv1.3`.
    pub version: &'static str,
    /// The suite, by its IANA name.
    pub cipher: &'static str,
    /// The group of its key exchange.
    pub group: Option<&'static str>,
    /// The protocol of `alpn`.
    pub alpn: Option<Box<str>>,
    /// Whether it goes on with an earlier one.
    pub resumed: bool,
    /// Whom the client's certificate is about: its subject.
    pub client_subject: Option<Box<str>>,
    /// And the common name of that.
    pub client_name: Option<Box<str>>,
}

impl AccessRecord {
    /// When it ended.
    #[must_use]
    pub fn ended_at(&self) -> SystemTime {
        self.accepted_at
            .checked_add(self.total_time)
            .unwrap_or(self.accepted_at)
    }
}

/// Where finished connections are reported. Implementations must not block.
pub trait AccessSink: Send + Sync {
    /// Takes one record, or counts it as dropped.
    fn record(&self, record: AccessRecord);
}
