//! System calls and files that the daemon gives up for good: seccomp and landlock.

use std::io;

/// What the calling thread of the packet engine gives up besides: to bind sockets and to set their options. Run first
/// on each of its threads.
///
/// # Errors
/// The kernel refused the filter.
pub fn confine_packet_thread() -> io::Result<()> {
    todo!("privilege")
}
