//! The filters of system calls: what the daemon may call, and what the threads of its packet engine give up of it.
//!
//! An allow list, as OpenSSH (sandbox-seccomp-filter.c) and chrony (sys_linux.c) have: [`calls::NEEDED`] whatever the
//! arguments, and what the rules here say by argument. Anything else fails with EPERM and is written into the kernel's log
//! (`type=1326`, with the number of the call). It does not end the process, as theirs does: a C library that is updated
//! beneath the daemon may try a call that it can do without, in a branch that nobody has tested, and a load balancer must
//! not die of that. Calls that are newer than the list fail with ENOSYS, as on a kernel that has none of them: that is what
//! libraries know to do without. Calls by the numbers of another architecture, which would get past the filter, end the
//! process.

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, io};

use libc::{c_int, c_long};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
};

use crate::sys::{
    calls::{self, Call},
    seccomp::{self, Refusals},
};

/// The types of `socket` without its flags (`SOCK_TYPE_MASK` of include/linux/net.h).
const SOCKET_TYPE_MASK: u64 = 0xf;
/// `SIOCATMARK` of include/uapi/asm-generic/sockios.h.
const SIOCATMARK: u64 = 0x8905;

/// What fcntl is for: duplicates, flags, the size of pipes, the seals of memory. Not to have signals sent (F_SETOWN).
const FCNTL: &[c_int] = &[
    libc::F_DUPFD,
    libc::F_DUPFD_CLOEXEC,
    libc::F_GETFD,
    libc::F_SETFD,
    libc::F_GETFL,
    libc::F_SETFL,
    libc::F_GETPIPE_SZ,
    libc::F_SETPIPE_SZ,
    libc::F_ADD_SEALS,
    libc::F_GET_SEALS,
];

/// What ioctl is for: modes of descriptors, how much is queued, where the urgent mark is, which index an interface has, and
/// whether this is a terminal.
const IOCTL: &[u64] = &[
    libc::FIONBIO,
    libc::FIOCLEX,
    libc::FIONREAD,
    libc::TIOCOUTQ,
    SIOCATMARK,
    libc::SIOCGIFINDEX,
    libc::TCGETS,
    libc::TCGETS2,
    libc::TIOCGWINSZ,
];

/// Options that sockets are given, by level. None that puts a program before a socket or takes one away, and none of packet
/// sockets.
const OPTIONS: &[(c_int, &[c_int])] = &[
    (
        libc::SOL_SOCKET,
        &[
            libc::SO_REUSEADDR,
            libc::SO_REUSEPORT,
            libc::SO_KEEPALIVE,
            libc::SO_LINGER,
            libc::SO_OOBINLINE,
            libc::SO_RCVBUF,
            libc::SO_SNDBUF,
            libc::SO_RCVLOWAT,
            libc::SO_RCVTIMEO,
            libc::SO_SNDTIMEO,
            libc::SO_RXQ_OVFL,
            // without a capability only of a socket that has none yet
            libc::SO_BINDTODEVICE,
        ],
    ),
    (
        libc::IPPROTO_TCP,
        &[
            libc::TCP_NODELAY,
            libc::TCP_QUICKACK,
            libc::TCP_USER_TIMEOUT,
            libc::TCP_KEEPIDLE,
            libc::TCP_KEEPINTVL,
            libc::TCP_KEEPCNT,
            libc::TCP_FASTOPEN,
            libc::TCP_DEFER_ACCEPT,
        ],
    ),
    (
        libc::IPPROTO_IP,
        &[
            libc::IP_BIND_ADDRESS_NO_PORT,
            libc::IP_FREEBIND,
            libc::IP_TOS,
            libc::IP_TTL,
            libc::IP_MTU_DISCOVER,
            libc::IP_PKTINFO,
            libc::IP_RECVERR,
            libc::IP_RECVTOS,
        ],
    ),
    (
        libc::IPPROTO_IPV6,
        &[
            libc::IPV6_V6ONLY,
            libc::IPV6_FREEBIND,
            libc::IPV6_UNICAST_HOPS,
            libc::IPV6_MTU_DISCOVER,
            libc::IPV6_RECVPKTINFO,
            libc::IPV6_RECVERR,
            libc::IPV6_RECVTCLASS,
            libc::IPV6_TCLASS,
        ],
    ),
    (libc::SOL_UDP, &[libc::UDP_GRO]),
    (
        libc::SOL_NETLINK,
        &[libc::NETLINK_ADD_MEMBERSHIP, libc::NETLINK_DROP_MEMBERSHIP],
    ),
];

