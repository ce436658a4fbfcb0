//! The other end of a connection, which has an address only on a network.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::{ClientAddr, PeerAddr};

/// What stands for the address of who has none.
const UNIX: &str = "unix";

/// The other end of a connection: by its address, or at a unix socket of this host, where it has none. Written as the address,
/// or as `unix`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Remote<T> {
    /// On a network.
    Addr(T),
    /// At a unix socket.
    Unix,
}

impl<T: Copy> Remote<T> {
    /// Its address, if it has one.
    #[must_use]
    pub const fn addr(self) -> Option<T> {
        match self {
            Self::Addr(addr) => Some(addr),
            Self::Unix => None,
        }
    }
}

impl Remote<ClientAddr> {
    /// Its IP address, if it has one.
    #[must_use]
    pub const fn ip(self) -> Option<IpAddr> {
        match self {
            Self::Addr(addr) => Some(addr.0.ip()),
            Self::Unix => None,
        }
    }

    /// Its address and port, if it has one.
    #[must_use]
    pub const fn socket_addr(self) -> Option<SocketAddr> {
        match self {
            Self::Addr(addr) => Some(addr.0),
            Self::Unix => None,
        }
    }
}

impl From<SocketAddr> for Remote<ClientAddr> {
    fn from(addr: SocketAddr) -> Self {
        Self::Addr(ClientAddr(addr))
    }
}

impl From<SocketAddr> for Remote<PeerAddr> {
    fn from(addr: SocketAddr) -> Self {
        Self::Addr(PeerAddr(addr))
    }
}

/// Who speaks for itself is the client.
impl From<Remote<PeerAddr>> for Remote<ClientAddr> {
    fn from(peer: Remote<PeerAddr>) -> Self {
        match peer {
            Remote::Addr(peer) => Self::Addr(ClientAddr(peer.0)),
            Remote::Unix => Self::Unix,
        }
    }
}

impl<T: fmt::Display> fmt::Display for Remote<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addr(addr) => fmt::Display::fmt(addr, f),
            Self::Unix => f.pad(UNIX),
        }
    }
}

impl<T: fmt::Display> Serialize for Remote<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Remote<ClientAddr> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.as_str() {
            UNIX => Ok(Self::Unix),
            addr => addr
                .parse()
                .map(|addr: SocketAddr| addr.into())
                .map_err(D::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_written_as_its_address_or_as_unix() {
        for text in ["\"192.0.2.1:80\"", "\"[2001:db8::1]:80\"", "\"unix\""] {
            let client: Remote<ClientAddr> = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&client).unwrap(), text);
            assert_eq!(client.ip().is_none(), text == "\"unix\"");
        }
        assert!(serde_json::from_str::<Remote<ClientAddr>>("\"unixx\"").is_err());
        // no room for what has no address
        assert_eq!(size_of::<Remote<ClientAddr>>(), size_of::<ClientAddr>());
    }
}
