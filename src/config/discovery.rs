//! `[backends.NAME.discovery]`: servers that a source outside the file names.

use std::{fmt, num::NonZeroU32, time::Duration};

use super::discovery_source::{DiscoveryKind, DiscoverySource};
use crate::access::Network;

/// Most servers that a backend may discover.
pub const MAX_DISCOVERED: u32 = 10_000;

/// Where servers come from besides the file, and what is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discovery {
    /// `kind`, and what belongs to it.
    pub source: DiscoverySource,
    /// `interval`: how long after an answer or a failure the source is asked again; of a file and of names it is the time after a
    /// failure alone. Default 10 s.
    pub interval: Duration,
    /// `on_failure`: what happens to the servers when the source fails. Default keep.
    pub on_failure: OnFailure,
    /// `max_servers`: an answer with more is refused. Default 1,000.
    pub max_servers: NonZeroU32,
    /// `min_servers`: an answer with fewer is held. Default 1.
    pub min_servers: u32,
    /// `max_removal`: an answer that drops more servers at once is held. Default half of them.
    pub max_removal: MaxRemoval,
    /// `servers_within`: networks that servers may be in; empty: all but loopback, multicast, link-local addresses and those of this
    /// host.
    pub servers_within: Vec<Network>,
    /// `max_answer_bytes`. Default 1 MiB.
    pub max_answer_bytes: u32,
}

/// `on_failure`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OnFailure {
    /// The servers of the last good answer stay.
    Keep,
    /// There are none until the next good answer.
    Empty,
}

/// `max_removal`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaxRemoval {
    /// So many percent of the servers in effect; one server at least.
    Percent(u8),
    /// So many servers.
    Count(u32),
}

impl Discovery {
    /// The `kind`.
    #[must_use]
    pub const fn kind(&self) -> DiscoveryKind {
        self.source.kind()
    }
}

impl MaxRemoval {
    /// How many of so many servers may go at once.
    #[must_use]
    pub fn of(self, servers: usize) -> usize {
        match self {
            Self::Percent(percent) => (servers.saturating_mul(usize::from(percent)) / 100).max(1),
            Self::Count(count) => usize::try_from(count).unwrap_or(usize::MAX),
        }
    }
}

impl fmt::Display for MaxRemoval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Percent(percent) => write!(f, "{percent}%"),
            Self::Count(count) => write!(f, "{count}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_server_may_always_go_by_a_share_and_none_by_a_count_of_none() {
        assert_eq!(MaxRemoval::Percent(50).of(1), 1);
        assert_eq!(MaxRemoval::Percent(50).of(5), 2);
        assert_eq!(MaxRemoval::Percent(100).of(5), 5);
        assert_eq!(MaxRemoval::Percent(0).of(5), 1);
        assert_eq!(MaxRemoval::Count(0).of(5), 0);
    }
}
