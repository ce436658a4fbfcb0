//! Connections to unix sockets (unix(7), SOCK_STREAM).

use std::{io, os::fd::OwnedFd, path::Path};

use socket2::{Domain, SockAddr, Socket, Type};

/// Why there is no connection to a unix socket.
#[derive(Debug, thiserror::Error)]
pub enum UnixConnectError {
    /// Nothing is at its path.
    #[error("no such socket")]
    Missing,
    /// Nobody listens on it, or what is there is no socket.
    #[error("connection refused (nobody listens on this socket)")]
    Refused,
    /// Its permissions, or those of a directory above it, do not let us.
    #[error("permission denied (this user may not write to the socket, or not enter its directory)")]
    Denied,
    /// Its accept queue is full.
    #[error("its accept queue is full")]
    Full,
    /// It is a socket of datagrams or packets.
    #[error("not a stream socket")]
    OtherKind,
    /// Its path leads nowhere for another reason.
    #[error("{0}")]
    Path(io::Error),
    /// We lack something: descriptors, memory.
    #[error("{0}")]
    Ours(io::Error),
}

impl UnixConnectError {
    /// What connect(2) says of a path.
    fn of_connect(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ENOENT) => Self::Missing,
            Some(libc::ECONNREFUSED) => Self::Refused,
            Some(libc::EACCES | libc::EPERM) => Self::Denied,
            Some(libc::EAGAIN) => Self::Full,
            Some(libc::EPROTOTYPE) => Self::OtherKind,
            Some(libc::ENOMEM | libc::ENOBUFS) => Self::Ours(error),
            _ => Self::Path(error),
        }
    }

    /// Whether it says nothing of the server.
    #[must_use]
    pub const fn is_ours(&self) -> bool {
        matches!(self, Self::Ours(_))
    }

    /// Whether the next attempt may go better for all that is known.
    #[must_use]
    pub const fn may_pass(&self) -> bool {
        matches!(self, Self::Full)
    }
}

impl From<UnixConnectError> for io::Error {
    fn from(error: UnixConnectError) -> Self {
        match error {
            UnixConnectError::Ours(error) => error,
            other => Self::other(other),
        }
    }
}

/// Connects to the socket at a path, which is done at once or not at all. The connection does not block.
///
/// # Errors
/// Why there is no connection.
pub fn connect(path: &Path) -> Result<OwnedFd, UnixConnectError> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::UNIX, kind, None).map_err(UnixConnectError::Ours)?;
    let addr = SockAddr::unix(path).map_err(UnixConnectError::Path)?;
    socket.connect(&addr).map_err(UnixConnectError::of_connect)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs,
        io::{Read as _, Write as _},
        os::unix::net::{UnixDatagram, UnixListener, UnixStream},
    };

    /// A directory of its own.
    fn directory(name: &str) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("convey-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn a_connection_carries_both_ways() {
        let directory = directory("unix-stream");
        let listener = UnixListener::bind(directory.join("a")).unwrap();
        let mut ours = UnixStream::from(connect(&directory.join("a")).unwrap());
        let (mut theirs, _) = listener.accept().unwrap();
        ours.write_all(b"up").unwrap();
        let mut said = [0; 2];
        theirs.read_exact(&mut said).unwrap();
        assert_eq!(&said, b"up");
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn why_there_is_no_connection_is_told_apart() {
        let directory = directory("unix-faults");
        let why = |name: &str| connect(&directory.join(name)).unwrap_err();
        assert!(matches!(why("missing"), UnixConnectError::Missing));
        fs::write(directory.join("file"), "").unwrap();
        assert!(matches!(why("file"), UnixConnectError::Refused));
        drop(UnixListener::bind(directory.join("stale")).unwrap());
        assert!(matches!(why("stale"), UnixConnectError::Refused));
        let _datagrams = UnixDatagram::bind(directory.join("datagrams")).unwrap();
        assert!(matches!(why("datagrams"), UnixConnectError::OtherKind));
        assert!(matches!(why("file/below"), UnixConnectError::Path(_)));
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        socket
            .bind(&SockAddr::unix(directory.join("busy")).unwrap())
            .unwrap();
        socket.listen(0).unwrap();
        let _waits = connect(&directory.join("busy")).unwrap();
        let full = why("busy");
        assert!(full.may_pass() && !full.is_ours(), "{full}");
        fs::remove_dir_all(directory).unwrap();
    }
}
