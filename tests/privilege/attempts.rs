//! Safe ways to make the system calls that the dropped daemon must not be able to make.
#![allow(
    unsafe_code,
    reason = "the calls are made as an attacker would; the product has no use for them"
)]

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use convey::sys::calls::Call;
use libc::{c_int, c_long};
use nix::errno::Errno;

/// A call that does no harm with all arguments zero, whatever the kernel makes of it.
#[derive(Debug, Clone, Copy)]
pub struct Harmless {
    pub name: &'static str,
    number: c_long,
}

macro_rules! harmless {
    ($($name:ident)*) => { &[$(Harmless { name: stringify!($name), number: libc::$name }),*] };
}

/// Calls to run programs, look into and change other processes, change what is mounted, loaded or named, become somebody
/// else, share memory and queues, and doors by which kernels have been entered.
pub const ATTACKS: &[Harmless] = harmless! {
    SYS_execve SYS_execveat
    SYS_ptrace SYS_process_vm_readv SYS_process_vm_writev SYS_process_madvise SYS_kcmp
    SYS_pidfd_open SYS_pidfd_getfd SYS_pidfd_send_signal SYS_rt_sigqueueinfo SYS_rt_tgsigqueueinfo SYS_tkill
    SYS_setpriority SYS_ioprio_set SYS_sched_setscheduler SYS_sched_setparam SYS_sched_setattr
    SYS_migrate_pages SYS_move_pages SYS_setpgid SYS_get_robust_list
    SYS_mount SYS_umount2 SYS_move_mount SYS_open_tree SYS_mount_setattr SYS_fsopen SYS_fsconfig SYS_fsmount SYS_fspick
    SYS_pivot_root SYS_chroot SYS_open_by_handle_at SYS_name_to_handle_at SYS_fanotify_init SYS_quotactl SYS_mknodat
    SYS_fchownat SYS_fchmodat SYS_linkat SYS_symlinkat SYS_setxattr
    SYS_init_module SYS_finit_module SYS_delete_module SYS_kexec_load SYS_reboot
    SYS_swapon SYS_swapoff SYS_acct SYS_sethostname SYS_setdomainname SYS_vhangup SYS_syslog
    SYS_settimeofday SYS_clock_settime SYS_clock_adjtime SYS_adjtimex
    SYS_setuid SYS_setgid SYS_setreuid SYS_setregid SYS_setresuid SYS_setresgid SYS_setfsuid SYS_setfsgid SYS_setgroups
    SYS_capset SYS_setns SYS_unshare SYS_personality
    SYS_shmget SYS_semget SYS_msgget SYS_mq_open SYS_io_setup SYS_timer_create SYS_signalfd4
    SYS_bpf SYS_perf_event_open SYS_userfaultfd SYS_io_uring_setup SYS_io_uring_enter SYS_io_uring_register
    SYS_add_key SYS_request_key SYS_keyctl
};

/// As [`ATTACKS`], of this architecture alone.
#[cfg(target_arch = "x86_64")]
pub const ATTACKS_HERE: &[Harmless] = harmless! {
    SYS_fork SYS_mknod SYS_iopl SYS_ioperm SYS_modify_ldt SYS_kexec_file_load SYS_uselib
};

/// As [`ATTACKS`], of this architecture alone.
#[cfg(not(target_arch = "x86_64"))]
pub const ATTACKS_HERE: &[Harmless] = harmless! { SYS_kexec_file_load };

/// Makes a call with all arguments zero.
pub fn attempt(call: Harmless) -> io::Result<c_long> {
    // SAFETY: the calls of the tables above, of which nobody outside can make another, read and write no memory of this
    // process when all pointers are null and all lengths zero; fork gives both processes their own copy.
    let result = unsafe { libc::syscall(call.number, 0, 0, 0, 0, 0, 0) };
    Errno::result(result).map_err(Into::into)
}

/// Makes one of the calls that packet threads give up, or clone3, with arguments that name nothing.
pub fn attempt_in_vain(call: Call) -> io::Result<c_long> {
    // SAFETY: descriptor -1 is never open, family -1 never known, and a structure of 0 bytes never right: with these the
    // calls on sockets and clone3 touch no memory.
    let result = unsafe { libc::syscall(call.number(), -1, 0, 0, 0, 0, 0) };
    Errno::result(result).map_err(Into::into)
}

/// Has the kernel send a process signals about a descriptor (F_SETOWN).
pub fn have_signals_sent(fd: BorrowedFd<'_>, pid: c_int) -> io::Result<()> {
    // SAFETY: the command takes a number and touches no memory.
    let result = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETOWN, pid) };
    Errno::result(result).map(drop).map_err(Into::into)
}

/// Lowers the limit of open files of a process to none.
pub fn limit(pid: c_int) -> io::Result<()> {
    let none = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the kernel reads `none`, which lives through the call, and writes nothing.
    let result = unsafe { libc::prlimit(pid, libc::RLIMIT_NOFILE, &raw const none, std::ptr::null_mut()) };
    Errno::result(result).map(drop).map_err(Into::into)
}

/// Maps memory that can be run.
pub fn map_program() -> io::Result<()> {
    let protection = libc::PROT_READ | libc::PROT_EXEC;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping at an address of the kernel's choice, which nobody uses, touches no other memory.
    let mapped = unsafe { libc::mmap(std::ptr::null_mut(), 4_096, protection, flags, -1, 0) };
    if mapped == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Sets a socket option whose value is `value` as an int.
pub fn set_option(socket: BorrowedFd<'_>, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<c_int>()).map_err(io::Error::other)?;
    // SAFETY: the kernel reads `length` bytes, which are those of `value`.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), length) };
    Errno::result(result).map(drop).map_err(Into::into)
}

/// Starts a process with these flags of clone, which ends at once; flags by which memory would be shared are `EINVAL`.
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

/// Pushes a byte into a terminal's input, as if somebody had typed it (TIOCSTI).
pub fn type_into(terminal: BorrowedFd<'_>, byte: u8) -> io::Result<()> {
    // SAFETY: the kernel reads one byte at the pointer.
    let result = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSTI, &raw const byte) };
    Errno::result(result).map(drop).map_err(Into::into)
}

/// getpid by the table of the 32-bit x86, which has other numbers for all system calls.
#[cfg(target_arch = "x86_64")]
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

/// A call of the kernel's that no version has yet.
pub fn call_of_the_future() -> io::Result<c_long> {
    // SAFETY: no kernel has a call of this number: nothing happens.
    let result = unsafe { libc::syscall(900, 0, 0, 0, 0, 0, 0) };
    Errno::result(result).map_err(Into::into)
}

/// getpid by the numbers of the x32 ABI.
#[cfg(target_arch = "x86_64")]
pub fn getpid_x32() -> c_long {
    // SAFETY: getpid takes no arguments and touches no memory.
    unsafe { libc::syscall(0x4000_0000 | libc::SYS_getpid) }
}
