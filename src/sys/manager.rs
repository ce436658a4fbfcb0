//! The service manager's store: descriptors that it keeps for the process after this one (sd_pid_notify_with_fds(3)).

use std::{
    io,
    os::{
        fd::{AsFd as _, BorrowedFd},
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
    time::Duration,
};

use super::fdpass;

/// Descriptors in a message; the kernel passes 253 at most (SCM_MAX_FD).
const FDS_PER_MESSAGE: usize = 128;

/// Longest name that systemd takes, in bytes (`FDNAME_MAX` of its src/basic/fd-util.h).
const MAX_NAME_BYTES: usize = 255;

/// How long a message waits for a manager that does not read.
const PATIENCE: Duration = Duration::from_secs(5);

/// The service manager, by a socket of its own.
#[derive(Debug)]
pub struct Manager {
    socket: UnixDatagram,
}

/// How many descriptors the service manager of this process keeps; 0 without such a manager. systemd says it by itself since
/// version 254, before that our unit says it.
#[must_use]
pub fn store_size() -> usize {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return 0;
    }
    let size = std::env::var("FDSTORE").ok();
    size.and_then(|size| size.parse().ok()).unwrap_or(0)
}

impl Manager {
    /// The manager that has started this process, if it keeps descriptors.
    ///
    /// # Errors
    /// Its socket cannot be reached.
    pub fn connect_from_environment() -> io::Result<Option<Self>> {
        let socket = std::env::var_os("NOTIFY_SOCKET").filter(|_| store_size() > 0);
        socket.map(|socket| Self::connect(socket.as_bytes())).transpose()
    }

    /// The manager at a path, or at an abstract name that begins with `@`.
    ///
    /// # Errors
    /// Nobody is there.
    pub fn connect(at: &[u8]) -> io::Result<Self> {
        let addr = match at.strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(at))?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(PATIENCE))?;
        socket.connect_addr(&addr)?;
        Ok(Self { socket })
    }

    /// Has descriptors kept under a name, whatever becomes of them: one that is kept already stays under the name that it has.
    ///
    /// # Errors
    /// The manager does not read, or is gone; or it takes no such name.
    pub fn keep(&self, name: &str, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let text = with_name("FDSTORE=1\nFDPOLL=0", name)?;
        (fds.chunks(FDS_PER_MESSAGE)).try_for_each(|fds| self.send(&text, fds))
    }

    /// Has all descriptors of this name kept no longer.
    ///
    /// # Errors
    /// As [`keep`](Self::keep).
    pub fn forget(&self, name: &str) -> io::Result<()> {
        self.send(&with_name("FDSTOREREMOVE=1", name)?, &[])
    }

    fn send(&self, text: &str, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        fdpass::send(self.socket.as_fd(), text.as_bytes(), fds).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => io::Error::new(io::ErrorKind::TimedOut, "it does not read"),
            _ => error,
        })
    }
}

/// A message about descriptors of a name.
fn with_name(text: &str, name: &str) -> io::Result<String> {
    // what systemd takes as one (`fdname_is_valid`)
    let is_plain = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b':';
    if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.bytes().all(is_plain) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(format!("{text}\nFDNAME={name}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::OwnedFd;

    /// A manager, and our end of it.
    fn pair() -> (UnixDatagram, Manager, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let manager = Manager::connect(path.as_os_str().as_bytes()).unwrap();
        (socket, manager, dir)
    }

    fn said(socket: &UnixDatagram) -> (String, Vec<OwnedFd>) {
        let (bytes, fds) = fdpass::receive(socket.as_fd()).unwrap();
        (String::from_utf8(bytes).unwrap(), fds)
    }

    #[test]
    fn descriptors_are_kept_unwatched_and_forgotten_by_name() {
        let (socket, manager, _dir) = pair();
        let (reader, _writer) = io::pipe().unwrap();
        manager.keep("xdp link 7", &[reader.as_fd(); 2]).unwrap();
        let (text, fds) = said(&socket);
        assert_eq!(text, "FDSTORE=1\nFDPOLL=0\nFDNAME=xdp link 7\n");
        assert_eq!(fds.len(), 2);
        manager.forget("xdp link 7").unwrap();
        let (text, fds) = said(&socket);
        assert_eq!(text, "FDSTOREREMOVE=1\nFDNAME=xdp link 7\n");
        assert!(fds.is_empty());
    }

    #[test]
    fn many_go_in_several_messages() {
        let (socket, manager, _dir) = pair();
        let (reader, _writer) = io::pipe().unwrap();
        manager
            .keep("many", &vec![reader.as_fd(); FDS_PER_MESSAGE + 1])
            .unwrap();
        assert_eq!(said(&socket).1.len(), FDS_PER_MESSAGE);
        assert_eq!(said(&socket).1.len(), 1);
    }

    #[test]
    fn a_name_that_would_be_another_assignment_is_not_sent() {
        let (socket, manager, _dir) = pair();
        socket.set_nonblocking(true).unwrap();
        for name in ["", "a:b", "a\nMAINPID=1", "ä", &"x".repeat(256)] {
            assert!(manager.forget(name).is_err(), "{name:?}");
            assert!(manager.keep(name, &[socket.as_fd()]).is_err(), "{name:?}");
        }
        assert!(fdpass::try_receive(socket.as_fd()).is_err());
    }

    #[test]
    fn one_without_a_path_is_found_too() {
        let name = format!("convey-test-{}", std::process::id());
        let addr = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&addr).unwrap();
        let manager = Manager::connect(format!("@{name}").as_bytes()).unwrap();
        manager.forget("x").unwrap();
        assert_eq!(said(&socket).0, "FDSTOREREMOVE=1\nFDNAME=x\n");
    }

    #[test]
    fn one_that_is_gone_is_an_error() {
        let (socket, manager, dir) = pair();
        drop(socket);
        assert!(manager.forget("x").is_err());
        let nowhere = dir.path().join("nobody");
        assert!(Manager::connect(nowhere.as_os_str().as_bytes()).is_err());
    }
}
