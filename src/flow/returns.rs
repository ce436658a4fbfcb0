//! Ways back to clients. A flow remembers the number of its return hop; what the number stands for changes with the
//! network, without a walk over flows.
//!
//! ```text
//! client's packet (interface, MAC, tags) ─► number ─► flow
//! follower: route and neighbour of one client behind each hop ─► compared with what they were ─► another link for the number
//! ```
//!
//! Replies go to where the flow came from, by whichever router that was, as long as the route to the client stays as it was
//! when the hop was first looked up; when it changes (another gateway, another link address, another interface), they
//! follow it. A hop that is younger than the look-up goes with the others of its router, and any goes with a client that
//! sends again by another way.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{Hop, HopNumber, Hops, Resolution, ReturnLink};
use crate::{
    base::Mac,
    packet::{LinkHeader, Tags},
};

/// Return hops that are followed, at most: each costs a route to look up and a neighbour to keep. Flows of further ones
/// keep the way that they came by.
const MOST: usize = 1_024;

/// The way back to a client: where its packets have come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReturnPath {
    pub origin: ReturnOrigin,
    /// Of its hop, if that is followed.
    pub number: Option<HopNumber>,
}

/// Where a client's packets come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ReturnOrigin {
    pub ifindex: u32,
    /// The client's, or its router's.
    pub mac: Mac,
    pub tags: Tags,
    /// Routes differ by family.
    pub is_v6: bool,
}

/// The return hops of all flows.
#[derive(Debug, Default)]
pub struct ReturnHops {
    /// A leaf: taken under the lock of a flow's shard, and nothing under it.
    hops: Mutex<Numbered>,
    /// Rises whenever there are other hops to look up.
    version: AtomicU64,
}

#[derive(Debug, Default)]
struct Numbered {
    numbers: HashMap<ReturnOrigin, HopNumber>,
    hops: HashMap<HopNumber, ReturnHop>,
    next: u32,
}

/// One hop.
#[derive(Debug)]
struct ReturnHop {
    /// One of the clients behind it, whose route stands for all.
    client: IpAddr,
    flows: u32,
    /// The route's link when it was last looked up.
    routed: Option<LinkHeader>,
    /// Where replies go since the route has changed.
    moved: Option<ReturnLink>,
}

/// What came of comparing a hop's route with what it was.
enum LookUp {
    /// Its route is not known, or was not until now.
    First,
    Same,
    Moved {
        before: LinkHeader,
        now: ReturnLink,
    },
}

impl ReturnHop {
    /// Of one flow, of this client.
    const fn new(client: IpAddr) -> Self {
        Self {
            client,
            flows: 1,
            routed: None,
            moved: None,
        }
    }

    fn look_up(&mut self, clients: &HashMap<IpAddr, Hop>) -> LookUp {
        let known = clients
            .get(&self.client)
            .and_then(|route| match route.resolution {
                Resolution::Known(link) => Some(ReturnLink { link, mtu: route.mtu }),
                Resolution::Unresolved { .. } | Resolution::NoRoute => None,
            });
        let Some(now) = known else {
            return if self.routed.is_none() {
                LookUp::First
            } else {
                LookUp::Same
            };
        };
        match self.routed.replace(now.link) {
            None => LookUp::First,
            Some(before) if before == now.link => LookUp::Same,
            Some(before) => {
                self.moved = Some(now);
                LookUp::Moved { before, now }
            }
        }
    }
}

impl ReturnPath {
    /// To where a flow has come from, whatever becomes of that.
    pub const fn unfollowed(origin: ReturnOrigin) -> Self {
        Self { origin, number: None }
    }
}

impl ReturnHops {
    fn lock(&self) -> MutexGuard<'_, Numbered> {
        // nothing is left half changed by a panic
        self.hops.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The way back for a new flow from a client, or for one that has moved there.
    pub fn enter(&self, origin: ReturnOrigin, client: IpAddr) -> ReturnPath {
        let mut numbered = self.lock();
        let Numbered { numbers, hops, next } = &mut *numbered;
        let known = numbers.get(&origin).copied();
        if let Some(number) = known
            && let Some(hop) = hops.get_mut(&number)
        {
            hop.flows = hop.flows.saturating_add(1);
            return ReturnPath {
                origin,
                number: known,
            };
        }
        if hops.len() >= MOST {
            return ReturnPath { origin, number: None };
        }
        // a number is not given twice while flows may have it: they are counted
        let number = HopNumber(*next);
        *next = next.wrapping_add(1);
        numbers.insert(origin, number);
        hops.insert(number, ReturnHop::new(client));
        drop(numbered);
        self.version.fetch_add(1, Ordering::Release);
        ReturnPath {
            origin,
            number: Some(number),
        }
    }

