//! Frames made of other frames, and checksums put right. Written without the code under test, but for where headers are.

use std::net::IpAddr;

use convey::packet::{Content, Offload, Parsed, SegmentKind, Segments, UnfinishedChecksum, parse};

use crate::input::How;

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

/// The sum of 16-bit words in ones' complement (RFC 1071).
fn sum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u32;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
    }
    sum as u16
}

/// Where the IP header of a frame starts, behind its tags.
fn network(frame: &[u8]) -> Option<usize> {
    let mut at = 12;
    while matches!(frame.get(at..at + 2)?, [0x81, 0x00] | [0x88, 0xa8]) {
        at += 4;
    }
    Some(at + 2)
}

/// Puts the checksum of an IPv4 header right.
fn fix_header(frame: &mut [u8]) -> Option<()> {
    let at = network(frame)?;
    let first = *frame.get(at)?;
    if first >> 4 != 4 || frame.get(at - 2..at)? != [0x08, 0x00] {
        return None;
    }
    let header = frame.get_mut(at..at + usize::from(first & 0xf) * 4)?;
    header.get_mut(10..12)?.fill(0);
    let right = !sum(&[header]);
    header.get_mut(10..12)?.copy_from_slice(&right.to_be_bytes());
    Some(())
}

/// Where the checksum of what an IP packet carries is, from there.
fn checksum_at(protocol: u8) -> Option<usize> {
    match protocol {
        TCP => Some(16),
        UDP => Some(6),
        1 | ICMPV6 => Some(2),
        _ => None,
    }
}

/// Puts the checksums of a frame right, as far as it has any; a UDP datagram without stays so.
pub fn fix(frame: &mut [u8], is_unfinished: bool) {
    fix_header(frame);
    let Ok(parsed) = parse(frame) else { return };
    if parsed.fragment.is_none() {
        fix_transport(frame, &parsed, is_unfinished);
    }
}

fn fix_transport(frame: &mut [u8], parsed: &Parsed, is_unfinished: bool) -> Option<()> {
    let field = checksum_at(parsed.protocol)?;
    let body = frame.get_mut(parsed.transport..parsed.end)?;
    let len = match parsed.protocol {
        UDP => usize::from(u16::from_be_bytes([body[4], body[5]])).min(body.len()),
        _ => body.len(),
    };
    let body = body.get_mut(..len)?;
    if parsed.protocol == UDP && body.get(field..field + 2)? == [0, 0] && !is_unfinished {
        return None;
    }
    body.get_mut(field..field + 2)?.fill(0);
    let len = u32::try_from(len).ok()?.to_be_bytes();
    let tail = [0, 0, 0, parsed.protocol];
    let pseudo = match (parsed.source, parsed.destination) {
        _ if parsed.protocol == 1 => Vec::new(),
        (IpAddr::V4(from), IpAddr::V4(to)) => [&from.octets()[..], &to.octets(), &len, &tail].concat(),
        (IpAddr::V6(from), IpAddr::V6(to)) => [&from.octets()[..], &to.octets(), &len, &tail].concat(),
        _ => return None,
    };
    let value = match (is_unfinished, parsed.protocol) {
        (true, TCP | UDP) => sum(&[&pseudo]),
        (_, UDP) => match !sum(&[&pseudo, body]) {
            0 => 0xffff,
            right => right,
        },
        _ => !sum(&[&pseudo, body]),
    };
    body.get_mut(field..field + 2)?
        .copy_from_slice(&value.to_be_bytes());
    Some(())
}

/// What the kernel would say of a frame.
pub fn offload(frame: &[u8], how: &How) -> Offload {
    let none = Offload::default();
    let Ok(parsed) = parse(frame) else { return none };
    let (kind, header_len) = match (parsed.content, parsed.source.is_ipv4()) {
        _ if parsed.fragment.is_some() => return none,
        (Content::Tcp(tcp), true) => (SegmentKind::Tcp4, tcp.header_len),
        (Content::Tcp(tcp), false) => (SegmentKind::Tcp6, tcp.header_len),
        (Content::Udp(_), _) => (SegmentKind::Udp, 8),
        _ => return none,
    };
    let (Ok(start), Ok(headers)) = (
        u16::try_from(parsed.transport),
        u16::try_from(parsed.transport + header_len),
    ) else {
        return none;
    };
    Offload {
        checksum: how.is_unfinished.then_some(UnfinishedChecksum {
            start,
            offset: if kind == SegmentKind::Udp { 6 } else { 16 },
        }),
        segments: std::num::NonZeroU16::new(how.segment_size).map(|size| Segments {
            kind,
            size,
            header_len: headers,
            ecn: false,
        }),
    }
}

