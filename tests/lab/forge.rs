//! Packets that no honest stack sends: any source address, any flags; and a ping.

use std::{
    io::{ErrorKind, Read as _},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::{Family, Host, PATIENCE, random_bytes};

/// TCP flags.
pub const SYN: u8 = 0x02;
/// No more data.
pub const FIN: u8 = 0x01;
/// Reset.
pub const RST: u8 = 0x04;
/// Acknowledgement.
pub const ACK: u8 = 0x10;

const TCP: u8 = 6;
const UDP: u8 = 17;

/// A packet that an ICMP error quotes.
#[derive(Debug, Clone, Copy)]
pub struct Quote {
    /// Who is to have sent it, and is told.
    pub from: SocketAddr,
    /// Where to.
    pub to: SocketAddr,
    /// Of a TCP segment; `None`: it is a UDP datagram.
    pub sequence: Option<u32>,
    /// How much of the transport header and what follows is quoted, in bytes, at most.
    pub len: usize,
}

/// Addresses of nobody, all over 11.0.0.0/8 and 2001:db8::/32, the same for the same seed (xorshift64, Marsaglia 2003).
pub fn nobodies(family: Family, seed: u64) -> impl Iterator<Item = SocketAddr> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let [a, b, c, d, e, ..] = state.to_be_bytes();
        let ip = match family {
            Family::V4 => IpAddr::from([11, a, b, c]),
            Family::V6 => IpAddr::from([0x2001, 0xdb8, a.into(), b.into(), 0, 0, 0, c.into()]),
        };
        SocketAddr::new(ip, u16::from_be_bytes([d | 4, e]))
    })
}

/// Numbers that somebody who sees nothing could guess, the same for the same seed.
pub fn guesses(seed: u64, count: usize) -> Vec<u32> {
    let bytes = random_bytes(seed, 4 * count);
    let numbers = bytes.as_chunks::<4>().0;
    numbers.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect()
}

/// A sender of made-up packets on a host.
pub struct Forger {
    v4: Socket,
    v6: Socket,
}

impl Forger {
    /// On this host. Its kernel finds the way to the destination and nothing else.
    pub fn new(host: &Host) -> Self {
        let open = |domain| Socket::new(domain, Type::RAW, Some(Protocol::from(255))).expect("a raw socket");
        // IPPROTO_RAW takes packets with their IP header
        let (v4, v6) = host.inside(|| (open(Domain::IPV4), open(Domain::IPV6)));
        v6.set_header_included_v6(true).expect("IPV6_HDRINCL");
        for socket in [&v4, &v6] {
            socket.set_send_buffer_size(4 << 20).expect("a send buffer");
        }
        Self { v4, v6 }
    }

    /// Sends a UDP datagram.
    #[track_caller]
    pub fn udp(&self, from: SocketAddr, to: SocketAddr, payload: &[u8]) {
        let segment = udp_segment(from, to, payload);
        self.send(from.ip(), to.ip(), UDP, &segment);
    }

    /// Sends a TCP segment without data.
    #[track_caller]
    pub fn tcp(&self, from: SocketAddr, to: SocketAddr, flags: u8, seq: u32, ack: u32) {
        self.tcp_with(from, to, flags, seq, ack, &[]);
    }

    /// Sends a TCP segment with data.
    #[track_caller]
    pub fn tcp_with(&self, from: SocketAddr, to: SocketAddr, flags: u8, seq: u32, ack: u32, data: &[u8]) {
        let segment = tcp_segment(from, to, flags, seq, ack, data);
        self.send(from.ip(), to.ip(), TCP, &segment);
    }

