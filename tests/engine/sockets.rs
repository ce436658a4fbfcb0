//! What goes through the sockets, and what does not.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU16,
    os::fd::AsFd,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use convey::{
    base::{Endpoint, Protocol},
    engine::raw::socket,
    packet::{Offload, SegmentKind, Segments, UnfinishedChecksum},
};

use crate::{
    Test,
    lab::{PATIENCE, wait_until},
    wire::{Reader, Wire, another_service, drops, ip4, service, sum, udp},
};

pub const TESTS: &[Test] = crate::tests![
    a_super_frame_with_an_unfinished_checksum_passes_intact,
    a_super_frame_of_udp_passes_intact,
    a_super_frame_too_large_for_the_interface_is_cut_up_by_the_kernel,
    vlan_tags_survive,
    what_this_host_sends_does_not_come_back,
    only_what_is_served_is_received,
    a_filter_changed_under_load_loses_and_doubles_nothing,
    the_sockets_of_an_interface_see_whole_flows,
    many_services_get_a_filter_that_the_kernel_takes,
    sending_to_an_interface_that_is_not_there_is_told_of,
];

/// A frame of TCP to port 80 that stands for many, its checksum unfinished.
fn super_frame(wire: &Wire, payload: usize) -> (Vec<u8>, Offload) {
    let mut tcp = Vec::new();
    tcp.extend(40_000_u16.to_be_bytes());
    tcp.extend(80_u16.to_be_bytes());
    tcp.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x18, 0xfa, 0xf0, 0, 0, 0, 0]);
    tcp.extend((0..payload).map(|n| (n % 251) as u8));
    let pseudo = [192, 0, 2, 2, 192, 0, 2, 1, 0, 6];
    let checksum = sum(u16::try_from(tcp.len()).expect("fits"), &pseudo);
    tcp[16..18].copy_from_slice(&checksum.to_be_bytes());
    let frame = [wire.addresses(), vec![8, 0], ip4(6, &tcp)].concat();
    let offload = Offload {
        checksum: Some(UnfinishedChecksum {
            start: 34,
            offset: 16,
        }),
        segments: Some(Segments {
            kind: SegmentKind::Tcp4,
            size: NonZeroU16::new(1_400).expect("fits"),
            header_len: 94,
            ecn: false,
        }),
    };
    (frame, offload)
}

/// What matters of an offload: the hint is the kernel's.
fn without_hint(mut offload: Offload) -> Offload {
    if let Some(segments) = &mut offload.segments {
        segments.header_len = 0;
    }
    offload
}

fn a_super_frame_with_an_unfinished_checksum_passes_intact() {
    let wire = Wire::new("super");
    let (out, into) = (wire.speak(), wire.listen(&[service(Protocol::Tcp, 80)]));
    for payload in [3_000, 20_000, 65_000] {
        let (frame, offload) = super_frame(&wire, payload);
        wire.send(&out, &frame, offload);
        let seen = Reader::new().next(&into, 1).remove(0);
        assert!(seen.bytes == frame, "{payload} bytes of payload have changed");
        assert_eq!(without_hint(seen.offload), without_hint(offload));
    }
}

fn a_super_frame_of_udp_passes_intact() {
    let wire = Wire::new("super-udp");
    let (out, into) = (wire.speak(), wire.listen(&[service(Protocol::Udp, 53)]));
    let mut datagrams = udp(40_000, 53, &vec![5; 10_000]);
    let pseudo = [192, 0, 2, 2, 192, 0, 2, 1, 0, 17];
    let checksum = sum(u16::try_from(datagrams.len()).expect("fits"), &pseudo);
    datagrams[6..8].copy_from_slice(&checksum.to_be_bytes());
    let frame = [wire.addresses(), vec![8, 0], ip4(17, &datagrams)].concat();
    let offload = Offload {
        checksum: Some(UnfinishedChecksum { start: 34, offset: 6 }),
        segments: Some(Segments {
            kind: SegmentKind::Udp,
            size: NonZeroU16::new(1_000).expect("fits"),
            header_len: 42,
            ecn: false,
        }),
    };
    wire.send(&out, &frame, offload);
    let seen = Reader::new().next(&into, 1).remove(0);
    assert!(seen.bytes == frame, "the super-frame has changed");
    assert_eq!(without_hint(seen.offload), without_hint(offload));
}

