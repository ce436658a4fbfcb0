//! The programs, run by an interpreter of classic BPF; `tests/engine` runs them in the kernel.

mod ranges;

use std::net::{IpAddr, SocketAddr};

use super::*;
use crate::base::EndpointRange;

/// How the kernel classifies a frame (linux/if_packet.h).
const FOR_US: u32 = 0;
const FOR_ANOTHER_HOST: u32 = 3;
const SENT_BY_US: u32 = 4;

/// Runs a program as the kernel would: whether it admits the frame. A load beyond the frame's end refuses it.
fn admits(program: &[Instruction], frame: &[u8], packet_type: u32) -> bool {
    run(program, frame, packet_type).unwrap_or(0) > 0
}

fn run(program: &[Instruction], frame: &[u8], packet_type: u32) -> Option<u32> {
    let (mut a, mut x, mut memory, mut at) = (0_u32, 0_u32, [0_u32; 16], 0_usize);
    let load = |offset: u32, size: usize| -> Option<u32> {
        let start = usize::try_from(offset).ok()?;
        let bytes = frame.get(start..start.checked_add(size)?)?;
        Some(bytes.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte)))
    };
    loop {
        let op = program[at];
        at += 1;
        let k = op.operand;
        let mut branch = |taken: bool| at += usize::from(if taken { op.jump_true } else { op.jump_false });
        match op.code {
            0x28 if k == 0xffff_f004 => a = packet_type,
            0x28 => a = load(k, 2)?,
            0x40 => a = load(x + k, 4)?,
            0x48 => a = load(x + k, 2)?,
            0x50 => a = load(x + k, 1)?,
            0x60 => a = memory[k as usize],
            0x00 => a = k,
            0x01 => x = k,
            0x61 => x = memory[k as usize],
            0x02 => memory[k as usize] = a,
            0x03 => memory[k as usize] = x,
            0x04 => a += k,
            0x0c => a += x,
            0x54 => a &= k,
            0x64 => a <<= k,
            0x05 => at += k as usize,
            0x15 => branch(a == k),
            0x25 => branch(a > k),
            0x35 => branch(a >= k),
            0x45 => branch(a & k != 0),
            0x06 => return Some(k),
            0x07 => x = a,
            0x87 => a = x,
            code => panic!("an operation that the programs do not use: {code:#x}"),
        }
    }
}

/// A packet to be looked at, changed where a test says so.
#[derive(Clone)]
struct Packet {
    tags: Vec<u16>,
    protocol: u8,
    source: SocketAddr,
    destination: SocketAddr,
    /// IPv4 options, in bytes.
    options: usize,
    /// IPv6 extension headers: their numbers, each 16 bytes long but the fragment header.
    extensions: Vec<u8>,
    /// In units of 8 bytes.
    fragment_offset: u16,
    /// First byte of the transport header, if not the port.
    icmp_type: Option<u8>,
}

impl Packet {
    fn new(protocol: u8, source: &str, destination: &str) -> Self {
        Self {
            tags: Vec::new(),
            protocol,
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            options: 0,
            extensions: Vec::new(),
            fragment_offset: 0,
            icmp_type: None,
        }
    }

    fn tcp(source: &str, destination: &str) -> Self {
        Self::new(6, source, destination)
    }

    fn udp(source: &str, destination: &str) -> Self {
        Self::new(17, source, destination)
    }

    fn icmp(kind: u8, source: &str, destination: &str) -> Self {
        let protocol = if source.starts_with('[') { 58 } else { 1 };
        Self {
            icmp_type: Some(kind),
            ..Self::new(protocol, source, destination)
        }
    }

    /// A fragment behind the first: no ports, but bytes that look like those of the VIP.
    fn later_fragment(self) -> Self {
        Self {
            fragment_offset: 185,
            extensions: if self.source.is_ipv6() {
                vec![44]
            } else {
                Vec::new()
            },
            ..self
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut frame = vec![2; 12];
        for tag in &self.tags {
            frame.extend([tag.to_be_bytes(), [0, 7]].concat());
        }
        let mut transport = [
            self.source.port().to_be_bytes(),
            self.destination.port().to_be_bytes(),
        ]
        .concat();
        if let Some(kind) = self.icmp_type {
            transport[0] = kind;
        }
        transport.extend([0; 16]);
        match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                frame.extend([0x08, 0x00, 0x45 + (self.options / 4) as u8, 0, 0, 40, 0, 1]);
                frame.extend(self.fragment_offset.to_be_bytes());
                frame.extend([64, self.protocol, 0, 0]);
                frame.extend(source.octets());
                frame.extend(destination.octets());
                frame.extend(vec![1; self.options]);
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let chain = [self.extensions.as_slice(), &[self.protocol]].concat();
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, chain[0], 64]);
                frame.extend(source.octets());
                frame.extend(destination.octets());
                for (extension, next) in chain.iter().zip(&chain[1..]) {
                    if *extension == 44 {
                        frame.extend([*next, 0]);
                        frame.extend((self.fragment_offset << 3).to_be_bytes());
                        frame.extend([0; 4]);
                    } else {
                        frame.extend([*next, 1]);
                        frame.extend([0; 14]);
                    }
                }
            }
            _ => unreachable!("one family"),
        }
        frame.extend(transport);
        frame
    }
}

