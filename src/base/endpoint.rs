//! What a listener is known by.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use super::{ListenAddr, ListenRange, PortRange, Protocol};

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
            addr: ListenAddr::new(addr),
            protocol: Protocol::Tcp,
        }
    }

    /// A UDP endpoint.
    #[must_use]
    pub const fn udp(addr: SocketAddr) -> Self {
        Self {
            addr: ListenAddr::new(addr),
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

/// Endpoints of one address whose ports are in a row: what one entry of a frontend's `listen_addr` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndpointRange {
    /// Where.
    pub listen: ListenRange,
    /// By which protocol.
    pub protocol: Protocol,
}

impl EndpointRange {
    /// The address without ports.
    #[must_use]
    pub const fn ip(self) -> IpAddr {
        self.listen.ip()
    }

    /// Whether the address is an IPv4 one.
    #[must_use]
    pub const fn is_ipv4(self) -> bool {
        self.listen.first().0.is_ipv4()
    }

    /// The ports.
    #[must_use]
    pub const fn ports(self) -> PortRange {
        self.listen.ports()
    }

    /// The one with the lowest port.
    #[must_use]
    pub const fn first(self) -> Endpoint {
        Endpoint {
            addr: self.listen.first(),
            protocol: self.protocol,
        }
    }

    /// Each of them.
    pub fn endpoints(self) -> impl Iterator<Item = Endpoint> {
        let protocol = self.protocol;
        self.listen.addrs().map(move |addr| Endpoint { addr, protocol })
    }

    /// Those with these ports.
    #[must_use]
    pub const fn with_ports(self, ports: PortRange) -> Self {
        Self {
            listen: self.listen.with_ports(ports),
            protocol: self.protocol,
        }
    }
}

impl From<Endpoint> for EndpointRange {
    fn from(one: Endpoint) -> Self {
        Self {
            listen: one.addr.into(),
            protocol: one.protocol,
        }
    }
}

impl fmt::Display for EndpointRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.listen, self.protocol)
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
