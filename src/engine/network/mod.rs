//! Links, addresses, routes and neighbours, followed live by netlink; no privilege needed.
//!
//! The follower is told what matters (servers, VIPs) and publishes network states of it: [`NetworkState`].
//!
//! ```text
//! notifications ─► wire ─► table ─ network state ─► watchers
//!                            │  ▲
//!                    stale ──┘  └── answers        needs ─► schedule ─► probe: a datagram has the kernel resolve
//!                      └─► kernel ──┘
//! ```
//!
//! The routing table is not copied: the kernel is asked for the route to each server, again whenever something that
//! could change the answer is notified. So rules, metrics, other tables and next-hop objects count as they do for the
//! kernel's own packets, and a router's hundred thousand routes cost nothing.
//!
//! Answers are taken to come in by the interface by which questions leave ([`NetworkState::server_interfaces`]).

mod addresses;
mod counters;
mod follow;
mod kernel;
mod probe;
mod schedule;
mod table;
mod wire;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    sync::Arc,
};

use tokio::sync::watch;

use crate::{
    config::{Config, PacketService},
    flow::Hops,
};

pub use counters::NetworkCounters;

use counters::Counts;
use follow::Follow;
use kernel::Kernel;
use table::Table;

/// The gateway that the kernel would send packets to an address by; `None` on link, and where there is no route.
///
/// # Errors
/// The kernel did not answer.
pub fn gateway_to(address: IpAddr) -> io::Result<Option<IpAddr>> {
    Ok(match Kernel::open()?.route(address, None)? {
        table::RouteAnswer::Route(route) => route.gateway,
        table::RouteAnswer::None(_) => None,
    })
}

/// Whether the kernel takes packets to an address for this host's: an interface has it, or a route of type local covers it.
///
/// # Errors
/// The kernel did not answer.
pub fn is_own(address: IpAddr) -> io::Result<bool> {
    let answer = Kernel::open()?.route(address, None)?;
    Ok(matches!(answer, table::RouteAnswer::Route(route) if route.kind == table::RouteKind::Local))
}

/// What the packet modes need to know of the network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Addresses of servers, of all frontends in packet modes, and of flows that outlive their configuration.
    pub servers: BTreeSet<IpAddr>,
    /// Those of them whose flows get an address of ours as their source: passthrough's.
    pub natted: BTreeSet<IpAddr>,
    /// Addresses of VIPs.
    pub vips: BTreeSet<IpAddr>,
    /// `nat_address`, of both families.
    pub nat_addresses: Vec<IpAddr>,
}

/// The network at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkState {
    /// What it was made for.
    pub wanted: Arc<Wanted>,
    /// Next hops, for the path.
    pub hops: Arc<Hops>,
    /// Interfaces that are up, by name.
    pub links: BTreeMap<String, Link>,
    /// For each VIP that some interface has (up or not): the names of those interfaces.
    pub vips: BTreeMap<IpAddr, BTreeSet<String>>,
    /// For each server with a route: the interface that its answers come in by.
    pub server_interfaces: BTreeMap<IpAddr, String>,
    /// For each server without a way ([`Resolution::NoRoute`](crate::flow::Resolution::NoRoute)): why.
    pub no_way: BTreeMap<IpAddr, NoWay>,
    /// For each passthrough server whose flows get a VIP as their source for want of another address: that VIP. A
    /// fail-over moves it.
    pub moving: BTreeMap<IpAddr, IpAddr>,
}

/// Why a server cannot be reached in the packet modes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoWay {
    /// No route leads there.
    #[error("no route to it; see `ip route get`")]
    Unreachable,
    /// It is an address of this host.
    #[error("it is an address of this host: use mode \"proxy\" for a local server")]
    OwnAddress,
    /// A blackhole route.
    #[error("its route is a blackhole")]
    Blackhole,
    /// A prohibit route.
    #[error("its route prohibits it")]
    Prohibited,
    /// A broadcast or multicast address.
    #[error("its address is not a unicast address")]
    NotUnicast,
    /// The interface is down.
    #[error("its outgoing interface {0} is down or has no carrier")]
    InterfaceDown(String),
    /// The interface does not carry Ethernet frames.
    #[error("its outgoing interface {0} is not Ethernet, which the packet modes require")]
    NotEthernet(String),
    /// We have no address towards it.
    #[error("this host has no address of its family on interface {0}; add one, or set nat_address")]
    NoSource(String),
}

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its index; another one after it has vanished and come back.
    pub ifindex: u32,
    /// Whether it is a loopback interface.
    pub is_loopback: bool,
}

