//! What a listener is known by.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use super::{ListenAddr, Protocol};

/// A protocol and an address to listen on: the one key of a listener. TCP and UDP on one address are two endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// Where.
    pub addr: ListenAddr,
    /// By which protocol.
    pub protocol: Protocol,
}

impl Endpoint {
    /// A TCP endpoint.
    #[must_use]
    pub const fn tcp(addr: SocketAddr) -> Self {
        Self {
            addr: ListenAddr(addr),
            protocol: Protocol::Tcp,
        }
    }

    /// A UDP endpoint.
    #[must_use]
    pub const fn udp(addr: SocketAddr) -> Self {
        Self {
            addr: ListenAddr(addr),
            protocol: Protocol::Udp,
        }
    }

    /// The address without its port.
    #[must_use]
    pub const fn ip(self) -> IpAddr {
        self.addr.0.ip()
    }

    /// Whether the address is an IPv4 one.
    #[must_use]
    pub const fn is_ipv4(self) -> bool {
        self.addr.0.is_ipv4()
    }

    /// The port.
    #[must_use]
    pub const fn port(self) -> u16 {
        self.addr.0.port()
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.addr, self.protocol)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_protocols_of_one_address_are_two_endpoints() {
        let addr = SocketAddr::from(([192, 0, 2, 1], 53));
        assert_ne!(Endpoint::tcp(addr), Endpoint::udp(addr));
        assert_eq!(Endpoint::udp(addr).to_string(), "192.0.2.1:53 (udp)");
    }
}
