//! Rewriting in place: addresses, ports, TTL, and the packets inside ICMP errors, with their checksums.

use std::net::{IpAddr, SocketAddr};

use pnet::packet::{ipv4::MutableIpv4Packet, ipv6::MutableIpv6Packet};

use super::{
    Content, ErrorKind, Frame, IcmpError, Offload, Parsed,
    checksum::Delta,
    parse::{number, word},
};
use crate::base::PacketReason;

/// Both ends of a packet as they are to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AddressPair {
    /// From.
    pub source: SocketAddr,
    /// To, of the same family.
    pub destination: SocketAddr,
}

/// What was parsed is not of this frame, or the addresses are of another family, or there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[error("this cannot be written into this frame")]
pub struct RewriteError;

impl RewriteError {
    /// The counter that it belongs to.
    #[must_use]
    pub const fn reason(self) -> PacketReason {
        PacketReason::Malformed
    }
}

/// Gives a packet other addresses and, if it has them, ports; checksums follow (RFC 1624, or an unfinished one as
/// [`Offload`] says). `parsed` is of this frame, and goes on telling what it was before.
///
/// DSR: the packet's own source and the server. Passthrough: NAT address and server; back: VIP and client. Of a later
/// fragment only the addresses change.
///
/// # Errors
/// If it does not fit; nothing is changed then.
pub fn translate(frame: &mut Frame<'_>, parsed: &Parsed, to: &AddressPair) -> Result<(), RewriteError> {
    let old = [parsed.source, parsed.destination];
    let new = [to.source.ip(), to.destination.ip()];
    let ports = match parsed.content {
        Content::Tcp(tcp) => Some([tcp.source, tcp.destination]),
        Content::Udp(udp) => Some([udp.source, udp.destination]),
        Content::Error(_) | Content::Icmp | Content::LaterFragment | Content::Other => None,
    };
    let is_unfinished = is_unfinished(&frame.offload, parsed.transport);
    let packet = packet(frame, parsed)?;
    let addresses = set_addresses(packet, parsed.network, old, new)?;
    let Some(old_ports) = ports else {
        return Ok(());
    };
    let new_ports = [to.source.port(), to.destination.port()];
    let by_ports = set_ports(packet, parsed.transport, old_ports, new_ports);
    update_transport(packet, parsed.protocol, parsed.transport, |checksum, is_udp| {
        if is_unfinished {
            addresses.unfinished(checksum)
        } else if is_udp {
            addresses.and(by_ports).finished_udp(checksum)
        } else {
            addresses.and(by_ports).finished(checksum)
        }
    });
    Ok(())
}

/// Gives an ICMP error other addresses, and the packet inside it other addresses and ports; checksums of both follow.
///
/// # Errors
/// If it does not fit or is no ICMP error; nothing is changed then.
pub fn translate_error(
    frame: &mut Frame<'_>,
    parsed: &Parsed,
    source: IpAddr,
    destination: IpAddr,
    quoted: &AddressPair,
) -> Result<(), RewriteError> {
    let Content::Error(error) = parsed.content else {
        return Err(RewriteError);
    };
    let inner = error.quoted;
    let inner_old = [inner.source, inner.destination];
    let inner_new = [quoted.source.ip(), quoted.destination.ip()];
    if !same_families(inner_old, inner_new) {
        return Err(RewriteError);
    }
    let is_unfinished = is_unfinished(&frame.offload, parsed.transport);
    let packet = packet(frame, parsed)?;
    let old = [parsed.source, parsed.destination];
    let outer = set_addresses(packet, parsed.network, old, [source, destination])?;

    // every byte that changes inside changes the sum that ICMP's checksum is of
    let header_before = word(packet, inner.network + 10).filter(|_| inner.source.is_ipv4());
    let inner_addresses = set_addresses(packet, inner.network, inner_old, inner_new)?;
    let mut inside = inner_addresses;
    if let Some(before) = header_before {
        let after = word(packet, inner.network + 10).ok_or(RewriteError)?;
        inside = inside.word(before, after);
    }
    if let Some((from, to)) = inner.ports {
        let new = [quoted.source.port(), quoted.destination.port()];
        let ports = set_ports(packet, inner.transport, [from, to], new);
        inside = inside.and(ports);
        update_transport(packet, inner.protocol, inner.transport, |before, is_udp| {
            let changed = inner_addresses.and(ports);
            let after = if is_udp {
                changed.finished_udp(before)
            } else {
                changed.finished(before)
            };
            inside = inside.word(before, after);
            after
        });
    }
    // only ICMPv6 sums up a pseudo-header (RFC 4443 section 2.3)
    let pseudo = if parsed.source.is_ipv6() {
        outer
    } else {
        Delta::default()
    };
    update(packet, parsed.transport + 2, |checksum| {
        if is_unfinished {
            pseudo.unfinished(checksum)
        } else {
            pseudo.and(inside).finished(checksum)
        }
    });
    Ok(())
}

