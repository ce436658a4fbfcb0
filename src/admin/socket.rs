//! The unix socket's file: made, replaced when stale, removed at the end.

use std::{
    fs, io,
    os::unix::{fs::DirBuilderExt, net::UnixListener},
    path::{Path, PathBuf},
};

use socket2::SockAddr;

pub use crate::sys::socket_file::SocketFile;
use crate::sys::{
    own_file,
    socket_file::{self, SocketFileError},
};

/// Mode of the socket: the owner and the group may connect.
const SOCKET_MODE: u32 = 0o660;

/// Mode of the directory when it has to be made.
const DIRECTORY_MODE: u32 = 0o755;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 128;

/// Who the socket (and the directory, if it is made) shall belong to, when that is not the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// Why the control socket could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The path does not fit a socket address (or is empty, or has a NUL byte).
    #[error("the control socket's path {} is not valid: {source} (limit: 107 bytes)", path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The directory is missing and cannot be made.
    #[error("cannot create the control socket's directory {}: {source}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Something else than a socket is there.
    #[error("{} exists and is not a socket: remove it, or set [admin] socket to another path", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// Another process answers there.
    #[error("another process listens on {}: stop it, or set [admin] socket to another path", path.display())]
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// What is there could not be examined.
    #[error("cannot examine {}: {source}", path.display())]
    Inspect {
        /// The path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A socket that a dead process left could not be removed.
    #[error("cannot remove the stale socket {}: {source}", path.display())]
    RemoveStale {
        /// The path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// socket, bind or listen failed.
    #[error("cannot listen on {}: {source}", path.display())]
    Listen {
        /// The path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Its owner could not be set.
    #[error("cannot set the owner of {}: {source}", path.display())]
    Owner {
        /// The path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Makes the control socket: mode 0660, in a directory that is made (0755) when only its last part is missing.
/// A socket on which nobody answers is replaced. The listener does not block.
///
/// `owner` is for a process that is about to become somebody else.
///
/// # Errors
/// The path is in use by a living process or by something that is not a socket, or a system call failed.
pub fn bind_socket(path: &Path, owner: Option<Owner>) -> Result<(UnixListener, SocketFile), BindError> {
    // before anything is made
    SockAddr::unix(path).map_err(|source| BindError::at(path, SocketFileError::Path(source)))?;
    make_directory(path, owner)?;
    let give = |file: &SocketFile| owner.map_or(Ok(()), |Owner { uid, gid }| file.give(uid, gid));
    let (socket, file) =
        socket_file::listen(path, SOCKET_MODE, BACKLOG, give).map_err(|error| BindError::at(path, error))?;
    Ok((UnixListener::from(socket), file))
}

impl BindError {
    fn at(path: &Path, error: SocketFileError) -> Self {
        let path = path.into();
        match error {
            SocketFileError::Path(source) => Self::Path { path, source },
            SocketFileError::NotASocket => Self::NotASocket { path },
            SocketFileError::InUse => Self::InUse { path },
            SocketFileError::Inspect(source) => Self::Inspect { path, source },
            SocketFileError::RemoveStale(source) => Self::RemoveStale { path, source },
            SocketFileError::Listen(source) => Self::Listen { path, source },
            SocketFileError::Owner(source) => Self::Owner { path, source },
        }
    }
}

fn make_directory(path: &Path, owner: Option<Owner>) -> Result<(), BindError> {
    let Some(directory) = path.parent().filter(|d| !d.as_os_str().is_empty()) else {
        return Ok(());
    };
    let made = match fs::DirBuilder::new().mode(DIRECTORY_MODE).create(directory) {
        Ok(()) => match owner {
            Some(Owner { uid, gid }) => own_file::pin(directory)
                .and_then(|made| own_file::give(&made, fs::Metadata::is_dir, uid, gid)),
            None => Ok(()),
        },
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        // a directory that exists may still refuse mkdir with another error (read-only file system)
        Err(_) if directory.is_dir() => Ok(()),
        Err(error) => Err(error),
    };
    made.map_err(|source| BindError::Directory {
        path: directory.into(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use notify::{RecursiveMode, Watcher as _};
    use socket2::{Domain, Socket, Type};
    use std::os::unix::{
        fs::MetadataExt as _,
        net::{UnixDatagram, UnixStream},
    };

    fn directory() -> tempfile::TempDir {
        tempfile::tempdir().expect("a temporary directory")
    }

    #[test]
    fn owner_and_group_may_connect_and_the_file_goes_with_its_guard() {
        let directory = directory();
        let path = directory.path().join("convey/admin.sock");
        let (_listener, file) = bind_socket(&path, None).expect("bind");
        let mode = fs::metadata(&path).expect("metadata").mode();
        assert_eq!(mode & 0o7777, 0o660);
        let mode = fs::metadata(directory.path().join("convey"))
            .expect("metadata")
            .mode();
        assert_eq!(mode & 0o7777, 0o755);
        assert!(UnixStream::connect(&path).is_ok());
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn the_socket_has_its_mode_from_its_first_moment() {
        let directory = directory();
        let (tell, told) = std::sync::mpsc::channel();
        let mut watcher =
            notify::recommended_watcher(move |event| drop(tell.send(event))).expect("a watcher");
        watcher
            .watch(directory.path(), RecursiveMode::NonRecursive)
            .expect("a watch");
        let path = directory.path().join("admin.sock");
        let (_listener, _file) = bind_socket(&path, None).expect("bind");
        let last = directory.path().join("last");
        fs::write(&last, "").expect("write");
        let mut is_made = false;
        loop {
            let event = told
                .recv_timeout(crate::PATIENCE)
                .expect("an event")
                .expect("no error");
            if event.paths.contains(&last) {
                break;
            }
            is_made |= event.kind.is_create() && event.paths.contains(&path);
            assert!(!event.kind.is_modify(), "it was changed afterwards: {event:?}");
        }
        assert!(is_made);
        assert_eq!(
            fs::metadata(&path).expect("metadata").mode() & 0o7777,
            SOCKET_MODE
        );
    }

    #[test]
    fn a_stale_socket_is_replaced() {
        let directory = directory();
        let path = directory.path().join("admin.sock");
        drop(UnixListener::bind(&path).expect("first bind")); // leaves the file
        assert!(path.exists());
        let (_listener, _file) = bind_socket(&path, None).expect("bind over a stale socket");
        assert!(UnixStream::connect(&path).is_ok());
    }

    #[test]
    fn a_living_socket_is_never_replaced() {
        let directory = directory();
        let path = directory.path().join("admin.sock");
        let _living = bind_socket(&path, None).expect("bind");
        let inode = fs::metadata(&path).expect("metadata").ino();
        assert!(matches!(bind_socket(&path, None), Err(BindError::InUse { .. })));
        assert_eq!(fs::metadata(&path).expect("metadata").ino(), inode);
        assert!(UnixStream::connect(&path).is_ok());
    }

    #[test]
    fn a_living_socket_with_a_full_queue_is_in_use_not_waited_for() {
        let directory = directory();
        let path = directory.path().join("admin.sock");
        let address = SockAddr::unix(&path).expect("address");
        let living = Socket::new(Domain::UNIX, Type::STREAM, None).expect("socket");
        living.bind(&address).expect("bind");
        living.listen(0).expect("listen");
        let _waiting = UnixStream::connect(&path).expect("fills the queue");
        assert!(matches!(bind_socket(&path, None), Err(BindError::InUse { .. })));
    }

    #[test]
    fn somebody_elses_datagram_socket_is_in_use() {
        let directory = directory();
        let path = directory.path().join("admin.sock");
        let _other = UnixDatagram::bind(&path).expect("bind");
        assert!(matches!(bind_socket(&path, None), Err(BindError::InUse { .. })));
    }

    #[test]
    fn a_file_or_directory_in_the_way_is_left_alone() {
        let directory = directory();
        let path = directory.path().join("admin.sock");
        fs::write(&path, "precious").expect("write");
        assert!(matches!(
            bind_socket(&path, None),
            Err(BindError::NotASocket { .. })
        ));
        assert_eq!(fs::read(&path).expect("read"), b"precious");
        assert!(matches!(
            bind_socket(directory.path(), None),
            Err(BindError::NotASocket { .. })
        ));
    }

    #[test]
    fn only_the_last_part_of_the_directory_is_made() {
        let directory = directory();
        let path = directory.path().join("a/b/admin.sock");
        assert!(matches!(
            bind_socket(&path, None),
            Err(BindError::Directory { .. })
        ));
    }

    #[test]
    fn a_path_too_long_for_a_socket_is_named() {
        let path = PathBuf::from("/tmp").join("x".repeat(120));
        let error = bind_socket(&path, None).expect_err("too long");
        assert!(matches!(error, BindError::Path { .. }), "{error}");
        assert!(error.to_string().contains("(limit: 107 bytes)"), "{error}");
    }

    #[test]
    fn the_end_of_an_old_daemon_does_not_remove_the_socket_of_its_successor() {
        let directory = directory();
        let path = directory.path().join("admin.sock");
        let (old_listener, old_file) = bind_socket(&path, None).expect("bind");
        drop(old_listener);
        let (_new_listener, _new_file) = bind_socket(&path, None).expect("the old one is stale");
        drop(old_file);
        assert!(UnixStream::connect(&path).is_ok());
    }
}
