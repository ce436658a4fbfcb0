//! What a frame is: headers found, lengths checked.

mod ip;
mod transport;

use std::net::{IpAddr, SocketAddr};

use pnet::packet::ethernet::EthernetPacket;

use super::{Offload, Tags, tags::TAG};
use crate::base::{Mac, PacketReason, Protocol};
use ip::Network;

/// Ethernet header without tags, in bytes.
pub(super) const ETHERNET_HEADER: usize = 14;
/// UDP header, in bytes (RFC 768).
pub(super) const UDP_HEADER: usize = 8;
/// TCP header without options, in bytes (RFC 9293).
pub(super) const TCP_HEADER: usize = 20;

/// Protocol numbers (IANA) that are told apart here.
pub(super) mod number {
    pub const HOP_BY_HOP: u8 = 0;
    pub const ICMP: u8 = 1;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const ROUTING: u8 = 43;
    pub const FRAGMENT: u8 = 44;
    pub const ICMPV6: u8 = 58;
    pub const DESTINATION_OPTIONS: u8 = 60;
}

/// Ethernet types (IANA) that are told apart here.
pub(super) mod ether_type {
    pub const IPV4: u16 = 0x0800;
    pub const IPV6: u16 = 0x86dd;
    pub const TAG: u16 = 0x8100;
    pub const SERVICE_TAG: u16 = 0x88a8;
}

/// A parsed frame: addresses, what it carries, and where its headers are. Offsets are in bytes from the frame's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parsed {
    /// The link address it was sent from.
    pub link_source: Mac,
    /// The link address it was sent to.
    pub link_destination: Mac,
    /// Its VLAN tags.
    pub tags: Tags,
    /// IP source.
    pub source: IpAddr,
    /// IP destination, of the same family.
    pub destination: IpAddr,
    /// Number of the protocol that `transport` points at (the last next header of IPv6).
    pub protocol: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// IPv4's don't fragment bit; true for IPv6, where no router fragments.
    pub dont_fragment: bool,
    /// `Some` if it is a part of a datagram.
    pub fragment: Option<Fragment>,
    /// What it carries.
    pub content: Content,
    /// Where the IP header starts.
    pub network: usize,
    /// Where what it carries starts (for a fragment, the fragment's data).
    pub transport: usize,
    /// Where the IP packet ends; bytes after it (Ethernet padding) are kept as they are.
    pub end: usize,
}

/// What an IP packet carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// TCP: a whole segment or a first fragment, with its whole fixed header.
    Tcp(Tcp),
    /// UDP: a whole datagram or a first fragment, with its whole header.
    Udp(Udp),
    /// An ICMP or ICMPv6 error, whole, with the packet that it is about.
    Error(IcmpError),
    /// Other ICMP or ICMPv6, or a first fragment of any.
    Icmp,
    /// A fragment that is not the first of its datagram: no ports.
    LaterFragment,
    /// Any other protocol.
    Other,
}

/// A TCP header's facts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tcp {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
    /// Its flags.
    pub flags: TcpFlags,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number; it means something only with ACK.
    pub acknowledgement: u32,
    /// The sender's clock, of the timestamps option (TSval of RFC 7323), if it is there.
    pub timestamp: Option<u32>,
    /// Length of the header with options, in bytes: 20 to 60.
    pub header_len: usize,
}

/// The flags of a TCP header (RFC 9293 section 3.1), without NS/AE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpFlags(pub u8);

/// A UDP header's facts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Udp {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
    /// Its checksum is zero: none (RFC 768).
    pub no_checksum: bool,
}

/// A part of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fragment {
    /// Identification: 16 bits in IPv4, 32 in IPv6.
    pub id: u32,
    /// Protocol number that every fragment of the datagram carries (IPv6: next header of the fragment header, which
    /// may be an extension header; [`Parsed::protocol`] of the first fragment is then another).
    pub protocol: u8,
    /// Where its data belongs, in bytes from the start of the datagram's data; a multiple of 8.
    pub offset: u16,
    /// Length of its data in bytes, never 0; `offset` + `len` is 65,535 at most.
    pub len: u16,
    /// More follow.
    pub more: bool,
}

