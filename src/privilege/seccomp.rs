//! The filters of system calls: what is denied to the daemon, and what else to the threads of its packet engine.
//!
//! Everything is permitted but what [`forbidden`] lists and what the rules here say by argument. Denied calls fail with
//! EPERM, as if only the privilege were missing, so that a library that tries one goes on; calls by the numbers of
//! another architecture, which would get past the filter, end the process.

use std::{collections::BTreeMap, io};

use libc::{c_int, c_long};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use crate::sys::forbidden::{self, Call};

/// `SOL_XDP` of include/linux/socket.h.
const SOL_XDP: c_int = 283;
/// The types of `socket` without its flags (`SOCK_TYPE_MASK` of include/linux/net.h).
const SOCKET_TYPE_MASK: u64 = 0xf;
/// `SOCK_PACKET` of include/linux/net.h, which libc calls deprecated.
const SOCK_PACKET: u64 = 10;
/// What `personality` takes to tell, and not to change.
const ASK_PERSONALITY: u64 = 0xffff_ffff;
/// `TIOCSTI` of include/uapi/asm-generic/ioctls.h: types into a terminal, which may be that of the shell of root.
const TIOCSTI: u64 = 0x5412;
/// `TIOCLINUX` of include/uapi/asm-generic/ioctls.h: pastes into a console.
const TIOCLINUX: u64 = 0x541c;

/// Socket options by which a program is put before a socket, or taken away.
const FILTER_OPTIONS: &[c_int] = &[
    libc::SO_ATTACH_FILTER,
    libc::SO_DETACH_FILTER,
    libc::SO_ATTACH_BPF,
    libc::SO_ATTACH_REUSEPORT_CBPF,
    libc::SO_ATTACH_REUSEPORT_EBPF,
    libc::SO_LOCK_FILTER,
];