/// Where the two IP addresses of a packet are, and how long one is.
fn addresses(parsed: &Parsed) -> (usize, usize, usize) {
    if parsed.source.is_ipv4() {
        (parsed.network + 12, parsed.network + 16, 4)
    } else {
        (parsed.network + 8, parsed.network + 24, 16)
    }
}

fn swap(frame: &mut [u8], one: usize, other: usize, len: usize) {
    let (before, after) = frame.split_at_mut(other);
    before[one..one + len].swap_with_slice(&mut after[..len]);
}

/// The frame on its way back, with other TCP flags.
pub fn reply(frame: &[u8], flags: u8) -> Option<Vec<u8>> {
    let parsed = parse(frame).ok()?;
    let mut back = frame.to_vec();
    swap(&mut back, 0, 6, 6);
    let (one, other, len) = addresses(&parsed);
    swap(&mut back, one, other, len);
    if matches!(parsed.content, Content::Tcp(_) | Content::Udp(_)) {
        swap(&mut back, parsed.transport, parsed.transport + 2, 2);
    }
    let ttl = parsed.network + if parsed.source.is_ipv4() { 8 } else { 7 };
    back[ttl] = 64;
    set_flags(&mut back, &parsed, flags);
    fix(&mut back, false);
    Some(back)
}

/// The frame with other TCP flags, from another port.
pub fn again(frame: &[u8], flags: u8, port: u8) -> Option<Vec<u8>> {
    let parsed = parse(frame).ok()?;
    let mut again = frame.to_vec();
    if matches!(parsed.content, Content::Tcp(_) | Content::Udp(_)) {
        let low = &mut again[parsed.transport + 1];
        *low = low.wrapping_add(port);
    }
    set_flags(&mut again, &parsed, flags);
    fix(&mut again, false);
    Some(again)
}

fn set_flags(frame: &mut [u8], parsed: &Parsed, flags: u8) {
    if matches!(parsed.content, Content::Tcp(_)) {
        frame[parsed.transport + 13] = flags;
    }
}

/// Types and codes of ICMP errors, and what stands in the four bytes after them.
const ERRORS4: [(u8, u8, u32); 5] = [(3, 4, 1_400), (3, 3, 0), (3, 4, 0), (11, 0, 0), (12, 0, 0)];
const ERRORS6: [(u8, u8, u32); 5] = [(2, 0, 1_400), (1, 4, 0), (2, 0, 1_280), (3, 0, 0), (4, 0, 0)];

/// An ICMP error about a frame, from where it was sent to, that quotes so many bytes of it.
pub fn error(frame: &[u8], kind: u8, quoted: usize) -> Option<Vec<u8>> {
    let parsed = parse(frame).ok()?;
    let about = frame.get(parsed.network..parsed.end)?;
    let quote = &about[..about.len().min(quoted)];
    let errors = if parsed.source.is_ipv4() { ERRORS4 } else { ERRORS6 };
    let (icmp_type, code, rest) = errors[usize::from(kind) % errors.len()];
    let len = 8 + quote.len();
    let mut error = [&frame[6..12], &frame[..6], &frame[12..parsed.network]].concat();
    match (parsed.source, parsed.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let total = u16::try_from(20 + len).ok()?.to_be_bytes();
            error.extend([0x45, 0, total[0], total[1], 0, 0, 0, 0, 64, 1, 0, 0]);
            error.extend(destination.octets());
            error.extend(source.octets());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let len = u16::try_from(len).ok()?.to_be_bytes();
            error.extend([0x60, 0, 0, 0, len[0], len[1], ICMPV6, 64]);
            error.extend(destination.octets());
            error.extend(source.octets());
        }
        _ => return None,
    }
    error.extend([icmp_type, code, 0, 0]);
    error.extend(rest.to_be_bytes());
    error.extend(quote);
    fix(&mut error, false);
    Some(error)
}
