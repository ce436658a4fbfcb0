//! AF_PACKET sockets: options, classic BPF filters, receiving and sending in batches.
//!
//! Frames come and go with a virtio_net_hdr before them (PACKET_VNET_HDR), so that super-frames (GRO, TSO) and
//! unfinished checksums pass through as they are.
//!
//! Received with recvmmsg rather than from a ring. A TPACKET_V3 ring holds a lone packet for its retire time. A
//! TPACKET_V2 ring with PACKET_COPY_THRESH was no cheaper (veth, Linux 6.18, receiver's CPU: 1.3–1.8 µs a frame of 60
//! bytes against 1.3–1.5, and the ring's copying is the sender's besides; 8.4 µs a frame of 65,000 bytes against 7.3–9.5
//! in small batches), and when its socket is full it hands out the first bytes of a super-frame as if that were all.
//!
//! Sent without PACKET_QDISC_BYPASS: with it the kernel drops (ENOBUFS) each super-frame that the interface cannot
//! take as it is, instead of cutting it up, and it saved 5 % only (0.1 of 2.2 µs a small frame, veth, Linux 6.18). What a
//! socket sends, its own fanout group does not receive; a socket of another group would, on kernels before
//! PACKET_FANOUT_FLAG_IGNORE_OUTGOING at 0.8 µs a frame until the filter drops it: so frames had best leave by a
//! socket that is bound to the interface they leave by.

mod receive;
mod send;
mod vnet;

pub use receive::Receiver;
pub use send::{Outgoing, Sender};

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, SockFlag, SockType, setsockopt as nix_setsockopt, socket, sockopt},
};
use socket2::{SockFilter, SockRef};

/// Most instructions that the kernel takes (BPF_MAXINSNS).
pub const MAX_INSTRUCTIONS: usize = 4_096;

/// The filter that admits nothing: a return of 0 bytes.
const DEAF: &[Instruction] = &[Instruction {
    code: 0x06, // BPF_RET | BPF_K, both values fixed by linux/bpf_common.h
    jump_true: 0,
    jump_false: 0,
    operand: 0,
}];

/// PACKET_FANOUT_FLAG_IGNORE_OUTGOING (linux/if_packet.h; Linux 6.1 does not have it yet), not in libc yet.
const FANOUT_IGNORE_OUTGOING: u32 = 0x4000;

/// One instruction of classic BPF (`struct sock_filter`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Instructions to skip if true.
    pub jump_true: u8,
    /// Instructions to skip if false.
    pub jump_false: u8,
    /// Operand.
    pub operand: u32,
}

/// What an opened socket is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// The interface, by index.
    pub ifindex: u32,
    /// The fanout group, one for each interface of a network namespace; 0 founds one with a number that nobody uses,
    /// see [`group`].
    pub group: u16,
    /// Bytes of kernel memory for what waits to be received.
    pub receive_buffer: usize,
    /// Bytes of kernel memory for what waits to be sent.
    pub send_buffer: usize,
}

/// The step of opening a socket that failed.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {source}")]
pub struct OpenError {
    /// What was tried, such as `PACKET_FANOUT`.
    pub step: &'static str,
    /// Why it failed.
    pub source: io::Error,
}

fn at<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> OpenError {
    move |source| OpenError {
        step,
        source: source.into(),
    }
}

/// Opens a non-blocking socket on an interface, a member of its fanout group, that receives nothing until
/// [`attach_filter`] gives it another filter.
///
/// The order matters. A filter comes first: between bind and the fanout group a socket would receive everything, also
/// what another member of the group receives. The virtio header comes before anything that fixes the layout of what
/// is received.
///
/// # Errors
/// The step that failed; EPERM without CAP_NET_RAW, ENODEV without such an interface, EINVAL at `PACKET_FANOUT` if
/// the group's number is another program's.
pub fn open(options: &Options) -> Result<OwnedFd, OpenError> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    // without a protocol it receives nothing before it is bound
    let fd = socket(AddressFamily::Packet, SockType::Raw, flags, None).map_err(at("socket(AF_PACKET)"))?;
    let socket = fd.as_fd();
    attach_filter(socket, DEAF).map_err(at("SO_ATTACH_FILTER"))?;
    set(socket, libc::PACKET_VNET_HDR, 1_i32).map_err(at("PACKET_VNET_HDR"))?;
    set(socket, libc::PACKET_AUXDATA, 1_i32).map_err(at("PACKET_AUXDATA"))?;
    // spares copies of what this host sends where the kernel heeds it (not in a fanout group); the filter drops them anyway
    let _ = set(socket, libc::PACKET_IGNORE_OUTGOING, 1_i32);
    enlarge_buffers(&fd, options).map_err(at("SO_RCVBUF, SO_SNDBUF"))?;
    bind(socket, options.ifindex).map_err(at("bind"))?;
    join(socket, options.group).map_err(at("PACKET_FANOUT"))?;
    Ok(fd)
}

