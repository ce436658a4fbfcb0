//! The bytes of keys and values.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::{
    EndpointKey, FlowKey, FlowValue, InterfaceValue, RANGES, RangeValue, ServiceValue, SettingsValue,
    StateCode, TargetFlags, TargetValue, TrafficValue, WatchCode,
};
use crate::base::Protocol;

/// Bytes written one field after the other.
pub(super) struct Writer<const N: usize> {
    bytes: [u8; N],
    at: usize,
}

impl<const N: usize> Writer<N> {
    pub const fn new() -> Self {
        Self { bytes: [0; N], at: 0 }
    }

    pub fn put(mut self, field: &[u8]) -> Self {
        let free = self.bytes.iter_mut().skip(self.at);
        free.zip(field).for_each(|(to, from)| *to = *from);
        self.at += field.len();
        self
    }

    pub fn ip(self, ip: IpAddr) -> Self {
        self.put(&octets(ip))
    }

    pub fn u16(self, value: u16) -> Self {
        self.put(&value.to_ne_bytes())
    }

    pub fn u32(self, value: u32) -> Self {
        self.put(&value.to_ne_bytes())
    }

    pub fn u64(self, value: u64) -> Self {
        self.put(&value.to_ne_bytes())
    }

    /// What is left is zeros.
    pub fn end(self) -> [u8; N] {
        debug_assert!(self.at <= N, "{} bytes of {N}", self.at);
        self.bytes
    }
}

/// Bytes read one field after the other; `None` where they end.
pub(super) struct Reader<'a>(pub &'a [u8]);

impl Reader<'_> {
    pub fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    pub fn u8(&mut self) -> Option<u8> {
        self.take().map(|[byte]| byte)
    }

    pub fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_ne_bytes)
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_ne_bytes)
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_ne_bytes)
    }
}

/// An address as keys and values have it.
#[must_use]
pub fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

fn ip_of(octets: [u8; 16], is_ipv4: bool) -> IpAddr {
    let ip = Ipv6Addr::from(octets);
    let mapped = ip.to_ipv4_mapped().filter(|_| is_ipv4);
    mapped.map_or(IpAddr::V6(ip), IpAddr::V4)
}

/// A family as keys and values have it.
pub(super) const fn family(is_ipv4: bool) -> u8 {
    if is_ipv4 { 4 } else { 6 }
}

impl EndpointKey {
    /// Bytes of it.
    pub const SIZE: usize = 20;

    /// As the maps have it.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::SIZE] {
        Writer::new()
            .ip(self.addr.ip())
            .put(&self.addr.port().to_be_bytes())
            .put(&[self.protocol.number(), family(self.addr.is_ipv4())])
            .end()
    }

    pub(super) fn read(from: &mut Reader<'_>) -> Option<Self> {
        let octets = from.take()?;
        let port = u16::from_be_bytes(from.take()?);
        let protocol = match from.u8()? {
            number if number == Protocol::Tcp.number() => Protocol::Tcp,
            number if number == Protocol::Udp.number() => Protocol::Udp,
            _ => return None,
        };
        let ip = ip_of(octets, from.u8()? == family(true));
        Some(Self {
            addr: SocketAddr::new(ip, port),
            protocol,
        })
    }
}

impl FlowKey {
    /// Bytes of it.
    pub const SIZE: usize = 40;

    /// As the map has it.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::SIZE] {
        Writer::new()
            .ip(self.from.ip())
            .put(&self.to.to_bytes())
            .put(&self.from.port().to_be_bytes())
            .end()
    }

    /// From the map's bytes; `None` if no program of ours has written them.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut from = Reader(bytes);
        let octets = from.take()?;
        let to = EndpointKey::read(&mut from)?;
        let port = u16::from_be_bytes(from.take()?);
        Some(Self {
            from: SocketAddr::new(ip_of(octets, to.addr.is_ipv4()), port),
            to,
        })
    }
}

const SERVICE_DSR: u16 = 1;
const SERVICE_RANGE: u16 = 2;

impl ServiceValue {
    /// Bytes of it.
    pub const SIZE: usize = 4;

    /// As the map has it.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::SIZE] {
        Writer::new()
            .u16(self.first_port)
            .u16(service_flags(self.is_dsr, self.is_range))
            .end()
    }
}

fn service_flags(is_dsr: bool, is_range: bool) -> u16 {
    (u16::from(is_dsr) * SERVICE_DSR) | (u16::from(is_range) * SERVICE_RANGE)
}

/// Bytes of a value of `ranges`.
pub const RANGES_SIZE: usize = 136;

/// A value of `ranges`: the first [`RANGES`] of these; packets to others are left to the slow path.
#[must_use]
pub fn ranges_to_bytes(ranges: &[RangeValue]) -> [u8; RANGES_SIZE] {
    let count = ranges.len().min(RANGES);
    // at most RANGES
    let start = Writer::new().u32(count as u32).u32(0);
    let written = ranges.iter().take(count).fold(start, |to, range| {
        to.u16(range.ports.0)
            .u16(range.ports.1)
            .u16(service_flags(range.is_dsr, true))
            .u16(0)
    });
    written.end()
}

pub(super) const TARGET_KNOWN: u16 = 1;
pub(super) const TARGET_DOWN: u16 = 2;
pub(super) const TARGET_L2: u16 = 4;
pub(super) const TARGET_SLOW: u16 = 8;

