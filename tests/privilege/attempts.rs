//! Safe ways to make the system calls that the dropped daemon must not be able to make.
#![allow(
    unsafe_code,
    reason = "the calls are made as an attacker would; the product has no use for them"
)]

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use convey::sys::forbidden::Call;
use libc::{c_int, c_long};
use nix::errno::Errno;

/// Makes a call with all arguments zero; `None` for vfork, which cannot be tried safely.
pub fn attempt(call: Call) -> Option<io::Result<c_long>> {
    if call.name() == "SYS_vfork" {
        return None;
    }
    // SAFETY: the calls of the product's tables, of which nobody outside can make another, read and write no memory of
    // this process when all pointers are null and all lengths zero; fork gives both processes their own copy.
    let result = unsafe { libc::syscall(call.number(), 0, 0, 0, 0, 0, 0) };
    Some(Errno::result(result).map_err(Into::into))
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

/// getpid by the numbers of the x32 ABI.
#[cfg(target_arch = "x86_64")]
pub fn getpid_x32() -> c_long {
    // SAFETY: getpid takes no arguments and touches no memory.
    unsafe { libc::syscall(0x4000_0000 | libc::SYS_getpid) }
}