/// Replaces a socket's filter in one step: each packet meets either the old or the new one.
///
/// # Errors
/// The program is empty or invalid (EINVAL), or needs more memory than net.core.optmem_max grants (ENOMEM).
pub fn attach_filter(socket: BorrowedFd<'_>, program: &[Instruction]) -> io::Result<()> {
    if program.len() > MAX_INSTRUCTIONS {
        return Err(Errno::EINVAL.into());
    }
    let program: Vec<_> = (program.iter())
        .map(|i| SockFilter::new(i.code, i.jump_true, i.jump_false, i.operand))
        .collect();
    SockRef::from(&socket).attach_filter(&program)
}

/// The number of a socket's fanout group, for the other sockets of its interface.
///
/// # Errors
/// It is not a packet socket.
pub fn group(socket: BorrowedFd<'_>) -> io::Result<u16> {
    let value: u32 = get(socket, libc::PACKET_FANOUT)?;
    // id | type << 16 | flags << 24
    Ok((value & 0xffff) as u16)
}

/// The interface that a socket is bound to, by index; `None` once that has vanished.
///
/// # Errors
/// It is not a packet socket.
pub fn bound_interface(socket: BorrowedFd<'_>) -> io::Result<Option<u32>> {
    let mut addr = link_address(0, 0);
    let mut len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the kernel writes `len` bytes at most, which is the size of `addr`; any bytes are a valid sockaddr_ll.
    // (nix's getsockname refuses what it writes: only the used part of the link address.)
    let result = unsafe { libc::getsockname(socket.as_raw_fd(), (&raw mut addr).cast(), &raw mut len) };
    Errno::result(result)?;
    // the kernel sets -1 when the device is unregistered
    Ok(u32::try_from(addr.sll_ifindex).ok().filter(|index| *index > 0))
}

/// Packets that the kernel dropped since the last call because nobody received them in time.
///
/// # Errors
/// It is not a packet socket.
pub fn take_drops(socket: BorrowedFd<'_>) -> io::Result<u32> {
    let [_packets, drops]: [u32; 2] = get(socket, libc::PACKET_STATISTICS)?;
    Ok(drops)
}

/// Buffers beyond net.core.rmem_max if we may (CAP_NET_ADMIN), else up to it.
fn enlarge_buffers(fd: &OwnedFd, options: &Options) -> nix::Result<()> {
    nix_setsockopt(fd, sockopt::RcvBufForce, &options.receive_buffer)
        .or_else(|_| nix_setsockopt(fd, sockopt::RcvBuf, &options.receive_buffer))?;
    nix_setsockopt(fd, sockopt::SndBufForce, &options.send_buffer)
        .or_else(|_| nix_setsockopt(fd, sockopt::SndBuf, &options.send_buffer))
}

/// Binds to all protocols of an interface: one socket can be bound to one or to all, and we need IPv4, IPv6 and
/// frames with a second VLAN tag.
fn bind(socket: BorrowedFd<'_>, ifindex: u32) -> io::Result<()> {
    let addr = link_address(ifindex, (libc::ETH_P_ALL as u16).to_be());
    // SAFETY: `addr` is an initialised sockaddr_ll that lives through the call, and the length is its own.
    let result = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const addr).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    Errno::result(result).map(drop).map_err(Into::into)
}

/// The address of an interface; `protocol` in network byte order.
const fn link_address(ifindex: u32, protocol: u16) -> libc::sockaddr_ll {
    libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: protocol,
        // the kernel's own type for it; indices are positive
        sll_ifindex: ifindex.cast_signed(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    }
}

/// Joins a group that shares packets by a hash of addresses and ports, without the kernel's defragmentation (what it
/// puts together exceeds the MTU and could not be sent; IPv4 only).
fn join(socket: BorrowedFd<'_>, group: u16) -> io::Result<()> {
    let unique = if group == 0 {
        libc::PACKET_FANOUT_FLAG_UNIQUEID
    } else {
        0
    };
    let how = |flags: u32| u32::from(group) | (libc::PACKET_FANOUT_HASH | unique | flags) << 16;
    set(socket, libc::PACKET_FANOUT, how(FANOUT_IGNORE_OUTGOING))
        .or_else(|_| set(socket, libc::PACKET_FANOUT, how(0)))
}

/// Sets an option of SOL_PACKET. `T` is the kernel's type of it.
fn set<T: Copy>(socket: BorrowedFd<'_>, option: libc::c_int, value: T) -> io::Result<()> {
    // SAFETY: the kernel reads as many bytes as `value` has, and it lives through the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            option,
            (&raw const value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    Errno::result(result).map(drop).map_err(Into::into)
}

/// Reads an option of SOL_PACKET that is an integer or an array of integers.
fn get<T: Integers>(socket: BorrowedFd<'_>, option: libc::c_int) -> io::Result<T> {
    let mut value = T::default();
    let mut len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel writes `len` bytes at most, which is the size of `value`; any bytes are a valid value of an
    // `Integers` type.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            option,
            (&raw mut value).cast(),
            &raw mut len,
        )
    };
    Errno::result(result)?;
    Ok(value)
}

/// Types of which every pattern of bits is a value.
trait Integers: Copy + Default {}
impl Integers for u32 {}
impl Integers for [u32; 2] {}
