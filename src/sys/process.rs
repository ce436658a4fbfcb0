//! Forking a child that shares nothing but memory pages with its parent, and marking a process.

use std::{
    collections::BTreeSet,
    ffi::CString,
    fs::{self, File},
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    panic::{AssertUnwindSafe, catch_unwind},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    sched::{CloneFlags, unshare},
    sys::{
        prctl,
        stat::{Mode, umask},
    },
    unistd::{ForkResult, Pid, dup2_stderr, dup2_stdin, dup2_stdout, fork, getppid, setsid},
};

/// `EX_SOFTWARE` of sysexits: the child panicked.
const EXIT_PANICKED: i32 = 70;
/// `EX_OSERR` of sysexits: the child could not close what it inherited.
const EXIT_OS_ERROR: i32 = 71;

/// Why no child was made.
#[derive(Debug, thiserror::Error)]
pub enum ForkError {
    /// fork copies only the calling thread: locks held by the others would never be released in the child.
    #[error("this process already has {0} threads; it may only fork before it starts any")]
    Threads(usize),
    /// /proc/self/task could not be counted.
    #[error("count threads in /proc/self/task: {0}")]
    CountThreads(io::Error),
    /// fork failed.
    #[error("fork: {0}")]
    Fork(io::Error),
}

/// Number of threads of the calling process.
///
/// # Errors
/// /proc is not mounted.
pub fn thread_count() -> io::Result<usize> {
    Ok(fs::read_dir("/proc/self/task")?.count())
}

/// The names (/proc/PID/comm, 15 bytes at most) of the processes of this network namespace, and of those whose namespace
/// this process may not see.
#[must_use]
pub fn names_in_this_network() -> BTreeSet<String> {
    let ours = fs::read_link("/proc/self/ns/net").ok();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok())
        .filter(|entry| {
            let theirs = fs::read_link(entry.path().join("ns/net"));
            theirs.map_or(true, |theirs| Some(theirs) == ours)
        })
        .filter_map(|entry| fs::read_to_string(entry.path().join("comm")).ok())
        .map(|name| name.trim_end().to_owned())
        .collect()
}

/// As [`fork_child_with`], with no more than these.
///
/// # Errors
/// As [`fork_child_with`].
pub fn fork_child<const N: usize>(
    keep: [OwnedFd; N],
    child: impl FnOnce([OwnedFd; N]) -> i32,
) -> Result<Pid, ForkError> {
    fork_child_with(keep, Vec::new(), |keep, _| child(keep))
}

/// Forks. The child keeps no descriptor but those of `keep` and `more` (0, 1 and 2 become /dev/null), runs `child` and exits
/// with what that returns; it never returns from here. The parent gets the child's id, and both are closed in it.
///
/// # Errors
/// The process has more than one thread, or a system call failed.
pub fn fork_child_with<const N: usize>(
    keep: [OwnedFd; N],
    more: Vec<OwnedFd>,
    child: impl FnOnce([OwnedFd; N], Vec<OwnedFd>) -> i32,
) -> Result<Pid, ForkError> {
    let threads = thread_count().map_err(ForkError::CountThreads)?;
    if threads != 1 {
        return Err(ForkError::Threads(threads));
    }
    // SAFETY: the process has a single thread (checked above, and only this thread could start another), so the
    // child's copy of every lock and of the allocator is consistent.
    match unsafe { fork() }.map_err(|errno| ForkError::Fork(errno.into()))? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            // A panic must not unwind into the parent's frames, of which this process has a copy.
            let status = catch_unwind(AssertUnwindSafe(|| {
                let kept = keep.iter().chain(&more).map(AsRawFd::as_raw_fd);
                if close_all_but(kept.collect()).is_err() {
                    return EXIT_OS_ERROR;
                }
                child(keep, more)
            }))
            .unwrap_or(EXIT_PANICKED);
            // SAFETY: _exit has no precondition. exit() would run the parent's exit handlers a second time.
            unsafe { libc::_exit(status) }
        }
    }
}

