//! Passthrough flows as the maps have them, and what is told the program of them.

use std::net::IpAddr;

use super::{
    EndpointKey, FlowKey, LOCALS, StateCode, WatchCode,
    codec::{Reader, Writer},
};
use crate::{base::Mac, flow::stored::Side, packet::Tags};

/// A passthrough flow's direction to the server, which its client's packets change: the value of `forwards`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForwardValue {
    /// CLOCK_MONOTONIC of the client's last packet that made it last longer, in nanoseconds.
    pub seen: u64,
    /// The same of its first one. Both directions of a flow have the same.
    pub begun: u64,
    /// NAT address and port.
    pub nat: EndpointKey,
    /// Number of its target.
    pub target: u32,
    /// Which target of that number.
    pub incarnation: u32,
    /// The client's numbers.
    pub half: HalfValue,
    /// Behind the server's FIN.
    pub peer_fin: Option<u32>,
    /// Behind the client's last SYN, if that is another than the one that it began with.
    pub other_syn: Option<u32>,
    /// The client's clock when it last spoke after the server's FIN.
    pub clock: Option<u32>,
    /// Where the client's packets come from.
    pub origin: OriginKey,
    /// Its state.
    pub state: StateCode,
    /// What is still to be counted of its handshake.
    pub watch: WatchCode,
    /// The side whose FIN came first.
    pub first_fin: Option<Side>,
    /// Its client has proven to be on the path: replies follow the routes.
    pub is_followed: bool,
    /// It counts in its client's share of the server's NAT ports: as one of a network with a prefix of this length.
    pub shared: Option<u8>,
}

/// Its direction to the client, which the server's packets change: the value of `reverses`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReverseValue {
    /// CLOCK_MONOTONIC of the server's last packet that made it last longer, in nanoseconds; of its first packet, if there was
    /// none.
    pub seen: u64,
    /// As [`ForwardValue::begun`].
    pub begun: u64,
    /// The key of the other direction.
    pub client: FlowKey,
    /// Number of its target.
    pub target: u32,
    /// Which target of that number.
    pub incarnation: u32,
    /// The server's numbers.
    pub half: HalfValue,
    /// Behind the client's FIN.
    pub peer_fin: Option<u32>,
    /// Where replies go back to.
    pub origin: OriginKey,
    /// A copy of its state.
    pub state: StateCode,
    /// As [`ForwardValue::is_followed`].
    pub is_followed: bool,
}

/// What a side of a connection has sent and acknowledged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HalfValue {
    /// Behind what it has sent.
    pub end: u32,
    /// The highest number that it has acknowledged.
    pub acknowledged: u32,
    /// Behind its FIN.
    pub fin: Option<u32>,
}

/// Where a client's packets come from: the key of `moved`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OriginKey {
    /// The interface.
    pub ifindex: u32,
    /// The client's link address, or its router's.
    pub mac: Mac,
    /// Their VLAN tags.
    pub tags: Tags,
    /// Their family.
    pub is_ipv6: bool,
}

/// Where replies go instead: the value of `moved`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HopValue {
    /// Link address of the next hop.
    pub mac: Mac,
    /// Link address of the interface.
    pub interface_mac: Mac,
    /// The interface.
    pub ifindex: u32,
    /// Largest IP packet, in bytes.
    pub mtu: u32,
}

/// How flows begin towards a passthrough target: the value of `sources`, by its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceValue {
    /// Our addresses towards it, at most [`LOCALS`].
    pub locals: Vec<IpAddr>,
    /// Number of its server in `claims`.
    pub server: u32,
    /// NAT ports that a client network may hold; 0: all.
    pub share: u32,
    /// Claimed ports beyond which flows that are not proven live shorter.
    pub half_of_ports: u32,
    /// Length of a client network's prefix, IPv4 and IPv6.
    pub prefixes: (u8, u8),
    /// One of the addresses is a VIP with ports among the NAT ports.
    pub is_served: bool,
}

/// A client network's share of a server's NAT ports: the key of `shares`, whose values are how many it holds (i64).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ShareKey {
    /// The server.
    pub server: EndpointKey,
    /// First address of the network.
    pub network: IpAddr,
    /// Length of its prefix.
    pub prefix: u8,
}

