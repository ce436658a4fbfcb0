//! What is known of the network, and the network state that follows from it. Pure: no sockets, no clock.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use crate::{
    base::Mac,
    flow::{Hop, Hops, Interface, Resolution},
    packet::LinkHeader,
};

use super::{
    Link, NetworkState, NoWay, Wanted,
    addresses::{Address, Addresses, are_of_one_network},
};

/// Most interfaces that are kept. A host of many thousand containers stays below it.
const MAX_LINKS: usize = 16_384;

/// News from the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkEvent {
    /// An interface is there, or has changed.
    Link(u32, NetworkInterface),
    /// An interface is gone.
    LinkGone(u32),
    /// An interface has an address.
    Address(u32, IpAddr, Address),
    /// An interface has an address no more.
    AddressGone(u32, IpAddr),
    /// Rules or next-hop objects have changed: any route may lead elsewhere.
    Routing,
    /// A neighbour has changed.
    Neighbour(NeighbourKey, Neighbour),
}

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkInterface {
    /// Its name.
    pub name: String,
    /// What it is.
    pub medium: Medium,
    /// Largest IP packet, in bytes.
    pub mtu: u32,
    /// Whether it is up and has a carrier.
    pub is_up: bool,
}

/// What an interface sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Medium {
    /// Ethernet frames, from this address.
    Ethernet(Mac),
    /// Nothing: it gives packets back.
    Loopback,
    /// Something else (tun, WireGuard, PPP, GRE).
    Other,
}

/// A neighbour's place in the kernel's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NeighbourKey {
    /// The interface.
    pub ifindex: u32,
    /// The neighbour's address, of the gateway's family.
    pub address: IpAddr,
}

/// What the kernel knows of a neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Neighbour {
    /// Nothing: not asked for, being asked for, or it did not answer.
    Unknown,
    /// Its link address, which was true once and is used still.
    Stale(Mac),
    /// Its link address.
    Known(Mac),
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// What happens to packets.
    pub kind: RouteKind,
    /// Where to: a network, or the address that was asked for.
    pub destination: IpAddr,
    /// Bits of `destination` that count.
    pub length: u8,
    /// The interface by which.
    pub ifindex: Option<u32>,
    /// The gateway, maybe of the other family; none on link.
    pub gateway: Option<IpAddr>,
    /// The source that the kernel would take.
    pub source: Option<IpAddr>,
    /// The route's MTU in bytes, where it has one.
    pub mtu: Option<u32>,
}

/// What a route does with packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteKind {
    /// Sends them.
    Unicast,
    /// Delivers them here.
    Local,
    /// Drops them.
    Blackhole,
    /// Drops them: unreachable.
    Unreachable,
    /// Drops them: prohibited.
    Prohibit,
    /// Broadcast, multicast and what comes.
    Other,
}

/// What the kernel answered when it was asked for a server's route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteAnswer {
    /// This.
    Route(Route),
    /// None.
    None(NoWay),
}

/// What a next hop needs to be, or to stay, known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// To be asked for.
    Resolve,
    /// To be asked whether it is still there.
    Confirm,
}

/// All that is known.
#[derive(Debug, Default)]
pub struct Table {
    wanted: Arc<Wanted>,
    /// Clients of whose routes the packet path wants to know.
    clients: BTreeSet<IpAddr>,
    /// Those and the servers.
    followed: BTreeSet<IpAddr>,
    links: BTreeMap<u32, NetworkInterface>,
    addresses: Addresses,
    /// For each wanted server that has been asked for.
    answers: HashMap<IpAddr, RouteAnswer>,
    /// Of the next hops of `answers`, and no others.
    neighbours: HashMap<NeighbourKey, Neighbour>,
    /// Wanted servers whose route must be asked for.
    stale: BTreeSet<IpAddr>,
    /// Interfaces and addresses that found no room.
    refused: u64,
}

impl Table {
    /// Changes what matters. Every route is asked for again: with `nat_address` the question may be another.
    pub fn want(&mut self, wanted: Wanted) {
        self.wanted = Arc::new(wanted);
        self.follow();
        self.routing_changed();
    }