impl Wanted {
    /// Addresses that this host may have, and nothing else.
    fn addresses(addresses: BTreeSet<IpAddr>) -> Self {
        Self {
            vips: addresses,
            ..Self::default()
        }
    }

    /// What services need, with the source addresses of a configuration.
    #[must_use]
    pub fn of(config: &Config, services: &[PacketService]) -> Self {
        let servers = |service: &PacketService| -> Vec<IpAddr> {
            service.servers.iter().map(|server| server.0.ip()).collect()
        };
        Self {
            servers: services.iter().flat_map(servers).collect(),
            natted: (services.iter().filter(|service| service.nat_ports.is_some()))
                .flat_map(servers)
                .collect(),
            vips: services.iter().map(|service| service.vip.ip()).collect(),
            nat_addresses: config.packet.nat_addresses.clone(),
        }
    }
}

/// The network as the kernel knows it at this moment; no next hop is asked for.
///
/// # Errors
/// The kernel did not answer.
pub fn look(wanted: Wanted) -> io::Result<NetworkState> {
    let mut kernel = Kernel::open()?;
    let mut table = Table::default();
    table.want(wanted);
    for event in kernel.links_and_addresses()? {
        table.apply(event);
    }
    while let Some(server) = table.stale().first().copied() {
        let answer = kernel.route(server, table.fixed_source(server))?;
        table.answered(server, answer);
    }
    Ok(table.network_state())
}

/// The running follower: a task on the control thread's runtime, which ends when this is dropped.
#[derive(Debug)]
pub struct Follower {
    wanted: watch::Sender<Wanted>,
    clients: watch::Sender<BTreeSet<IpAddr>>,
    network_states: watch::Receiver<Arc<NetworkState>>,
    counts: Arc<Counts>,
}

impl Follower {
    /// Starts to follow; the first network state is there when this returns. Must be called within a runtime.
    ///
    /// All sockets are opened here: afterwards the process may give up opening any.
    ///
    /// # Errors
    /// No netlink socket, or the first dump failed.
    pub fn start(wanted: Wanted) -> io::Result<Self> {
        Self::start_in(follow::GROUPS, wanted)
    }

    /// As [`start`](Self::start), where nothing but addresses matters: routes and neighbours, of which there may be many, are
    /// not listened to.
    ///
    /// # Errors
    /// As there.
    pub fn start_addresses(addresses: BTreeSet<IpAddr>) -> io::Result<Self> {
        Self::start_in(follow::ADDRESS_GROUPS, Wanted::addresses(addresses))
    }

    fn start_in(groups: &[u32], wanted: Wanted) -> io::Result<Self> {
        let counts = Arc::default();
        let (follow, news, network_states) = Follow::start(groups, wanted.clone(), Arc::clone(&counts))?;
        let (sender, receiver) = watch::channel(wanted);
        let (clients, clients_receiver) = watch::channel(BTreeSet::new());
        // it ends when `sender` does
        drop(tokio::spawn(follow.run(news, receiver, clients_receiver)));
        Ok(Self {
            wanted: sender,
            clients,
            network_states,
            counts,
        })
    }

    /// Changes what matters. The next network state takes it into account, and says so ([`NetworkState::wanted`]).
    pub fn want(&self, wanted: Wanted) {
        let _ = self.wanted.send_replace(wanted);
    }

    /// Changes which addresses matter, of a follower that was [started](Self::start_addresses) so.
    pub fn want_addresses(&self, addresses: BTreeSet<IpAddr>) {
        self.want(Wanted::addresses(addresses));
    }

    /// Changes the clients whose next hops are followed: [`Hops::clients`].
    pub fn want_clients(&self, clients: BTreeSet<IpAddr>) {
        self.clients.send_if_modified(|old| {
            let is_new = *old != clients;
            *old = clients;
            is_new
        });
    }

    /// Network states: the receiver has the latest, and is told of each new one. Changes that matter to nobody make none.
    #[must_use]
    pub fn network_states(&self) -> watch::Receiver<Arc<NetworkState>> {
        self.network_states.clone()
    }

    /// What has been counted since the start.
    #[must_use]
    pub fn counters(&self) -> NetworkCounters {
        NetworkCounters::from(&*self.counts)
    }
}
