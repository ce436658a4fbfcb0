//! System calls that no part of the daemon needs: what a filter is made of, and what it is proven by.

use libc::c_long;

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
}
