//! Receiving in batches, from several sockets into one.

use std::{
    fmt, io, mem,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
};

use nix::errno::Errno;

use super::control::{self, RECEIVED};

/// Bytes of each buffer: the largest datagram, or as many merged ones; and a little more, so that the first bytes of all do
/// not compete for the same lines of the cache.
const STRIDE: usize = 65_536 + 9 * 64;

/// Room for datagrams, made once, of which batch after batch is received.
pub struct Receiver {
    /// STRIDE bytes for each slot.
    buffers: Box<[u8]>,
    slots: Box<[Slot]>,
    headers: Box<[libc::mmsghdr]>,
    used: usize,
}

// SAFETY: pointers are written into `headers` in `receive` and not used after it returns.
unsafe impl Send for Receiver {}

#[repr(C, align(64))]
struct Slot {
    control: [u8; RECEIVED],
    name: libc::sockaddr_in6,
    part: libc::iovec,
}

/// A datagram, or several of one sender that are merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// Where it comes from; `None` of a connected socket. An IPv4 address is never in IPv6 form.
    pub from: Option<SocketAddr>,
    /// The address that it was sent to, where the socket tells.
    pub local: Option<IpAddr>,
    /// The interface of a link-local address that it was sent to, else 0.
    pub interface: u32,
    /// Whether it was sent to a broadcast or multicast address, where the socket tells.
    pub is_to_many: bool,
    /// Its ECN bits.
    pub ecn: u8,
    /// The size of each datagram that it is merged of; the last may be shorter. `None`: it is one.
    pub segment: Option<u16>,
    /// Its bytes.
    pub len: usize,
    /// Whether it was longer than any buffer.
    pub is_cut: bool,
    /// How many datagrams the socket's queue had no room for since it was made, as of when this one came; 0 is not told.
    pub dropped: Option<u32>,
}

impl Message {
    /// How many datagrams it is.
    #[must_use]
    pub fn datagrams(&self) -> usize {
        match self.segment {
            Some(size) => self.len.div_ceil(usize::from(size)).max(1),
            None => 1,
        }
    }

    /// The bytes of the longest of its datagrams.
    #[must_use]
    pub fn longest(&self) -> usize {
        self.segment
            .map_or(self.len, |size| self.len.min(usize::from(size)))
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver")
            .field("slots", &self.slots.len())
            .field("used", &self.used)
            .finish_non_exhaustive()
    }
}

impl Receiver {
    /// Room for so many at a time; memory is taken as it is touched, 64 KiB each at most.
    #[must_use]
    pub fn new(count: usize) -> Self {
        Self {
            buffers: vec![0; count * STRIDE].into_boxed_slice(),
            slots: (0..count).map(|_| Slot::empty()).collect(),
            headers: (0..count).map(|_| empty_header()).collect(),
            used: 0,
        }
    }

    /// Forgets what was received.
    pub fn clear(&mut self) {
        self.used = 0;
    }

    /// How many more fit in.
    #[must_use]
    pub fn room(&self) -> usize {
        self.slots.len() - self.used
    }

    /// How many were received since they were [cleared](Self::clear).
    #[must_use]
    pub fn len(&self) -> usize {
        self.used
    }

    /// Receives what waits at a socket, `limit` at most and no more than there is room for, behind what was received before.
    /// Returns how many; none if nothing waits.
    ///
    /// # Errors
    /// The socket's error: of a connected one what ICMP has told.
    pub fn receive(&mut self, socket: BorrowedFd<'_>, limit: usize) -> io::Result<usize> {
        let first = self.used;
        let count = self.room().min(limit);
        let end = first + count;
        let buffers = self.buffers.chunks_exact_mut(STRIDE);
        let all = buffers.zip(self.slots.iter_mut()).zip(self.headers.iter_mut());
        for ((buffer, slot), header) in all.take(end).skip(first) {
            slot.part = libc::iovec {
                iov_base: buffer.as_mut_ptr().cast(),
                iov_len: buffer.len(),
            };
            let header = &mut header.msg_hdr;
            header.msg_name = (&raw mut slot.name).cast();
            header.msg_namelen = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
            header.msg_iov = &raw mut slot.part;
            header.msg_iovlen = 1;
            header.msg_control = slot.control.as_mut_ptr().cast();
            header.msg_controllen = RECEIVED;
            header.msg_flags = 0;
        }
        let Some(headers) = self.headers.get_mut(first..end).filter(|some| !some.is_empty()) else {
            return Ok(0);
        };
        // SAFETY: each of these headers was just pointed at the name, control room and buffer of its own slot, which nobody
        // else uses until this returns; all that the kernel may write there is plain bytes.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                headers.len() as libc::c_uint,
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
            )
        };
        match Errno::result(received) {
            Ok(received) => {
                let received = usize::try_from(received).unwrap_or_default().min(count);
                self.used += received;
                Ok(received)
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    /// What is known of one, by its number since they were cleared.
    #[must_use]
    pub fn message(&self, index: usize) -> Option<Message> {
        let index = Some(index).filter(|index| *index < self.used)?;
        let (slot, header) = (self.slots.get(index)?, self.headers.get(index)?);
        let control = slot.control.get(..header.msg_hdr.msg_controllen);
        let control = control::read(control.unwrap_or_default());
        Some(Message {
            from: slot.from(header.msg_hdr.msg_namelen as usize),
            local: control.local,
            interface: control.interface,
            is_to_many: control.is_to_many,
            ecn: control.ecn,
            segment: control.segment,
            len: header.msg_len as usize,
            is_cut: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
            dropped: control.dropped,
        })
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self, index: usize) -> &[u8] {
        let Some(header) = self.headers.get(index).filter(|_| index < self.used) else {
            return &[];
        };
        let start = index * STRIDE;
        let bytes = self
            .buffers
            .get(start..start + (header.msg_len as usize).min(STRIDE));
        bytes.unwrap_or_default()
    }
}

impl Slot {
    const fn empty() -> Self {
        Self {
            control: [0; RECEIVED],
            // SAFETY: integers, for which zero is a value.
            name: unsafe { mem::zeroed() },
            part: libc::iovec {
                iov_base: ptr::null_mut(),
                iov_len: 0,
            },
        }
    }

    /// The sender, of whose address the kernel has written so many bytes.
    fn from(&self, written: usize) -> Option<SocketAddr> {
        match i32::from(self.name.sin6_family) {
            libc::AF_INET if written >= size_of::<libc::sockaddr_in>() => {
                // SAFETY: the family says that the kernel wrote a sockaddr_in, which is shorter than a sockaddr_in6 and
                // aligned like one.
                let v4 = unsafe { &*ptr::from_ref(&self.name).cast::<libc::sockaddr_in>() };
                let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
                Some(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into())
            }
            libc::AF_INET6 if written >= size_of::<libc::sockaddr_in6>() => {
                let ip = Ipv6Addr::from(self.name.sin6_addr.s6_addr);
                let port = u16::from_be(self.name.sin6_port);
                Some(match ip.to_ipv4_mapped() {
                    Some(v4) => SocketAddrV4::new(v4, port).into(),
                    None => SocketAddrV6::new(ip, port, 0, self.name.sin6_scope_id).into(),
                })
            }
            _ => None,
        }
    }
}

fn empty_header() -> libc::mmsghdr {
    // SAFETY: integers and pointers, for which zero is a value.
    unsafe { mem::zeroed() }
}
