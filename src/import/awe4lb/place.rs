//! Where a match goes.

use crate::import::SectionId;

/// Which connections a match takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// All that come to it.
    All,
    /// Some, by a route.
    Some,
    /// None: its condition has no equal.
    Nothing,
}

/// A match, and where it goes.
pub struct Match<'a> {
    /// Name of the frontend.
    pub frontend_name: &'a str,
    /// The frontend.
    pub frontend: SectionId,
    /// Name of the match's backend.
    pub backend_name: String,
    /// That backend.
    pub backend: SectionId,
    /// UDP, not TCP.
    pub is_udp: bool,
    /// Whether TLS ends at the frontend.
    pub ends_tls: bool,
    /// Whether a match before takes everything.
    pub is_settled: bool,
}