/// An ICMP or ICMPv6 error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IcmpError {
    /// What it says.
    pub kind: ErrorKind,
    /// The packet that it is about, as far as it is quoted.
    pub quoted: Quoted,
}

/// What an ICMP error says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// Destination unreachable, but for [`ErrorKind::TooBig`].
    Unreachable,
    /// Fragmentation needed (ICMP 3/4) or packet too big (ICMPv6 2).
    TooBig {
        /// The next hop's MTU in bytes; 0 if the router did not say (before RFC 1191).
        mtu: u32,
    },
    /// Time exceeded.
    TimeExceeded,
    /// Parameter problem.
    ParameterProblem,
}

/// The packet inside an ICMP error. Offsets are in bytes from the start of the outer frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quoted {
    /// IP source.
    pub source: IpAddr,
    /// IP destination, of the same family.
    pub destination: IpAddr,
    /// Number of the transport protocol.
    pub protocol: u8,
    /// Source and destination port of TCP or UDP; `None` for other protocols and later fragments.
    pub ports: Option<(u16, u16)>,
    /// Sequence number of TCP: it stands right behind the ports, so every router quotes it.
    pub sequence: Option<u32>,
    /// `Some` if it is a part of a datagram.
    pub fragment: Option<Fragment>,
    /// Where its IP header starts.
    pub network: usize,
    /// Where its transport header starts.
    pub transport: usize,
}

/// Why a frame is not looked at any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Malformed {
    /// ARP and the like, left to the kernel.
    #[error("no IP packet")]
    NotIp,
    /// More than two VLAN tags.
    #[error("more than two VLAN tags")]
    TooManyTags,
    /// The frame ends before a header does, or a length says more than there is.
    #[error("cut short")]
    Short,
    /// A version or length that cannot be.
    #[error("headers contradict each other")]
    Header,
    /// A wrong IPv4 header checksum.
    #[error("wrong IPv4 header checksum")]
    Checksum,
    /// Too many IPv6 extension headers, in an order that is not allowed, or with a route still to go.
    #[error("IPv6 extension headers that cannot be passed")]
    Extension,
    /// A fragment that no datagram can be put together from, or a first one without the whole transport header
    /// (RFC 1858).
    #[error("bad fragment")]
    Fragment,
    /// An ICMP error whose packet inside cannot be read.
    #[error("ICMP error about an unreadable packet")]
    Quoted,
}

impl Malformed {
    /// The counter that it belongs to.
    #[must_use]
    pub const fn reason(self) -> PacketReason {
        match self {
            Self::NotIp => PacketReason::NotOurs,
            Self::TooManyTags => PacketReason::TooManyTags,
            Self::Short | Self::Header | Self::Quoted => PacketReason::Malformed,
            Self::Checksum => PacketReason::BadHeaderChecksum,
            Self::Extension => PacketReason::UnsupportedHeader,
            Self::Fragment => PacketReason::BadFragment,
        }
    }
}

impl TcpFlags {
    /// Starts a connection.
    #[must_use]
    pub const fn syn(self) -> bool {
        self.0 & 0x02 != 0
    }

    /// Acknowledges.
    #[must_use]
    pub const fn ack(self) -> bool {
        self.0 & 0x10 != 0
    }

    /// The sender closes its half.
    #[must_use]
    pub const fn fin(self) -> bool {
        self.0 & 0x01 != 0
    }

    /// The connection is gone.
    #[must_use]
    pub const fn rst(self) -> bool {
        self.0 & 0x04 != 0
    }

    /// SYN without ACK or RST or FIN: a client opens a connection.
    #[must_use]
    pub const fn opens(self) -> bool {
        self.0 & 0x17 == 0x02
    }
}

impl Fragment {
    /// Whether it is the first of its datagram.
    #[must_use]
    pub const fn is_first(&self) -> bool {
        self.offset == 0
    }
}

impl Parsed {
    /// Protocol, source and destination of a TCP or UDP packet that has ports.
    #[must_use]
    pub fn tuple(&self) -> Option<(Protocol, SocketAddr, SocketAddr)> {
        let (protocol, source, destination) = match self.content {
            Content::Tcp(tcp) => (Protocol::Tcp, tcp.source, tcp.destination),
            Content::Udp(udp) => (Protocol::Udp, udp.source, udp.destination),
            Content::Error(_) | Content::Icmp | Content::LaterFragment | Content::Other => return None,
        };
        Some((
            protocol,
            SocketAddr::new(self.source, source),
            SocketAddr::new(self.destination, destination),
        ))
    }

