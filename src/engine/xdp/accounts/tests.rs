use proptest::prelude::*;

use super::*;

/// What the program has counted of DSR flows.
fn direct(opened: u64, bytes: u64) -> TrafficValue {
    TrafficValue {
        opened,
        bytes,
        ..TrafficValue::default()
    }
}

/// The same of passthrough flows.
fn through(nat_opened: u64, nat_closed: u64) -> TrafficValue {
    TrafficValue {
        nat_opened,
        nat_closed,
        bytes_out: 10 * nat_opened,
        unanswered: nat_closed,
        ..TrafficValue::default()
    }
}

fn reading(incarnation: u32, traffic: TrafficValue, put_in: u64) -> Reading {
    Reading {
        incarnation,
        is_dsr: traffic.nat_opened == 0,
        traffic,
        put_in,
        is_heard: true,
    }
}

fn found(flows: u64) -> Found {
    Found {
        surely: flows,
        at_most: flows,
    }
}

#[test]
fn what_was_read_before_is_not_counted_again() {
    let mut accounts = Accounts::default();
    let first = accounts.read(1, &reading(7, direct(3, 100), 0));
    assert_eq!(first, SeenElsewhere::default(), "what was there is of others");
    let second = accounts.read(1, &reading(7, direct(5, 150), 0));
    assert_eq!((second.opened, second.bytes), (2, 50));
    assert_eq!(accounts.live(), 2);
}

#[test]
fn ends_of_passthrough_flows_are_the_programs_own_count() {
    let mut accounts = Accounts::default();
    let _ = accounts.read(1, &reading(7, through(5, 5), 0));
    let seen = accounts.read(1, &reading(7, through(9, 6), 0));
    assert_eq!((seen.opened, seen.closed), (4, 1));
    assert_eq!((seen.bytes_out, seen.unanswered), (40, 1));
    assert_eq!(accounts.live(), 0, "of DSR there is none");
    accounts.scan_begins();
    assert_eq!(accounts.scan_ended(1, found(3)), SeenElsewhere::default());
    assert_eq!(accounts.forget(1).closed, 3);
}

#[test]
fn flows_that_a_scan_does_not_find_have_ended() {
    let mut accounts = Accounts::default();
    let _ = accounts.read(1, &reading(7, direct(0, 0), 0));
    let _ = accounts.read(1, &reading(7, direct(8, 0), 2));
    accounts.scan_begins();
    // a flow that begins now is none that is missing
    let _ = accounts.read(1, &reading(7, direct(9, 0), 2));
    assert_eq!(accounts.scan_ended(1, found(4)).closed, 6);
    assert_eq!(accounts.live(), 5);
    accounts.scan_begins();
    assert_eq!(accounts.scan_ended(1, found(5)), SeenElsewhere::default());
    assert_eq!(
        accounts.scan_ended(2, found(5)),
        SeenElsewhere::default(),
        "nothing is known of it"
    );
}

#[test]
fn a_number_begins_anew_with_another_target_though_its_counters_go_on() {
    let mut accounts = Accounts::default();
    let _ = accounts.read(1, &reading(7, direct(0, 0), 0));
    let _ = accounts.read(1, &reading(7, direct(8, 80), 1));
    assert_eq!(accounts.forget(1).closed, 9, "all of them");
    assert_eq!(accounts.live(), 0);
    let anew = accounts.read(1, &reading(8, direct(10, 90), 0));
    assert_eq!((anew.opened, anew.bytes), (2, 10));
    assert_eq!(accounts.live(), 2);
}

#[test]
fn a_flow_that_ends_before_its_beginning_is_heard_of_is_not_counted_below_zero() {
    let mut accounts = Accounts::default();
    let _ = accounts.read(1, &reading(7, through(1, 1), 0));
    let seen = accounts.read(1, &reading(7, through(1, 2), 0));
    assert_eq!((seen.opened, seen.closed), (0, 0));
    let seen = accounts.read(1, &reading(7, through(1, 2), 1));
    assert_eq!((seen.opened, seen.closed), (0, 1), "the slow path has counted it");
}

#[test]
fn what_was_taken_over_is_heard_once_there_is_somebody_to_hear_it() {
    let mut accounts = Accounts::default();
    let counted = Counted {
        traffic: through(20, 5),
        incarnation: 7,
        open: 15,
    };
    let unheard = |traffic| Reading {
        is_heard: false,
        ..reading(7, traffic, 0)
    };
    accounts.take_over(1, &unheard(through(22, 6)), &counted, 100);
    assert_eq!(
        accounts.read(1, &unheard(through(22, 6))),
        SeenElsewhere::default()
    );
    let seen = accounts.read(1, &reading(7, through(23, 8), 0));
    assert_eq!((seen.opened, seen.closed), (15 + 3 - 3, 0));
    assert_eq!(
        seen.bytes_out, 10,
        "and what came while nobody heard it is none of it"
    );
    let seen = accounts.read(1, &reading(7, through(24, 9), 0));
    assert_eq!((seen.opened, seen.closed), (1, 1));
}

#[test]
fn the_first_scan_says_how_many_were_taken_over() {
    for (open, lives) in [(0, 12), (15, 12), (12, 12), (9, 0)] {
        let mut accounts = Accounts::default();
        let counted = Counted {
            traffic: through(20, 5),
            incarnation: 7,
            open,
        };
        accounts.take_over(1, &reading(7, through(20, 5), 0), &counted, 100);
        let first = accounts.read(1, &reading(7, through(20, 5), 0));
        assert_eq!((first.opened, first.closed), (open, 0));
        accounts.scan_begins();
        let then = accounts.scan_ended(1, found(lives));
        assert_eq!(open + then.opened - then.closed, lives, "{open} were counted");
    }
}

