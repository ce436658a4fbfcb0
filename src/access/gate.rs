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

impl Limits {
    /// Whether it limits nothing, whatever it says of prefixes.
    #[must_use]
    pub fn sets_none(&self) -> bool {
        self.new_per_second.is_none() && self.of_clients().is_none()
    }

    /// `per_client`, if it limits anything.
    fn of_clients(&self) -> Option<PerClient> {
        let sets_one = |client: &PerClient| {
            client.connections.is_some()
                || client.new_per_second.is_some()
                || client.datagrams_per_second.is_some()
                || client.handshakes_per_second.is_some()
        };
        self.per_client.filter(sets_one)
    }
}

/// A connection that was let in, counted until it is dropped.
#[derive(Debug)]
#[must_use = "a connection counts as long as its permit is kept"]
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
        if rules.is_none() && limits.sets_none() {
            return None;
        }
        let limits = Limits {
            per_client: limits.of_clients(),
            ..limits
        };
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

    /// What the rules say of a client.
    ///
    /// # Errors
    /// They deny it.
    pub fn check_rules(&self, client: IpAddr) -> Result<(), AccessReason> {
        match &self.rules {
            Some(rules) if rules.decide(client) == Action::Deny => Err(AccessReason::Denied),
            _ => Ok(()),
        }
    }

    /// Lets a new connection of a client in, or says why not. `now` is in milliseconds of a clock that never goes back; all
    /// callers use the same one.
    ///
    /// A connection that is refused counts for no limit.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn admit(&self, client: IpAddr, now: u64) -> Result<Permit, AccessReason> {
        self.check_rules(client)?;
        self.take(client, now)
    }

    /// As [`admit`](Self::admit), of a client that may have no address: no network has it, so no rule speaks of it and `default`
    /// decides, and no limit of clients counts it.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn admit_remote(&self, client: Option<IpAddr>, now: u64) -> Result<Permit, AccessReason> {
        match client {
            Some(client) => self.admit(client, now),
            None if self
                .rules
                .as_ref()
                .is_some_and(|rules| rules.default() == Action::Deny) =>
            {
                Err(AccessReason::Denied)
            }
            None => {
                self.take_new(None, now)?;
                Ok(self.permit(None))
            }
        }
    }

    /// As [`admit`](Self::admit), of a client that the rules allow.
    ///
    /// # Errors
    /// Which limit refuses it.
    pub fn take(&self, client: IpAddr, now: u64) -> Result<Permit, AccessReason> {
        let counted = self.of_client(|clients, limit| clients.admit(limit, client, now))?;
        let permit = self.permit(counted);
        self.take_new(counted, now)?;
        Ok(permit)
    }

    /// Lets a connection begin whose client may be forged: it takes its part of a second, and counts as a connection only
    /// once [`count`](Self::count) is called for it. So nobody uses up another's connections. The rules are asked before.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn attempt(&self, client: IpAddr, now: u64) -> Result<(), AccessReason> {
        let begun = self.of_client(|clients, limit| clients.attempt(limit, client, now))?;
        self.take_new(begun, now)
    }

    /// Counts a connection that was let begin, now that its client is known to be who it says; `None` if clients have no
    /// limits.
    ///
    /// # Errors
    /// Others of the client were faster: it is at its limit of connections.
    pub fn count(&self, client: IpAddr, now: u64) -> Result<Option<Permit>, AccessReason> {
        let counted = self.of_client(|clients, limit| clients.count(limit, client, now))?;
        Ok(counted.map(|counted| self.permit(Some(counted))))
    }

    /// Lets a datagram of a client through, or says why not.
    ///
    /// # Errors
    /// Its network has sent as many in this second as it may.
    pub fn datagram(&self, client: IpAddr, now: u64) -> Result<(), AccessReason> {
        let is_limited = (self.limits.per_client).is_some_and(|limit| limit.datagrams_per_second.is_some());
        if is_limited {
            // it is no connection that would end
            let _ = self.of_client(|clients, limit| clients.datagram(limit, client, now))?;
        }
        Ok(())
    }

    /// Lets a client begin a TLS handshake, or says why not. Its connection was let in before.
    ///
    /// # Errors
    /// Its network has begun as many in this second as it may.
    pub fn handshake(&self, client: IpAddr, now: u64) -> Result<(), AccessReason> {
        let is_limited = (self.limits.per_client).is_some_and(|limit| limit.handshakes_per_second.is_some());
        if is_limited {
            // it is no connection that would end
            let _ = self.of_client(|clients, limit| clients.handshake(limit, client, now))?;
        }
        Ok(())
    }

    /// Asks the table of clients, if clients have limits.
    fn of_client(
        &self,
        ask: impl FnOnce(&Clients, &PerClient) -> Result<Counted, AccessReason>,
    ) -> Result<Option<Counted>, AccessReason> {
        match (&self.limits.per_client, &self.state.clients) {
            (Some(limit), Some((_, clients))) => ask(clients, limit).map(Some),
            _ => Ok(None),
        }
    }

    /// Takes one of the frontend's new connections of this second. If there is none, the client's is given back.
    fn take_new(&self, client: Option<Counted>, now: u64) -> Result<(), AccessReason> {
        let Some(rate) = self.limits.new_per_second else {
            return Ok(());
        };
        let mut bucket = self.state.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        if bucket.take(rate, now) {
            return Ok(());
        }
        drop(bucket);
        if let (Some(counted), Some((_, clients))) = (client, &self.state.clients) {
            clients.take_back(counted);
        }
        Err(AccessReason::FrontendRate)
    }

    fn permit(&self, counted: Option<Counted>) -> Permit {
        Permit {
            counted: counted.map(|counted| (counted, Arc::clone(&self.state))),
        }
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
                datagrams_per_second: None,
                handshakes_per_second: None,
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
    fn whoever_has_no_address_is_let_in_by_the_default_and_counted_for_the_frontend_alone() {
        let strict = |default| {
            let rules = AccessRules {
                default,
                rules: vec!["allow 0.0.0.0/0".parse().unwrap(), "deny ::/0".parse().unwrap()],
            };
            FrontendAccess::new(Some(&rules), limits(2, 1, 1), |_| None, None).unwrap()
        };
        let refused = strict(Action::Deny).admit_remote(None, 0).unwrap_err();
        assert_eq!(refused, AccessReason::Denied);
        let gate = strict(Action::Allow);
        let _held = [0, 1].map(|_| gate.admit_remote(None, 0).unwrap());
        assert_eq!(
            gate.admit_remote(None, 0).unwrap_err(),
            AccessReason::FrontendRate
        );
        // of one with an address both count
        let gate = strict(Action::Allow);
        let _held = gate.admit_remote(CLIENT.parse().ok(), 0).unwrap();
        let refused = gate.admit_remote(CLIENT.parse().ok(), 0).unwrap_err();
        assert_eq!(refused, AccessReason::ClientConnections);
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
    fn a_connection_that_is_only_begun_takes_nothing_but_its_part_of_a_second() {
        let gate = gate(&[], limits(0, 1, 3), None).unwrap();
        let client = CLIENT.parse().unwrap();
        assert!(gate.attempt(client, 0).is_ok() && gate.attempt(client, 0).is_ok());
        let held = gate.count(client, 0).unwrap();
        assert!(held.is_some());
        assert_eq!(
            gate.count(client, 0).unwrap_err(),
            AccessReason::ClientConnections
        );
        assert_eq!(gate.attempt(client, 0), Err(AccessReason::ClientConnections));
        drop(held);
        assert_eq!(gate.attempt(client, 0), Ok(()), "the third of this second");
        assert_eq!(gate.attempt(client, 0), Err(AccessReason::ClientRate));
        assert!(gate.count(client, 0).is_ok(), "what was begun counts");
    }

    #[test]
    fn what_the_frontend_refuses_costs_the_client_nothing() {
        let gate = gate(&[], limits(1, 1, 1), None).unwrap();
        assert_eq!(gate.attempt("192.0.2.2".parse().unwrap(), 0), Ok(()));
        let client = CLIENT.parse().unwrap();
        assert_eq!(gate.attempt(client, 0), Err(AccessReason::FrontendRate));
        assert_eq!(admit(&gate, CLIENT, 0).unwrap_err(), AccessReason::FrontendRate);
        assert!(admit(&gate, CLIENT, 1_000).is_ok());
    }

    #[test]
    fn prefixes_alone_limit_nothing() {
        let per_client = Some(PerClient {
            prefix4: 24,
            ..PerClient::default()
        });
        let limits = Limits {
            new_per_second: None,
            per_client,
        };
        assert!(limits.sets_none() && gate(&[], limits, None).is_none());
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

    #[test]
    fn handshakes_of_a_client_network_have_a_rate_of_their_own() {
        let of_handshakes = Limits {
            per_client: Some(PerClient {
                handshakes_per_second: NonZeroU32::new(2),
                ..PerClient::default()
            }),
            ..Limits::default()
        };
        let gate = gate(&[], of_handshakes, None).expect("a limit");
        let shake = |client: &str, now| gate.handshake(client.parse().unwrap(), now);
        // connections are not counted by it
        let _permits: Vec<_> = (0..5).map(|_| admit(&gate, CLIENT, 0).unwrap()).collect();
        assert_eq!((shake(CLIENT, 0), shake(CLIENT, 0)), (Ok(()), Ok(())));
        assert_eq!(shake(CLIENT, 0), Err(AccessReason::ClientHandshakes));
        assert_eq!(shake("192.0.2.2", 0), Ok(()), "others are not concerned");
        assert_eq!(
            shake(CLIENT, 500),
            Ok(()),
            "half a second later there is one more"
        );
        assert_eq!(shake(CLIENT, 500), Err(AccessReason::ClientHandshakes));
    }
}
