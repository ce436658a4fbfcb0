//! Options of sockets, as they are written.

use super::{Int, section::section};

section! {
    /// Options of the sockets of one side.
    SocketOptions {
        /// Mark of the packets that leave (SO_MARK), for routing rules (`ip rule add fwmark 7 …`) and filters of this host. Of client_socket a change of an address that is listened on needs a restart. Default: none.
        mark: Int<1, { u32::MAX as u64 }>,
    }
}
