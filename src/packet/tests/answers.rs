//! Our own packets, as their receivers read them.

use std::net::{IpAddr, SocketAddr};

use crate::{
    base::Mac,
    packet::{
        Content, ErrorKind, Offload, Parsed,
        answer::{self, IcmpReason},
        parse,
        testing::{Cut, Packet, SumKind, wrong_checksums},
    },
};

fn socket(text: &str) -> SocketAddr {
    text.parse().expect("address:port")
}

fn tcp(flags: u8, payload: &[u8]) -> Packet {
    Packet::tcp(
        socket("192.0.2.1:40000"),
        socket("198.51.100.1:80"),
        flags,
        payload,
    )
}

fn udp(payload: &[u8]) -> Packet {
    Packet::udp(socket("192.0.2.1:40000"), socket("198.51.100.1:53"), payload)
}

fn udp6(payload: &[u8]) -> Packet {
    Packet::udp(
        socket("[2001:db8::1]:40000"),
        socket("[2001:db8:1::1]:53"),
        payload,
    )
}

fn parsed(frame: &[u8]) -> Parsed {
    parse(frame).expect("a good packet")
}

fn reset(packet: &Packet) -> Option<Vec<u8>> {
    let frame = packet.frame();
    answer::reset(&frame, &parsed(&frame))
}

fn error(packet: &Packet, trouble: IcmpReason) -> Option<Vec<u8>> {
    let frame = packet.frame();
    answer::icmp_error(
        &frame,
        &parsed(&frame),
        &packet.offload(),
        packet.destination,
        trouble,
    )
}

/// Sequence number, acknowledgement number and flags of a TCP packet that carries nothing else.
fn segment(frame: &[u8]) -> (u32, u32, u8) {
    assert_eq!(wrong_checksums(frame, &Offload::default()), Vec::<&str>::new());
    let parsed = parsed(frame);
    let Content::Tcp(tcp) = parsed.content else {
        panic!("TCP: {parsed:?}");
    };
    assert_eq!(parsed.end - parsed.transport, 20);
    assert_eq!(frame.len(), parsed.end);
    let number =
        |at: usize| u32::from_be_bytes(*frame[parsed.transport + at..].first_chunk().expect("four bytes"));
    (number(4), number(8), tcp.flags.0)
}

/// The ICMP error and the IP packet it quotes.
fn quote(frame: &[u8]) -> (ErrorKind, Vec<u8>) {
    let parsed = parsed(frame);
    let Content::Error(error) = parsed.content else {
        panic!("an ICMP error: {parsed:?}");
    };
    (error.kind, frame[error.quoted.network..].to_vec())
}

#[test]
fn a_syn_is_reset_with_an_acknowledgement_of_it() {
    let answer = reset(&tcp(0x02, b"")).expect("an answer");
    assert_eq!(segment(&answer), (0, 1_001, 0x14));
    // data and FIN count too (RFC 9293 section 3.10.7.1)
    let answer = reset(&tcp(0x03, b"hello")).expect("an answer");
    assert_eq!(segment(&answer), (0, 1_007, 0x14));
}

#[test]
fn what_acknowledges_is_reset_where_it_expects_to_go_on() {
    let answer = reset(&tcp(0x18, b"hello")).expect("an answer");
    assert_eq!(segment(&answer), (5_000, 0, 0x04));
}

#[test]
fn a_reset_goes_back_the_way_the_packet_came() {
    let mut packet = tcp(0x02, b"");
    packet.tags = vec![0x88, 0xa8, 0, 5, 0x81, 0, 0, 6];
    let answer = reset(&packet).expect("an answer");
    let back = parsed(&answer);
    assert_eq!(
        (back.link_source, back.link_destination),
        (packet.link_destination, packet.link_source)
    );
    assert_eq!(back.tags.as_bytes(), packet.tags);
    let (_, source, destination) = back.tuple().expect("TCP");
    assert_eq!(source, socket("198.51.100.1:80"));
    assert_eq!(destination, socket("192.0.2.1:40000"));
}

#[test]
fn a_reset_is_never_answered_nor_is_what_was_not_sent_by_one_host_to_one() {
    assert_eq!(reset(&tcp(0x04, b"")), None);
    assert_eq!(reset(&tcp(0x14, b"")), None);
    assert_eq!(reset(&udp(b"")), None);
    let group = Packet {
        destination: "224.0.0.1".parse().unwrap(),
        ..tcp(0x02, b"")
    };
    let nobody = Packet {
        source: "0.0.0.0".parse().unwrap(),
        ..tcp(0x02, b"")
    };
    let broadcast = Packet {
        link_destination: Mac([0xff; 6]),
        ..tcp(0x02, b"")
    };
    for packet in [group, nobody, broadcast] {
        assert_eq!(reset(&packet), None, "{packet:?}");
        assert_eq!(error(&packet, IcmpReason::PortUnreachable), None, "{packet:?}");
    }
}

