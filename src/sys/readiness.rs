//! Waiting for descriptors that tokio has no type for.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    pin::pin,
    task::{Context, Poll, ready},
    time::Instant,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::io::{Interest, unix::AsyncFd};

/// A stream socket in the running runtime's reactor, which tells of urgent data too (tokio's own TcpStream does not ask for
/// that, and a read that stops at the urgent mark looks like an empty socket).
#[derive(Debug)]
pub struct Stream(AsyncFd<OwnedFd>);

/// What the reactor knows of a socket besides that it can be read; for good, once it is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Known {
    /// The other end has closed its half, or the connection is broken; data may still be before that.
    pub is_closed: bool,
    /// Urgent data has come, now or earlier.
    pub has_urgent: bool,
}

impl Stream {
    /// Registers a socket, which must not block.
    ///
    /// # Errors
    /// The reactor refused it: no memory is left.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        let interest = Interest::READABLE | Interest::WRITABLE | Interest::PRIORITY;
        // SAFETY: an OwnedFd stays open, and the same descriptor, for as long as the AsyncFd owns it.
        let registered = unsafe { AsyncFd::register_with_interest(socket, interest) };
        registered.map(Self).map_err(Into::into)
    }

    /// Waits until it may be read, and gives what else is known.
    pub fn poll_known(&self, cx: &mut Context<'_>) -> Poll<io::Result<Known>> {
        ready!(self.0.poll_read_ready(cx))?.retain_ready();
        Poll::Ready(Ok(self.known(cx)))
    }

    /// What is known of it now.
    pub fn known(&self, cx: &mut Context<'_>) -> Known {
        // of something that is ready already this waits for nothing
        match pin!(self.0.ready(Interest::READABLE | Interest::PRIORITY)).poll(cx) {
            Poll::Ready(Ok(guard)) => Known {
                is_closed: guard.ready().is_read_closed(),
                has_urgent: guard.ready().is_priority(),
            },
            _ => Known::default(),
        }
    }

    /// Waits until it may be written.
    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.0.poll_write_ready(cx))?.retain_ready();
        Poll::Ready(Ok(()))
    }

    /// Waits until it may be read.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.0.poll_read_ready(cx))?.retain_ready();
        Poll::Ready(Ok(()))
    }

    /// Runs a non-blocking call if the reactor says that it may succeed; `WouldBlock` takes that back.
    ///
    /// # Errors
    /// `WouldBlock`, or what the call says.
    pub fn try_io<R>(&self, interest: Interest, call: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        self.0.try_io(interest, |_| call())
    }

    /// Waits until the connection is broken: reset, or timed out by the kernel.
    pub async fn broken(&self) {
        // an error of the reactor is its end
        let _ = self.0.ready(Interest::ERROR).await;
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Registers a descriptor with the running runtime's reactor, to wait until it is readable.
///
/// # Errors
/// The reactor refused it: it is not a kind that epoll takes, or no memory is left.
pub fn readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd stays open, and the same descriptor, for as long as the AsyncFd owns it.
    unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.map_err(Into::into)
}

/// Waits, until that moment at most, for something to read or the other end to be gone: of which descriptors. None when the
/// time is over, or a signal came: look again.
#[must_use]
pub fn readable_until(fds: &[BorrowedFd<'_>], until: Instant) -> Vec<bool> {
    let left = until.saturating_duration_since(Instant::now());
    // a millisecond more, or the last one would be spent in turns
    let timeout = PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX);
    let mut polled: Vec<_> = (fds.iter())
        .map(|fd| PollFd::new(*fd, PollFlags::POLLIN))
        .collect();
    let is_any = poll(&mut polled, timeout).is_ok();
    (polled.iter())
        .map(|fd| is_any && fd.revents().is_some_and(|r| !r.is_empty()))
        .collect()
}

/// Whether the other end has reset or fully closed (a half-closed TCP peer is still there).
#[must_use]
pub fn is_hung_up(fd: &impl AsFd) -> bool {
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::empty())];
    match poll(&mut fds, PollTimeout::ZERO) {
        Ok(_) => fds[0]
            .revents()
            .is_some_and(|r| r.intersects(PollFlags::POLLERR | PollFlags::POLLHUP)),
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::tcp::reset_on_close;
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
    };

    #[test]
    fn only_a_peer_that_is_gone_for_good_is_hung_up() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut ours, _) = listener.accept().unwrap();
        client.write_all(b"x").unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let mut all = Vec::new();
        ours.read_to_end(&mut all).unwrap();
        assert!(!is_hung_up(&ours), "a half-closed peer still listens");
        reset_on_close(&client);
        drop(client);
        // POLLHUP is always waited for
        let patience = PollTimeout::try_from(crate::PATIENCE).unwrap();
        let mut arrives = [PollFd::new(ours.as_fd(), PollFlags::empty())];
        assert_eq!(poll(&mut arrives, patience), Ok(1));
        assert!(is_hung_up(&ours));
    }
}
