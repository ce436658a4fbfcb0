use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::*;

fn key(number: u16) -> SessionKey {
    SessionKey {
        client: ([192, 0, 2, 1], number).into(),
        local: ([198, 51, 100, 1], 53).into(),
        interface: None,
    }
}

const fn limits(idle: Millis, max_requests: u32, max_responses: u32) -> SessionLimits {
    SessionLimits {
        idle,
        lifetime: None,
        max_requests: NonZeroU32::new(max_requests),
        max_responses: NonZeroU32::new(max_responses),
    }
}

/// Ends what is over by then; which.
fn expire(sessions: &mut Sessions, now: Millis) -> Vec<SessionId> {
    let mut over = Vec::new();
    while sessions.expired(now, 7, &mut over) {}
    for id in &over {
        sessions.end(*id).expect("it lives");
    }
    over
}

#[test]
fn a_session_ends_when_neither_side_has_sent_for_its_idle_time() {
    let mut sessions = Sessions::default();
    let id = sessions.open(key(1), limits(60_000, 0, 0), 1_000);
    assert!(expire(&mut sessions, 60_999).is_empty());
    assert!(sessions.request(&key(1), 1, 60_999).is_some());
    assert!(expire(&mut sessions, 120_000).is_empty(), "the client has sent");
    assert!(sessions.response(id, 1, 120_000).is_some());
    assert!(
        expire(&mut sessions, 179_999).is_empty(),
        "the server has answered"
    );
    assert_eq!(expire(&mut sessions, 181_000), [id]);
    assert_eq!((sessions.len(), sessions.next_look()), (0, None));
}

#[test]
fn a_session_ends_with_its_lifetime_whatever_comes() {
    let mut sessions = Sessions::default();
    let limits = SessionLimits {
        lifetime: Some(600_000),
        ..limits(60_000, 0, 0)
    };
    let busy = sessions.open(key(1), limits, 1_000);
    let idle = sessions.open(key(2), limits, 1_000);
    let mut ended = Vec::new();
    for now in (1_000..700_000).step_by(500) {
        sessions.request(&key(1), 1, now);
        let mut over = Vec::new();
        while sessions.expired(now, 7, &mut over) {}
        for id in over {
            ended.push((id, sessions.has_lived(id, now), now));
            sessions.end(id).expect("it lives");
        }
    }
    let [(first, has_lived, at), (second, has_died, then)] = ended[..] else {
        panic!("{ended:?}");
    };
    assert_eq!((first, has_lived, second, has_died), (idle, false, busy, true));
    // a tick and a step later at most
    assert!(
        (61_000..=62_000).contains(&at) && (601_000..=602_000).contains(&then),
        "{at} {then}"
    );
}

#[test]
fn after_its_requests_a_session_leaves_its_key_to_another_and_waits_for_answers() {
    let mut sessions = Sessions::default();
    let first = sessions.open(key(1), limits(1_000, 3, 2), 0);
    let taken = |session, taken, is_last| {
        Some(Request {
            session,
            taken,
            is_last,
        })
    };
    assert_eq!(sessions.request(&key(1), 2, 0), taken(first, 2, false));
    assert_eq!(sessions.request(&key(1), 5, 0), taken(first, 1, true));
    assert_eq!(sessions.request(&key(1), 4, 0), None);
    let second = sessions.open(key(1), limits(1_000, 3, 2), 0);
    assert_ne!(first, second);
    assert_eq!(
        sessions.response(first, 5, 0),
        Some(Response {
            taken: 2,
            is_last: true
        })
    );
    assert_eq!(
        sessions.end(first),
        Some(Ended {
            key: key(1),
            had_key: false
        })
    );
    assert_eq!(sessions.request(&key(1), 1, 0), taken(second, 1, false));
}

#[test]
fn what_was_told_of_one_session_never_ends_another() {
    let mut sessions = Sessions::default();
    let mut seen = HashSet::new();
    for _ in 0..100 {
        let id = sessions.open(key(1), limits(1_000, 0, 0), 0);
        assert!(seen.insert(id.to_number()), "{id:?} was there before");
        assert_eq!(SessionId::from_number(id.to_number()), id);
        assert!(sessions.end(id).is_some());
        assert_eq!(sessions.end(id), None);
        assert_eq!(sessions.response(id, 1, 0), None);
    }
}

#[test]
fn memory_of_a_flood_is_given_back() {
    let mut sessions = Sessions::default();
    for number in 0..50_000 {
        sessions.open(key(number), limits(60_000, 0, 0), 0);
    }
    assert_eq!(expire(&mut sessions, 61_000).len(), 50_000);
    assert_eq!((sessions.entries.capacity(), sessions.by_key.capacity()), (0, 0));
}

