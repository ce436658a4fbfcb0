//! Keys that rotate, files of keys, and tickets themselves.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64ct::{Base64, Encoding};

use super::*;
use crate::tls::settings::ServerSettings;

const START: u64 = 1_800_000_000;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(START + seconds)
}

fn key(seed: u8) -> [u8; KEY_BYTES] {
    std::array::from_fn(|index| seed.wrapping_add(u8::try_from(index).unwrap()))
}

fn tickets(ring: &Arc<TicketKeyRing>, frontend: &str) -> Tickets {
    let context = Context::new(&ServerSettings::new(frontend));
    Tickets::new(Arc::clone(ring), context, || at(0))
}

#[test]
fn a_ticket_gives_back_what_was_put_in_and_shows_nothing_of_it() {
    let tickets = tickets(&TicketKeyRing::new(&TicketKeys::new(at(0), key(1))), "web");
    let session = b"a secret of the session".repeat(20);
    let (one, other) = (tickets.seal(&session).unwrap(), tickets.seal(&session).unwrap());
    assert_ne!(one, other, "each has a nonce of its own");
    assert!(!one.windows(8).any(|window| session.starts_with(window)));
    assert_eq!(tickets.open(&one), Some(session.clone()));
    assert_eq!(tickets.open(&other), Some(session));
    let empty = tickets.seal(b"").unwrap();
    assert_eq!(tickets.open(&empty), Some(Vec::new()));
}

#[test]
fn a_ticket_with_any_byte_changed_or_missing_is_refused() {
    let tickets = tickets(&TicketKeyRing::new(&TicketKeys::new(at(0), key(1))), "web");
    let ticket = tickets.seal(b"session").unwrap();
    for place in 0..ticket.len() {
        let mut changed = ticket.clone();
        changed[place] ^= 1;
        assert_eq!(tickets.open(&changed), None, "byte {place}");
        assert_eq!(tickets.open(&ticket[..place]), None, "the first {place} bytes");
    }
}

#[test]
fn a_ticket_is_bound_to_its_frontend_and_its_key() {
    let ring = TicketKeyRing::new(&TicketKeys::new(at(0), key(1)));
    let ticket = tickets(&ring, "web").seal(b"session").unwrap();
    assert_eq!(tickets(&ring, "wec").open(&ticket), None);
    // the same name, another secret
    let mut random = key(1);
    random[KEY_BYTES - 1] ^= 1;
    let forged = TicketKeyRing::new(&TicketKeys::new(at(0), random));
    assert_eq!(tickets(&forged, "web").open(&ticket), None);
}

#[test]
fn a_key_encrypts_for_six_hours_and_decrypts_as_long_as_its_tickets_last() {
    let hours = |count: u64| at(count * 3600);
    let mut keys = TicketKeys::new(hours(0), key(0));
    let first = tickets(&TicketKeyRing::new(&keys), "web")
        .seal(b"session")
        .unwrap();
    assert_eq!(keys.next_rotation(), Some(hours(6)));
    assert_eq!(keys.rotated(at(6 * 3600 - 1), key(1)), None);
    let reads_first = |keys: &TicketKeys| tickets(&TicketKeyRing::new(keys), "web").open(&first).is_some();
    for (hour, seed, is_read) in [(6, 1, true), (12, 2, true), (18, 3, false), (24, 4, false)] {
        keys = keys.rotated(hours(hour), key(seed)).unwrap();
        assert_eq!(keys.next_rotation(), Some(hours(hour + 6)));
        assert_eq!(reads_first(&keys), is_read, "after {hour} hours");
        assert!(keys.count() <= 3, "{} keys", keys.count());
    }
}

#[test]
fn a_clock_that_is_set_back_does_not_prolong_a_key() {
    let keys = TicketKeys::new(at(100 * 3600), key(0));
    assert!(keys.rotated(at(0), key(1)).is_some());
    let near = TicketKeys::new(at(60), key(0));
    assert!(near.rotated(at(0), key(1)).is_none(), "a minute is no reason");
}

#[test]
fn keys_come_back_from_the_state_directory_as_they_were() {
    let keys = TicketKeys::new(at(0), key(0))
        .rotated(at(6 * 3600), key(1))
        .unwrap();
    let saved = keys.to_state();
    assert_eq!(
        TicketKeys::from_state(&saved, at(6 * 3600)),
        Ok(Some(keys.clone()))
    );
    let later = TicketKeys::from_state(&saved, at(20 * 3600)).unwrap().unwrap();
    assert_eq!(later.count(), 1, "the tickets of the older one have expired");
    assert_eq!(TicketKeys::from_state(&saved, at(48 * 3600)), Ok(None));
    assert!(
        !format!("{keys:?}").contains(&Base64::encode_string(&key(1))),
        "no secret in logs"
    );
}

