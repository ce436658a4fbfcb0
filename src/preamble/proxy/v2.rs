//! Version 2, binary (section 2.2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{
    MAX_HEADER_BYTES, ProxyHeader, ProxyRefusal, ProxySource, ProxyVersion, Tlvs, canonical, crc32c,
    tlvs::{self, Checksum},
};
use crate::{base::Protocol, preamble::cursor::Cursor};
use ProxyRefusal::Malformed;

pub(super) const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Signature, version and command, family and protocol, and a length of two bytes.
const FIXED_BYTES: usize = 16;

const VERSION: u8 = 2;
const LOCAL: u8 = 0;
const PROXY: u8 = 1;

const UNSPEC: u8 = 0;
const INET: u8 = 1;
const INET6: u8 = 2;
const UNIX: u8 = 3;
const STREAM: u8 = 1;
const DGRAM: u8 = 2;

/// Two paths of a UNIX socket.
const UNIX_BYTES: usize = 2 * 108;

/// The header that a server gets first: the source of a TCP connection, the TLVs, and a checksum of it all if there shall
/// be one. LOCAL is written alone. It has 2,048 bytes at most; 536 are sure to arrive in one piece (section 2).
///
/// A client and a destination of two families are written as INET6 with the IPv4 one mapped into IPv6, as HAProxy does.
#[must_use]
pub fn write(source: ProxySource, tlvs: &Tlvs, with_checksum: bool) -> Vec<u8> {
    write_of(Protocol::Tcp, source, tlvs, with_checksum)
}

/// As [`write`], of a connection of either protocol: of UDP it stands before the first datagram.
#[must_use]
pub fn write_of(protocol: Protocol, source: ProxySource, tlvs: &Tlvs, with_checksum: bool) -> Vec<u8> {
    let transport = match protocol {
        Protocol::Tcp => STREAM,
        Protocol::Udp => DGRAM,
    };
    let (command, family, addresses) = match source {
        ProxySource::Local => (LOCAL, UNSPEC, Vec::new()),
        ProxySource::Unknown => (PROXY, UNSPEC, Vec::new()),
        ProxySource::Client { client, destination } => {
            let (family, addresses) = write_addresses(canonical(client), canonical(destination));
            (PROXY, (family << 4) | transport, addresses)
        }
    };
    let mut header = SIGNATURE.to_vec();
    header.extend([(VERSION << 4) | command, family, 0, 0]);
    if source == ProxySource::Local {
        return header;
    }
    header.extend(addresses);
    tlvs.write(&mut header);
    let checksum = with_checksum.then(|| tlvs::write_empty_checksum(&mut header));
    // what is in it has bounds by type, and they are far from this one's
    let length = (header.len() - FIXED_BYTES) as u16;
    header[FIXED_BYTES - 2..FIXED_BYTES].copy_from_slice(&length.to_be_bytes());
    if let Some(place) = checksum {
        let sum = crc32c::checksum(&[&header]);
        header[place].copy_from_slice(&sum.to_be_bytes());
    }
    header
}

/// Family and addresses.
fn write_addresses(client: SocketAddr, destination: SocketAddr) -> (u8, Vec<u8>) {
    let ipv6 = |ip| match ip {
        IpAddr::V4(ip) => Ipv4Addr::to_ipv6_mapped(&ip).octets(),
        IpAddr::V6(ip) => ip.octets(),
    };
    let (family, mut out) = match (client.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => (INET, [from.octets(), to.octets()].concat()),
        (from, to) => (INET6, [ipv6(from), ipv6(to)].concat()),
    };
    out.extend(client.port().to_be_bytes());
    out.extend(destination.port().to_be_bytes());
    (family, out)
}

/// Reads what begins with the signature; `None` if it is not whole.
pub(super) fn read(all: &[u8]) -> Result<Option<ProxyHeader>, ProxyRefusal> {
    let mut fields = Cursor::new(all.get(SIGNATURE.len()..).unwrap_or_default());
    let Some(version_and_command) = fields.u8() else {
        return Ok(None);
    };
    let command = version_and_command & 0xf;
    if version_and_command >> 4 != VERSION {
        return Err(Malformed("its version is not 2"));
    }
    if command != LOCAL && command != PROXY {
        return Err(Malformed("its command is not LOCAL or PROXY"));
    }
    let Some(family_and_protocol) = fields.u8() else {
        return Ok(None);
    };
    // of LOCAL it is ignored
    if command == PROXY && (family_and_protocol >> 4 > UNIX || family_and_protocol & 0xf > DGRAM) {
        return Err(Malformed("its family or its protocol is not one"));
    }
    let Some(length) = fields.u16() else {
        return Ok(None);
    };
    let length = FIXED_BYTES + usize::from(length);
    if length > MAX_HEADER_BYTES {
        return Err(ProxyRefusal::TooLong);
    }
    let Some(header) = all.get(..length) else {
        return Ok(None);
    };
    let (source, tlvs) = match command {
        LOCAL => (ProxySource::Local, Tlvs::default()),
        _ => read_block(header, family_and_protocol)?,
    };
    Ok(Some(ProxyHeader {
        version: ProxyVersion::V2,
        source,
        tlvs,
        length,
    }))
}

/// Reads addresses and TLVs of a whole header.
fn read_block(header: &[u8], family_and_protocol: u8) -> Result<(ProxySource, Tlvs), ProxyRefusal> {
    const SHORT: ProxyRefusal = Malformed("it is too short for its addresses");
    let mut block = Cursor::new(&header[FIXED_BYTES..]);
    let family = match family_and_protocol & 0xf {
        STREAM | DGRAM => family_and_protocol >> 4,
        // what its addresses are is not specified, either
        _ => UNSPEC,
    };
    let source = match family {
        INET => inet::<4, Ipv4Addr>(&mut block).ok_or(SHORT)?,
        INET6 => inet::<16, Ipv6Addr>(&mut block).ok_or(SHORT)?,
        UNIX => {
            block.bytes(UNIX_BYTES).ok_or(SHORT)?;
            ProxySource::Unknown
        }
        _ => ProxySource::Unknown,
    };
    let (tlvs, checksum) = match Tlvs::read(block) {
        Ok(read) => read,
        // its addresses come first, or whatever it is
        Err(_) if family == UNSPEC => return Ok((source, Tlvs::default())),
        Err(wrong) => return Err(Malformed(wrong)),
    };
    match checksum {
        Some(checksum) if !is_right(header, checksum) => Err(ProxyRefusal::Checksum),
        _ => Ok((source, tlvs)),
    }
}

fn inet<const N: usize, A>(block: &mut Cursor<'_>) -> Option<ProxySource>
where
    A: From<[u8; N]> + Into<IpAddr>,
{
    let [from, to] = [block.array::<N>()?, block.array::<N>()?].map(|octets| A::from(octets).into());
    let [from_port, to_port] = [block.u16()?, block.u16()?];
    Some(ProxySource::client(
        SocketAddr::new(from, from_port),
        SocketAddr::new(to, to_port),
    ))
}

/// Whether a checksum is that of the header with zeros in its place.
fn is_right(header: &[u8], checksum: Checksum) -> bool {
    let Checksum { value, bytes_after } = checksum;
    let zeros = [0; size_of::<u32>()];
    let (before, after) = header.split_at(header.len() - bytes_after);
    let before = &before[..before.len() - zeros.len()];
    crc32c::checksum(&[before, &zeros, after]) == value
}
