//! What each reason of an end or a refusal says to an operator.

use super::{AccessReason, TerminationReason};

impl TerminationReason {
    /// What happened, and what to do if there is anything, in one line.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Normal => "both sides closed in order",
            Self::Rerouted => {
                "while it waited for a server, a reload sent it to another backend; only counted, at the one that it left"
            }
            Self::ClientAbort => "the client reset it while data was flowing",
            Self::ClientLost => "the client has vanished: it answers nothing (see client_keepalive)",
            Self::ClientAbortConnect => "the client went away before a server was connected",
            Self::ClientAbortQueue => "the client went away while it waited for a server",
            Self::ClientAbortPreamble => {
                "the client went away before its PROXY header or ClientHello was complete; a health check of another load \
                 balancer that only connects does"
            }
            Self::ServerAbort => {
                "the server reset it while data was flowing; in UDP: said that its port is closed, after it had answered"
            }
            Self::ServerLost => "the server has vanished: it answers nothing (see server_keepalive)",
            Self::ServerConnect => "no server could be connected: refused, unreachable or reset",
            Self::NoServer => "no server is eligible, nor one of a fallback; convey status says why",
            Self::ConnectTimeout => {
                "no server answered within connect_timeout; with TLS to it, none completed its handshake"
            }
            Self::ServerTls => {
                "the TLS handshake with the server failed: server_tls_failure in the log says why"
            }
            Self::QueueTimeout => {
                "no server had room within queue_timeout; add servers, or raise their max_connections"
            }
            Self::QueueFull => "max_queue connections were waiting for a server already",
            Self::ClientTimeout => {
                "nothing moved for idle_timeout, or fin_timeout once one side had closed; the client was waited for"
            }
            Self::ServerTimeout => {
                "nothing moved for idle_timeout, or fin_timeout once one side had closed; the server was waited for"
            }
            Self::ServerDown => "its server went down, and the backend has on_down = \"close\"",
            Self::Killed => "convey reload --cut or the end of shutdown_timeout cut it",
            Self::Resource => "this host has no descriptor, source port or memory left for it",
            Self::Internal => "an error in convey itself; please report it",
            Self::ProxyHeader => {
                "no valid PROXY header where one is required; set proxy_protocol.required = false if clients connect \
                 directly, too"
            }
            Self::ProxyHeaderTimeout => "its PROXY header took longer than proxy_protocol.timeout",
            Self::ClientHello => "its ClientHello is malformed, or longer than 64 KiB",
            Self::ClientHelloTimeout => "its ClientHello took longer than client_hello_timeout",
            Self::NonTls => "it does not begin with a ClientHello, and non_tls is \"reject\"",
            Self::UnexpectedSni => {
                "no route and no server expects the name that it asks for, or it asks for none (see unexpected_sni)"
            }
            Self::RouteRejected => {
                "a route has reject = true, or no route matches and the frontend has no backend"
            }
            Self::TlsHandshake => {
                "its TLS handshake failed, or what it sent before was no TLS: tls_failure in the log says why"
            }
            Self::TlsHandshakeTimeout => "its TLS handshake took longer than handshake_timeout",
            Self::Idle => "a UDP session on which nothing moved for idle_timeout",
            Self::Answered => "a UDP session that has had its udp.max_requests and udp.max_responses",
            Self::ServersFull => {
                "a UDP session that found every eligible server at its max_connections: datagrams do not wait"
            }
            Self::ClientSource => {
                "source = \"client\": no server of the backend has the family of the client's address, or that can be none of a \
                 connection through routers"
            }
            Self::NoSourceSocket => {
                "source = \"client\" or server_socket.mark: the broker gave no socket in time; the log says why (no_source_sockets)"
            }
            Self::AcmeChallenge => "a CA has seen the proof that a name is ours (acme, TLS-ALPN-01)",
            Self::MaxLifetime => "it had lived for max_lifetime; the client may connect again",
            Self::TlsHandshakesFull => "max_handshakes TLS handshakes of the frontend were under way already",
            Self::ClientHandshakes => {
                "its network had begun limits.per_client.handshakes_per_second TLS handshakes; counted as refused, too"
            }
            Self::AccessRefused => {
                "access rules or limits refuse the client that its PROXY header names; counted as refused, too"
            }
        }
    }
}

impl AccessReason {
    /// What refuses it, in one line.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Denied => "access denies the client",
            Self::ClientConnections => "the client's network has limits.per_client.connections open",
            Self::ClientRate => "the client's network has opened limits.per_client.new_per_second",
            Self::FrontendRate => "all clients together have opened limits.new_per_second",
            Self::ClientPorts => {
                "the client's network holds [packet] max_ports_per_client NAT ports of the server (mode passthrough)"
            }
            Self::ClientDatagrams => "the client's network has sent limits.per_client.datagrams_per_second",
            Self::ClientHandshakes => {
                "the client's network has begun limits.per_client.handshakes_per_second TLS handshakes"
            }
            Self::UntrustedProxy => {
                "a PROXY header is required, and the address that connects is not in proxy_protocol.from"
            }
        }
    }
}
