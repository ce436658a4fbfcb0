//! What a proxied connection says before its payload, and where that leads (`[frontends.NAME.proxy_protocol]`,
//! `[[frontends.NAME.routes]]`, `send_proxy`), resolved.

use std::{fmt, net::SocketAddr, ops::RangeInclusive, time::Duration};

use crate::{
    access::{Network, RuleSubject},
    base::{BackendName, HostPattern},
};

/// `[frontends.NAME.proxy_protocol]`: whose PROXY headers count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptProxy {
    /// `from`: the peers that may say whom they speak for. Empty only if those of unix sockets may.
    pub from: Vec<RuleSubject>,
    /// Whether `from` has `"unix"`: whoever connects to the frontend's unix sockets.
    pub unix: bool,
    /// `required`: peers that are not in `from`, and connections without a header, are refused. Default true. Without it they
    /// are clients that speak for themselves.
    pub required: bool,
    /// `timeout` for the whole header. Default 3 s.
    pub timeout: Duration,
}

/// Where the connections of a frontend go by what is known of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routing {
    /// `[[routes]]` in the order of the file: the first that matches decides.
    pub routes: Vec<Route>,
    /// What happens to connections that no route matches.
    pub unrouted: Unrouted,
    /// `unexpected_sni`.
    pub unexpected_sni: UnexpectedSni,
    /// `non_tls`.
    pub non_tls: NonTls,
    /// `client_hello_timeout`: how long a client may take for its ClientHello where something depends on it. Default 5 s.
    pub client_hello_timeout: Duration,
}

/// One of `[[routes]]`: what is empty matches everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// `sni`: names that the client asks for.
    pub sni: Vec<HostPattern>,
    /// `alpn`: protocols of which the client offers one.
    pub alpn: Vec<Box<str>>,
    /// `source`: networks of clients.
    pub source: Vec<RuleSubject>,
    /// `destination`: local addresses and ports.
    pub destination: Vec<Destination>,
    /// `backend` or `reject = true`.
    pub target: RouteTarget,
}

/// Where a route leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteTarget {
    /// `backend`: exists in [`Config::backends`](super::Config::backends).
    Backend(BackendName),
    /// `reject = true`: the connection is reset.
    Reject,
}

/// What happens to connections that no route matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unrouted {
    /// They go to the frontend's `backend`.
    Backend,
    /// They are reset: the frontend names no `backend`.
    Reject,
}

/// `unexpected_sni`: what happens to a connection whose name no route and no server of its backend expects, as in gobetween.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UnexpectedSni {
    /// `"default"`: it goes to the servers that have no `sni`.
    Default,
    /// `"reject"`: it is reset.
    Reject,
    /// `"any"`: it goes to any server of the backend.
    Any,
}

/// `non_tls`: what happens to a connection that does not begin with a ClientHello where something depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NonTls {
    /// `"reject"`: it is reset.
    Reject,
    /// `"backend"`: it is routed as one that names no host and no protocol.
    Backend,
}

/// Local addresses and ports: those of the network, of the ports, or of both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// The network; `None`: all.
    pub network: Option<Network>,
    /// The ports; `None`: all.
    pub ports: Option<RangeInclusive<u16>>,
}

/// `send_proxy` of a backend: how its servers are told of the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SendProxy {
    /// `"v1"`: one line of text.
    V1,
    /// `"v2"`: binary, with these of `send_proxy_tlvs`.
    V2(SentTlvs),
}

/// `send_proxy_tlvs`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct SentTlvs {
    /// `"authority"`: the name that the client has asked for.
    pub authority: bool,
    /// `"alpn"`: the protocol that was agreed on with the client.
    pub alpn: bool,
    /// `"ssl"`: TLS version, cipher and client certificate.
    pub ssl: bool,
    /// `"unique_id"`: a number of the connection that the connection log has too.
    pub unique_id: bool,
    /// `"crc32c"`: a checksum of the header.
    pub crc32c: bool,
}

/// One of `send_proxy_tlvs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProxyTlv {
    /// See [`SentTlvs::authority`].
    Authority,
    /// See [`SentTlvs::alpn`].
    Alpn,
    /// See [`SentTlvs::ssl`].
    Ssl,
    /// See [`SentTlvs::unique_id`].
    UniqueId,
    /// See [`SentTlvs::crc32c`].
    Crc32c,
}

impl SentTlvs {
    /// Whether one of them is sent.
    pub const fn flag(&mut self, tlv: ProxyTlv) -> &mut bool {
        match tlv {
            ProxyTlv::Authority => &mut self.authority,
            ProxyTlv::Alpn => &mut self.alpn,
            ProxyTlv::Ssl => &mut self.ssl,
            ProxyTlv::UniqueId => &mut self.unique_id,
            ProxyTlv::Crc32c => &mut self.crc32c,
        }
    }

    /// Those that are sent, in their order.
    pub fn sent(mut self) -> impl Iterator<Item = ProxyTlv> {
        let all = [
            ProxyTlv::Authority,
            ProxyTlv::Alpn,
            ProxyTlv::Ssl,
            ProxyTlv::UniqueId,
            ProxyTlv::Crc32c,
        ];
        all.into_iter().filter(move |tlv| *self.flag(*tlv))
    }
}

impl SendProxy {
    /// `"v1"` or `"v2"`.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2(_) => "v2",
        }
    }
}

impl Default for Routing {
    fn default() -> Self {
        Self {
            routes: Vec::new(),
            unrouted: Unrouted::Backend,
            unexpected_sni: UnexpectedSni::Default,
            non_tls: NonTls::Reject,
            client_hello_timeout: Duration::from_secs(5),
        }
    }
}

impl Route {
    /// Whether it matches every connection.
    #[must_use]
    pub fn is_for_all(&self) -> bool {
        !self.needs_hello() && self.source.is_empty() && self.destination.is_empty()
    }

    /// Whether it depends on the ClientHello.
    #[must_use]
    pub fn needs_hello(&self) -> bool {
        !self.sni.is_empty() || !self.alpn.is_empty()
    }
}

impl Destination {
    /// Whether an address is meant.
    #[must_use]
    pub fn has(&self, addr: SocketAddr) -> bool {
        self.network.is_none_or(|network| network.has(addr.ip()))
            && self
                .ports
                .as_ref()
                .is_none_or(|ports| ports.contains(&addr.port()))
    }
}

impl fmt::Display for Destination {
    /// As it is written in the file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.network, &self.ports) {
            (Some(network), None) => return network.fmt(f),
            (Some(network), Some(_)) if network.first().is_ipv4() => network.fmt(f)?,
            (Some(network), Some(_)) => write!(f, "[{network}]")?,
            (None, _) => {}
        }
        match &self.ports {
            Some(ports) if ports.start() == ports.end() => write!(f, ":{}", ports.start()),
            Some(ports) => write!(f, ":{}-{}", ports.start(), ports.end()),
            None => f.write_str("*"),
        }
    }
}
