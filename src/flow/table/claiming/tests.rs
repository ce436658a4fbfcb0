use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::{IpAddr, SocketAddr},
};

use super::*;
use crate::{
    base::{Protocol, WorkerId},
    flow::{Moment, segment::Segment},
};

const CLIENT: u8 = 1;
const OTHER: u8 = 2;

/// Claims on paper.
#[derive(Default)]
struct Paper {
    held: RefCell<HashMap<u16, (Key, Option<Yield>)>>,
    places: Cell<usize>,
    /// A flow that gives its place up, by its port.
    elsewhere: Option<u16>,
    /// Claims that somebody else is faster at.
    lost: Cell<usize>,
    ended: RefCell<Vec<u16>>,
}

fn end(host: u8, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::from([192, 0, 2, host]), port)
}

fn forward(host: u8, port: u16) -> Key {
    Key::new(Protocol::Udp, end(host, port), end(200, 53))
}

fn reverse(port: u16) -> Key {
    Key::new(Protocol::Udp, end(100, 53), end(254, port))
}

fn beginning() -> Beginning {
    Beginning {
        key: forward(CLIENT, 1),
        segment: Segment::DATAGRAM,
        now: Moment(1_000),
        worker: WorkerId(0),
        random: 7,
    }
}

impl Paper {
    fn with_places(places: usize) -> Self {
        Self {
            places: Cell::new(places),
            ..Self::default()
        }
    }

    fn hold(&self, port: u16, rank: Option<Yield>) {
        (self.held.borrow_mut()).insert(port, (forward(OTHER, port), rank));
    }

    fn claim_of(&self, ports: impl IntoIterator<Item = u16, IntoIter: Clone>) -> Result<u16, PacketReason> {
        let keys = ports.into_iter().map(reverse);
        claim(self, &beginning(), &keys).map(|reverse| reverse.to().port())
    }
}

impl Claims for Paper {
    fn held(&self, reverse: &Key, _: &Beginning) -> Held {
        match self.held.borrow().get(&reverse.to().port()) {
            Some((holder, rank)) => Held::By {
                holder: *holder,
                rank: *rank,
            },
            None => Held::Nobody,
        }
    }

    fn claim(&self, reverse: &Key, forward: &Key) -> bool {
        if self.lost.get() > 0 {
            self.lost.set(self.lost.get() - 1);
            return false;
        }
        let before = (self.held.borrow_mut()).insert(reverse.to().port(), (*forward, None));
        assert!(before.is_none(), "claimed twice");
        true
    }

    fn somebody(&self, _: &Beginning, _: PacketReason) -> Option<(Yield, Key, Key)> {
        let port = self.elsewhere?;
        let held = self.held.borrow();
        let (holder, rank) = held.get(&port)?;
        Some(((*rank)?, *holder, reverse(port)))
    }

    fn take_away(&self, holder: &Key, reverse: &Key, _: &Beginning) -> bool {
        let port = reverse.to().port();
        let mut held = self.held.borrow_mut();
        if held.get(&port).is_none_or(|(of, _)| of != holder) {
            return false;
        }
        held.remove(&port);
        self.ended.borrow_mut().push(port);
        self.give_place();
        true
    }

    fn take_place(&self) -> Result<(), PacketReason> {
        let left = self.places.get().checked_sub(1);
        self.places.set(left.ok_or(PacketReason::TableFull)?);
        Ok(())
    }

    fn give_place(&self) {
        self.places.set(self.places.get() + 1);
    }
}

#[test]
fn the_first_free_port_is_taken_and_nobody_gives_way_for_it() {
    let paper = Paper::with_places(1);
    paper.hold(1, Some(Yield::over(Moment(0))));
    assert_eq!(paper.claim_of([1, 2, 3]), Ok(2));
    assert_eq!((paper.places.get(), paper.ended.take()), (0, Vec::new()));
}

#[test]
fn where_none_is_free_the_one_that_has_rested_longest_gives_way() {
    let paper = Paper::with_places(1);
    paper.hold(1, None);
    paper.hold(2, Some(Yield::half_open(Moment(1))));
    paper.hold(3, Some(Yield::over(Moment(9))));
    paper.hold(4, Some(Yield::over(Moment(5))));
    assert_eq!(paper.claim_of(1..=4), Ok(4));
    assert_eq!((paper.places.get(), paper.ended.take()), (1, vec![4]));
}

