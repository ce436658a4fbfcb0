//! What an IP packet carries: TCP, UDP, ICMP errors with the packets inside them.

use pnet::packet::{icmp::IcmpPacket, tcp::TcpPacket, udp::UdpPacket};

use super::{
    Content, ErrorKind, IcmpError, Malformed, Quoted, TCP_HEADER, Tcp, TcpFlags, UDP_HEADER, Udp,
    ip::{self, Network},
    number, word,
};

/// Type, code, checksum and four bytes more, before the packet that an ICMP error is about.
const ICMP_HEADER: usize = 8;

/// What a packet carries. `packet`: the frame up to the packet's end.
pub(super) fn content(packet: &[u8], network: &Network) -> Result<Content, Malformed> {
    if network.is_later_fragment() {
        return Ok(Content::LaterFragment);
    }
    let bytes = packet.get(network.transport..).ok_or(Malformed::Short)?;
    let is_fragment = network.fragment.is_some();
    // of a first fragment too little to decide by, of a whole packet too little
    let short = if is_fragment {
        Malformed::Fragment
    } else {
        Malformed::Short
    };
    match (network.protocol, network.source.is_ipv4()) {
        (number::TCP, _) => tcp(bytes, is_fragment, short),
        (number::UDP, _) => udp(bytes, is_fragment, short),
        (number::ICMP, true) | (number::ICMPV6, false) if is_fragment => Ok(Content::Icmp),
        (number::ICMP, true) => icmp4(packet, network.transport),
        (number::ICMPV6, false) => icmp6(packet, network.transport),
        _ => Ok(Content::Other),
    }
}

fn tcp(bytes: &[u8], is_fragment: bool, short: Malformed) -> Result<Content, Malformed> {
    let view = TcpPacket::new(bytes).ok_or(short)?;
    let header_len = usize::from(view.get_data_offset()) * 4;
    if header_len < TCP_HEADER {
        return Err(Malformed::Header);
    }
    // options may go on in the next fragment
    if header_len > bytes.len() && !is_fragment {
        return Err(Malformed::Short);
    }
    Ok(Content::Tcp(Tcp {
        source: view.get_source(),
        destination: view.get_destination(),
        flags: TcpFlags(view.get_flags()),
        sequence: view.get_sequence(),
        acknowledgement: view.get_acknowledgement(),
        timestamp: timestamp(bytes.get(TCP_HEADER..header_len).unwrap_or_default()),
        header_len,
    }))
}

/// TSval of the timestamps option (RFC 7323 section 3.2) among a header's options.
fn timestamp(options: &[u8]) -> Option<u32> {
    const END: u8 = 0;
    const NOTHING: u8 = 1;
    const TIMESTAMPS: u8 = 8;
    let mut rest = options;
    loop {
        rest = match *rest {
            [NOTHING, ref more @ ..] => more,
            [TIMESTAMPS, 10, a, b, c, d, ..] => return Some(u32::from_be_bytes([a, b, c, d])),
            [END, ..] => return None,
            // kind and length, both counted in the length
            [_, len, ..] if len >= 2 => rest.get(usize::from(len)..)?,
            _ => return None,
        };
    }
}

fn udp(bytes: &[u8], is_fragment: bool, short: Malformed) -> Result<Content, Malformed> {
    let view = UdpPacket::new(bytes).ok_or(short)?;
    let len = usize::from(view.get_length());
    if len < UDP_HEADER {
        return Err(Malformed::Header);
    }
    if len > bytes.len() && !is_fragment {
        return Err(Malformed::Short);
    }
    Ok(Content::Udp(Udp {
        source: view.get_source(),
        destination: view.get_destination(),
        no_checksum: view.get_checksum() == 0,
    }))
}

/// ICMP (RFC 792). Source quench and redirects are errors too, but no host obeys them any more (RFC 6633).
fn icmp4(packet: &[u8], transport: usize) -> Result<Content, Malformed> {
    let (icmp_type, code) = type_and_code(packet, transport)?;
    let kind = match (icmp_type, code) {
        (3, 4) => ErrorKind::TooBig {
            mtu: u32::from(word(packet, transport + 6).ok_or(Malformed::Short)?),
        },
        (3, _) => ErrorKind::Unreachable,
        (11, _) => ErrorKind::TimeExceeded,
        (12, _) => ErrorKind::ParameterProblem,
        _ => return Ok(Content::Icmp),
    };
    let quoted = quoted(packet, &ip::quoted4(packet, transport + ICMP_HEADER)?, transport)?;
    Ok(Content::Error(IcmpError { kind, quoted }))
}

/// ICMPv6 (RFC 4443).
fn icmp6(packet: &[u8], transport: usize) -> Result<Content, Malformed> {
    let (icmp_type, _) = type_and_code(packet, transport)?;
    let kind = match icmp_type {
        1 => ErrorKind::Unreachable,
        2 => {
            let mtu = packet.get(transport + 4..).and_then(<[u8]>::first_chunk);
            ErrorKind::TooBig {
                mtu: u32::from_be_bytes(*mtu.ok_or(Malformed::Short)?),
            }
        }
        3 => ErrorKind::TimeExceeded,
        4 => ErrorKind::ParameterProblem,
        _ => return Ok(Content::Icmp),
    };
    let quoted = quoted(packet, &ip::quoted6(packet, transport + ICMP_HEADER)?, transport)?;
    Ok(Content::Error(IcmpError { kind, quoted }))
}

fn type_and_code(packet: &[u8], transport: usize) -> Result<(u8, u8), Malformed> {
    let bytes = packet.get(transport..).unwrap_or_default();
    let view = IcmpPacket::new(bytes).ok_or(Malformed::Short)?;
    Ok((view.get_icmp_type().0, view.get_icmp_code().0))
}

/// The packet inside an ICMP error. At least 8 bytes of its transport header are quoted (RFC 792), unless it was shorter.
fn quoted(packet: &[u8], network: &Network, icmp: usize) -> Result<Quoted, Malformed> {
    let has_ports = matches!(network.protocol, number::TCP | number::UDP) && !network.is_later_fragment();
    let ports = if has_ports {
        let ports = word(packet, network.transport).zip(word(packet, network.transport + 2));
        Some(ports.ok_or(Malformed::Quoted)?)
    } else {
        None
    };
    Ok(Quoted {
        source: network.source,
        destination: network.destination,
        protocol: network.protocol,
        ports,
        sequence: ports
            .filter(|_| network.protocol == number::TCP)
            .and_then(|_| packet.get(network.transport + 4..)?.first_chunk())
            .map(|bytes| u32::from_be_bytes(*bytes)),
        fragment: network.fragment,
        network: icmp + ICMP_HEADER,
        transport: network.transport,
    })
}
