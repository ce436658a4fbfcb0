use super::*;

const ALLOW: u32 = 0x7fff_0000;
const DENY: u32 = 0x0005_0000 | libc::EPERM.cast_unsigned();
const UNKNOWN: u32 = 0x0005_0000 | libc::ENOSYS.cast_unsigned();
const KILL: u32 = 0x8000_0000;

/// `AUDIT_ARCH_*` of include/uapi/linux/audit.h.
const ARCH: u32 = if cfg!(target_arch = "x86_64") {
    0xc000_003e
} else {
    0xc000_00b7
};
const ARCH_I386: u32 = 0x4000_0003;

/// What a filter says of a call: the operations of classic BPF that such filters consist of.
fn judge(program: &BpfProgram, arch: u32, number: c_long, args: [u64; 3]) -> u32 {
    let load = |offset: u32| match offset {
        0 => call_number(number),
        4 => arch,
        _ => {
            let word = (offset - 16) / 4;
            let argument = args[usize::try_from(word / 2).unwrap()];
            u32::try_from(argument >> (32 * (word % 2)) & 0xffff_ffff).unwrap()
        }
    };
    let (mut at, mut accumulator) = (0, 0);
    loop {
        let step = &program[at];
        at += 1;
        let jump = |taken: bool| usize::from(if taken { step.jt } else { step.jf });
        match step.code {
            0x20 => accumulator = load(step.k),
            0x54 => accumulator &= step.k,
            0x05 => at += usize::try_from(step.k).unwrap(),
            0x15 => at += jump(accumulator == step.k),
            0x25 => at += jump(accumulator > step.k),
            0x35 => at += jump(accumulator >= step.k),
            0x06 => return step.k,
            code => panic!("operation {code:#x}"),
        }
    }
}

/// The daemon's filters.
struct Filters {
    allow: BpfProgram,
    unknown: BpfProgram,
}

impl Filters {
    fn new() -> Self {
        Self {
            allow: allow_list().unwrap(),
            unknown: unknown_numbers(),
        }
    }

    /// What they say together: the strictest answer, of equally strict ones that of the last filter.
    fn say(&self, arch: u32, number: c_long, args: [u64; 3]) -> u32 {
        const ACTION: u32 = 0xffff_0000;
        let first = judge(&self.unknown, arch, number, args);
        let second = judge(&self.allow, arch, number, args);
        let strictness = |verdict: u32| (verdict & ACTION).cast_signed();
        if strictness(second) < strictness(first) {
            second
        } else {
            first
        }
    }

    fn daemon(&self, number: c_long, args: [c_int; 3]) -> u32 {
        // whatever the high halves are: the kernel does not look at them
        let dirty = args.map(|low| 0xdead_0000_0000 | super::number(low));
        let clean = args.map(super::number);
        let verdict = self.say(ARCH, number, clean);
        assert_eq!(verdict, self.say(ARCH, number, dirty), "call {number}");
        verdict
    }
}

fn daemon(number: c_long, args: [c_int; 3]) -> u32 {
    Filters::new().daemon(number, args)
}

#[test]
fn a_call_that_is_not_listed_is_denied_with_any_argument() {
    let filters = Filters::new();
    let listed = allowed().unwrap();
    for number in 0..=calls::NEWEST {
        let expected = match listed.get(&number) {
            None if number == calls::CLONE3.number() => UNKNOWN,
            None => DENY,
            Some(rules) if rules.is_empty() => ALLOW,
            // by argument
            Some(_) => continue,
        };
        for args in [[0; 3], [-1; 3], [7, 8, 9]] {
            assert_eq!(filters.daemon(number, args), expected, "call {number}");
        }
    }
}

