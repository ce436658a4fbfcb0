//! What is told apart, and what is refused.

use std::net::SocketAddr;

use crate::{
    base::{PacketReason, Protocol},
    packet::{
        Content, ErrorKind, Malformed, Offload, parse,
        testing::{Body, Cut, Packet, SumKind},
    },
};

fn socket(text: &str) -> SocketAddr {
    text.parse().expect("address:port")
}

fn tcp4() -> Packet {
    Packet::tcp(socket("192.0.2.1:40000"), socket("198.51.100.1:80"), 0x02, b"")
}

fn udp4(payload: &[u8]) -> Packet {
    Packet::udp(socket("192.0.2.1:40000"), socket("198.51.100.1:53"), payload)
}

fn udp6(payload: &[u8]) -> Packet {
    Packet::udp(
        socket("[2001:db8::1]:40000"),
        socket("[2001:db8:1::1]:53"),
        payload,
    )
}

fn refusal(frame: &[u8]) -> Option<Malformed> {
    parse(frame).err()
}

#[test]
fn a_packet_is_found_behind_two_tags_and_no_more() {
    for tags in 0..=2 {
        let mut packet = tcp4();
        packet.tags = [0x81, 0, 0, 7].repeat(tags);
        let parsed = parse(&packet.frame()).expect("up to two tags");
        assert_eq!(usize::from(parsed.tags.count()), tags);
        let ends = (
            Protocol::Tcp,
            socket("192.0.2.1:40000"),
            socket("198.51.100.1:80"),
        );
        assert_eq!(parsed.tuple(), Some(ends));
    }
    let mut packet = tcp4();
    packet.tags = [0x81, 0, 0, 7].repeat(3);
    assert_eq!(refusal(&packet.frame()), Some(Malformed::TooManyTags));
}

#[test]
fn what_is_no_ip_packet_is_none_of_ours() {
    let mut frame = tcp4().frame();
    frame[12..14].copy_from_slice(&0x0806_u16.to_be_bytes());
    assert_eq!(refusal(&frame), Some(Malformed::NotIp));
    assert_eq!(Malformed::NotIp.reason(), PacketReason::NotOurs);
}

#[test]
fn a_frame_cut_anywhere_before_its_packets_end_is_refused() {
    for packet in [tcp4(), udp4(b"question"), udp6(b"question")] {
        let frame = packet.frame();
        for len in 0..frame.len() {
            let why = refusal(&frame[..len]).map(Malformed::reason);
            assert_eq!(
                why,
                Some(PacketReason::Malformed),
                "{len} of {} bytes",
                frame.len()
            );
        }
        assert_eq!(refusal(&frame), None);
    }
}

#[test]
fn one_wrong_bit_of_an_ipv4_header_is_noticed() {
    let good = tcp4().frame();
    for byte in 14..34 {
        for bit in 0..8 {
            let mut frame = good.clone();
            frame[byte] ^= 1 << bit;
            assert!(refusal(&frame).is_some(), "byte {byte}, bit {bit}");
        }
    }
}

#[test]
fn bytes_after_the_ip_packet_do_not_belong_to_it() {
    let mut packet = udp4(b"x");
    let bare = packet.frame().len();
    packet.trailer = vec![0xff; 17];
    let parsed = parse(&packet.frame()).expect("padding is allowed");
    assert_eq!(parsed.end, bare);
    assert_eq!(parsed.ip_len(), 29);
}

#[test]
fn impossible_lengths_are_refused() {
    let mut frame = udp4(b"question").frame();
    // the UDP length
    for len in [0_u16, 7, 17] {
        frame[38..40].copy_from_slice(&len.to_be_bytes());
        assert!(refusal(&frame).is_some(), "UDP length {len}");
    }
    let mut frame = tcp4().frame();
    for offset in [0_u8, 4, 6] {
        frame[46] = offset << 4;
        assert!(refusal(&frame).is_some(), "TCP data offset {offset}");
    }
}

