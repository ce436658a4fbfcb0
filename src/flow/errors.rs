//! ICMP errors about flows: matched by the packet inside, delivered to the side that sent it.
//!
//! ```text
//! passthrough   the packet inside is   NAT ─► server   it was the client's:  outer VIP ─► client,   inner client ─► VIP
//!                                      VIP ─► client   it was the server's:  outer NAT ─► server,   inner server ─► NAT
//! DSR                                  VIP ─► client   it was the server's:  outer as it was ─► server, inner server ─► client
//!                                                                           by method l2 as it is, for the server has the VIP
//! ```
//!
//! Towards the client the outer source becomes the VIP whoever complains: the client knows nobody else.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::{
    key::Key,
    plan::{Arrival, DropReason, Plan, Rewrite},
    returns::ReturnPath,
    router::{Router, tags_towards},
    segment::Side,
    services::{FlowTarget, ForwardMode},
    store::{FlowEntry, FlowStore, NatEntry, Visit},
    ways::NextHop,
};
use crate::{
    base::{PacketReason, Protocol},
    packet::{AddressPair, IcmpError},
};

/// Smallest MTU that a server is told, in bytes: what it learns counts for all clients behind our address. The IPv6 one is
/// IPv6's own minimum (RFC 8200 section 5); no IPv4 network of today is below the other.
const LEAST_MTU4: u32 = 1_200;
const LEAST_MTU6: u32 = 1_280;

/// The ends of a flow, as an error about it needs them.
struct Ends {
    nat: SocketAddr,
    server: SocketAddr,
    back: ReturnPath,
}

impl<S: FlowStore> Router<S> {
    /// Where an ICMP error goes.
    pub fn route_error(&self, arrival: &Arrival, error: &IcmpError) -> Result<Plan, DropReason> {
        let quoted = &error.quoted;
        let protocol = [Protocol::Tcp, Protocol::Udp]
            .into_iter()
            .find(|protocol| protocol.number() == quoted.protocol);
        // about something without ports: none of ours
        let (Some(protocol), Some(_)) = (protocol, quoted.ports) else {
            return Err(PacketReason::NotOurs.into());
        };
        let (source, destination) = quoted.sockets();
        let of_server = Key::new(protocol, destination, source);
        let is_ours = self.services.at(protocol, source).is_some()
            || self.services.nat_ports().contains(source.port()) && self.ways.is_local(source.ip());
        // who sent the packet inside is who is told
        let tells_sender = arrival.parsed.destination == quoted.source;
        let plan = if tells_sender {
            match self.about_clients_packet(arrival, error, &of_server) {
                Some(plan) => Some(plan),
                None => self.about_servers_packet(arrival, error, &of_server),
            }
        } else {
            None
        };
        plan.unwrap_or(Err(DropReason::For(if is_ours {
            PacketReason::IcmpUnmatched
        } else {
            PacketReason::NotOurs
        })))
    }

    /// The ends of a live passthrough flow, if the error may be about a packet of this side of it. An error does not prolong
    /// its life: anybody can send one.
    fn ends(&self, arrival: &Arrival, error: &IcmpError, key: &Key, side: Side) -> Option<Ends> {
        let sequence = error.quoted.sequence;
        let store = &self.flows.store;
        store
            .visit_nat(key, self.visitor(arrival), |flow| {
                // every router quotes the sequence number (RFC 792), and only who saw the segment knows it
                let fits = key.protocol() == Protocol::Udp
                    || sequence.is_some_and(|sequence| flow.is_under_way(side, sequence));
                Visit::Keep((fits && flow.allows_error(arrival.now)).then(|| Ends {
                    nat: flow.nat(),
                    server: flow.server(),
                    back: *flow.back(),
                }))
            })
            .flatten()
    }

    /// About a packet from a NAT port to a server: for the client. `reverse` is from the server to the NAT port.
    fn about_clients_packet(
        &self,
        arrival: &Arrival,
        error: &IcmpError,
        reverse: &Key,
    ) -> Option<Result<Plan, DropReason>> {
        let key = self.flows.store.nat_holder(reverse)?;
        let ends = self
            .ends(arrival, error, &key, Side::Client)
            .filter(|ends| (ends.server, ends.nat) == (reverse.from(), reverse.to()))?;
        let back = match self.ways.back(&ends.back) {
            Ok(back) => back,
            Err(refusal) => return Some(Err(refusal)),
        };
        let (client, vip) = (key.from(), key.to());
        let plan = Plan {
            reason: PacketReason::ErrorToClient,
            to: Rewrite::Error {
                source: vip.ip(),
                destination: client.ip(),
                least_mtu: None,
                quoted: AddressPair {
                    source: client,
                    destination: vip,
                },
            },
            link: back.link,
            tags: back.tags,
            mtu: back.mtu,
            counted: None,
        };
        Some(arrival.check(back.mtu).map(|()| plan))
    }

    /// About a packet from a VIP to a client: for the server. `forward` is from the client to the VIP.
    fn about_servers_packet(
        &self,
        arrival: &Arrival,
        error: &IcmpError,
        forward: &Key,
    ) -> Option<Result<Plan, DropReason>> {
        let (client, vip) = (forward.from(), forward.to());
        if let Some(ends) = self.ends(arrival, error, forward, Side::Server) {
            let (server, nat) = (ends.server, ends.nat);
            let to_server = self.ways.to(server.ip()).map_err(DropReason::from);
            let way = to_server.and_then(|way| arrival.check(way.mtu).map(|()| way));
            return Some(way.map(|way| error_to_server(arrival, way, translated(server, nat.ip(), nat))));
        }
        let target = self.dsr_server(arrival, forward)?;
        let server = target.at(vip);
        let to = if target.has_vip {
            Rewrite::Nothing {
                least_mtu: Some(least_mtu(server)),
            }
        } else {
            translated(server, arrival.parsed.source, client)
        };
        let way = self.sendable_directly(arrival, &target);
        Some(way.map(|way| error_to_server(arrival, way, to)))
            .filter(|_| vip.ip() == arrival.parsed.destination)
    }

    /// The server of a DSR flow: the cache's, or Maglev's.
    fn dsr_server(&self, arrival: &Arrival, forward: &Key) -> Option<Arc<FlowTarget>> {
        let store = &self.flows.store;
        let (protocol, client, vip) = (forward.protocol(), forward.from(), forward.to());
        let cached = store.visit_dsr(forward, self.visitor(arrival), |entry| {
            entry.renew(forward, &self.services);
            Visit::Keep(Arc::clone(entry.target()))
        });
        cached.filter(|target| !target.is_down()).or_else(|| {
            (self.services.at(protocol, vip))
                .filter(|service| service.mode == ForwardMode::Dsr)?
                .choose(client, vip)
                .cloned()
        })
    }
}

/// The plan of an error for a server.
fn error_to_server(arrival: &Arrival, way: NextHop<'_>, to: Rewrite) -> Plan {
    Plan {
        reason: PacketReason::ErrorToServer,
        to,
        link: way.link,
        tags: tags_towards(arrival, way.link.ifindex),
        mtu: way.mtu,
        counted: None,
    }
}

/// What changes in an error for a server, who knows its peer as `peer`.
fn translated(server: SocketAddr, source: IpAddr, peer: SocketAddr) -> Rewrite {
    Rewrite::Error {
        source,
        destination: server.ip(),
        least_mtu: Some(least_mtu(server)),
        quoted: AddressPair {
            source: server,
            destination: peer,
        },
    }
}

const fn least_mtu(server: SocketAddr) -> u32 {
    if server.is_ipv4() { LEAST_MTU4 } else { LEAST_MTU6 }
}
