//! Over random packets and random bytes.

use std::net::{IpAddr, SocketAddr};

use proptest::{prelude::*, sample::Index};

use crate::{
    base::Mac,
    packet::{
        AddressPair, Content, Frame, HEADROOM, LinkHeader, Offload, Parsed, Tags, UnfinishedChecksum,
        answer::{self, IcmpReason},
        decrement_ttl, parse, put_tags, set_link,
        testing::{Body, Cut, Packet, SumKind, wrong_checksums},
        translate, translate_error,
    },
};

fn address(is_ipv4: bool) -> BoxedStrategy<IpAddr> {
    if is_ipv4 {
        (1..224_u8, any::<[u8; 3]>())
            .prop_filter("loopback", |(a, _)| *a != 127)
            .prop_map(|(a, [b, c, d])| IpAddr::from([a, b, c, d]))
            .boxed()
    } else {
        any::<[u8; 14]>()
            .prop_map(|rest| {
                let mut bytes = [0x20; 16];
                bytes[2..].copy_from_slice(&rest);
                IpAddr::from(bytes)
            })
            .boxed()
    }
}

fn socket(is_ipv4: bool) -> BoxedStrategy<SocketAddr> {
    (address(is_ipv4), any::<u16>())
        .prop_map(|(address, port)| SocketAddr::new(address, port))
        .boxed()
}

fn ends(is_ipv4: bool) -> BoxedStrategy<AddressPair> {
    (socket(is_ipv4), socket(is_ipv4))
        .prop_map(|(source, destination)| AddressPair { source, destination })
        .boxed()
}

fn tags() -> impl Strategy<Value = Vec<u8>> {
    (0..=2_usize, any::<[u16; 2]>()).prop_map(|(count, tci)| {
        let tags = tci.iter().zip([0x88a8_u16, 0x8100]);
        (tags.take(count))
            .flat_map(|(tci, tpid)| [tpid.to_be_bytes(), tci.to_be_bytes()].concat())
            .collect()
    })
}

fn sum_kind() -> impl Strategy<Value = SumKind> {
    prop_oneof![
        Just(SumKind::Right),
        Just(SumKind::Unfinished),
        Just(SumKind::Zero)
    ]
}

/// A TCP or UDP packet of a family, with tags, options, padding and any kind of checksum.
fn packet(is_ipv4: bool) -> impl Strategy<Value = Packet> {
    let payload = proptest::collection::vec(any::<u8>(), 0..1_500);
    let parts = (
        ends(is_ipv4),
        any::<bool>(),
        any::<u8>(),
        payload,
        sum_kind(),
        tags(),
        1..=255_u8,
        0..=10_usize,
        0..40_usize,
    );
    parts.prop_map(
        |(ends, is_tcp, flags, payload, sum, tags, ttl, options, trailer)| {
            let mut packet = if is_tcp {
                Packet::tcp(ends.source, ends.destination, flags, &payload)
            } else {
                Packet::udp(ends.source, ends.destination, &payload)
            };
            // only UDP can be without
            packet.sum = if is_tcp && sum == SumKind::Zero {
                SumKind::Right
            } else {
                sum
            };
            packet.tags = tags;
            packet.ttl = ttl;
            if ends.source.is_ipv4() {
                packet.options = vec![1; options * 4];
            } else if options > 5 {
                packet.first_option = 60;
                packet.options = vec![if is_tcp { 6 } else { 17 }, 0, 1, 4, 0, 0, 0, 0];
            }
            packet.trailer = vec![0xaa; trailer];
            packet
        },
    )
}

fn either_family() -> impl Strategy<Value = (Packet, AddressPair)> {
    any::<bool>().prop_flat_map(|is_ipv4| (packet(is_ipv4), ends(is_ipv4)))
}

/// An ICMP error about a packet, and where it and the packet are to go.
fn error() -> impl Strategy<Value = (Packet, AddressPair, AddressPair)> {
    any::<bool>().prop_flat_map(|is_ipv4| {
        let parts = (
            packet(is_ipv4),
            ends(is_ipv4),
            ends(is_ipv4),
            ends(is_ipv4),
            any::<Index>(),
        );
        parts.prop_map(move |(about, from_to, to, inner, len)| {
            let headers = about.ip_packet().len() - payload_len(&about);
            // 8 bytes of the transport header at least
            let needed = headers
                - if matches!(about.body, Body::Tcp { .. }) {
                    12
                } else {
                    0
                };
            let quoted = needed + len.index(1_200);
            let header = if is_ipv4 { (3, 4, 1_400) } else { (2, 0, 1_400) };
            let (source, destination) = (from_to.source.ip(), from_to.destination.ip());
            let mut error = Packet::error(source, destination, header, &about, quoted);
            error.tags.clone_from(&about.tags);
            (error, to, inner)
        })
    })
}