#[test]
fn ipv6_extension_headers_are_walked_through() {
    let mut packet = udp6(b"question");
    packet.first_option = 0;
    packet.options = vec![
        60, 0, 1, 4, 0, 0, 0, 0, 43, 0, 1, 4, 0, 0, 0, 0, 17, 0, 4, 0, 0, 0, 0, 0,
    ];
    let parsed = parse(&packet.frame()).expect("hop-by-hop, destination options, a route at its end");
    assert_eq!(parsed.tuple().map(|(protocol, ..)| protocol), Some(Protocol::Udp));
    assert_eq!(parsed.transport, 14 + 40 + 24);
}

#[test]
fn extension_headers_that_cannot_be_passed_are_refused() {
    let extension = |first: u8, options: Vec<u8>| {
        let mut packet = udp6(b"");
        packet.first_option = first;
        packet.options = options;
        refusal(&packet.frame())
    };
    let destination = [60, 0, 1, 4, 0, 0, 0, 0];
    let last = [17, 0, 1, 4, 0, 0, 0, 0];
    let many = |count: usize| [destination.repeat(count - 1), last.to_vec()].concat();
    assert_eq!(extension(60, many(8)), None);
    assert_eq!(extension(60, many(9)), Some(Malformed::Extension));
    // a route with a hop to go
    let route = vec![17, 0, 0, 1, 0, 0, 0, 0];
    assert_eq!(extension(43, route), Some(Malformed::Extension));
    // hop-by-hop options that are not the first
    let late = [[0, 0, 1, 4, 0, 0, 0, 0], last].concat();
    assert_eq!(extension(60, late), Some(Malformed::Extension));
    // a length beyond the packet
    let long = vec![17, 9, 1, 4, 0, 0, 0, 0];
    assert_eq!(extension(60, long), Some(Malformed::Short));
}

#[test]
fn fragments_tell_where_they_belong() {
    for mut packet in [udp4(&[7; 2_000]), udp6(&[7; 2_000])] {
        packet.fragment = Some(Cut {
            id: 0x1234,
            offset: 0,
            len: 1_480,
            more: true,
        });
        let first = parse(&packet.frame()).expect("a first fragment");
        assert!(matches!(first.content, Content::Udp(_)));
        packet.fragment = Some(Cut {
            id: 0x1234,
            offset: 1_480,
            len: 600,
            more: false,
        });
        let last = parse(&packet.frame()).expect("a last fragment");
        assert_eq!(last.content, Content::LaterFragment);
        assert_eq!(last.tuple(), None);
        let fragment = last.fragment.expect("a fragment");
        assert_eq!((fragment.id, fragment.protocol), (0x1234, 17));
        assert_eq!(
            (fragment.offset, fragment.len, fragment.more),
            (1_480, 528, false)
        );
    }
}

#[test]
fn a_datagram_in_one_fragment_is_whole() {
    let mut packet = udp6(b"question");
    packet.fragment = Some(Cut {
        id: 9,
        offset: 0,
        len: 100,
        more: false,
    });
    let parsed = parse(&packet.frame()).expect("an atomic fragment");
    assert_eq!(parsed.fragment, None);
    assert!(matches!(parsed.content, Content::Udp(_)));
}

#[test]
fn fragments_that_no_datagram_can_be_put_together_from_are_refused() {
    let cut = |offset, len, more| {
        let mut packet = udp4(&[7; 100]);
        packet.fragment = Some(Cut {
            id: 1,
            offset,
            len,
            more,
        });
        refusal(&packet.frame())
    };
    assert_eq!(cut(0, 104, true), None);
    // too little to decide by; not whole units; empty
    for (offset, len, more) in [(0, 7, true), (0, 0, true), (8, 9, true), (8, 0, false)] {
        assert_eq!(
            cut(offset, len, more),
            Some(Malformed::Fragment),
            "{offset} {len} {more}"
        );
    }
    let mut packet = udp4(&[7; 100]);
    packet.fragment = Some(Cut {
        id: 1,
        offset: 0,
        len: 100,
        more: false,
    });
    let mut frame = packet.frame();
    // an offset at which it would end beyond 65,535
    frame[20..22].copy_from_slice(&0x1fff_u16.to_be_bytes());
    frame[24..26].fill(0);
    let checksum = crate::packet::checksum::checksum(&frame[14..34]).to_be_bytes();
    frame[24..26].copy_from_slice(&checksum);
    assert_eq!(refusal(&frame), Some(Malformed::Fragment));
}

