//! The system calls that the daemon makes: what its filter is made of, and what it is proven by.

use libc::c_long;

/// A system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    name: &'static str,
    number: c_long,
}

macro_rules! calls {
    ($($name:ident)*) => { &[$(Call { name: stringify!($name), number: libc::$name }),*] };
}

/// Calls that the daemon may make with any argument, by what for: memory, threads, its own signals, time, files, waiting,
/// sockets and pipes, and to ask who and where it is. A file is reached only where landlock lets it.
pub const NEEDED: &[Call] = calls! {
    SYS_brk SYS_madvise SYS_mremap SYS_munmap
    SYS_exit SYS_exit_group SYS_futex SYS_gettid SYS_membarrier SYS_rseq SYS_sched_getaffinity SYS_sched_yield
    SYS_set_robust_list
    SYS_restart_syscall SYS_rt_sigaction SYS_rt_sigprocmask SYS_rt_sigreturn SYS_sigaltstack
    SYS_clock_getres SYS_clock_gettime SYS_clock_nanosleep SYS_gettimeofday SYS_nanosleep
    SYS_close SYS_dup SYS_dup3 SYS_faccessat SYS_faccessat2 SYS_fchmod SYS_fdatasync SYS_fstat SYS_fsync SYS_ftruncate
    SYS_getcwd SYS_getdents64 SYS_lseek SYS_memfd_create SYS_mkdirat SYS_newfstatat SYS_openat SYS_pread64 SYS_pwrite64
    SYS_read SYS_readlinkat SYS_readv SYS_renameat2 SYS_statx SYS_unlinkat SYS_write SYS_writev
    SYS_inotify_add_watch SYS_inotify_init1 SYS_inotify_rm_watch
    SYS_epoll_create1 SYS_epoll_ctl SYS_epoll_pwait SYS_eventfd2 SYS_ppoll
    SYS_accept4 SYS_bind SYS_connect SYS_getpeername SYS_getsockname SYS_getsockopt SYS_listen SYS_pipe2 SYS_recvfrom
    SYS_recvmmsg SYS_recvmsg SYS_sendmmsg SYS_sendmsg SYS_sendto SYS_shutdown SYS_splice
    SYS_getcpu SYS_getegid SYS_geteuid SYS_getgid SYS_getpid SYS_getrandom SYS_getrusage SYS_getuid SYS_sysinfo SYS_uname
};

/// As [`NEEDED`], of this architecture alone: the older names of some of them, which its C library still uses.
#[cfg(target_arch = "x86_64")]
pub const NEEDED_HERE: &[Call] = calls! {
    SYS_access SYS_epoll_wait SYS_lstat SYS_mkdir SYS_open SYS_poll SYS_readlink SYS_rename SYS_renameat
    SYS_stat SYS_time SYS_unlink
};

/// As [`NEEDED`], of this architecture alone.
#[cfg(not(target_arch = "x86_64"))]
pub const NEEDED_HERE: &[Call] = &[Call {
    name: "SYS_renameat",
    // of include/uapi/asm-generic/unistd.h; the crate `libc` does not have it
    number: 38,
}];

/// What the threads of the packet engine do not need of it: they work on descriptors that they are handed.
pub const NEEDLESS_TO_PACKET_THREADS: &[Call] = calls! {
    SYS_socket SYS_socketpair SYS_bind SYS_connect SYS_listen SYS_accept4 SYS_setsockopt
};

/// What commands of an operator may not call, by what for: to look into other processes, to change what is mounted, loaded,
/// named or timed, namespaces, programs in the kernel, its keys, and doors by which kernels have been entered.
pub const DENIED_TO_COMMANDS: &[Call] = calls! {
    SYS_ptrace SYS_process_vm_readv SYS_process_vm_writev SYS_process_madvise SYS_kcmp SYS_pidfd_getfd
    SYS_mount SYS_umount2 SYS_move_mount SYS_open_tree SYS_mount_setattr SYS_fsopen SYS_fsconfig SYS_fsmount SYS_fspick
    SYS_pivot_root SYS_chroot SYS_open_by_handle_at SYS_name_to_handle_at SYS_fanotify_init SYS_quotactl
    SYS_init_module SYS_finit_module SYS_delete_module SYS_kexec_load SYS_kexec_file_load SYS_reboot
    SYS_swapon SYS_swapoff SYS_acct SYS_sethostname SYS_setdomainname SYS_vhangup
    SYS_settimeofday SYS_clock_settime SYS_clock_adjtime SYS_adjtimex
    SYS_setns SYS_unshare
    SYS_bpf SYS_perf_event_open SYS_userfaultfd SYS_io_uring_setup SYS_io_uring_enter SYS_io_uring_register
    SYS_add_key SYS_request_key SYS_keyctl
};

/// clone3: its flags are in memory, where no filter can look.
pub const CLONE3: Call = Call {
    name: "SYS_clone3",
    number: libc::SYS_clone3,
};

/// The highest number of a system call when [`NEEDED`] was made: `file_setattr` of Linux 6.18.
pub const NEWEST: c_long = 469;

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