fn service(protocol: Protocol, vip: &str, nat_ports: Option<PortRanges>, servers: &[&str]) -> PacketService {
    PacketService {
        vip: EndpointRange {
            listen: vip.parse().unwrap(),
            protocol,
        },
        nat_ports,
        servers: servers.iter().map(|addr| addr.parse().unwrap()).collect(),
    }
}

fn passthrough() -> Vec<PacketService> {
    let nat = "61000-65535".parse().ok();
    vec![
        service(
            Protocol::Tcp,
            "192.0.2.1:80",
            nat,
            &["10.0.0.1:8080", "10.0.0.2:8080"],
        ),
        service(Protocol::Udp, "192.0.2.1:53", nat, &["10.0.0.1:5353"]),
        service(Protocol::Tcp, "[2001:db8::1]:80", nat, &["[fd00::1]:8080"]),
    ]
}

fn dsr() -> Vec<PacketService> {
    vec![
        service(Protocol::Tcp, "192.0.2.1:80", None, &["10.0.0.1:80"]),
        service(Protocol::Udp, "[2001:db8::1]:53", None, &["[fd00::1]:53"]),
    ]
}

#[track_caller]
fn check(services: &[PacketService], cases: &[(bool, &str, Packet)]) {
    let program = program(services, Precision::Exact).unwrap();
    for (expected, what, packet) in cases {
        assert_eq!(admits(&program, &packet.bytes(), FOR_US), *expected, "{what}");
    }
}

#[test]
fn a_vip_takes_its_ports_of_its_protocol_and_nothing_else() {
    let (client, client6) = ("198.51.100.7:50000", "[2001:db8:f::7]:50000");
    check(
        &passthrough(),
        &[
            (true, "TCP to the VIP", Packet::tcp(client, "192.0.2.1:80")),
            (true, "UDP to the VIP", Packet::udp(client, "192.0.2.1:53")),
            (true, "IPv6 to the VIP", Packet::tcp(client6, "[2001:db8::1]:80")),
            (false, "another port", Packet::tcp(client, "192.0.2.1:81")),
            (false, "another protocol", Packet::udp(client, "192.0.2.1:80")),
            (false, "another address", Packet::tcp(client, "192.0.2.2:80")),
            (
                false,
                "another IPv6 address with the same end",
                Packet::tcp(client6, "[2001:db8:1::1]:80"),
            ),
            (false, "another family", Packet::udp(client6, "[2001:db8::1]:53")),
            (false, "SCTP", Packet::new(132, client, "192.0.2.1:80")),
        ],
    );
}

#[test]
fn in_passthrough_servers_are_heard_only_from_their_port_and_only_towards_nat_ports() {
    check(
        &passthrough(),
        &[
            (true, "an answer", Packet::tcp("10.0.0.2:8080", "192.0.2.9:61000")),
            (
                true,
                "an answer to the last NAT port",
                Packet::tcp("10.0.0.2:8080", "192.0.2.9:65535"),
            ),
            (
                true,
                "an answer over IPv6",
                Packet::tcp("[fd00::1]:8080", "[2001:db8::9]:62000"),
            ),
            (
                true,
                "an answer over UDP",
                Packet::udp("10.0.0.1:5353", "192.0.2.9:62000"),
            ),
            (
                false,
                "to a port of this host's own",
                Packet::tcp("10.0.0.2:8080", "192.0.2.9:60999"),
            ),
            (
                false,
                "from another port",
                Packet::tcp("10.0.0.2:22", "192.0.2.9:62000"),
            ),
            (
                false,
                "of another protocol",
                Packet::udp("10.0.0.2:8080", "192.0.2.9:62000"),
            ),
            (
                false,
                "from somebody else",
                Packet::tcp("10.0.0.3:8080", "192.0.2.9:62000"),
            ),
        ],
    );
    check(
        &dsr(),
        &[(
            false,
            "an answer in DSR",
            Packet::tcp("10.0.0.1:80", "192.0.2.1:61000"),
        )],
    );
}

