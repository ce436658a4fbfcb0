//! The file of a unix socket that is listened on: made, replaced when stale, removed at the end.

use std::{
    fs, io,
    os::{
        fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
};

use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use super::{own_file, process};

/// Bits of a mode that a umask can take away.
const PERMISSIONS: u32 = 0o777;

/// `SIOCUNIXFILE` of linux/un.h, which libc lacks: a descriptor of the file that a socket was bound to.
const SIOCUNIXFILE: libc::Ioctl = 0x89E0;

/// Why a socket could not be made at a path.
#[derive(Debug, thiserror::Error)]
pub enum SocketFileError {
    /// The path does not fit a socket address (or is empty, or has a NUL byte).
    #[error("its path is not valid: {0} (limit: 107 bytes)")]
    Path(io::Error),
    /// Something else than a socket is there.
    #[error("it exists and is not a socket")]
    NotASocket,
    /// Another process answers there.
    #[error("another process listens on it")]
    InUse,
    /// What is there could not be examined.
    #[error("cannot examine it: {0}")]
    Inspect(io::Error),
    /// A socket that a dead process left could not be removed.
    #[error("cannot remove the stale socket: {0}")]
    RemoveStale(io::Error),
    /// socket, bind or listen failed.
    #[error("{0}")]
    Listen(io::Error),
    /// Its owner or group could not be set.
    #[error("cannot set its owner: {0}")]
    Owner(io::Error),
}

/// The file of a bound socket. Dropping it removes the file, if it is still the one that was made.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// An O_PATH descriptor of the file: while it is held the kernel cannot give the inode's number to another.
    pin: fs::File,
}

/// Makes a listening socket at a path, which does not block. Its file has the mode from its first moment: what is at a path may be
/// another thing a moment later. `made` is called before anybody can connect. A socket on which nobody answers is replaced.
///
/// # Errors
/// The path is in use by a living process or by something that is not a socket, a system call failed, or what `made` says.
pub fn listen(
    path: &Path,
    mode: u32,
    backlog: i32,
    made: impl FnOnce(&SocketFile) -> io::Result<()>,
) -> Result<(OwnedFd, SocketFile), SocketFileError> {
    let address = SockAddr::unix(path).map_err(SocketFileError::Path)?;
    clear_stale(path, &address)?;
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::UNIX, kind, None).map_err(SocketFileError::Listen)?;
    process::with_umask(!mode & PERMISSIONS, || socket.bind(&address))
        .and_then(|bound| bound)
        .map_err(SocketFileError::Listen)?;
    let pin = own_file::pin(path).map_err(SocketFileError::Owner)?;
    let file = SocketFile {
        path: path.into(),
        pin,
    };
    made(&file).map_err(SocketFileError::Owner)?;
    socket.listen(backlog).map_err(SocketFileError::Listen)?;
    Ok((socket.into(), file))
}

/// The path at which a descriptor listens, if it is a stream socket that does.
#[must_use]
pub fn path_of(socket: impl AsFd) -> Option<PathBuf> {
    let socket = SockRef::from(&socket);
    let is_ours = socket.r#type().ok()? == Type::STREAM && socket.is_listener().ok()?;
    let addr = socket.local_addr().ok()?;
    addr.as_pathname().map(Path::to_owned).filter(|_| is_ours)
}

impl SocketFile {
    /// The file of a socket that was bound to a path by somebody before. Needs CAP_NET_ADMIN.
    ///
    /// # Errors
    /// It is no socket with a file, or another file, or none, is at the path by now ([`io::ErrorKind::NotFound`]).
    pub fn of(socket: impl AsFd, path: &Path) -> io::Result<Self> {
        // SAFETY: the request takes no argument; a result that is not negative is a new descriptor that nobody else owns.
        let pin = unsafe {
            let fd = libc::ioctl(socket.as_fd().as_raw_fd(), SIOCUNIXFILE);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            fs::File::from(OwnedFd::from_raw_fd(fd))
        };
        let file = Self {
            path: path.into(),
            pin,
        };
        if file.is_there() {
            Ok(file)
        } else {
            file.leave();
            Err(io::ErrorKind::NotFound.into())
        }
    }

    /// Gives it to a user and a group.
    ///
    /// # Errors
    /// Somebody has put something else in its place, or the kernel refused.
    pub fn give(&self, uid: u32, gid: u32) -> io::Result<()> {
        own_file::give(&self.pin, |made| made.file_type().is_socket(), uid, gid)
    }