    /// Changes the clients whose routes are followed.
    pub fn want_clients(&mut self, clients: BTreeSet<IpAddr>) {
        self.clients = clients;
        self.follow();
        let unknown = self.followed.iter().filter(|ip| !self.answers.contains_key(*ip));
        self.stale.extend(unknown);
    }

    fn follow(&mut self) {
        self.followed = self.wanted.servers.union(&self.clients).copied().collect();
        self.answers.retain(|ip, _| self.followed.contains(ip));
        self.stale.retain(|ip| self.followed.contains(ip));
    }

    /// Forgets interfaces and addresses, to be told of all that there are.
    pub fn clear(&mut self) {
        self.links.clear();
        self.addresses.clear();
        self.routing_changed();
    }

    /// Takes news in. Returns whether they may change the network state.
    pub fn apply(&mut self, event: NetworkEvent) -> bool {
        let has_changed = match event {
            NetworkEvent::Link(index, link) => self.set_link(index, link),
            NetworkEvent::LinkGone(index) => {
                self.addresses.forget(index);
                self.links.remove(&index).is_some()
            }
            NetworkEvent::Address(index, ip, address) => self.set_address(index, ip, address),
            NetworkEvent::AddressGone(index, ip) => self.addresses.remove(index, ip),
            NetworkEvent::Routing => true,
            NetworkEvent::Neighbour(key, state) => return self.set_neighbour(key, state),
        };
        if has_changed {
            self.routing_changed();
        }
        has_changed
    }

    /// Some route has come, gone or changed. Returns whether it may be one to a wanted server.
    pub fn route_changed(&mut self, route: &Route) -> bool {
        let before = self.stale.len();
        if before < self.followed.len() {
            let covered = self.followed.iter().filter(|server| covers(route, **server));
            self.stale.extend(covered);
        }
        self.stale.len() > before
    }

    /// Any route may lead elsewhere.
    pub fn routing_changed(&mut self) {
        self.stale.clone_from(&self.followed);
    }

    /// The servers whose routes must be asked for.
    #[must_use]
    pub const fn stale(&self) -> &BTreeSet<IpAddr> {
        &self.stale
    }

    /// The source that packets to a server are known to have: rules may route by it. Of several `nat_address`es the first
    /// that is ours speaks for all. None where there is none, which the kernel would refuse.
    #[must_use]
    pub fn fixed_source(&self, server: IpAddr) -> Option<IpAddr> {
        self.nat_addresses(server).find(|ip| self.addresses.has(*ip))
    }

    /// Takes in what the kernel answered for a server. Returns the neighbour to ask for, if there is one.
    pub fn answered(&mut self, server: IpAddr, answer: RouteAnswer) -> Option<NeighbourKey> {
        self.stale.remove(&server);
        if !self.followed.contains(&server) {
            return None;
        }
        let key = next_hop(server, &answer);
        self.answers.insert(server, answer);
        if let Some(key) = key {
            self.neighbours.entry(key).or_insert(Neighbour::Unknown);
        }
        key
    }

    /// Forgets neighbours that are next hops no more.
    pub fn forget_neighbours(&mut self) {
        let needed: BTreeSet<NeighbourKey> = self
            .answers
            .iter()
            .filter_map(|(server, answer)| next_hop(*server, answer))
            .collect();
        self.neighbours.retain(|key, _| needed.contains(key));
    }

    /// Interfaces and addresses that found no room, in all.
    #[must_use]
    pub const fn refused(&self) -> u64 {
        self.refused
    }

    /// The next hops that need something, each with a server behind it.
    pub fn needs(&self) -> BTreeMap<NeighbourKey, (IpAddr, Need)> {
        let mut needs = BTreeMap::new();
        for (server, answer) in &self.answers {
            let Some(key) = next_hop(*server, answer) else {
                continue;
            };
            if self.way(*server, answer).is_err() {
                continue;
            }
            let need = match self.neighbours.get(&key) {
                Some(Neighbour::Known(_)) => continue,
                Some(Neighbour::Stale(_)) => Need::Confirm,
                Some(Neighbour::Unknown) | None => Need::Resolve,
            };
            needs.insert(key, (*server, need));
        }
        needs
    }

