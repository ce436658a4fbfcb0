//! Closed sets of reasons and states, each with the one label that logs, metrics and the API use.

use super::by_label;

/// How and when a proxied connection ended.
///
/// The two-letter code is HAProxy's (configuration manual, section 8.5, "Session state at disconnection"):
/// who ended it, and in which phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum TerminationReason {
    /// Both ends closed in order.
    Normal,
    /// The client aborted while data was flowing.
    ClientAbort,
    /// The client went away before a server was connected.
    ClientAbortConnect,
    /// The client went away while waiting for a free server.
    ClientAbortQueue,
    /// The server aborted while data was flowing.
    ServerAbort,
    /// The client has vanished: it answered neither keep-alive probes nor retransmissions, or its network is unreachable.
    ClientLost,
    /// As `ClientLost`, the server.
    ServerLost,
    /// No server could be connected: refused, unreachable or reset.
    ServerConnect,
    /// No server answered within `connect_timeout`.
    ConnectTimeout,
    /// No server became free within `queue_timeout`.
    QueueTimeout,
    /// The backend's queue was full.
    QueueFull,
    /// No server of the backend is up.
    NoServer,
    /// Nothing moved for `idle_timeout`, or for a `fin_timeout` after one side had closed; the client was the
    /// one waited for.
    ClientTimeout,
    /// As `ClientTimeout`; the server was the one waited for.
    ServerTimeout,
    /// The server went down and the backend says `on_down = "close"`.
    ServerDown,
    /// An operator or the end of `shutdown_timeout` cut it.
    Killed,
    /// Convey had no resource left (descriptors, ports, memory).
    Resource,
    /// An error inside Convey.
    Internal,
    /// Of a backend's connections only: a reload has sent their frontend's to another backend while they waited there.
    Rerouted,
    /// Its peer sent no valid PROXY header where one is required.
    ProxyHeader,
    /// Its peer took longer than `proxy_protocol.timeout` for its PROXY header.
    ProxyHeaderTimeout,
    /// Its ClientHello is malformed or too long.
    ClientHello,
    /// The client took longer than `client_hello_timeout` for its ClientHello.
    ClientHelloTimeout,
    /// It does not begin with a ClientHello, and `non_tls` is "reject".
    NonTls,
    /// Neither a route nor a server expects the name that the client asks for, or it asks for none, and `unexpected_sni` is "reject".
    UnexpectedSni,
    /// A route rejects it, or none matches and the frontend names no backend.
    RouteRejected,
    /// Access rules or a limit refuse the client that its PROXY header names.
    AccessRefused,
    /// The client went away before its PROXY header or ClientHello was complete.
    ClientAbortPreamble,
    /// Its TLS handshake has failed: why, `tls_failure` says.
    TlsHandshake,
    /// The client took longer than `handshake_timeout` for its TLS handshake.
    TlsHandshakeTimeout,
    /// As many handshakes of the frontend were under way as there may be: `max_handshakes`.
    TlsHandshakesFull,
    /// Its client network has begun as many handshakes a second as it may: `per_client.handshakes_per_second`.
    ClientHandshakes,
    /// It was a CA's, which has seen the proof that a name is ours (TLS-ALPN-01 of `acme`): there is nothing more to it.
    AcmeChallenge,
    /// No server completed its TLS handshake: why, `server_tls_failure` says.
    ServerTls,
    /// Of a UDP session: nothing moved for `idle_timeout`, which is how they end.
    Idle,
    /// Of a UDP session: it has had its `udp.max_requests` and `udp.max_responses`.
    Answered,
    /// Of a UDP session: every eligible server has `max_connections`, and a datagram does not wait.
    ServersFull,
    /// `source = "client"`: no server can be reached from the client's address.
    ClientSource,
    /// `source = "client"` or `server_socket.mark`: there was no socket for it.
    NoSourceSocket,
    /// It has lived for `max_lifetime`.
    MaxLifetime,
}

impl TerminationReason {
    /// Every reason, in the order of the discriminants.
    pub const ALL: [Self; 40] = [
        Self::Normal,
        Self::ClientAbort,
        Self::ClientAbortConnect,
        Self::ClientAbortQueue,
        Self::ServerAbort,
        Self::ClientLost,
        Self::ServerLost,
        Self::ServerConnect,
        Self::ConnectTimeout,
        Self::QueueTimeout,
        Self::QueueFull,
        Self::NoServer,
        Self::ClientTimeout,
        Self::ServerTimeout,
        Self::ServerDown,
        Self::Killed,
        Self::Resource,
        Self::Internal,
        Self::Rerouted,
        Self::ProxyHeader,
        Self::ProxyHeaderTimeout,
        Self::ClientHello,
        Self::ClientHelloTimeout,
        Self::NonTls,
        Self::UnexpectedSni,
        Self::RouteRejected,
        Self::AccessRefused,
        Self::ClientAbortPreamble,
        Self::TlsHandshake,
        Self::TlsHandshakeTimeout,
        Self::TlsHandshakesFull,
        Self::ClientHandshakes,
        Self::AcmeChallenge,
        Self::ServerTls,
        Self::Idle,
        Self::Answered,
        Self::ServersFull,
        Self::ClientSource,
        Self::NoSourceSocket,
        Self::MaxLifetime,
    ];