fn payload_len(packet: &Packet) -> usize {
    match &packet.body {
        Body::Tcp { payload, .. } | Body::Udp { payload, .. } | Body::Icmp { payload, .. } => payload.len(),
        Body::Other { .. } => 0,
    }
}

/// A buffer with headroom, and its length.
fn buffer(bytes: &[u8]) -> (Vec<u8>, usize) {
    ([&[0; HEADROOM], bytes].concat(), bytes.len())
}

fn own_ends(parsed: &Parsed) -> AddressPair {
    let (_, source, destination) = parsed.tuple().expect("TCP or UDP");
    AddressPair { source, destination }
}

const LINK: LinkHeader = LinkHeader {
    ifindex: 3,
    source: Mac([2, 0, 0, 0, 0, 8]),
    destination: Mac([2, 0, 0, 0, 0, 9]),
};

/// Does everything that can be done with a frame. Returns the answers to it.
fn exercise(frame: &mut Frame<'_>, parsed: &Parsed, to: &AddressPair) -> Vec<Vec<u8>> {
    let offload = frame.offload;
    let bytes = frame.bytes().to_vec();
    let answers = [
        answer::reset(&bytes, parsed),
        answer::icmp_error(
            &bytes,
            parsed,
            &offload,
            to.source.ip(),
            IcmpReason::PortUnreachable,
        ),
        answer::icmp_error(
            &bytes,
            parsed,
            &offload,
            to.source.ip(),
            IcmpReason::TooBig { mtu: 1_280 },
        ),
        answer::icmp_error(&bytes, parsed, &offload, to.source.ip(), IcmpReason::TimeExceeded),
    ];
    let _ = (
        parsed.largest_packet(&offload),
        parsed.tuple(),
        parsed.is_unicast(),
    );
    let _ = translate(frame, parsed, to);
    let _ = translate_error(frame, parsed, to.source.ip(), to.destination.ip(), to);
    let _ = decrement_ttl(frame, parsed);
    set_link(frame, &LINK);
    let mut parsed = *parsed;
    let tags = Tags::new(&[0x81, 0, 0, 5]).expect("one tag");
    let _ = put_tags(frame, &mut parsed, &tags);
    let _ = put_tags(frame, &mut parsed, &Tags::default());
    let _ = translate(frame, &parsed, to);
    answers.into_iter().flatten().collect()
}

