//! A received frame in its buffer, with what the kernel says of it besides its bytes.

use std::num::NonZeroU16;

use crate::base::Mac;

/// Bytes kept free in front of a received frame: VLAN tags that the kernel took out are put back there.
pub const HEADROOM: usize = 16;

/// A frame in a buffer with room in front of it. Where it starts moves when tags are added or removed.
#[derive(Debug)]
pub struct Frame<'a> {
    buffer: &'a mut [u8],
    start: usize,
    end: usize,
    /// What the kernel says of it.
    pub offload: Offload,
}

/// What a frame's virtio_net_hdr says (include/uapi/linux/virtio_net.h).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Offload {
    /// The transport checksum is still to be finished: its field holds the sum of the pseudo-header only, not
    /// complemented and without ports, so a change of addresses adds new − old, and a change of ports nothing.
    pub checksum: Option<UnfinishedChecksum>,
    /// It stands for several packets.
    pub segments: Option<Segments>,
}

/// Where an unfinished checksum starts and is to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnfinishedChecksum {
    /// Where summing starts, in bytes from the start of the frame.
    pub start: u16,
    /// Where the result goes, in bytes from `start`.
    pub offset: u16,
}

/// A frame that stands for several packets (GSO, GRO).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segments {
    /// What they are.
    pub kind: SegmentKind,
    /// Payload of each but the last, in bytes.
    pub size: NonZeroU16,
    /// All headers together, in bytes; a hint.
    pub header_len: u16,
    /// The first carries CWR (VIRTIO_NET_HDR_GSO_ECN).
    pub ecn: bool,
}

/// What a super-frame is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentKind {
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP datagrams of one sender (UDP_SEGMENT), either family.
    Udp,
}

/// Ethernet addresses of a frame that is to leave, and the interface by which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LinkHeader {
    /// The interface's index.
    pub ifindex: u32,
    /// Source: the interface's own.
    pub source: Mac,
    /// Destination: the next hop's.
    pub destination: Mac,
}

impl<'a> Frame<'a> {
    /// The frame of `len` bytes at `start` of a buffer; `None` if it does not lie in it.
    #[must_use]
    pub fn new(buffer: &'a mut [u8], start: usize, len: usize, offload: Offload) -> Option<Self> {
        let end = start.checked_add(len).filter(|end| *end <= buffer.len())?;
        Some(Self {
            buffer,
            start,
            end,
            offload,
        })
    }

    /// Its bytes, from the destination MAC on.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    /// Its bytes, to be changed.
    #[must_use]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.buffer.get_mut(self.start..self.end).unwrap_or_default()
    }

    /// Where it starts in its buffer.
    #[must_use]
    pub const fn start(&self) -> usize {
        self.start
    }

    /// Its length in bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether it has no bytes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.end == self.start
    }

    /// Moves the start by so many bytes, to lower addresses if negative; the place where an unfinished checksum starts
    /// stays the same byte. `None` if there is no room or not so much frame; nothing has changed then.
    pub(super) fn move_start(&mut self, by: isize) -> Option<()> {
        let start = (self.start.checked_add_signed(by)).filter(|start| *start <= self.end)?;
        let moved = |at: u16| u16::try_from(isize::try_from(at).ok()?.checked_sub(by)?).ok();
        let mut offload = self.offload;
        if let Some(checksum) = &mut offload.checksum {
            checksum.start = moved(checksum.start)?;
        }
        if let Some(segments) = &mut offload.segments {
            // a hint that may be 0
            segments.header_len = moved(segments.header_len).unwrap_or(0);
        }
        self.offload = offload;
        self.start = start;
        Some(())
    }
}
