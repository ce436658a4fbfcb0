//! What one peer may have of an endpoint's connections, so that none starves the others.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use crate::access::Network;

/// The network that a host with IPv6 commonly has to itself (RFC 4291, 2.5.4).
const HOST_PREFIX6: u8 = 64;

/// Who is at the other end of a unix socket, as the kernel said at connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// User id.
    pub uid: u32,
    /// Process id; `None` when it is in a namespace that cannot be seen.
    pub pid: Option<i32>,
}

/// Who has a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sharer {
    /// A process of root's: all that root runs must not wait for one of its scripts.
    Process(i32),
    /// All processes of another user, who may have any number of them.
    User(u32),
    /// A host: an IPv4 address, or an IPv6 network.
    Host(Network),
}

impl Sharer {
    /// That of a peer on a unix socket; `None` if the kernel does not say who it is.
    pub fn local(peer: Option<Peer>) -> Option<Self> {
        match peer? {
            Peer {
                uid: 0,
                pid: Some(pid),
            } => Some(Self::Process(pid)),
            Peer { uid, .. } => Some(Self::User(uid)),
        }
    }

    /// That of a peer on the network.
    pub fn remote(address: IpAddr) -> Self {
        Self::Host(Network::of(address.to_canonical(), HOST_PREFIX6))
    }
}

/// Connections of each sharer.
#[derive(Debug, Default)]
pub struct Shares(HashMap<Option<Sharer>, Arc<()>>);

/// A place of a sharer's, until it is dropped.
#[derive(Debug)]
pub struct Place(#[expect(dead_code, reason = "held for its count")] Arc<()>);

impl Shares {
    /// A place, unless the sharer has `most` already.
    pub fn take(&mut self, sharer: Option<Sharer>, most: usize) -> Option<Place> {
        // whoever has none left is forgotten: there are never more than connections
        self.0.retain(|_, places| Arc::strong_count(places) > 1);
        let places = self.0.entry(sharer).or_default();
        let taken = Arc::strong_count(places) - 1;
        (taken < most).then(|| Place(Arc::clone(places)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(address: &str) -> Option<Sharer> {
        Some(Sharer::remote(address.parse().unwrap()))
    }

    #[test]
    fn nobody_takes_more_than_a_share_and_what_is_given_back_can_be_taken_again() {
        let mut shares = Shares::default();
        let (greedy, modest) = (host("192.0.2.1"), host("192.0.2.2"));
        let mut held: Vec<_> = (0..3).map(|_| shares.take(greedy, 3).unwrap()).collect();
        assert!(shares.take(greedy, 3).is_none());
        assert!(shares.take(modest, 3).is_some());
        held.pop();
        held.push(shares.take(greedy, 3).unwrap());
        assert!(shares.take(greedy, 3).is_none());
        drop(held);
        assert!(shares.take(modest, 3).is_some());
        assert_eq!(shares.0.len(), 1, "who has none is forgotten");
    }

    #[test]
    fn a_host_has_one_share_whatever_its_address_in_its_network() {
        assert_eq!(host("2001:db8::1"), host("2001:db8::ffff:1"));
        assert_ne!(host("2001:db8::1"), host("2001:db8:0:1::1"));
        assert_eq!(host("192.0.2.1"), host("::ffff:192.0.2.1"));
        assert_ne!(host("192.0.2.1"), host("192.0.2.2"));
    }

    #[test]
    fn each_process_of_root_and_each_other_user_has_a_share() {
        let local = |uid, pid| Sharer::local(Some(Peer { uid, pid }));
        assert_ne!(local(0, Some(7)), local(0, Some(8)));
        assert_eq!(local(1000, Some(7)), local(1000, Some(8)));
        assert_ne!(local(1000, Some(7)), local(1001, Some(7)));
        assert_eq!(Sharer::local(None), None);
    }
}