/// What is wrong with the headers of our own answers: nothing, whatever they quote.
fn wrong_answers(answers: &[Vec<u8>]) -> Vec<&'static str> {
    let wrong = answers
        .iter()
        .flat_map(|answer| wrong_checksums(answer, &Offload::default()));
    wrong.filter(|wrong| !wrong.starts_with("inner")).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_anything_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        ether_type in prop_oneof![Just(0x0800_u16), Just(0x86dd), Just(0x8100), any::<u16>()],
        first in any::<u8>(),
        to in any::<bool>().prop_flat_map(ends),
        start in any::<u16>(),
    ) {
        let mut bytes = bytes;
        if bytes.len() > 15 {
            bytes[12..14].copy_from_slice(&ether_type.to_be_bytes());
            bytes[14] = match ether_type { 0x0800 => 0x40 | (first & 0xf), 0x86dd => 0x60, _ => first };
        }
        let offload = Offload {
            checksum: Some(UnfinishedChecksum { start, offset: 16 }),
            segments: None,
        };
        let (mut buffer, len) = buffer(&bytes);
        let mut frame = Frame::new(&mut buffer, HEADROOM, len, offload).expect("it fits");
        if let Ok(parsed) = parse(frame.bytes()) {
            let answers = exercise(&mut frame, &parsed, &to);
            prop_assert_eq!(wrong_answers(&answers), Vec::<&str>::new());
        }
    }

    #[test]
    fn no_damaged_packet_makes_anything_panic(
        (packet, to) in either_family(),
        (error, _, inner) in error(),
        is_error in any::<bool>(),
        damage in proptest::collection::vec((any::<Index>(), any::<u8>()), 0..4),
        cut in any::<Index>(),
        does_cut in any::<bool>(),
        fix in any::<bool>(),
    ) {
        let packet = if is_error { error } else { packet };
        let to = if is_error { inner } else { to };
        let mut bytes = packet.frame();
        for (place, value) in damage {
            // most of it where the headers are
            let place = place.index(bytes.len().min(100));
            bytes[place] = value;
        }
        if does_cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let network = 14 + packet.tags.len();
        if fix && packet.source.is_ipv4() && bytes.len() > network + 20 {
            // damage that the header's checksum does not give away
            let header_len = (usize::from(bytes[network] & 0xf) * 4).clamp(20, bytes.len() - network);
            bytes[network + 10..network + 12].fill(0);
            let sum = crate::packet::checksum::checksum(&bytes[network..network + header_len]);
            bytes[network + 10..network + 12].copy_from_slice(&sum.to_be_bytes());
        }
        let (mut buffer, len) = buffer(&bytes);
        let mut frame = Frame::new(&mut buffer, HEADROOM, len, packet.offload()).expect("it fits");
        if let Ok(parsed) = parse(frame.bytes()) {
            let answers = exercise(&mut frame, &parsed, &to);
            prop_assert_eq!(wrong_answers(&answers), Vec::<&str>::new());
        }
    }

    #[test]
    fn what_was_parsed_of_one_frame_does_not_make_another_panic(
        (one, to) in either_family(),
        (other, _, _) in error(),
        cut in 0..60_usize,
    ) {
        for (of, written) in [(&one, &other), (&other, &one)] {
            let parsed = parse(&of.frame()).expect("a good packet");
            let mut bytes = written.frame();
            bytes.truncate(cut.max(1));
            let (mut buffer, len) = buffer(&bytes);
            let mut frame = Frame::new(&mut buffer, HEADROOM, len, of.offload()).expect("it fits");
            exercise(&mut frame, &parsed, &to);
        }
    }

    #[test]
    fn a_rewritten_packet_has_the_new_ends_right_checksums_and_nothing_else_new((packet, to) in either_family()) {
        let (mut buffer, len) = buffer(&packet.frame());
        let mut frame = Frame::new(&mut buffer, HEADROOM, len, packet.offload()).expect("it fits");
        let parsed = parse(frame.bytes()).expect("a good packet");
        translate(&mut frame, &parsed, &to).expect("it fits");
        decrement_ttl(&mut frame, &parsed).expect("it fits");
        set_link(&mut frame, &LINK);

        let mut expected = packet.clone();
        expected.source = to.source.ip();
        expected.destination = to.destination.ip();
        expected.ttl -= 1;
        expected.link_source = LINK.source;
        expected.link_destination = LINK.destination;
        match &mut expected.body {
            Body::Tcp { source, destination, .. } | Body::Udp { source, destination, .. } => {
                *source = to.source.port();
                *destination = to.destination.port();
            }
            _ => unreachable!("TCP or UDP"),
        }
        prop_assert_eq!(wrong_checksums(frame.bytes(), &frame.offload), Vec::<&str>::new());
        prop_assert_eq!(frame.bytes(), expected.frame());
    }

    #[test]
    fn a_packet_rewritten_back_is_what_it_was((packet, to) in either_family()) {
        let before = packet.frame();
        let (mut buffer, len) = buffer(&before);
        let mut frame = Frame::new(&mut buffer, HEADROOM, len, packet.offload()).expect("it fits");
        let parsed = parse(frame.bytes()).expect("a good packet");
        translate(&mut frame, &parsed, &to).expect("it fits");
        let there = parse(frame.bytes()).expect("still a good packet");
        prop_assert_eq!(own_ends(&there), to);
        translate(&mut frame, &there, &own_ends(&parsed)).expect("it fits");
        prop_assert_eq!(frame.bytes(), before);
    }

    #[test]
    fn a_wrong_checksum_stays_as_wrong_as_it_was((mut packet, to) in either_family()) {
        packet.sum = SumKind::Wrong;
        let (mut buffer, len) = buffer(&packet.frame());
        let mut frame = Frame::new(&mut buffer, HEADROOM, len, Offload::default()).expect("it fits");
        let parsed = parse(frame.bytes()).expect("a good header");
        prop_assume!(!wrong_checksums(frame.bytes(), &frame.offload).is_empty());
        translate(&mut frame, &parsed, &to).expect("it fits");
        prop_assert_eq!(wrong_checksums(frame.bytes(), &frame.offload), ["transport"]);
    }

    #[test]
    fn every_fragment_of_a_rewritten_datagram_fits_the_others((mut packet, to) in either_family(), at in any::<Index>()) {
        packet.sum = if packet.sum == SumKind::Unfinished { SumKind::Right } else { packet.sum };
        if packet.source.is_ipv6() {
            packet.options.clear();
        }
        let mut whole = packet.clone();
        whole.source = to.source.ip();
        whole.destination = to.destination.ip();
        let len = u16::try_from(packet.ip_packet().len()).expect("a short packet");
        // behind the TCP header and its flags
        let first = 24 + u16::try_from(at.index(100)).expect("small") * 8;
        prop_assume!(first < payload_len(&packet) as u16);
        match &mut whole.body {
            Body::Tcp { source, destination, .. } | Body::Udp { source, destination, .. } => {
                *source = to.source.port();
                *destination = to.destination.port();
            }
            _ => unreachable!("TCP or UDP"),
        }
        let cuts = [
            Cut { id: 7, offset: 0, len: first, more: true },
            Cut { id: 7, offset: first, len, more: false },
        ];
        for cut in cuts {
            packet.fragment = Some(cut);
            whole.fragment = Some(cut);
            let (mut buffer, len) = buffer(&packet.frame());
            let mut frame = Frame::new(&mut buffer, HEADROOM, len, Offload::default()).expect("it fits");
            let parsed = parse(frame.bytes()).expect("a good fragment");
            prop_assert_eq!(parsed.fragment.map(|f| (f.id, f.offset, f.more)), Some((7, cut.offset, cut.more)));
            translate(&mut frame, &parsed, &to).expect("it fits");
            prop_assert_eq!(frame.bytes(), whole.frame());
        }
    }

    #[test]
    fn an_icmp_error_is_rewritten_outside_and_inside_and_back((packet, to, inner) in error()) {
        let before = packet.frame();
        let wrong_before = wrong_checksums(&before, &Offload::default());
        let (mut buffer, len) = buffer(&before);
        let mut frame = Frame::new(&mut buffer, HEADROOM, len, Offload::default()).expect("it fits");
        let parsed = parse(frame.bytes()).expect("a good packet");
        let Content::Error(error) = parsed.content else { panic!("an error: {parsed:?}") };
        translate_error(&mut frame, &parsed, to.source.ip(), to.destination.ip(), &inner).expect("it fits");

        // what a host left unfinished inside the quote is nobody's to finish
        prop_assert_eq!(wrong_checksums(frame.bytes(), &frame.offload), wrong_before);
        let there = parse(frame.bytes()).expect("still a good packet");
        let Content::Error(changed) = there.content else { panic!("an error: {there:?}") };
        prop_assert_eq!((there.source, there.destination), (to.source.ip(), to.destination.ip()));
        prop_assert_eq!(changed.quoted.sockets(), (inner.source, inner.destination));

        let (source, destination) = error.quoted.sockets();
        let back = AddressPair { source, destination };
        translate_error(&mut frame, &there, parsed.source, parsed.destination, &back).expect("it fits");
        prop_assert_eq!(frame.bytes(), before);
    }

    #[test]
    fn tags_are_taken_out_and_put_back_with_everything_else_in_place((packet, _) in either_family(), other in tags()) {
        let (mut buffer, len) = buffer(&packet.frame());
        let mut frame = Frame::new(&mut buffer, HEADROOM, len, packet.offload()).expect("it fits");
        let mut parsed = parse(frame.bytes()).expect("a good packet");
        let own = parsed.tags;
        prop_assert_eq!(own.as_bytes(), &packet.tags);
        for tags in [Vec::new(), other, packet.tags.clone()] {
            let tags = Tags::new(&tags).expect("two tags at most");
            put_tags(&mut frame, &mut parsed, &tags).expect("there is room");
            let mut expected = packet.clone();
            expected.tags = tags.as_bytes().to_vec();
            prop_assert_eq!(frame.bytes(), expected.frame());
            prop_assert_eq!(frame.offload, expected.offload());
            prop_assert_eq!(parse(frame.bytes()), Ok(parsed));
        }
    }
}
