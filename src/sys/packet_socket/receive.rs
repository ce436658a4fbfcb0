//! Receiving in batches.

use std::{
    fmt, io, mem,
    os::fd::{AsRawFd, BorrowedFd},
    ptr::{self, NonNull},
};

use nix::errno::Errno;

use super::vnet;
use crate::{
    base::PacketReason,
    packet::{Frame, HEADROOM},
};

/// Longest frame in bytes: link header and one VLAN tag in the frame, and the longest IP packet.
const MAX_FRAME: usize = 14 + 4 + 65_535;

/// From one buffer to the next, in bytes: an odd number of cache lines, so that the headers of a batch do not all
/// compete for the same lines of the cache.
const STRIDE: usize = (HEADROOM + MAX_FRAME).div_ceil(128) * 128 + 64;

/// Bytes from a frame's start to its EtherType: two link addresses.
const ADDRESSES: usize = 12;

/// Bytes of a VLAN tag.
const TAG: usize = 4;

/// Room for one tpacket_auxdata with its header.
const CONTROL: usize = 64;

/// Buffers for a batch of frames, made once.
pub struct Receiver {
    buffers: Boxed<u8>,
    slots: Boxed<Slot>,
    headers: Boxed<libc::mmsghdr>,
    count: usize,
    /// Slots whose headers the kernel has written to since they were last made ready.
    used: usize,
}

// SAFETY: all pointers lead into memory that this value owns alone.
unsafe impl Send for Receiver {}

/// What the kernel writes for a frame besides its bytes, and where it is told to.
#[repr(C, align(64))]
struct Slot {
    control: [u8; CONTROL],
    parts: [libc::iovec; 2],
    vnet: [u8; vnet::LEN],
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver")
            .field("count", &self.count)
            .finish_non_exhaustive()
    }
}

impl Receiver {
    /// Room for `count` frames at a time; memory is taken as it is touched, 64 KiB each at most.
    #[must_use]
    pub fn new(count: usize) -> Self {
        let mut receiver = Self {
            buffers: Boxed::new(vec![0; count * STRIDE]),
            slots: Boxed::new((0..count).map(|_| Slot::empty()).collect()),
            headers: Boxed::new((0..count).map(|_| empty_header()).collect()),
            count,
            used: 0,
        };
        for index in 0..count {
            receiver.connect(index);
        }
        receiver
    }

    /// Points a slot's header at its parts. `index` is below `count`.
    fn connect(&mut self, index: usize) {
        debug_assert!(index < self.count);
        // SAFETY: each Boxed has an element (STRIDE elements, in `buffers`) for every index below `count`, and no
        // reference into them is alive while `self` is borrowed mutably.
        unsafe {
            let slot = self.slots.at(index);
            let frame = self.buffers.at(index * STRIDE + HEADROOM);
            (*slot).parts = [
                libc::iovec {
                    iov_base: (&raw mut (*slot).vnet).cast(),
                    iov_len: vnet::LEN,
                },
                libc::iovec {
                    iov_base: frame.cast(),
                    iov_len: STRIDE - HEADROOM,
                },
            ];
            let header = &mut (*self.headers.at(index)).msg_hdr;
            header.msg_iov = (&raw mut (*slot).parts).cast();
            header.msg_iovlen = 2;
            header.msg_control = (&raw mut (*slot).control).cast();
            header.msg_controllen = CONTROL;
        }
    }

