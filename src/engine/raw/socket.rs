//! What the broker does for the engine: opens, confines and re-filters its sockets. Runs with CAP_NET_RAW.

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
};

use crate::config::PacketService;

/// Opens a packet socket: filtered from its first moment, virtio headers, buffers, then bound to the interface and put
/// into a fanout group (`group`, the same for all sockets of one interface).
///
/// # Errors
/// No CAP_NET_RAW, no such interface, no memory.
pub fn open(ifindex: u32, group: u16, services: &[PacketService]) -> io::Result<OwnedFd> {
    let _ = (ifindex, group, services);
    todo!("engine")
}

/// Replaces a socket's filter in one step: no packet is lost or seen twice.
///
/// # Errors
/// The kernel refused.
pub fn refilter(socket: BorrowedFd<'_>, services: &[PacketService]) -> io::Result<()> {
    let _ = (socket, services);
    todo!("engine")
}
