//! Which NAT ports a new flow tries, in which order.

use std::net::SocketAddr;

use crate::{balance::hash::below, base::PortRange};

/// Ports that are tried before a flow is refused (cilium's SNAT_COLLISION_RETRIES: what fails 25 times hardly ever
/// succeeds).
const TRIES: usize = 32;

/// The client's own port if it is in the range, then a random one, then those that follow it: each once at most, and
/// 32 in all.
pub(super) fn candidates(range: PortRange, client_port: u16, random: u64) -> impl Iterator<Item = u16> {
    let own = range.contains(client_port).then_some(client_port);
    let start = below(random, u64::from(range.len()));
    let following = (0..u64::from(range.len())).filter_map(move |step| {
        let offset = (start + step) % u64::from(range.len());
        u16::try_from(u64::from(range.first) + offset).ok()
    });
    own.into_iter()
        .chain(following.filter(move |port| Some(*port) != own))
        .take(TRIES)
}

/// As [`candidates`], with our address towards the server.
pub(super) fn addresses(
    local: std::net::IpAddr,
    range: PortRange,
    client_port: u16,
    random: u64,
) -> impl Iterator<Item = SocketAddr> {
    candidates(range, client_port, random).map(move |port| SocketAddr::new(local, port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(first: u16, last: u16) -> PortRange {
        PortRange { first, last }
    }

    #[test]
    fn the_clients_own_port_comes_first_if_it_is_in_the_range() {
        let all = |client| candidates(range(61_000, 65_535), client, u64::MAX / 2).collect::<Vec<_>>();
        assert_eq!(all(62_000)[..3], [62_000, 63_267, 63_268]);
        assert_eq!(all(40_000)[..2], [63_267, 63_268]);
    }

    #[test]
    fn the_ends_of_the_range_are_used() {
        let first = |random| candidates(range(61_000, 65_535), 1, random).next();
        assert_eq!((first(0), first(u64::MAX)), (Some(61_000), Some(65_535)));
    }

    proptest! {
        #[test]
        fn no_port_is_tried_twice_or_from_outside(
            first in 1..=u16::MAX, len in 0..200_u16, client in any::<u16>(), random in any::<u64>(),
        ) {
            let range = range(first, first.saturating_add(len));
            let tried: Vec<_> = candidates(range, client, random).collect();
            let distinct: std::collections::HashSet<_> = tried.iter().collect();
            prop_assert_eq!(distinct.len(), tried.len());
            prop_assert_eq!(tried.len(), TRIES.min(range.len() as usize));
            prop_assert!(tried.iter().all(|port| range.contains(*port)));
        }
    }
}
