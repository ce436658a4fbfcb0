//! `check_addr` of a server: where its checks go.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    num::NonZeroU16,
    str::FromStr,
};

use crate::base::{IpFamily, ServerAddr};

/// An address of a host, with a port or without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CheckAddr {
    ip: IpAddr,
    port: Option<NonZeroU16>,
}

impl CheckAddr {
    /// Its family.
    #[must_use]
    pub fn family(self) -> IpFamily {
        IpFamily::of(self.ip)
    }

    /// Where checks of a server go that has this one, or none: its own port goes before that of the check, and that before
    /// the server's. Of a server at a unix socket, the socket if no port is known.
    #[must_use]
    pub fn target(of: Option<Self>, server: ServerAddr, port: Option<NonZeroU16>) -> ServerAddr {
        let Some(own) = of else {
            return server.at_port(port);
        };
        let servers = server.on_network().map(|addr| addr.0.port());
        let port = own.port.or(port).map(NonZeroU16::get).or(servers);
        port.map_or(server, |port| ServerAddr::new(SocketAddr::new(own.ip, port)))
    }
}

/// Why a text is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotACheckAddr {
    /// It is no address, or that of no host.
    #[error("not the IP address of a host, nor such a one with a port")]
    NoHost,
    /// Which link it is on is not said, and cannot be.
    #[error("a link-local address, which does not say on which link it is")]
    LinkLocal,
}

impl FromStr for CheckAddr {
    type Err = NotACheckAddr;

    fn from_str(text: &str) -> Result<Self, NotACheckAddr> {
        use NotACheckAddr::{LinkLocal, NoHost};
        let (ip, port) = match (text.parse::<IpAddr>(), text.parse::<SocketAddr>()) {
            (Ok(ip), _) => (ip, None),
            (Err(_), Ok(addr)) => (addr.ip(), Some(NonZeroU16::new(addr.port()).ok_or(NoHost)?)),
            (Err(_), Err(_)) => return Err(NoHost),
        };
        match ip {
            ip if ip.is_unspecified() || ip.is_multicast() || text.contains('%') => Err(NoHost),
            IpAddr::V6(v6) if v6.is_unicast_link_local() => Err(LinkLocal),
            ip => Ok(Self { ip, port }),
        }
    }
}

impl fmt::Display for CheckAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}", SocketAddr::new(self.ip, port.get())),
            None => write!(f, "{}", self.ip),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_an_address_with_a_port_or_without() {
        for text in ["10.9.0.1", "10.9.0.1:8000", "fd00::1", "[fd00::1]:80"] {
            assert_eq!(text.parse::<CheckAddr>().unwrap().to_string(), text);
        }
        for wrong in [
            "",
            "web1",
            "web1:80",
            "10.9.0.1:0",
            "0.0.0.0",
            "224.0.0.1:80",
            "fe80::1",
            "[fe80::1]:80",
            "fe80::1%eth0",
            "[fe80::1%2]:80",
            "unix:/run/x",
        ] {
            assert!(wrong.parse::<CheckAddr>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_nearest_port_is_checked() {
        let server = ServerAddr::new("10.0.0.1:80".parse().unwrap());
        let at = |of: Option<&str>, port: u16| {
            let of = of.map(|of| of.parse().unwrap());
            CheckAddr::target(of, server, NonZeroU16::new(port)).to_string()
        };
        assert_eq!(at(None, 0), "10.0.0.1:80");
        assert_eq!(at(None, 81), "10.0.0.1:81");
        assert_eq!(at(Some("10.9.0.1"), 0), "10.9.0.1:80");
        assert_eq!(at(Some("10.9.0.1"), 81), "10.9.0.1:81");
        assert_eq!(at(Some("10.9.0.1:82"), 81), "10.9.0.1:82");
    }
}
