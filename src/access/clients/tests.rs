//! Limits per client network hold whatever the table does.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

fn limits(connections: u32, new_per_second: u32) -> PerClient {
    PerClient {
        prefix4: 32,
        prefix6: 64,
        connections: NonZeroU32::new(connections),
        new_per_second: NonZeroU32::new(new_per_second),
        datagrams_per_second: None,
        handshakes_per_second: None,
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn nth(n: u32) -> IpAddr {
    IpAddr::V4(n.into())
}

#[test]
fn a_client_at_its_limit_does_not_hinder_another() {
    let (table, limits) = (Clients::new(CAPACITY), limits(2, 0));
    let first = table.admit(&limits, ip("192.0.2.1"), 0).unwrap();
    let _ = table.admit(&limits, ip("192.0.2.1"), 0).unwrap();
    let refused = table.admit(&limits, ip("192.0.2.1"), 0);
    assert_eq!(refused, Err(AccessReason::ClientConnections));
    assert!(table.admit(&limits, ip("192.0.2.2"), 0).is_ok());
    table.release(first);
    assert!(table.admit(&limits, ip("::ffff:192.0.2.1"), 0).is_ok());
}

#[test]
fn a_client_network_is_one_client() {
    let table = Clients::new(CAPACITY);
    let mut limits = limits(1, 0);
    let _ = table.admit(&limits, ip("2001:db8::1"), 0).unwrap();
    assert!(table.admit(&limits, ip("2001:db8::ffff:2"), 0).is_err());
    assert!(table.admit(&limits, ip("2001:db8:0:1::1"), 0).is_ok());
    limits.prefix4 = 24;
    let _ = table.admit(&limits, ip("192.0.2.1"), 0).unwrap();
    assert!(table.admit(&limits, ip("192.0.2.200"), 0).is_err());
    assert!(table.admit(&limits, ip("192.0.3.1"), 0).is_ok());
}

#[test]
fn new_connections_are_counted_by_the_second_although_they_end_at_once() {
    let (table, limits) = (Clients::new(CAPACITY), limits(0, 3));
    let opened = |now| {
        let attempts = (0..10).filter_map(|_| table.admit(&limits, ip("192.0.2.1"), now).ok());
        attempts.map(|counted| table.release(counted)).count()
    };
    assert_eq!((opened(0), opened(0), opened(1_000), opened(1_333)), (3, 0, 3, 0));
    assert_eq!(opened(1_334), 1);
    let refused = table.admit(&limits, ip("192.0.2.1"), 1_334);
    assert_eq!(refused, Err(AccessReason::ClientRate));
}

#[test]
fn what_was_taken_back_counts_as_never_having_come() {
    let (table, limits) = (Clients::new(CAPACITY), limits(1, 1));
    let counted = table.admit(&limits, ip("192.0.2.1"), 0).unwrap();
    table.take_back(counted);
    table.release(counted);
    assert!(table.admit(&limits, ip("192.0.2.1"), 0).is_ok());
}

#[test]
fn whoever_cycles_through_addresses_shares_one_entry_beyond_the_table() {
    let (table, limits) = (Clients::new(1_000), limits(2, 0));
    let known = table.admit(&limits, nth(1_000_000), 0).unwrap();
    // one connection held from each of very many addresses
    let held = (0..100_000)
        .filter_map(|n| table.admit(&limits, nth(n), 0).ok())
        .count();
    assert_eq!(
        held,
        999 + 2,
        "one each in the table, and the share of one beyond"
    );
    assert_eq!(table.entries(), 1_000);
    assert!(
        table.admit(&limits, nth(1_000_000), 0).is_ok(),
        "whoever has an entry keeps its own"
    );
    table.release(known);
}

#[test]
fn a_rate_is_not_forgotten_while_others_come() {
    let (table, limits) = (Clients::new(1_000), limits(0, 5));
    let opened = |now| {
        let attempts = (0..10).filter_map(|_| table.admit(&limits, nth(7), now).ok());
        attempts.map(|counted| table.release(counted)).count()
    };
    assert_eq!(opened(0), 5);
    let mut beyond = 0;
    for n in 100_000..200_000 {
        if let Ok(counted) = table.admit(&limits, nth(n), 10) {
            beyond += 1;
            table.release(counted);
        }
    }
    assert_eq!(beyond, 999 + 5);
    assert_eq!(opened(10), 0, "its entry is still there");
}

#[test]
fn room_comes_back_when_entries_say_nothing_any_more() {
    let (table, limits) = (Clients::new(1_000), limits(2, 10));
    let held: Vec<_> = (0..1_000)
        .map(|n| table.admit(&limits, nth(n), 0).unwrap())
        .collect();
    held.into_iter().for_each(|counted| table.release(counted));
    // a tenth of a second later every bucket is full again; each new client looks at some entries
    let own = (0..2_000).filter(|n| {
        let counted = table.admit(&limits, nth(10_000 + n), 100);
        counted.is_ok_and(|counted| {
            table.release(counted);
            counted != Counted::Overflow
        })
    });
    assert!(own.count() >= 1_000);
    assert!(table.entries() <= 1_000);
}

/// What a client does.
#[derive(Debug, Clone, Copy)]
enum Step {
    Open(u32),
    Close(usize),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0_u32..40).prop_map(Step::Open),
        3 => (0_usize..1_000).prop_map(Step::Close),
        1 => (0_u64..300).prop_map(Step::Wait),
    ]
}

