//! Options of sockets that an operator chooses.

use std::num::NonZeroU32;

use super::{Dscp, Zone};

/// What the sockets of one side have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SocketOptions {
    /// The mark of their packets (SO_MARK), for routing rules and filters of this host.
    pub mark: Option<NonZeroU32>,
    /// The class of their packets; `None`: the kernel's, which is best effort.
    pub dscp: Option<Dscp>,
    /// Bytes of the receive buffer (SO_RCVBUF, of which the kernel makes twice as much); `None`: what it has without.
    pub receive_buffer: Option<NonZeroU32>,
    /// Bytes of the send buffer (SO_SNDBUF); `None`: what it has without.
    pub send_buffer: Option<NonZeroU32>,
}

/// What the sockets towards servers have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ServerSocketOptions {
    /// What those of clients may have, too.
    pub common: SocketOptions,
    /// The interface that their packets leave and come by (SO_BINDTODEVICE); `None`: what the routes say.
    pub interface: Option<Zone>,
}

impl ServerSocketOptions {
    /// Those of a socket that carries no data worth a buffer of its own.
    #[must_use]
    pub const fn without_buffers(mut self) -> Self {
        (self.common.receive_buffer, self.common.send_buffer) = (None, None);
        self
    }
}