    /// Tells the sender of a packet that a way takes `mtu` bytes only: fragmentation needed (RFC 1191), packet too big
    /// (RFC 4443).
    #[track_caller]
    pub fn too_big(&self, from: IpAddr, packet: &Quote, mtu: u16) {
        let to = packet.from.ip();
        let (protocol, kind, code) = if to.is_ipv4() { (1, 3, 4) } else { (58, 2, 0) };
        let mut message = vec![kind, code, 0, 0, 0, 0];
        message.extend(mtu.to_be_bytes());
        let (inner, segment) = match packet.sequence {
            Some(sequence) => {
                let segment = tcp_segment(packet.from, packet.to, ACK, sequence, 1, &[]);
                (TCP, segment)
            }
            None => (UDP, udp_segment(packet.from, packet.to, b"quoted")),
        };
        let mut quoted = ip_packet(to, packet.to.ip(), inner, &segment);
        let whole = quoted.len();
        quoted.truncate((whole - segment.len() + packet.len).min(whole));
        if to.is_ipv4() {
            let header = finish(sum(0, &quoted[..20]));
            quoted[10..12].copy_from_slice(&header.to_be_bytes());
        }
        message.extend(quoted);
        if to.is_ipv4() {
            let checksum = finish(sum(0, &message));
            message[2..4].copy_from_slice(&checksum.to_be_bytes());
        } else {
            put_checksum(&mut message, 2, from, to, protocol);
        }
        self.send(from, to, protocol, &message);
    }

    /// Sends anything behind an IP header that is in order.
    #[track_caller]
    pub fn raw(&self, from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) {
        self.send(from, to, protocol, payload);
    }

    #[track_caller]
    fn send(&self, from: IpAddr, to: IpAddr, protocol: u8, segment: &[u8]) {
        let packet = ip_packet(from, to, protocol, segment);
        let socket = if to.is_ipv4() { &self.v4 } else { &self.v6 };
        // no port in the address: raw IPv6 sockets refuse one
        socket
            .send_to(&packet, &SockAddr::from(SocketAddr::new(to, 0)))
            .unwrap_or_else(|error| panic!("cannot send to {to}: {error}"));
    }

    /// Sends `count` SYNs from addresses and ports all over 11.0.0.0/8 as fast as it can; returns how long it took.
    #[track_caller]
    pub fn flood(&self, to: SocketAddr, count: u32) -> Duration {
        let start = Instant::now();
        let destination = SockAddr::from(SocketAddr::new(to.ip(), 0));
        self.v4.connect(&destination).expect("a way to the destination");
        let first = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(11, 0, 0, 1)), 1);
        let mut packet = ip_packet(
            first.ip(),
            to.ip(),
            TCP,
            &tcp_segment(first, to, SYN, 0x1234_5678, 0, &[]),
        );
        // sum of what stays, with the source address, the port and the checksum as zero
        packet[12..16].fill(0);
        packet[20..22].fill(0);
        packet[36..38].fill(0);
        let IpAddr::V4(target) = to.ip() else {
            panic!("a flood is of IPv4");
        };
        let mut constant = sum(0, &packet[20..]);
        constant = sum(constant, &target.octets());
        constant += u32::from(TCP) + 20;
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        for _ in 0..count {
            // xorshift64, Marsaglia 2003
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let random = state.to_be_bytes();
            let (source, port) = ([11, random[0], random[1], random[2]], [random[3] | 4, random[4]]);
            packet[12..16].copy_from_slice(&source);
            packet[20..22].copy_from_slice(&port);
            let checksum = finish(sum(sum(constant, &source), &port));
            packet[36..38].copy_from_slice(&checksum.to_be_bytes());
            loop {
                match self.v4.send(&packet) {
                    Ok(_) => break,
                    Err(error) if matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::EAGAIN)) => {}
                    Err(error) => panic!("the flood stops: {error}"),
                }
            }
        }
        start.elapsed()
    }
}

