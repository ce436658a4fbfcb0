//! What the packet modes know of a server.

use std::{collections::HashSet, sync::atomic::Ordering};

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
    /// Backends that a frontend in mode passthrough uses.
    passthrough: HashSet<&'a BackendName>,
}

impl<'a> ServerViews<'a> {
    /// Those of a status.
    #[must_use]
    pub fn new(status: &'a Status) -> Self {
        let frontends = status.snapshot.frontends.values();
        let passthrough = frontends.filter(|view| view.config.mode == Mode::Passthrough);
        Self {
            status,
            passthrough: passthrough.map(|view| &view.config.backend).collect(),
        }
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
        let is_passthrough = self.passthrough.contains(&backend.config.name);
        Some(views::ServerPackets {
            alerts: (self.status.packet.as_ref())
                .map_or_else(Vec::new, |packet| alerts(&packet.alerts, &Some(key))),
            handshakes: counted
                .map(|(handshake, count)| ((*handshake).into(), count))
                .collect(),
            nat_ports: is_passthrough.then(|| views::NatPortUse {
                claimed: server.live.nat_ports.load(Ordering::Relaxed),
                available: self.status.snapshot.nat_ports_towards(server.addr.0.is_ipv4()),
            }),
        })
    }
}
