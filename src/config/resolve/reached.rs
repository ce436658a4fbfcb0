//! Which frontends of this file a server's address is.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use super::ranges::MOST_PROXIED;
use crate::{
    base::{ListenRange, PortMap, PortRange, ServerAddr, Zone},
    config::model::{Config, Frontend},
};

/// What proxied frontends listen on.
pub struct Listeners<'a> {
    /// By the address, with its interface if it has one: the frontend's name.
    by_address: PortMap<(SocketAddr, Option<Zone>), &'a str>,
    /// By the frontend's name, the highest offset of a port in its ranges.
    furthest: HashMap<&'a str, u16>,
}

/// What the frontends of one backend listen on.
pub struct OwnListeners<'a> {
    all: &'a Listeners<'a>,
    /// Names of those in mode proxy.
    own: HashSet<&'a str>,
    /// The highest offset of a port in their ranges.
    furthest: u16,
    /// Whether there are some in packet modes.
    pub by_packets: bool,
}

impl<'a> Listeners<'a> {
    /// Those of a configuration.
    pub fn of(config: &'a Config) -> Self {
        let proxied: Vec<&Frontend> = (config.frontends.values())
            .map(|frontend| &**frontend)
            .filter(|frontend| !frontend.mode.is_packet())
            .collect();
        let span = |range: &ListenRange| range.ports().last - range.ports().first;
        // more is an error, which this need not look far for
        let furthest = |frontend: &Frontend| {
            let furthest = frontend.listen.iter().map(span).max().unwrap_or(0);
            furthest.min(MOST_PROXIED)
        };
        Self {
            furthest: (proxied.iter())
                .map(|frontend| (frontend.name.as_str(), furthest(frontend)))
                .collect(),
            by_address: (proxied.iter())
                .flat_map(|frontend| {
                    frontend
                        .listen
                        .iter()
                        .map(|range| (range, frontend.name.as_str()))
                })
                .map(|(range, name)| {
                    let first = range.first();
                    let address = (first.with_port(0).0, first.zone().copied());
                    (address, range.ports(), name)
                })
                .collect(),
        }
    }

    /// The frontends at which connections surely end that go to a server's address or to one of so many ports after it.
    pub fn reached(&self, server: ServerAddr, furthest: u16) -> Vec<&'a str> {
        let Some(server) = server.on_network() else {
            return Vec::new();
        };
        let first = server.0.port();
        let ports = PortRange {
            first,
            last: first.saturating_add(furthest),
        };
        let wildcard: IpAddr = match server.0 {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let is_local = server.0.ip().is_loopback() || server.0.ip().is_unspecified();
        let exact = (server.with_port(0).0, server.zone().copied());
        let everywhere = (SocketAddr::new(wildcard, 0), None);
        let keys = [Some(exact), is_local.then_some(everywhere)];
        let found = keys.into_iter().flatten().flat_map(|key| {
            let there = self.by_address.overlapping(&key, ports);
            there.map(|(_, name)| *name).collect::<Vec<_>>()
        });
        found.collect()
    }

    /// The highest offset of a port in a frontend's ranges.
    pub fn furthest(&self, frontend: &str) -> u16 {
        self.furthest.get(frontend).copied().unwrap_or(0)
    }

    /// Those of these frontends.
    pub fn of_users(&'a self, users: &[&'a Frontend]) -> OwnListeners<'a> {
        let own: HashSet<&str> = (users.iter())
            .filter(|frontend| !frontend.mode.is_packet())
            .map(|frontend| frontend.name.as_str())
            .collect();
        OwnListeners {
            all: self,
            furthest: (own.iter())
                .filter_map(|name| self.furthest.get(name))
                .copied()
                .max()
                .unwrap_or(0),
            by_packets: own.len() < users.len(),
            own,
        }
    }
}

impl OwnListeners<'_> {
    /// Whether a connection to one of the ports that a server's address stands for surely ends at one of these.
    pub fn are_reached(&self, server: ServerAddr) -> bool {
        let reached = self.all.reached(server, self.furthest);
        reached.iter().any(|name| self.own.contains(name))
    }
}