fn a_super_frame_too_large_for_the_interface_is_cut_up_by_the_kernel() {
    let wire = Wire::new("segments");
    // as a card without segmentation offload
    wire.sender.run("ip link set cable gso_max_size 1500");
    let (out, into) = (wire.speak(), wire.listen(&[service(Protocol::Tcp, 80)]));
    let (frame, offload) = super_frame(&wire, 4_200);
    wire.send(&out, &frame, offload);
    for segment in Reader::new().next(&into, 3) {
        assert_eq!(
            (segment.bytes.len(), segment.offload.segments),
            (54 + 1_400, None)
        );
        let tcp = &segment.bytes[34..];
        let pseudo = sum(
            u16::try_from(tcp.len()).expect("fits"),
            &[192, 0, 2, 2, 192, 0, 2, 1, 0, 6],
        );
        match segment.offload.checksum {
            None => assert_eq!(sum(pseudo, tcp), 0xffff, "the checksum is right"),
            Some(_) => assert_eq!(
                tcp[16..18],
                pseudo.to_be_bytes(),
                "and if unfinished, rightly begun"
            ),
        }
    }
}

fn vlan_tags_survive() {
    let wire = Wire::new("tags");
    let (out, into) = (wire.speak(), wire.listen(&[service(Protocol::Udp, 53)]));
    let mut reader = Reader::new();
    let packet = [vec![8, 0], ip4(17, &udp(40_000, 53, b"tagged"))].concat();
    for tags in [
        vec![],
        vec![0x81, 0x00, 0x60, 0x2a],
        vec![0x88, 0xa8, 0x00, 0x07, 0x81, 0x00, 0x00, 0x2a],
    ] {
        let frame = [wire.addresses(), tags, packet.clone()].concat();
        wire.send(&out, &frame, Offload::default());
        let seen = reader.next(&into, 1).remove(0);
        assert_eq!(seen.bytes, frame);
    }
    let (frame, offload) = super_frame(&wire, 20_000);
    let tagged = [&frame[..12], &[0x81, 0x00, 0x00, 0x2a], &frame[12..]].concat();
    let mut shifted = offload;
    shifted.checksum = Some(UnfinishedChecksum {
        start: 38,
        offset: 16,
    });
    let into = {
        socket::refilter(into.as_fd(), &[service(Protocol::Tcp, 80)]).expect("another filter");
        into
    };
    wire.send(&out, &tagged, shifted);
    let seen = reader.next(&into, 1).remove(0);
    assert!(seen.bytes == tagged, "a tagged super-frame has changed");
    assert_eq!(without_hint(seen.offload), without_hint(shifted));
}

fn what_this_host_sends_does_not_come_back() {
    let wire = Wire::new("own");
    let services = [service(Protocol::Udp, 53)];
    let (own, into) = (wire.speak(), wire.listen(&services));
    socket::refilter(own.as_fd(), &services).expect("a filter that would admit the frames");
    let frame = [wire.addresses(), vec![8, 0], ip4(17, &udp(40_000, 53, b"own"))].concat();
    wire.send(&own, &frame, Offload::default());
    wire.udp().send_to(b"the kernel's", "192.0.2.1:53").expect("send");
    let mut reader = Reader::new();
    reader.next(&into, 2);
    // both have arrived on the other side; what comes back from there is the first that this one sees
    let mut addresses = wire.addresses();
    addresses.rotate_left(6);
    let back = [addresses, vec![8, 0], ip4(17, &udp(40_000, 53, b"from there"))].concat();
    wire.send_back(&into, &back);
    assert_eq!(reader.next(&own, 1)[0].bytes, back);
}

fn only_what_is_served_is_received() {
    let wire = Wire::new("served");
    let into = wire.listen(&[service(Protocol::Udp, 53)]);
    let sender = wire.udp();
    let mut reader = Reader::new();
    sender.send_to(b"refused", "192.0.2.1:54").expect("send");
    sender.send_to(b"served", "192.0.2.1:53").expect("send");
    assert!(reader.next(&into, 1)[0].bytes.ends_with(b"served"));
    socket::refilter(into.as_fd(), &[]).expect("another filter");
    sender.send_to(b"no longer", "192.0.2.1:53").expect("send");
    socket::refilter(into.as_fd(), &[service(Protocol::Udp, 53)]).expect("the first filter");
    sender.send_to(b"again", "192.0.2.1:53").expect("send");
    assert!(reader.next(&into, 1)[0].bytes.ends_with(b"again"));
}