/// Flags of clone that make a namespace.
const NAMESPACES: &[c_int] = &[
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

type SyscallRules = BTreeMap<i64, Vec<SeccompRule>>;

/// Puts the daemon's filters before the calling thread, and so all that it starts. Needs `no_new_privs`.
///
/// # Errors
/// The kernel has no seccomp filters, or this architecture none of ours.
pub fn confine_daemon() -> io::Result<()> {
    if let Some(program) = foreign_numbers() {
        apply(&program)?;
    }
    // ENOSYS: the C library then makes threads with clone, whose flags can be seen
    let clone3 = BTreeMap::from([(forbidden::CLONE3.number(), Vec::new())]);
    apply(&compile(clone3, libc::ENOSYS).map_err(io::Error::other)?)?;
    let rules = daemon_rules().map_err(io::Error::other)?;
    apply(&compile(rules, libc::EPERM).map_err(io::Error::other)?)
}

/// Puts another filter before the calling thread, which belongs to the packet engine.
///
/// # Errors
/// As [`confine_daemon`].
pub fn confine_packet_thread() -> io::Result<()> {
    let rules = whole(forbidden::NEEDLESS_TO_PACKET_THREADS).collect();
    apply(&compile(rules, libc::EPERM).map_err(io::Error::other)?)
}

fn apply(program: &BpfProgram) -> io::Result<()> {
    seccompiler::apply_filter(program).map_err(|error| match error {
        seccompiler::Error::Seccomp(source) | seccompiler::Error::Prctl(source) => source,
        other => io::Error::other(other.to_string()),
    })
}

fn compile(rules: SyscallRules, errno: c_int) -> Result<BpfProgram, BackendError> {
    let denied = SeccompAction::Errno(errno.unsigned_abs());
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    SeccompFilter::new(rules, SeccompAction::Allow, denied, arch)?.try_into()
}

fn daemon_rules() -> Result<SyscallRules, BackendError> {
    let calls = [forbidden::NEEDLESS, forbidden::NEEDLESS_HERE];
    let mut rules: SyscallRules = calls.into_iter().flat_map(whole).collect();
    rules.insert(libc::SYS_socket, sockets()?);
    rules.insert(libc::SYS_socketpair, sockets()?);
    rules.insert(libc::SYS_setsockopt, options()?);
    rules.insert(libc::SYS_clone, processes()?);
    rules.insert(
        libc::SYS_personality,
        vec![all([condition(0, SeccompCmpOp::Ne, ASK_PERSONALITY)?])?],
    );
    let terminal = [TIOCSTI, TIOCLINUX];
    let typing = terminal.map(|request| all([condition(1, SeccompCmpOp::Eq, request)?]));
    rules.insert(libc::SYS_ioctl, typing.into_iter().collect::<Result<_, _>>()?);
    Ok(rules)
}

/// Rules that deny calls whatever their arguments.
fn whole(calls: &[Call]) -> impl Iterator<Item = (c_long, Vec<SeccompRule>)> {
    calls.iter().map(|call| (call.number(), Vec::new()))
}

/// Families other than IP, local sockets and netlink; of netlink all but routes; and the packet sockets that are older
/// than their family.
fn sockets() -> Result<Vec<SeccompRule>, BackendError> {
    let families = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
    let other_family = families.map(|family| condition(0, SeccompCmpOp::Ne, number(family)));
    Ok(vec![
        SeccompRule::new(other_family.into_iter().collect::<Result<_, _>>()?)?,
        all([
            condition(0, SeccompCmpOp::Eq, number(libc::AF_NETLINK))?,
            condition(2, SeccompCmpOp::Ne, number(libc::NETLINK_ROUTE))?,
        ])?,
        all([condition(
            1,
            SeccompCmpOp::MaskedEq(SOCKET_TYPE_MASK),
            SOCK_PACKET,
        )?])?,
    ])
}

/// Options of packet sockets, and filters of any.
fn options() -> Result<Vec<SeccompRule>, BackendError> {
    let level = |level: c_int| condition(1, SeccompCmpOp::Eq, number(level));
    let mut rules = vec![all([level(libc::SOL_PACKET)?])?, all([level(SOL_XDP)?])?];
    for option in FILTER_OPTIONS {
        rules.push(all([
            level(libc::SOL_SOCKET)?,
            condition(2, SeccompCmpOp::Eq, number(*option))?,
        ])?);
    }
    Ok(rules)
}

/// New processes: the daemon only makes threads, and none of them in a namespace of its own.
fn processes() -> Result<Vec<SeccompRule>, BackendError> {
    let thread = number(libc::CLONE_THREAD);
    let mut rules = vec![all([condition(0, SeccompCmpOp::MaskedEq(thread), 0)?])?];
    for namespace in NAMESPACES {
        let flag = number(*namespace);
        rules.push(all([condition(0, SeccompCmpOp::MaskedEq(flag), flag)?])?);
    }
    Ok(rules)
}

fn all<const N: usize>(conditions: [SeccompCondition; N]) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(conditions.into())
}

/// Of the low 32 bits of an argument: the kernel looks at no others where these rules do.
fn condition(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
}

fn number(value: c_int) -> u64 {
    u64::from(value.cast_unsigned())
}

/// Ends the process at a call by the numbers of x32, which pass the check of the architecture: an allowing filter must
/// look for them itself.
#[cfg(target_arch = "x86_64")]
fn foreign_numbers() -> Option<BpfProgram> {
    use seccompiler::sock_filter;
    // __X32_SYSCALL_BIT of arch/x86/include/uapi/asm/unistd.h
    const X32_BIT: u32 = 0x4000_0000;
    const KILL_PROCESS: u32 = 0x8000_0000;
    const ALLOW: u32 = 0x7fff_0000;
    // operations of include/uapi/linux/bpf_common.h
    const LOAD_NUMBER: u16 = 0x20;
    const JUMP_IF_AT_LEAST: u16 = 0x35;
    const RETURN: u16 = 0x06;
    let instruction = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    Some(vec![
        instruction(LOAD_NUMBER, 0, 0, 0),
        instruction(JUMP_IF_AT_LEAST, 0, 1, X32_BIT),
        instruction(RETURN, 0, 0, KILL_PROCESS),
        instruction(RETURN, 0, 0, ALLOW),
    ])
}

