//! What goes wrong in the packet modes although every server is up: closed sets.

use super::{AccessReason, PacketReason, label::by_label};

/// How a TCP handshake with a server ended. In DSR only the client's side of it passes here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Handshake {
    /// Passthrough: the client has acknowledged the server's answer.
    Completed,
    /// Passthrough: the server has not answered the SYN.
    Unanswered,
    /// Passthrough: the client has not acknowledged the server's answer.
    Unacknowledged,
    /// DSR: the client has acknowledged an answer.
    DsrCompleted,
    /// DSR: nothing but SYNs has come from the client.
    DsrIncomplete,
}

/// Why packets of new and known flows did not leave for a server, counted for each server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum ServerDrop {
    /// [`PacketReason::PortsExhausted`].
    NatPorts,
    /// [`PacketReason::Unresolved`].
    NextHop,
    /// [`PacketReason::NoRoute`].
    Route,
    /// [`PacketReason::BehindGateway`].
    Gateway,
}

/// What an operator should look at. The label is the log event's name, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Alert {
    /// No NAT port towards a server is free.
    NatPorts,
    /// The flow table is full.
    FlowTable,
    /// Half-open flows hold their share of the flow table.
    HalfOpenShare,
    /// The next hop of a server is unresolved.
    NextHop,
    /// There is no route to a server.
    Route,
    /// The route to a server of `dsr_method = "l2"` has a gateway.
    Gateway,
    /// The kernel drops packets because the engine's threads do not keep up.
    Receive,
    /// Passthrough: no handshake completes, because a server answers no SYN.
    Unanswered,
    /// Passthrough: no handshake completes, because no client acknowledges a server's answer.
    Unacknowledged,
    /// DSR: no handshake completes.
    DsrIncomplete,
    /// A client network holds its share of a server's NAT ports.
    ClientPorts,
    /// A frontend has reached its rate of new connections.
    FrontendRate,
}

impl Handshake {
    /// Every one, in the order of the discriminants.
    pub const ALL: [Self; 5] = [
        Self::Completed,
        Self::Unanswered,
        Self::Unacknowledged,
        Self::DsrCompleted,
        Self::DsrIncomplete,
    ];

    /// The label in the API.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Unanswered => "unanswered",
            Self::Unacknowledged => "unacknowledged",
            Self::DsrCompleted => "dsr_completed",
            Self::DsrIncomplete => "dsr_incomplete",
        }
    }
}

by_label!(Handshake, Handshake::ALL);

impl ServerDrop {
    /// Every one, in the order of the discriminants.
    pub const ALL: [Self; 4] = [Self::NatPorts, Self::NextHop, Self::Route, Self::Gateway];

    /// The label in metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::NatPorts => "nat_ports",
            Self::NextHop => "next_hop",
            Self::Route => "route",
            Self::Gateway => "gateway",
        }
    }

    /// The one that a verdict counts as, if it does.
    #[must_use]
    pub const fn of(reason: PacketReason) -> Option<Self> {
        match reason {
            PacketReason::PortsExhausted => Some(Self::NatPorts),
            PacketReason::Unresolved => Some(Self::NextHop),
            PacketReason::NoRoute => Some(Self::Route),
            PacketReason::BehindGateway => Some(Self::Gateway),
            _ => None,
        }
    }

    /// The alert about it.
    #[must_use]
    pub const fn alert(self) -> Alert {
        match self {
            Self::NatPorts => Alert::NatPorts,
            Self::NextHop => Alert::NextHop,
            Self::Route => Alert::Route,
            Self::Gateway => Alert::Gateway,
        }
    }
}

impl Alert {
    /// Every one.
    pub const ALL: [Self; 12] = [
        Self::NatPorts,
        Self::FlowTable,
        Self::HalfOpenShare,
        Self::NextHop,
        Self::Route,
        Self::Gateway,
        Self::Receive,
        Self::Unanswered,
        Self::Unacknowledged,
        Self::DsrIncomplete,
        Self::ClientPorts,
        Self::FrontendRate,
    ];

