//! When a CA is asked for what.

use super::*;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn wanted(names: &[&str], directory: &str) -> Wanted {
    Wanted {
        names: names.iter().map(|name| (*name).into()).collect(),
        directory: directory.into(),
        profile: None,
        renew_before: None,
    }
}

/// Valid for 90 days from day 1,000 on.
fn held(names: &[&str], directory: &str) -> Held {
    Held {
        names: names.iter().map(|name| (*name).into()).collect(),
        directory: directory.into(),
        profile: None,
        not_before: day(1_000),
        not_after: day(1_090),
        id: Some(CertificateId {
            authority: "a".into(),
            serial: "s".into(),
        }),
    }
}

fn day(day: u32) -> SystemTime {
    SystemTime::UNIX_EPOCH + DAY * day
}

fn planner(all: &[(&str, Wanted)]) -> Planner {
    let mut planner = Planner::default();
    follow(&mut planner, all);
    planner
}

fn follow(planner: &mut Planner, all: &[(&str, Wanted)]) {
    let all = all
        .iter()
        .map(|(name, wanted)| (Arc::from(*name), wanted.clone()));
    planner.follow(&all.collect(), || 0);
}

fn order(name: &str) -> Option<Step> {
    Some(Step::Order(name.into(), None))
}

fn failure(kind: FailureKind) -> Failure {
    Failure::new(kind, "no")
}

#[test]
fn what_is_missing_is_ordered_and_renewed_with_the_last_third_of_its_lifetime() {
    let mut planner = planner(&[("a", wanted(&["a"], "ca"))]);
    assert_eq!(planner.next(day(1_000)), order("a"));
    planner.hold("a", held(&["a"], "ca"), None);
    planner.advised("a", None, day(1_000), 0);
    assert_eq!(planner.next(day(1_060) - Duration::from_secs(1)), None);
    assert_eq!(planner.next(day(1_060)), order("a"));
    assert_eq!(planner.due("a"), Some((day(1_060), Why::Renewal)));
    // one that has expired, too
    assert_eq!(planner.next(day(2_000)), order("a"));
}

#[test]
fn not_all_are_renewed_at_once() {
    let when = |spread| held(&["a"], "ca").renewed_at(None, None, spread);
    assert_eq!(when(0), day(1_060));
    assert_eq!(when(u64::MAX), day(1_057));
    let before = |spread| held(&["a"], "ca").renewed_at(Some(DAY * 10), None, spread);
    assert_eq!((before(0), before(u64::MAX)), (day(1_080), day(1_079)));
    // longer than it lives: at once, and not before it was
    let always = held(&["a"], "ca").renewed_at(Some(DAY * 1_000), None, 0);
    assert_eq!(always, day(1_000));
}

#[test]
fn other_names_or_another_ca_are_ordered_at_once_while_the_old_one_stays() {
    for other in [wanted(&["a", "b"], "ca"), wanted(&["a"], "other")] {
        let mut planner = planner(&[("a", wanted(&["a"], "ca"))]);
        planner.hold("a", held(&["a"], "ca"), None);
        planner.advised("a", None, day(1_001), 0);
        assert_eq!(planner.next(day(1_001)), None);
        planner.failed("a", &failure(FailureKind::Challenge), day(1_001), 0);
        follow(&mut planner, &[("a", other)]);
        assert_eq!(planner.next(day(1_001)), order("a"));
        assert_eq!(planner.due("a").unwrap().1, Why::Changed);
        assert!(planner.held("a").is_some());
        follow(&mut planner, &[]);
        assert_eq!((planner.next(day(1_001)), planner.due("a")), (None, None));
    }
}

#[test]
fn a_name_that_fails_is_tried_ever_more_rarely_and_holds_up_no_other() {
    let mut planner = planner(&[("a", wanted(&["a"], "ca")), ("b", wanted(&["b"], "ca"))]);
    let mut now = at(0);
    let mut rests = Vec::new();
    for _ in 0..10 {
        planner.failed("a", &failure(FailureKind::Challenge), now, 0);
        assert_eq!(planner.next(now), order("b"), "it is not in its way");
        let (due, _) = planner.due("a").unwrap();
        rests.push(due.duration_since(now).unwrap().as_secs());
        now = due;
    }
    assert_eq!(
        rests,
        [
            300, 600, 1_200, 2_400, 4_800, 9_600, 19_200, 38_400, 43_200, 43_200
        ]
    );
    planner.hold("b", held(&["b"], "ca"), None);
    planner.hold("a", held(&["a"], "ca"), None);
    planner.failed("a", &failure(FailureKind::Challenge), now, u64::MAX);
    assert_eq!(
        planner.due("a").unwrap().0,
        day(1_060).max(now + Duration::from_secs(330))
    );
}

