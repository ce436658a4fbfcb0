//! Where clients are accepted: on a network, or at a unix socket of this host.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{Endpoint, ListenRange, NotAnAddress, Protocol, SocketPath};

/// What one entry of a frontend's `listen_addr` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum ListenPlace {
    /// An address with its ports.
    Network(ListenRange),
    /// A socket's path.
    Unix(SocketPath),
}

/// The one key of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ListenerId {
    /// A protocol and an address.
    Network(Endpoint),
    /// A stream socket at a path.
    Unix(SocketPath),
}

impl ListenPlace {
    /// The addresses on a network; `None` of a unix socket.
    #[must_use]
    pub const fn on_network(self) -> Option<ListenRange> {
        match self {
            Self::Network(range) => Some(range),
            Self::Unix(_) => None,
        }
    }

    /// The path of a unix socket; `None` on a network.
    #[must_use]
    pub const fn socket(self) -> Option<SocketPath> {
        match self {
            Self::Network(_) => None,
            Self::Unix(path) => Some(path),
        }
    }
}

impl ListenerId {
    /// What is listened on on a network; `None` of a unix socket.
    #[must_use]
    pub const fn endpoint(self) -> Option<Endpoint> {
        match self {
            Self::Network(endpoint) => Some(endpoint),
            Self::Unix(_) => None,
        }
    }

    /// The path of a unix socket; `None` on a network.
    #[must_use]
    pub const fn socket(self) -> Option<SocketPath> {
        match self {
            Self::Network(_) => None,
            Self::Unix(path) => Some(path),
        }
    }

    /// The protocol. What goes through a unix socket is a stream, as TCP's.
    #[must_use]
    pub const fn protocol(self) -> Protocol {
        match self {
            Self::Network(endpoint) => endpoint.protocol,
            Self::Unix(_) => Protocol::Tcp,
        }
    }

    /// How many sockets these are that as many workers accept from: the one at a path they share.
    #[must_use]
    pub fn own_sockets(self, workers: usize) -> usize {
        match self {
            Self::Network(_) => workers,
            Self::Unix(_) => workers.min(1),
        }
    }

    /// The same without its protocol.
    #[must_use]
    pub fn place(self) -> ListenPlace {
        match self {
            Self::Network(endpoint) => ListenPlace::Network(endpoint.addr.into()),
            Self::Unix(path) => ListenPlace::Unix(path),
        }
    }
}

impl From<Endpoint> for ListenerId {
    fn from(endpoint: Endpoint) -> Self {
        Self::Network(endpoint)
    }
}

impl From<ListenRange> for ListenPlace {
    fn from(range: ListenRange) -> Self {
        Self::Network(range)
    }
}

impl fmt::Display for ListenPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(range) => fmt::Display::fmt(range, f),
            Self::Unix(path) => fmt::Display::fmt(path, f),
        }
    }
}

impl fmt::Display for ListenerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(endpoint) => fmt::Display::fmt(endpoint, f),
            Self::Unix(path) => fmt::Display::fmt(path, f),
        }
    }
}

impl FromStr for ListenPlace {
    type Err = NotAnAddress;

    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        match text.parse() {
            Ok(path) => Ok(Self::Unix(path)),
            Err(_) => text.parse().map(Self::Network),
        }
    }
}

impl From<ListenPlace> for String {
    fn from(place: ListenPlace) -> Self {
        place.to_string()
    }
}

impl TryFrom<String> for ListenPlace {
    type Error = NotAnAddress;

    fn try_from(text: String) -> Result<Self, NotAnAddress> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_is_written() {
        for text in ["10.0.0.1:80", "[::]:9000-9010", "unix:/run/convey/web.sock"] {
            let place: ListenPlace = text.parse().unwrap();
            assert_eq!(place.to_string(), text);
            assert_eq!(place.socket().is_some(), text.starts_with("unix:"));
            assert_ne!(place.socket().is_some(), place.on_network().is_some());
        }
        assert!("unix:web.sock".parse::<ListenPlace>().is_err());
    }

    #[test]
    fn a_listener_at_a_path_has_a_stream_and_no_endpoint() {
        let id = ListenerId::Unix("unix:/run/web.sock".parse().unwrap());
        assert_eq!((id.protocol(), id.endpoint()), (Protocol::Tcp, None));
        assert_eq!(
            (id.to_string(), id.place().to_string()),
            ("unix:/run/web.sock".into(), id.to_string())
        );
        let id = ListenerId::from(Endpoint::udp(([192, 0, 2, 1], 53).into()));
        assert_eq!(
            (id.to_string().as_str(), id.place().to_string().as_str()),
            ("192.0.2.1:53 (udp)", "192.0.2.1:53")
        );
    }
}
