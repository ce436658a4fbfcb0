//! Where a TCP or UDP packet goes: flows first, then services; passthrough both ways, DSR one way.

use std::{net::SocketAddr, sync::Arc};

use super::{
    FlowInfo, Flows, Moment, Services,
    key::Key,
    plan::{Arrival, DropReason, Plan, Rewrite},
    ports,
    returns::ReturnOrigin,
    segment::{Segment, SegmentKind, Side},
    services::{FlowTarget, ForwardMode, Service},
    store::{Admission, Beginning, DsrEntry, FlowEntry, FlowStore, NatEntry, NewFlow, Visit, Visitor},
    ways::{NextHop, Ways},
};
use crate::{
    balance::hash::SplitMix64,
    base::{AccessReason, PacketReason, Protocol, WorkerId},
    packet::{AddressPair, Content, Tags},
};

/// What a worker decides by.
#[derive(Debug)]
pub(super) struct Router<S> {
    pub worker: WorkerId,
    pub flows: Arc<Flows<S>>,
    pub services: Arc<Services>,
    pub ways: Ways,
}

/// A packet with ports.
#[derive(Debug, Clone, Copy)]
struct Ported {
    protocol: Protocol,
    source: SocketAddr,
    destination: SocketAddr,
    /// From `source` to `destination`.
    key: Key,
    segment: Segment,
}

/// What a table says of a packet.
enum Lookup {
    /// There is no flow, or the packet begins a new one in its place.
    Miss,
    Decided(Result<Plan, DropReason>),
}

impl Ported {
    fn of(arrival: &Arrival) -> Option<Self> {
        let (protocol, source, destination) = arrival.parsed.tuple()?;
        let parsed = &arrival.parsed;
        let segment = match parsed.content {
            Content::Tcp(tcp) => {
                let payload = parsed.end.checked_sub(parsed.transport + tcp.header_len);
                // the length of a datagram that comes in fragments is not known
                Segment::tcp(&tcp, payload.filter(|_| parsed.fragment.is_none()))
            }
            _ => Segment::DATAGRAM,
        };
        Some(Self {
            protocol,
            source,
            destination,
            key: Key::new(protocol, source, destination),
            segment,
        })
    }

    /// Whether a flow may begin with it.
    fn begins(&self) -> bool {
        matches!(self.segment.kind, SegmentKind::Open | SegmentKind::Datagram)
    }

    /// The refusal when no server is up.
    const fn no_server(&self) -> DropReason {
        DropReason::For(match self.protocol {
            Protocol::Tcp => PacketReason::ResetNoServer,
            Protocol::Udp => PacketReason::UnreachableNoServer,
        })
    }
}

impl<S: FlowStore> Router<S> {
    /// Where a packet goes.
    pub fn route(&self, arrival: &Arrival, random: &mut SplitMix64) -> Result<Plan, DropReason> {
        let Some(packet) = Ported::of(arrival) else {
            return Err(PacketReason::NotOurs.into());
        };
        match self.services.at(packet.protocol, packet.destination) {
            Some(service) => match service.mode {
                ForwardMode::Passthrough => self.passthrough(arrival, &packet, service, random),
                ForwardMode::Dsr => self.dsr(arrival, &packet, service),
            },
            None => self.unserved(arrival, &packet),
        }
    }

    /// Who looks at a flow because of a packet.
    pub fn visitor(&self, arrival: &Arrival) -> Visitor {
        self.visitor_at(arrival.now)
    }

    const fn visitor_at(&self, now: Moment) -> Visitor {
        Visitor {
            now,
            worker: self.worker,
        }
    }

    /// Forgets a passthrough flow, if it is still the one that somebody has seen.
    pub fn forget(&self, seen: &FlowInfo, now: Moment) -> bool {
        let tuple = &seen.tuple;
        let key = Key::new(tuple.protocol, tuple.client.0, tuple.vip.0);
        let found = (self.flows.store).visit_nat(&key, self.visitor_at(now), |flow| {
            match seen.nat == Some(flow.nat()) {
                true => Visit::Remove(true),
                false => Visit::Keep(false),
            }
        });
        found.unwrap_or(false)
    }

    fn beginning(&self, arrival: &Arrival, packet: &Ported, random: u64) -> Beginning {
        Beginning {
            key: packet.key,
            segment: packet.segment,
            now: arrival.now,
            worker: self.worker,
            random,
        }
    }

    /// A reply, a packet of a flow whose frontend is configured no more, or none of ours.
    fn unserved(&self, arrival: &Arrival, packet: &Ported) -> Result<Plan, DropReason> {
        if let Some(reply) = self.reply(arrival, packet) {
            return reply;
        }
        if let Lookup::Decided(decision) = self.known_passthrough(arrival, packet) {
            return decision;
        }
        if let Lookup::Decided(decision) = self.known_dsr(arrival, packet) {
            return decision;
        }
        let is_nat = self.services.nat_ports().contains(packet.destination.port())
            && self.ways.is_local(packet.destination.ip());
        Err(DropReason::For(if is_nat {
            PacketReason::ForeignSource
        } else {
            PacketReason::NotOurs
        }))
    }