#[test]
fn some_are_tried_although_one_that_gives_way_is_found_and_more_if_it_may_be_honest() {
    for (rank, tried) in [
        (Yield::over(Moment(1)), ENOUGH),
        (Yield::half_open(Moment(1)), ENOUGH_HALF_OPEN),
    ] {
        for free in [tried, tried + 1] {
            let paper = Paper::with_places(1);
            (1..100).for_each(|port| paper.hold(port, (port == 1).then_some(rank)));
            let free = u16::try_from(free).unwrap();
            paper.held.borrow_mut().remove(&free);
            let expected = if usize::from(free) <= tried { free } else { 1 };
            assert_eq!(paper.claim_of(1..100), Ok(expected));
        }
    }
}

#[test]
fn where_there_is_no_place_a_flow_of_another_server_gives_its_own_up_for_a_free_port() {
    let paper = Paper {
        elsewhere: Some(50),
        ..Paper::default()
    };
    paper.hold(50, Some(Yield::over(Moment(1))));
    paper.hold(1, None);
    assert_eq!(paper.claim_of([1, 2]), Ok(2));
    assert_eq!((paper.places.get(), paper.ended.take()), (0, vec![50]));
    // without a free port it would end for nothing
    paper.hold(50, Some(Yield::over(Moment(1))));
    assert_eq!(paper.claim_of([1]), Err(PacketReason::TableFull));
    assert_eq!(paper.ended.take(), Vec::<u16>::new());
}

#[test]
fn nobody_who_is_no_help_gives_way() {
    struct Share(Paper);
    impl Claims for Share {
        fn held(&self, reverse: &Key, new: &Beginning) -> Held {
            self.0.held(reverse, new)
        }
        fn claim(&self, reverse: &Key, forward: &Key) -> bool {
            self.0.claim(reverse, forward)
        }
        fn somebody(&self, _: &Beginning, _: PacketReason) -> Option<(Yield, Key, Key)> {
            None
        }
        fn take_away(&self, holder: &Key, reverse: &Key, new: &Beginning) -> bool {
            self.0.take_away(holder, reverse, new)
        }
        fn take_place(&self) -> Result<(), PacketReason> {
            (self.0.take_place()).map_err(|_| PacketReason::SynShareFull)
        }
        fn give_place(&self) {
            self.0.give_place();
        }
    }
    let share = Share(Paper::default());
    share.0.hold(1, Some(Yield::over(Moment(1))));
    let one = |share: &Share| claim(share, &beginning(), &[reverse(1)].into_iter());
    assert_eq!(one(&share), Err(PacketReason::SynShareFull));
    share.0.hold(1, Some(Yield::half_open(Moment(1))));
    assert_eq!(one(&share), Ok(reverse(1)));
}

#[test]
fn who_is_always_too_late_is_refused_and_its_place_is_free_again() {
    let paper = Paper::with_places(1);
    paper.lost.set(usize::MAX);
    assert_eq!(paper.claim_of([1, 2]), Err(PacketReason::PortsExhausted));
    assert_eq!(paper.places.get(), 1);
    paper.lost.set(1);
    assert_eq!(paper.claim_of([1, 2]), Ok(2));
}

#[test]
fn a_port_that_is_lost_to_somebody_faster_is_looked_for_again() {
    let paper = Paper::with_places(1);
    paper.hold(1, Some(Yield::over(Moment(1))));
    paper.lost.set(1);
    assert_eq!(paper.claim_of([1]), Ok(1));
    assert_eq!(paper.ended.take(), vec![1]);
}

#[test]
fn where_there_is_no_place_each_flow_that_ends_for_nothing_leaves_its_place_free() {
    let paper = Paper::default();
    (1..=9).for_each(|port| paper.hold(port, Some(Yield::over(Moment(port.into())))));
    paper.lost.set(usize::MAX);
    assert_eq!(paper.claim_of(1..=9), Err(PacketReason::TableFull));
    assert_eq!(paper.places.get(), paper.ended.take().len());
}
