//! Packets for tests, built field by field, and the plain way to check every checksum of a frame.
//!
//! Written without the code under test: checksums are summed up whole, header by header. Part of the library because
//! the packet corpus and other rooms' tests use it; the program does not.

mod verify;

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroU16,
};

use super::{Offload, SegmentKind, Segments, UnfinishedChecksum};
use crate::base::Mac;
pub use verify::wrong_checksums;

/// A packet to be built; its defaults are those of an ordinary one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Ethernet source.
    pub link_source: Mac,
    /// Ethernet destination.
    pub link_destination: Mac,
    /// VLAN tags, TPID and TCI each.
    pub tags: Vec<u8>,
    /// IP source.
    pub source: IpAddr,
    /// IP destination.
    pub destination: IpAddr,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Type of service or traffic class.
    pub tos: u8,
    /// IPv4 identification.
    pub id: u16,
    /// IPv4's don't fragment bit.
    pub dont_fragment: bool,
    /// IPv4 options, a multiple of 4 bytes, or whole IPv6 extension headers in front of the fragment header, whose
    /// first bytes are set to the next header's number.
    pub options: Vec<u8>,
    /// Number of the first extension header in `options` (IPv6).
    pub first_option: u8,
    /// Cut this part out of the datagram.
    pub fragment: Option<Cut>,
    /// What it carries.
    pub body: Body,
    /// What becomes of the transport checksum.
    pub sum: SumKind,
    /// Payload of each packet but the last if it is a super-frame.
    pub segment_size: Option<NonZeroU16>,
    /// Bytes after the IP packet.
    pub trailer: Vec<u8>,
}

/// A part of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Identification.
    pub id: u32,
    /// First byte, a multiple of 8.
    pub offset: u16,
    /// Number of bytes.
    pub len: u16,
    /// Whether it says that more follow.
    pub more: bool,
}

/// What a packet carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// TCP.
    Tcp {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
        /// Sequence number.
        sequence: u32,
        /// Acknowledgement number.
        acknowledgement: u32,
        /// Flags.
        flags: u8,
        /// Window.
        window: u16,
        /// Options, a multiple of 4 bytes.
        options: Vec<u8>,
        /// Data.
        payload: Vec<u8>,
    },
    /// UDP.
    Udp {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
        /// Data.
        payload: Vec<u8>,
    },
    /// ICMP or ICMPv6, as the family of the addresses says.
    Icmp {
        /// Type.
        icmp_type: u8,
        /// Code.
        code: u8,
        /// The four bytes after the checksum.
        rest: [u8; 4],
        /// What follows: of errors, the packet they are about.
        payload: Vec<u8>,
    },
    /// Anything else.
    Other {
        /// Protocol number.
        protocol: u8,
        /// Its bytes.
        bytes: Vec<u8>,
    },
}

/// What becomes of the transport checksum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SumKind {
    /// It is right.
    #[default]
    Right,
    /// It is zero: none (UDP).
    Zero,
    /// Only the pseudo-header's sum, to be finished on the way out.
    Unfinished,
    /// One more than the right one.
    Wrong,
}

impl Packet {
    /// An ordinary packet.
    #[must_use]
    pub fn new(source: IpAddr, destination: IpAddr, body: Body) -> Self {
        Self {
            link_source: Mac([2, 0, 0, 0, 0, 1]),
            link_destination: Mac([2, 0, 0, 0, 0, 2]),
            tags: Vec::new(),
            source,
            destination,
            ttl: 64,
            tos: 0,
            id: 0,
            dont_fragment: true,
            options: Vec::new(),
            first_option: 0,
            fragment: None,
            body,
            sum: SumKind::Right,
            segment_size: None,
            trailer: Vec::new(),
        }
    }

    /// An ordinary TCP packet.
    #[must_use]
    pub fn tcp(source: SocketAddr, destination: SocketAddr, flags: u8, payload: &[u8]) -> Self {
        let body = Body::Tcp {
            source: source.port(),
            destination: destination.port(),
            sequence: 1_000,
            acknowledgement: if flags & 0x10 == 0 { 0 } else { 5_000 },
            flags,
            window: 64_240,
            options: Vec::new(),
            payload: payload.to_vec(),
        };
        Self::new(source.ip(), destination.ip(), body)
    }

