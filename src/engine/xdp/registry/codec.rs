//! The bytes of what the files hold: numbers in little-endian order, addresses in 16 bytes, IPv4 ones mapped. Pure.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::{
    base::{BackendName, FrontendName, ListenAddr, ListenRange, Protocol, ServerKey, ServerName},
    engine::xdp::{
        layout::{TARGETS, TrafficValue, octets},
        numbers::{Identity, Noted, Record},
    },
};

/// Flags of a record.
const DSR: u8 = 1;
const HAS_VIP: u8 = 2;
const IPV4: u8 = 4;

/// Bytes of a record with the longest names.
const RECORD: usize = 27 + 3 * 256;
/// Bytes of a place where a target is configured.
const PLACE: usize = 26;

/// Places that are noted, at most.
const PLACES: usize = 1 << 18;

/// Bytes of what the numbers mean, at most.
pub const LONGEST: usize = 8 + TARGETS as usize * RECORD + PLACES * PLACE;

/// How far what the program has counted of a number has been counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// The program's counters.
    pub traffic: TrafficValue,
    /// Which target had the number.
    pub incarnation: u32,
    /// Its flows that were open then.
    pub open: u64,
}

impl Counted {
    /// Bytes of it: none lies across two pages, of which one may have been written and the other not.
    pub const SIZE: usize = 128;

    /// As the file has it.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        let fields = [
            &self.traffic.to_bytes()[..],
            &self.open.to_le_bytes(),
            &self.incarnation.to_le_bytes(),
        ];
        let mut bytes = [0; Self::SIZE];
        bytes
            .iter_mut()
            .zip(fields.concat())
            .for_each(|(to, from)| *to = from);
        bytes
    }

    /// From the file's bytes; nothing where there are too few.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self::read(&mut Reader(bytes)).unwrap_or_default()
    }

    fn read(from: &mut Reader<'_>) -> Option<Self> {
        let traffic = TrafficValue::sum(&from.take::<{ TrafficValue::SIZE }>()?);
        Some(Self {
            traffic,
            open: from.take().map(u64::from_le_bytes)?,
            incarnation: from.take().map(u32::from_le_bytes)?,
        })
    }
}

/// What the numbers mean. Places beyond a limit are left out.
pub fn numbers_to_bytes(noted: &Noted) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(noted.incarnations.to_le_bytes());
    // there are no more numbers than that
    bytes.extend((noted.records.len() as u32).to_le_bytes());
    for record in &noted.records {
        put_record(&mut bytes, record);
    }
    let places = (noted.records.iter().zip(0_u32..))
        .flat_map(|(record, at)| record.places.iter().map(move |place| (at, place)));
    for (at, place) in places.take(PLACES) {
        put_place(&mut bytes, at, place);
    }
    bytes
}

/// The same read; `None`: nobody of ours has written that.
pub fn numbers(bytes: &[u8]) -> Option<Noted> {
    let mut from = Reader(bytes);
    let incarnations = u32::from_le_bytes(from.take()?);
    let count = u32::from_le_bytes(from.take()?);
    if count >= TARGETS {
        return None;
    }
    let records: Option<Vec<_>> = (0..count).map(|_| record(&mut from)).collect();
    let mut records = records?;
    if from.0.len() > PLACES * PLACE {
        return None;
    }
    while !from.0.is_empty() {
        let (at, place) = place(&mut from)?;
        records.get_mut(at)?.places.push(place);
    }
    Some(Noted {
        incarnations,
        records,
    })
}

fn put_record(bytes: &mut Vec<u8>, record: &Record) {
    let Identity {
        is_dsr,
        frontend,
        server,
        ip,
        shift,
        has_vip,
    } = &record.identity;
    let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
    bytes.extend(record.number.to_le_bytes());
    bytes.extend(record.server.to_le_bytes());
    bytes.extend(record.incarnation.to_le_bytes());
    bytes.push(flag(*is_dsr, DSR) | flag(*has_vip, HAS_VIP) | flag(ip.is_ipv4(), IPV4));
    bytes.extend(shift.to_le_bytes());
    bytes.extend(octets(*ip));
    for name in [frontend.as_str(), server.backend.as_str(), server.server.as_str()] {
        // names have 255 bytes at most
        bytes.push(name.len() as u8);
        bytes.extend(name.as_bytes());
    }
}

fn record(from: &mut Reader<'_>) -> Option<Record> {
    let number = u16::from_le_bytes(from.take()?);
    let server = u16::from_le_bytes(from.take()?);
    let incarnation = u32::from_le_bytes(from.take()?);
    let [flags] = from.take()?;
    let shift = u16::from_le_bytes(from.take()?);
    let ip = address(from.take()?, flags & IPV4 != 0);
    let frontend = FrontendName::new(from.name()?).ok()?;
    let backend = BackendName::new(from.name()?).ok()?;
    Some(Record {
        number,
        server,
        incarnation,
        identity: Identity {
            is_dsr: flags & DSR != 0,
            frontend,
            server: ServerKey {
                backend,
                server: ServerName::new(from.name()?).ok()?,
            },
            ip,
            shift,
            has_vip: flags & HAS_VIP != 0,
        },
        places: Vec::new(),
    })
}

fn put_place(bytes: &mut Vec<u8>, at: u32, (protocol, range): &(Protocol, ListenRange)) {
    let ports = range.ports();
    bytes.extend(at.to_le_bytes());
    bytes.extend([protocol.number(), if range.ip().is_ipv4() { IPV4 } else { 0 }]);
    bytes.extend(octets(range.ip()));
    bytes.extend(ports.first.to_le_bytes());
    bytes.extend(ports.last.to_le_bytes());
}

fn place(from: &mut Reader<'_>) -> Option<(usize, (Protocol, ListenRange))> {
    let at = usize::try_from(u32::from_le_bytes(from.take()?)).ok()?;
    let [protocol, family] = from.take()?;
    let protocol = [Protocol::Tcp, Protocol::Udp]
        .into_iter()
        .find(|known| known.number() == protocol)?;
    let ip = address(from.take()?, family == IPV4);
    let (first, last) = (u16::from_le_bytes(from.take()?), u16::from_le_bytes(from.take()?));
    let range = ListenRange::new(ListenAddr::new(SocketAddr::new(ip, first)), last)?;
    Some((at, (protocol, range)))
}

fn address(octets: [u8; 16], is_ipv4: bool) -> IpAddr {
    let ip = Ipv6Addr::from(octets);
    let mapped = ip.to_ipv4_mapped().filter(|_| is_ipv4);
    mapped.map_or(IpAddr::V6(ip), IpAddr::V4)
}

/// Bytes read one field after the other; `None` where they end.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    fn name(&mut self) -> Option<&'a str> {
        let [length] = self.take()?;
        let (name, rest) = self.0.split_at_checked(length.into())?;
        self.0 = rest;
        std::str::from_utf8(name).ok()
    }
}