    /// Receives what waits, `limit` frames at most and no more than there is room for; none if nothing waits. The frames
    /// of the last call are gone.
    ///
    /// # Errors
    /// As recvmmsg: ENETDOWN once when the interface goes down or vanishes; EINVAL for a super-frame that the kernel
    /// could not describe and has dropped (UDP before Linux 6.2).
    pub fn receive(&mut self, socket: BorrowedFd<'_>, limit: usize) -> io::Result<usize> {
        for index in 0..mem::take(&mut self.used) {
            // SAFETY: `used` never exceeds `count`, the number of headers; no reference into them is alive.
            let header = unsafe { &mut (*self.headers.at(index)).msg_hdr };
            header.msg_controllen = CONTROL;
            header.msg_flags = 0;
        }
        // SAFETY: there are `count` headers; each points at the vnet header, buffer part and control room of its own
        // slot (`connect`), which live as long as `self`, and of which no reference is alive. All that the kernel may
        // write there is plain bytes.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.at(0),
                self.count.min(limit) as libc::c_uint,
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
            )
        };
        match Errno::result(received) {
            Ok(received) => {
                self.used = usize::try_from(received).unwrap_or_default().min(self.count);
                Ok(self.used)
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    /// Bytes of the last batch.
    #[must_use]
    pub fn received_bytes(&self) -> usize {
        // SAFETY: `used` never exceeds `count`, the number of headers; the shared borrow of `self` lets nobody write.
        let len = |index| unsafe { (*self.headers.at(index)).msg_len as usize };
        (0..self.used).map(len).sum()
    }

    /// The frame of this number of the last batch, with the VLAN tag that the kernel or the card had taken out, in
    /// front of which [`HEADROOM`] less a tag is free.
    ///
    /// # Errors
    /// It was longer than any packet may be, or its virtio header is of a kind that is not known.
    pub fn frame(&mut self, index: usize) -> Result<Frame<'_>, PacketReason> {
        if index >= self.used {
            return Err(PacketReason::Malformed);
        }
        // SAFETY: `index` is below `used`, hence below `count`; the kernel is not writing (`receive` has returned),
        // and the borrow of `self` keeps these references alone. `buffers` has STRIDE bytes for each index.
        let (header, slot, buffer) = unsafe {
            (
                &*self.headers.at(index),
                &*self.slots.at(index),
                std::slice::from_raw_parts_mut(self.buffers.at(index * STRIDE), STRIDE),
            )
        };
        if header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0 {
            return Err(PacketReason::Truncated);
        }
        let len = (header.msg_len as usize).checked_sub(vnet::LEN);
        let len = len.ok_or(PacketReason::Malformed)?;
        let mut offload = vnet::decode(slot.vnet).ok_or(PacketReason::Malformed)?;
        let Some(tag) = slot.vlan_tag(header.msg_hdr.msg_controllen) else {
            return Frame::new(buffer, HEADROOM, len, offload).ok_or(PacketReason::Malformed);
        };
        if len < ADDRESSES {
            return Err(PacketReason::Malformed);
        }
        let start = HEADROOM - TAG;
        buffer.copy_within(HEADROOM..HEADROOM + ADDRESSES, start);
        if let Some(place) = buffer.get_mut(start + ADDRESSES..start + ADDRESSES + TAG) {
            place.copy_from_slice(&tag);
        }
        if let Some(checksum) = &mut offload.checksum {
            // the kernel counts from the start of what it delivered
            checksum.start = checksum.start.saturating_add(TAG as u16);
        }
        Frame::new(buffer, start, len + TAG, offload).ok_or(PacketReason::Malformed)
    }

    /// `len` bytes at `start` of the buffer of a frame of the last batch, where a [`Frame`] has said that it lies;
    /// none if they are not there.
    #[must_use]
    pub fn bytes(&self, index: usize, start: usize, len: usize) -> &[u8] {
        if index >= self.used {
            return &[];
        }
        // SAFETY: as in `frame`; the shared borrow of `self` lets nobody write.
        let buffer = unsafe { std::slice::from_raw_parts(self.buffers.at(index * STRIDE), STRIDE) };
        (start.checked_add(len))
            .and_then(|end| buffer.get(start..end))
            .unwrap_or_default()
    }
}

impl Slot {
    const fn empty() -> Self {
        let nothing = libc::iovec {
            iov_base: ptr::null_mut(),
            iov_len: 0,
        };
        Self {
            control: [0; CONTROL],
            parts: [nothing; 2],
            vnet: [0; vnet::LEN],
        }
    }

    /// The VLAN tag that is not in the frame, as its bytes would be; `written` bytes of control messages came.
    fn vlan_tag(&self, written: usize) -> Option<[u8; TAG]> {
        let control = self.control.get(..written)?;
        let header_len = size_of::<libc::cmsghdr>();
        if control.len() < header_len + size_of::<libc::tpacket_auxdata>() {
            return None;
        }
        // SAFETY: `control` is long enough for both, the one behind the other (cmsghdr needs no padding behind it);
        // unaligned reads of plain integers.
        let (header, data) = unsafe {
            let at = control.as_ptr();
            (
                at.cast::<libc::cmsghdr>().read_unaligned(),
                at.add(header_len)
                    .cast::<libc::tpacket_auxdata>()
                    .read_unaligned(),
            )
        };
        if (header.cmsg_level, header.cmsg_type) != (libc::SOL_PACKET, libc::PACKET_AUXDATA)
            || data.tp_status & libc::TP_STATUS_VLAN_VALID == 0
        {
            return None;
        }
        let tpid = if data.tp_status & libc::TP_STATUS_VLAN_TPID_VALID != 0 {
            data.tp_vlan_tpid
        } else {
            libc::ETH_P_8021Q as u16
        };
        let ([p0, p1], [t0, t1]) = (tpid.to_be_bytes(), data.tp_vlan_tci.to_be_bytes());
        Some([p0, p1, t0, t1])
    }
}

fn empty_header() -> libc::mmsghdr {
    // SAFETY: integers and pointers, for which zero is a value.
    unsafe { mem::zeroed() }
}

/// A boxed slice that is only reached through its pointer, so that pointers into it which the kernel is given stay
/// valid while other parts of it are borrowed.
struct Boxed<T>(NonNull<[T]>);

impl<T> Boxed<T> {
    fn new(items: Vec<T>) -> Self {
        Self(NonNull::from(Box::leak(items.into_boxed_slice())))
    }

    /// A pointer to an element; it may only be used if there is one at `index`.
    fn at(&self, index: usize) -> *mut T {
        self.0.as_ptr().cast::<T>().wrapping_add(index)
    }
}

impl<T> Drop for Boxed<T> {
    fn drop(&mut self) {
        // SAFETY: the pointer came from a box that was leaked in `new`, and is given back once.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}
