//! What the maps hold, byte for byte: the twins of `bpf/structs.h` and `bpf/constants.h`, and the only code that writes or
//! reads their bytes.
//!
//! Sizes are checked on both sides when they are compiled. Addresses have 16 bytes, IPv4 ones are mapped; ports in keys are in
//! network order, in values in the machine's.

mod codec;

use std::net::{IpAddr, SocketAddr};

use crate::base::{Mac, Protocol, by_label};
pub use codec::{RANGES_SIZE, octets, ranges_to_bytes, sum_of_numbers};

/// The maps that the daemon is handed, in the order in which they come; then the programs.
pub const HANDED: [&str; 12] = [
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
    "convey",
    "touch",
];

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

/// An address and port of ours with a protocol: the key of `services`, of `tables`, and with port 0 of `ranges`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointKey {
    /// Address and port.
    pub addr: SocketAddr,
    /// Protocol.
    pub protocol: Protocol,
}

/// A 5-tuple as a client sends it: the key of `flows`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// The client.
    pub from: SocketAddr,
    /// The VIP.
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

/// A state that a client's packets alone can show.
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
    /// The client has sent FIN.
    Closed = 5,
    /// A datagram came.
    Asked = 6,
    /// More than one.
    Talking = 7,
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
    /// IP packets.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Flows that have begun.
    pub opened: u64,
    /// Handshakes that have been completed.
    pub completed: u64,
    /// Handshakes that have not.
    pub incomplete: u64,
}

/// An interface that runs the program: the value of `interfaces`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InterfaceValue {
    /// Its link address.
    pub mac: Mac,
    /// In the driver.
    pub is_native: bool,
}

/// The value of `settings`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SettingsValue {
    /// Least and greatest NAT port.
    pub nat_ports: (u16, u16),
    /// There may be passthrough flows.
    pub has_passthrough: bool,
}

/// Flag of an address: refused as a source of new flows.
pub const ADDRESS_OWN: u32 = 1;
/// Flag of an address: a VIP that no interface of this host has.
pub const ADDRESS_ABSENT: u32 = 2;

/// Why a packet of ours is left to the slow path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum PassReason {
    /// Its frontend's mode is passthrough.
    Passthrough,
    /// Its frontend has access rules or limits.
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
    /// The server's entry is being changed.
    Changing,
    /// It must leave by an interface that the program cannot send by, or was sent to another machine.
    OtherInterface,
}

impl PassReason {
    /// Every reason, in the order of the discriminants.
    pub const ALL: [Self; 11] = [
        Self::Passthrough,
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
            Self::Passthrough => "passthrough",
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
