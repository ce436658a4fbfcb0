//! Network interfaces, their addresses, and by which of them the kernel reaches an address.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
};

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{RouteNetlinkMessage, route::RouteAttribute};
use nix::{ifaddrs::getifaddrs, net::if_::InterfaceFlags, sys::socket::SockaddrStorage};
use socket2::SockRef;

use super::netlink;

/// More than any answer about one route takes.
const ANSWER_BYTES: usize = 8 << 10;

/// An interface of this network namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interface {
    /// Its index; another one after it has vanished and come back.
    pub index: u32,
    /// Whether it is a loopback interface.
    pub is_loopback: bool,
    /// Its addresses of both families.
    pub addresses: Vec<IpAddr>,
}

/// All interfaces by name.
///
/// # Errors
/// The kernel cannot be asked.
pub fn list() -> io::Result<BTreeMap<String, Interface>> {
    let mut all: BTreeMap<String, Interface> = BTreeMap::new();
    for entry in getifaddrs()? {
        let interface = all.entry(entry.interface_name).or_default();
        interface.is_loopback = entry.flags.contains(InterfaceFlags::IFF_LOOPBACK);
        let Some(address) = entry.address else { continue };
        if let Some(link) = address.as_link_addr() {
            interface.index = u32::try_from(link.ifindex()).unwrap_or(0);
        }
        interface.addresses.extend(ip(&address));
    }
    // an address whose interface has just vanished has no index
    all.retain(|_, interface| interface.index != 0);
    Ok(all)
}

/// All addresses of this network namespace; none when the kernel cannot be asked.
#[must_use]
pub fn own_addresses() -> BTreeSet<IpAddr> {
    let all = list().unwrap_or_default();
    (all.into_values().flat_map(|interface| interface.addresses)).collect()
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
}

/// Asks the kernel's routing table. Needs no privilege.
pub struct Routes(OwnedFd);

impl Routes {
    /// Opens the socket to ask by.
    ///
    /// # Errors
    /// No descriptor is left, or the kernel has no netlink.
    pub fn new() -> io::Result<Self> {
        netlink::open(&[], ANSWER_BYTES).map(Self)
    }

    /// The index of the interface by which packets to `target` leave; `None` if there is no route.
    pub fn egress(&self, target: SocketAddr) -> Option<u32> {
        if let SocketAddr::V6(v6) = target
            && v6.scope_id() != 0
        {
            return Some(v6.scope_id());
        }
        let question = netlink::request(netlink::get_route(target.ip(), None), 0, 0);
        // unconnected, it sends to port 0: the kernel, which has answered when send returns
        SockRef::from(&self.0).send(&question).ok()?;
        let mut answer = vec![0; ANSWER_BYTES];
        let length = netlink::receive(&self.0, &mut answer).ok()?;
        let answer = answer.get(..length).unwrap_or_default();
        let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(answer).ok()?;
        let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route)) = message.payload else {
            return None;
        };
        route.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Oif(index) => Some(*index),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_listed_with_its_address_and_reaches_itself() {
        let all = list().unwrap();
        let loopback = &all["lo"];
        assert!(loopback.is_loopback && loopback.addresses.contains(&IpAddr::from([127, 0, 0, 1])));
        let routes = Routes::new().unwrap();
        let local = SocketAddr::from(([127, 0, 0, 9], 80));
        assert_eq!(routes.egress(local), Some(loopback.index));
        assert_eq!(routes.egress("[fe80::1%7]:80".parse().unwrap()), Some(7));
    }
}
