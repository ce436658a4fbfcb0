//! One address type for each end of a connection, so that none is used for the wrong end.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

use super::{PortRange, Zone};

macro_rules! peer_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub SocketAddr);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

peer_type!(
    /// The remote end of an accepted connection: a client, or a proxy before us that speaks for one.
    PeerAddr
);
peer_type!(
    /// Whom a connection comes from: its peer, or whom the peer speaks for.
    ClientAddr
);

/// A text that is no address with a port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an address such as \"10.0.0.1:80\" or \"[fe80::1%eth0]:80\"")]
pub struct NotAnAddress(String);

/// Reads `IP:port`, with the name of an interface if the address has one.
fn parse(text: &str) -> Option<(SocketAddr, Option<Zone>)> {
    if let Ok(addr) = text.parse() {
        return Some((addr, None));
    }
    let (ip, rest) = text.split_once('%')?;
    let (zone, after) = match rest.split_once(']') {
        Some((zone, port)) => (zone, format!("]{port}")),
        // as ss(8) writes an IPv4 address on an interface
        None => rest
            .split_once(':')
            .map(|(zone, port)| (zone, format!(":{port}")))?,
    };
    Some((format!("{ip}{after}").parse().ok()?, Some(Zone::new(zone)?)))
}

macro_rules! zoned_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(into = "String", try_from = "String")]
        pub struct $name(pub SocketAddr, Option<Zone>);

        impl $name {
            /// An address without the name of an interface.
            #[must_use]
            pub const fn new(addr: SocketAddr) -> Self {
                Self(addr, None)
            }

            /// An address on an interface, whose index is not in it.
            #[must_use]
            pub const fn zoned(mut addr: SocketAddr, zone: Zone) -> Self {
                if let SocketAddr::V6(v6) = &mut addr {
                    v6.set_scope_id(0);
                }
                Self(addr, Some(zone))
            }

            /// The name of the interface that it is on, if it has one: a link-local IPv6 address, or one that is listened
            /// on at one interface only.
            #[must_use]
            pub const fn zone(&self) -> Option<&Zone> {
                self.1.as_ref()
            }

            /// Its address on another port.
            #[must_use]
            pub const fn with_port(mut self, port: u16) -> Self {
                self.0.set_port(port);
                self
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match (self.0, self.1) {
                    (SocketAddr::V6(addr), Some(zone)) => {
                        f.pad(&format!("[{}%{zone}]:{}", addr.ip(), addr.port()))
                    }
                    (SocketAddr::V4(addr), Some(zone)) => {
                        f.pad(&format!("{}%{zone}:{}", addr.ip(), addr.port()))
                    }
                    (addr, None) => fmt::Display::fmt(&addr, f),
                }
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = NotAnAddress;

            fn from_str(text: &str) -> Result<Self, NotAnAddress> {
                let (addr, zone) = parse(text).ok_or_else(|| NotAnAddress(text.to_owned()))?;
                Ok(Self(addr, zone))
            }
        }

        impl From<$name> for String {
            fn from(addr: $name) -> Self {
                addr.to_string()
            }
        }

        impl TryFrom<String> for $name {
            type Error = NotAnAddress;

            fn try_from(text: String) -> Result<Self, NotAnAddress> {
                text.parse()
            }
        }
    };
}

zoned_type!(
    /// An address that a frontend listens on.
    ListenAddr
);
zoned_type!(
    /// The address of a server on a network.
    IpServerAddr
);

impl IpServerAddr {
    /// The same server on the port that is so many further; the configuration has checked that there is one.
    #[must_use]
    pub const fn further(self, offset: u16) -> Self {
        self.with_port(self.0.port().wrapping_add(offset))
    }
}

/// An address with one port, or several in a row, that a frontend listens on: `10.0.0.1:80`, `10.0.0.1:9000-9010`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ListenRange {
    first: ListenAddr,
    /// Not below the port of `first`.
    last: u16,
}

impl ListenRange {
    /// From an address up to another port of it; `None` if that is lower.
    #[must_use]
    pub fn new(first: ListenAddr, last: u16) -> Option<Self> {
        (first.0.port() <= last).then_some(Self { first, last })
    }

    /// The same on an interface.
    #[must_use]
    pub const fn at(self, zone: Zone) -> Self {
        Self {
            first: ListenAddr::zoned(self.first.0, zone),
            last: self.last,
        }
    }

    /// The same as it is written in a configuration, where only a link-local address has its interface with it.
    #[must_use]
    pub const fn written(self) -> Self {
        match self.first.0 {
            SocketAddr::V6(addr) if addr.ip().is_unicast_link_local() => self,
            addr => Self {
                first: ListenAddr::new(addr),
                last: self.last,
            },
        }
    }

