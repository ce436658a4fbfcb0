//! The addresses of this host, and which of them what we send is to have. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// Most addresses that are kept.
const MAX_ADDRESSES: usize = 65_536;

/// An address of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// Whether packets to it are accepted: IPv6 must first find no duplicate.
    pub is_ready: bool,
    /// Whether new traffic may leave from it: it is neither deprecated nor (IPv6) temporary.
    pub is_lasting: bool,
    /// RT_SCOPE_…: 0 is the whole world, higher is narrower.
    pub scope: u8,
    /// Bits of its network.
    pub length: u8,
}

/// Addresses by interface.
#[derive(Debug, Default)]
pub struct Addresses(BTreeMap<(u32, IpAddr), Address>);

impl Addresses {
    /// Takes an address in. Returns whether it is new or has changed; `None` if there is no room for it.
    pub fn set(&mut self, index: u32, ip: IpAddr, address: Address) -> Option<bool> {
        let has_room = self.0.len() < MAX_ADDRESSES || self.0.contains_key(&(index, ip));
        has_room.then(|| self.0.insert((index, ip), address) != Some(address))
    }

    /// Forgets an address. Returns whether it was there.
    pub fn remove(&mut self, index: u32, ip: IpAddr) -> bool {
        self.0.remove(&(index, ip)).is_some()
    }

    /// Forgets the addresses of an interface.
    pub fn forget(&mut self, index: u32) {
        self.0.retain(|(ifindex, _), _| *ifindex != index);
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// All, with the indexes of their interfaces.
    pub fn iter(&self) -> impl Iterator<Item = (u32, IpAddr, Address)> {
        (self.0.iter()).map(|((index, ip), address)| (*index, *ip, *address))
    }

    /// Whether some interface has an address.
    pub fn has(&self, ip: IpAddr) -> bool {
        self.0.keys().any(|(_, own)| *own == ip)
    }

    /// The address by which others know an interface best: of the widest scope, and no VIP, which may move away.
    pub fn best(
        &self,
        index: u32,
        vips: &BTreeSet<IpAddr>,
        is_wanted: fn(&IpAddr) -> bool,
    ) -> Option<IpAddr> {
        (self.of(index))
            .filter(|(ip, address)| address.is_ready && is_wanted(ip))
            .min_by_key(|(ip, address)| (address.scope, vips.contains(ip), *ip))
            .map(|(ip, _)| ip)
    }

    /// The source of what leaves by an interface: the kernel's choice, unless that is a VIP, which may move away; then
    /// another address of the interface in the same network, if there is one.
    pub fn source(&self, index: u32, choice: IpAddr, vips: &BTreeSet<IpAddr>) -> IpAddr {
        if !vips.contains(&choice) {
            return choice;
        }
        let scope = self.0.get(&(index, choice)).map(|address| address.scope);
        (self.of(index))
            .filter(|(ip, address)| {
                address.is_ready
                    && !vips.contains(ip)
                    && scope.is_none_or(|scope| scope == address.scope)
                    && are_of_one_network(*ip, choice, address.length)
            })
            .min_by_key(|(ip, address)| (!address.is_lasting, *ip))
            .map_or(choice, |(ip, _)| ip)
    }

    fn of(&self, index: u32) -> impl Iterator<Item = (IpAddr, Address)> {
        let (first, last) = (IpAddr::from([0; 4]), IpAddr::from([255; 16]));
        let some = self.0.range((index, first)..=(index, last));
        some.map(|((_, ip), address)| (*ip, *address))
    }
}

/// Whether the first bits of two addresses are the same.
pub fn are_of_one_network(a: IpAddr, b: IpAddr, length: u8) -> bool {
    let length = u32::from(length);
    match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(length)).unwrap_or(0);
            (a.to_bits() ^ b.to_bits()) & mask == 0
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(length)).unwrap_or(0);
            (a.to_bits() ^ b.to_bits()) & mask == 0
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn address(length: u8) -> Address {
        Address {
            is_ready: true,
            is_lasting: true,
            scope: 0,
            length,
        }
    }

    /// Addresses of interface 5, and what its packets leave with where the kernel would take a VIP.
    fn source(own: &[(&str, Address)], choice: &str) -> String {
        let mut addresses = Addresses::default();
        for (text, address) in own {
            addresses.set(5, ip(text), *address);
        }
        addresses.set(6, ip("10.0.0.3"), address(24));
        let vips = [ip("10.0.0.80"), ip("10.0.0.81"), ip("fd00::80")].into();
        addresses.source(5, ip(choice), &vips).to_string()
    }

    #[test]
    fn what_is_no_vip_is_left_as_the_kernel_chooses_it() {
        assert_eq!(
            source(
                &[("10.0.0.1", address(24)), ("10.0.0.9", address(24))],
                "10.0.0.9"
            ),
            "10.0.0.9"
        );
    }

    #[test]
    fn instead_of_a_vip_another_address_of_its_network_is_taken() {
        let vip = ("fd00::80", address(64));
        assert_eq!(source(&[vip, ("fd00::9", address(64))], "fd00::80"), "fd00::9");
        let host_route = ("fd00::80", address(128));
        assert_eq!(
            source(&[host_route, ("fd00::9", address(64))], "fd00::80"),
            "fd00::9"
        );
        let link_local = (
            "fe80::1",
            Address {
                scope: 253,
                ..address(64)
            },
        );
        assert_eq!(
            source(&[vip, link_local, ("fd01::9", address(64))], "fd00::80"),
            "fd00::80"
        );
    }

    #[test]
    fn a_lasting_address_is_taken_before_one_that_is_not_and_none_that_receives_nothing() {
        let vip = ("fd00::80", address(64));
        let temporary = (
            "fd00::1",
            Address {
                is_lasting: false,
                ..address(64)
            },
        );
        let tentative = (
            "fd00::2",
            Address {
                is_ready: false,
                ..address(64)
            },
        );
        assert_eq!(
            source(&[vip, temporary, tentative, ("fd00::9", address(64))], "fd00::80"),
            "fd00::9"
        );
        assert_eq!(source(&[vip, temporary, tentative], "fd00::80"), "fd00::1");
        assert_eq!(source(&[vip, tentative], "fd00::80"), "fd00::80");
    }

    #[test]
    fn where_there_are_only_vips_the_kernels_choice_stands() {
        let vips = [("10.0.0.80", address(24)), ("10.0.0.81", address(24))];
        assert_eq!(source(&vips, "10.0.0.81"), "10.0.0.81");
    }
}
