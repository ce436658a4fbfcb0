//! Open descriptors and their limit.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use nix::{
    fcntl::{FcntlArg, fcntl},
    sys::resource::{Resource, getrlimit, setrlimit},
};

/// Raises the soft limit of open descriptors to the hard one, which needs no privilege. Returns the limit in force.
///
/// # Errors
/// The kernel refused, which it never does.
pub fn raise_open_files() -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard)
}

/// How many descriptors may be open.
///
/// # Errors
/// The kernel refused, which it never does.
pub fn most_open_files() -> io::Result<u64> {
    Ok(getrlimit(Resource::RLIMIT_NOFILE)?.0)
}

/// How many descriptors are open, as far as their numbers have no gaps: the lowest free number. A process that gave up
/// root's identity may not count them in /proc.
///
/// # Errors
/// None is left.
pub fn open_files() -> io::Result<u64> {
    let fd = fcntl(io::stderr(), FcntlArg::F_DUPFD_CLOEXEC(0))?;
    // SAFETY: the kernel has just made this descriptor, and nobody else has it.
    let lowest = unsafe { OwnedFd::from_raw_fd(fd) };
    Ok(u64::try_from(lowest.as_raw_fd()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use nix::sched::{CloneFlags, unshare};

    use super::*;

    #[test]
    fn whatever_is_opened_counts() {
        let check = || {
            // no other test opens or closes anything in this table
            unshare(CloneFlags::CLONE_FILES).unwrap();
            let before = open_files().unwrap();
            let _fills_the_gap = io::stderr().as_fd().try_clone_to_owned().unwrap();
            let with_one_more = open_files().unwrap();
            assert!(with_one_more > before, "{before}, then {with_one_more}");
        };
        std::thread::spawn(check).join().unwrap();
    }

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let raised = raise_open_files().unwrap();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (raised, raised));
    }
}