    /// A flow has left a way back.
    pub fn leave(&self, path: &ReturnPath) {
        let Some(number) = path.number else { return };
        let mut numbered = self.lock();
        let Some(hop) = numbered.hops.get_mut(&number) else {
            return;
        };
        hop.flows = hop.flows.saturating_sub(1);
        if hop.flows == 0 {
            numbered.hops.remove(&number);
            if numbered.numbers.get(&path.origin) == Some(&number) {
                numbered.numbers.remove(&path.origin);
            }
            self.version.fetch_add(1, Ordering::Release);
        }
    }

    /// Follows the hops of exactly these origins, each with one client behind it, as far as there are numbers for them. For
    /// flows that are kept elsewhere, which do not [enter](Self::enter) and [leave](Self::leave) one by one.
    pub fn retain(&self, in_use: &HashMap<ReturnOrigin, IpAddr>) {
        let mut numbered = self.lock();
        let Numbered { numbers, hops, next } = &mut *numbered;
        let before = numbers.len();
        numbers.retain(|origin, number| {
            let is_used = in_use.contains_key(origin);
            if !is_used {
                hops.remove(number);
            }
            is_used
        });
        let mut has_changed = numbers.len() != before;
        for (origin, client) in in_use {
            if hops.len() >= MOST {
                break;
            }
            if !numbers.contains_key(origin) {
                let number = HopNumber(*next);
                *next = next.wrapping_add(1);
                numbers.insert(*origin, number);
                hops.insert(number, ReturnHop::new(*client));
                has_changed = true;
            }
        }
        drop(numbered);
        if has_changed {
            self.version.fetch_add(1, Ordering::Release);
        }
    }

    /// Replies that would go back to these origins go elsewhere already, since routes have changed before anything was looked up
    /// here. What is known of an origin here is newer.
    pub fn take_over(&self, moved: &HashMap<ReturnOrigin, ReturnLink>) {
        let mut numbered = self.lock();
        let Numbered { numbers, hops, .. } = &mut *numbered;
        let mut has_changed = false;
        for (origin, link) in moved {
            let hop = numbers.get(origin).and_then(|number| hops.get_mut(number));
            if let Some(hop) = hop.filter(|hop| hop.moved.is_none()) {
                hop.moved = Some(*link);
                has_changed = true;
            }
        }
        drop(numbered);
        if has_changed {
            self.version.fetch_add(1, Ordering::Release);
        }
    }

    /// The number of an origin's hop, if that is followed.
    pub fn number_of(&self, origin: &ReturnOrigin) -> Option<HopNumber> {
        self.lock().numbers.get(origin).copied()
    }

    /// Where replies go instead of back to their origins, as these next hops say.
    pub fn moved(&self, hops: &Hops) -> HashMap<ReturnOrigin, ReturnLink> {
        let numbered = self.lock();
        let moved = numbered.numbers.iter();
        moved
            .filter_map(|(origin, number)| Some((*origin, *hops.returns.get(number)?)))
            .collect()
    }

    /// Rises whenever there are other hops to look up.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// One client behind each hop: whose routes are to be followed.
    pub fn clients(&self) -> BTreeSet<IpAddr> {
        self.lock().hops.values().map(|hop| hop.client).collect()
    }

    /// Compares the routes to clients with what they were. Gives the links of the hops that have moved.
    pub fn follow(&self, clients: &HashMap<IpAddr, Hop>) -> HashMap<HopNumber, ReturnLink> {
        let mut numbered = self.lock();
        let Numbered { numbers, hops, .. } = &mut *numbered;
        // where replies go by what routers were left behind
        let mut replaced: HashMap<(u32, Mac, bool), ReturnLink> = HashMap::new();
        let mut unknown = Vec::new();
        for (origin, number) in &*numbers {
            let Some(hop) = hops.get_mut(number) else { continue };
            match hop.look_up(clients) {
                LookUp::Moved { before, now } => {
                    replaced.insert((before.ifindex, before.destination, origin.is_v6), now);
                }
                LookUp::First => unknown.push((*origin, *number)),
                LookUp::Same => {}
            }
        }
        // of a hop that is too young to have been looked up, others know what router it was
        for (origin, number) in unknown {
            let now = replaced.get(&(origin.ifindex, origin.mac, origin.is_v6));
            if let (Some(now), Some(hop)) = (now, hops.get_mut(&number)) {
                hop.moved = Some(*now);
            }
        }
        (hops.iter())
            .filter_map(|(number, hop)| Some((*number, hop.moved?)))
            .collect()
    }

