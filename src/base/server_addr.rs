//! Where a server is reached.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    num::NonZeroU16,
    str::FromStr,
};

use serde::{Deserialize, Serialize};

use super::{IpFamily, IpServerAddr, NotAnAddress, SocketPath};

/// The address of a server in a backend: on a network, or a unix socket of this host, which only mode proxy reaches.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum ServerAddr {
    /// An IP address and a port.
    Ip(IpServerAddr),
    /// A socket's path.
    Unix(SocketPath),
}

impl ServerAddr {
    /// An address without the name of an interface.
    #[must_use]
    pub const fn new(addr: SocketAddr) -> Self {
        Self::Ip(IpServerAddr::new(addr))
    }

    /// The address on a network; `None` of a unix socket.
    #[must_use]
    pub const fn on_network(self) -> Option<IpServerAddr> {
        match self {
            Self::Ip(addr) => Some(addr),
            Self::Unix(_) => None,
        }
    }

    /// The IP address; `None` of a unix socket.
    #[must_use]
    pub const fn ip(self) -> Option<IpAddr> {
        match self {
            Self::Ip(addr) => Some(addr.0.ip()),
            Self::Unix(_) => None,
        }
    }

    /// The family of its IP address; `None` of a unix socket.
    #[must_use]
    pub fn family(self) -> Option<IpFamily> {
        self.ip().map(IpFamily::of)
    }

    /// Whether it is a unix socket.
    #[must_use]
    pub const fn is_unix(self) -> bool {
        matches!(self, Self::Unix(_))
    }

    /// The same server on another port, if there is one to go to and it has ports.
    #[must_use]
    pub fn at_port(self, port: Option<NonZeroU16>) -> Self {
        match (self, port) {
            (Self::Ip(mut addr), Some(port)) => {
                addr.0.set_port(port.get());
                Self::Ip(addr)
            }
            _ => self,
        }
    }

    /// The same server on the port that is so many further; the configuration has checked that there is one.
    #[must_use]
    pub const fn further(self, offset: u16) -> Self {
        match self {
            Self::Ip(addr) => Self::Ip(addr.further(offset)),
            Self::Unix(_) => self,
        }
    }
}

impl From<IpServerAddr> for ServerAddr {
    fn from(addr: IpServerAddr) -> Self {
        Self::Ip(addr)
    }
}

impl fmt::Display for ServerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(addr) => fmt::Display::fmt(addr, f),
            Self::Unix(path) => fmt::Display::fmt(path, f),
        }
    }
}

impl fmt::Debug for ServerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ServerAddr {
    type Err = NotAnAddress;

    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        match text.parse() {
            Ok(path) => Ok(Self::Unix(path)),
            Err(_) => text.parse().map(Self::Ip),
        }
    }
}

impl From<ServerAddr> for String {
    fn from(addr: ServerAddr) -> Self {
        addr.to_string()
    }
}

impl TryFrom<String> for ServerAddr {
    type Error = NotAnAddress;

    fn try_from(text: String) -> Result<Self, NotAnAddress> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_on_a_network_or_at_a_path() {
        for text in ["10.0.0.1:80", "[fe80::1%eth0]:80", "unix:/run/app.sock"] {
            let addr: ServerAddr = text.parse().unwrap();
            assert_eq!(addr.to_string(), text);
            assert_eq!(addr.is_unix(), text.starts_with("unix:"));
            assert_eq!(addr.is_unix(), addr.on_network().is_none());
        }
        let path: ServerAddr = "unix:/run/app.sock".parse().unwrap();
        assert_eq!(path.further(3), path);
        let port = NonZeroU16::new(81);
        assert_eq!(path.at_port(port), path);
        let linked: ServerAddr = "[fe80::1%eth0]:80".parse().unwrap();
        assert_eq!(linked.at_port(port).to_string(), "[fe80::1%eth0]:81");
        assert_eq!(linked.at_port(None), linked);
        assert!("unix:app.sock".parse::<ServerAddr>().is_err());
    }
}
