//! Words of the packet modes: protocols, link addresses, and verdicts.

use std::fmt;

use super::{AccessReason, by_label};

/// A transport protocol that a frontend serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// The word for it in the configuration, logs and the API.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    /// Its number in IP headers (IANA protocol numbers).
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

by_label!(Protocol, [Protocol::Tcp, Protocol::Udp]);

/// An Ethernet address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// Declares the closed set, its order and its labels from one list.
macro_rules! packet_reasons {
    ($($(#[$doc:meta])+ $variant:ident = $label:literal,)+) => {
        /// The verdict on a packet in the packet modes: each has a counter. The numbers are a contract between versions, for
        /// who counts outside this process: new ones come last.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum PacketReason {
            $($(#[$doc])+ $variant,)+
        }

        impl PacketReason {
            /// Every reason, in the order of the discriminants.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The label in logs, metrics and the API.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$variant => $label),+
                }
            }
        }
    };
}

packet_reasons! {
    /// Forwarded to a server.
    ToServer = "to_server",
    /// Forwarded to a client (passthrough).
    ToClient = "to_client",
    /// An ICMP error about a flow, forwarded to its server.
    ErrorToServer = "icmp_error_to_server",
    /// An ICMP error about a flow, forwarded to its client.
    ErrorToClient = "icmp_error_to_client",
    /// Left to the kernel: none of our addresses and ports.
    NotOurs = "not_ours",
    /// A TCP packet that starts nothing, without a flow: answered with RST.
    ResetNoFlow = "reset_no_flow",
    /// No server is up: answered with RST.
    ResetNoServer = "reset_no_server",
    /// The flow's server is down: answered with RST.
    ResetServerDown = "reset_server_down",
    /// No server is up, or the flow's is down: a UDP client is told by ICMP (port unreachable).
    UnreachableNoServer = "unreachable_no_server",
    /// Larger than the way out takes: answered with ICMP (fragmentation needed, packet too big).
    TooBig = "too_big",
    /// TTL or hop limit used up: answered with ICMP (time exceeded).
    TimeExceeded = "time_exceeded",
    /// An answer that was not made: too many in this moment (answers are limited, RFC 1812 section 4.3.2.8).
    AnswerLimited = "answer_limited",
    /// Too short, or headers that contradict each other.
    Malformed = "malformed",
    /// A wrong IPv4 header checksum.
    BadHeaderChecksum = "bad_header_checksum",
    /// An IPv6 packet whose extension headers hide the transport header, or are too many.
    UnsupportedHeader = "unsupported_header",
    /// More than two VLAN tags.
    TooManyTags = "too_many_tags",
    /// The table of flows is full: no new one.
    TableFull = "flow_table_full",
    /// Half-open flows hold their share of the table: no new one.
    SynShareFull = "syn_share_full",
    /// No NAT port is free towards the chosen server: no new flow.
    PortsExhausted = "nat_ports_exhausted",
    /// Sent to one of our NAT ports by somebody who is not the flow's server.
    ForeignSource = "foreign_source",
    /// An ICMP error that belongs to no flow, or contradicts it.
    IcmpUnmatched = "icmp_unmatched",
    /// No route to the server.
    NoRoute = "no_route",
    /// The next hop's link address is not known yet.
    Unresolved = "next_hop_unresolved",
    /// A fragment whose datagram's first fragment has not come, and no room to let it wait.
    FragmentTableFull = "fragment_table_full",
    /// A fragment that waited too long for its first one.
    FragmentTimeout = "fragment_timeout",
    /// A fragment that overlaps, or is too small to decide by.
    BadFragment = "bad_fragment",
    /// Its source is a VIP or another address of this host: only a forger or a loop sends that.
    OwnSource = "own_source",
    /// From a server's address, but by an interface to which no route to the server leads.
    WrongInterface = "wrong_interface",
    /// To a VIP that no interface of this host has: no new flow. Flows that exist go on.
    VipAbsent = "vip_absent",
    /// The kernel did not take it for sending.
    SendFailed = "send_failed",
    /// The kernel dropped it because we did not keep up.
    ReceiveDropped = "receive_dropped",
    /// Longer than our buffer: lost.
    Truncated = "truncated",
    /// The frontend's access rules deny its client: no new flow.
    Denied = "denied",
    /// Its client network has as many connections as it may: no new flow.
    ClientConnections = "client_connections",
    /// Its client network has opened as many flows a second as it may: no new one.
    ClientRate = "client_rate",
    /// All clients of the frontend have opened as many flows a second as they may: no new one.
    FrontendRate = "frontend_rate",
    /// Its client network holds as many NAT ports of the server as it may: no new flow.
    ClientPorts = "client_ports",
    /// Only its link address may change (`dsr_method = "l2"`), but a gateway stands between us and the server.
    BehindGateway = "server_behind_gateway",
    /// The client's network has sent as many datagrams a second as it may.
    ClientDatagrams = "client_datagrams",
}

by_label!(PacketReason, PacketReason::ALL);

impl From<AccessReason> for PacketReason {
    fn from(reason: AccessReason) -> Self {
        match reason {
            // packets have no PROXY header, and TLS does not end at their frontends
            AccessReason::Denied | AccessReason::UntrustedProxy | AccessReason::ClientHandshakes => {
                Self::Denied
            }
            AccessReason::ClientConnections => Self::ClientConnections,
            AccessReason::ClientRate => Self::ClientRate,
            AccessReason::FrontendRate => Self::FrontendRate,
            AccessReason::ClientPorts => Self::ClientPorts,
            AccessReason::ClientDatagrams => Self::ClientDatagrams,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// What stands here stays: a program of another version may be counting by these numbers.
    const FROZEN: &[&str] = &[
        "to_server",
        "to_client",
        "icmp_error_to_server",
        "icmp_error_to_client",
        "not_ours",
        "reset_no_flow",
        "reset_no_server",
        "reset_server_down",
        "unreachable_no_server",
        "too_big",
        "time_exceeded",
        "answer_limited",
        "malformed",
        "bad_header_checksum",
        "unsupported_header",
        "too_many_tags",
        "flow_table_full",
        "syn_share_full",
        "nat_ports_exhausted",
        "foreign_source",
        "icmp_unmatched",
        "no_route",
        "next_hop_unresolved",
        "fragment_table_full",
        "fragment_timeout",
        "bad_fragment",
        "own_source",
        "wrong_interface",
        "vip_absent",
        "send_failed",
        "receive_dropped",
        "truncated",
        "denied",
        "client_connections",
        "client_rate",
        "frontend_rate",
        "client_ports",
        "server_behind_gateway",
        "client_datagrams",
    ];

    #[test]
    fn the_numbers_of_the_verdicts_are_those_of_every_version() {
        let labels: Vec<_> = PacketReason::ALL.iter().map(|r| r.label()).collect();
        assert_eq!(labels, FROZEN, "a new verdict comes last, here too");
    }

    #[test]
    fn every_packet_reason_has_its_own_label_and_stands_at_its_discriminant() {
        let labels: HashSet<_> = PacketReason::ALL.iter().map(|r| r.label()).collect();
        assert_eq!(labels.len(), PacketReason::COUNT);
        for (index, reason) in PacketReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
            assert_eq!(reason.label().parse(), Ok(*reason));
        }
    }

    #[test]
    fn what_access_refuses_has_the_same_word_in_every_mode() {
        // packets have no PROXY header, and TLS does not end at their frontends
        let of_proxy = [AccessReason::UntrustedProxy, AccessReason::ClientHandshakes];
        let in_every_mode = |reason: &AccessReason| !of_proxy.contains(reason);
        for reason in AccessReason::ALL.into_iter().filter(in_every_mode) {
            assert_eq!(PacketReason::from(reason).label(), reason.label());
        }
    }
}