#[test]
fn what_is_no_state_is_refused() {
    let good = TicketKeys::new(at(0), key(0)).to_state();
    let text = String::from_utf8(good).unwrap();
    for bad in [
        "",
        "hello",
        "convey ticket keys 2\n",
        &text.replace(' ', ""),
        &(text.clone() + "1 AAAA\n"),
        &text.replace(&START.to_string(), "-1"),
        &text.replace(&START.to_string(), "99999999999999999999"),
    ] {
        let read = TicketKeys::from_state(bad.as_bytes(), at(0));
        assert!(
            matches!(read, Err(TicketKeyError::NotState) | Ok(None)),
            "{bad}: {read:?}"
        );
    }
    assert_eq!(
        TicketKeys::from_state(b"\xff", at(0)),
        Err(TicketKeyError::NotState)
    );
}

fn shared(lines: &[&[u8]]) -> String {
    lines
        .iter()
        .map(|bytes| Base64::encode_string(bytes) + "\n")
        .collect()
}

#[test]
fn a_shared_file_is_that_of_haproxy_with_either_length() {
    let long: Vec<u8> = (0..80).collect();
    let text = format!("# of both\n\n{}", shared(&[&long, &key(1), &key(2)]));
    let keys = TicketKeys::from_shared(text.as_bytes()).unwrap();
    assert_eq!(keys.count(), 3);
    assert_eq!(keys.next_rotation(), None, "it changes with the file");
    assert_eq!(keys.rotated(at(1_000_000), key(9)), None);
    assert_eq!(
        keys.current().unwrap()[..],
        key(1)[..16],
        "the last but one encrypts"
    );
    let windows = text.replace('\n', "\r\n");
    assert_eq!(TicketKeys::from_shared(windows.as_bytes()), Ok(keys));
}

#[test]
fn a_new_key_gets_to_every_load_balancer_before_one_of_them_encrypts_with_it() {
    let with = |seeds: &[u8]| {
        let keys: Vec<_> = seeds.iter().map(|seed| key(*seed)).collect();
        let lines: Vec<&[u8]> = keys.iter().map(|key| &key[..]).collect();
        let keys = TicketKeys::from_shared(shared(&lines).as_bytes()).unwrap();
        tickets(&TicketKeyRing::new(&keys), "web")
    };
    // one of them has the new file, the other has not: each reads what the other writes
    for (before, after) in [
        (&[1, 2, 3][..], &[2, 3, 4][..]),
        (&[1, 2], &[1, 2, 3]),
        (&[1], &[1, 2]),
    ] {
        let (before, after) = (with(before), with(after));
        assert!(after.open(&before.seal(b"session").unwrap()).is_some());
        assert!(before.open(&after.seal(b"session").unwrap()).is_some());
    }
}

#[test]
fn a_shared_file_of_nginx_is_one_key_in_binary() {
    for bytes in [&key(1)[..], &[200; 80]] {
        assert_eq!(TicketKeys::from_shared(bytes).unwrap().count(), 1);
    }
    let text = format!("# of frontends\n{}", shared(&[&key(1)]));
    assert_eq!(text.len(), 80, "as long as a key in binary");
    let keys = TicketKeys::from_shared(text.as_bytes()).unwrap();
    assert_eq!(keys.current().unwrap()[..], key(1)[..16]);
}

#[test]
fn a_line_that_is_no_key_is_refused_with_its_number() {
    let why = |text: &str| TicketKeys::from_shared(text.as_bytes()).unwrap_err();
    assert_eq!(why(""), TicketKeyError::Empty);
    assert_eq!(why("# nothing\n\n"), TicketKeyError::Empty);
    let good = shared(&[&key(1)]);
    assert_eq!(why(&(good.clone() + "hello\n")), TicketKeyError::Line { line: 2 });
    assert_eq!(
        why(&(good.clone() + &shared(&[&[1; 32]]))),
        TicketKeyError::Line { line: 2 }
    );
    assert_eq!(
        why(&(good.clone() + "\n" + &good)),
        TicketKeyError::Twice { line: 3 }
    );
}
