//! `source` of a frontend.

/// `source`: the address that servers see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum SourceAddress {
    /// `own`: this host's, or the backend's `source_addr`.
    #[default]
    Own,
    /// `client`: the client's own.
    Client,
}