#[test]
fn troubles_are_told_in_the_words_of_either_family() {
    let port_unreachable = (ErrorKind::Unreachable, [(3, 3), (1, 4)]);
    let too_big = (ErrorKind::TooBig { mtu: 1_400 }, [(3, 4), (2, 0)]);
    let time_exceeded = (ErrorKind::TimeExceeded, [(11, 0), (3, 0)]);
    let troubles = [
        (IcmpReason::PortUnreachable, port_unreachable),
        (IcmpReason::TooBig { mtu: 1_400 }, too_big),
        (IcmpReason::TimeExceeded, time_exceeded),
    ];
    for (trouble, (kind, numbers)) in troubles {
        for (packet, numbers) in [udp(b"question"), udp6(b"question")].iter().zip(numbers) {
            let answer = error(packet, trouble).expect("an answer");
            assert_eq!(wrong_checksums(&answer, &Offload::default()), Vec::<&str>::new());
            let back = parsed(&answer);
            assert_eq!(
                (back.source, back.destination),
                (packet.destination, packet.source)
            );
            assert_eq!((answer[back.transport], answer[back.transport + 1]), numbers);
            assert_eq!(quote(&answer), (kind, packet.ip_packet()));
        }
    }
}

#[test]
fn a_quote_is_as_long_as_the_rfcs_allow() {
    let answer = error(&udp(&[7; 1_400]), IcmpReason::PortUnreachable).expect("an answer");
    assert_eq!(parsed(&answer).ip_len(), 576);
    let answer = error(&udp6(&[7; 1_400]), IcmpReason::PortUnreachable).expect("an answer");
    assert_eq!(parsed(&answer).ip_len(), 1_280);
}

#[test]
fn icmp_errors_and_later_fragments_are_never_answered_by_icmp() {
    let about = udp(b"question");
    let first = Packet::error(about.destination, about.source, (3, 3, 0), &about, 100);
    assert_eq!(error(&first, IcmpReason::TimeExceeded), None);
    let mut later = udp(&[7; 1_000]);
    later.fragment = Some(Cut {
        id: 1,
        offset: 800,
        len: 200,
        more: false,
    });
    assert_eq!(error(&later, IcmpReason::TimeExceeded), None);
    let mut first = udp(&[7; 1_000]);
    first.fragment = Some(Cut {
        id: 1,
        offset: 0,
        len: 800,
        more: true,
    });
    assert!(error(&first, IcmpReason::TimeExceeded).is_some());
}

#[test]
fn of_a_super_frame_the_first_packet_is_quoted_as_its_sender_sent_it() {
    for addresses in [
        ["192.0.2.1:1", "198.51.100.1:80"],
        ["[2001:db8::1]:1", "[2001:db8:1::1]:80"],
    ] {
        let [source, destination] = addresses.map(socket);
        let payload: Vec<u8> = (0..2_000_u16).map(|byte| byte as u8).collect();
        // FIN and PSH belong to the last packet
        let mut joined = Packet::tcp(source, destination, 0x19, &payload);
        joined.sum = SumKind::Unfinished;
        joined.segment_size = std::num::NonZeroU16::new(400);
        let answer = error(&joined, IcmpReason::TooBig { mtu: 300 }).expect("an answer");

        let first = Packet::tcp(source, destination, 0x10, &payload[..400]);
        assert_eq!(
            quote(&answer),
            (ErrorKind::TooBig { mtu: 300 }, first.ip_packet())
        );
        assert_eq!(wrong_checksums(&answer, &Offload::default()), Vec::<&str>::new());

        let mut datagrams = Packet::udp(source, destination, &payload);
        datagrams.sum = SumKind::Unfinished;
        datagrams.segment_size = std::num::NonZeroU16::new(400);
        let answer = error(&datagrams, IcmpReason::TooBig { mtu: 300 }).expect("an answer");
        assert_eq!(
            quote(&answer).1,
            Packet::udp(source, destination, &payload[..400]).ip_packet()
        );
    }
}

#[test]
fn an_unfinished_checksum_is_finished_in_the_quote() {
    let mut packet = udp(b"question");
    packet.sum = SumKind::Unfinished;
    let answer = error(&packet, IcmpReason::PortUnreachable).expect("an answer");
    assert_eq!(quote(&answer).1, udp(b"question").ip_packet());
}

#[test]
fn a_packet_of_another_family_than_our_address_gets_no_answer() {
    let packet = udp(b"question");
    let frame = packet.frame();
    let from: IpAddr = "2001:db8::1".parse().unwrap();
    let answer = answer::icmp_error(
        &frame,
        &parsed(&frame),
        &Offload::default(),
        from,
        IcmpReason::TimeExceeded,
    );
    assert_eq!(answer, None);
}
