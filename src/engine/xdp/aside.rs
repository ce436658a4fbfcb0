//! What is kept of passthrough flows beside the program's maps: permits of frontends with limits, and how many ICMP errors are
//! still passed on.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{
    access::Permit,
    base::AccessReason,
    flow::{
        Moment,
        stored::{ErrorAllowance, Key},
    },
};

/// Flows whose ICMP errors are counted in a second; errors about others are not passed on until the next one.
const COUNTED: usize = 4_096;

/// See the [module](self). Nothing is locked under its locks but what clients have.
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

    /// Has a flow count for its client, unless it does: by the permit that `take` gives, if it does.
    ///
    /// # Errors
    /// Its client is at a limit, or there is no place for the permit.
    pub fn count(
        &self,
        key: Key,
        begun: u64,
        take: impl FnOnce() -> Result<Option<Permit>, AccessReason>,
    ) -> Result<(), AccessReason> {
        let mut permits = lock(&self.permits);
        if permits.of.get(&key).is_some_and(|held| held.begun == begun) {
            return Ok(());
        }
        // that of a flow before is given back
        drop(permits.of.remove(&key));
        let Some(permit) = take()? else {
            return Ok(());
        };
        if permits.of.len() >= permits.most {
            return Err(AccessReason::ClientConnections);
        }
        let held = Held {
            begun,
            found: permits.scans,
            _permit: permit,
        };
        permits.of.insert(key, held);
        Ok(())
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

    /// A scan has found a flow that may have a permit. Whether it has one.
    pub fn found(&self, key: &Key, begun: u64) -> bool {
        let mut permits = lock(&self.permits);
        let scans = permits.scans;
        let held = permits.of.get_mut(key).filter(|held| held.begun == begun);
        let has_one = held.is_some();
        if let Some(held) = held {
            held.found = scans;
        }
        has_one
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
        let count = |port, begun| aside.count(key(port), begun, || access.count(client, 0));
        count(1, 7).unwrap();
        aside.scan_begins();
        count(2, 8).unwrap();
        let at_limit = Err(AccessReason::ClientConnections);
        assert_eq!(count(3, 9), at_limit);
        assert!(aside.found(&key(1), 7));
        aside.scan_ended();
        assert!(
            aside.has(&key(1)) && aside.has(&key(2)),
            "2 came while a scan was under way"
        );

        aside.give_back(&key(1));
        aside.scan_begins();
        assert!(!aside.found(&key(2), 9), "another flow of its key");
        aside.scan_ended();
        assert!(!aside.has(&key(2)));
        count(4, 1).unwrap();
        count(5, 1).unwrap();
        assert_eq!(count(6, 1), at_limit);
    }

    #[test]
    fn a_flow_counts_once_whoever_counts_it() {
        let (access, aside) = (access(), Aside::new(8));
        let client = "203.0.113.5".parse().unwrap();
        let count = |port, begun| aside.count(key(port), begun, || access.count(client, 0));
        count(1, 7).unwrap();
        count(2, 7).unwrap();
        count(1, 7).unwrap();
        count(1, 8).unwrap();
        assert!(!aside.found(&key(1), 7), "a later one has its place");
        assert_eq!(count(3, 7), Err(AccessReason::ClientConnections));
    }

    #[test]
    fn there_are_no_more_permits_than_flows() {
        let (access, aside) = (access(), Aside::new(1));
        let client = "203.0.113.5".parse().unwrap();
        let count = |port, begun| aside.count(key(port), begun, || access.count(client, 0));
        count(1, 1).unwrap();
        assert_eq!(count(2, 1), Err(AccessReason::ClientConnections));
        count(1, 2).unwrap();
        assert!(aside.found(&key(1), 2), "another flow of the same key");
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
