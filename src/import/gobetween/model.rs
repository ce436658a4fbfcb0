//! A server of gobetween's, where it goes.

use crate::import::SectionId;

/// A server in the making.
pub struct Server {
    /// Name of its backend.
    pub backend_name: String,
    /// Its frontend.
    pub frontend: SectionId,
    /// Its backend.
    pub backend: SectionId,
    /// UDP, not TCP.
    pub is_udp: bool,
    /// Whether servers are chosen by the name that clients ask for, and whether those names are expressions.
    pub sni: Option<bool>,
    /// Whether weights and priorities count.
    pub is_weighted: bool,
    /// Whether there is TLS to the servers.
    pub has_backend_tls: bool,
}
