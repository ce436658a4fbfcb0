//! Answers for people: where a 5-tuple goes, which flows there are, how full the tables are.

use std::collections::BTreeSet;

use super::{
    Because, Explanation, FiveTuple, FlowInfo, Flows, Hops, Moment, Services, Usage,
    key::Key,
    services::{FlowTarget, ForwardMode},
    store::{FlowEntry, FlowStore},
    ways::way,
};
use crate::base::{Endpoint, IpServerAddr, PacketReason, Protocol, ServerState};

impl<S: FlowStore> Flows<S> {
    /// How full they are.
    #[must_use]
    pub fn usage(&self) -> Usage {
        Usage {
            fragments_waiting: u64::from(self.fragments.waiting()),
            ..self.store.usage()
        }
    }

    /// Flows that match, `limit` at most, and how many match in all: those of passthrough, then those of DSR.
    #[must_use]
    pub fn list(
        &self,
        wanted: &dyn Fn(&FlowInfo) -> bool,
        limit: usize,
        now: Moment,
    ) -> (u64, Vec<FlowInfo>) {
        let (mut matching, mut listed) = (0, Vec::new());
        let mut see = |info: FlowInfo| {
            if wanted(&info) {
                matching += 1;
                if listed.len() < limit {
                    listed.push(info);
                }
            }
        };
        self.store
            .for_each_nat(now, &mut |key, flow| see(flow.info(key, now)));
        self.store
            .for_each_dsr(now, &mut |key, flow| see(flow.info(key, now)));
        (matching, listed)
    }

    /// VIPs and servers that live flows still use, each pair once: what a reload has removed from the
    /// configuration must be kept in firewall and filters for them.
    #[must_use]
    pub fn in_use(&self, now: Moment) -> BTreeSet<(Endpoint, IpServerAddr)> {
        self.store.in_use(now)
    }

    /// How many live flows of either mode have a 5-tuple that is wanted; closing ones do not count.
    pub fn count(&self, wanted: &dyn Fn(&FiveTuple) -> bool, now: Moment) -> u64 {
        self.store.count(now, wanted)
    }

    /// Whether a client holds all NAT ports of a server that it may.
    fn has_share(&self, target: &FlowTarget, tuple: &FiveTuple) -> bool {
        let client = tuple.client.0;
        let towards = Key::new(tuple.protocol, target.at(tuple.vip.0), client);
        (target.share()).is_some_and(|limit| self.store.is_share_full(limit, &towards, client.ip()))
    }

    /// Where packets of a 5-tuple would go. Changes nothing.
    #[must_use]
    pub fn explain(&self, services: &Services, hops: &Hops, tuple: &FiveTuple, now: Moment) -> Explanation {
        let (client, vip) = (tuple.client.0, tuple.vip.0);
        let service = services.at(tuple.protocol, vip);
        let slot = service.and_then(|service| service.slot(client, vip));
        let flow = self.store.find(&Key::new(tuple.protocol, client, vip), now);
        let is_direct = match &flow {
            Some((info, _)) => info.nat.is_none(),
            None => service.is_some_and(|service| service.mode == ForwardMode::Dsr),
        };
        let blocked_by = |target: &FlowTarget| {
            let ip = target.ip;
            if is_direct && target.has_vip && hops.behind_gateways.contains(&ip) {
                return Some(PacketReason::BehindGateway);
            }
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
                server: Some((target.server.clone(), IpServerAddr::new(target.at(vip)))),
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
            server: chosen.map(|target| (target.server.clone(), IpServerAddr::new(target.at(vip)))),
            because,
            slot,
            flow: info,
            blocked_by: (absent.or(denied.map(Into::into)).or(no_server))
                .or_else(|| chosen.and_then(|target| blocked_by(target)))
                .or_else(|| {
                    let is_full = chosen.is_some_and(|target| self.has_share(target, tuple));
                    is_full.then_some(PacketReason::ClientPorts)
                }),
        }
    }
}