#[cfg(not(target_arch = "x86_64"))]
fn foreign_numbers() -> Option<BpfProgram> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOW: u32 = 0x7fff_0000;
    const DENY: u32 = 0x0005_0000 | libc::EPERM.cast_unsigned();
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
            0 => u32::try_from(number).unwrap(),
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

    fn daemon(number: c_long, args: [c_int; 3]) -> u32 {
        let program = compile(daemon_rules().unwrap(), libc::EPERM).unwrap();
        // whatever the high halves are: the kernel does not look at them
        let dirty = args.map(|low| 0xdead_0000_0000 | super::number(low));
        let clean = args.map(super::number);
        let verdict = judge(&program, ARCH, number, clean);
        assert_eq!(verdict, judge(&program, ARCH, number, dirty), "call {number}");
        verdict
    }

    #[test]
    fn needless_calls_are_denied_with_any_argument() {
        for call in forbidden::NEEDLESS.iter().chain(forbidden::NEEDLESS_HERE) {
            for args in [[0; 3], [-1; 3], [7, 8, 9]] {
                assert_eq!(daemon(call.number(), args), DENY, "{}", call.name());
            }
        }
    }

    #[test]
    fn what_a_daemon_does_is_allowed() {
        for number in [
            libc::SYS_read,
            libc::SYS_write,
            libc::SYS_mmap,
            libc::SYS_futex,
            libc::SYS_recvmmsg,
            libc::SYS_sendmmsg,
            libc::SYS_epoll_pwait,
            libc::SYS_splice,
            libc::SYS_bind,
            libc::SYS_connect,
            libc::SYS_getsockopt,
            libc::SYS_exit_group,
            libc::SYS_tgkill,
            libc::SYS_sched_setaffinity,
            libc::SYS_memfd_create,
            libc::SYS_seccomp,
            libc::SYS_prctl,
        ] {
            assert_eq!(daemon(number, [0; 3]), ALLOW, "call {number}");
        }
    }

    #[test]
    fn sockets_are_of_the_families_that_are_needed() {
        for family in 0..64 {
            let expected = match family {
                libc::AF_UNIX | libc::AF_INET | libc::AF_INET6 | libc::AF_NETLINK => ALLOW,
                _ => DENY,
            };
            for call in [libc::SYS_socket, libc::SYS_socketpair] {
                let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
                assert_eq!(daemon(call, [family, kind, 0]), expected, "family {family}");
            }
        }
        for protocol in 1..32 {
            let args = [libc::AF_NETLINK, libc::SOCK_RAW, protocol];
            assert_eq!(daemon(libc::SYS_socket, args), DENY, "netlink {protocol}");
        }
        // the packet socket of Linux 2.0
        let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        assert_eq!(daemon(libc::SYS_socket, [libc::AF_INET, 10 | flags, 0]), DENY);
        assert_eq!(
            daemon(libc::SYS_socket, [libc::AF_INET, libc::SOCK_STREAM | flags, 6]),
            ALLOW
        );
    }

    #[test]
    fn options_and_requests_are_judged_by_argument() {
        let option = |level, name| daemon(libc::SYS_setsockopt, [3, level, name]);
        for name in FILTER_OPTIONS {
            assert_eq!(option(libc::SOL_SOCKET, *name), DENY);
            assert_eq!(option(libc::IPPROTO_TCP, *name), ALLOW);
        }
        assert_eq!(option(libc::SOL_PACKET, libc::PACKET_FANOUT), DENY);
        assert_eq!(option(SOL_XDP, 1), DENY);
        assert_eq!(option(libc::SOL_SOCKET, libc::SO_REUSEADDR), ALLOW);
        let request = |request| daemon(libc::SYS_ioctl, [0, request, 0]);
        assert_eq!((request(0x5412), request(0x541c)), (DENY, DENY));
        assert_eq!(request(0x541b), ALLOW, "FIONREAD");
        assert_eq!(daemon(libc::SYS_personality, [-1, 0, 0]), ALLOW);
        assert_eq!(daemon(libc::SYS_personality, [0, 0, 0]), DENY);
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
    fn calls_of_another_architecture_kill() {
        let program = compile(daemon_rules().unwrap(), libc::EPERM).unwrap();
        assert_eq!(judge(&program, ARCH_I386, 0, [0; 3]), KILL);
        if let Some(x32) = foreign_numbers() {
            assert_eq!(judge(&x32, ARCH, 0x4000_0000 | libc::SYS_getpid, [0; 3]), KILL);
            assert_eq!(judge(&x32, ARCH, libc::SYS_getpid, [0; 3]), ALLOW);
        }
    }
}
