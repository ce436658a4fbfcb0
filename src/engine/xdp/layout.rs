//! What the maps hold, byte for byte: the twins of `bpf/structs.h` and `bpf/constants.h`, and the only code that writes or
//! reads their bytes.
//!
//! Sizes are checked on both sides when they are compiled. Addresses have 16 bytes, IPv4 ones are mapped; ports in keys are in
//! network order, in values in the machine's.

mod codec;
mod nat;
mod orders;
mod written;

use std::net::{IpAddr, SocketAddr};

use crate::base::{Mac, PortRanges, Protocol, by_label};
pub use codec::{RANGES_SIZE, octets, ranges_to_bytes, sum_of_numbers};
pub use nat::{ForwardValue, HalfValue, HopValue, OriginKey, ReverseValue, ShareKey, SourceValue};
pub use orders::{Order, OrderKind, OrderResult};

/// The maps that the daemon is handed, in the order in which they come; then the programs.
pub const HANDED: [&str; 20] = [
    "targets",
    "tables",
    "flows",
    "reasons",
    "passes",
    "traffic",
    "addresses",
    "interfaces",
    "ports",
    "settings",
    "forwards",
    "reverses",
    "claims",
    "shares",
    "sources",
    "moved",
    "seeds",
    "convey",
    "touch",
    "order",
];

/// Files in memory that come after these: of what the daemon knows besides, for the next one. The first two hold numbers, the
/// third what has been counted.
pub const REGISTRY: usize = 3;

/// Numbers of targets, from 1; 0 is none.
pub const TARGETS: u32 = 65_536;
/// Services with a table.
pub const TABLES: usize = 4_096;
/// Addresses that are told apart.
pub const ADDRESSES: usize = 65_536;
/// Interfaces.
pub const INTERFACES: usize = 256;
/// Services of one port.
pub const SERVICES: usize = 65_536;
/// Addresses that have services of several ports, for each protocol.
pub const RANGED: usize = 4_096;
/// Services of several ports at one address and protocol.
pub const RANGES: usize = 16;
/// Elements of a Maglev table.
pub const TABLE_ELEMENTS: usize = 16_388;
/// Element of a table with its flags; the two halves of its key follow.
pub const TABLE_FLAGS: usize = 16_385;
/// Flag of a table: it is looked into by SipHash under its key.
pub const TABLE_KEYED: u64 = 1;
/// Our addresses towards a server that the program knows.
pub const LOCALS: usize = 8;
/// Elements of `claims`: NAT ports that are claimed, by the number of the server, from 1.
pub const CLAIMS: u32 = 65_539;
/// Element of `claims` with the number of passthrough flows.
pub const CLAIMS_FLOWS: u32 = 65_536;
/// Element of `claims` with the number of those that are half-open.
pub const CLAIMS_HALF_OPEN: u32 = 65_537;
/// Element of `claims` with the number of flows that have given way to new ones, so far.
pub const CLAIMS_GAVE_WAY: u32 = 65_538;
/// Client networks whose shares of a server's NAT ports are counted.
pub const SHARES: usize = 262_144;
/// Return hops that may have moved.
pub const MOVED: usize = 1_024;

/// An address and port of ours with a protocol: the key of `services`, of `tables`, and with port 0 of `ranges`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointKey {
    /// Address and port.
    pub addr: SocketAddr,
    /// Protocol.
    pub protocol: Protocol,
}

/// A packet's two ends: the key of `flows` and `forwards` as a client sends them, of `reverses` as a server does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// The sender.
    pub from: SocketAddr,
    /// What it is sent to: VIP or NAT address.
    pub to: EndpointKey,
}

/// A service: the value of `services`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServiceValue {
    /// First of its ports.
    pub first_port: u16,
    /// Its packets are the program's: mode dsr.
    pub is_dsr: bool,
    /// It has several ports.
    pub is_range: bool,
}

/// A part of the value of `ranges`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RangeValue {
    /// Its ports' first and last.
    pub ports: (u16, u16),
    /// Mode dsr.
    pub is_dsr: bool,
}

/// A server behind a VIP and the next hop to it: the value of `targets`. [`crate::engine::xdp`] says how it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TargetValue {
    /// Odd while it is being changed.
    pub version: u32,
    /// Tells it from others that have had its number.
    pub incarnation: u32,
    /// The server.
    pub address: IpAddr,
    /// Its next hop's link address.
    pub hop: Mac,
    /// How far its ports are above the VIP's, counted round at 65,536.
    pub shift: u16,
    /// Link address of the interface that leads there.
    pub interface_mac: Mac,
    /// What may be done.
    pub flags: TargetFlags,
    /// The interface.
    pub ifindex: u32,
    /// Largest IP packet, in bytes.
    pub mtu: u32,
    /// How long a flow is remembered after its last packet, in milliseconds.
    pub idle: u32,
}

/// Flags of a target.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TargetFlags {
    /// The next hop is known, and packets may be given to it.
    pub known: bool,
    /// The server is down.
    pub down: bool,
    /// Only link addresses change.
    pub l2: bool,
    /// The slow path asks rules or limits of each packet.
    pub slow: bool,
}

