//! Which worker has which UDP session.
//!
//! The kernel gives all datagrams of a client to one of the sockets that share an address, by a hash, as long as these are
//! the same. They are not while an address is being bound, socket by socket, or when one that a reload has removed comes
//! back while its last sessions still live. So whoever gets a datagram without a session of its own asks here, and hands it
//! over to the worker that has it.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::{BuildHasher, RandomState},
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::mpsc::{self, error::TrySendError};

use crate::base::{ListenAddr, WorkerId, Zone};

/// Parts of the table that threads lock one by one.
const SHARDS: usize = 64;

/// Datagrams, merged ones as one, that wait for a worker.
const WAITING: usize = 256;

/// What a client's datagrams have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionKey {
    /// The client.
    pub client: SocketAddr,
    /// The address of ours that it sends to, and that answers leave from.
    pub local: SocketAddr,
    /// The interface that this is listened on at: on another one the same addresses may be others'.
    pub interface: Option<Zone>,
}

impl SessionKey {
    /// What the client has sent to.
    #[must_use]
    pub fn listen(&self) -> ListenAddr {
        let local = ListenAddr::new(self.local);
        self.interface
            .map_or(local, |zone| ListenAddr::zoned(self.local, zone))
    }
}

/// Datagrams of a client for the worker that has its session.
#[derive(Debug)]
pub struct HandedOver {
    /// The session's key.
    pub key: SessionKey,
    /// Their ECN bits.
    pub ecn: u8,
    /// The size of each, the last may be shorter; `None`: it is one.
    pub segment: Option<u16>,
    /// Their bytes.
    pub bytes: Box<[u8]>,
}

/// What a worker is handed over.
pub type Inbox = mpsc::Receiver<HandedOver>;

/// The workers' sessions by their keys, and the way to each worker. No more entries than sessions, which are bounded.
#[derive(Debug)]
pub struct Owners {
    shards: Box<[Mutex<HashMap<SessionKey, WorkerId>>]>,
    hasher: RandomState,
    inboxes: Vec<mpsc::Sender<HandedOver>>,
}

impl Owners {
    /// Nobody has a session; the inbox of each of so many workers.
    #[must_use]
    pub fn new(workers: usize) -> (Self, Vec<Inbox>) {
        let (inboxes, receivers) = (0..workers).map(|_| mpsc::channel(WAITING)).unzip();
        let owners = Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            inboxes,
        };
        (owners, receivers)
    }

    /// Who has the session of this key.
    #[must_use]
    pub fn of(&self, key: &SessionKey) -> Option<WorkerId> {
        self.shard(key).get(key).copied()
    }

    /// Takes a key for a worker.
    ///
    /// # Errors
    /// Who has it.
    pub fn claim(&self, key: &SessionKey, worker: WorkerId) -> Result<(), WorkerId> {
        match self.shard(key).entry(*key) {
            Entry::Occupied(owner) => Err(*owner.get()),
            Entry::Vacant(place) => {
                place.insert(worker);
                Ok(())
            }
        }
    }

    /// Gives a key back.
    pub fn release(&self, key: &SessionKey) {
        let mut shard = self.shard(key);
        shard.remove(key);
        if shard.is_empty() {
            // what a flood has taken goes back
            *shard = HashMap::new();
        }
    }

    /// Hands datagrams over; false if the worker's queue is full.
    #[must_use]
    pub fn hand_over(&self, to: WorkerId, what: HandedOver) -> bool {
        let inbox = self.inboxes.get(to.0);
        inbox.is_some_and(|inbox| !matches!(inbox.try_send(what), Err(TrySendError::Full(_))))
    }

    fn shard(&self, key: &SessionKey) -> MutexGuard<'_, HashMap<SessionKey, WorkerId>> {
        let index = usize::try_from(self.hasher.hash_one(key)).unwrap_or(0) % SHARDS;
        // what is guarded is whole after every statement
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(port: u16) -> SessionKey {
        SessionKey {
            client: ([192, 0, 2, 1], port).into(),
            local: ([198, 51, 100, 1], 53).into(),
            interface: None,
        }
    }

    #[test]
    fn a_session_has_one_owner_until_it_ends() {
        let (owners, _inboxes) = Owners::new(2);
        assert_eq!(owners.claim(&key(1), WorkerId(0)), Ok(()));
        assert_eq!(owners.claim(&key(1), WorkerId(1)), Err(WorkerId(0)));
        assert_eq!(
            (owners.of(&key(1)), owners.of(&key(2))),
            (Some(WorkerId(0)), None)
        );
        owners.release(&key(1));
        assert_eq!(owners.claim(&key(1), WorkerId(1)), Ok(()));
    }

    #[test]
    fn what_is_handed_over_waits_in_a_queue_with_an_end() {
        let (owners, mut inboxes) = Owners::new(2);
        let datagram = || HandedOver {
            key: key(1),
            ecn: 0,
            segment: None,
            bytes: Box::default(),
        };
        for _ in 0..WAITING {
            assert!(owners.hand_over(WorkerId(1), datagram()));
        }
        assert!(!owners.hand_over(WorkerId(1), datagram()));
        assert_eq!(inboxes[1].try_recv().unwrap().key, key(1));
        assert!(owners.hand_over(WorkerId(1), datagram()));
        assert!(inboxes[0].try_recv().is_err());
    }
}
