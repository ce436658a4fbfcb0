//! Reading a socket through the thread's scratch buffer, by what the reactor knows of it.

use std::{
    cell::RefCell,
    io,
    task::{Context, Poll, ready},
};

use tokio::io::Interest;

use super::memory::COPY_BYTES;
use crate::sys::{readiness::Stream, tcp};

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; COPY_BYTES].into_boxed_slice());
}

/// Lends the thread's scratch buffer.
pub fn with_scratch<R>(work: impl FnOnce(&mut [u8]) -> R) -> R {
    SCRATCH.with_borrow_mut(|scratch| work(scratch))
}

/// Appends what a socket has to bytes that must be known before it is relayed, `most` at a time.
///
/// # Errors
/// `WouldBlock` if there is nothing, or what recv(2) says.
pub fn receive_early(stream: &Stream, bytes: &mut Vec<u8>, most: usize) -> io::Result<usize> {
    with_scratch(|scratch| {
        let room = most.min(scratch.len());
        let n = receive_now(stream, &mut scratch[..room])?;
        bytes.extend_from_slice(&scratch[..n]);
        Ok(n)
    })
}

/// Whether a call may succeed later, or at once if it is made again.
pub fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// Runs a non-blocking call as often as the reactor says that it may succeed.
pub fn poll_io(
    cx: &mut Context<'_>,
    stream: &Stream,
    interest: Interest,
    mut call: impl FnMut(&Stream) -> io::Result<usize>,
) -> Poll<io::Result<usize>> {
    loop {
        if interest.is_readable() {
            ready!(stream.poll_read_ready(cx))?;
        } else {
            ready!(stream.poll_write_ready(cx))?;
        }
        match stream.try_io(interest, || call(stream)) {
            Err(e) if is_transient(&e) => {}
            result => return Poll::Ready(result),
        }
    }
}

/// Receives whatever the reactor knows; it may not have looked yet.
pub fn receive_now(stream: &Stream, buffer: &mut [u8]) -> io::Result<usize> {
    receive_if_ready(stream, buffer).unwrap_or_else(|| tcp::receive(stream, buffer))
}

/// Receives unless the reactor says that nothing is there. A read that leaves room in the buffer has emptied the
/// socket, so readiness is given up with it (the closure's `WouldBlock`) and the read that would find nothing is saved;
/// the reactor is edge-triggered and reports what arrives later.
pub fn receive_if_ready(stream: &Stream, buffer: &mut [u8]) -> Option<io::Result<usize>> {
    let mut received = None;
    let _ = stream.try_io(Interest::READABLE, || {
        let result = tcp::receive(stream, buffer);
        let emptied = !matches!(result, Ok(n) if n == 0 || n == buffer.len());
        received = Some(result);
        if emptied {
            Err(io::ErrorKind::WouldBlock.into())
        } else {
            Ok(())
        }
    });
    received
}
