//! The services of mode dsr, as a data plane that is not made of these types is told of them.

use std::sync::Arc;

use super::{
    Hops, Services,
    services::{FlowTarget, ForwardMode},
    ways::way,
};
use crate::{
    balance::Balancer,
    base::{ListenRange, Protocol},
    packet::LinkHeader,
};

/// One VIP address of mode dsr, with a port or several in a row.
#[derive(Debug, Clone, Copy)]
pub struct DsrService<'a> {
    /// Its protocol.
    pub protocol: Protocol,
    /// Its address and ports.
    pub range: ListenRange,
    /// Its servers, by their index in the backend; `None`: of another family than the VIP.
    pub targets: &'a [Option<Arc<FlowTarget>>],
    /// The Maglev table of its backend. Its slots are of the same indexes.
    pub maglev: Option<&'a Arc<Balancer>>,
    /// Whether its frontend has access rules or limits: then each packet without a flow is asked for.
    pub has_access: bool,
}

impl Services {
    /// The services of mode dsr, in no order.
    pub fn dsr(&self) -> impl Iterator<Item = DsrService<'_>> {
        let services = self.all().filter(|service| service.mode == ForwardMode::Dsr);
        services.map(|service| DsrService {
            protocol: service.view.config.protocol,
            range: service.range,
            targets: &service.targets,
            maglev: service.view.backend.maglev.as_ref(),
            has_access: service.access().is_some(),
        })
    }

    /// Whether anything is served in mode passthrough.
    #[must_use]
    pub fn has_passthrough(&self) -> bool {
        (self.all()).any(|service| service.mode == ForwardMode::Passthrough)
    }
}

impl FlowTarget {
    /// The link header and the largest IP packet, in bytes, of packets of mode dsr to it; `None`: they cannot be sent now.
    #[must_use]
    pub fn direct_way(&self, hops: &Hops) -> Option<(LinkHeader, u32)> {
        if self.has_vip && hops.behind_gateways.contains(&self.ip) {
            return None;
        }
        let way = way(hops.servers.get(&self.ip), self.ip).ok()?;
        Some((way.link, way.mtu))
    }
}
