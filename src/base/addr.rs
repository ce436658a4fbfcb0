//! One address type for each end of a connection, so that none is used for the wrong end.

use std::{fmt, net::SocketAddr};

macro_rules! addr_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub SocketAddr);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

addr_type!(
    /// The remote end of an accepted connection: a client, or a proxy before us that speaks for one.
    PeerAddr
);
addr_type!(
    /// Whom a connection comes from: its peer, or whom the peer speaks for.
    ClientAddr
);
addr_type!(
    /// An address that a frontend listens on.
    ListenAddr
);
addr_type!(
    /// The address of a server in a backend.
    ServerAddr
);
