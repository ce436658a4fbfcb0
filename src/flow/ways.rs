//! The next hops as the path looks them up: as [`Hops`], but found by a fast hash.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use super::{
    Hop, HopNumber, Hops, Interface, Resolution, ReturnLink, key::Seeded, plan::DropReason,
    returns::ReturnPath,
};
use crate::{
    base::PacketReason,
    packet::{LinkHeader, Tags},
};

/// Next hops by address, interfaces by index.
#[derive(Debug, Default)]
pub(super) struct Ways {
    servers: HashMap<IpAddr, Hop, Seeded>,
    interfaces: HashMap<u32, Interface, Seeded>,
    /// Our addresses towards servers.
    locals: HashSet<IpAddr, Seeded>,
    returns: HashMap<HopNumber, ReturnLink, Seeded>,
    own: HashSet<IpAddr, Seeded>,
    behind_gateways: HashSet<IpAddr, Seeded>,
    absent_vips: HashSet<IpAddr, Seeded>,
}

/// The way of a reply.
#[derive(Debug, Clone, Copy)]
pub(super) struct WayBack {
    pub link: LinkHeader,
    pub tags: Tags,
    /// Largest IP packet, in bytes.
    pub mtu: u32,
}

/// The next hop of a packet to a server.
#[derive(Debug, Clone, Copy)]
pub(super) struct NextHop<'a> {
    pub link: LinkHeader,
    /// Largest IP packet, in bytes.
    pub mtu: u32,
    /// Our addresses towards it, one at least.
    pub locals: &'a [IpAddr],
}

impl Ways {
    pub fn new(hops: &Hops) -> Self {
        Self {
            servers: hops.servers.iter().map(|(ip, hop)| (*ip, hop.clone())).collect(),
            interfaces: hops.interfaces.iter().map(|(i, of)| (*i, *of)).collect(),
            locals: (hops.servers.values())
                .flat_map(|hop| hop.locals.iter().copied())
                .collect(),
            returns: hops
                .returns
                .iter()
                .map(|(number, link)| (*number, *link))
                .collect(),
            own: hops.own.iter().copied().collect(),
            behind_gateways: hops.behind_gateways.iter().copied().collect(),
            absent_vips: hops.absent_vips.iter().copied().collect(),
        }
    }

    /// The next hop to a server, or why there is none.
    pub fn to(&self, server: IpAddr) -> Result<NextHop<'_>, PacketReason> {
        way(self.servers.get(&server), server)
    }

    /// Whether a gateway leads to a server.
    pub fn is_behind_gateway(&self, server: IpAddr) -> bool {
        self.behind_gateways.contains(&server)
    }

    /// The way back to a client: by which its packets have come, or the one that its route has taken since.
    pub fn back(&self, path: &ReturnPath) -> Result<WayBack, DropReason> {
        let moved = path.number.and_then(|number| self.returns.get(&number));
        if let Some(ReturnLink { link, mtu }) = moved.copied() {
            // tags of one interface mean another network on another
            let same = link.ifindex == path.origin.ifindex;
            let tags = if same { path.origin.tags } else { Tags::default() };
            return Ok(WayBack { link, tags, mtu });
        }
        let interface = (self.interfaces.get(&path.origin.ifindex)).ok_or(PacketReason::NoRoute)?;
        Ok(WayBack {
            link: LinkHeader {
                ifindex: path.origin.ifindex,
                source: interface.mac,
                destination: path.origin.mac,
            },
            tags: path.origin.tags,
            mtu: interface.mtu,
        })
    }

    /// Whether packets of a server come in by an interface: the one by which packets to it leave.
    pub fn leads_to(&self, server: IpAddr, ifindex: u32) -> bool {
        match self.servers.get(&server).map(|hop| hop.resolution) {
            Some(Resolution::Known(link)) => link.ifindex == ifindex,
            Some(Resolution::Unresolved { ifindex: leads }) => leads == ifindex,
            Some(Resolution::NoRoute) | None => false,
        }
    }

    /// Whether it is an address of this host.
    pub fn is_own(&self, ip: IpAddr) -> bool {
        self.own.contains(&ip)
    }

    /// Whether it is a VIP that no interface of this host has.
    pub fn is_absent(&self, vip: IpAddr) -> bool {
        self.absent_vips.contains(&vip)
    }

    /// Whether it is an address of ours towards servers.
    pub fn is_local(&self, ip: IpAddr) -> bool {
        self.locals.contains(&ip)
    }
}

/// The way that a hop gives, or why it cannot be gone.
pub(super) fn way(hop: Option<&Hop>, server: IpAddr) -> Result<NextHop<'_>, PacketReason> {
    let hop = hop
        .filter(|hop| (hop.locals.first()).is_some_and(|local| local.is_ipv4() == server.is_ipv4()))
        .ok_or(PacketReason::NoRoute)?;
    match hop.resolution {
        Resolution::Known(link) => Ok(NextHop {
            link,
            mtu: hop.mtu,
            locals: &hop.locals,
        }),
        Resolution::Unresolved { .. } => Err(PacketReason::Unresolved),
        Resolution::NoRoute => Err(PacketReason::NoRoute),
    }
}