proptest! {
    /// With a table that is too small, no client network has more of its own than its limit, all without an entry have
    /// no more than one limit together, and the entries of the table never exceed its capacity. With one that is large
    /// enough nobody is refused for another's sake: it decides as a table of its own for each client would.
    #[test]
    fn no_order_of_events_gives_a_client_more_than_its_limit(
        steps in proptest::collection::vec(step(), 0..600),
        capacity in prop_oneof![Just(5_usize), Just(1_000)],
    ) {
        let limits = limits(3, 4);
        let table = Clients::new(capacity);
        let mut alone: HashMap<u32, Entry> = HashMap::new();
        let mut open: Vec<(u32, Counted)> = Vec::new();
        let mut overflow_times: Vec<u64> = Vec::new();
        let mut now = 0;
        for step in steps {
            match step {
                Step::Open(client) => {
                    let decided = table.admit(&limits, nth(client), now);
                    let truth = alone.entry(client).or_default();
                    if capacity == 1_000 {
                        prop_assert_eq!(decided.map(drop), truth.admit(&limits, now));
                    }
                    if let Ok(counted) = decided {
                        open.push((client, counted));
                        if counted == Counted::Overflow {
                            overflow_times.push(now);
                        }
                    }
                }
                Step::Close(which) if !open.is_empty() => {
                    let (client, counted) = open.swap_remove(which % open.len());
                    table.release(counted);
                    alone.entry(client).or_default().release();
                }
                Step::Close(_) => {}
                Step::Wait(time) => now += time,
            }
            let mut own: HashMap<Sharer, u32> = HashMap::new();
            for (_, counted) in &open {
                *own.entry(Sharer::of(*counted)).or_default() += 1;
            }
            prop_assert!(own.values().all(|count| *count <= 3));
            prop_assert!(table.entries() <= capacity);
        }
        for (index, first) in overflow_times.iter().enumerate() {
            for (count, last) in (1..).zip(&overflow_times[index..]) {
                prop_assert!(4 * (last - first + 1_000) >= count * 1_000);
            }
        }
    }
}

/// Who shares a limit.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Sharer(Option<Network>);

impl Sharer {
    fn of(counted: Counted) -> Self {
        match counted {
            Counted::Own(network) => Self(Some(network)),
            Counted::Overflow => Self(None),
        }
    }
}
