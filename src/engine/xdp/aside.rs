//! What the slow path keeps of passthrough flows beside the program's maps: permits of frontends with limits, and how many ICMP
//! errors are still passed on.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{
    access::Permit,
    flow::{
        Moment,
        stored::{ErrorAllowance, Key},
    },
};

/// Flows whose ICMP errors are counted in a second; errors about others are not passed on until the next one.
const COUNTED: usize = 4_096;

/// See the [module](self). Its locks are leaves: nothing is locked under them.
#[derive(Debug)]
pub struct Aside {
    permits: Mutex<Permits>,
    errors: Mutex<Errors>,
}

#[derive(Debug)]
struct Permits {
    of: HashMap<Key, Held>,
    /// Flows that have one, at most.
    most: usize,
    /// Scans of the flows that have begun.
    scans: u64,
}

/// A flow counts for its client as long as this is kept.
#[derive(Debug)]
struct Held {
    /// Which flow of its key.
    begun: u64,
    /// The last scan that has found the flow, or during which it was counted.
    found: u64,
    _permit: Permit,
}

#[derive(Debug, Default)]
struct Errors {
    second: u64,
    of: HashMap<Key, ErrorAllowance>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // nothing is left half changed by a panic
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Aside {
    /// Of so many flows at most.
    #[must_use]
    pub fn new(max_flows: u32) -> Self {
        Self {
            permits: Mutex::new(Permits {
                of: HashMap::new(),
                most: usize::try_from(max_flows).unwrap_or(usize::MAX),
                scans: 0,
            }),
            errors: Mutex::default(),
        }
    }

    /// Keeps the permit of a flow. Whether there is a place for it.
    pub fn keep(&self, key: Key, begun: u64, permit: Permit) -> bool {
        let mut permits = lock(&self.permits);
        if permits.of.len() >= permits.most && !permits.of.contains_key(&key) {
            return false;
        }
        let held = Held {
            begun,
            found: permits.scans,
            _permit: permit,
        };
        // that of a flow before is given back
        drop(permits.of.insert(key, held));
        true
    }

    /// Whether a flow has a permit.
    #[must_use]
    pub fn has(&self, key: &Key) -> bool {
        lock(&self.permits).of.contains_key(key)
    }

    /// A flow does not count any more.
    pub fn give_back(&self, key: &Key) {
        let given_back = lock(&self.permits).of.remove(key);
        drop(given_back);
    }

    /// A scan of all flows begins.
    pub fn scan_begins(&self) {
        lock(&self.permits).scans += 1;
    }

    /// A scan has found a flow that may have a permit.
    pub fn found(&self, key: &Key, begun: u64) {
        let mut permits = lock(&self.permits);
        let scans = permits.scans;
        if let Some(held) = permits.of.get_mut(key).filter(|held| held.begun == begun) {
            held.found = scans;
        }
    }

    /// A scan has ended: gives back the permits of flows that it has not found.
    pub fn scan_ended(&self) {
        let mut permits = lock(&self.permits);
        let scans = permits.scans;
        permits.of.retain(|_, held| held.found >= scans);
        if permits.of.capacity() > permits.of.len().saturating_mul(8) {
            permits.of.shrink_to_fit();
        }
    }

    /// Whether one more ICMP error about a flow is passed on.
    #[must_use]
    pub fn allows_error(&self, key: &Key, now: Moment) -> bool {
        let mut errors = lock(&self.errors);
        let second = now.0 / 1_000;
        if errors.second != second {
            *errors = Errors {
                second,
                of: HashMap::new(),
            };
        }
        if errors.of.len() >= COUNTED && !errors.of.contains_key(key) {
            return false;
        }
        errors.of.entry(*key).or_default().allows(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        access::{FrontendAccess, Limits, PerClient},
        base::Protocol,
    };

    fn key(port: u16) -> Key {
        let from = std::net::SocketAddr::from(([203, 0, 113, 5], port));
        Key::new(Protocol::Tcp, from, ([198, 51, 100, 1], 80).into())
    }

    /// A frontend where a client may have two connections.
    fn access() -> std::sync::Arc<FrontendAccess> {
        let per_client = PerClient {
            connections: std::num::NonZeroU32::new(2),
            ..PerClient::default()
        };
        let limits = Limits {
            per_client: Some(per_client),
            ..Limits::default()
        };
        FrontendAccess::new(None, limits, |_| None, None).unwrap()
    }

    #[test]
    fn a_flow_counts_until_it_ends_or_a_scan_misses_it() {
        let (access, aside) = (access(), Aside::new(8));
        let client = "203.0.113.5".parse().unwrap();
        let count = || access.count(client, 0).map(Option::unwrap);
        assert!(aside.keep(key(1), 7, count().unwrap()));
        aside.scan_begins();
        assert!(
            aside.keep(key(2), 8, count().unwrap()),
            "while a scan is under way"
        );
        assert!(count().is_err());
        aside.found(&key(1), 7);
        aside.scan_ended();
        assert!(aside.has(&key(1)) && aside.has(&key(2)));

        aside.give_back(&key(1));
        drop(count().unwrap());
        aside.scan_begins();
        aside.found(&key(2), 9);
        aside.scan_ended();
        assert!(!aside.has(&key(2)), "another flow of its key was found");
        let both = (count().unwrap(), count().unwrap());
        drop(both);
    }

    #[test]
    fn there_are_no_more_permits_than_flows() {
        let (access, aside) = (access(), Aside::new(1));
        let permit = || access.count("203.0.113.5".parse().unwrap(), 0).unwrap().unwrap();
        assert!(aside.keep(key(1), 1, permit()));
        assert!(!aside.keep(key(2), 1, permit()));
        assert!(aside.keep(key(1), 2, permit()), "another flow of the same key");
    }

    #[test]
    fn eight_errors_a_second_about_a_flow_are_passed_on_and_those_about_many_flows_to_a_limit() {
        let aside = Aside::new(1);
        let allowed = |key: &Key, now| (0..20).filter(|_| aside.allows_error(key, now)).count();
        assert_eq!(allowed(&key(1), Moment(500)), 8);
        assert_eq!(allowed(&key(2), Moment(500)), 8);
        assert_eq!(allowed(&key(1), Moment(1_000)), 8);
        let passed = (1..=u16::MAX).filter(|port| aside.allows_error(&key(*port), Moment(2_000)));
        assert_eq!(passed.count(), COUNTED);
    }
}
