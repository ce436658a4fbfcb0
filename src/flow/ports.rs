//! Which NAT ports a new flow tries, in which order.

use std::net::SocketAddr;

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

/// The client's own port if it is in the range, then random ones, then some in a row.
pub(super) fn candidates(
    ranges: PortRanges,
    client_port: u16,
    random: u64,
) -> impl Iterator<Item = u16> + Clone {
    let own = ranges.contains(client_port).then_some(client_port);
    let len = u64::from(ranges.len());
    let port = move |place: u64| ranges.at(place);
    let mut draws = SplitMix64::new(random);
    let start = below(random, len);
    own.into_iter()
        .chain((0..RANDOM_TRIES).filter_map(move |_| port(below(draws.next_u64(), len))))
        .chain((0..TRIES_IN_A_ROW.min(len)).filter_map(move |step| port(start + step)))
}

/// As [`candidates`], with our address towards the server.
pub(super) fn addresses(
    local: std::net::IpAddr,
    ranges: PortRanges,
    client_port: u16,
    random: u64,
) -> impl Iterator<Item = SocketAddr> + Clone {
    candidates(ranges, client_port, random).map(move |port| SocketAddr::new(local, port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::PortRange;
    use proptest::prelude::*;

    fn range(first: u16, last: u16) -> PortRanges {
        PortRange { first, last }.into()
    }

    #[test]
    fn the_clients_own_port_comes_first_if_it_is_in_the_range() {
        let first = |client| candidates(range(61_000, 65_535), client, 7).next();
        assert_eq!(first(62_000), Some(62_000));
        assert_ne!(first(40_000), Some(40_000));
    }

    #[test]
    fn every_port_of_the_range_is_drawn_the_ends_too() {
        let mut random = SplitMix64::new(1);
        let drawn: std::collections::HashSet<_> = (0..2_000)
            .flat_map(|_| candidates(range(61_000, 65_535), 1, random.next_u64()))
            .collect();
        assert_eq!(drawn.len(), 4_536);
    }

    #[test]
    fn a_free_port_is_found_although_nine_tenths_are_taken_in_one_piece() {
        let mut random = SplitMix64::new(1);
        let is_free = |port: &u16| *port >= 61_000 + 4_536 / 10 * 9;
        let refused = (0..10_000)
            .filter(|_| !candidates(range(61_000, 65_535), 61_500, random.next_u64()).any(|p| is_free(&p)))
            .count();
        assert!(refused < 50, "{refused} of 10,000");
    }

    proptest! {
        #[test]
        fn no_port_outside_is_tried_and_none_of_a_small_range_left_out(
            first in 1..=u16::MAX, len in 0..200_u16, client in any::<u16>(), random in any::<u64>(),
        ) {
            let range = range(first, first.saturating_add(len));
            let tried: Vec<_> = candidates(range, client, random).collect();
            prop_assert!(tried.iter().all(|port| range.contains(*port)));
            let distinct: std::collections::HashSet<_> = tried.iter().collect();
            prop_assert!(distinct.len() >= range.len().min(32) as usize);
        }
    }
}
