//! Sending in batches.

use std::{
    fmt, mem,
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
};

use nix::errno::Errno;

use super::control::Written;
use crate::base::Dscp;

/// A datagram that is to leave, or several of one size that are merged.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// Where to; `None`: where the socket is connected to.
    pub to: Option<SocketAddr>,
    /// From which of our addresses, of which the port is the socket's; `None`: from the socket's.
    pub from: Option<SocketAddr>,
    /// Whether it leaves by IPv4; only asked where there are ECN bits.
    pub is_ipv4: bool,
    /// ECN bits.
    pub ecn: u8,
    /// The class that its socket gives what has no ECN bits.
    pub dscp: Option<Dscp>,
    /// The size of each datagram that it is merged of. `None`: it is one.
    pub segment: Option<u16>,
    /// What stands before the bytes; nothing where they are merged.
    pub before: &'a [u8],
    /// The bytes.
    pub bytes: &'a [u8],
}

/// Room for the description of a batch, made once.
#[derive(Default)]
pub struct Sender {
    slots: Vec<Slot>,
    headers: Vec<libc::mmsghdr>,
}

// SAFETY: pointers are written into `headers` in `send` and not used after it returns.
unsafe impl Send for Sender {}

struct Slot {
    name: libc::sockaddr_in6,
    name_len: usize,
    control: Written,
    parts: [libc::iovec; 2],
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

impl Sender {
    /// Sends datagrams through one socket, in one call as long as nothing fails. What the kernel does not send merged (the
    /// way out takes no segments of this size, or does not sum) is sent one by one. `refused` is told of each that it did not
    /// take: by its place, how many datagrams of it, and why.
    pub fn send<'a>(
        &mut self,
        socket: BorrowedFd<'_>,
        is_ipv6_socket: bool,
        all: &[Outgoing<'a>],
        mut refused: impl FnMut(usize, usize, Errno),
    ) {
        self.slots.clear();
        self.slots
            .extend(all.iter().map(|outgoing| Slot::new(outgoing, is_ipv6_socket)));
        self.headers.clear();
        self.headers.extend(self.slots.iter_mut().map(Slot::header));
        let mut sent = 0;
        while let Some(rest) = self.headers.get_mut(sent..).filter(|rest| !rest.is_empty()) {
            // SAFETY: the headers point into `slots`, which is not touched until this function returns, and these at the
            // bytes that the caller has lent for longer; the kernel only reads them, and writes `msg_len`.
            let result = unsafe {
                libc::sendmmsg(
                    socket.as_raw_fd(),
                    rest.as_mut_ptr(),
                    rest.len() as libc::c_uint,
                    libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
                )
            };
            match Errno::result(result) {
                // one that fails behind one that was taken is tried again as the first, and then tells why
                Ok(count) => sent += usize::try_from(count).unwrap_or_default().max(1),
                Err(Errno::EINTR) => {}
                Err(error) => {
                    match all.get(sent) {
                        Some(outgoing) if is_about_segments(error) && outgoing.segment.is_some() => {
                            one_by_one(socket, is_ipv6_socket, outgoing, |error| refused(sent, 1, error));
                        }
                        Some(outgoing) => refused(sent, outgoing.datagrams(), error),
                        None => {}
                    }
                    sent += 1;
                }
            }
        }
    }
}

/// Errors of udp_send_skb (Linux 5.10 to 6.18) for segments that do not fit the way out, or are not summed by it.
fn is_about_segments(error: Errno) -> bool {
    matches!(
        error,
        Errno::EINVAL | Errno::EMSGSIZE | Errno::EIO | Errno::EOPNOTSUPP
    )
}

fn one_by_one(
    socket: BorrowedFd<'_>,
    is_ipv6_socket: bool,
    merged: &Outgoing<'_>,
    mut refused: impl FnMut(Errno),
) {
    let size = merged.segment.map_or(usize::MAX, usize::from).max(1);
    for bytes in merged.bytes.chunks(size) {
        let one = Outgoing {
            segment: None,
            bytes,
            ..*merged
        };
        let mut slot = Slot::new(&one, is_ipv6_socket);
        let header = slot.header();
        // SAFETY: the header points into `slot` and at bytes that are lent for longer; the kernel only reads them.
        let result = unsafe {
            libc::sendmsg(
                socket.as_raw_fd(),
                &raw const header.msg_hdr,
                libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
            )
        };
        if let Err(error) = Errno::result(result) {
            refused(error);
        }
    }
}

impl Outgoing<'_> {
    /// How many datagrams it is.
    #[must_use]
    pub fn datagrams(&self) -> usize {
        match self.segment {
            Some(size) => self.bytes.len().div_ceil(usize::from(size).max(1)).max(1),
            None => 1,
        }
    }
}