    fn passthrough(
        &self,
        arrival: &Arrival,
        packet: &Ported,
        service: &Service,
        random: &mut SplitMix64,
    ) -> Result<Plan, DropReason> {
        self.refuse_datagram(packet, service, arrival.now)?;
        if let Lookup::Decided(decision) = self.known_passthrough(arrival, packet) {
            return decision;
        }
        if let Some(reply) = self.reply_at_vip(arrival, packet) {
            return reply;
        }
        if packet.begins() {
            self.refuse_unopened(packet, service)?;
            return self.open(arrival, packet, service, random.next_u64());
        }
        // the frontend may have been DSR's before a reload
        if self.flows.store.has_dsr()
            && let Lookup::Decided(decision) = self.known_dsr(arrival, packet)
        {
            return decision;
        }
        self.refuse_unopened(packet, service)?;
        Err(PacketReason::ResetNoFlow.into())
    }

    /// Refuses a packet without a flow from an address of ours, which a forger or a loop sends, and one to a VIP that is not
    /// here: the load balancer that has it knows the flow, and we must not answer for it. Then the frontend's rules are asked.
    fn refuse_unopened(&self, packet: &Ported, service: &Service) -> Result<(), DropReason> {
        let source = packet.source.ip();
        if self.services.has_address(source) || self.ways.is_own(source) {
            return Err(PacketReason::OwnSource.into());
        }
        if self.ways.is_absent(packet.destination.ip()) {
            return Err(PacketReason::VipAbsent.into());
        }
        if let Some(access) = service.access() {
            let checked = access.check_rules(source);
            checked.map_err(|reason| service.refuse(self.worker, reason))?;
        }
        Ok(())
    }

    /// Refuses a client's datagram if it has sent too many. Every one is asked for, of whatever flow.
    fn refuse_datagram(&self, packet: &Ported, service: &Service, now: Moment) -> Result<(), DropReason> {
        if packet.protocol == Protocol::Udp
            && let Some(access) = service.access()
        {
            let let_through = access.datagram(packet.source.ip(), now.0);
            let_through.map_err(|reason| service.refuse(self.worker, reason))?;
        }
        Ok(())
    }

    /// Refuses a new passthrough flow if its client is at a limit. It counts once its client is proven.
    fn attempt(
        &self,
        packet: &Ported,
        target: &FlowTarget,
        towards: &Key,
        now: Moment,
    ) -> Result<(), DropReason> {
        let client = packet.source.ip();
        let store = &self.flows.store;
        if (target.share()).is_some_and(|limit| store.is_share_full(limit, towards, client)) {
            return Err(target.refuse(self.worker, AccessReason::ClientPorts).into());
        }
        if let Some(access) = target.access() {
            let begun = access.attempt(client, now.0);
            begun.map_err(|reason| target.refuse(self.worker, reason))?;
        }
        Ok(())
    }

    /// A client's packet of a passthrough flow.
    fn known_passthrough(&self, arrival: &Arrival, packet: &Ported) -> Lookup {
        let store = &self.flows.store;
        let known = store.visit_nat(&packet.key, self.visitor(arrival), |flow| {
            flow.renew(&packet.key, &self.services);
            if packet.segment.kind == SegmentKind::Open && flow.can_reopen() {
                return Visit::Remove(Lookup::Miss);
            }
            if flow.target().is_down() {
                // a connection is lost with its server; what can begin anew goes to another
                return Visit::Remove(if packet.begins() {
                    Lookup::Miss
                } else {
                    Lookup::Decided(Err(PacketReason::ResetServerDown.into()))
                });
            }
            let (nat, server) = (flow.nat(), flow.server());
            let way = match self.sendable(arrival, flow.target()) {
                Ok(way) => way,
                Err(refusal) => return Visit::Keep(Lookup::Decided(Err(refusal))),
            };
            let origin = origin(arrival);
            let has_moved = flow.back().origin != origin && flow.proves_path(&packet.segment);
            let observed = flow.observe(Side::Client, &packet.segment, arrival.now);
            if let Some(handshake) = observed.handshake {
                flow.target().count_handshake(self.worker, handshake);
            }
            if observed.is_proven
                && let Err(reason) = store.count_nat(flow, packet.source.ip(), arrival.now)
            {
                let reason = flow.target().refuse(self.worker, reason);
                return Visit::Remove(Lookup::Decided(Err(reason.into())));
            }
            if has_moved || observed.is_proven {
                // not before: forged clients would use up the hops, or stand for them
                let origin = if has_moved { origin } else { flow.back().origin };
                store.follow_client(flow, origin, packet.source.ip());
            }
            flow.target().count_in(self.worker, arrival.parsed.ip_len());
            let counted = arrival.counted(flow.target());
            let to = Rewrite::Packet(AddressPair {
                source: nat,
                destination: server,
            });
            Visit::Keep(Lookup::Decided(Ok(onward(arrival, to, way, counted))))
        });
        known.unwrap_or(Lookup::Miss)
    }

