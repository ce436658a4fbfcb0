//! Links, addresses, routes and neighbours, followed live by netlink; no privilege needed.
//!
//! The follower is told what matters (servers, VIPs) and publishes pictures of it: [`Picture`].

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use tokio::sync::watch;

use crate::flow::Hops;

/// What the packet modes need to know of the network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Addresses of servers, of all frontends in packet modes, and of flows that outlive their configuration.
    pub servers: BTreeSet<IpAddr>,
    /// Addresses of VIPs.
    pub vips: BTreeSet<IpAddr>,
    /// Interfaces that frontends name.
    pub interfaces: BTreeSet<String>,
    /// `nat_address` of IPv4.
    pub nat_address4: Option<Ipv4Addr>,
    /// `nat_address` of IPv6.
    pub nat_address6: Option<Ipv6Addr>,
}

/// The network at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Picture {
    /// Next hops, for the path.
    pub hops: Arc<Hops>,
    /// Interfaces that are up, by name.
    pub links: BTreeMap<String, Link>,
    /// For each VIP that some interface has (up or not): the names of those interfaces.
    pub vips: BTreeMap<IpAddr, BTreeSet<String>>,
    /// For each server with a route: the interface that its answers come in by.
    pub server_interfaces: BTreeMap<IpAddr, String>,
}

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its index; another one after it has vanished and come back.
    pub ifindex: u32,
    /// Whether it is a loopback interface.
    pub is_loopback: bool,
}

/// The running follower: a task on the control thread's runtime, which ends when this is dropped.
#[derive(Debug)]
pub struct Follower {
    wanted: watch::Sender<Wanted>,
    pictures: watch::Receiver<Arc<Picture>>,
}

impl Follower {
    /// Starts to follow. Must be called within a runtime.
    ///
    /// # Errors
    /// No netlink socket, or the first dump failed.
    pub fn start(wanted: Wanted) -> io::Result<Self> {
        let _ = wanted;
        todo!("network")
    }

    /// Changes what matters. The next picture takes it into account.
    pub fn want(&self, wanted: Wanted) {
        let _ = self.wanted.send_replace(wanted);
    }

    /// Pictures: the receiver has the latest, and is told of each new one. Changes that matter to nobody make none.
    #[must_use]
    pub fn pictures(&self) -> watch::Receiver<Arc<Picture>> {
        self.pictures.clone()
    }
}
