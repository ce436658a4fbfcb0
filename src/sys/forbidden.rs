//! System calls that no part of the daemon needs, and safe ways to try them, so that a filter can be proven by what it
//! stops.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use libc::{c_int, c_long};
use nix::errno::Errno;

/// A system call that is harmless with all arguments zero, whatever the kernel makes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    name: &'static str,
    number: c_long,
}

macro_rules! calls {
    ($($name:ident)*) => { &[$(Call { name: stringify!($name), number: libc::$name }),*] };
}

/// Calls that a network daemon never makes: to run programs, look into other processes, change what is mounted, loaded
/// or named, to become somebody else, and doors by which kernels have been entered.
pub const NEEDLESS: &[Call] = calls! {
    SYS_execve SYS_execveat
    SYS_ptrace SYS_process_vm_readv SYS_process_vm_writev SYS_process_madvise SYS_pidfd_getfd SYS_kcmp
    SYS_mount SYS_umount2 SYS_move_mount SYS_open_tree SYS_mount_setattr SYS_fsopen SYS_fsconfig SYS_fsmount SYS_fspick
    SYS_pivot_root SYS_chroot SYS_open_by_handle_at SYS_name_to_handle_at SYS_fanotify_init SYS_quotactl SYS_mknodat
    SYS_init_module SYS_finit_module SYS_delete_module SYS_kexec_load SYS_reboot
    SYS_swapon SYS_swapoff SYS_acct SYS_sethostname SYS_setdomainname SYS_vhangup SYS_syslog
    SYS_settimeofday SYS_clock_settime SYS_clock_adjtime SYS_adjtimex
    SYS_setuid SYS_setgid SYS_setreuid SYS_setregid SYS_setresuid SYS_setresgid SYS_setfsuid SYS_setfsgid SYS_setgroups
    SYS_capset SYS_setns SYS_unshare
    SYS_bpf SYS_perf_event_open SYS_userfaultfd SYS_io_uring_setup SYS_io_uring_enter SYS_io_uring_register
    SYS_add_key SYS_request_key SYS_keyctl
};

/// As [`NEEDLESS`], of this architecture alone.
#[cfg(target_arch = "x86_64")]
pub const NEEDLESS_HERE: &[Call] = calls! {
    SYS_fork SYS_vfork SYS_mknod SYS_iopl SYS_ioperm SYS_modify_ldt SYS_kexec_file_load SYS_uselib
};

/// As [`NEEDLESS`], of this architecture alone.
#[cfg(not(target_arch = "x86_64"))]
pub const NEEDLESS_HERE: &[Call] = calls! { SYS_kexec_file_load };

/// What the threads of the packet engine do not need either: they work on descriptors that they are handed.
pub const NEEDLESS_TO_PACKET_THREADS: &[Call] = calls! {
    SYS_socket SYS_socketpair SYS_bind SYS_connect SYS_listen SYS_accept SYS_accept4 SYS_setsockopt
};

/// clone3: its flags are in memory, where no filter can look.
pub const CLONE3: Call = Call {
    name: "SYS_clone3",
    number: libc::SYS_clone3,
};

impl Call {
    /// Its name, as in `libc`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.name
    }

    /// Its number on this architecture.
    #[must_use]
    pub const fn number(self) -> c_long {
        self.number
    }

    /// Makes the call with all arguments zero; `None` for vfork, which cannot be tried safely.
    #[must_use]
    pub fn attempt(self) -> Option<io::Result<c_long>> {
        if self.name == "SYS_vfork" {
            return None;
        }
        // SAFETY: the calls of the tables above, of which nobody outside can make another, read and write no memory of
        // this process when all pointers are null and all lengths zero; fork gives both processes their own copy.
        let result = unsafe { libc::syscall(self.number, 0, 0, 0, 0, 0, 0) };
        Some(Errno::result(result).map_err(Into::into))
    }
}

/// Sets a socket option whose value is `value` as an int.
///
/// # Errors
/// What the kernel said.
pub fn set_option(socket: BorrowedFd<'_>, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<c_int>()).map_err(io::Error::other)?;
    // SAFETY: the kernel reads `length` bytes, which are those of `value`.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), length) };
    Errno::result(result).map(drop).map_err(Into::into)
}

/// Starts a process with these flags of clone, which ends at once.
///
/// # Errors
/// What the kernel said; `EINVAL` also for flags by which memory would be shared.
pub fn clone_process(flags: c_int) -> io::Result<()> {
    if flags & (libc::CLONE_VM | libc::CLONE_SETTLS) != 0 {
        return Err(Errno::EINVAL.into());
    }
    // SAFETY: without CLONE_VM the child has memory of its own, as after fork, and does nothing but end.
    match unsafe { libc::syscall(libc::SYS_clone, c_long::from(flags), 0, 0, 0, 0) } {
        // SAFETY: _exit has no precondition.
        0 => unsafe { libc::_exit(0) },
        other => Errno::result(other).map(drop).map_err(Into::into),
    }
}

/// Changes the execution domain of the calling thread; `None` asks for it.
///
/// # Errors
/// What the kernel said.
pub fn personality(new: Option<c_int>) -> io::Result<c_int> {
    let persona = new.map_or(0xffff_ffff, |new| libc::c_ulong::from(new.cast_unsigned()));
    // SAFETY: the call has no precondition.
    let result = unsafe { libc::personality(persona) };
    Errno::result(result).map_err(Into::into)
}

/// Pushes a byte into a terminal's input, as if somebody had typed it (TIOCSTI).
///
/// # Errors
/// What the kernel said.
pub fn type_into(terminal: BorrowedFd<'_>, byte: u8) -> io::Result<()> {
    // SAFETY: the kernel reads one byte at the pointer.
    let result = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSTI, &raw const byte) };
    Errno::result(result).map(drop).map_err(Into::into)
}

/// getpid by the table of the 32-bit x86, which has other numbers for all system calls.
#[cfg(target_arch = "x86_64")]
#[must_use]
pub fn getpid_i386() -> i32 {
    let pid: i32;
    // SAFETY: call 20 of that table takes no arguments and touches no memory; what the entry clobbers is listed.
    unsafe {
        std::arch::asm!(
            "int 0x80",
            inlateout("eax") 20 => pid,
            lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _,
            options(nostack)
        );
    }
    pid
}

/// getpid by the numbers of the x32 ABI.
#[cfg(target_arch = "x86_64")]
#[must_use]
pub fn getpid_x32() -> c_long {
    // SAFETY: getpid takes no arguments and touches no memory.
    unsafe { libc::syscall(0x4000_0000 | libc::SYS_getpid) }
}
