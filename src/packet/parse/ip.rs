//! IP headers: where they end, what follows, and whether the packet is a fragment.

use std::net::IpAddr;

use pnet::packet::{
    ipv4::{Ipv4Flags, Ipv4Packet},
    ipv6::Ipv6Packet,
};

use super::{Fragment, Malformed, number};
use crate::packet::checksum;

/// IPv4 header without options, in bytes.
const IPV4_HEADER: usize = 20;
/// IPv6 header, in bytes.
const IPV6_HEADER: usize = 40;
/// IPv6 extension headers that are walked through, at most: no honest packet has more than one of each kind.
const MOST_EXTENSIONS: usize = 8;
/// Unit of fragment offsets, in bytes.
const FRAGMENT_UNIT: u16 = 8;

/// An IP header and its extensions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Network {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub protocol: u8,
    pub ttl: u8,
    pub dont_fragment: bool,
    pub fragment: Option<Fragment>,
    pub transport: usize,
    pub end: usize,
}

impl Network {
    /// Whether it is a fragment, but not the first.
    pub(super) fn is_later_fragment(&self) -> bool {
        self.fragment.is_some_and(|fragment| !fragment.is_first())
    }
}

/// The IPv4 packet at an offset.
pub(super) fn version4(frame: &[u8], start: usize) -> Result<Network, Malformed> {
    let bytes = frame.get(start..).ok_or(Malformed::Short)?;
    let view = Ipv4Packet::new(bytes).ok_or(Malformed::Short)?;
    let header_len = usize::from(view.get_header_length()) * 4;
    let total = usize::from(view.get_total_length());
    if view.get_version() != 4 || header_len < IPV4_HEADER || total < header_len {
        return Err(Malformed::Header);
    }
    if total > bytes.len() {
        return Err(Malformed::Short);
    }
    let header = bytes.get(..header_len).ok_or(Malformed::Short)?;
    if checksum::checksum(header) != 0 {
        return Err(Malformed::Checksum);
    }
    let mut network = header4(&view, start, start + total);
    network.fragment = fragment4(&view, Some(total - header_len))?;
    Ok(network)
}

/// The IPv4 packet at an offset of an ICMP error: it may be cut short, and its lengths and checksum prove nothing.
pub(super) fn quoted4(message: &[u8], start: usize) -> Result<Network, Malformed> {
    let bytes = message.get(start..).ok_or(Malformed::Quoted)?;
    let view = Ipv4Packet::new(bytes).ok_or(Malformed::Quoted)?;
    let header_len = usize::from(view.get_header_length()) * 4;
    if view.get_version() != 4 || header_len < IPV4_HEADER || header_len > bytes.len() {
        return Err(Malformed::Quoted);
    }
    let mut network = header4(&view, start, message.len());
    network.fragment = fragment4(&view, None).map_err(|_| Malformed::Quoted)?;
    Ok(network)
}

fn header4(view: &Ipv4Packet<'_>, start: usize, end: usize) -> Network {
    Network {
        source: view.get_source().into(),
        destination: view.get_destination().into(),
        protocol: view.get_next_level_protocol().0,
        ttl: view.get_ttl(),
        dont_fragment: view.get_flags() & Ipv4Flags::DontFragment != 0,
        fragment: None,
        transport: start + usize::from(view.get_header_length()) * 4,
        end,
    }
}

/// What IPv4 says of fragments; `len` of the data, or `None` if it is not known.
fn fragment4(view: &Ipv4Packet<'_>, len: Option<usize>) -> Result<Option<Fragment>, Malformed> {
    let more = view.get_flags() & Ipv4Flags::MoreFragments != 0;
    let offset = view.get_fragment_offset() * FRAGMENT_UNIT;
    if !more && offset == 0 {
        return Ok(None);
    }
    let id = u32::from(view.get_identification());
    let protocol = view.get_next_level_protocol().0;
    fragment(id, protocol, offset, more, len).map(Some)
}

