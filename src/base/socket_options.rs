//! Options of sockets that an operator chooses.

use std::num::NonZeroU32;

/// What the sockets of one side have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SocketOptions {
    /// The mark of their packets (SO_MARK), for routing rules and filters of this host.
    pub mark: Option<NonZeroU32>,
}