#[test]
fn later_fragments_are_judged_by_their_addresses() {
    let (client, client6) = ("198.51.100.7:1", "[2001:db8:f::7]:1");
    let to_vip = Packet::udp(client, "192.0.2.1:9").later_fragment();
    let from_server = Packet::udp("10.0.0.1:9", "192.0.2.9:9").later_fragment();
    check(
        &passthrough(),
        &[
            (true, "to a VIP", to_vip.clone()),
            (
                true,
                "to a VIP over IPv6",
                Packet::tcp(client6, "[2001:db8::1]:9").later_fragment(),
            ),
            (true, "from a server", from_server.clone()),
            (
                true,
                "from a server over IPv6",
                Packet::tcp("[fd00::1]:9", "[2001:db8::9]:9").later_fragment(),
            ),
            (
                false,
                "of a ping to a VIP",
                Packet::icmp(0, client, "192.0.2.1:9").later_fragment(),
            ),
            (
                false,
                "of somebody else's",
                Packet::udp(client, "192.0.2.9:80").later_fragment(),
            ),
        ],
    );
    check(
        &dsr(),
        &[(true, "to a VIP", to_vip), (false, "from a server", from_server)],
    );
    let first6 = Packet {
        extensions: vec![44],
        ..Packet::tcp(client6, "[2001:db8::1]:80")
    };
    let first6_elsewhere = Packet {
        extensions: vec![44],
        ..Packet::tcp(client6, "[2001:db8::1]:81")
    };
    check(
        &passthrough(),
        &[
            (true, "a first fragment, by its ports", first6),
            (false, "a first fragment to another port", first6_elsewhere),
        ],
    );
}

#[test]
fn icmp_errors_come_in_but_pings_and_neighbour_discovery_do_not() {
    let (router, router6) = ("203.0.113.1:0", "[2001:db8:e::1]:0");
    let mut cases = Vec::new();
    for kind in [3, 11, 12] {
        cases.push((
            true,
            "an error to a VIP",
            Packet::icmp(kind, router, "192.0.2.1:0"),
        ));
    }
    for kind in [1, 2, 3, 4] {
        cases.push((
            true,
            "an ICMPv6 error to a VIP",
            Packet::icmp(kind, router6, "[2001:db8::1]:0"),
        ));
    }
    cases.push((false, "echo request", Packet::icmp(8, router, "192.0.2.1:0")));
    cases.push((false, "echo reply", Packet::icmp(0, router, "192.0.2.1:0")));
    cases.push((
        false,
        "ICMPv6 echo",
        Packet::icmp(128, router6, "[2001:db8::1]:0"),
    ));
    cases.push((
        false,
        "neighbour solicitation",
        Packet::icmp(135, router6, "[2001:db8::1]:0"),
    ));
    let to_nat_address = Packet::icmp(3, router, "192.0.2.9:0");
    check(&dsr(), &cases);
    check(
        &dsr(),
        &[(false, "an error to another address", to_nat_address.clone())],
    );
    check(&passthrough(), &cases);
    check(
        &passthrough(),
        &[(true, "an error to a NAT address", to_nat_address)],
    );
}

#[test]
fn options_tags_and_extension_headers_do_not_hide_the_ports() {
    let (to_vip, elsewhere) = (
        Packet::tcp("198.51.100.7:50000", "192.0.2.1:80"),
        Packet::tcp("198.51.100.7:80", "192.0.2.1:50000"),
    );
    let (to_vip6, elsewhere6) = (
        Packet::tcp("[2001:db8:f::7]:50000", "[2001:db8::1]:80"),
        Packet::tcp("[2001:db8:f::7]:80", "[2001:db8::1]:50000"),
    );
    let mut cases = Vec::new();
    for (expected, packet, packet6) in [(true, &to_vip, &to_vip6), (false, &elsewhere, &elsewhere6)] {
        for options in [4, 24, 40] {
            let packet = packet.clone();
            cases.push((expected, "options", Packet { options, ..packet }));
        }
        for tags in [vec![0x8100], vec![0x88a8, 0x8100]] {
            for packet in [packet, packet6] {
                let (tags, packet) = (tags.clone(), packet.clone());
                cases.push((expected, "VLAN tags", Packet { tags, ..packet }));
            }
        }
        for extensions in [vec![0], vec![60], vec![0, 43, 60], vec![0, 44]] {
            let packet = packet6.clone();
            cases.push((expected, "extension headers", Packet { extensions, ..packet }));
        }
    }
    let too_deep = Packet {
        extensions: vec![0, 60, 43, 60],
        ..to_vip6
    };
    cases.push((true, "too many headers, for the path to count", too_deep));
    let three_tags = Packet {
        tags: vec![0x8100; 3],
        ..to_vip
    };
    cases.push((false, "three tags in the frame", three_tags));
    check(&passthrough(), &cases);
}