    /// Hops that flows use.
    #[cfg(any(test, fuzzing))]
    pub fn flows(&self) -> usize {
        self.lock().hops.values().map(|hop| hop.flows as usize).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(host: u16) -> ReturnOrigin {
        let [high, low] = host.to_be_bytes();
        ReturnOrigin {
            ifindex: 1,
            mac: Mac([2, 0, 0, 0, high, low]),
            tags: Tags::default(),
            is_v6: false,
        }
    }

    fn client(host: u16) -> IpAddr {
        let [high, low] = host.to_be_bytes();
        IpAddr::from([10, 0, high, low])
    }

    fn in_use(hosts: impl IntoIterator<Item = u16>) -> HashMap<ReturnOrigin, IpAddr> {
        let one = |host| (origin(host), client(host));
        hosts.into_iter().map(one).collect()
    }

    /// The route to a client by a router.
    fn route(router: u8) -> Hop {
        Hop {
            resolution: Resolution::Known(LinkHeader {
                ifindex: 1,
                source: Mac([2, 0, 0, 0, 9, 1]),
                destination: Mac([2, 7, 7, 7, 7, router]),
            }),
            mtu: 1_400,
            locals: [].into(),
        }
    }

    fn follow(returns: &ReturnHops, host: u16, router: u8) -> HashMap<ReturnOrigin, ReturnLink> {
        let hops = Hops {
            returns: returns.follow(&[(client(host), route(router))].into()),
            ..Hops::default()
        };
        returns.moved(&hops)
    }

    #[test]
    fn the_hops_in_use_are_followed_and_no_others() {
        let returns = ReturnHops::default();
        returns.retain(&in_use([1, 2]));
        assert_eq!(returns.clients(), [client(1), client(2)].into());
        let kept = returns.number_of(&origin(2));
        assert!(kept.is_some() && returns.number_of(&origin(3)).is_none());
        returns.retain(&in_use([2, 3]));
        assert_eq!(returns.clients(), [client(2), client(3)].into());
        assert_eq!(returns.number_of(&origin(2)), kept);
        assert_ne!(returns.number_of(&origin(3)), kept);
    }

    #[test]
    fn only_other_hops_are_a_new_version() {
        let returns = ReturnHops::default();
        let mut version = returns.version();
        for (hosts, is_new) in [
            (vec![1], true),
            (vec![1], false),
            (vec![2], true),
            (vec![], true),
            (vec![], false),
        ] {
            returns.retain(&in_use(hosts.clone()));
            assert_eq!(returns.version() != version, is_new, "{hosts:?}");
            version = returns.version();
        }
    }

    #[test]
    fn no_more_hops_are_followed_than_there_may_be_and_who_is_followed_stays_so() {
        let returns = ReturnHops::default();
        returns.retain(&in_use([1]));
        returns.retain(&in_use(1..=5_000));
        assert_eq!(returns.clients().len(), MOST);
        assert!(returns.number_of(&origin(1)).is_some());
    }

    #[test]
    fn where_replies_went_before_is_taken_over_until_a_route_changes() {
        let returns = ReturnHops::default();
        returns.retain(&in_use([1, 2]));
        let link = |router| match route(router).resolution {
            Resolution::Known(link) => ReturnLink { link, mtu: 1_400 },
            _ => unreachable!(),
        };
        let version = returns.version();
        returns.take_over(&[(origin(1), link(5)), (origin(9), link(6))].into());
        assert_ne!(returns.version(), version, "there is something to look up");
        assert_eq!(
            follow(&returns, 1, 3),
            [(origin(1), link(5))].into(),
            "the first look"
        );
        assert_eq!(
            follow(&returns, 1, 4),
            [(origin(1), link(4))].into(),
            "it changes"
        );
        returns.take_over(&[(origin(1), link(5))].into());
        assert_eq!(follow(&returns, 1, 4), [(origin(1), link(4))].into());
    }

    #[test]
    fn a_hop_that_has_moved_is_known_by_its_origin_as_long_as_it_is_in_use() {
        let returns = ReturnHops::default();
        returns.retain(&in_use([1, 2]));
        assert_eq!(follow(&returns, 1, 1), HashMap::new());
        let moved = follow(&returns, 1, 2);
        let Resolution::Known(link) = route(2).resolution else {
            unreachable!()
        };
        assert_eq!(moved, [(origin(1), ReturnLink { link, mtu: 1_400 })].into());
        returns.retain(&in_use([1]));
        assert_eq!(follow(&returns, 1, 2), moved);
        returns.retain(&in_use([2]));
        assert_eq!(follow(&returns, 1, 2), HashMap::new());
    }
}
