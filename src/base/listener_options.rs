//! What a TCP listener does before a connection is accepted.

use std::num::NonZeroU32;

/// Options of listening TCP sockets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ListenerOptions {
    /// TCP_FASTOPEN: clients that have been here before may send data with their SYN (RFC 7413).
    pub fast_open: bool,
    /// TCP_DEFER_ACCEPT: a connection is accepted when its first data has come, or after a second.
    pub defer_accept: bool,
    /// Connections that may wait for accept; `None`: as many as net.core.somaxconn allows.
    pub backlog: Option<NonZeroU32>,
}