    /// The label in the API, and the log event's name.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::NatPorts => "nat_ports_exhausted",
            Self::FlowTable => "flow_table_full",
            Self::HalfOpenShare => "syn_share_full",
            Self::NextHop => "next_hop_unresolved",
            Self::Route => "no_route",
            Self::Gateway => "server_behind_gateway",
            Self::Receive => "receive_dropped",
            Self::Unanswered => "handshakes_unanswered",
            Self::Unacknowledged => "handshakes_unacknowledged",
            Self::DsrIncomplete => "dsr_handshakes_incomplete",
            Self::ClientPorts => "client_ports_exhausted",
            Self::FrontendRate => "frontend_rate_reached",
        }
    }

    /// The alert about a verdict that does not depend on the server.
    #[must_use]
    pub const fn of_all_servers(reason: PacketReason) -> Option<Self> {
        match reason {
            PacketReason::TableFull => Some(Self::FlowTable),
            PacketReason::SynShareFull => Some(Self::HalfOpenShare),
            PacketReason::ReceiveDropped => Some(Self::Receive),
            _ => None,
        }
    }

    /// The alert about a frontend that refuses for this reason, if that is no business of a single client alone.
    #[must_use]
    pub const fn of_refusals(reason: AccessReason) -> Option<Self> {
        match reason {
            AccessReason::ClientPorts => Some(Self::ClientPorts),
            AccessReason::FrontendRate => Some(Self::FrontendRate),
            AccessReason::Denied
            | AccessReason::ClientConnections
            | AccessReason::ClientRate
            | AccessReason::ClientDatagrams
            | AccessReason::UntrustedProxy
            | AccessReason::ClientHandshakes => None,
        }
    }

    /// What happens, and what to do, in one line.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::NatPorts => {
                "no NAT port is free: new flows are dropped; widen [packet] nat_ports or add a nat_address"
            }
            Self::FlowTable => "the flow table is full: new flows are dropped; raise [packet] max_flows",
            Self::HalfOpenShare => {
                "half-open flows hold their share of the flow table: new ones are dropped; raise [packet] max_flows"
            }
            Self::NextHop => {
                "the next hop is unresolved: packets are dropped; check the server or its gateway"
            }
            Self::Route => "there is no route: packets are dropped; check the routes of this host",
            Self::Gateway => {
                "its route has a gateway, where dsr_method l2 needs it on the same link: packets are dropped"
            }
            Self::Receive => "the kernel drops packets that Convey is too slow for; raise [packet] workers",
            Self::Unanswered => {
                "no SYN is answered: check its firewall, its address filter and its return route to this host"
            }
            Self::Unacknowledged => {
                "no client acknowledges its SYN|ACK: check the return route and the firewalls to the clients"
            }
            Self::DsrIncomplete => {
                "no handshake completes: run the output of `convey backend-script`, then `convey-backend-setup check` there"
            }
            Self::ClientPorts => {
                "a client network holds its share of a server's NAT ports: see [packet] max_ports_per_client"
            }
            Self::FrontendRate => "new connections beyond [limits] new_per_second are refused",
        }
    }
}

by_label!(Alert, Alert::ALL);

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_alert_has_a_name_of_its_own_and_says_what_happens() {
        let labels: HashSet<_> = Alert::ALL.iter().map(|alert| alert.label()).collect();
        let sentences: HashSet<_> = Alert::ALL.iter().map(|alert| alert.sentence()).collect();
        assert_eq!(
            (labels.len(), sentences.len()),
            (Alert::ALL.len(), Alert::ALL.len())
        );
        for alert in Alert::ALL {
            assert!(alert.sentence().len() <= 120, "{}", alert.sentence());
            assert_eq!(alert.label().parse(), Ok(alert));
        }
    }

    #[test]
    fn what_is_counted_stands_at_its_discriminant() {
        for (index, handshake) in Handshake::ALL.iter().enumerate() {
            assert_eq!(*handshake as usize, index);
        }
        for (index, drop) in ServerDrop::ALL.iter().enumerate() {
            assert_eq!(*drop as usize, index);
            let counted = PacketReason::ALL
                .iter()
                .filter(|reason| ServerDrop::of(**reason) == Some(*drop));
            assert_eq!(counted.count(), 1);
        }
    }
}