    /// Its lowest port.
    #[must_use]
    pub const fn first(self) -> ListenAddr {
        self.first
    }

    /// The address without ports.
    #[must_use]
    pub const fn ip(self) -> IpAddr {
        self.first.0.ip()
    }

    /// Its ports.
    #[must_use]
    pub const fn ports(self) -> PortRange {
        PortRange {
            first: self.first.0.port(),
            last: self.last,
        }
    }

    /// Whether there is more than one port.
    #[must_use]
    pub const fn is_several(self) -> bool {
        self.first.0.port() < self.last
    }

    /// How far an address is from the first; `None` if it is not among them.
    #[must_use]
    pub fn offset(self, addr: ListenAddr) -> Option<u16> {
        let port = addr.0.port();
        (addr.with_port(0) == self.first.with_port(0) && self.ports().contains(port))
            .then(|| port.wrapping_sub(self.first.0.port()))
    }

    /// The same address with other ports.
    #[must_use]
    pub const fn with_ports(self, ports: PortRange) -> Self {
        Self {
            first: self.first.with_port(ports.first),
            last: ports.last,
        }
    }

    /// Each address and port.
    pub fn addrs(self) -> impl Iterator<Item = ListenAddr> {
        let PortRange { first, last } = self.ports();
        (first..=last).map(move |port| self.first.with_port(port))
    }
}

impl From<ListenAddr> for ListenRange {
    fn from(addr: ListenAddr) -> Self {
        Self {
            first: addr,
            last: addr.0.port(),
        }
    }
}

impl fmt::Display for ListenRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_several() {
            f.pad(&format!("{}-{}", self.first, self.last))
        } else {
            fmt::Display::fmt(&self.first, f)
        }
    }
}

impl fmt::Debug for ListenRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ListenRange {
    type Err = NotAnAddress;

    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        if let Ok(one) = text.parse::<ListenAddr>() {
            return Ok(one.into());
        }
        let range = || {
            let (first, last) = text.rsplit_once('-')?;
            Self::new(first.parse().ok()?, last.parse().ok()?)
        };
        range().ok_or_else(|| NotAnAddress(text.to_owned()))
    }
}

impl From<ListenRange> for String {
    fn from(range: ListenRange) -> Self {
        range.to_string()
    }
}

impl TryFrom<String> for ListenRange {
    type Error = NotAnAddress;

    fn try_from(text: String) -> Result<Self, NotAnAddress> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_it_is_written() {
        for text in [
            "10.0.0.1:80",
            "[2001:db8::1]:80",
            "[fe80::1%2]:80",
            "[fe80::1%eth0]:80",
            "10.0.0.1%eth0:80",
            "[::%eth0]:80",
        ] {
            let addr: IpServerAddr = text.parse().unwrap();
            assert_eq!(addr.to_string(), text);
            assert_eq!(text.parse::<ListenRange>().unwrap().to_string(), text);
        }
        let addr: IpServerAddr = "[fe80::1%eth0]:80".parse().unwrap();
        assert_eq!(addr.further(3).to_string(), "[fe80::1%eth0]:83");
        assert_ne!(Ok(addr), "[fe80::1%eth1]:80".parse());
        for wrong in [
            "fe80::1%eth0",
            "[fe80::1%]:80",
            "10.0.0.1%:80",
            "10.0.0.1%eth0]:80",
            "fe80::1%eth0:80",
            "[fe80::1%eth0]80",
        ] {
            assert!(wrong.parse::<IpServerAddr>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_range_has_both_its_ends() {
        let range: ListenRange = "[fe80::1%eth0]:9000-9002".parse().unwrap();
        assert_eq!(range.to_string(), "[fe80::1%eth0]:9000-9002");
        let addrs: Vec<_> = range.addrs().map(|addr| addr.to_string()).collect();
        assert_eq!(
            addrs,
            [
                "[fe80::1%eth0]:9000",
                "[fe80::1%eth0]:9001",
                "[fe80::1%eth0]:9002"
            ]
        );
        let offset = |text: &str| range.offset(text.parse().unwrap());
        assert_eq!(offset("[fe80::1%eth0]:9000"), Some(0));
        assert_eq!(offset("[fe80::1%eth0]:9002"), Some(2));
        for other in [
            "[fe80::1%eth0]:9003",
            "[fe80::1%eth0]:8999",
            "[fe80::1%eth1]:9000",
            "[fe80::2%eth0]:9000",
        ] {
            assert_eq!(offset(other), None, "{other}");
        }
        for wrong in [
            "10.0.0.1:9001-9000",
            "10.0.0.1:9000-",
            "10.0.0.1:-9000",
            "10.0.0.1:1-2-3",
            "10.0.0.1:1-70000",
        ] {
            assert!(wrong.parse::<ListenRange>().is_err(), "{wrong}");
        }
    }
}
