//! Where packets leave: what the engine's netlink follower knows, as a picture that the path reads.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use crate::{base::Mac, packet::LinkHeader};

/// The next hops of one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hops {
    /// The next hop to each server's address.
    pub servers: HashMap<IpAddr, Hop>,
    /// The next hop to one client behind each return hop.
    pub clients: HashMap<IpAddr, Hop>,
    /// Return hops whose replies take another way than the one that their flows came by.
    pub returns: HashMap<HopNumber, ReturnLink>,
    /// Interfaces that packets come in by, by index.
    pub interfaces: HashMap<u32, Interface>,
    /// Addresses of this host.
    pub own: HashSet<IpAddr>,
    /// Servers whose next hop is a gateway.
    pub behind_gateways: HashSet<IpAddr>,
    /// VIPs that no interface of this host has: another load balancer's now, for all that is known.
    pub absent_vips: HashSet<IpAddr>,
}

/// The number of a return hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HopNumber(pub(super) u32);

/// A way back to clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReturnLink {
    /// Interface and link addresses.
    pub link: LinkHeader,
    /// Largest IP packet, in bytes.
    pub mtu: u32,
}

/// The next hop to a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    /// The link header, if it is known.
    pub resolution: Resolution,
    /// Largest IP packet that the way takes, in bytes: the route's MTU or the interface's.
    pub mtu: u32,
    /// Our addresses towards the server, of its family: those of `nat_address`, or the one that its route gives. There is
    /// one at least where the next hop is known.
    pub locals: Arc<[IpAddr]>,
}

/// Whether the next hop to a server is resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolution {
    /// Known.
    Known(LinkHeader),
    /// There is a route by this interface; the next hop's link address is being asked for.
    Unresolved {
        /// Its index.
        ifindex: u32,
    },
    /// There is no route.
    NoRoute,
}

/// An interface that packets come in by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interface {
    /// Its link address.
    pub mac: Mac,
    /// Largest IP packet that it sends, in bytes.
    pub mtu: u32,
    /// One of its IPv4 addresses: the source of ICMP errors that no VIP is the source of.
    pub address4: Option<Ipv4Addr>,
    /// One of its IPv6 addresses.
    pub address6: Option<Ipv6Addr>,
}
