//! What the packet modes know of a server.

use std::{collections::HashMap, sync::atomic::Ordering};

use super::alerts;
use crate::{
    admin::{status::Status, views},
    base::{BackendName, Handshake, ServerKey},
    config::Mode,
    snapshot::{BackendView, ServerView},
};

/// Makes the views of servers, at one moment.
#[derive(Debug)]
pub struct ServerViews<'a> {
    status: &'a Status,
    /// Backends that frontends in mode passthrough use, with the ports of the widest of their ranges: so many ports of a
    /// server have the NAT ports towards it.
    passthrough: HashMap<&'a BackendName, u32>,
}

impl<'a> ServerViews<'a> {
    /// Those of a status.
    #[must_use]
    pub fn new(status: &'a Status) -> Self {
        let frontends = status.snapshot.frontends.values();
        let mut passthrough = HashMap::new();
        for view in frontends.filter(|view| view.config.mode == Mode::Passthrough) {
            let widest = view.config.listen.iter().map(|range| range.ports().len()).max();
            let ports: &mut u32 = passthrough.entry(&view.config.backend).or_default();
            *ports = widest.unwrap_or(1).max(*ports);
        }
        Self { status, passthrough }
    }

    /// One server's; `None` if no frontend in a packet mode uses its backend.
    #[must_use]
    pub fn of(&self, backend: &BackendView, server: &ServerView) -> Option<views::ServerPackets> {
        backend.maglev.as_ref()?;
        let key = ServerKey {
            backend: backend.config.name.clone(),
            server: server.name.clone(),
        };
        let counted = Handshake::ALL
            .iter()
            .zip(server.live.counters.totals().handshakes)
            .filter(|(_, count)| *count > 0);
        Some(views::ServerPackets {
            alerts: (self.status.packet.as_ref())
                .map_or_else(Vec::new, |packet| alerts(&packet.alerts, &Some(key))),
            handshakes: counted
                .map(|(handshake, count)| ((*handshake).into(), count))
                .collect(),
            nat_ports: self.nat_ports(backend, server),
        })
    }

    /// NAT ports towards a server; `None` if no frontend in mode passthrough uses its backend.
    #[must_use]
    pub fn nat_ports(&self, backend: &BackendView, server: &ServerView) -> Option<views::NatPortUse> {
        let ports = self.passthrough.get(&backend.config.name)?;
        let is_v4 = server.addr.ip().is_some_and(|ip| ip.is_ipv4());
        let towards_each = self.status.snapshot.nat_ports_towards(is_v4);
        Some(views::NatPortUse {
            claimed: server.live.nat_ports.load(Ordering::Relaxed),
            available: towards_each.saturating_mul(*ports),
        })
    }
}
