//! Putting filters of system calls before a thread.

use std::io;

use libc::{c_ulong, sock_filter, sock_fprog};
use nix::errno::Errno;

/// `SECCOMP_SET_MODE_FILTER` of include/uapi/linux/seccomp.h.
pub const SET_MODE_FILTER: u32 = 1;

/// Whether the kernel writes into its log what a filter refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusals {
    /// They are written down, as far as kernel.seccomp.actions_logged says so.
    Logged,
    /// They are a matter of course.
    Silent,
}

/// Puts a filter before the calling thread, and all that it starts. Of several, what is strictest counts; of equally strict
/// answers, that of the filter that came last. Needs `no_new_privs`.
///
/// # Errors
/// The kernel has no seccomp filters, or the program is not a valid one.
pub fn apply(program: &[seccompiler::sock_filter], refusals: Refusals) -> io::Result<()> {
    let mut instructions: Vec<sock_filter> = (program.iter())
        .map(|step| sock_filter {
            code: step.code,
            jt: step.jt,
            jf: step.jf,
            k: step.k,
        })
        .collect();
    let length = u16::try_from(instructions.len()).map_err(|_| Errno::EINVAL)?;
    let program = sock_fprog {
        len: length,
        filter: instructions.as_mut_ptr(),
    };
    let flags: c_ulong = match refusals {
        Refusals::Logged => libc::SECCOMP_FILTER_FLAG_LOG,
        Refusals::Silent => 0,
    };
    // SAFETY: the kernel copies `len` instructions from `filter`; both live through the call, and it writes nothing.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            c_ulong::from(SET_MODE_FILTER),
            flags,
            &raw const program,
        )
    };
    Errno::result(result).map(drop).map_err(Into::into)
}
