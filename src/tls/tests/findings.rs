//! What `convey check` and the log say of certificates that can be served.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{BasicConstraints, IsCa, date_time_ymd};

use super::lab::*;
use crate::{base::HostPattern, tls::*};

const DAY: u64 = 24 * 3600;

/// 2030-01-01.
fn end() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_893_456_000)
}

fn ending(ca: &Ca) -> Files {
    let mut params = params(&["a.test"]);
    params.not_before = date_time_ymd(2025, 1, 1);
    params.not_after = date_time_ymd(2030, 1, 1);
    ca.sign(Key::P256, &params)
}

fn texts(pair: &Pair, now: SystemTime) -> Vec<String> {
    CertificateFinding::all(pair, now)
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn the_end_of_a_certificate_is_warned_of_for_three_weeks() {
    let pair = ending(&Ca::new("ca")).pair();
    let before = |days: u64| texts(&pair, end() - Duration::from_secs(days * DAY));
    assert!(before(22).is_empty());
    assert_eq!(
        before(21),
        ["it expires on 2030-01-01 00:00 UTC, in 21 days: renew it"]
    );
    assert_eq!(
        before(0),
        ["it expires on 2030-01-01 00:00 UTC, in 0 days: renew it"]
    );
    let after = texts(&pair, end() + Duration::from_secs(1));
    assert_eq!(after, ["it expired on 2030-01-01 00:00 UTC: it is refused"]);
}

#[test]
fn a_certificate_that_is_not_yet_valid_is_found() {
    let pair = ending(&Ca::new("ca")).pair();
    let early = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    assert_eq!(
        texts(&pair, early),
        ["it is valid from 2025-01-01 00:00 UTC: until then it is refused"]
    );
}

#[test]
fn a_chain_that_ends_before_the_certificate_is_found() {
    let ca = Ca::new("ca");
    let mut short = params(&["short"]);
    short.not_after = date_time_ymd(2028, 1, 1);
    short.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let mut files = ending(&ca);
    files.certificate += &ca.sign(Key::P256, &short).certificate;
    let found = texts(&files.pair(), UNIX_EPOCH + Duration::from_secs(1_830_000_000));
    let expected = "CN=short of its chain expires on 2028-01-01 00:00 UTC: get a new chain";
    assert!(found.iter().any(|text| text == expected), "{found:?}");
    assert!(
        found
            .iter()
            .any(|text| text.starts_with("the chain is in the wrong order")),
        "{found:?}"
    );
}

#[test]
fn a_certificate_that_clients_refuse_for_what_it_is_is_found() {
    let ca = Ca::new("ca");
    let mut odd = params(&["a.test"]);
    odd.subject_alt_names.clear();
    odd.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let found = CertificateFinding::all(&ca.sign(Key::P256, &odd).pair(), end());
    assert_eq!(found, [CertificateFinding::NoNames, CertificateFinding::IsCa]);
}

#[test]
fn names_of_routes_that_no_certificate_covers_are_found() {
    let ca = Ca::new("ca");
    let one = ca
        .issue(Key::P256, &["www.a.test", "*.b.test", "*.internal"])
        .pair();
    let set = store(&[&one]).current();
    let wanted = |names: &[&str]| -> Vec<String> {
        let patterns: Vec<HostPattern> = names.iter().map(|name| name.parse().unwrap()).collect();
        uncovered(&set, &patterns)
            .into_iter()
            .map(ToString::to_string)
            .collect()
    };
    let covered = [
        "www.a.test",
        "x.b.test",
        "*.a.test",
        "*.b.test",
        "*.test",
        "www.*",
        r"~^w+\.a\.test$",
    ];
    assert_eq!(wanted(&covered), Vec::<String>::new());
    let not = [
        "web.internal",
        "a.test",
        "b.test",
        "x.y.b.test",
        "c.test",
        "*.c.test",
        "mail.*",
        r"~^db\d",
    ];
    assert_eq!(wanted(&not), not);
}