    /// The network state of what is known.
    #[must_use]
    pub fn network_state(&self) -> NetworkState {
        let mut network_state = NetworkState {
            wanted: Arc::clone(&self.wanted),
            ..NetworkState::default()
        };
        let mut hops = Hops::default();
        for (index, link) in self.links.iter().filter(|(_, link)| link.is_up) {
            network_state.links.insert(
                link.name.clone(),
                Link {
                    ifindex: *index,
                    is_loopback: link.medium == Medium::Loopback,
                },
            );
            if let Medium::Ethernet(mac) = link.medium {
                hops.interfaces.insert(*index, self.interface(*index, link, mac));
            }
        }
        for (index, ip, address) in self.addresses.iter() {
            if let Some(link) = self.links.get(&index)
                && address.is_ready
                && self.wanted.vips.contains(&ip)
            {
                network_state
                    .vips
                    .entry(ip)
                    .or_default()
                    .insert(link.name.clone());
            }
        }
        hops.own = self.addresses.iter().map(|(_, ip, _)| ip).collect();
        let absent = (self.wanted.vips.iter()).filter(|vip| !network_state.vips.contains_key(*vip));
        hops.absent_vips = absent.copied().collect();
        for client in &self.clients {
            if let Some(answer) = self.answers.get(client)
                && let Ok((_, hop)) = self.way(*client, answer)
            {
                hops.clients.insert(*client, hop);
            }
        }
        let servers = self
            .answers
            .iter()
            .filter(|(ip, _)| self.wanted.servers.contains(*ip));
        for (server, answer) in servers {
            let hop = match self.way(*server, answer) {
                Ok((link, hop)) => {
                    if matches!(answer, RouteAnswer::Route(route) if route.gateway.is_some()) {
                        hops.behind_gateways.insert(*server);
                    }
                    network_state.server_interfaces.insert(*server, link.name.clone());
                    network_state.moving.extend(self.moving(*server, &hop));
                    hop
                }
                Err(reason) => {
                    network_state.no_way.insert(*server, reason);
                    self.no_hop(*server)
                }
            };
            hops.servers.insert(*server, hop);
        }
        network_state.hops = Arc::new(hops);
        network_state
    }

    fn set_link(&mut self, index: u32, link: NetworkInterface) -> bool {
        if !self.links.contains_key(&index) && self.links.len() >= MAX_LINKS {
            self.refused = self.refused.saturating_add(1);
            return false;
        }
        self.links.insert(index, link.clone()) != Some(link)
    }

    fn set_address(&mut self, index: u32, ip: IpAddr, address: Address) -> bool {
        self.addresses.set(index, ip, address).unwrap_or_else(|| {
            self.refused = self.refused.saturating_add(1);
            false
        })
    }

    fn set_neighbour(&mut self, key: NeighbourKey, state: Neighbour) -> bool {
        // only next hops have an entry: a large network's neighbours are none of our business
        self.neighbours
            .get_mut(&key)
            .is_some_and(|known| std::mem::replace(known, state) != state)
    }

    fn nat_addresses(&self, server: IpAddr) -> impl Iterator<Item = IpAddr> {
        let all = self.wanted.nat_addresses.iter().copied();
        all.filter(move |ip| ip.is_ipv4() == server.is_ipv4())
    }

    /// Our addresses towards a server.
    fn locals(&self, server: IpAddr, route: &Route, ifindex: u32) -> Arc<[IpAddr]> {
        let configured: Arc<[IpAddr]> = self.nat_addresses(server).collect();
        if !configured.is_empty() {
            return configured;
        }
        let choice = route.source.into_iter();
        choice
            .map(|ip| self.addresses.source(ifindex, ip, &self.wanted.vips))
            .collect()
    }

