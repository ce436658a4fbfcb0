//! Control messages (cmsg(3)) as bytes.

use std::{
    mem::size_of,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use crate::base::Dscp;

/// Room for all that comes with a datagram: where it was sent to, its TOS, its segments.
pub const RECEIVED: usize = 192;

/// Room for all that goes with one.
pub const SENT: usize = 96;

/// The bits of TOS or traffic class that are ECN's (RFC 3168).
const ECN: u8 = 0b11;

const HEADER: usize = size_of::<libc::cmsghdr>();

/// What came with a datagram.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Received {
    /// The address that it was sent to, where the socket tells.
    pub local: Option<IpAddr>,
    /// The interface of that address if it is a link-local one, else 0.
    pub interface: u32,
    /// Whether it was sent to a broadcast or multicast address.
    pub is_to_many: bool,
    /// Its ECN bits.
    pub ecn: u8,
    /// The size of each of the datagrams that it was merged from; the last may be shorter.
    pub segment: Option<u16>,
    /// How many the socket's queue had no room for since it was made, as of when this one came; 0 is not told.
    pub dropped: Option<u32>,
}

const fn aligned(length: usize) -> usize {
    length.next_multiple_of(size_of::<usize>())
}

/// Reads what the kernel has written.
pub fn read(mut bytes: &[u8]) -> Received {
    let mut all = Received::default();
    while let Some((header, rest)) = bytes.split_first_chunk::<HEADER>() {
        let (length, kind) = header.split_at(size_of::<usize>());
        let length = length
            .first_chunk()
            .map_or(0, |bytes| usize::from_ne_bytes(*bytes));
        let Some(data) = length.checked_sub(HEADER).and_then(|length| rest.get(..length)) else {
            break;
        };
        let number = |at: usize| {
            let bytes = kind.get(at..).and_then(<[u8]>::first_chunk);
            bytes.map_or(0, |bytes| i32::from_ne_bytes(*bytes))
        };
        all.take(number(0), number(4), data);
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
    }
    all
}

impl Received {
    fn take(&mut self, level: i32, kind: i32, data: &[u8]) {
        let word = data.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes));
        match (level, kind) {
            (libc::IPPROTO_IP, libc::IP_TOS) => self.ecn = data.first().map_or(0, |tos| tos & ECN),
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                self.ecn = word.and_then(|class| u8::try_from(class).ok()).unwrap_or(0) & ECN;
            }
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                // struct in_pktinfo: index, the local address to answer from, the address in the header
                let address = |at: usize| {
                    let octets = data.get(at..).and_then(<[u8]>::first_chunk::<4>);
                    octets.map(|octets| IpAddr::V4(Ipv4Addr::from(*octets)))
                };
                self.local = address(4);
                // they differ where the second is of several hosts
                self.is_to_many |= address(4) != address(8);
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                let address = data.first_chunk::<16>();
                let address = address.map(|octets| Ipv6Addr::from(*octets));
                self.local = address.map(|address| IpAddr::V6(address).to_canonical());
                self.is_to_many |= address.is_some_and(|address| address.is_multicast());
                let number = data.get(16..).and_then(<[u8]>::first_chunk).copied();
                self.interface = (number
                    .filter(|_| address.is_some_and(|address| address.is_unicast_link_local())))
                .map_or(0, u32::from_ne_bytes);
            }
            (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => self.dropped = word.map(i32::cast_unsigned),
            (libc::SOL_UDP, libc::UDP_GRO) => {
                self.segment = word
                    .and_then(|size| u16::try_from(size).ok())
                    .filter(|size| *size > 0);
            }
            _ => {}
        }
    }
}

/// What goes with a datagram, as it is written.
#[derive(Debug, Clone, Copy)]
pub struct Written {
    bytes: [u8; SENT],
    length: usize,
}

impl Written {
    /// Nothing.
    pub const fn new() -> Self {
        Self {
            bytes: [0; SENT],
            length: 0,
        }
    }

