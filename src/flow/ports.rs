//! Which NAT addresses and ports a new flow tries, in which order.

use std::net::{IpAddr, SocketAddr};

use crate::{
    balance::hash::{SplitMix64, below},
    base::PortRanges,
};

/// Random ports that are tried: where nine tenths are taken, all of them are so for one flow in a thousand. (Cilium's
/// SNAT_COLLISION_RETRIES are 32, all but the first in a row; but clients take their own ports in rows too, and within
/// such a row the next one is always taken.)
const RANDOM_TRIES: usize = 64;
/// Ports in a row that are tried then: a small range is used to its last port.
const TRIES_IN_A_ROW: u64 = 32;

/// The client's own port, if it is in the ranges, of each address; then random ports of random addresses, so that all
/// addresses fill alike; then some in a row, from one address to the next. The first address is a random one.
pub(super) fn candidates(
    addresses: &[IpAddr],
    ranges: PortRanges,
    client_port: u16,
    random: u64,
) -> impl Iterator<Item = SocketAddr> + Clone {
    let ports = u64::from(ranges.len());
    let many = ports * addresses.len() as u64;
    let at = move |place: u64| {
        let address = addresses.get(usize::try_from(place / ports).ok()?)?;
        Some(SocketAddr::new(*address, ranges.at(place % ports)?))
    };
    let first = usize::try_from(below(random.rotate_left(32), addresses.len() as u64)).unwrap_or_default();
    let own = ranges.contains(client_port).then(|| {
        let addresses = addresses.iter().cycle().skip(first).take(addresses.len());
        addresses.map(move |address| SocketAddr::new(*address, client_port))
    });
    let mut draws = SplitMix64::new(random);
    let start = below(random, many);
    own.into_iter()
        .flatten()
        .chain((0..RANDOM_TRIES).filter_map(move |_| at(below(draws.next_u64(), many))))
        .chain((0..TRIES_IN_A_ROW.min(many)).filter_map(move |step| at((start + step) % many)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::PortRange;
    use proptest::prelude::*;
    use std::collections::HashSet;

    const OWN: [IpAddr; 3] = [
        IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)),
        IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2)),
        IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 3)),
    ];

    fn range(first: u16, last: u16) -> PortRanges {
        PortRange { first, last }.into()
    }

    fn ports(ranges: PortRanges, client: u16, random: u64) -> impl Iterator<Item = u16> {
        candidates(&OWN[..1], ranges, client, random).map(|nat| nat.port())
    }

    #[test]
    fn the_clients_own_port_comes_first_if_it_is_in_the_range() {
        let first = |client| ports(range(61_000, 65_535), client, 7).next();
        assert_eq!(first(62_000), Some(62_000));
        assert_ne!(first(40_000), Some(40_000));
    }

    #[test]
    fn every_port_of_every_range_is_drawn_the_ends_too() {
        let ranges: PortRanges = "20000-21999,61000-63535".parse().unwrap();
        let mut random = SplitMix64::new(1);
        let drawn: HashSet<_> = (0..2_000)
            .flat_map(|_| ports(ranges, 1, random.next_u64()))
            .collect();
        assert_eq!(drawn.len(), 4_536);
    }

    #[test]
    fn a_free_port_is_found_although_nine_tenths_are_taken_in_one_piece() {
        let mut random = SplitMix64::new(1);
        let is_free = |port: &u16| *port >= 61_000 + 4_536 / 10 * 9;
        let refused = (0..10_000)
            .filter(|_| !ports(range(61_000, 65_535), 61_500, random.next_u64()).any(|p| is_free(&p)))
            .count();
        assert!(refused < 50, "{refused} of 10,000");
    }

    #[test]
    fn all_addresses_are_used_alike_and_the_clients_own_port_is_tried_at_each() {
        let mut random = SplitMix64::new(1);
        let mut firsts = [0; 3];
        for _ in 0..3_000 {
            let tried: Vec<_> = candidates(&OWN, range(61_000, 65_535), 62_000, random.next_u64()).collect();
            let own: HashSet<_> = tried[..3].iter().copied().collect();
            assert_eq!(own, OWN.map(|ip| SocketAddr::new(ip, 62_000)).into());
            firsts[OWN.iter().position(|ip| *ip == tried[0].ip()).unwrap()] += 1;
        }
        assert!(
            firsts.iter().all(|times| (900..1_100).contains(times)),
            "{firsts:?}"
        );
    }

    #[test]
    fn a_free_port_is_found_although_all_other_addresses_are_used_up() {
        let mut random = SplitMix64::new(1);
        let refused = (0..10_000)
            .filter(|_| {
                !candidates(&OWN, range(61_000, 65_535), 40_000, random.next_u64())
                    .any(|nat| nat.ip() == OWN[2])
            })
            .count();
        assert_eq!(refused, 0);
    }

    proptest! {
        #[test]
        fn no_port_outside_is_tried_and_none_of_a_small_range_left_out(
            first in 1..=u16::MAX, len in 0..200_u16, addresses in 1..=3_usize, client in any::<u16>(),
            random in any::<u64>(),
        ) {
            let (range, own) = (range(first, first.saturating_add(len)), &OWN[..addresses]);
            let tried: Vec<_> = candidates(own, range, client, random).collect();
            prop_assert!(tried.iter().all(|nat| range.contains(nat.port()) && own.contains(&nat.ip())));
            let distinct: HashSet<_> = tried.iter().collect();
            prop_assert!(distinct.len() >= (range.len() as usize * addresses).min(32));
        }
    }

    #[test]
    fn without_an_address_nothing_is_tried() {
        assert_eq!(candidates(&[], range(61_000, 65_535), 62_000, 7).count(), 0);
    }
}