/// Answers of a filter (include/uapi/linux/seccomp.h).
const ALLOW: u32 = 0x7fff_0000;
const NO_SUCH_CALL: u32 = 0x0005_0000 | libc::ENOSYS.cast_unsigned();
// operations of a filter (include/uapi/linux/bpf_common.h)
const LOAD_NUMBER: u16 = 0x20;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

/// Commands of bpf(2) (include/uapi/linux/bpf.h) for maps and programs that are there: their elements, one or many, test runs,
/// and what they are. None that makes, loads or attaches anything, or finds what others have.
const BPF: &[c_int] = &[
    1,  // BPF_MAP_LOOKUP_ELEM
    2,  // BPF_MAP_UPDATE_ELEM
    3,  // BPF_MAP_DELETE_ELEM
    4,  // BPF_MAP_GET_NEXT_KEY
    10, // BPF_PROG_TEST_RUN
    15, // BPF_OBJ_GET_INFO_BY_FD
    24, // BPF_MAP_LOOKUP_BATCH
    26, // BPF_MAP_UPDATE_BATCH
    27, // BPF_MAP_DELETE_BATCH
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
    seccomp::apply(&allow_list().map_err(io::Error::other)?, Refusals::Logged)?;
    // after it, so that its ENOSYS counts
    seccomp::apply(&unknown_numbers(), Refusals::Silent)
}

/// Puts another filter before the calling thread, which belongs to the packet engine.
///
/// # Errors
/// As [`confine_daemon`].
pub fn confine_packet_thread() -> io::Result<()> {
    let rules = whole(calls::NEEDLESS_TO_PACKET_THREADS).collect();
    let denied = errno(libc::EPERM);
    let program = compile(rules, SeccompAction::Allow, denied).map_err(io::Error::other)?;
    seccomp::apply(&program, Refusals::Logged)
}

/// Puts a filter before the calling thread, and so all that it starts: a deny list, for programs of all kinds. Needs
/// `no_new_privs`.
///
/// # Errors
/// As [`confine_daemon`].
pub fn confine_commands() -> io::Result<()> {
    let rules = denied_to_commands().map_err(io::Error::other)?;
    let denied = errno(libc::EPERM);
    let program = compile(rules, SeccompAction::Allow, denied).map_err(io::Error::other)?;
    seccomp::apply(&program, Refusals::Silent)?;
    seccomp::apply(&without_clone3(), Refusals::Silent)
}

/// Has the calling thread, and all that it starts, send no signal to these processes, nor to all at once.
///
/// # Errors
/// As [`confine_daemon`].
pub fn keep_from(processes: &[u32]) -> io::Result<()> {
    let rules = || -> Result<SyscallRules, BackendError> {
        // as the argument of kill, a process, and its group
        let all = u64::from(u32::MAX);
        let targets: Vec<u64> = (processes.iter())
            .flat_map(|id| [u64::from(*id), u64::from(id.wrapping_neg())])
            .chain([all])
            .collect();
        let calls = [
            libc::SYS_kill,
            libc::SYS_tkill,
            libc::SYS_tgkill,
            libc::SYS_rt_sigqueueinfo,
            libc::SYS_rt_tgsigqueueinfo,
            libc::SYS_pidfd_open,
            libc::SYS_prlimit64,
        ];
        calls
            .into_iter()
            .map(|call| Ok((call, one_of(0, targets.iter().copied())?)))
            .collect()
    };
    let rules = rules().map_err(io::Error::other)?;
    let denied = errno(libc::EPERM);
    let program = compile(rules, SeccompAction::Allow, denied).map_err(io::Error::other)?;
    seccomp::apply(&program, Refusals::Silent)
}