    /// The bytes.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(..self.length).unwrap_or_default()
    }

    /// Adds the address to send from, with the interface if it is a link-local one; the port is the socket's. A socket of IPv6 is told of an IPv4 one in IPv6 form.
    pub fn from(&mut self, addr: SocketAddr, is_ipv6_socket: bool) {
        match addr.ip() {
            IpAddr::V4(ip) if !is_ipv6_socket => {
                let mut info = [0; 12];
                info[4..8].copy_from_slice(&ip.octets());
                self.add(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
            }
            ip => {
                let ip = match ip {
                    IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                    IpAddr::V6(ip) => ip,
                };
                let mut info = [0; 20];
                info[..16].copy_from_slice(&ip.octets());
                if let SocketAddr::V6(addr) = addr {
                    info[16..].copy_from_slice(&addr.scope_id().to_ne_bytes());
                }
                self.add(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
            }
        }
    }

    /// Adds ECN bits with the class that stands in the same byte. Which option it is depends on what is sent, IPv4 or IPv6, and
    /// not on the socket.
    pub fn tos(&mut self, dscp: Option<Dscp>, ecn: u8, is_ipv4: bool) {
        let (level, kind) = if is_ipv4 {
            (libc::IPPROTO_IP, libc::IP_TOS)
        } else {
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS)
        };
        let tos = dscp.map_or(0, Dscp::tos) | (ecn & ECN);
        self.add(level, kind, &i32::from(tos).to_ne_bytes());
    }

    /// Adds the size of the datagrams that it is to be cut into.
    pub fn segment(&mut self, size: u16) {
        self.add(libc::SOL_UDP, libc::UDP_SEGMENT, &size.to_ne_bytes());
    }

    fn add(&mut self, level: i32, kind: i32, data: &[u8]) {
        let length = HEADER + data.len();
        let Some(place) = self.bytes.get_mut(self.length..self.length + aligned(length)) else {
            debug_assert!(false, "room for all");
            return;
        };
        let numbers = size_of::<usize>();
        place[..numbers].copy_from_slice(&length.to_ne_bytes());
        place[numbers..numbers + 4].copy_from_slice(&level.to_ne_bytes());
        place[numbers + 4..numbers + 8].copy_from_slice(&kind.to_ne_bytes());
        place[HEADER..length].copy_from_slice(data);
        self.length += aligned(length);
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddrV6;

    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let scoped = SocketAddrV6::new("fe80::7".parse().unwrap(), 53, 0, 3);
        let addresses: [SocketAddr; 3] = [
            "192.0.2.7:53".parse().unwrap(),
            "[2001:db8::7]:53".parse().unwrap(),
            scoped.into(),
        ];
        for (addr, on_ipv6) in addresses.iter().flat_map(|addr| [(*addr, false), (*addr, true)]) {
            let mut written = Written::new();
            written.from(addr, on_ipv6);
            written.tos(Dscp::named("ef"), 2, addr.is_ipv4() && !on_ipv6);
            let mut bytes = written.bytes_mut().to_vec();
            if addr.is_ipv4() && !on_ipv6 {
                // the address in the header, which is not written
                let at = HEADER + 8;
                bytes.copy_within(HEADER + 4..at, at);
            }
            let read = read(&bytes);
            assert_eq!((read.local, read.ecn), (Some(addr.ip()), 2));
            let interface = if addr == SocketAddr::from(scoped) { 3 } else { 0 };
            assert_eq!((read.interface, read.is_to_many), (interface, false));
        }
    }

    #[test]
    fn what_is_for_several_hosts_is_told_apart() {
        let mut info = [0; 12];
        info[4..8].copy_from_slice(&[192, 0, 2, 7]);
        info[8..].copy_from_slice(&[192, 0, 2, 255]);
        let mut received = Received::default();
        received.take(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
        assert_eq!(
            (received.local, received.is_to_many),
            (Some([192, 0, 2, 7].into()), true)
        );
        let mut written = Written::new();
        written.from("[ff02::1]:53".parse().unwrap(), true);
        assert!(read(written.bytes_mut()).is_to_many);
    }

    #[test]
    fn what_is_cut_short_or_lies_about_its_length_is_not_read() {
        let mut written = Written::new();
        written.tos(None, 3, true);
        let whole = written.bytes_mut().to_vec();
        for length in 0..whole.len() {
            let _ = read(&whole[..length]);
        }
        for claimed in [0_usize, 1, HEADER - 1, 1 << 40, usize::MAX] {
            let mut lying = whole.clone();
            lying[..8].copy_from_slice(&claimed.to_ne_bytes());
            assert_eq!(read(&lying), Received::default());
        }
    }
}
