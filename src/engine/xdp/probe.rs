//! A frame that stands for a packet of a flow: what the program is shown of those that the slow path has handled. Pure.

use std::net::SocketAddr;

use crate::{
    base::Protocol,
    flow::stored::{Key, SegmentKind},
    packet::checksum::checksum,
};

/// Link addresses: what a station is sent, and who sends it; nobody looks at them.
const LINK: [u8; 12] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
/// Ethernet types (IANA).
const IPV4: [u8; 2] = [8, 0];
const IPV6: [u8; 2] = [0x86, 0xdd];
/// Hops that it could go.
const TTL: u8 = 64;

/// The shortest frame of a flow with such a packet.
#[must_use]
pub fn frame(key: &Key, kind: SegmentKind) -> Vec<u8> {
    let (from, to) = (key.from(), key.to());
    let transport = match key.protocol() {
        Protocol::Tcp => tcp(from, to, kind),
        Protocol::Udp => udp(from, to),
    };
    // a header's length and no more: it fits
    let length = transport.len() as u16;
    let mut frame = LINK.to_vec();
    match (from, to) {
        (SocketAddr::V4(from), SocketAddr::V4(to)) => {
            frame.extend(IPV4);
            let mut header = vec![0x45, 0];
            header.extend((length + 20).to_be_bytes());
            header.extend([0, 0, 0, 0, TTL, key.protocol().number(), 0, 0]);
            header.extend(from.ip().octets());
            header.extend(to.ip().octets());
            let sum = checksum(&header).to_be_bytes();
            header
                .iter_mut()
                .skip(10)
                .zip(sum)
                .for_each(|(to, from)| *to = from);
            frame.extend(header);
        }
        (from, to) => {
            frame.extend(IPV6);
            frame.extend([0x60, 0, 0, 0]);
            frame.extend(length.to_be_bytes());
            frame.extend([key.protocol().number(), TTL]);
            for ip in [from.ip(), to.ip()] {
                frame.extend(super::layout::octets(ip));
            }
        }
    }
    frame.extend(transport);
    frame
}

fn ports(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    [from.port().to_be_bytes(), to.port().to_be_bytes()].concat()
}

/// Flags of TCP as they make a segment of a kind (RFC 9293, section 3.1).
const fn flags(kind: SegmentKind) -> u8 {
    match kind {
        SegmentKind::Reset => 0x04,
        SegmentKind::Open => 0x02,
        SegmentKind::Accept => 0x12,
        SegmentKind::Close => 0x11,
        SegmentKind::Go => 0x10,
        SegmentKind::Odd | SegmentKind::Datagram => 0,
    }
}

fn tcp(from: SocketAddr, to: SocketAddr, kind: SegmentKind) -> Vec<u8> {
    let mut header = ports(from, to);
    header.extend([0; 8]);
    header.extend([5 << 4, flags(kind), 0xff, 0xff, 0, 0, 0, 0]);
    header
}

fn udp(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let mut header = ports(from, to);
    header.extend([0, 8, 0, 0]);
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Content, parse};

    #[test]
    fn a_probe_is_a_packet_of_its_flow_and_kind() {
        let ends = [
            ("192.0.2.1:40000", "198.51.100.1:80"),
            ("[2001:db8::1]:40000", "[2001:db8::2]:80"),
        ];
        let kinds = [
            SegmentKind::Reset,
            SegmentKind::Open,
            SegmentKind::Accept,
            SegmentKind::Close,
            SegmentKind::Go,
            SegmentKind::Odd,
        ];
        for (from, to) in ends.map(|(from, to)| (from.parse().unwrap(), to.parse().unwrap())) {
            for kind in kinds {
                let frame = frame(&Key::new(Protocol::Tcp, from, to), kind);
                let parsed = parse(&frame).expect("a packet");
                assert_eq!(parsed.tuple(), Some((Protocol::Tcp, from, to)));
                let Content::Tcp(tcp) = parsed.content else {
                    panic!("{parsed:?}")
                };
                assert_eq!(SegmentKind::of(tcp.flags), kind);
            }
            let frame = frame(&Key::new(Protocol::Udp, from, to), SegmentKind::Datagram);
            let parsed = parse(&frame).expect("a packet");
            assert_eq!(parsed.tuple(), Some((Protocol::Udp, from, to)));
        }
    }
}