#[test]
fn calls_that_change_other_processes_or_the_system_are_not_listed() {
    for number in [
        libc::SYS_execve,
        libc::SYS_execveat,
        libc::SYS_ptrace,
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
        libc::SYS_process_madvise,
        libc::SYS_pidfd_open,
        libc::SYS_pidfd_getfd,
        libc::SYS_pidfd_send_signal,
        libc::SYS_rt_sigqueueinfo,
        libc::SYS_rt_tgsigqueueinfo,
        libc::SYS_tkill,
        libc::SYS_setpriority,
        libc::SYS_ioprio_set,
        libc::SYS_sched_setscheduler,
        libc::SYS_sched_setattr,
        libc::SYS_migrate_pages,
        libc::SYS_move_pages,
        libc::SYS_setrlimit,
        libc::SYS_shmget,
        libc::SYS_semget,
        libc::SYS_msgget,
        libc::SYS_mq_open,
        libc::SYS_io_setup,
        libc::SYS_io_uring_setup,
        libc::SYS_bpf,
        libc::SYS_perf_event_open,
        libc::SYS_userfaultfd,
        libc::SYS_keyctl,
        libc::SYS_setns,
        libc::SYS_unshare,
        libc::SYS_mount,
        libc::SYS_setresuid,
        libc::SYS_capset,
    ] {
        assert_eq!(daemon(number, [0; 3]), DENY, "call {number}");
    }
}

#[test]
fn calls_that_are_newer_than_the_list_are_unknown() {
    for number in [calls::NEWEST + 1, calls::NEWEST + 100, 0x3fff_ffff] {
        assert_eq!(daemon(number, [0; 3]), UNKNOWN);
    }
}

#[test]
fn signals_and_limits_are_for_this_process_alone() {
    let pid = c_int::try_from(std::process::id()).unwrap();
    for call in [libc::SYS_kill, libc::SYS_tgkill] {
        assert_eq!(daemon(call, [pid, pid, 6]), ALLOW);
        for other in [0, -1, -pid, pid + 1, 1] {
            assert_eq!(daemon(call, [other, pid, 6]), DENY);
        }
    }
    for call in [libc::SYS_prlimit64, libc::SYS_sched_setaffinity] {
        assert_eq!(daemon(call, [0; 3]), ALLOW);
        assert_eq!(daemon(call, [pid + 1, 0, 0]), DENY);
    }
    let fcntl = |command| daemon(libc::SYS_fcntl, [3, command, pid + 1]);
    assert_eq!(fcntl(libc::F_SETFL), ALLOW);
    // by these the kernel sends signals to somebody else: F_SETOWN, F_SETSIG, F_SETOWN_EX, F_NOTIFY
    for command in [8, 10, 15, 1026] {
        assert_eq!(fcntl(command), DENY, "command {command}");
    }
}

#[test]
fn sockets_are_of_the_families_and_protocols_that_are_needed() {
    let filters = Filters::new();
    let socket = |family, kind, protocol| filters.daemon(libc::SYS_socket, [family, kind, protocol]);
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    for family in 0..64 {
        let expected = match family {
            libc::AF_UNIX | libc::AF_INET | libc::AF_INET6 | libc::AF_NETLINK => ALLOW,
            _ => DENY,
        };
        assert_eq!(
            socket(family, libc::SOCK_DGRAM | flags, 0),
            expected,
            "family {family}"
        );
        let pair = filters.daemon(libc::SYS_socketpair, [family, libc::SOCK_SEQPACKET, 0]);
        assert_eq!(
            pair == ALLOW,
            family == libc::AF_UNIX,
            "a pair of family {family}"
        );
    }
    for protocol in 1..32 {
        assert_eq!(
            socket(libc::AF_NETLINK, libc::SOCK_RAW, protocol),
            DENY,
            "netlink {protocol}"
        );
    }
    for ip in [libc::AF_INET, libc::AF_INET6] {
        assert_eq!(socket(ip, libc::SOCK_STREAM | flags, libc::IPPROTO_TCP), ALLOW);
        assert_eq!(socket(ip, libc::SOCK_DGRAM | flags, libc::IPPROTO_UDP), ALLOW);
        assert_eq!(socket(ip, libc::SOCK_STREAM, libc::IPPROTO_SCTP), DENY);
        assert_eq!(socket(ip, libc::SOCK_STREAM, 262), DENY, "MPTCP");
        assert_eq!(socket(ip, libc::SOCK_DGRAM, libc::IPPROTO_ICMP), DENY);
        assert_eq!(socket(ip, libc::SOCK_RAW, libc::IPPROTO_TCP), DENY);
        // the packet socket of Linux 2.0
        assert_eq!(socket(ip, 10 | flags, 0), DENY);
    }
}

