//! Sending in batches.

use std::{
    fmt, mem,
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
};

use nix::errno::Errno;

use super::{link_address, vnet};
use crate::packet::Offload;

/// A whole frame that is to leave by an interface.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// The interface's index: any, whatever the socket is bound to.
    pub ifindex: u32,
    /// From the destination's link address on.
    pub frame: &'a [u8],
    /// What the kernel or the card has to finish.
    pub offload: Offload,
}

/// Room for the description of a batch, made once.
pub struct Sender {
    slots: Vec<Slot>,
    headers: Vec<libc::mmsghdr>,
    limit: usize,
}

// SAFETY: pointers are written into `headers` in `send` and not used after it returns.
unsafe impl Send for Sender {}

struct Slot {
    address: libc::sockaddr_ll,
    vnet: [u8; vnet::LEN],
    parts: [libc::iovec; 2],
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender")
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

impl Sender {
    /// Room for `limit` frames at a time.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            slots: Vec::with_capacity(limit),
            headers: Vec::with_capacity(limit),
            limit,
        }
    }

    /// Sends frames through a packet socket, as many at once as there is room for. `refused` is told of each that the
    /// kernel did not take, by its place among `frames`: the egress queue is full (ENOBUFS), the socket's buffer is
    /// (EAGAIN), the interface is down or gone (ENETDOWN, ENXIO), the frame too long (EMSGSIZE).
    pub fn send<'a>(
        &mut self,
        socket: BorrowedFd<'_>,
        frames: impl IntoIterator<Item = Outgoing<'a>>,
        mut refused: impl FnMut(usize, Errno),
    ) {
        let mut frames = frames.into_iter();
        let mut first = 0;
        loop {
            let count = self.send_some(socket, frames.by_ref().take(self.limit), &mut |index, error| {
                refused(first + index, error);
            });
            first += count;
            if count < self.limit || self.limit == 0 {
                return;
            }
        }
    }

    /// Sends the frames, no more than `limit`; returns how many there were.
    fn send_some<'a>(
        &mut self,
        socket: BorrowedFd<'_>,
        frames: impl Iterator<Item = Outgoing<'a>>,
        refused: &mut dyn FnMut(usize, Errno),
    ) -> usize {
        self.slots.clear();
        self.slots.extend(frames.map(|frame| Slot::new(&frame)));
        self.headers.clear();
        self.headers.extend(self.slots.iter_mut().map(Slot::header));
        let mut sent = 0;
        while let Some(rest) = self.headers.get_mut(sent..).filter(|rest| !rest.is_empty()) {
            // SAFETY: the headers point into `slots`, which is not touched until this function returns, and these at
            // the frames, which the caller has lent for longer; the kernel only reads them, and writes `msg_len`.
            let result = unsafe {
                libc::sendmmsg(
                    socket.as_raw_fd(),
                    rest.as_mut_ptr(),
                    rest.len() as libc::c_uint,
                    libc::MSG_DONTWAIT,
                )
            };
            match Errno::result(result) {
                // a frame that fails behind one that was taken is tried again as the first, and then tells why
                Ok(count) => sent += usize::try_from(count).unwrap_or_default().max(1),
                Err(Errno::EINTR) => {}
                Err(error) => {
                    refused(sent, error);
                    sent += 1;
                }
            }
        }
        self.slots.len()
    }
}

impl Slot {
    fn new(outgoing: &Outgoing<'_>) -> Self {
        // the kernel looks into the frame where it needs more than this
        let protocol = match outgoing.frame.get(12..14) {
            Some(&[high, low]) => u16::from_ne_bytes([high, low]),
            _ => 0,
        };
        let nothing = libc::iovec {
            iov_base: ptr::null_mut(),
            iov_len: 0,
        };
        Self {
            address: link_address(outgoing.ifindex, protocol),
            vnet: vnet::encode(&outgoing.offload),
            parts: [
                nothing, // the virtio header: filled in once this slot has its place
                libc::iovec {
                    iov_base: outgoing.frame.as_ptr().cast_mut().cast(),
                    iov_len: outgoing.frame.len(),
                },
            ],
        }
    }

    /// The message that leads to this slot, which must not move before it is sent.
    fn header(&mut self) -> libc::mmsghdr {
        let [header, _frame] = &mut self.parts;
        *header = libc::iovec {
            iov_base: (&raw mut self.vnet).cast(),
            iov_len: vnet::LEN,
        };
        // SAFETY: integers and pointers, for which zero is a value.
        let mut message: libc::mmsghdr = unsafe { mem::zeroed() };
        message.msg_hdr.msg_name = (&raw mut self.address).cast();
        message.msg_hdr.msg_namelen = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        message.msg_hdr.msg_iov = (&raw mut self.parts).cast();
        message.msg_hdr.msg_iovlen = self.parts.len();
        message
    }
}
