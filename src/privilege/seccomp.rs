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

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

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

fn compile(rules: Rules, errno: c_int) -> Result<BpfProgram, BackendError> {
    let denied = SeccompAction::Errno(errno.unsigned_abs());
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    SeccompFilter::new(rules, SeccompAction::Allow, denied, arch)?.try_into()
}

fn daemon_rules() -> Result<Rules, BackendError> {
    let calls = [forbidden::NEEDLESS, forbidden::NEEDLESS_HERE];
    let mut rules: Rules = calls.into_iter().flat_map(whole).collect();
    rules.insert(libc::SYS_socket, sockets()?);
    rules.insert(libc::SYS_socketpair, sockets()?);
    rules.insert(libc::SYS_setsockopt, options()?);
    rules.insert(libc::SYS_clone, processes()?);
    rules.insert(
        libc::SYS_personality,
        vec![all([condition(0, SeccompCmpOp::Ne, ASK_PERSONALITY)?])?],
    );
    let terminal = [u64::from(libc::TIOCSTI), TIOCLINUX];
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