#[test]
fn options_and_requests_are_judged_by_argument() {
    const SOL_XDP: c_int = 283;
    let option = |level, name| daemon(libc::SYS_setsockopt, [3, level, name]);
    for (level, names) in OPTIONS {
        for name in *names {
            assert_eq!(option(*level, *name), ALLOW);
        }
    }
    for name in [
        libc::SO_ATTACH_FILTER,
        libc::SO_DETACH_FILTER,
        libc::SO_ATTACH_BPF,
        libc::SO_ATTACH_REUSEPORT_CBPF,
        libc::SO_ATTACH_REUSEPORT_EBPF,
        libc::SO_LOCK_FILTER,
        libc::SO_MARK,
        libc::SO_RCVBUFFORCE,
        libc::SO_SNDBUFFORCE,
    ] {
        assert_eq!(option(libc::SOL_SOCKET, name), DENY);
    }
    for name in 0..32 {
        assert_eq!(option(libc::SOL_PACKET, name), DENY);
        assert_eq!(option(SOL_XDP, name), DENY);
    }
    assert_eq!(option(libc::IPPROTO_TCP, libc::TCP_REPAIR), DENY);
    assert_eq!(option(libc::IPPROTO_TCP, libc::TCP_ULP), DENY);
    let request = |request| daemon(libc::SYS_ioctl, [0, request, 0]);
    // TIOCSTI and TIOCLINUX type into a terminal, FIOSETOWN has signals sent
    assert_eq!([0x5412, 0x541c, 0x8901].map(request), [DENY; 3]);
    assert_eq!(request(0x541b), ALLOW, "FIONREAD");
}

#[test]
fn maps_and_programs_are_used_not_made() {
    for command in 0..64 {
        let expected = if BPF.contains(&command) { ALLOW } else { DENY };
        assert_eq!(
            daemon(libc::SYS_bpf, [command, 0, 0]),
            expected,
            "command {command}"
        );
    }
    // to make maps and programs, to attach programs in three ways, to find those of others by number or path, BTF, iterators; to
    // freeze a map, give a link another program, detach it, and bind a map to a program
    for command in [
        0, 5, 6, 7, 8, 11, 12, 13, 14, 17, 18, 19, 20, 28, 33, 36, 22, 29, 34, 35,
    ] {
        assert_eq!(daemon(libc::SYS_bpf, [command, 0, 0]), DENY, "command {command}");
    }
}

#[test]
fn nothing_that_is_written_can_be_run() {
    let writable = libc::PROT_READ | libc::PROT_WRITE;
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        assert_eq!(daemon(call, [0, 4_096, writable]), ALLOW);
        assert_eq!(daemon(call, [0, 4_096, libc::PROT_READ | libc::PROT_EXEC]), DENY);
    }
}

#[test]
fn threads_are_made_and_nothing_else() {
    // as glibc makes a thread
    let thread = libc::CLONE_VM
        | libc::CLONE_FS
        | libc::CLONE_FILES
        | libc::CLONE_SIGHAND
        | libc::CLONE_THREAD
        | libc::CLONE_SYSVSEM
        | libc::CLONE_SETTLS
        | libc::CLONE_PARENT_SETTID
        | libc::CLONE_CHILD_CLEARTID;
    assert_eq!(daemon(libc::SYS_clone, [thread, 0, 0]), ALLOW);
    assert_eq!(daemon(libc::SYS_clone, [libc::SIGCHLD, 0, 0]), DENY);
    for namespace in NAMESPACES {
        assert_eq!(daemon(libc::SYS_clone, [thread | namespace, 0, 0]), DENY);
    }
}

#[test]
fn what_packet_threads_do_not_need_they_could_do_before() {
    let listed = allowed().unwrap();
    for call in calls::NEEDLESS_TO_PACKET_THREADS {
        assert!(listed.contains_key(&call.number()), "{}", call.name());
    }
}

#[test]
fn calls_of_another_architecture_kill() {
    let filters = Filters::new();
    assert_eq!(filters.say(ARCH_I386, 20, [0; 3]), KILL);
    if cfg!(target_arch = "x86_64") {
        let x32 = 0x4000_0000 | libc::SYS_getpid;
        assert_eq!(filters.say(ARCH, x32, [0; 3]), KILL);
    }
    assert_eq!(filters.say(ARCH, libc::SYS_getpid, [0; 3]), ALLOW);
}
