//! Packets of our own: TCP resets and ICMP errors, as whole frames with finished checksums.
//!
//! All are made of the packet as it came, **before** it is rewritten.

mod quote;

use std::net::{IpAddr, SocketAddr};

use pnet::packet::{
    ip::IpNextHeaderProtocol,
    ipv4::{Ipv4Flags, MutableIpv4Packet},
    ipv6::MutableIpv6Packet,
    tcp::{MutableTcpPacket, TcpFlags, TcpPacket},
};

use super::{
    AddressPair, Content, LinkHeader, Offload, Parsed, Tags, Tcp,
    checksum::{self, Sum},
    parse::{ETHERNET_HEADER, TCP_HEADER, ether_type, number},
};

/// TTL and hop limit of what we send ourselves: the default of RFC 1700, and Linux's.
const TTL: u8 = 64;
/// ICMP and ICMPv6 errors without the packet they quote, in bytes.
const ICMP_HEADER: usize = 8;
/// IPv4 and IPv6 headers, in bytes.
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
/// Longest ICMP error as an IPv4 packet, in bytes (RFC 1812 section 4.3.2.3).
const LONGEST_ICMP: usize = 576;
/// Longest ICMPv6 error as an IPv6 packet, in bytes (RFC 4443 section 2.4 (c)).
const LONGEST_ICMPV6: usize = 1_280;
/// DSCP and ECN of an ICMP error: internetwork control (RFC 1812 section 4.3.2.5).
const CONTROL: u8 = 0xc0;

/// What an ICMP error of ours says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IcmpReason {
    /// Nobody serves the port: ICMP 3/3, ICMPv6 1/4.
    PortUnreachable,
    /// Larger than the way takes: ICMP 3/4, ICMPv6 2.
    TooBig {
        /// What it takes, in bytes of IP packet.
        mtu: u32,
    },
    /// TTL or hop limit used up: ICMP 11/0, ICMPv6 3/0.
    TimeExceeded,
}

/// A RST to the sender of a TCP packet, from the address it sent to (RFC 9293 section 3.10.7.1), back to the link
/// address it came from and with the same VLAN tags. `None` if it may not be answered: no TCP, a RST itself, not sent
/// to one host or not from one.
#[must_use]
pub fn reset(frame: &[u8], parsed: &Parsed) -> Option<Vec<u8>> {
    let tcp = resettable(parsed).filter(|_| parsed.is_unicast())?;
    let view = TcpPacket::new(frame.get(parsed.transport..parsed.end)?)?;
    let (sequence, acknowledgement, flags) = if tcp.flags.ack() {
        (view.get_acknowledgement(), 0, TcpFlags::RST)
    } else {
        let payload = (parsed.end - parsed.transport).saturating_sub(tcp.header_len);
        let len = payload + usize::from(tcp.flags.syn()) + usize::from(tcp.flags.fin());
        let acknowledgement = view.get_sequence().wrapping_add(u32::try_from(len).ok()?);
        (0, acknowledgement, TcpFlags::RST | TcpFlags::ACK)
    };
    let ends = AddressPair {
        source: SocketAddr::new(parsed.destination, tcp.destination),
        destination: SocketAddr::new(parsed.source, tcp.source),
    };
    let segment = Segment {
        sequence,
        acknowledgement,
        flags,
    };
    segment.frame(&ends, &back(parsed), &parsed.tags)
}

/// An ICMP error to the sender of a TCP or UDP packet, `from` an address of ours (the VIP), back to the link address it
/// came from and with the same VLAN tags. Quotes as much as RFC 1812 section 4.3.2.3 (576 bytes in all) and RFC 4443
/// section 2.4 (1,280) allow; of a super-frame the first packet that it stands for. `None` if it may not be answered
/// (RFC 1122 section 3.2.2): not TCP or UDP (ICMP errors among them), a later fragment, not sent to one host or not
/// from one.
#[must_use]
pub fn icmp_error(
    frame: &[u8],
    parsed: &Parsed,
    offload: &Offload,
    from: IpAddr,
    trouble: IcmpReason,
) -> Option<Vec<u8>> {
    if !matches!(parsed.content, Content::Tcp(_) | Content::Udp(_))
        || !parsed.is_unicast()
        || from.is_ipv4() != parsed.source.is_ipv4()
    {
        return None;
    }
    let (protocol, longest) = if from.is_ipv4() {
        (number::ICMP, LONGEST_ICMP - IPV4_HEADER - ICMP_HEADER)
    } else {
        (number::ICMPV6, LONGEST_ICMPV6 - IPV6_HEADER - ICMP_HEADER)
    };
    let (icmp_type, code, word) = trouble.on_the_wire(from.is_ipv4());
    let mut message = vec![icmp_type, code, 0, 0];
    message.extend(word.to_be_bytes());
    let quote = quote::first_packet(frame, parsed, offload)?;
    message.extend(quote.iter().take(longest));
    let sum = if from.is_ipv4() {
        checksum::checksum(&message)
    } else {
        (Sum::default().pseudo_header(from, parsed.source, protocol, message.len()))
            .bytes(&message)
            .finish()
    };
    message.get_mut(2..4)?.copy_from_slice(&sum.to_be_bytes());
    packet(
        (from, parsed.source),
        protocol,
        CONTROL,
        &message,
        &back(parsed),
        &parsed.tags,
    )
}