fn a_filter_changed_under_load_loses_and_doubles_nothing() {
    const PACKETS: u64 = 100_000;
    let wire = Wire::new("refilter");
    let one = [service(Protocol::Udp, 53)];
    let both = [another_service(), service(Protocol::Udp, 53)];
    let sockets = [wire.listen(&one), wire.listen(&one)];
    let sender = wire.udp();
    let (sent, received, changes) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let (is_sent, done) = (AtomicBool::new(false), AtomicBool::new(false));
    let mut numbers: BTreeMap<u64, u32> = BTreeMap::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // the filters are changed meanwhile
            for number in
                (0..).take_while(|number| *number < PACKETS || changes.load(Ordering::Relaxed) <= 20)
            {
                sender
                    .send_to(&u64::to_be_bytes(number), "192.0.2.1:53")
                    .expect("send");
                sent.store(number + 1, Ordering::Relaxed);
                // no more on the way than the sockets hold
                while number.saturating_sub(received.load(Ordering::Relaxed)) > 1_000
                    && !done.load(Ordering::Relaxed)
                {
                    std::thread::yield_now();
                }
            }
            is_sent.store(true, Ordering::Release);
        });
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for services in [&both[..], &one[..]] {
                    for socket in &sockets {
                        socket::refilter(socket.as_fd(), services).expect("another filter");
                    }
                    changes.fetch_add(1, Ordering::Relaxed);
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let (mut reader, start) = (Reader::new(), Instant::now());
        let is_all = || {
            is_sent.load(Ordering::Acquire)
                && received.load(Ordering::Relaxed) >= sent.load(Ordering::Relaxed)
        };
        while !is_all() && start.elapsed() < PATIENCE {
            for socket in &sockets {
                for frame in reader.waiting(socket) {
                    let bytes = frame.expect("a sound frame").bytes;
                    let number = bytes.last_chunk().expect("a number");
                    *numbers.entry(u64::from_be_bytes(*number)).or_default() += 1;
                    received.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(
        sockets.iter().map(drops).sum::<u32>(),
        0,
        "the sockets were too small for the test"
    );
    assert_eq!(numbers.len() as u64, sent.into_inner(), "lost");
    assert!(numbers.values().all(|count| *count == 1), "doubled");
}

fn the_sockets_of_an_interface_see_whole_flows() {
    let wire = Wire::new("flows");
    let services = [service(Protocol::Udp, 53)];
    let sockets = [wire.listen(&services), wire.listen(&services)];
    let clients: Vec<_> = (0..40).map(|_| wire.udp()).collect();
    for packet in 0..10_u8 {
        for client in &clients {
            client.send_to(&[packet], "192.0.2.1:53").expect("send");
        }
    }
    let mut reader = Reader::new();
    let mut flows: BTreeMap<Vec<u8>, BTreeSet<usize>> = BTreeMap::new();
    // a flow's packets come in their order: the last one shows that there were no others
    let mut packets: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    wait_until("every flow's last packet", PATIENCE, || {
        for (index, socket) in sockets.iter().enumerate() {
            for frame in reader.waiting(socket) {
                let bytes = frame.expect("a sound frame").bytes;
                let source = bytes[26..36].to_vec();
                flows.entry(source.clone()).or_default().insert(index);
                packets.entry(source).or_default().push(bytes[42]);
            }
        }
        packets.len() == 40 && packets.values().all(|flow| flow.contains(&9))
    });
    let each_once: Vec<u8> = (0..10).collect();
    assert!(packets.values().all(|flow| *flow == each_once), "{packets:?}");
    assert!(
        flows.values().all(|sockets| sockets.len() == 1),
        "a flow was split: {flows:?}"
    );
    let both: BTreeSet<_> = flows.values().flatten().collect();
    assert_eq!(both.len(), 2, "both sockets have their share");
}

fn many_services_get_a_filter_that_the_kernel_takes() {
    let wire = Wire::new("many");
    let into = wire.listen(&[]);
    let sender = wire.udp();
    let mut reader = Reader::new();
    for count in [1, 50, 200, 1_000, 10_000] {
        let mut services = vec![service(Protocol::Udp, 53)];
        services.extend((1..count).map(|n: u32| {
            let mut other = another_service();
            let ip = std::net::Ipv4Addr::from_bits(0xcb00_0000 + n * 7);
            other.vip = Endpoint::tcp((ip, 443).into()).into();
            other
        }));
        socket::refilter(into.as_fd(), &services).unwrap_or_else(|error| panic!("{count} services: {error}"));
        sender.send_to(b"refused", "192.0.2.1:54").expect("send");
        sender.send_to(b"served", "192.0.2.1:53").expect("send");
        assert!(reader.next(&into, 1)[0].bytes.ends_with(b"served"));
    }
}

fn sending_to_an_interface_that_is_not_there_is_told_of() {
    let wire = Wire::new("nowhere");
    let out = wire.speak();
    let frame = [wire.addresses(), vec![8, 0], ip4(17, &udp(1, 53, b"lost"))].concat();
    let frames = [9_999, wire.out, 9_999].map(|ifindex| convey::sys::packet_socket::Outgoing {
        ifindex,
        frame: &frame,
        offload: Offload::default(),
    });
    let into = wire.listen(&[service(Protocol::Udp, 53)]);
    let mut refused = Vec::new();
    convey::sys::packet_socket::Sender::new(2)
        .send(out.as_fd(), frames, |index, error| refused.push((index, error)));
    let gone = nix::errno::Errno::ENXIO;
    assert_eq!(refused, [(0, gone), (2, gone)]);
    assert_eq!(
        Reader::new().next(&into, 1).len(),
        1,
        "the one between them is sent"
    );
}
