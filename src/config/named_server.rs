//! Servers whose `addr` is the name of a host.

use std::num::{NonZeroU16, NonZeroU32};

use crate::base::{HostName, HostPattern, ServerName};

/// A server of the file that name servers are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedServer {
    /// Its name in the file.
    pub name: ServerName,
    /// The host of `addr`.
    pub host: HostName,
    /// The port of `addr`.
    pub port: NonZeroU16,
    /// `resolve`. Default first.
    pub resolve: Resolve,
    /// `weight`: of each address.
    pub weight: u16,
    /// `priority`: of each address.
    pub priority: u16,
    /// `max_connections`: of each address.
    pub max_connections: Option<NonZeroU32>,
    /// `sni`.
    pub sni: Vec<HostPattern>,
}

/// `resolve`: which addresses of a name are servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Resolve {
    /// The lowest, IPv4 before IPv6: whatever the order of an answer, it is the same one.
    First,
    /// Each one, called `NAME@ADDRESS`.
    All,
}

impl NamedServer {
    /// What a server at an address of the host is called.
    #[must_use]
    pub fn at(&self, ip: std::net::IpAddr) -> String {
        match self.resolve {
            Resolve::First => self.name.to_string(),
            Resolve::All => format!("{}@{ip}", self.name),
        }
    }

    /// Whether a server that was discovered by this name is called so.
    #[must_use]
    pub fn has_been(&self, name: &str) -> bool {
        let rest = name.strip_prefix(self.name.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('@'))
    }
}
