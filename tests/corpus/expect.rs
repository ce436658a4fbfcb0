//! What must leave: as forwarded, or as our own answer.

use convey::packet::{
    parse,
    testing::{Body, Packet, SumKind},
};

use crate::{
    words::{self, Described, Wrong},
    world::Worlds,
};

/// Bytes that an ICMP error of ours quotes at most: 576 in all (RFC 1812), 1,280 in IPv6 (RFC 4443).
const QUOTED4: usize = 576 - 28;
const QUOTED6: usize = 1_280 - 48;

/// A packet that has come in.
#[derive(Clone)]
pub struct Arrived {
    pub described: Described,
    /// Name of the interface.
    pub from: String,
}

impl Arrived {
    /// A packet in words that comes in by an interface.
    pub fn read(worlds: &Worlds, from: &str, text: &str) -> Result<Self, Wrong> {
        let (mut described, links) = Described::read(text).map_err(|wrong| format!("{text}: {wrong}"))?;
        let interface = worlds.interface(from)?;
        let packet = &mut described.packet;
        packet.link_destination = links.destination.map_or_else(|| words::mac(&interface.mac), Ok)?;
        let source = packet.source;
        packet.link_source = links
            .source
            .map_or_else(|| worlds.link_of(source, interface), Ok)?;
        Ok(Self {
            described,
            from: from.to_owned(),
        })
    }

    /// This packet as it leaves by an interface, with what differs besides TTL, link addresses and, on another
    /// interface, tags.
    pub fn leaving(&self, worlds: &Worlds, by: &str, text: &str) -> Result<Described, Wrong> {
        let interface = worlds.interface(by)?;
        let mut leaving = self.described.clone();
        leaving.packet.ttl = leaving.packet.ttl.saturating_sub(1);
        if by != self.from {
            leaving.packet.tags.clear();
        }
        let (mut leaving, links) = leaving
            .differing(text)
            .map_err(|wrong| format!("{text}: {wrong}"))?;
        let packet = &mut leaving.packet;
        packet.link_source = links.source.map_or_else(|| words::mac(&interface.mac), Ok)?;
        let destination = packet.destination;
        packet.link_destination =
            (links.destination).map_or_else(|| worlds.link_of(destination, interface), Ok)?;
        Ok(leaving)
    }

    /// Our answer to this packet.
    pub fn answer(&self, text: &str) -> Result<Packet, Wrong> {
        let mut answer = match text.split_once(' ').unwrap_or((text, "")) {
            ("rst", numbers) => self.reset(numbers)?,
            ("port_unreachable", "") => self.error((3, 3), (1, 4), 0),
            ("too_big", mtu) => self.error((3, 4), (2, 0), words::number(mtu)?),
            ("time_exceeded", "") => self.error((11, 0), (3, 0), 0),
            _ => return Err("no answer of ours".to_owned()),
        };
        let packet = &self.described.packet;
        answer.link_source = packet.link_destination;
        answer.link_destination = packet.link_source;
        answer.tags.clone_from(&packet.tags);
        Ok(answer)
    }

    fn reset(&self, numbers: &str) -> Result<Packet, Wrong> {
        let packet = &self.described.packet;
        let Body::Tcp {
            source, destination, ..
        } = packet.body
        else {
            return Err("only TCP can be reset".to_owned());
        };
        let flags = if numbers.contains("ack=") { "RA" } else { "R" };
        let (from, to) = (
            std::net::SocketAddr::new(packet.destination, destination),
            std::net::SocketAddr::new(packet.source, source),
        );
        let text = format!("tcp {from} > {to} flags={flags} ack=0 win=0 {numbers}");
        Ok(Described::read(&text)?.0.packet)
    }

    fn error(&self, v4: (u8, u8), v6: (u8, u8), rest: u32) -> Packet {
        let packet = &self.described.packet;
        let is_ipv4 = packet.source.is_ipv4();
        let ((icmp_type, code), quoted) = if is_ipv4 { (v4, QUOTED4) } else { (v6, QUOTED6) };
        let header = (icmp_type, code, rest);
        let about = self.first_packet();
        let mut error = Packet::error(packet.destination, packet.source, header, &about, quoted);
        error.tos = 0xc0;
        error
    }

    /// The packet as its sender has sent it: the first one of a super-frame, its checksum finished.
    fn first_packet(&self) -> Packet {
        let mut packet = self.described.whole();
        if packet.sum == SumKind::Unfinished {
            packet.sum = SumKind::Right;
        }
        let Some(size) = packet.segment_size.take() else {
            return packet;
        };
        match &mut packet.body {
            Body::Tcp { payload, flags, .. } => {
                payload.truncate(size.get().into());
                *flags &= !0x09;
            }
            Body::Udp { payload, .. } => payload.truncate(size.get().into()),
            Body::Icmp { .. } | Body::Other { .. } => {}
        }
        packet
    }
}

/// Two frames must be the same, byte by byte.
pub fn same_frames(wanted: &[u8], got: &[u8]) -> Result<(), Wrong> {
    if wanted == got {
        return Ok(());
    }
    let at = wanted.iter().zip(got).position(|(wanted, got)| wanted != got);
    let at = at.unwrap_or(wanted.len().min(got.len()));
    Err(format!(
        "another frame from byte {at} on\n  wanted {}\n         {}\n  got    {}\n         {}",
        words::to_hex(wanted),
        told(wanted),
        words::to_hex(got),
        told(got),
    ))
}

/// A frame for people.
fn told(frame: &[u8]) -> String {
    match parse(frame) {
        Ok(parsed) => format!(
            "{} > {}, {} > {}, TTL {}, {:?}",
            parsed.link_source,
            parsed.link_destination,
            parsed.source,
            parsed.destination,
            parsed.ttl,
            parsed.content
        ),
        Err(error) => error.to_string(),
    }
}
