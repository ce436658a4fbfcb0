//! What stands before a frontend: its rules, then the limits of each client network, then its own.

use std::{
    net::IpAddr,
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    bucket::Bucket,
    clients::{CAPACITY, Clients, Counted, PerClient},
    networks::Networks,
    rules::{Action, Rule, Rules},
};
use crate::base::{AccessReason, NetworkListName};

/// `[frontends.NAME.access]` as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessRules {
    /// `default`: what is done with a client that no rule names.
    pub default: Action,
    /// `rules`, of which the first that names a client decides.
    pub rules: Vec<Rule>,
}

/// `[frontends.NAME.limits]` as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// `new_per_second` connections of all clients.
    pub new_per_second: Option<NonZeroU32>,
    /// `per_client`.
    pub per_client: Option<PerClient>,
}

/// Decides who may open a connection to a frontend. Shared by all threads; a reload makes another one, which goes on with
/// what clients have.
#[derive(Debug)]
pub struct FrontendAccess {
    rules: Option<Rules>,
    limits: Limits,
    state: Arc<State>,
}

/// What clients have; outlives a reload.
#[derive(Debug)]
struct State {
    /// Of the frontend's `new_per_second`.
    bucket: Mutex<Bucket>,
    clients: Option<(Prefixes, Clients)>,
}

/// `prefix4` and `prefix6`: entries of other networks than before are of no use.
type Prefixes = (u8, u8);

/// A connection that was let in, counted until it is dropped.
#[derive(Debug)]
pub struct Permit {
    counted: Option<(Counted, Arc<State>)>,
}

impl FrontendAccess {
    /// What a frontend's rules and limits say, with the lists that `list` knows; `None` if they let everybody in. What
    /// clients have is taken over from `before`.
    #[must_use]
    pub fn new(
        rules: Option<&AccessRules>,
        limits: Limits,
        list: impl Fn(&NetworkListName) -> Option<Arc<Networks>>,
        before: Option<&Self>,
    ) -> Option<Arc<Self>> {
        if rules.is_none() && limits == Limits::default() {
            return None;
        }
        let prefixes = limits.per_client.map(|limit| (limit.prefix4, limit.prefix6));
        let same = before.filter(|before| before.state.prefixes() == prefixes);
        let state = match same {
            Some(before) => Arc::clone(&before.state),
            None => Arc::new(State {
                bucket: Mutex::default(),
                clients: prefixes.map(|prefixes| (prefixes, Clients::new(CAPACITY))),
            }),
        };
        Some(Arc::new(Self {
            rules: rules.map(|access| Rules::new(access.default, &access.rules, list)),
            limits,
            state,
        }))
    }

    /// Lets a new connection of a client in, or says why not. `now` is in milliseconds of a clock that never goes back; all
    /// callers use the same one.
    ///
    /// A connection that is refused counts for no limit.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn admit(&self, client: IpAddr, now: u64) -> Result<Permit, AccessReason> {
        if (self.rules.as_ref()).is_some_and(|rules| rules.decide(client) == Action::Deny) {
            return Err(AccessReason::Denied);
        }
        let counted = match (&self.limits.per_client, &self.state.clients) {
            (Some(limit), Some((_, clients))) => Some((clients, clients.admit(limit, client, now)?)),
            _ => None,
        };
        if let Some(rate) = self.limits.new_per_second {
            let mut bucket = self.state.bucket.lock().unwrap_or_else(PoisonError::into_inner);
            if !bucket.take(rate, now) {
                drop(bucket);
                if let Some((clients, counted)) = counted {
                    clients.take_back(counted);
                }
                return Err(AccessReason::FrontendRate);
            }
        }
        Ok(Permit {
            counted: counted.map(|(_, counted)| (counted, Arc::clone(&self.state))),
        })
    }
}

impl State {
    fn prefixes(&self) -> Option<Prefixes> {
        self.clients.as_ref().map(|(prefixes, _)| *prefixes)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some((counted, state)) = self.counted.take()
            && let Some((_, clients)) = &state.clients
        {
            clients.release(counted);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: &str = "192.0.2.1";

    fn gate(rules: &[&str], limits: Limits, before: Option<&FrontendAccess>) -> Option<Arc<FrontendAccess>> {
        let rules = (!rules.is_empty()).then(|| AccessRules {
            default: Action::Allow,
            rules: rules.iter().map(|rule| rule.parse().unwrap()).collect(),
        });
        FrontendAccess::new(rules.as_ref(), limits, |_| None, before)
    }

    fn limits(all: u32, connections: u32, new_per_second: u32) -> Limits {
        Limits {
            new_per_second: NonZeroU32::new(all),
            per_client: Some(PerClient {
                prefix4: 32,
                prefix6: 64,
                connections: NonZeroU32::new(connections),
                new_per_second: NonZeroU32::new(new_per_second),
            }),
        }
    }

    fn admit(gate: &FrontendAccess, client: &str, now: u64) -> Result<Permit, AccessReason> {
        gate.admit(client.parse().unwrap(), now)
    }

    #[test]
    fn without_rules_and_limits_there_is_no_gate() {
        assert!(gate(&[], Limits::default(), None).is_none());
    }

    #[test]
    fn rules_come_before_limits() {
        let gate = gate(&["deny 192.0.2.1"], limits(1, 1, 0), None).unwrap();
        for _ in 0..10 {
            assert_eq!(admit(&gate, CLIENT, 0).unwrap_err(), AccessReason::Denied);
        }
        assert!(admit(&gate, "192.0.2.2", 0).is_ok());
    }

    #[test]
    fn a_client_over_its_limit_takes_nothing_of_the_frontends() {
        let gate = gate(&[], limits(2, 1, 0), None).unwrap();
        let _held = admit(&gate, CLIENT, 0).unwrap();
        for _ in 0..10 {
            let refused = admit(&gate, CLIENT, 0).unwrap_err();
            assert_eq!(refused, AccessReason::ClientConnections);
        }
        let _other = admit(&gate, "192.0.2.2", 0).unwrap();
        let refused = admit(&gate, "192.0.2.3", 0).unwrap_err();
        assert_eq!(refused, AccessReason::FrontendRate);
        assert!(
            admit(&gate, "192.0.2.3", 500).is_ok(),
            "what was refused does not count"
        );
    }

    #[test]
    fn a_connection_counts_until_its_permit_is_dropped() {
        let gate = gate(&[], limits(0, 1, 0), None).unwrap();
        let held = admit(&gate, CLIENT, 0).unwrap();
        assert!(admit(&gate, CLIENT, 0).is_err());
        drop(held);
        assert!(admit(&gate, CLIENT, 0).is_ok());
    }

    #[test]
    fn a_reload_goes_on_with_what_clients_have() {
        let before = gate(&[], limits(0, 2, 0), None).unwrap();
        let held = [
            admit(&before, CLIENT, 0).unwrap(),
            admit(&before, CLIENT, 0).unwrap(),
        ];
        let after = gate(&["deny 10.0.0.0/8"], limits(0, 2, 0), Some(&before)).unwrap();
        assert!(admit(&after, CLIENT, 0).is_err());
        let raised = gate(&[], limits(0, 3, 0), Some(&after)).unwrap();
        let more = admit(&raised, CLIENT, 0).unwrap();
        drop((held, more));
        assert!(admit(&after, CLIENT, 0).is_ok());
    }
}