    /// Length of the IP packet in bytes, for counters: of a super-frame, of all its packets in one.
    #[must_use]
    pub const fn ip_len(&self) -> usize {
        self.end.saturating_sub(self.network)
    }

    /// Length in bytes of the largest IP packet that the frame stands for: what the MTU of the way out must take.
    #[must_use]
    pub fn largest_packet(&self, offload: &Offload) -> u32 {
        let whole = self.ip_len();
        let headers = match self.content {
            Content::Tcp(tcp) => self.transport + tcp.header_len,
            Content::Udp(_) => self.transport + UDP_HEADER,
            Content::Error(_) | Content::Icmp | Content::LaterFragment | Content::Other => self.end,
        };
        let largest = offload.segments.map_or(whole, |segments| {
            (headers.saturating_sub(self.network) + usize::from(segments.size.get())).min(whole)
        });
        u32::try_from(largest).unwrap_or(u32::MAX)
    }

    /// Whether it was sent by one host and to one, by its link header and its IP header: only then may it be answered
    /// (RFC 1122 section 3.2.2). Broadcast addresses of single networks are not known here.
    #[must_use]
    pub fn is_unicast(&self) -> bool {
        let of_one_host = |address: IpAddr| match address {
            // class E and the limited broadcast address are at the upper end
            IpAddr::V4(address) => {
                address.octets()[0] < 224 && !address.is_unspecified() && !address.is_loopback()
            }
            IpAddr::V6(address) => {
                !(address.is_multicast() || address.is_unspecified() || address.is_loopback())
            }
        };
        let is_group = |mac: Mac| mac.0[0] & 1 != 0;
        !is_group(self.link_destination)
            && !is_group(self.link_source)
            && of_one_host(self.source)
            && of_one_host(self.destination)
    }
}

impl Quoted {
    /// Source and destination with their ports; port 0 where there is none.
    #[must_use]
    pub fn sockets(&self) -> (SocketAddr, SocketAddr) {
        let (source, destination) = self.ports.unwrap_or_default();
        (
            SocketAddr::new(self.source, source),
            SocketAddr::new(self.destination, destination),
        )
    }
}

/// Finds out what a frame is.
///
/// # Errors
/// If it is no IP packet, or one that cannot be right.
pub fn parse(frame: &[u8]) -> Result<Parsed, Malformed> {
    let ethernet = EthernetPacket::new(frame).ok_or(Malformed::Short)?;
    let mut network = ETHERNET_HEADER;
    let mut ether_type = ethernet.get_ethertype().0;
    while matches!(ether_type, ether_type::TAG | ether_type::SERVICE_TAG) {
        if network == ETHERNET_HEADER + Tags::MOST * TAG {
            return Err(Malformed::TooManyTags);
        }
        // TCI, then the next type
        ether_type = word(frame, network + 2).ok_or(Malformed::Short)?;
        network += TAG;
    }
    let packet = match ether_type {
        ether_type::IPV4 => ip::version4(frame, network)?,
        ether_type::IPV6 => ip::version6(frame, network)?,
        _ => return Err(Malformed::NotIp),
    };
    let Network {
        source,
        destination,
        protocol,
        ttl,
        dont_fragment,
        fragment,
        transport,
        end,
    } = packet;
    Ok(Parsed {
        link_source: mac(ethernet.get_source()),
        link_destination: mac(ethernet.get_destination()),
        tags: Tags::of(frame, network),
        source,
        destination,
        protocol,
        ttl,
        dont_fragment,
        fragment,
        content: transport::content(frame.get(..end).unwrap_or_default(), &packet)?,
        network,
        transport,
        end,
    })
}

const fn mac(address: pnet::util::MacAddr) -> Mac {
    Mac([address.0, address.1, address.2, address.3, address.4, address.5])
}

/// The 16-bit number at an offset.
pub(super) fn word(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_be_bytes(*bytes))
}