impl TargetValue {
    /// Bytes of it.
    pub const SIZE: usize = 64;

    /// As the map has it.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::SIZE] {
        let TargetFlags {
            known,
            down,
            l2,
            slow,
        } = self.flags;
        let flags = (u16::from(known) * TARGET_KNOWN)
            | (u16::from(down) * TARGET_DOWN)
            | (u16::from(l2) * TARGET_L2)
            | (u16::from(slow) * TARGET_SLOW);
        Writer::new()
            .u32(self.version)
            .u32(self.incarnation)
            .ip(self.address)
            .put(&self.hop.0)
            .u16(self.shift)
            .put(&self.interface_mac.0)
            .u16(flags)
            .u32(self.ifindex)
            .u32(self.mtu)
            .u32(self.idle)
            .end()
    }
}

impl FlowValue {
    /// Bytes of it.
    pub const SIZE: usize = 32;

    /// As the map has it.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::SIZE] {
        Writer::new()
            .u64(self.seen)
            .u64(self.begun)
            .u32(self.target)
            .u32(self.incarnation)
            .put(&[self.state as u8, self.watch as u8])
            .end()
    }

    /// From the map's bytes; `None` if no program of ours has written them.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut from = Reader(bytes);
        Some(Self {
            seen: from.u64()?,
            begun: from.u64()?,
            target: from.u32()?,
            incarnation: from.u32()?,
            state: StateCode::of(from.u8()?)?,
            watch: WatchCode::of(from.u8()?)?,
        })
    }
}

impl StateCode {
    /// Every state.
    pub const ALL: [Self; 12] = [
        Self::Syn,
        Self::Refused,
        Self::Established,
        Self::Reset,
        Self::Closed,
        Self::Asked,
        Self::Talking,
        Self::Answered,
        Self::ClientHalfClosed,
        Self::ServerHalfClosed,
        Self::ServerClosed,
        Self::Replied,
    ];

    pub(super) fn of(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|state| *state as u8 == code)
    }
}

impl WatchCode {
    pub(super) fn of(code: u8) -> Option<Self> {
        [Self::Over, Self::Awaited, Self::Overdue]
            .into_iter()
            .find(|watch| *watch as u8 == code)
    }
}

impl TrafficValue {
    /// Bytes of one CPU's.
    pub const SIZE: usize = 96;

    /// The sum of a per-CPU map's value.
    #[must_use]
    pub fn sum(per_cpu: &[u8]) -> Self {
        let all = per_cpu.chunks_exact(Self::SIZE);
        all.fold(Self::default(), |sum, one| sum.plus(&mut Reader(one)))
    }

    /// With one CPU's added.
    fn plus(self, from: &mut Reader<'_>) -> Self {
        let mut and = |before: u64| before.wrapping_add(from.u64().unwrap_or(0));
        Self {
            packets: and(self.packets),
            bytes: and(self.bytes),
            opened: and(self.opened),
            dsr_completed: and(self.dsr_completed),
            dsr_incomplete: and(self.dsr_incomplete),
            packets_out: and(self.packets_out),
            bytes_out: and(self.bytes_out),
            nat_opened: and(self.nat_opened),
            nat_closed: and(self.nat_closed),
            completed: and(self.completed),
            unanswered: and(self.unanswered),
            unacknowledged: and(self.unacknowledged),
        }
    }
}

/// The sum of a per-CPU map's value that is a number.
#[must_use]
pub fn sum_of_numbers(per_cpu: &[u8]) -> u64 {
    let numbers = per_cpu.as_chunks().0.iter();
    numbers.fold(0, |sum, one| sum.wrapping_add(u64::from_ne_bytes(*one)))
}

impl InterfaceValue {
    /// Bytes of it.
    pub const SIZE: usize = 16;

    /// As the map has it.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::SIZE] {
        Writer::new()
            .put(&self.mac.0)
            .u16(0)
            .u32(u32::from(self.is_native))
            .u32(self.mtu)
            .end()
    }
}

pub(super) const SETTINGS_PASSTHROUGH: u32 = 1;
pub(super) const SETTINGS_ANY_INTERFACE: u32 = 2;
pub(super) const SETTINGS_MOVED: u32 = 4;
pub(super) const SETTINGS_OTHERS: u32 = 8;

impl SettingsValue {
    /// Bytes of it.
    pub const SIZE: usize = 56;

    /// As the map has it.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::SIZE] {
        let flags = [
            (self.has_passthrough, SETTINGS_PASSTHROUGH),
            (self.any_interface, SETTINGS_ANY_INTERFACE),
            (self.has_moved, SETTINGS_MOVED),
            (self.has_others, SETTINGS_OTHERS),
        ];
        let flags = flags.iter().filter(|(is_set, _)| *is_set);
        let ranges = self.nat_ports.iter();
        let start = Writer::new()
            .u32(flags.fold(0, |all, (_, flag)| all | flag))
            .u32(self.max_flows)
            .u32(self.max_half_open)
            .u32(self.nat_ports.len())
            // at most PortRanges::MOST
            .u32(ranges.clone().count() as u32)
            .u32(0);
        let all = ranges.fold(start, |to, range| to.u16(range.first).u16(range.last));
        all.end()
    }
}
