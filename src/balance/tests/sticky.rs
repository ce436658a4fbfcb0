//! What sticks, for how long, and what does not.

use super::*;
use proptest::prelude::*;

const TTL: Duration = Duration::from_secs(60);

const fn bounds(max_entries: usize) -> StickyBounds {
    StickyBounds {
        ttl: TTL,
        max_entries,
    }
}

fn client(number: u16) -> StickyKey {
    let [high, low] = number.to_be_bytes();
    StickyKey {
        network: [10, 0, high, low].into(),
        class: 0,
    }
}

fn server(number: u8) -> StuckTo {
    StuckTo {
        name: ServerName::new(&format!("s{number}")).unwrap(),
        addr: ServerAddr::new(([192, 0, 2, number], 80).into()),
    }
}

#[test]
fn a_client_sticks_until_it_has_not_come_for_the_time_to_live() {
    let table = StickyTable::default();
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    assert_eq!(table.get(&client(1), bounds(9), at(0)), None);
    assert!(table.stick(client(1), server(1), bounds(9), at(0)));
    // a look does not
    assert_eq!(table.peek(&client(1), TTL, at(59)), Some(server(1)));
    assert_eq!(table.peek(&client(1), TTL, at(60)), None);
    // each use refreshes it
    for seconds in [59, 118, 177] {
        assert_eq!(table.get(&client(1), bounds(9), at(seconds)), Some(server(1)));
    }
    assert_eq!(table.get(&client(1), bounds(9), at(237)), None);
    assert_eq!(table.entries(TTL, at(237)), 0);
}

#[test]
fn a_client_that_is_sent_elsewhere_sticks_there() {
    let (table, now) = (StickyTable::default(), Instant::now());
    assert!(table.stick(client(1), server(1), bounds(1), now));
    assert!(
        table.stick(client(1), server(2), bounds(1), now),
        "it has its place"
    );
    assert_eq!(table.get(&client(1), bounds(1), now), Some(server(2)));
    assert_eq!((table.entries(TTL, now), table.refused()), (1, 0));
}

#[test]
fn a_full_table_keeps_what_it_has_and_counts_what_it_refuses() {
    let (table, now) = (StickyTable::default(), Instant::now());
    for number in 0..100 {
        assert!(table.stick(client(number), server(1), bounds(100), now));
    }
    for number in 100..300 {
        assert!(!table.stick(client(number), server(2), bounds(100), now));
    }
    assert_eq!((table.entries(TTL, now), table.refused()), (100, 200));
    assert!((0..100).all(|number| table.get(&client(number), bounds(100), now) == Some(server(1))));
}

#[test]
fn places_of_clients_that_have_gone_are_given_to_others() {
    let (table, now) = (StickyTable::default(), Instant::now());
    for number in 0..100 {
        assert!(table.stick(client(number), server(1), bounds(100), now));
    }
    let later = now + TTL;
    for number in 1_000..1_100 {
        assert!(
            table.stick(client(number), server(2), bounds(100), later),
            "{number}"
        );
    }
    assert_eq!((table.entries(TTL, later), table.refused()), (100, 0));
}

#[test]
fn classes_of_names_stick_by_themselves() {
    let (table, now) = (StickyTable::default(), Instant::now());
    let other = StickyKey {
        class: 1,
        ..client(1)
    };
    assert!(table.stick(client(1), server(1), bounds(9), now));
    assert_eq!(table.get(&other, bounds(9), now), None);
}

#[test]
fn threads_that_use_one_table_lose_no_place() {
    let (table, now) = (StickyTable::default(), Instant::now());
    std::thread::scope(|scope| {
        for thread in 0..4_u16 {
            let table = &table;
            scope.spawn(move || {
                for number in 0..2_000 {
                    let later = now + Duration::from_secs(u64::from(number) / 10);
                    table.stick(
                        client(number * 7 % 1_500 + thread),
                        server(1),
                        bounds(1_000),
                        later,
                    );
                    let _ = table.get(&client(number), bounds(1_000), later);
                }
            });
        }
    });
    let end = now + Duration::from_secs(200);
    let entries = table.entries(TTL, end);
    let there: usize = table.shards.iter().map(|shard| lock(shard).by_key.len()).sum();
    assert_eq!(entries, there);
    assert_eq!(table.entries(TTL, end + TTL), 0);
}

/// A use of the table.
#[derive(Debug, Clone)]
enum Step {
    Get(u16),
    Stick(u16, u8),
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0_u16..30).prop_map(Step::Get),
        (0_u16..30, 0_u8..4).prop_map(|(client, server)| Step::Stick(client, server)),
        (0_u64..40).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 0..200)
}

proptest! {
    #[test]
    fn it_does_what_a_plain_map_with_times_does(steps in steps(), max_entries in 1_usize..20) {
        let table = StickyTable::default();
        let mut model: HashMap<u16, (u8, Instant)> = HashMap::new();
        let (mut now, mut refused) = (Instant::now(), 0);
        for step in steps {
            model.retain(|_, (_, used_at)| now - *used_at < TTL);
            match step {
                Step::Get(number) => {
                    let found = table.get(&client(number), bounds(max_entries), now);
                    let expected = model.get_mut(&number).map(|(to, used_at)| {
                        *used_at = now;
                        server(*to)
                    });
                    prop_assert_eq!(found, expected);
                }
                Step::Stick(number, to) => {
                    let has_room = model.contains_key(&number) || model.len() < max_entries;
                    prop_assert_eq!(table.stick(client(number), server(to), bounds(max_entries), now), has_room);
                    if has_room {
                        model.insert(number, (to, now));
                    } else {
                        refused += 1;
                    }
                }
                Step::Pass(seconds) => now += Duration::from_secs(seconds),
            }
        }
        model.retain(|_, (_, used_at)| now - *used_at < TTL);
        prop_assert_eq!((table.entries(TTL, now), table.refused()), (model.len(), refused));
    }
}
