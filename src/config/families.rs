//! Which addresses of what has several are servers.

use crate::base::IpFamily;

/// `family`: which addresses are servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Families {
    /// IPv4 and IPv6.
    Any,
    /// IPv4 alone.
    Ipv4,
    /// IPv6 alone.
    Ipv6,
}

impl Families {
    /// The families.
    #[must_use]
    pub const fn all(self) -> &'static [IpFamily] {
        match self {
            Self::Any => &[IpFamily::V4, IpFamily::V6],
            Self::Ipv4 => &[IpFamily::V4],
            Self::Ipv6 => &[IpFamily::V6],
        }
    }
}