impl IcmpReason {
    /// Type, code, and the 32 bits after the checksum.
    fn on_the_wire(self, is_ipv4: bool) -> (u8, u8, u32) {
        match (self, is_ipv4) {
            (Self::PortUnreachable, true) => (3, 3, 0),
            (Self::PortUnreachable, false) => (1, 4, 0),
            (Self::TooBig { mtu }, true) => (3, 4, mtu.min(u32::from(u16::MAX))),
            (Self::TooBig { mtu }, false) => (2, 0, mtu),
            (Self::TimeExceeded, true) => (11, 0, 0),
            (Self::TimeExceeded, false) => (3, 0, 0),
        }
    }
}

/// The TCP header of a packet that a RST may be sent about.
fn resettable(parsed: &Parsed) -> Option<Tcp> {
    match parsed.content {
        Content::Tcp(tcp) if !tcp.flags.rst() => Some(tcp),
        _ => None,
    }
}

/// The link header of an answer; the interface is the one it came in by, which the caller knows.
const fn back(parsed: &Parsed) -> LinkHeader {
    LinkHeader {
        ifindex: 0,
        source: parsed.link_destination,
        destination: parsed.link_source,
    }
}

/// A TCP segment without data and options.
struct Segment {
    sequence: u32,
    acknowledgement: u32,
    flags: u8,
}

impl Segment {
    fn frame(&self, ends: &AddressPair, link: &LinkHeader, tags: &Tags) -> Option<Vec<u8>> {
        let mut segment = vec![0; TCP_HEADER];
        let mut view = MutableTcpPacket::new(&mut segment)?;
        view.set_source(ends.source.port());
        view.set_destination(ends.destination.port());
        view.set_sequence(self.sequence);
        view.set_acknowledgement(self.acknowledgement);
        view.set_data_offset(5);
        view.set_flags(self.flags);
        let (source, destination) = (ends.source.ip(), ends.destination.ip());
        let sum = Sum::default().pseudo_header(source, destination, number::TCP, TCP_HEADER);
        let sum = sum.bytes(pnet::packet::Packet::packet(&view)).finish();
        view.set_checksum(sum);
        packet((source, destination), number::TCP, 0, &segment, link, tags)
    }
}

/// A frame of its parts. `None` if the addresses are of two families or the payload is too long.
fn packet(
    (source, destination): (IpAddr, IpAddr),
    protocol: u8,
    traffic_class: u8,
    payload: &[u8],
    link: &LinkHeader,
    tags: &Tags,
) -> Option<Vec<u8>> {
    let len = u16::try_from(payload.len()).ok()?;
    let tags = tags.as_bytes();
    let mut frame = Vec::with_capacity(ETHERNET_HEADER + tags.len() + IPV6_HEADER + payload.len());
    frame.extend(link.destination.0);
    frame.extend(link.source.0);
    frame.extend(tags);
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            frame.extend(ether_type::IPV4.to_be_bytes());
            let mut header = [0; IPV4_HEADER];
            let mut view = MutableIpv4Packet::new(&mut header)?;
            view.set_version(4);
            view.set_header_length(5);
            view.set_dscp(traffic_class >> 2);
            view.set_total_length(len.checked_add(20)?);
            // never fragmented, so that it needs no identification (RFC 6864)
            view.set_flags(Ipv4Flags::DontFragment);
            view.set_ttl(TTL);
            view.set_next_level_protocol(IpNextHeaderProtocol(protocol));
            view.set_source(source);
            view.set_destination(destination);
            let sum = checksum::checksum(pnet::packet::Packet::packet(&view));
            view.set_checksum(sum);
            frame.extend(header);
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            frame.extend(ether_type::IPV6.to_be_bytes());
            let mut header = [0; IPV6_HEADER];
            let mut view = MutableIpv6Packet::new(&mut header)?;
            view.set_version(6);
            view.set_traffic_class(traffic_class);
            view.set_payload_length(len);
            view.set_next_header(IpNextHeaderProtocol(protocol));
            view.set_hop_limit(TTL);
            view.set_source(source);
            view.set_destination(destination);
            frame.extend(header);
        }
        _ => return None,
    }
    frame.extend(payload);
    Some(frame)
}