    /// Whether it ended as both sides wanted.
    #[must_use]
    pub const fn is_orderly(self) -> bool {
        matches!(
            self,
            Self::Normal | Self::Idle | Self::Answered | Self::AcmeChallenge
        )
    }

    /// Whether a client was not served as it should have been, and not by its own doing.
    #[must_use]
    pub const fn is_failure(self) -> bool {
        match self {
            Self::Normal
            | Self::Idle
            | Self::Answered
            | Self::AcmeChallenge
            | Self::ClientAbort
            | Self::ClientAbortConnect
            | Self::ClientAbortQueue
            | Self::ClientAbortPreamble
            | Self::ClientLost
            | Self::ClientTimeout
            | Self::ServerTimeout
            | Self::MaxLifetime
            | Self::Killed
            | Self::Rerouted => false,
            Self::ServerAbort
            | Self::ServerLost
            | Self::ServerConnect
            | Self::ConnectTimeout
            | Self::QueueTimeout
            | Self::QueueFull
            | Self::NoServer
            | Self::ServerDown
            | Self::Resource
            | Self::Internal
            | Self::ProxyHeader
            | Self::ProxyHeaderTimeout
            | Self::ClientHello
            | Self::ClientHelloTimeout
            | Self::NonTls
            | Self::UnexpectedSni
            | Self::RouteRejected
            | Self::AccessRefused
            | Self::TlsHandshake
            | Self::TlsHandshakeTimeout
            | Self::TlsHandshakesFull
            | Self::ClientHandshakes
            | Self::ServerTls
            | Self::ServersFull
            | Self::ClientSource
            | Self::NoSourceSocket => true,
        }
    }

    /// HAProxy's two-letter state, for the access log.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Normal | Self::Rerouted | Self::Idle | Self::Answered | Self::AcmeChallenge => "--",
            Self::ClientAbort | Self::ClientLost => "CD",
            Self::ClientAbortConnect => "CC",
            Self::ClientAbortQueue => "CQ",
            Self::ServerAbort | Self::ServerLost => "SD",
            Self::ServerConnect | Self::NoServer | Self::ServerTls => "SC",
            Self::ConnectTimeout => "sC",
            Self::QueueTimeout | Self::ServersFull => "sQ",
            Self::QueueFull | Self::ClientSource => "PC",
            Self::ClientTimeout => "cD",
            Self::ServerTimeout => "sD",
            Self::ServerDown => "DD",
            Self::MaxLifetime => "PD",
            Self::Killed => "KD",
            Self::Resource | Self::NoSourceSocket => "RC",
            Self::Internal => "IC",
            Self::ProxyHeader
            | Self::ClientHello
            | Self::NonTls
            | Self::UnexpectedSni
            | Self::RouteRejected
            | Self::AccessRefused
            | Self::TlsHandshake
            | Self::TlsHandshakesFull
            | Self::ClientHandshakes => "PR",
            Self::ProxyHeaderTimeout | Self::ClientHelloTimeout | Self::TlsHandshakeTimeout => "cR",
            Self::ClientAbortPreamble => "CR",
        }
    }

    /// The label in metrics, the API and structured logs.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::ClientAbort => "client_abort",
            Self::ClientAbortConnect => "client_abort_connect",
            Self::ClientAbortQueue => "client_abort_queue",
            Self::ServerAbort => "server_abort",
            Self::ClientLost => "client_lost",
            Self::ServerLost => "server_lost",
            Self::ServerConnect => "server_connect",
            Self::ConnectTimeout => "connect_timeout",
            Self::QueueTimeout => "queue_timeout",
            Self::QueueFull => "queue_full",
            Self::NoServer => "no_server",
            Self::ClientTimeout => "client_timeout",
            Self::ServerTimeout => "server_timeout",
            Self::ServerDown => "server_down",
            Self::Killed => "killed",
            Self::Resource => "resource",
            Self::Internal => "internal",
            Self::Rerouted => "rerouted",
            Self::ProxyHeader => "proxy_header",
            Self::ProxyHeaderTimeout => "proxy_header_timeout",
            Self::ClientHello => "client_hello",
            Self::ClientHelloTimeout => "client_hello_timeout",
            Self::NonTls => "non_tls",
            Self::UnexpectedSni => "unexpected_sni",
            Self::RouteRejected => "route_rejected",
            Self::AccessRefused => "access_refused",
            Self::ClientAbortPreamble => "client_abort_preamble",
            Self::TlsHandshake => "tls_handshake",
            Self::TlsHandshakeTimeout => "tls_handshake_timeout",
            Self::TlsHandshakesFull => "tls_handshakes_full",
            Self::ClientHandshakes => "client_handshakes",
            Self::AcmeChallenge => "acme_challenge",
            Self::ServerTls => "server_tls",
            Self::Idle => "idle",
            Self::Answered => "answered",
            Self::ServersFull => "servers_full",
            Self::ClientSource => "client_source",
            Self::NoSourceSocket => "no_source_socket",
            Self::MaxLifetime => "max_lifetime",
        }
    }
}

