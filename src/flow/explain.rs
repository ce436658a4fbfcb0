//! Answers for people: where a 5-tuple goes, which flows there are, how full the tables are.

use std::{collections::HashSet, time::Duration};

use super::{
    Because, Explanation, FiveTuple, FlowInfo, Flows, Hops, Moment, Path, Services, Usage, dsr::Entry,
    key::Key, services::FlowTarget, table::NatFlow, ways::way,
};
use crate::base::{ClientAddr, Endpoint, ListenAddr, PacketReason, Protocol, ServerAddr, ServerState};

fn tuple(key: &Key) -> FiveTuple {
    FiveTuple {
        protocol: key.protocol(),
        client: ClientAddr(key.from()),
        vip: ListenAddr(key.to()),
    }
}

fn between(from: Moment, to: Moment) -> Duration {
    Duration::from_millis(to.0.saturating_sub(from.0))
}

impl NatFlow {
    fn info(&self, key: &Key, now: Moment) -> FlowInfo {
        FlowInfo {
            tuple: tuple(key),
            frontend: self.target.frontend.clone(),
            server: self.target.server.clone(),
            server_addr: ServerAddr(self.server()),
            nat: Some(self.nat()),
            state: self.life.state(),
            idle: between(self.seen, now),
            expires_in: between(now, self.expires()),
        }
    }
}

impl Entry {
    fn info(&self, now: Moment) -> FlowInfo {
        FlowInfo {
            tuple: tuple(&self.key),
            frontend: self.target.frontend.clone(),
            server: self.target.server.clone(),
            server_addr: ServerAddr(self.target.destination),
            nat: None,
            state: self.life.state(),
            idle: between(self.seen, now),
            expires_in: between(now, self.expires()),
        }
    }
}

impl Flows {
    /// How full they are.
    #[must_use]
    pub fn usage(&self) -> Usage {
        Usage {
            nat_flows: u64::from(self.room.nat()),
            half_open: u64::from(self.room.half_open()),
            dsr_flows: u64::from(self.room.dsr()),
            max_flows: u64::from(self.room.max()),
            fragments_waiting: u64::from(self.fragments.waiting()),
            gave_way: self.nat.gave_way(),
        }
    }

    /// Passthrough flows that match, `limit` at most, and how many match in all.
    #[must_use]
    pub fn list(
        &self,
        wanted: &dyn Fn(&FlowInfo) -> bool,
        limit: usize,
        now: Moment,
    ) -> (u64, Vec<FlowInfo>) {
        let (mut matching, mut listed) = (0, Vec::new());
        self.nat.for_each(now, |key, flow| {
            let info = flow.info(key, now);
            if wanted(&info) {
                matching += 1;
                if listed.len() < limit {
                    listed.push(info);
                }
            }
        });
        (matching, listed)
    }

    /// VIPs and servers that live flows still use, each pair once: what a reload has removed from the
    /// configuration must be kept in firewall and filters for them.
    #[must_use]
    pub fn in_use(&self, now: Moment) -> HashSet<(Endpoint, ServerAddr)> {
        let mut used = HashSet::new();
        self.nat.for_each(now, |key, flow| {
            used.insert((tuple(key).endpoint(), ServerAddr(flow.server())));
        });
        self.dsr.for_each(now, |entry| {
            used.insert((tuple(&entry.key).endpoint(), entry.target.addr));
        });
        used
    }

    /// Whether a client holds all NAT ports of a server that it may.
    fn has_share(&self, target: &FlowTarget, tuple: &FiveTuple) -> bool {
        let client = tuple.client.0;
        let reverse = Key::new(tuple.protocol, target.destination, client);
        (target.share()).is_some_and(|limit| self.nat.shares().is_full(limit, &reverse, client.ip()))
    }

    /// The flow of a 5-tuple and its server, as the tables have it.
    fn find(&self, key: &Key, now: Moment) -> Option<(FlowInfo, std::sync::Arc<FlowTarget>)> {
        self.nat
            .peek(key, now, |flow| (flow.info(key, now), flow.target.clone()))
            .or_else(|| (self.dsr).peek(key, now, |entry| (entry.info(now), entry.target.clone())))
    }
}

impl Path {
    /// Where packets of a 5-tuple would go. Changes nothing.
    #[must_use]
    pub fn explain(
        flows: &Flows,
        services: &Services,
        hops: &Hops,
        tuple: &FiveTuple,
        now: Moment,
    ) -> Explanation {
        let (client, vip) = (tuple.client.0, tuple.vip.0);
        let service = services.at(tuple.protocol, vip);
        let slot = service.and_then(|service| service.slot(client, vip));
        let flow = flows.find(&Key::new(tuple.protocol, client, vip), now);
        let blocked_by = |target: &FlowTarget| {
            let ip = target.destination.ip();
            way(hops.servers.get(&ip), ip).err()
        };
        let current = flow.as_ref().map(|(_, target)| {
            let current = services.renew(tuple.protocol, vip, target);
            current.unwrap_or(target)
        });
        let info = flow.as_ref().map(|(info, _)| info.clone());
        // only a connection through us is lost with its server; other flows are sent to another
        let is_bound = |info: &FlowInfo| info.nat.is_some() && tuple.protocol == Protocol::Tcp;
        if let (Some(info), Some(target)) = (&info, current)
            && (!target.is_down() || is_bound(info))
        {
            let because = match target.state {
                ServerState::Down => Because::FlowServerDown,
                ServerState::Draining | ServerState::Maintenance => Because::FlowDraining,
                ServerState::Up | ServerState::Checking => Because::Flow,
            };
            let server_down = target.is_down().then_some(PacketReason::ResetServerDown);
            return Explanation {
                frontend: Some(info.frontend.clone()),
                server: Some((target.server.clone(), target.addr)),
                because,
                slot,
                blocked_by: server_down.or_else(|| blocked_by(target)),
                flow: Some(info.clone()),
            };
        }
        let absent =
            (service.is_some() && hops.absent_vips.contains(&vip.ip())).then_some(PacketReason::VipAbsent);
        let denied = service.and_then(|service| service.access()?.check_rules(client.ip()).err());
        let chosen = service.and_then(|service| service.choose(client, vip));
        let because = match (service, chosen) {
            (None, _) => Because::NotServed,
            (Some(_), None) => Because::NoServer,
            (Some(_), Some(_)) => Because::Maglev,
        };
        let no_server = (because == Because::NoServer).then_some(match tuple.protocol {
            Protocol::Tcp => PacketReason::ResetNoServer,
            Protocol::Udp => PacketReason::UnreachableNoServer,
        });
        Explanation {
            frontend: service.map(|service| service.frontend().clone()),
            server: chosen.map(|target| (target.server.clone(), target.addr)),
            because,
            slot,
            flow: info,
            blocked_by: (absent.or(denied.map(Into::into)).or(no_server))
                .or_else(|| chosen.and_then(|target| blocked_by(target)))
                .or_else(|| {
                    let is_full = chosen.is_some_and(|target| flows.has_share(target, tuple));
                    is_full.then_some(PacketReason::ClientPorts)
                }),
        }
    }
}