    /// The same TCP packet with these numbers.
    #[must_use]
    pub fn numbered(mut self, sequence: u32, acknowledgement: u32) -> Self {
        if let Body::Tcp {
            sequence: number,
            acknowledgement: acknowledged,
            flags,
            ..
        } = &mut self.body
        {
            *number = sequence;
            *acknowledged = if *flags & 0x10 == 0 { 0 } else { acknowledgement };
        }
        self
    }

    /// An ordinary UDP packet.
    #[must_use]
    pub fn udp(source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> Self {
        let body = Body::Udp {
            source: source.port(),
            destination: destination.port(),
            payload: payload.to_vec(),
        };
        Self::new(source.ip(), destination.ip(), body)
    }

    /// An ICMP or ICMPv6 error about a packet, of which so many bytes are quoted at most.
    #[must_use]
    pub fn error(
        source: IpAddr,
        destination: IpAddr,
        (icmp_type, code, rest): (u8, u8, u32),
        about: &Self,
        quoted: usize,
    ) -> Self {
        let mut payload = about.ip_packet();
        payload.truncate(quoted);
        let body = Body::Icmp {
            icmp_type,
            code,
            rest: rest.to_be_bytes(),
            payload,
        };
        Self::new(source, destination, body)
    }

    /// The whole frame.
    #[must_use]
    pub fn frame(&self) -> Vec<u8> {
        let mut frame = Vec::new();
        frame.extend(self.link_destination.0);
        frame.extend(self.link_source.0);
        frame.extend(&self.tags);
        let ether_type: u16 = if self.source.is_ipv4() { 0x0800 } else { 0x86dd };
        frame.extend(ether_type.to_be_bytes());
        frame.extend(self.ip_packet());
        frame.extend(&self.trailer);
        frame
    }

    /// What the kernel says of the frame.
    ///
    /// # Panics
    /// If it is too long to be a frame.
    #[must_use]
    pub fn offload(&self) -> Offload {
        let start = 14 + self.tags.len() + self.ip_header(0, 0).len();
        let header_len = match &self.body {
            Body::Tcp { options, .. } => 20 + options.len(),
            _ => 8,
        };
        let offset = if matches!(self.body, Body::Tcp { .. }) {
            16
        } else {
            6
        };
        let kind = match (&self.body, self.source.is_ipv4()) {
            (Body::Tcp { .. }, true) => SegmentKind::Tcp4,
            (Body::Tcp { .. }, false) => SegmentKind::Tcp6,
            _ => SegmentKind::Udp,
        };
        let short = |len: usize| u16::try_from(len).expect("headers of a frame");
        Offload {
            checksum: (self.sum == SumKind::Unfinished).then(|| UnfinishedChecksum {
                start: short(start),
                offset,
            }),
            segments: self.segment_size.map(|size| Segments {
                kind,
                size,
                header_len: short(start + header_len),
                ecn: false,
            }),
        }
    }

    /// The IP packet alone.
    #[must_use]
    pub fn ip_packet(&self) -> Vec<u8> {
        let (protocol, whole) = self.transport();
        let data = match self.fragment {
            Some(cut) => {
                let from = usize::from(cut.offset).min(whole.len());
                let to = (from + usize::from(cut.len)).min(whole.len());
                whole[from..to].to_vec()
            }
            None => whole,
        };
        let mut packet = self.ip_header(protocol, data.len());
        packet.extend(data);
        packet
    }

    fn ip_header(&self, protocol: u8, len: usize) -> Vec<u8> {
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let header_len = 20 + self.options.len();
                let total = u16::try_from(header_len + len).unwrap_or(u16::MAX);
                let mut bits = u16::from(self.dont_fragment && self.fragment.is_none()) << 14;
                let mut id = self.id;
                if let Some(cut) = self.fragment {
                    bits |= (u16::from(cut.more) << 13) | (cut.offset / 8);
                    id = cut.id as u16;
                }
                let mut header = vec![0x40 | (header_len / 4) as u8, self.tos];
                header.extend(total.to_be_bytes());
                header.extend(id.to_be_bytes());
                header.extend(bits.to_be_bytes());
                header.extend([self.ttl, protocol, 0, 0]);
                header.extend(source.octets());
                header.extend(destination.octets());
                header.extend(&self.options);
                let sum = !verify::sum(&header);
                header[10..12].copy_from_slice(&sum.to_be_bytes());
                header
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let extensions = self.extensions(protocol);
                let len = u16::try_from(extensions.1.len() + len).unwrap_or(u16::MAX);
                let mut header = vec![0x60 | (self.tos >> 4), self.tos << 4, 0, 0];
                header.extend(len.to_be_bytes());
                header.extend([extensions.0, self.ttl]);
                header.extend(source.octets());
                header.extend(destination.octets());
                header.extend(extensions.1);
                header
            }
            _ => panic!("addresses of two families"),
        }
    }

    /// Number of the first extension header, or of the transport if there is none, and all of them.
    fn extensions(&self, protocol: u8) -> (u8, Vec<u8>) {
        let mut bytes = self.options.clone();
        let mut first = if bytes.is_empty() {
            protocol
        } else {
            self.first_option
        };
        if let Some(cut) = self.fragment {
            if bytes.is_empty() {
                first = 44;
            }
            let bits = cut.offset | u16::from(cut.more);
            bytes.extend([protocol, 0]);
            bytes.extend(bits.to_be_bytes());
            bytes.extend(cut.id.to_be_bytes());
        }
        (first, bytes)
    }

    /// Number and bytes of the whole transport packet.
    fn transport(&self) -> (u8, Vec<u8>) {
        let (protocol, mut bytes, field) = match &self.body {
            Body::Tcp {
                source,
                destination,
                sequence,
                acknowledgement,
                flags,
                window,
                options,
                payload,
            } => {
                let mut bytes = Vec::new();
                bytes.extend(source.to_be_bytes());
                bytes.extend(destination.to_be_bytes());
                bytes.extend(sequence.to_be_bytes());
                bytes.extend(acknowledgement.to_be_bytes());
                bytes.extend([((5 + options.len() / 4) << 4) as u8, *flags]);
                bytes.extend(window.to_be_bytes());
                bytes.extend([0; 4]);
                bytes.extend(options);
                bytes.extend(payload);
                (6, bytes, 16)
            }
            Body::Udp {
                source,
                destination,
                payload,
            } => {
                let mut bytes = Vec::new();
                bytes.extend(source.to_be_bytes());
                bytes.extend(destination.to_be_bytes());
                let len = u16::try_from(8 + payload.len()).unwrap_or(u16::MAX);
                bytes.extend(len.to_be_bytes());
                bytes.extend([0; 2]);
                bytes.extend(payload);
                (17, bytes, 6)
            }
            Body::Icmp {
                icmp_type,
                code,
                rest,
                payload,
            } => {
                let mut bytes = vec![*icmp_type, *code, 0, 0];
                bytes.extend(rest);
                bytes.extend(payload);
                let protocol = if self.source.is_ipv4() { 1 } else { 58 };
                (protocol, bytes, 2)
            }
            Body::Other { protocol, bytes } => return (*protocol, bytes.clone()),
        };
        let pseudo = verify::pseudo(self.source, self.destination, protocol, bytes.len());
        let with_pseudo = [pseudo.as_slice(), &bytes].concat();
        let right = match (protocol, !verify::sum(&with_pseudo)) {
            (1, _) => !verify::sum(&bytes),
            (17, 0) => 0xffff,
            (_, sum) => sum,
        };
        let sum = match self.sum {
            SumKind::Right => right,
            SumKind::Zero => 0,
            SumKind::Unfinished => verify::sum(&pseudo),
            SumKind::Wrong => right.wrapping_add(1),
        };
        bytes[field..field + 2].copy_from_slice(&sum.to_be_bytes());
        (protocol, bytes)
    }
}