/// Flags of a direction.
const FIN: u16 = 1;
const PEER_FIN: u16 = 2;
const OTHER_SYN: u16 = 4;
const CLOCK: u16 = 8;
const CLIENT_FIRST: u16 = 16;
const SERVER_FIRST: u16 = 32;
const FOLLOWED: u16 = 64;
const SHARED: u16 = 128;

const fn flag(is_set: bool, flag: u16) -> u16 {
    if is_set { flag } else { 0 }
}

/// A number that the flags say is there.
fn number(flags: u16, flag: u16, value: u32) -> Option<u32> {
    (flags & flag != 0).then_some(value)
}

impl ForwardValue {
    /// Bytes of it.
    pub const SIZE: usize = 96;

    /// As the map has it.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::SIZE] {
        let flags = flag(self.half.fin.is_some(), FIN)
            | flag(self.peer_fin.is_some(), PEER_FIN)
            | flag(self.other_syn.is_some(), OTHER_SYN)
            | flag(self.clock.is_some(), CLOCK)
            | flag(self.first_fin == Some(Side::Client), CLIENT_FIRST)
            | flag(self.first_fin == Some(Side::Server), SERVER_FIRST)
            | flag(self.is_followed, FOLLOWED)
            | flag(self.shared.is_some(), SHARED);
        Writer::new()
            .u64(self.seen)
            .u64(self.begun)
            .put(&self.nat.to_bytes())
            .u32(self.target)
            .u32(self.incarnation)
            .half(&self.half)
            .u32(self.peer_fin.unwrap_or(0))
            .u32(self.other_syn.unwrap_or(0))
            .u32(self.clock.unwrap_or(0))
            .put(&self.origin.to_bytes())
            .put(&[self.state as u8, self.watch as u8])
            .u16(flags)
            .put(&[self.shared.unwrap_or(0)])
            .end()
    }

    /// From the map's bytes; `None` if no program of ours has written them.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut from = Reader(bytes);
        let (seen, begun) = (from.u64()?, from.u64()?);
        let nat = EndpointKey::read(&mut from)?;
        let (target, incarnation) = (from.u32()?, from.u32()?);
        let (half, peer_fin) = (from.half()?, from.u32()?);
        let (other_syn, clock) = (from.u32()?, from.u32()?);
        let origin = OriginKey::read(&mut from)?;
        let (state, watch) = (StateCode::of(from.u8()?)?, WatchCode::of(from.u8()?)?);
        let (flags, prefix) = (from.u16()?, from.u8()?);
        let first_fin = match (flags & CLIENT_FIRST != 0, flags & SERVER_FIRST != 0) {
            (true, _) => Some(Side::Client),
            (false, true) => Some(Side::Server),
            (false, false) => None,
        };
        Some(Self {
            seen,
            begun,
            nat,
            target,
            incarnation,
            half: half.with(flags),
            peer_fin: number(flags, PEER_FIN, peer_fin),
            other_syn: number(flags, OTHER_SYN, other_syn),
            clock: number(flags, CLOCK, clock),
            origin,
            state,
            watch,
            first_fin,
            is_followed: flags & FOLLOWED != 0,
            shared: (flags & SHARED != 0).then_some(prefix),
        })
    }
}

impl ReverseValue {
    /// Bytes of it.
    pub const SIZE: usize = 104;

