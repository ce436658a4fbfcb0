//! The terminal that the daemon was started on, if it was: when that closes, the daemon ends as other programs do.

use std::{
    io::{self, IsTerminal},
    os::fd::{AsFd, BorrowedFd},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Standard input or error, as far as it was a terminal at the start.
#[derive(Debug, Default)]
pub struct Terminal {
    stream: Option<Stream>,
    /// Whether SIGHUP has come: without it (`setsid`, `disown`) the daemon is to outlive the terminal.
    has_signalled: bool,
}

#[derive(Debug, Clone, Copy)]
enum Stream {
    Input,
    Error,
}

impl Terminal {
    /// What this process was started on; nothing under a service manager.
    pub fn of_process() -> Self {
        let is_service = std::env::var_os("NOTIFY_SOCKET").is_some();
        let stream = match (io::stdin().is_terminal(), io::stderr().is_terminal()) {
            _ if is_service => None,
            (true, _) => Some(Stream::Input),
            (false, true) => Some(Stream::Error),
            (false, false) => None,
        };
        Self {
            stream,
            has_signalled: false,
        }
    }

    /// Notes a SIGHUP.
    pub const fn signalled(&mut self) {
        self.has_signalled = true;
    }

    /// Whether SIGHUP has come and the terminal is closed. A terminal program may send the signal before it closes its
    /// side: so this is to be asked again some time after the signal.
    pub fn is_closed(&self) -> bool {
        self.has_signalled
            && match self.stream {
                None => false,
                Some(Stream::Input) => is_hung_up(io::stdin().as_fd()),
                Some(Stream::Error) => is_hung_up(io::stderr().as_fd()),
            }
    }
}

/// What a terminal reports for good once its other side is closed (drivers/tty/tty_io.c, `hung_up_tty_poll`).
fn is_hung_up(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::empty())];
    let ready = poll(&mut fds, PollTimeout::ZERO);
    ready.is_ok() && (fds[0].revents()).is_some_and(|events| events.contains(PollFlags::POLLHUP))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_hung_up_once_its_other_side_is_closed() {
        let pty = nix::pty::openpty(None, None).unwrap();
        assert!(!is_hung_up(pty.slave.as_fd()));
        drop(pty.master);
        assert!(is_hung_up(pty.slave.as_fd()));
    }
}