#[test]
fn looking_for_the_end_is_bounded_a_turn() {
    let mut sessions = Sessions::default();
    for number in 0..1_000 {
        sessions.open(key(number), limits(1_000, 0, 0), 0);
    }
    let mut over = Vec::new();
    assert!(sessions.expired(10_000, 100, &mut over));
    assert_eq!(over.len(), 100);
}

#[derive(Debug, Clone)]
enum Step {
    Client(u16, u32),
    Server(usize, u32),
    End(usize),
    Wait(Millis),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..20_u16, 1..6_u32).prop_map(|(client, datagrams)| Step::Client(client, datagrams)),
        3 => (any::<usize>(), 1..6_u32).prop_map(|(session, datagrams)| Step::Server(session, datagrams)),
        1 => any::<usize>().prop_map(Step::End),
        2 => prop_oneof![0..500_u64, 0..20_000_u64, 0..2_000_000_u64].prop_map(Step::Wait),
    ]
}

/// A session as it should be.
#[derive(Debug)]
struct Expected {
    key: SessionKey,
    requests: u32,
    responses: u32,
    last: Millis,
}

proptest! {
    #[test]
    fn every_schedule_gives_each_datagram_to_the_session_of_its_client_and_ends_each_session_once(
        steps in prop::collection::vec(step(), 1..200),
        idle in prop_oneof![1..2_000_u64, 1..1_000_000_u64],
        max_requests in 0..5_u32,
        max_responses in 0..5_u32,
    ) {
        let limits = limits(idle, max_requests, max_responses);
        let mut sessions = Sessions::default();
        let mut expected: HashMap<SessionId, Expected> = HashMap::new();
        let mut ended = HashSet::new();
        let mut now = 0;
        for step in steps {
            match step {
                Step::Client(client, mut left) => while left > 0 {
                    match sessions.request(&key(client), left, now) {
                        Some(request) => {
                            let session = expected.get_mut(&request.session).unwrap();
                            prop_assert_eq!(session.key, key(client));
                            session.requests += request.taken;
                            session.last = now;
                            prop_assert!(request.taken > 0 && request.taken <= left);
                            prop_assert_eq!(request.is_last, session.requests == max_requests && max_requests > 0);
                            left -= request.taken;
                        }
                        None => {
                            let free = expected.values().all(|session| {
                                session.key != key(client) || (max_requests > 0 && session.requests == max_requests)
                            });
                            prop_assert!(free, "the client has a session");
                            let id = sessions.open(key(client), limits, now);
                            prop_assert!(!ended.contains(&id) && !expected.contains_key(&id));
                            let new = Expected { key: key(client), requests: 0, responses: 0, last: now };
                            expected.insert(id, new);
                        }
                    }
                },
                Step::Server(which, datagrams) => {
                    let Some(id) = nth(&expected, which) else { continue };
                    let response = sessions.response(id, datagrams, now).unwrap();
                    let session = expected.get_mut(&id).unwrap();
                    session.responses += response.taken;
                    session.last = now;
                    prop_assert_eq!(response.is_last, max_responses > 0 && session.responses == max_responses);
                    prop_assert!(max_responses == 0 || session.responses <= max_responses);
                    if response.is_last {
                        prop_assert!(sessions.end(id).is_some());
                        expected.remove(&id);
                        ended.insert(id);
                    }
                }
                Step::End(which) => {
                    let Some(id) = nth(&expected, which) else { continue };
                    prop_assert!(sessions.end(id).is_some());
                    expected.remove(&id);
                    ended.insert(id);
                }
                Step::Wait(time) => {
                    now += time;
                    for id in expire(&mut sessions, now) {
                        let session = expected.remove(&id).unwrap();
                        prop_assert!(now - session.last >= idle, "it was not idle");
                        ended.insert(id);
                    }
                    // a tick late at most
                    prop_assert!(expected.values().all(|session| now - session.last < idle + 2 * 256));
                }
            }
            prop_assert_eq!(sessions.len(), expected.len());
            prop_assert_eq!(sessions.next_look().is_some(), !expected.is_empty());
        }
        expire(&mut sessions, now + idle + 2 * 256);
        prop_assert_eq!(sessions.len(), 0);
    }
}

fn nth(expected: &HashMap<SessionId, Expected>, which: usize) -> Option<SessionId> {
    let mut all: Vec<_> = expected.keys().copied().collect();
    all.sort();
    let index = which.checked_rem(all.len())?;
    Some(all[index])
}
