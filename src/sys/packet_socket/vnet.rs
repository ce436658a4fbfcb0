//! The virtio_net_hdr before each frame of a socket with PACKET_VNET_HDR (include/uapi/linux/virtio_net.h): legacy
//! layout, 10 bytes, in the byte order of the host.

use std::num::NonZeroU16;

use crate::packet::{Offload, SegmentKind, Segments, UnfinishedChecksum};

/// Its length in bytes.
pub const LEN: usize = 10;

const NEEDS_CHECKSUM: u8 = 1;
const NO_SEGMENTS: u8 = 0;
const TCP4: u8 = 1;
const TCP6: u8 = 4;
const UDP: u8 = 5;
const ECN: u8 = 0x80;

/// Longest TCP header, in bytes.
const TCP_HEADER_MAX: u16 = 60;
const UDP_HEADER: u16 = 8;

/// What a header says; `None` if it is of a kind that we did not ask for and do not know.
#[must_use]
pub fn decode(header: [u8; LEN]) -> Option<Offload> {
    let [flags, kind, h0, h1, s0, s1, c0, c1, o0, o1] = header;
    let checksum = (flags & NEEDS_CHECKSUM != 0).then_some(UnfinishedChecksum {
        start: u16::from_ne_bytes([c0, c1]),
        offset: u16::from_ne_bytes([o0, o1]),
    });
    let segment = |segment_kind| {
        Some(Segments {
            kind: segment_kind,
            size: NonZeroU16::new(u16::from_ne_bytes([s0, s1]))?,
            header_len: u16::from_ne_bytes([h0, h1]),
            ecn: kind & ECN != 0,
        })
    };
    let segments = match kind & !ECN {
        NO_SEGMENTS => None,
        TCP4 => Some(segment(SegmentKind::Tcp4)?),
        TCP6 => Some(segment(SegmentKind::Tcp6)?),
        UDP => Some(segment(SegmentKind::Udp)?),
        _ => return None,
    };
    Some(Offload { checksum, segments })
}

/// The header for a frame that is sent.
#[must_use]
pub fn encode(offload: &Offload) -> [u8; LEN] {
    let flags = if offload.checksum.is_some() {
        NEEDS_CHECKSUM
    } else {
        0
    };
    let checksum = offload
        .checksum
        .unwrap_or(UnfinishedChecksum { start: 0, offset: 0 });
    let (kind, size, header_len) = offload.segments.map_or((NO_SEGMENTS, 0, 0), |segments| {
        let (kind, transport) = match segments.kind {
            SegmentKind::Tcp4 => (TCP4, TCP_HEADER_MAX),
            SegmentKind::Tcp6 => (TCP6, TCP_HEADER_MAX),
            SegmentKind::Udp => (UDP, UDP_HEADER),
        };
        // how much the kernel copies into the packet's head, the rest goes into pages: what the sender had there may
        // be everything, and 0 would mean everything
        let header_len = match offload.checksum {
            Some(checksum) => checksum.start.saturating_add(transport),
            None => segments.header_len,
        };
        let ecn = if segments.ecn { ECN } else { 0 };
        (kind | ecn, segments.size.get(), header_len)
    });
    let ([h0, h1], [s0, s1]) = (header_len.to_ne_bytes(), size.to_ne_bytes());
    let ([c0, c1], [o0, o1]) = (checksum.start.to_ne_bytes(), checksum.offset.to_ne_bytes());
    [flags, kind, h0, h1, s0, s1, c0, c1, o0, o1]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn super_frame(kind: SegmentKind, header_len: u16) -> Offload {
        Offload {
            checksum: Some(UnfinishedChecksum {
                start: 34,
                offset: 16,
            }),
            segments: Some(Segments {
                kind,
                size: NonZeroU16::new(1_448).unwrap(),
                header_len,
                ecn: kind == SegmentKind::Tcp6,
            }),
        }
    }

    #[test]
    fn what_is_encoded_is_decoded_as_it_was() {
        for offload in [
            Offload::default(),
            Offload {
                segments: None,
                ..super_frame(SegmentKind::Tcp4, 0)
            },
            super_frame(SegmentKind::Tcp4, 94),
            super_frame(SegmentKind::Tcp6, 94),
            super_frame(SegmentKind::Udp, 42),
        ] {
            assert_eq!(decode(encode(&offload)), Some(offload));
        }
    }

    #[test]
    fn a_super_frame_that_came_in_one_piece_leaves_with_only_its_headers_in_front() {
        let received = super_frame(SegmentKind::Tcp4, u16::MAX);
        let sent = decode(encode(&received)).unwrap();
        assert_eq!(sent.segments.unwrap().header_len, 34 + 60);
    }

    #[test]
    fn kinds_of_super_frames_that_nobody_asked_for_are_not_taken_for_packets() {
        let ufo = 3;
        assert_eq!(decode([0, ufo, 0, 0, 1, 1, 0, 0, 0, 0]), None);
        let without_size = [0, TCP4, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(decode(without_size), None);
    }
}