    /// As [`sendable`](Self::sendable), in DSR. A packet that keeps its addresses can be given to the server only, not to a
    /// gateway, which would send it back to us.
    pub(super) fn sendable_directly(
        &self,
        arrival: &Arrival,
        target: &FlowTarget,
    ) -> Result<NextHop<'_>, DropReason> {
        if target.has_vip && self.ways.is_behind_gateway(target.ip) {
            target.count_drop(self.worker, PacketReason::BehindGateway);
            return Err(PacketReason::BehindGateway.into());
        }
        self.sendable(arrival, target)
    }

    /// The next hop to a server for a packet, or why it cannot be sent there.
    pub(super) fn sendable(&self, arrival: &Arrival, target: &FlowTarget) -> Result<NextHop<'_>, DropReason> {
        let way = (self.ways.to(target.ip)).inspect_err(|reason| target.count_drop(self.worker, *reason))?;
        arrival.check(way.mtu)?;
        Ok(way)
    }

    /// Opens a passthrough flow.
    fn open(
        &self,
        arrival: &Arrival,
        packet: &Ported,
        service: &Service,
        random: u64,
    ) -> Result<Plan, DropReason> {
        let target = (service.choose(packet.source, packet.destination)).ok_or(packet.no_server())?;
        let server = target.at(packet.destination);
        // before anything is made: a client whose SYN cannot be sent sends another
        let way = self.sendable(arrival, target)?;
        // shares are by server, whichever our address towards it
        let towards_any = Key::new(packet.protocol, server, server);
        self.attempt(packet, target, &towards_any, arrival.now)?;
        let services = &self.services;
        let reverse_keys = ports::candidates(way.locals, services.nat_ports(), packet.source.port(), random)
            // an address that clients send to is no NAT port
            .filter(|nat| services.at(packet.protocol, *nat).is_none())
            .map(|nat| Key::new(packet.protocol, server, nat));
        let beginning = self.beginning(arrival, packet, random);
        let flow = NewFlow {
            target: Arc::clone(target),
            generation: services.generation(),
        };
        let store = &self.flows.store;
        let nat = (store.open_nat(&beginning, flow, origin(arrival), &reverse_keys))
            .inspect_err(|reason| target.count_drop(self.worker, *reason))?;
        let Some(nat) = nat else {
            // another worker has just opened it
            return match self.known_passthrough(arrival, packet) {
                Lookup::Decided(decision) => decision,
                Lookup::Miss => Err(PacketReason::TableFull.into()),
            };
        };
        target.count_in(self.worker, arrival.parsed.ip_len());
        let to = Rewrite::Packet(AddressPair {
            source: nat,
            destination: server,
        });
        Ok(onward(arrival, to, way, arrival.counted(target)))
    }

    /// A server's packet to a NAT port; `None` if no flow has it towards this server.
    fn reply(&self, arrival: &Arrival, packet: &Ported) -> Option<Result<Plan, DropReason>> {
        let store = &self.flows.store;
        let key = store.nat_holder(&packet.key)?;
        store.visit_nat(&key, self.visitor(arrival), |flow| {
            if *flow.reverse() != packet.key {
                // ended and opened anew between the two looks
                return Visit::Keep(None);
            }
            if !(self.services.any_interface() || self.ways.leads_to(packet.source.ip(), arrival.ifindex)) {
                return Visit::Keep(Some(Err(PacketReason::WrongInterface.into())));
            }
            let back = match self.ways.back(flow.back()) {
                Ok(back) => back,
                Err(refusal) => return Visit::Keep(Some(Err(refusal))),
            };
            if let Err(refusal) = arrival.check(back.mtu) {
                return Visit::Keep(Some(Err(refusal)));
            }
            flow.observe(Side::Server, &packet.segment, arrival.now);
            flow.target().count_out(self.worker, arrival.parsed.ip_len());
            Visit::Keep(Some(Ok(Plan {
                reason: PacketReason::ToClient,
                to: Rewrite::Packet(AddressPair {
                    source: key.to(),
                    destination: key.from(),
                }),
                link: back.link,
                tags: back.tags,
                mtu: back.mtu,
                counted: arrival.counted(flow.target()),
            })))
        })?
    }

    /// As [`reply`](Self::reply), to a NAT port over which a reload has laid a frontend's range since the flow began.
    fn reply_at_vip(&self, arrival: &Arrival, packet: &Ported) -> Option<Result<Plan, DropReason>> {
        let may_be =
            self.services.nat_ports().contains(packet.destination.port()) && self.flows.store.has_nat();
        may_be.then(|| self.reply(arrival, packet)).flatten()
    }

    fn dsr(&self, arrival: &Arrival, packet: &Ported, service: &Service) -> Result<Plan, DropReason> {
        self.refuse_datagram(packet, service, arrival.now)?;
        if let Lookup::Decided(decision) = self.known_dsr(arrival, packet) {
            return decision;
        }
        // the frontend may have been passthrough's before a reload
        if packet.segment.kind != SegmentKind::Open
            && self.flows.store.has_nat()
            && let Lookup::Decided(decision) = self.known_passthrough(arrival, packet)
        {
            return decision;
        }
        if let Some(reply) = self.reply_at_vip(arrival, packet) {
            return reply;
        }
        self.refuse_unopened(packet, service)?;
        let target = (service.choose(packet.source, packet.destination)).ok_or(packet.no_server())?;
        let way = self.sendable_directly(arrival, target)?;
        let admission = self.admit(packet, target, arrival.now)?;
        if !matches!(packet.segment.kind, SegmentKind::Close | SegmentKind::Reset) {
            let flow = NewFlow {
                target: Arc::clone(target),
                generation: self.services.generation(),
            };
            (self.flows.store).remember_dsr(&self.beginning(arrival, packet, 0), flow, admission);
        }
        target.count_in(self.worker, arrival.parsed.ip_len());
        let counted = arrival.counted(target);
        Ok(onward(arrival, directly(packet, target), way, counted))
    }

    /// Asks the limits of a new DSR flow's frontend. A connection under way is none: that we have not seen it begin is our
    /// own fault, such as a restart.
    fn admit(&self, packet: &Ported, target: &FlowTarget, now: Moment) -> Result<Admission, DropReason> {
        let Some(access) = target.access() else {
            return Ok(Admission::Admitted(None));
        };
        if !packet.begins() {
            return Ok(Admission::UnderWay);
        }
        let permit = access.take(packet.source.ip(), now.0);
        let permit = permit.map_err(|reason| target.refuse(self.worker, reason))?;
        Ok(Admission::Admitted(Some(Box::new(permit))))
    }

    /// A packet of a DSR flow that the cache has.
    fn known_dsr(&self, arrival: &Arrival, packet: &Ported) -> Lookup {
        let store = &self.flows.store;
        let known = store.visit_dsr(&packet.key, self.visitor(arrival), |entry| {
            entry.renew(&packet.key, &self.services);
            let begins_anew = packet.segment.kind == SegmentKind::Open && entry.can_reopen();
            if begins_anew || entry.target().is_down() {
                return Visit::Remove(Lookup::Miss);
            }
            let way = match self.sendable_directly(arrival, entry.target()) {
                Ok(way) => way,
                Err(refusal) => return Visit::Keep(Lookup::Decided(Err(refusal))),
            };
            if let Some(handshake) = entry.observe(packet.segment.kind, arrival.now) {
                entry.target().count_handshake(self.worker, handshake);
            }
            entry.target().count_in(self.worker, arrival.parsed.ip_len());
            let counted = arrival.counted(entry.target());
            let to = directly(packet, entry.target());
            Visit::Keep(Lookup::Decided(Ok(onward(arrival, to, way, counted))))
        });
        known.unwrap_or(Lookup::Miss)
    }
}