/// What no command of an operator needs, and many a way into a kernel began with.
fn denied_to_commands() -> Result<SyscallRules, BackendError> {
    let mut rules: SyscallRules = whole(calls::DENIED_TO_COMMANDS).collect();
    let namespaces = NAMESPACES.iter().map(|flag| {
        let flag = number(*flag);
        all([condition(0, SeccompCmpOp::MaskedEq(flag), flag)?])
    });
    rules.insert(libc::SYS_clone, namespaces.collect::<Result<_, _>>()?);
    Ok(rules)
}

/// What the daemon may call.
fn allow_list() -> Result<BpfProgram, BackendError> {
    compile(allowed()?, errno(libc::EPERM), SeccompAction::Allow)
}

fn errno(number: c_int) -> SeccompAction {
    SeccompAction::Errno(number.unsigned_abs())
}

/// A program that does `matching` where a rule matches, and `other` where none does.
fn compile(
    rules: SyscallRules,
    other: SeccompAction,
    matching: SeccompAction,
) -> Result<BpfProgram, BackendError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    SeccompFilter::new(rules, other, matching, arch)?.try_into()
}

fn allowed() -> Result<SyscallRules, BackendError> {
    let all = [calls::NEEDED, calls::NEEDED_HERE];
    let mut rules: SyscallRules = all.into_iter().flat_map(whole).collect();
    let ourselves = u64::from(std::process::id());
    rules.extend([
        // nothing that is written can be run
        (libc::SYS_mmap, vec![without_bits(2, libc::PROT_EXEC)?]),
        (libc::SYS_mprotect, vec![without_bits(2, libc::PROT_EXEC)?]),
        (libc::SYS_clone, vec![a_thread()?]),
        // a panic that aborts, and what tells threads of a new user id
        (libc::SYS_kill, one_of(0, [ourselves])?),
        (libc::SYS_tgkill, one_of(0, [ourselves])?),
        // 0 is the caller
        (libc::SYS_prlimit64, one_of(0, [0])?),
        (libc::SYS_sched_setaffinity, one_of(0, [0])?),
        (
            libc::SYS_prctl,
            one_of(0, [libc::PR_SET_NAME, libc::PR_GET_NAME].map(number))?,
        ),
        // the filter of the packet threads, which takes more away
        (
            libc::SYS_seccomp,
            one_of(0, [u64::from(seccomp::SET_MODE_FILTER)])?,
        ),
        (libc::SYS_fcntl, one_of(1, FCNTL.iter().copied().map(number))?),
        (libc::SYS_ioctl, one_of(1, IOCTL.iter().copied())?),
        (libc::SYS_socket, sockets()?),
        (libc::SYS_socketpair, one_of(0, [number(libc::AF_UNIX)])?),
        (libc::SYS_setsockopt, options()?),
        (libc::SYS_bpf, one_of(0, BPF.iter().copied().map(number))?),
    ]);
    Ok(rules)
}

/// Rules for calls whatever their arguments.
fn whole(calls: &[Call]) -> impl Iterator<Item = (c_long, Vec<SeccompRule>)> {
    calls.iter().map(|call| (call.number(), Vec::new()))
}

/// Rules by which an argument is one of these.
fn one_of(argument: u8, values: impl IntoIterator<Item = u64>) -> Result<Vec<SeccompRule>, BackendError> {
    let rule = |value| all([condition(argument, SeccompCmpOp::Eq, value)?]);
    values.into_iter().map(rule).collect()
}