/// Closes every descriptor but 0, 1, 2, which become /dev/null, and those of `keep`, of which none may be one of those.
///
/// Only the forked child may call it: the Rust owners of what is closed are in frames that never run there.
fn close_all_but(mut keep: Vec<RawFd>) -> io::Result<()> {
    keep.sort_unstable();
    if keep.iter().any(|fd| *fd <= 2) {
        return Err(Errno::EBADF.into());
    }
    let null = File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)?;
    drop(null);
    let mut first = 3;
    for kept in keep {
        let kept = kept.cast_unsigned();
        close_range(first, kept - 1)?;
        first = kept + 1;
    }
    close_range(first, libc::c_uint::MAX)
}

fn close_range(first: libc::c_uint, last: libc::c_uint) -> io::Result<()> {
    if first <= last {
        // SAFETY: closes descriptors, touches no memory; no live owner of one of them runs in this process (see above).
        Errno::result(unsafe { libc::close_range(first, last, 0) })?;
    }
    Ok(())
}

/// A descriptor that becomes readable when a process ends; `None` where the kernel has none (before Linux 5.3, or in a
/// container that denies the call).
///
/// # Errors
/// There is no such process, or no descriptor is left.
pub fn pidfd(pid: u32) -> io::Result<Option<OwnedFd>> {
    // SAFETY: the call takes two numbers and touches no memory.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_open, libc::c_ulong::from(pid), 0_u64) };
    match Errno::result(result) {
        Err(Errno::ENOSYS | Errno::EPERM) => Ok(None),
        Err(errno) => Err(errno.into()),
        Ok(fd) => {
            let fd = RawFd::try_from(fd).map_err(|_| Errno::EBADF)?;
            // SAFETY: the kernel has just made this descriptor, closed on exec, and nobody else has it.
            Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }))
        }
    }
}

/// The process that started this one, or took it in when that had ended.
#[must_use]
pub fn parent() -> u32 {
    getppid().as_raw().unsigned_abs()
}

/// Names the calling thread, and so the process in `ps`; the kernel keeps the first 15 bytes.
///
/// # Errors
/// The name has a zero byte.
pub fn set_name(name: &str) -> io::Result<()> {
    prctl::set_name(&CString::new(name)?).map_err(Into::into)
}

/// Runs `make` with another umask, which is that of no other thread meanwhile.
///
/// # Errors
/// There are other threads, and the kernel does not let this one have a umask of its own.
pub fn with_umask<T>(mask: u32, make: impl FnOnce() -> T) -> io::Result<T> {
    if thread_count()? != 1 {
        unshare(CloneFlags::CLONE_FS)?;
    }
    let before = umask(Mode::from_bits_truncate(mask));
    let made = make();
    umask(before);
    Ok(made)
}

/// Leaves the terminal and the group of processes that the calling process belongs to, so that their signals do not reach it.
///
/// # Errors
/// It leads a group already.
pub fn leave_terminal() -> io::Result<()> {
    setsid().map(drop).map_err(Into::into)
}

/// Has reads and writes of a descriptor never wait.
///
/// # Errors
/// It is not open.
pub fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

/// Makes sure that neither the calling thread nor what it starts can gain privileges by executing a file.
///
/// # Errors
/// The kernel refused, which it never does.
pub fn set_no_new_privs() -> io::Result<()> {
    prctl::set_no_new_privs().map_err(Into::into)
}

/// Forbids core dumps of this process, and that processes of the same user trace it.
///
/// # Errors
/// The kernel refused, which it never does.
pub fn set_undumpable() -> io::Result<()> {
    prctl::set_dumpable(false).map_err(Into::into)
}

/// Whether a change of the user id from 0 leaves the permitted capabilities.
///
/// # Errors
/// The securebits forbid the change.
pub fn set_keep_capabilities(keep: bool) -> io::Result<()> {
    prctl::set_keepcaps(keep).map_err(Into::into)
}