    /// As the map has it.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::SIZE] {
        let flags = flag(self.half.fin.is_some(), FIN)
            | flag(self.peer_fin.is_some(), PEER_FIN)
            | flag(self.is_followed, FOLLOWED);
        Writer::new()
            .u64(self.seen)
            .u64(self.begun)
            .put(&self.client.to_bytes())
            .u32(self.target)
            .u32(self.incarnation)
            .half(&self.half)
            .u32(self.peer_fin.unwrap_or(0))
            .put(&self.origin.to_bytes())
            .put(&[self.state as u8, 0])
            .u16(flags)
            .end()
    }

    /// From the map's bytes; `None` if no program of ours has written them.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut from = Reader(bytes);
        let (seen, begun) = (from.u64()?, from.u64()?);
        let client = FlowKey::from_bytes(&from.take::<{ FlowKey::SIZE }>()?)?;
        let (target, incarnation) = (from.u32()?, from.u32()?);
        let (half, peer_fin) = (from.half()?, from.u32()?);
        let origin = OriginKey::read(&mut from)?;
        let (state, _) = (StateCode::of(from.u8()?)?, from.u8()?);
        let flags = from.u16()?;
        Some(Self {
            seen,
            begun,
            client,
            target,
            incarnation,
            half: half.with(flags),
            peer_fin: number(flags, PEER_FIN, peer_fin),
            origin,
            state,
            is_followed: flags & FOLLOWED != 0,
        })
    }
}

/// A half whose flags have not been read yet.
struct RawHalf {
    end: u32,
    acknowledged: u32,
    fin: u32,
}

impl<const N: usize> Writer<N> {
    fn half(self, half: &HalfValue) -> Self {
        self.u32(half.end)
            .u32(half.acknowledged)
            .u32(half.fin.unwrap_or(0))
    }
}

impl Reader<'_> {
    fn half(&mut self) -> Option<RawHalf> {
        Some(RawHalf {
            end: self.u32()?,
            acknowledged: self.u32()?,
            fin: self.u32()?,
        })
    }
}

impl RawHalf {
    fn with(self, flags: u16) -> HalfValue {
        HalfValue {
            end: self.end,
            acknowledged: self.acknowledged,
            fin: number(flags, FIN, self.fin),
        }
    }
}

impl OriginKey {
    /// Bytes of it.
    pub const SIZE: usize = 20;

    /// As the maps have it.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::SIZE] {
        Writer::new()
            .u32(self.ifindex)
            .put(&self.mac.0)
            .put(&[super::codec::family(!self.is_ipv6), 0])
            .put(self.tags.as_bytes())
            .end()
    }

    /// From the maps' bytes; `None` if no program of ours has written them.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Self::read(&mut Reader(bytes))
    }

    fn read(from: &mut Reader<'_>) -> Option<Self> {
        let (ifindex, mac) = (from.u32()?, Mac(from.take()?));
        let (family, _) = (from.u8()?, from.u8()?);
        let bytes: [u8; 8] = from.take()?;
        // a tag has an Ethernet type, which is not 0
        let count = bytes.chunks_exact(4).take_while(|tag| !tag.starts_with(&[0, 0]));
        let tags = Tags::new(bytes.get(..count.count() * 4)?)?;
        Some(Self {
            ifindex,
            mac,
            tags,
            is_ipv6: family == super::codec::family(false),
        })
    }
}

impl HopValue {
    /// Bytes of it.
    pub const SIZE: usize = 20;

    /// As the map has it.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::SIZE] {
        Writer::new()
            .put(&self.mac.0)
            .put(&self.interface_mac.0)
            .u32(self.ifindex)
            .u32(self.mtu)
            .end()
    }
}

/// Flag of a value of `sources`.
pub(super) const SERVED: u16 = 1;

impl SourceValue {
    /// Bytes of it.
    pub const SIZE: usize = 152;

    /// As the map has it: the first [`LOCALS`] addresses.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::SIZE] {
        let locals = self.locals.iter().take(LOCALS);
        // at most LOCALS
        let start = Writer::new()
            .u32(locals.len() as u32)
            .u32(self.server)
            .u32(self.share)
            .u32(self.half_of_ports)
            .put(&[self.prefixes.0, self.prefixes.1])
            .u16(flag(self.is_served, SERVED))
            .u32(0);
        locals.fold(start, |to, local| to.ip(*local)).end()
    }
}

impl ShareKey {
    /// Bytes of it.
    pub const SIZE: usize = 36;

    /// As the map has it.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::SIZE] {
        Writer::new()
            .ip(self.server.addr.ip())
            .put(&self.server.addr.port().to_be_bytes())
            .put(&[self.server.protocol.number(), self.prefix])
            .ip(self.network)
            .end()
    }
}
