//! What each verdict says to an operator.

use super::PacketReason;

impl PacketReason {
    /// What happened, and what to do if there is anything, in one line.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::ToServer => "forwarded to a server",
            Self::ToClient => "forwarded to a client",
            Self::ErrorToServer => "an ICMP error about a flow, forwarded to its server",
            Self::ErrorToClient => "an ICMP error about a flow, forwarded to its client",
            Self::NotOurs => "left to the kernel: no frontend and no flow has its addresses and ports",
            Self::ResetNoFlow => {
                "answered with a reset: it belongs to no flow, which may have expired (see idle_timeout)"
            }
            Self::ResetNoServer => "answered with a reset: no server of the backend is eligible",
            Self::ResetServerDown => "answered with a reset: the flow's server is down",
            Self::UnreachableNoServer => {
                "answered with ICMP port unreachable: no server of the backend is eligible"
            }
            Self::TooBig => "answered with ICMP: larger than the MTU towards its destination",
            Self::TimeExceeded => {
                "answered with ICMP: its TTL or hop limit is used up; if it persists, look for a routing loop"
            }
            Self::AnswerLimited => {
                "dropped without an answer: the limit of resets and ICMP answers a second is reached"
            }
            Self::Malformed => "dropped: too short, or with headers that contradict each other",
            Self::BadHeaderChecksum => "dropped: the checksum of its IPv4 header is wrong",
            Self::UnsupportedHeader => {
                "dropped: an IPv6 packet with extension headers that hide the transport header"
            }
            Self::TooManyTags => "dropped: more than two VLAN tags",
            Self::TableFull => "dropped: the flow table is full; raise [packet] max_flows",
            Self::SynShareFull => {
                "dropped: half-open flows hold their quarter of the flow table; raise [packet] max_flows"
            }
            Self::PortsExhausted => {
                "dropped: every NAT port to the server is taken; widen [packet] nat_ports or add a nat_address"
            }
            Self::ForeignSource => "dropped: sent to a NAT port by a host that is not the flow's server",
            Self::IcmpUnmatched => "dropped: an ICMP error that belongs to no flow, or contradicts it",
            Self::NoRoute => "dropped: there is no route to the server; check the routes of this host",
            Self::Unresolved => {
                "dropped: the next hop to the server has not answered yet (ARP, neighbour discovery)"
            }
            Self::FragmentTableFull => {
                "dropped: a fragment that came before the first one, and too many are waiting"
            }
            Self::FragmentTimeout => {
                "dropped: a fragment that waited too long for the first one of its datagram"
            }
            Self::BadFragment => "dropped: a fragment that overlaps another, or is too small",
            Self::OwnSource => "dropped: its source is an address of this host; it is forged, or loops",
            Self::WrongInterface => {
                "dropped: from a server, by an interface that does not lead to it; see [packet] any_interface"
            }
            Self::VipAbsent => "dropped: no interface of this host has the VIP; existing flows go on",
            Self::SendFailed => {
                "dropped: the kernel did not take it for sending; check the outgoing interface"
            }
            Self::ReceiveDropped => {
                "dropped by the kernel: the packet threads do not keep up; raise [packet] workers"
            }
            Self::Truncated => "dropped: longer than the receive buffer",
            Self::Denied => "dropped: the frontend's access rules deny this client",
            Self::ClientConnections => {
                "dropped: the client's network has as many connections as per_client.connections allows"
            }
            Self::ClientRate => "dropped: the client's network has reached its rate; see [limits] per_client",
            Self::FrontendRate => "dropped: the frontend has reached its rate; see [limits] new_per_second",
            Self::ClientDatagrams => {
                "dropped: the client's network has sent its datagrams of this second; see [limits] per_client"
            }
            Self::BehindGateway => {
                "dropped: the route to a server of dsr_method l2 has a gateway; give it an address on the same link"
            }
            Self::ClientPorts => {
                "dropped: the client holds its share of the server's NAT ports; see [packet] max_ports_per_client"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_verdict_has_a_sentence_of_its_own_that_fits_a_line() {
        let sentences: HashSet<_> = PacketReason::ALL.iter().map(|reason| reason.sentence()).collect();
        assert_eq!(sentences.len(), PacketReason::COUNT);
        for sentence in sentences {
            assert!((10..=120).contains(&sentence.len()), "{sentence}");
            assert!(!sentence.ends_with('.') && sentence.is_ascii(), "{sentence}");
        }
    }
}