/// Whether an address answers a ping from this host; not, if its own kernel says that nobody is there.
#[track_caller]
pub fn ping(host: &Host, to: IpAddr) -> bool {
    let (domain, protocol, kind, reply) = match to {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, 8, 0),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, 128, 129),
    };
    let socket = host
        .inside(|| Socket::new(domain, Type::RAW, Some(protocol)))
        .expect("a raw socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    // a connected raw socket is told only if it asks for that
    match to {
        IpAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4RecvErr, &true),
        IpAddr::V6(_) => setsockopt(&socket, sockopt::Ipv6RecvErr, &true),
    }
    .expect("a socket that is told of errors");
    let mut echo = vec![kind, 0, 0, 0, 0xc0, 0x4e, 0, 1];
    echo.extend(b"are you there?");
    if to.is_ipv4() {
        let checksum = finish(sum(0, &echo));
        // the kernel does it for ICMPv6
        echo[2..4].copy_from_slice(&checksum.to_be_bytes());
    }
    // a connected socket hears this address only
    socket
        .connect(&SockAddr::from(SocketAddr::new(to, 0)))
        .and_then(|()| socket.send(&echo))
        .expect("send a ping");
    loop {
        let mut buffer = [0; 256];
        let len = match (&socket).read(&mut buffer) {
            Ok(len) => len,
            Err(error) if error.kind() == ErrorKind::HostUnreachable => return false,
            Err(error) => panic!("neither an answer of {to} nor word that it is not there: {error}"),
        };
        // a raw IPv4 socket gets the IP header as well
        let message = &buffer[if to.is_ipv4() { 20 } else { 0 }..len];
        if message.first() == Some(&reply) && message[4..6] == echo[4..6] {
            return true;
        }
    }
}

fn udp_segment(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(8 + payload.len()).expect("a short payload");
    let mut segment = Vec::with_capacity(usize::from(len));
    segment.extend(from.port().to_be_bytes());
    segment.extend(to.port().to_be_bytes());
    segment.extend(len.to_be_bytes());
    segment.extend([0, 0]);
    segment.extend(payload);
    put_checksum(&mut segment, 6, from.ip(), to.ip(), UDP);
    segment
}

fn tcp_segment(from: SocketAddr, to: SocketAddr, flags: u8, seq: u32, ack: u32, data: &[u8]) -> Vec<u8> {
    let mut segment = Vec::with_capacity(20 + data.len());
    segment.extend(from.port().to_be_bytes());
    segment.extend(to.port().to_be_bytes());
    segment.extend(seq.to_be_bytes());
    segment.extend(ack.to_be_bytes());
    // five words of header, a window of 64,240, checksum and urgent pointer
    segment.extend([0x50, flags, 0xfa, 0xf0, 0, 0, 0, 0]);
    segment.extend(data);
    put_checksum(&mut segment, 16, from.ip(), to.ip(), TCP);
    segment
}

fn ip_packet(from: IpAddr, to: IpAddr, protocol: u8, segment: &[u8]) -> Vec<u8> {
    let len = segment.len();
    let mut packet = Vec::with_capacity(40 + len);
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let total = u16::try_from(20 + len).expect("a short packet");
            packet.extend([0x45, 0]);
            packet.extend(total.to_be_bytes());
            // id, do not fragment, TTL; the kernel fills in the checksum
            packet.extend([0, 1, 0x40, 0, 64, protocol, 0, 0]);
            packet.extend(from.octets());
            packet.extend(to.octets());
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            packet.extend([0x60, 0, 0, 0]);
            packet.extend(u16::try_from(len).expect("a short packet").to_be_bytes());
            packet.extend([protocol, 64]);
            packet.extend(from.octets());
            packet.extend(to.octets());
        }
        _ => panic!("from {from} to {to}: two families"),
    }
    packet.extend(segment);
    packet
}

fn put_checksum(segment: &mut [u8], at: usize, from: IpAddr, to: IpAddr, protocol: u8) {
    let mut total = sum(0, segment);
    for ip in [from, to] {
        total = match ip {
            IpAddr::V4(ip) => sum(total, &ip.octets()),
            IpAddr::V6(ip) => sum(total, &ip.octets()),
        };
    }
    total += u32::from(protocol) + u32::try_from(segment.len()).expect("a short segment");
    let checksum = match (protocol, finish(total)) {
        // zero would mean that there is none (RFC 768)
        (UDP, 0) => 0xffff,
        (_, checksum) => checksum,
    };
    segment[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
}

/// Adds 16-bit words (RFC 1071).
fn sum(start: u32, bytes: &[u8]) -> u32 {
    bytes.chunks(2).fold(start, |sum, pair| {
        sum + u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]))
    })
}

fn finish(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded")
}