impl Slot {
    fn new(outgoing: &Outgoing<'_>, is_ipv6_socket: bool) -> Self {
        let mut control = Written::new();
        if let Some(from) = outgoing.from {
            control.from(from, is_ipv6_socket);
        }
        if outgoing.ecn != 0 {
            control.tos(outgoing.dscp, outgoing.ecn, outgoing.is_ipv4);
        }
        if let Some(size) = outgoing.segment {
            control.segment(size);
        }
        let (name, name_len) = outgoing
            .to
            .map_or_else(|| (empty_name(), 0), |to| name_of(to, is_ipv6_socket));
        let part = |bytes: &[u8]| libc::iovec {
            iov_base: bytes.as_ptr().cast_mut().cast(),
            iov_len: bytes.len(),
        };
        Self {
            name,
            name_len,
            control,
            parts: [part(outgoing.before), part(outgoing.bytes)],
        }
    }

    /// The message that leads to this slot, which must not move before it is sent.
    fn header(&mut self) -> libc::mmsghdr {
        // SAFETY: integers and pointers, for which zero is a value.
        let mut message: libc::mmsghdr = unsafe { mem::zeroed() };
        let header = &mut message.msg_hdr;
        if self.name_len > 0 {
            header.msg_name = (&raw mut self.name).cast();
            header.msg_namelen = self.name_len as libc::socklen_t;
        }
        header.msg_iov = self.parts.as_mut_ptr();
        header.msg_iovlen = self.parts.len();
        let control = self.control.bytes_mut();
        if !control.is_empty() {
            header.msg_controllen = control.len();
            header.msg_control = control.as_mut_ptr().cast();
        }
        message
    }
}

fn empty_name() -> libc::sockaddr_in6 {
    // SAFETY: integers, for which zero is a value.
    unsafe { mem::zeroed() }
}

/// An address as a socket of this family takes it, and its length.
fn name_of(to: SocketAddr, is_ipv6_socket: bool) -> (libc::sockaddr_in6, usize) {
    let mut name = empty_name();
    if let (SocketAddr::V4(to), false) = (to, is_ipv6_socket) {
        // SAFETY: integers, for which zero is a value.
        let mut v4: libc::sockaddr_in = unsafe { mem::zeroed() };
        v4.sin_family = libc::AF_INET as libc::sa_family_t;
        v4.sin_port = to.port().to_be();
        v4.sin_addr.s_addr = u32::from(*to.ip()).to_be();
        // SAFETY: a sockaddr_in is shorter than a sockaddr_in6, and aligned like one.
        unsafe { ptr::from_mut(&mut name).cast::<libc::sockaddr_in>().write(v4) };
        return (name, size_of::<libc::sockaddr_in>());
    }
    name.sin6_family = libc::AF_INET6 as libc::sa_family_t;
    name.sin6_port = to.port().to_be();
    name.sin6_addr.s6_addr = match to.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    };
    if let SocketAddr::V6(to) = to {
        name.sin6_scope_id = to.scope_id();
    }
    (name, size_of::<libc::sockaddr_in6>())
}
