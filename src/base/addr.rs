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
    /// The remote end of a client's connection.
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