/// A rule by which an argument has none of these bits.
fn without_bits(argument: u8, bits: c_int) -> Result<SeccompRule, BackendError> {
    all([condition(argument, SeccompCmpOp::MaskedEq(number(bits)), 0)?])
}

/// A thread of this process, in the namespaces that it is in.
fn a_thread() -> Result<SeccompRule, BackendError> {
    let thread = number(libc::CLONE_THREAD);
    let looked_at = NAMESPACES.iter().fold(thread, |all, flag| all | number(*flag));
    all([condition(0, SeccompCmpOp::MaskedEq(looked_at), thread)?])
}

/// TCP, UDP, local sockets, and netlink for routes.
fn sockets() -> Result<Vec<SeccompRule>, BackendError> {
    let family = |family| condition(0, SeccompCmpOp::Eq, number(family));
    let kind = |kind| condition(1, SeccompCmpOp::MaskedEq(SOCKET_TYPE_MASK), number(kind));
    let protocol = |protocol| condition(2, SeccompCmpOp::Eq, number(protocol));
    let mut rules = vec![
        all([family(libc::AF_UNIX)?])?,
        all([family(libc::AF_NETLINK)?, protocol(libc::NETLINK_ROUTE)?])?,
    ];
    for ip in [libc::AF_INET, libc::AF_INET6] {
        for (of, named) in [
            (libc::SOCK_STREAM, libc::IPPROTO_TCP),
            (libc::SOCK_DGRAM, libc::IPPROTO_UDP),
        ] {
            // 0 means the same
            for name in [named, 0] {
                rules.push(all([family(ip)?, kind(of)?, protocol(name)?])?);
            }
        }
    }
    Ok(rules)
}

fn options() -> Result<Vec<SeccompRule>, BackendError> {
    let option = |(level, name)| {
        all([
            condition(1, SeccompCmpOp::Eq, number(level))?,
            condition(2, SeccompCmpOp::Eq, number(name))?,
        ])
    };
    let pairs = OPTIONS
        .iter()
        .flat_map(|(level, names)| names.iter().map(|name| (*level, *name)));
    pairs.map(option).collect()
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

/// Answers ENOSYS to clone3, so that the flags of clone can be seen.
fn without_clone3() -> BpfProgram {
    let step = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    vec![
        step(LOAD_NUMBER, 0, 0, 0),
        step(JUMP_IF_EQUAL, 0, 1, call_number(calls::CLONE3.number())),
        step(RETURN, 0, 0, NO_SUCH_CALL),
        step(RETURN, 0, 0, ALLOW),
    ]
}

/// Answers ENOSYS to calls that are newer than the list, and to clone3: the C library then makes threads with clone, whose
/// flags can be seen. Ends the process at a call by the numbers of x32, which pass the check of the architecture.
fn unknown_numbers() -> BpfProgram {
    // __X32_SYSCALL_BIT of arch/x86/include/uapi/asm/unistd.h
    const X32_BIT: u32 = 0x4000_0000;
    const KILL_PROCESS: u32 = 0x8000_0000;
    const JUMP_IF_AT_LEAST: u16 = 0x35;
    let step = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    let mut program = vec![step(LOAD_NUMBER, 0, 0, 0)];
    let mut when = |jump, number, answer| {
        program.push(step(jump, 0, 1, number));
        program.push(step(RETURN, 0, 0, answer));
    };
    if cfg!(target_arch = "x86_64") {
        when(JUMP_IF_AT_LEAST, X32_BIT, KILL_PROCESS);
    }
    when(JUMP_IF_AT_LEAST, call_number(calls::NEWEST + 1), NO_SUCH_CALL);
    when(JUMP_IF_EQUAL, call_number(calls::CLONE3.number()), NO_SUCH_CALL);
    program.push(step(RETURN, 0, 0, ALLOW));
    program
}

/// As the kernel hands it to a filter.
const fn call_number(number: c_long) -> u32 {
    (number & 0xffff_ffff) as u32
}
