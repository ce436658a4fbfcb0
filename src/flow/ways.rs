//! The next hops as the path looks them up: as [`Hops`], but found by a fast hash.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use super::{Hop, Hops, Interface, Resolution, key::Seeded};
use crate::{base::PacketReason, packet::LinkHeader};

/// Next hops by address, interfaces by index.
#[derive(Debug, Default)]
pub(super) struct Ways {
    servers: HashMap<IpAddr, Hop, Seeded>,
    interfaces: HashMap<u32, Interface, Seeded>,
    /// Our addresses towards servers.
    locals: HashSet<IpAddr, Seeded>,
}

/// The next hop of a packet to a server.
#[derive(Debug, Clone, Copy)]
pub(super) struct NextHop {
    pub link: LinkHeader,
    /// Largest IP packet, in bytes.
    pub mtu: u32,
    /// Our address towards it.
    pub local: IpAddr,
}

impl Ways {
    pub fn new(hops: &Hops) -> Self {
        Self {
            servers: hops.servers.iter().map(|(ip, hop)| (*ip, *hop)).collect(),
            interfaces: hops.interfaces.iter().map(|(i, of)| (*i, *of)).collect(),
            locals: hops.servers.values().map(|hop| hop.local).collect(),
        }
    }

    /// The next hop to a server, or why there is none.
    pub fn to(&self, server: IpAddr) -> Result<NextHop, PacketReason> {
        way(self.servers.get(&server), server)
    }

    pub fn interface(&self, ifindex: u32) -> Option<&Interface> {
        self.interfaces.get(&ifindex)
    }

    /// Whether it is an address of ours towards servers.
    pub fn is_local(&self, ip: IpAddr) -> bool {
        self.locals.contains(&ip)
    }
}

/// The way that a hop gives, or why it cannot be gone.
pub(super) fn way(hop: Option<&Hop>, server: IpAddr) -> Result<NextHop, PacketReason> {
    let hop = hop
        .filter(|hop| hop.local.is_ipv4() == server.is_ipv4())
        .ok_or(PacketReason::NoRoute)?;
    match hop.resolution {
        Resolution::Known(link) => Ok(NextHop {
            link,
            mtu: hop.mtu,
            local: hop.local,
        }),
        Resolution::Unresolved => Err(PacketReason::Unresolved),
        Resolution::NoRoute => Err(PacketReason::NoRoute),
    }
}