#[test]
fn what_we_send_and_what_is_for_others_is_never_received() {
    for precision in Precision::ALL {
        let program = program(&passthrough(), precision).unwrap();
        let frame = Packet::tcp("198.51.100.7:50000", "192.0.2.1:80").bytes();
        assert!(admits(&program, &frame, FOR_US));
        assert!(!admits(&program, &frame, SENT_BY_US));
        assert!(!admits(&program, &frame, FOR_ANOTHER_HOST));
    }
}

#[test]
fn without_services_and_for_cut_frames_nothing_is_admitted() {
    let frame = Packet::tcp("198.51.100.7:50000", "192.0.2.1:80").bytes();
    for precision in Precision::ALL {
        assert!(!admits(&program(&[], precision).unwrap(), &frame, FOR_US));
    }
    let program = program(&passthrough(), Precision::Exact).unwrap();
    for len in 0..38 {
        assert!(!admits(&program, &frame[..len], FOR_US), "{len} bytes");
    }
}

/// Many services, in both families.
fn many(count: u16) -> Vec<PacketService> {
    let nat = "61000-65535".parse().ok();
    (0..count)
        .flat_map(|n| {
            let (high, low) = (n >> 8, n & 0xff);
            [
                service(
                    Protocol::Tcp,
                    &format!("198.18.{high}.{low}:443"),
                    nat,
                    &[&format!("10.1.{high}.{low}:8443")],
                ),
                service(
                    Protocol::Tcp,
                    &format!("[2001:db8:{n:x}::1]:443"),
                    nat,
                    &[&format!("[fd00::{n:x}]:8443")],
                ),
            ]
        })
        .collect()
}

#[test]
fn each_of_many_services_is_found_and_none_besides() {
    let program = program(&many(100), Precision::Exact).unwrap();
    for n in [0, 1, 31, 99, 100] {
        let is_served = n < 100;
        for packet in [
            Packet::tcp("203.0.113.5:1025", &format!("198.18.0.{n}:443")),
            Packet::tcp("[2001:db8:f::7]:1025", &format!("[2001:db8:{n:x}::1]:443")),
            Packet::tcp(&format!("10.1.0.{n}:8443"), "192.0.2.1:61000"),
            Packet::tcp(&format!("[fd00::{n:x}]:8443"), "[2001:db8::1]:61000"),
        ] {
            assert_eq!(
                admits(&program, &packet.bytes(), FOR_US),
                is_served,
                "{} to {}",
                packet.source,
                packet.destination
            );
        }
    }
}

#[test]
fn services_beyond_what_the_kernel_takes_get_a_coarser_program_that_admits_no_less() {
    let services = many(2_000);
    assert_eq!(program(&services, Precision::Exact), None);
    let coarse = program(&services, Precision::Ports).unwrap();
    assert!(coarse.len() < 300, "{} instructions", coarse.len());
    let admitted = |packet: Packet| admits(&coarse, &packet.bytes(), FOR_US);
    assert!(admitted(Packet::tcp("203.0.113.5:1025", "198.18.7.1:443")));
    assert!(admitted(Packet::tcp("10.1.7.1:8443", "192.0.2.1:61000")));
    assert!(admitted(Packet::tcp("[fd00::7]:8443", "[2001:db8::1]:61000")));
    assert!(admitted(
        Packet::tcp("10.1.7.1:1", "192.0.2.1:1").later_fragment()
    ));
    assert!(
        !admitted(Packet::tcp("203.0.113.5:1025", "198.18.7.1:22")),
        "ports are still looked at"
    );
}

#[test]
fn each_precision_admits_what_the_finer_one_does() {
    let packets = [
        Packet::tcp("198.51.100.7:50000", "192.0.2.1:80"),
        Packet::udp("198.51.100.7:50000", "192.0.2.1:53"),
        Packet::udp("10.0.0.1:5353", "192.0.2.9:62000"),
        Packet::tcp("[fd00::1]:8080", "[2001:db8::9]:62000"),
        Packet::tcp("[fd00::1]:9", "[2001:db8::9]:9").later_fragment(),
        Packet::icmp(3, "203.0.113.1:0", "192.0.2.9:0"),
        Packet::icmp(8, "203.0.113.1:0", "192.0.2.1:0"),
        Packet::udp("198.51.100.7:50000", "192.0.2.1:54"),
    ];
    let [exact, ports, protocols] =
        Precision::ALL.map(|precision| program(&passthrough(), precision).unwrap());
    for packet in packets {
        let frame = packet.bytes();
        let verdicts = [&exact, &ports, &protocols].map(|program| admits(program, &frame, FOR_US));
        assert!(
            verdicts.is_sorted(),
            "{verdicts:?} for {} to {}",
            packet.source,
            packet.destination
        );
    }
}
