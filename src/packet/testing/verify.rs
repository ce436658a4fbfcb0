//! Every checksum of a frame, summed up whole.

use std::net::IpAddr;

use crate::packet::{Content, Offload, parse};

/// The sum of 16-bit words in ones' complement (RFC 1071), the plain way.
pub(super) fn sum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        let low = pair.get(1).copied().unwrap_or(0);
        sum += u32::from(pair[0]) << 8 | u32::from(low);
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The pseudo-header of a transport packet.
pub(super) fn pseudo(source: IpAddr, destination: IpAddr, protocol: u8, len: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for address in [source, destination] {
        match address {
            IpAddr::V4(address) => bytes.extend(address.octets()),
            IpAddr::V6(address) => bytes.extend(address.octets()),
        }
    }
    bytes.extend(u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend([0, 0, 0, protocol]);
    bytes
}

/// Names of the checksums of a frame that are wrong: of the IPv4 header, of what it carries, and, if it is an ICMP
/// error, of the packet inside as far as it is whole. Unfinished ones are held to the pseudo-header's sum. What a
/// fragment carries cannot be checked.
#[must_use]
pub fn wrong_checksums(frame: &[u8], offload: &Offload) -> Vec<&'static str> {
    let parsed = match parse(frame) {
        Ok(parsed) => parsed,
        Err(error) if error.reason() == crate::base::PacketReason::BadHeaderChecksum => {
            return vec!["IPv4 header"];
        }
        Err(_) => return vec!["unreadable"],
    };
    let mut wrong = Vec::new();
    let body = &frame[parsed.transport..parsed.end];
    let is_whole = parsed.fragment.is_none();
    let unfinished = (offload.checksum)
        .filter(|checksum| usize::from(checksum.start) == parsed.transport)
        .map(|checksum| usize::from(checksum.offset));
    if is_whole
        && !is_right(
            parsed.source,
            parsed.destination,
            parsed.protocol,
            body,
            unfinished,
        )
    {
        wrong.push("transport");
    }
    if let Content::Error(error) = parsed.content {
        let inner = error.quoted;
        let header = &frame[inner.network..inner.transport];
        if inner.source.is_ipv4() && sum(header) != 0xffff {
            wrong.push("inner IPv4 header");
        }
        let body = &frame[inner.transport..parsed.end];
        let whole = if inner.source.is_ipv4() {
            let total = u16::from_be_bytes([header[2], header[3]]);
            usize::from(total).checked_sub(header.len())
        } else {
            let payload = u16::from_be_bytes([header[4], header[5]]);
            usize::from(payload).checked_sub(header.len() - 40)
        };
        if whole == Some(body.len())
            && inner.fragment.is_none()
            && !is_right(inner.source, inner.destination, inner.protocol, body, None)
        {
            wrong.push("inner transport");
        }
    }
    wrong
}

/// Whether the checksum of a transport packet is right; `unfinished`: where it is to be finished.
fn is_right(
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    body: &[u8],
    unfinished: Option<usize>,
) -> bool {
    let len = match protocol {
        // bytes after the datagram belong to nobody
        17 => usize::from(u16::from_be_bytes([body[4], body[5]])).min(body.len()),
        _ => body.len(),
    };
    let pseudo = pseudo(source, destination, protocol, len);
    if let Some(field) = unfinished {
        return sum(&pseudo) == u16::from_be_bytes([body[field], body[field + 1]]);
    }
    match protocol {
        1 => sum(body) == 0xffff,
        17 if body[6..8] == [0, 0] => true,
        6 | 17 | 58 => sum(&[pseudo.as_slice(), &body[..len]].concat()) == 0xffff,
        _ => true,
    }
}