/// Raises the MTU that an ICMP error tells to `least` bytes, if it tells a smaller one; the checksum follows.
///
/// # Errors
/// If `parsed` is not of this frame.
pub fn raise_mtu(frame: &mut Frame<'_>, parsed: &Parsed, least: u32) -> Result<(), RewriteError> {
    let Content::Error(IcmpError {
        kind: ErrorKind::TooBig { mtu },
        ..
    }) = parsed.content
    else {
        return Ok(());
    };
    if mtu >= least {
        return Ok(());
    }
    let is_unfinished = is_unfinished(&frame.offload, parsed.transport);
    let packet = packet(frame, parsed)?;
    // four bytes, of which IPv4 uses the last two (RFC 1191 section 4)
    let [a, b, c, d] = least.to_be_bytes();
    let words = [(4, u16::from_be_bytes([a, b])), (6, u16::from_be_bytes([c, d]))];
    let mut delta = Delta::default();
    for (offset, new) in words.into_iter().skip(usize::from(parsed.source.is_ipv4())) {
        let at = parsed.transport + offset;
        let old = word(packet, at).ok_or(RewriteError)?;
        update(packet, at, |_| new);
        delta = delta.word(old, new);
    }
    if !is_unfinished {
        update(packet, parsed.transport + 2, |checksum| delta.finished(checksum));
    }
    Ok(())
}

/// Lowers TTL or hop limit by one (not below 0); the IPv4 header checksum follows. Who forwards has refused
/// [`Parsed::ttl`] ≤ 1 before (RFC 1812 section 5.3.1).
///
/// # Errors
/// If `parsed` is not of this frame.
pub fn decrement_ttl(frame: &mut Frame<'_>, parsed: &Parsed) -> Result<(), RewriteError> {
    let packet = packet(frame, parsed)?;
    let header = packet.get_mut(parsed.network..).ok_or(RewriteError)?;
    if parsed.source.is_ipv4() {
        let mut view = MutableIpv4Packet::new(header).ok_or(RewriteError)?;
        // TTL and protocol number share a word
        let protocol = view.get_next_level_protocol().0;
        let (old, new) = (view.get_ttl(), view.get_ttl().saturating_sub(1));
        let delta = Delta::default().word(
            u16::from_be_bytes([old, protocol]),
            u16::from_be_bytes([new, protocol]),
        );
        view.set_ttl(new);
        view.set_checksum(delta.finished(view.get_checksum()));
    } else {
        let mut view = MutableIpv6Packet::new(header).ok_or(RewriteError)?;
        view.set_hop_limit(view.get_hop_limit().saturating_sub(1));
    }
    Ok(())
}

/// The frame up to the end of its IP packet, if `parsed` can be of it.
fn packet<'a>(frame: &'a mut Frame<'_>, parsed: &Parsed) -> Result<&'a mut [u8], RewriteError> {
    frame.bytes_mut().get_mut(..parsed.end).ok_or(RewriteError)
}

/// Whether the checksum of the packet whose transport header starts at `transport` is still to be finished.
fn is_unfinished(offload: &Offload, transport: usize) -> bool {
    (offload.checksum).is_some_and(|checksum| usize::from(checksum.start) == transport)
}

fn same_families(old: [IpAddr; 2], new: [IpAddr; 2]) -> bool {
    let is_ipv4 = old[0].is_ipv4();
    [old[1], new[0], new[1]]
        .iter()
        .all(|address| address.is_ipv4() == is_ipv4)
}

/// Sets source and destination of the IP header at `network` and lets its own checksum follow. Returns what changed in
/// the pseudo-header.
fn set_addresses(
    packet: &mut [u8],
    network: usize,
    old: [IpAddr; 2],
    new: [IpAddr; 2],
) -> Result<Delta, RewriteError> {
    let header = packet.get_mut(network..).ok_or(RewriteError)?;
    let delta = Delta::default().address(old[0], new[0]).address(old[1], new[1]);
    match (old, new) {
        ([IpAddr::V4(_), IpAddr::V4(_)], [IpAddr::V4(source), IpAddr::V4(destination)]) => {
            let mut view = MutableIpv4Packet::new(header).ok_or(RewriteError)?;
            view.set_source(source);
            view.set_destination(destination);
            view.set_checksum(delta.finished(view.get_checksum()));
        }
        ([IpAddr::V6(_), IpAddr::V6(_)], [IpAddr::V6(source), IpAddr::V6(destination)]) => {
            let mut view = MutableIpv6Packet::new(header).ok_or(RewriteError)?;
            view.set_source(source);
            view.set_destination(destination);
        }
        _ => return Err(RewriteError),
    }
    Ok(delta)
}

/// Sets the ports, which TCP and UDP have in the same place. Returns what changed.
fn set_ports(packet: &mut [u8], transport: usize, old: [u16; 2], new: [u16; 2]) -> Delta {
    let mut delta = Delta::default();
    for (index, (old, new)) in old.into_iter().zip(new).enumerate() {
        if update(packet, transport + index * 2, |_| new) {
            delta = delta.word(old, new);
        }
    }
    delta
}

/// Changes the checksum field of a TCP or UDP header, if it is there: a packet inside an ICMP error may be cut off
/// before it.
fn update_transport(
    packet: &mut [u8],
    protocol: u8,
    transport: usize,
    change: impl FnOnce(u16, bool) -> u16,
) {
    let (offset, is_udp) = match protocol {
        number::TCP => (16, false),
        number::UDP => (6, true),
        _ => return,
    };
    update(packet, transport + offset, |old| change(old, is_udp));
}

/// Changes the 16-bit number at an offset; false if it is not there.
fn update(packet: &mut [u8], at: usize, change: impl FnOnce(u16) -> u16) -> bool {
    let Some(bytes) = packet.get_mut(at..).and_then(<[u8]>::first_chunk_mut) else {
        return false;
    };
    *bytes = change(u16::from_be_bytes(*bytes)).to_be_bytes();
    true
}