/// A DSR flow: the value of `flows`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowValue {
    /// CLOCK_MONOTONIC of its last packet, in nanoseconds.
    pub seen: u64,
    /// The same of its first one.
    pub begun: u64,
    /// Number of its target.
    pub target: u32,
    /// Which target of that number.
    pub incarnation: u32,
    /// Its state.
    pub state: StateCode,
    /// What is still to be counted of its handshake.
    pub watch: WatchCode,
}

/// A state of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum StateCode {
    /// Its SYN came.
    Syn = 1,
    /// Reset before it was established.
    Refused = 2,
    /// The handshake is over.
    Established = 3,
    /// Reset.
    Reset = 4,
    /// The client has sent FIN; in passthrough, first, and both are acknowledged.
    Closed = 5,
    /// A datagram came.
    Asked = 6,
    /// In DSR more than one; in passthrough the client has sent again after an answer.
    Talking = 7,
    /// The server's SYN|ACK came too.
    Answered = 8,
    /// The client's FIN is acknowledged.
    ClientHalfClosed = 9,
    /// The server's FIN is.
    ServerHalfClosed = 10,
    /// Both are, and the server's came first.
    ServerClosed = 11,
    /// A datagram has been answered.
    Replied = 12,
}

/// What is still to be counted of a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum WatchCode {
    /// Nothing.
    Over = 0,
    /// Everything.
    Awaited = 1,
    /// Whether it completes after all.
    Overdue = 2,
}

/// What a target has had, of all CPUs: the value of `traffic`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TrafficValue {
    /// IP packets to it.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// DSR flows that have begun.
    pub opened: u64,
    /// Their handshakes that have been completed.
    pub dsr_completed: u64,
    /// Those that have not.
    pub dsr_incomplete: u64,
    /// IP packets to clients.
    pub packets_out: u64,
    /// Their bytes.
    pub bytes_out: u64,
    /// Passthrough flows that have begun.
    pub nat_opened: u64,
    /// Those that have ended.
    pub nat_closed: u64,
    /// Their handshakes that have been completed.
    pub completed: u64,
    /// Those that the server has not answered.
    pub unanswered: u64,
    /// Those whose answer the client has not acknowledged.
    pub unacknowledged: u64,
}

/// An interface that runs the program: the value of `interfaces`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InterfaceValue {
    /// Its link address.
    pub mac: Mac,
    /// In the driver.
    pub is_native: bool,
    /// Largest IP packet that it sends, in bytes.
    pub mtu: u32,
}

/// The value of `settings`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SettingsValue {
    /// NAT ports.
    pub nat_ports: PortRanges,
    /// There may be passthrough flows.
    pub has_passthrough: bool,
    /// Servers' packets count by whichever interface they come in.
    pub any_interface: bool,
    /// Some return hop has moved.
    pub has_moved: bool,
    /// There may be flows that the slow path alone knows.
    pub has_others: bool,
    /// Passthrough flows, at most.
    pub max_flows: u32,
    /// Those that are half-open, at most.
    pub max_half_open: u32,
}

/// Flag of an address: refused as a source of new flows.
pub const ADDRESS_OWN: u32 = 1;
/// Flag of an address: a VIP that no interface of this host has.
pub const ADDRESS_ABSENT: u32 = 2;

/// Why a packet of ours is left to the slow path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum PassReason {
    /// No NAT port or place was found for a new flow at once.
    NatPort,
    /// Its frontend has access rules or limits, or its client is at one.
    Limited,
    /// It has no hop left to go.
    TimeToLive,
    /// It is larger than the way takes.
    TooBig,
    /// Its checksum may be unfinished: its sender is on this machine.
    Checksum,
    /// There is no server that it can be given to, or no table says which.
    NoServer,
    /// The next hop is not known.
    NextHop,
    /// It begins a flow, and its source is an address of ours, or its VIP is not here.
    Source,
    /// It may be of a flow that the slow path has.
    OtherFlow,
    /// What it needs is being changed.
    Changing,
    /// It must leave by an interface that the program cannot send by, or was sent to another machine.
    OtherInterface,
}

impl PassReason {
    /// Every reason, in the order of the discriminants.
    pub const ALL: [Self; 11] = [
        Self::NatPort,
        Self::Limited,
        Self::TimeToLive,
        Self::TooBig,
        Self::Checksum,
        Self::NoServer,
        Self::NextHop,
        Self::Source,
        Self::OtherFlow,
        Self::Changing,
        Self::OtherInterface,
    ];

    /// The label in metrics and the API.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::NatPort => "nat_port",
            Self::Limited => "limited",
            Self::TimeToLive => "time_to_live",
            Self::TooBig => "too_big",
            Self::Checksum => "unfinished_checksum",
            Self::NoServer => "no_server",
            Self::NextHop => "next_hop",
            Self::Source => "source",
            Self::OtherFlow => "other_flow",
            Self::Changing => "changing",
            Self::OtherInterface => "other_interface",
        }
    }
}

by_label!(PassReason, PassReason::ALL);

#[cfg(test)]
mod tests;
