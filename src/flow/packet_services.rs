//! The services of the packet modes, as a data plane that is not made of these types is told of them.

use std::{net::IpAddr, sync::Arc};

use super::{
    Hops, Services,
    services::{FlowTarget, ForwardMode, Service},
    ways::way,
};
use crate::{
    balance::Balancer,
    base::{ListenRange, Protocol},
    packet::LinkHeader,
};

/// One VIP address of a packet mode, with a port or several in a row.
#[derive(Debug, Clone, Copy)]
pub struct PacketServiceView<'a> {
    /// Whether it is of mode dsr; else it is of mode passthrough.
    pub is_dsr: bool,
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

impl<'a> PacketServiceView<'a> {
    fn of(service: &'a Service) -> Self {
        Self {
            is_dsr: service.mode == ForwardMode::Dsr,
            protocol: service.view.config.protocol,
            range: service.range,
            targets: &service.targets,
            maglev: service.view.backend.maglev.as_ref(),
            has_access: service.access().is_some(),
        }
    }
}

impl Services {
    /// The services of mode dsr, in no order.
    pub fn dsr(&self) -> impl Iterator<Item = PacketServiceView<'_>> {
        self.views().filter(|service| service.is_dsr)
    }

    /// The services of mode passthrough, in no order.
    pub fn passthrough(&self) -> impl Iterator<Item = PacketServiceView<'_>> {
        self.views().filter(|service| !service.is_dsr)
    }

    /// The services of both modes, in no order.
    pub fn views(&self) -> impl Iterator<Item = PacketServiceView<'_>> {
        self.all().map(|service| PacketServiceView::of(service))
    }

    /// Whether anything is served in mode passthrough.
    #[must_use]
    pub fn has_passthrough(&self) -> bool {
        self.passthrough().next().is_some()
    }
}

impl FlowTarget {
    /// The link header and the largest IP packet, in bytes, of packets of mode dsr to it; `None`: they cannot be sent now.
    #[must_use]
    pub fn direct_way(&self, hops: &Hops) -> Option<(LinkHeader, u32)> {
        if self.has_vip && hops.behind_gateways.contains(&self.ip) {
            return None;
        }
        self.nat_way(hops).map(|(link, mtu, _)| (link, mtu))
    }

    /// The link header, the largest IP packet, in bytes, and our addresses towards it (one at least), for packets of mode
    /// passthrough to it; `None`: they cannot be sent now.
    #[must_use]
    pub fn nat_way<'a>(&self, hops: &'a Hops) -> Option<(LinkHeader, u32, &'a [IpAddr])> {
        let way = way(hops.servers.get(&self.ip), self.ip).ok()?;
        Some((way.link, way.mtu, way.locals))
    }
}
