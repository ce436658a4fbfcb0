//! What the broker does for the engine: opens, confines and re-filters its sockets. Runs with CAP_NET_RAW.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use nix::errno::Errno;

use super::filter::{self, Precision};
use crate::{
    config::PacketService,
    sys::packet_socket::{self, OpenError, Options},
};

/// Kernel memory for packets that wait in a socket, which the kernel doubles: 20,000 small ones, or 120 super-frames. More
/// would let a packet wait longer than it is worth.
const RECEIVE_BUFFER: usize = 8 << 20;

/// Kernel memory for packets that a network card has not sent yet: a batch of super-frames.
const SEND_BUFFER: usize = 8 << 20;

/// Opens a packet socket: deaf at first; virtio headers, buffers, then bound to the interface and put into a fanout
/// group (`group`, the same for all sockets of one interface), then given its filter.
///
/// # Errors
/// As the system call says: no CAP_NET_RAW (EPERM), no such interface (ENODEV), no memory (ENOMEM), a group number that
/// another program uses (EINVAL).
pub fn open(ifindex: u32, group: u16, services: &[PacketService]) -> io::Result<OwnedFd> {
    let options = Options {
        ifindex,
        group,
        receive_buffer: RECEIVE_BUFFER,
        send_buffer: SEND_BUFFER,
    };
    let socket = packet_socket::open(&options).map_err(|OpenError { step, source }| {
        tracing::debug!(ifindex, group, "packet socket: {step}: {source}");
        // as it is: the broker hands on the system's number
        source
    })?;
    refilter(socket.as_fd(), services)?;
    Ok(socket)
}

/// Replaces a socket's filter in one step: no packet is lost or seen twice. Services for which the kernel grants no
/// memory (net.core.optmem_max) get a coarser filter: the path looks at each packet again.
///
/// # Errors
/// The kernel refused.
pub fn refilter(socket: BorrowedFd<'_>, services: &[PacketService]) -> io::Result<()> {
    let mut result = Err(Errno::ENOMEM.into());
    for precision in Precision::ALL {
        let Some(program) = filter::program(services, precision) else {
            continue;
        };
        result = packet_socket::attach_filter(socket, &program);
        let too_long = |error: &io::Error| error.raw_os_error() == Some(Errno::ENOMEM as i32);
        if !result.as_ref().is_err_and(too_long) {
            break;
        }
    }
    result
}