#[test]
fn a_tcp_fragment_that_hides_the_flags_is_refused() {
    // RFC 1858 sections 3.1 and 3.2
    let cut = |offset, len, more| {
        let mut packet = Packet::tcp(socket("192.0.2.1:1"), socket("198.51.100.1:80"), 0x02, &[0; 100]);
        packet.fragment = Some(Cut {
            id: 1,
            offset,
            len,
            more,
        });
        refusal(&packet.frame())
    };
    assert_eq!(cut(0, 16, true), Some(Malformed::Fragment));
    assert_eq!(cut(8, 40, true), Some(Malformed::Fragment));
    assert_eq!(cut(0, 24, true), None);
    assert_eq!(cut(24, 40, true), None);
}

#[test]
fn an_icmp_error_tells_about_the_packet_inside_it() {
    let about = tcp4();
    let (router, host) = ("203.0.113.1".parse().unwrap(), "192.0.2.1".parse().unwrap());
    // 8 bytes of TCP are enough
    let error = Packet::error(router, host, (3, 4, 1_400), &about, 28);
    let parsed = parse(&error.frame()).expect("an error");
    let Content::Error(error) = parsed.content else {
        panic!("{parsed:?}");
    };
    assert_eq!(error.kind, ErrorKind::TooBig { mtu: 1_400 });
    assert_eq!(
        error.quoted.sockets(),
        (socket("192.0.2.1:40000"), socket("198.51.100.1:80"))
    );
    assert_eq!((error.quoted.network, error.quoted.transport), (42, 62));

    let short = Packet::error(router, host, (3, 4, 1_400), &about, 23);
    assert_eq!(refusal(&short.frame()), Some(Malformed::Quoted));
}

#[test]
fn each_kind_of_icmp_error_is_known_and_an_echo_is_none() {
    let (v4, v6) = (udp4(b"question"), udp6(b"question"));
    let kind = |about: &Packet, icmp_type, code| {
        let error = Packet::error(
            about.destination,
            about.source,
            (icmp_type, code, 0x0000_0500),
            about,
            100,
        );
        match parse(&error.frame()).expect("readable").content {
            Content::Error(error) => Some(error.kind),
            _ => None,
        }
    };
    let too_big = Some(ErrorKind::TooBig { mtu: 0x500 });
    assert_eq!(kind(&v4, 3, 3), Some(ErrorKind::Unreachable));
    assert_eq!(kind(&v4, 3, 4), too_big);
    assert_eq!(kind(&v4, 11, 0), Some(ErrorKind::TimeExceeded));
    assert_eq!(kind(&v4, 12, 0), Some(ErrorKind::ParameterProblem));
    assert_eq!(kind(&v4, 8, 0), None);
    assert_eq!(kind(&v4, 5, 0), None);
    assert_eq!(kind(&v6, 1, 4), Some(ErrorKind::Unreachable));
    assert_eq!(kind(&v6, 2, 0), too_big);
    assert_eq!(kind(&v6, 3, 0), Some(ErrorKind::TimeExceeded));
    assert_eq!(kind(&v6, 4, 0), Some(ErrorKind::ParameterProblem));
    assert_eq!(kind(&v6, 128, 0), None);
    assert_eq!(kind(&v6, 135, 0), None);
}

#[test]
fn the_largest_packet_of_a_super_frame_is_its_headers_and_one_segment() {
    let mut packet = Packet::tcp(
        socket("192.0.2.1:1"),
        socket("198.51.100.1:80"),
        0x10,
        &[0; 10_000],
    );
    if let Body::Tcp { options, .. } = &mut packet.body {
        options.resize(12, 1);
    }
    packet.sum = SumKind::Unfinished;
    packet.segment_size = std::num::NonZeroU16::new(1_448);
    let parsed = parse(&packet.frame()).expect("a super-frame");
    assert_eq!(parsed.largest_packet(&packet.offload()), 1_500);
    assert_eq!(parsed.largest_packet(&Offload::default()), 10_052);
    // a size beyond what there is
    packet.segment_size = std::num::NonZeroU16::new(60_000);
    assert_eq!(parsed.largest_packet(&packet.offload()), 10_052);
}
