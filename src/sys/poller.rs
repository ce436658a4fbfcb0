//! A set of descriptors of which the reactor knows only the whole: thousands of sockets that one task serves.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, RawFd},
};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use tokio::io::{Interest, unix::AsyncFd};

/// Descriptors that are told of at a time.
const EVENTS: usize = 256;

struct Set(Epoll);

impl AsRawFd for Set {
    fn as_raw_fd(&self) -> RawFd {
        self.0.0.as_raw_fd()
    }
}

/// Descriptors, each with a number by which it is told of: once each time that something has come, and so to be read until
/// nothing is left.
pub struct Poller {
    set: AsyncFd<Set>,
    events: Box<[EpollEvent]>,
}

impl std::fmt::Debug for Poller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Poller").finish_non_exhaustive()
    }
}

impl Poller {
    /// An empty set, in the running runtime's reactor.
    ///
    /// # Errors
    /// No descriptor or memory is left.
    pub fn new() -> io::Result<Self> {
        let set = Set(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?);
        // SAFETY: a Set keeps its descriptor open, and the same, for as long as the AsyncFd owns it.
        let set = unsafe { AsyncFd::register_with_interest(set, Interest::READABLE) };
        Ok(Self {
            set: set.map_err(io::Error::from)?,
            events: vec![EpollEvent::empty(); EVENTS].into_boxed_slice(),
        })
    }

    /// Adds a descriptor; it leaves when it is closed.
    ///
    /// # Errors
    /// No memory is left, or as many are watched as this user may (epoll(7), `max_user_watches`).
    pub fn add(&self, fd: impl AsFd, number: u64) -> io::Result<()> {
        let event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, number);
        Ok(self.set.get_ref().0.add(fd, event)?)
    }

    /// Takes one out that stays open.
    pub fn remove(&self, fd: impl AsFd) {
        // one that is not in it is out of it
        let _ = self.set.get_ref().0.delete(fd);
    }

    /// Waits until something has come to some of them, and appends their numbers.
    ///
    /// # Errors
    /// The reactor has ended.
    pub async fn ready(&mut self, numbers: &mut Vec<u64>) -> io::Result<()> {
        loop {
            let mut ready = self.set.readable().await?;
            let found = ready.get_inner().0.wait(&mut self.events, EpollTimeout::ZERO);
            // a signal
            let Ok(found) = found else { continue };
            // what comes from now on is told of again
            if found < EVENTS {
                ready.clear_ready();
            }
            if found > 0 {
                numbers.extend(self.events.iter().take(found).map(EpollEvent::data));
                return Ok(());
            }
        }
    }
}
