//! Sockets towards servers that only who holds capabilities can make.

use std::{net::IpAddr, num::NonZeroU32};

use serde::{Deserialize, Serialize};

use super::Protocol;

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IpFamily {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl IpFamily {
    /// That of an address.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// Its name.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

impl std::fmt::Display for IpFamily {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.label())
    }
}

/// A kind of unbound sockets that have what takes a capability to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SocketKind {
    /// Which protocol they speak.
    pub protocol: Protocol,
    /// The family of the servers, and of the clients.
    pub family: IpFamily,
    /// Whether they may be bound to anybody's address (IP_TRANSPARENT).
    pub is_transparent: bool,
    /// The mark of their packets (SO_MARK).
    pub mark: Option<NonZeroU32>,
}

impl SocketKind {
    /// Sockets that are handed out at a time.
    pub const BATCH: usize = 64;

    /// Whether they have anything that others have not.
    #[must_use]
    pub const fn is_special(self) -> bool {
        self.is_transparent || self.mark.is_some()
    }
}

impl std::fmt::Display for SocketKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.family, self.protocol)?;
        if self.is_transparent {
            f.write_str(", transparent")?;
        }
        match self.mark {
            Some(mark) => write!(f, ", mark {mark}"),
            None => Ok(()),
        }
    }
}
