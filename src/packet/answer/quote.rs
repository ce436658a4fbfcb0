//! The packet that an ICMP error quotes: as its sender sent it, not as the kernel joined it or left it unfinished.

use pnet::packet::{
    Packet,
    ipv4::MutableIpv4Packet,
    ipv6::MutableIpv6Packet,
    tcp::{MutableTcpPacket, TcpFlags},
    udp::MutableUdpPacket,
};

use super::{IPV6_HEADER, Offload, Parsed};
use crate::packet::{
    Content,
    checksum::{self, Sum},
};

/// The first IP packet that a frame stands for, its checksums finished. `None` if `parsed` is not of the frame.
pub(super) fn first_packet(frame: &[u8], parsed: &Parsed, offload: &Offload) -> Option<Vec<u8>> {
    let len = usize::try_from(parsed.largest_packet(offload)).ok()?;
    let is_split = len < parsed.ip_len();
    let is_unfinished =
        (offload.checksum).is_some_and(|checksum| usize::from(checksum.start) == parsed.transport);
    let mut packet = frame
        .get(parsed.network..parsed.network.checked_add(len)?)?
        .to_vec();
    if is_split {
        set_length(&mut packet, parsed)?;
    }
    if is_split || is_unfinished {
        let transport = packet.get_mut(parsed.transport.checked_sub(parsed.network)?..)?;
        finish(transport, parsed, is_split)?;
    }
    Some(packet)
}

/// Gives the IP header the packet's own length.
fn set_length(packet: &mut [u8], parsed: &Parsed) -> Option<()> {
    let len = packet.len();
    if parsed.source.is_ipv4() {
        let header_len = parsed.transport.checked_sub(parsed.network)?;
        let mut view = MutableIpv4Packet::new(packet.get_mut(..header_len)?)?;
        view.set_total_length(u16::try_from(len).ok()?);
        view.set_checksum(0);
        let sum = checksum::checksum(view.packet());
        view.set_checksum(sum);
    } else {
        let payload = u16::try_from(len.checked_sub(IPV6_HEADER)?).ok()?;
        MutableIpv6Packet::new(packet)?.set_payload_length(payload);
    }
    Some(())
}

/// Finishes the transport checksum, and makes the header that of the first of several packets.
fn finish(transport: &mut [u8], parsed: &Parsed, is_split: bool) -> Option<()> {
    let len = transport.len();
    let pseudo = Sum::default().pseudo_header(parsed.source, parsed.destination, parsed.protocol, len);
    match parsed.content {
        Content::Tcp(tcp) => {
            let mut view = MutableTcpPacket::new(transport)?;
            if is_split {
                // the last one has them
                view.set_flags(tcp.flags.0 & !(TcpFlags::FIN | TcpFlags::PSH));
            }
            view.set_checksum(0);
            let sum = pseudo.bytes(view.packet()).finish();
            view.set_checksum(sum);
        }
        Content::Udp(udp) if !udp.no_checksum => {
            let mut view = MutableUdpPacket::new(transport)?;
            if is_split {
                view.set_length(u16::try_from(len).ok()?);
            }
            view.set_checksum(0);
            let sum = pseudo.bytes(view.packet()).finish();
            // a sum of zero is sent as all ones (RFC 768)
            view.set_checksum(if sum == 0 { 0xffff } else { sum });
        }
        Content::Udp(_) if is_split => {
            MutableUdpPacket::new(transport)?.set_length(u16::try_from(len).ok()?);
        }
        _ => {}
    }
    Some(())
}