    /// Sets its mode and its group; what is so already needs no permission.
    ///
    /// # Errors
    /// The kernel refused: of a group above all, which its owner must belong to.
    pub fn set_rights(&self, mode: u32, gid: u32) -> io::Result<()> {
        let now = self.pin.metadata()?;
        if !own_file::is_made_by_us(&now, |made| made.file_type().is_socket()) {
            return Err(own_file::alien());
        }
        if now.gid() != gid {
            self.give(now.uid(), gid)?;
        }
        if now.mode() & PERMISSIONS != mode {
            // the way of proc(5) to what an O_PATH descriptor stands for: fchmod(2) takes none
            let itself = format!("/proc/self/fd/{}", self.pin.as_raw_fd());
            fs::set_permissions(itself, fs::Permissions::from_mode(mode))?;
        }
        Ok(())
    }

    /// Leaves the file where it is.
    pub fn leave(mut self) {
        self.path = PathBuf::new();
    }

    fn is_there(&self) -> bool {
        let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        let there = fs::symlink_metadata(&self.path).map(identity);
        let made = self.pin.metadata().map(identity);
        there.is_ok_and(|there| made.is_ok_and(|made| there == made))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.is_there() {
            // a failure (the directory is not ours) leaves a stale socket, which the next start replaces
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes what a dead process left; refuses anything else.
fn clear_stale(path: &Path, address: &SockAddr) -> Result<(), SocketFileError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(SocketFileError::Inspect(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => return Err(SocketFileError::NotASocket),
        Ok(_) => {}
    }
    // a living process with a full accept queue would block a plain connect
    let kind = Type::STREAM.nonblocking().cloexec();
    let probe = Socket::new(Domain::UNIX, kind, None).map_err(SocketFileError::Inspect)?;
    match probe.connect(address) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(SocketFileError::RemoveStale)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // EPROTOTYPE: somebody's datagram socket
        Err(error)
            if error.kind() != io::ErrorKind::WouldBlock
                && error.raw_os_error() != Some(libc::EPROTOTYPE) =>
        {
            Err(SocketFileError::Inspect(error))
        }
        Ok(()) | Err(_) => Err(SocketFileError::InUse),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixListener, UnixStream};

    fn directory() -> tempfile::TempDir {
        tempfile::tempdir().expect("a temporary directory")
    }

    fn free(_: &SocketFile) -> io::Result<()> {
        Ok(())
    }

    fn mode_of(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn a_link_is_neither_followed_nor_removed() {
        let directory = directory();
        let (real, link) = (directory.path().join("real"), directory.path().join("link"));
        drop(UnixListener::bind(&real).unwrap());
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert!(matches!(
            listen(&link, 0o660, 9, free),
            Err(SocketFileError::NotASocket)
        ));
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink() && real.exists());
    }

    #[test]
    fn rights_change_in_place_and_only_of_what_was_made() {
        let directory = directory();
        let path = directory.path().join("web.sock");
        let (_socket, file) = listen(&path, 0o600, 9, free).unwrap();
        assert_eq!(mode_of(&path), 0o600);
        let gid = fs::metadata(&path).unwrap().gid();
        file.set_rights(0o666, gid).unwrap();
        assert_eq!(mode_of(&path), 0o666);
        // somebody has replaced it meanwhile
        fs::remove_file(&path).unwrap();
        let _theirs = UnixListener::bind(&path).unwrap();
        let theirs = mode_of(&path);
        file.set_rights(0o600, gid).unwrap();
        assert_eq!(mode_of(&path), theirs);
        drop(file);
        assert!(UnixStream::connect(&path).is_ok());
    }

    #[test]
    fn who_may_not_own_it_makes_none() {
        let directory = directory();
        let path = directory.path().join("web.sock");
        let refused = listen(&path, 0o660, 9, |_| Err(io::ErrorKind::PermissionDenied.into()));
        assert!(matches!(refused, Err(SocketFileError::Owner(_))));
        assert!(!path.exists());
    }

    #[test]
    fn a_listener_knows_its_path_and_a_connection_is_none() {
        let directory = directory();
        let path = directory.path().join("web.sock");
        let (socket, file) = listen(&path, 0o660, 9, free).unwrap();
        assert_eq!(path_of(&socket), Some(path.clone()));
        let client = UnixStream::connect(&path).unwrap();
        assert_eq!(path_of(&client), None);
        file.leave();
        assert!(path.exists());
    }

    #[test]
    fn the_file_of_a_socket_is_found_again_unless_it_was_replaced() {
        let directory = directory();
        let path = directory.path().join("web.sock");
        let (socket, file) = listen(&path, 0o660, 9, free).unwrap();
        file.leave();
        match SocketFile::of(&socket, &path) {
            Ok(file) => drop(file),
            // of a test that is not run by root there is nothing more to see
            Err(error) => return assert_eq!(error.kind(), io::ErrorKind::PermissionDenied),
        }
        assert!(!path.exists());
        let _theirs = UnixListener::bind(&path).unwrap();
        assert_eq!(
            SocketFile::of(&socket, &path).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
        assert!(UnixStream::connect(&path).is_ok());
    }
}