/// A fragment, if a datagram can be put together from it.
fn fragment(
    id: u32,
    protocol: u8,
    offset: u16,
    more: bool,
    len: Option<usize>,
) -> Result<Fragment, Malformed> {
    let Some(len) = len else {
        return Ok(Fragment {
            id,
            protocol,
            offset,
            len: 0,
            more,
        });
    };
    let len = u16::try_from(len).map_err(|_| Malformed::Fragment)?;
    let is_whole_units = !more || len.is_multiple_of(FRAGMENT_UNIT);
    // RFC 1858 section 3: a second fragment at 8 would bring the flags of a TCP header that the first kept back
    let hides_flags = protocol == number::TCP && offset == FRAGMENT_UNIT;
    if len == 0 || !is_whole_units || hides_flags || offset.checked_add(len).is_none() {
        return Err(Malformed::Fragment);
    }
    Ok(Fragment {
        id,
        protocol,
        offset,
        len,
        more,
    })
}

/// The IPv6 packet at an offset.
pub(super) fn version6(frame: &[u8], start: usize) -> Result<Network, Malformed> {
    let bytes = frame.get(start..).ok_or(Malformed::Short)?;
    let view = Ipv6Packet::new(bytes).ok_or(Malformed::Short)?;
    if view.get_version() != 6 {
        return Err(Malformed::Header);
    }
    let total = IPV6_HEADER + usize::from(view.get_payload_length());
    if total > bytes.len() {
        return Err(Malformed::Short);
    }
    let mut network = header6(&view, start, start + total);
    walk(frame.get(..network.end).unwrap_or_default(), &mut network, true)?;
    Ok(network)
}

/// The IPv6 packet at an offset of an ICMPv6 error, which may be cut short.
pub(super) fn quoted6(message: &[u8], start: usize) -> Result<Network, Malformed> {
    let bytes = message.get(start..).ok_or(Malformed::Quoted)?;
    let view = Ipv6Packet::new(bytes).ok_or(Malformed::Quoted)?;
    if view.get_version() != 6 {
        return Err(Malformed::Quoted);
    }
    let mut network = header6(&view, start, message.len());
    walk(message, &mut network, false).map_err(|_| Malformed::Quoted)?;
    Ok(network)
}

fn header6(view: &Ipv6Packet<'_>, start: usize, end: usize) -> Network {
    Network {
        source: view.get_source().into(),
        destination: view.get_destination().into(),
        protocol: view.get_next_header().0,
        ttl: view.get_hop_limit(),
        dont_fragment: true,
        fragment: None,
        transport: start + IPV6_HEADER,
        end,
    }
}

/// Walks through the extension headers up to what the packet carries (RFC 8200 section 4). `is_whole`: lengths of
/// fragments can be checked.
fn walk(packet: &[u8], network: &mut Network, is_whole: bool) -> Result<(), Malformed> {
    for count in 0..=MOST_EXTENSIONS {
        let is_extension = matches!(
            network.protocol,
            number::HOP_BY_HOP | number::ROUTING | number::FRAGMENT | number::DESTINATION_OPTIONS
        );
        if !is_extension || network.is_later_fragment() {
            return Ok(());
        }
        if count == MOST_EXTENSIONS {
            break;
        }
        let header: &[u8; 8] = (packet.get(network.transport..))
            .and_then(<[u8]>::first_chunk)
            .ok_or(Malformed::Short)?;
        let [next, len, _, segments_left, ..] = *header;
        match network.protocol {
            // only the first may be looked at by every hop
            number::HOP_BY_HOP if count > 0 => return Err(Malformed::Extension),
            // the checksum covers an address that is not the destination yet (RFC 8200 section 8.1)
            number::ROUTING if segments_left > 0 => return Err(Malformed::Extension),
            number::FRAGMENT => {
                if network.fragment.is_some() {
                    return Err(Malformed::Extension);
                }
                network.transport += 8;
                network.fragment = fragment6(header, is_whole.then(|| network.end - network.transport))?;
            }
            _ => network.transport += 8 + usize::from(len) * 8,
        }
        network.protocol = next;
        if network.transport > network.end {
            return Err(Malformed::Short);
        }
    }
    Err(Malformed::Extension)
}

/// A fragment header; `None` if it is of an unfragmented packet (an atomic fragment, RFC 6946).
fn fragment6(header: &[u8; 8], len: Option<usize>) -> Result<Option<Fragment>, Malformed> {
    let [protocol, _, high, low, id @ ..] = *header;
    let bits = u16::from_be_bytes([high, low]);
    let (offset, more) = (bits & !7, bits & 1 != 0);
    if offset == 0 && !more {
        return Ok(None);
    }
    fragment(u32::from_be_bytes(id), protocol, offset, more, len).map(Some)
}