#[test]
fn a_ca_that_cannot_be_asked_or_wants_to_be_left_alone_is_not_asked_for_others_either() {
    let mut planner = planner(&[("a", wanted(&["a"], "ca")), ("b", wanted(&["b"], "ca"))]);
    planner.failed("a", &failure(FailureKind::Unreachable), at(0), 0);
    assert_eq!((planner.next(at(29)), planner.next(at(30))), (None, order("b")));
    let limited = failure(FailureKind::RateLimited).after(Some(DAY));
    planner.failed("b", &limited, at(30), 0);
    assert_eq!(planner.next(at(3_600)), None);
    assert!(planner.next(at(30) + DAY).is_some());
    // who asks gets one try
    assert!(planner.ask("a") && !planner.ask("c"));
    assert_eq!(planner.next(at(40)), order("a"));
    planner.failed("a", &failure(FailureKind::Unreachable), at(40), 0);
    assert_eq!(planner.next(at(41)), None);
    planner.start_over();
    assert!(planner.next(at(41)).is_some(), "it is asked otherwise");
    planner.failed("a", &failure(FailureKind::Unreachable), at(41), 0);
    // another CA knows nothing of that
    follow(
        &mut planner,
        &[("a", wanted(&["a"], "other")), ("b", wanted(&["b"], "other"))],
    );
    assert!(planner.next(at(42)).is_some());
}

#[test]
fn a_ca_that_gives_advice_is_asked_for_it_and_told_what_is_replaced() {
    let mut planner = planner(&[("a", wanted(&["a"], "ca"))]);
    planner.hold("a", held(&["a"], "ca"), None);
    let id = held(&["a"], "ca").id.unwrap();
    assert_eq!(
        planner.next(day(1_001)),
        Some(Step::Advice("a".into(), id.clone()))
    );
    let advice = |start, end| Advice {
        start,
        end,
        believed: DAY,
        page: None,
    };
    planner.advised(
        "a",
        Some(&advice(day(1_020), day(1_022))),
        day(1_001),
        u64::MAX / 2,
    );
    assert_eq!(planner.next(day(1_002) - Duration::from_secs(1)), None);
    assert!(matches!(planner.next(day(1_002)), Some(Step::Advice(..))));
    let (drawn, _) = planner.due("a").unwrap();
    assert!(drawn > day(1_020) && drawn < day(1_022));
    planner.advised("a", Some(&advice(day(1_019), day(1_023))), day(1_002), 0);
    assert_eq!(planner.due("a").unwrap().0, drawn, "drawn once");
    // it has to be taken back
    planner.advised("a", Some(&advice(day(1_001), day(1_002))), day(1_003), 0);
    assert_eq!(planner.next(day(1_003)), Some(Step::Order("a".into(), Some(id))));
    planner.hold("a", held(&["a"], "ca"), Some(day(1_003)));
    // advice that stays wrong does not have it renewed again and again
    planner.advised("a", Some(&advice(day(1_001), day(1_002))), day(1_003), 0);
    assert_eq!(planner.next(day(1_003)), None);
    assert_eq!(planner.due("a").unwrap().0, day(1_003) + YOUNGEST);
    planner.not_advised("a", &failure(FailureKind::Unreachable), day(1_003));
    assert_eq!(planner.next(day(1_003)), None);
    assert!(planner.next(day(1_003) + ADVICE_RETRY).is_some());
}

#[test]
fn an_order_that_was_given_up_is_no_failure() {
    let mut planner = planner(&[("a", wanted(&["a"], "ca"))]);
    planner.failed("a", &failure(FailureKind::GivenUp), at(0), 0);
    assert_eq!(planner.next(at(0)), order("a"));
}
