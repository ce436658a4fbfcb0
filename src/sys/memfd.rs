//! Files in memory: one that nobody can change any more, or that whoever has it may.

use std::{
    ffi::CStr,
    fs::File,
    io::{self, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::FileExt,
    },
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, SealFlag, fcntl},
    sys::{
        memfd::{MFdFlags, memfd_create},
        stat::fstat,
    },
};

/// `MFD_NOEXEC_SEAL` (Linux 6.3): never executable. The kernel complains in its log when it is left out.
const NOEXEC_SEAL: MFdFlags = MFdFlags::from_bits_retain(0x8);

fn seals() -> SealFlag {
    SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE
}

/// Makes one that is empty, and may be changed by whoever has it for ever: nobody can seal it. Its name is seen in /proc alone.
///
/// # Errors
/// There is no memory or descriptor left.
pub fn shared(name: &CStr) -> io::Result<OwnedFd> {
    let fd = empty(name)?;
    fcntl(&fd, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SEAL))?;
    Ok(fd)
}

/// The same of one that can be sealed.
///
/// # Errors
/// As [`shared`]'s.
pub fn empty(name: &CStr) -> io::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    Ok(match memfd_create(name, flags | NOEXEC_SEAL) {
        Err(Errno::EINVAL) => memfd_create(name, flags)?,
        other => other?,
    })
}

/// Copies `content` into a new sealed memfd.
///
/// # Errors
/// There is no memory or descriptor left.
pub fn sealed(content: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(empty(c"convey-config")?);
    file.write_all(content)?;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals()))?;
    Ok(file.into())
}

/// Device and inode of a file, which no other file has while it is open.
///
/// # Errors
/// The kernel does not say.
pub fn identity(fd: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
    let status = fstat(fd)?;
    Ok((status.st_dev, status.st_ino))
}

/// Whether this is a memfd that nobody can change any more. Asks the kernel about the descriptor alone, whatever it is.
#[must_use]
pub fn is_sealed(fd: BorrowedFd<'_>) -> bool {
    let seals_of = |fd| fcntl(fd, FcntlArg::F_GET_SEALS).map(SealFlag::from_bits_retain);
    seals_of(fd).is_ok_and(|has| has.contains(seals()))
}

/// Reads a memfd made by [`sealed`], from its start.
///
/// # Errors
/// It is not sealed, is larger than `limit` bytes, or cannot be read.
pub fn read_sealed(fd: OwnedFd, limit: usize) -> io::Result<Vec<u8>> {
    if !is_sealed(fd.as_fd()) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the file in memory is not sealed",
        ));
    }
    let file = File::from(fd);
    let size = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    if size > limit {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("the file in memory has {size} bytes, more than {limit}"),
        ));
    }
    let mut content = vec![0; size];
    file.read_exact_at(&mut content, 0)?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_file_says_what_was_put_in_and_cannot_be_changed() {
        let fd = sealed(b"[frontends.web]").unwrap();
        let file = File::from(fd.try_clone().unwrap());
        assert!(file.write_at(b"x", 0).is_err(), "a sealed file was written");
        assert!(file.set_len(0).is_err(), "a sealed file was cut");
        assert_eq!(read_sealed(fd, 100).unwrap(), b"[frontends.web]");
    }

    #[test]
    fn nobody_keeps_others_from_changing_a_shared_file() {
        let file = File::from(shared(c"test").unwrap());
        file.write_all_at(b"first", 0).unwrap();
        assert!(fcntl(&file, FcntlArg::F_ADD_SEALS(seals())).is_err());
        file.write_all_at(b"later", 0).unwrap();
        assert!(!is_sealed(file.as_fd()));
        assert_ne!(
            identity(file.as_fd()).unwrap(),
            identity(shared(c"test").unwrap().as_fd()).unwrap()
        );
    }

    #[test]
    fn an_unsealed_or_too_large_file_is_refused() {
        let plain = memfd_create(c"test", MFdFlags::MFD_CLOEXEC).unwrap();
        assert!(read_sealed(plain, 100).is_err());
        assert!(read_sealed(sealed(b"12345").unwrap(), 4).is_err());
    }
}