#[test]
fn a_scan_that_finds_too_many_adds_nothing_to_what_is_counted_here() {
    for (is_dsr, traffic) in [(true, direct(4, 0)), (false, through(4, 0))] {
        let mut accounts = Accounts::default();
        let of = |traffic| Reading {
            is_dsr,
            ..reading(7, traffic, 0)
        };
        let _ = accounts.read(1, &of(TrafficValue::default()));
        assert_eq!(accounts.read(1, &of(traffic)).opened, 4);
        accounts.scan_begins();
        assert_eq!(accounts.scan_ended(1, found(5)), SeenElsewhere::default());
    }
}

#[test]
fn what_was_taken_over_is_doubtful_until_a_scan_finds_it_right() {
    let mut accounts = Accounts::default();
    let counted = Counted {
        traffic: through(20, 5),
        incarnation: 7,
        open: 15,
    };
    accounts.take_over(1, &reading(7, through(20, 5), 0), &counted, 100);
    let _ = accounts.read(1, &reading(7, through(20, 5), 0));
    let mut scan = |surely, at_most| {
        accounts.scan_begins();
        let seen = accounts.scan_ended(1, Found { surely, at_most });
        (seen.opened, seen.closed)
    };
    assert_eq!(scan(10, 20), (0, 0), "15 may be right");
    assert_eq!(scan(16, 16), (1, 0));
    assert_eq!(scan(15, 15), (0, 1), "the one before was wrong");
    assert_eq!(scan(15, 15), (0, 0));
    assert_eq!(scan(16, 16), (0, 0), "from here on the program counts");
}

#[test]
fn what_is_noted_wrongly_counts_for_nothing_that_cannot_be() {
    let mut accounts = Accounts::default();
    let counted = Counted {
        traffic: TrafficValue {
            nat_opened: u64::MAX,
            ..through(9, 2)
        },
        incarnation: 7,
        open: u64::MAX,
    };
    accounts.take_over(1, &reading(7, through(20, 5), 0), &counted, 100);
    let seen = accounts.read(1, &reading(7, through(20, 5), 0));
    assert_eq!((seen.opened, seen.unanswered), (97, 3));
    accounts.take_over(2, &reading(8, through(20, 5), 0), &counted, 100);
    let seen = accounts.read(2, &reading(8, through(20, 5), 0));
    assert_eq!(seen.opened, 0, "it is of another target");
}

#[test]
fn what_has_changed_is_noted_and_nothing_else() {
    let mut accounts = Accounts::default();
    let _ = accounts.read(3, &reading(7, through(5, 5), 0));
    let _ = accounts.read(1, &reading(8, direct(5, 5), 0));
    let numbers = |noted: Vec<(u16, Counted)>| noted.iter().map(|(number, _)| *number).collect::<Vec<_>>();
    assert_eq!(numbers(accounts.take_new()), [1, 3], "in their order");
    assert_eq!(accounts.take_new(), []);
    let _ = accounts.read(3, &reading(7, through(6, 5), 0));
    let noted = accounts.take_new();
    assert_eq!(numbers(noted.clone()), [3]);
    assert_eq!((noted[0].1.incarnation, noted[0].1.open), (7, 1));
}

/// What happens to passthrough flows.
#[derive(Debug, Clone, Copy)]
enum Event {
    Opens,
    /// The slow path opens one.
    PutIn,
    Ends,
    Read,
    ScanBegins,
    ScanEnds,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        3 => Just(Event::Opens),
        2 => Just(Event::PutIn),
        4 => Just(Event::Ends),
        3 => Just(Event::Read),
        1 => Just(Event::ScanBegins),
        1 => Just(Event::ScanEnds),
    ];
    prop::collection::vec(event, 0..200)
}

proptest! {
    #[test]
    fn however_many_were_taken_over_the_gauge_is_never_below_zero_and_a_quiet_scan_makes_it_right(
        events in events(),
        before in 0_u64..20,
        noted in 0_u64..20,
    ) {
        let mut accounts = Accounts::default();
        let (mut open, mut traffic, mut put_in) = (before, through(100, 40), 0);
        let (mut gauge, mut at_scan) = (0_i64, None);
        let counted = Counted { traffic, incarnation: 7, open: noted };
        accounts.take_over(1, &reading(7, traffic, 0), &counted, 100);
        let add = |gauge: &mut i64, seen: SeenElsewhere| {
            *gauge += i64::try_from(seen.opened).unwrap() - i64::try_from(seen.closed).unwrap();
        };
        for event in events.into_iter().chain([Event::Read, Event::ScanBegins, Event::Read, Event::ScanEnds]) {
            match event {
                Event::Opens => {
                    open += 1;
                    traffic.nat_opened += 1;
                }
                Event::PutIn => {
                    open += 1;
                    put_in += 1;
                    gauge += 1;
                }
                Event::Ends if open > 0 => {
                    open -= 1;
                    traffic.nat_closed += 1;
                }
                Event::Ends => {}
                Event::Read => add(&mut gauge, accounts.read(1, &reading(7, traffic, put_in))),
                Event::ScanBegins => {
                    add(&mut gauge, accounts.read(1, &reading(7, traffic, put_in)));
                    accounts.scan_begins();
                    at_scan = Some(open);
                }
                Event::ScanEnds => {
                    add(&mut gauge, accounts.read(1, &reading(7, traffic, put_in)));
                    // it may have found them all, before those ended that have
                    if let Some(at_scan) = at_scan.take() {
                        add(&mut gauge, accounts.scan_ended(1, found(at_scan)));
                    }
                }
            }
            prop_assert!(gauge >= 0, "{gauge} after {event:?}");
        }
        prop_assert_eq!(u64::try_from(gauge), Ok(open));
    }
}