/// What changes in a client's packet in DSR.
fn directly(packet: &Ported, target: &FlowTarget) -> Rewrite {
    if target.has_vip {
        return Rewrite::Nothing { least_mtu: None };
    }
    Rewrite::Packet(AddressPair {
        source: packet.source,
        destination: target.at(packet.destination),
    })
}

/// The plan for a packet to a server.
fn onward(arrival: &Arrival, to: Rewrite, way: NextHop<'_>, counted: Option<Arc<FlowTarget>>) -> Plan {
    Plan {
        reason: PacketReason::ToServer,
        to,
        link: way.link,
        tags: tags_towards(arrival, way.link.ifindex),
        mtu: way.mtu,
        counted,
    }
}

/// A packet keeps its VLAN tags on the interface that they came by; on another they would mean another network.
pub(super) fn tags_towards(arrival: &Arrival, ifindex: u32) -> Tags {
    if ifindex == arrival.ifindex {
        arrival.parsed.tags
    } else {
        Tags::default()
    }
}

/// Where a packet has come from.
fn origin(arrival: &Arrival) -> ReturnOrigin {
    ReturnOrigin {
        ifindex: arrival.ifindex,
        mac: arrival.parsed.link_source,
        tags: arrival.parsed.tags,
        is_v6: arrival.parsed.source.is_ipv6(),
    }
}