    /// The way to a server and the interface by which, or why there is none.
    fn way(&self, server: IpAddr, answer: &RouteAnswer) -> Result<(&NetworkInterface, Hop), NoWay> {
        let route = match answer {
            RouteAnswer::Route(route) => route,
            RouteAnswer::None(reason) => return Err(reason.clone()),
        };
        match route.kind {
            RouteKind::Unicast => {}
            RouteKind::Local => return Err(NoWay::OwnAddress),
            RouteKind::Blackhole => return Err(NoWay::Blackhole),
            RouteKind::Unreachable => return Err(NoWay::Unreachable),
            RouteKind::Prohibit => return Err(NoWay::Prohibited),
            RouteKind::Other => return Err(NoWay::NotUnicast),
        }
        let ifindex = route.ifindex.ok_or(NoWay::Unreachable)?;
        // the notification of a new interface may still be on its way
        let link = self.links.get(&ifindex).ok_or(NoWay::Unreachable)?;
        let Medium::Ethernet(source) = link.medium else {
            return Err(NoWay::NotEthernet(link.name.clone()));
        };
        if !link.is_up {
            return Err(NoWay::InterfaceDown(link.name.clone()));
        }
        let locals = self.locals(server, route, ifindex);
        if locals.is_empty() {
            return Err(NoWay::NoSource(link.name.clone()));
        }
        let address = route.gateway.unwrap_or(server);
        let resolution = match self.neighbours.get(&NeighbourKey { ifindex, address }) {
            Some(Neighbour::Known(destination) | Neighbour::Stale(destination)) => {
                Resolution::Known(LinkHeader {
                    ifindex,
                    source,
                    destination: *destination,
                })
            }
            Some(Neighbour::Unknown) | None => Resolution::Unresolved { ifindex },
        };
        let hop = Hop {
            resolution,
            mtu: route.mtu.map_or(link.mtu, |mtu| mtu.min(link.mtu)),
            locals,
        };
        Ok((link, hop))
    }

    /// The server, and the VIP that its flows get as their source although nobody has chosen it.
    fn moving(&self, server: IpAddr, hop: &Hop) -> Option<(IpAddr, IpAddr)> {
        let source = *hop.locals.first()?;
        let is_chosen = self.wanted.nat_addresses.contains(&source);
        let moves = self.wanted.natted.contains(&server) && self.wanted.vips.contains(&source) && !is_chosen;
        moves.then_some((server, source))
    }

    fn no_hop(&self, server: IpAddr) -> Hop {
        Hop {
            resolution: Resolution::NoRoute,
            mtu: 0,
            locals: self.nat_addresses(server).collect(),
        }
    }

    fn interface(&self, index: u32, link: &NetworkInterface, mac: Mac) -> Interface {
        let best = |is_wanted| self.addresses.best(index, &self.wanted.vips, is_wanted);
        let (best4, best6) = (best(IpAddr::is_ipv4), best(IpAddr::is_ipv6));
        Interface {
            mac,
            mtu: link.mtu,
            address4: best4.and_then(|ip| match ip {
                IpAddr::V4(ip) => Some(ip),
                IpAddr::V6(_) => None,
            }),
            address6: best6.and_then(|ip| match ip {
                IpAddr::V6(ip) => Some(ip),
                IpAddr::V4(_) => None,
            }),
        }
    }
}

/// The neighbour that packets to a server are given to.
fn next_hop(server: IpAddr, answer: &RouteAnswer) -> Option<NeighbourKey> {
    match answer {
        RouteAnswer::Route(route) if route.kind == RouteKind::Unicast => Some(NeighbourKey {
            ifindex: route.ifindex?,
            address: route.gateway.unwrap_or(server),
        }),
        _ => None,
    }
}

/// Whether an address lies in a route's network.
fn covers(route: &Route, address: IpAddr) -> bool {
    are_of_one_network(route.destination, address, route.length)
}

#[cfg(test)]
mod tests;