by_label!(TerminationReason, TerminationReason::ALL);

/// Why a client's new connection, or a datagram, was refused: by a frontend's access rules or a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum AccessReason {
    /// `access` denies it.
    Denied,
    /// Its network has as many connections as it may: `per_client.connections`.
    ClientConnections,
    /// Its network has opened as many a second as it may: `per_client.new_per_second`.
    ClientRate,
    /// All clients together have opened as many a second as they may: `limits.new_per_second`.
    FrontendRate,
    /// Its network holds as many NAT ports of the server as it may (passthrough): `max_ports_per_client`.
    ClientPorts,
    /// Its network has sent as many datagrams a second as it may: `per_client.datagrams_per_second`.
    ClientDatagrams,
    /// `proxy_protocol` requires a PROXY header, and its peer is not among those that may send one.
    UntrustedProxy,
    /// Its network has begun as many TLS handshakes a second as it may: `per_client.handshakes_per_second`.
    ClientHandshakes,
}

impl AccessReason {
    /// Every reason, in the order of the discriminants.
    pub const ALL: [Self; 8] = [
        Self::Denied,
        Self::ClientConnections,
        Self::ClientRate,
        Self::FrontendRate,
        Self::ClientPorts,
        Self::ClientDatagrams,
        Self::UntrustedProxy,
        Self::ClientHandshakes,
    ];

    /// The label in metrics, the API and structured logs.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::ClientConnections => "client_connections",
            Self::ClientRate => "client_rate",
            Self::FrontendRate => "frontend_rate",
            Self::ClientPorts => "client_ports",
            Self::ClientDatagrams => "client_datagrams",
            Self::UntrustedProxy => "untrusted_proxy",
            Self::ClientHandshakes => "client_handshakes",
        }
    }
}

by_label!(AccessReason, AccessReason::ALL);

/// Whether a server gets new connections, and why not.
///
/// ```text
///            first check passes / rise          fall / passive ejection
///  checking ───────────────────────► up ◄──────────────────────────────► down
///                                     │ operator                            (back by rise or when the
///                                     ▼                                      ejection time is over)
///                     draining (keeps connections) · maintenance (not checked either)
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ServerState {
    /// Gets new connections.
    Up,
    /// Failed its checks, or too many connects in a row.
    Down,
    /// Not yet checked for the first time (`initial = "check"`).
    Checking,
    /// Keeps its connections, gets no new ones.
    Draining,
    /// Taken out by the operator; not checked.
    Maintenance,
}

impl ServerState {
    /// Every state.
    pub const ALL: [Self; 5] = [
        Self::Up,
        Self::Down,
        Self::Checking,
        Self::Draining,
        Self::Maintenance,
    ];

    /// The label in metrics, the API and structured logs.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Checking => "checking",
            Self::Draining => "draining",
            Self::Maintenance => "maintenance",
        }
    }
}

by_label!(ServerState, ServerState::ALL);

/// Whether a backend gets new connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BackendState {
    /// It has an eligible server.
    Up,
    /// It has none: new connections are refused.
    Down,
}

impl BackendState {
    /// The state of a backend with so many eligible servers.
    #[must_use]
    pub const fn of(eligible: usize) -> Self {
        if eligible > 0 { Self::Up } else { Self::Down }
    }

    /// The label in metrics, the API and structured logs.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

by_label!(BackendState, [BackendState::Up, BackendState::Down]);

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_reason_has_its_own_label_and_stands_at_its_discriminant() {
        let labels: HashSet<_> = TerminationReason::ALL.iter().map(|r| r.label()).collect();
        assert_eq!(labels.len(), TerminationReason::ALL.len());
        for (index, reason) in TerminationReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
        }
        let labels: HashSet<_> = AccessReason::ALL.iter().map(|r| r.label()).collect();
        assert_eq!(labels.len(), AccessReason::ALL.len());
        for (index, reason) in AccessReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
        }
    }
}
