//! How many NAT ports of a server each client network holds, so that one client cannot take them all.
//!
//! Only flows count whose client has proven to be who it says: the others give their ports up as soon as they are wanted,
//! and whoever forges a client's address must not use up its share. There is an entry only for who holds something, so the
//! flows bound the table, and nothing in it is ever evicted.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{key::Key, key::Seeded};
use crate::access::{Network, PerClient};

/// Parts of the table that threads lock one by one.
const SHARDS: usize = 64;
/// Slots that an emptied part may keep.
const SPARE: usize = 256;

/// How many NAT ports of a server a client network may hold.
#[derive(Debug, Clone, Copy)]
pub struct ShareLimit {
    /// What a client network is.
    pub clients: PerClient,
    pub ports: u32,
}

/// NAT ports held, by server and client network.
#[derive(Debug)]
pub struct PortShares {
    seeded: Seeded,
    shards: Box<[Shard]>,
}

/// A leaf: its lock is taken under that of a flow's shard, and nothing under it.
#[derive(Debug)]
#[repr(align(128))]
struct Shard(Mutex<HashMap<Key, u32, Seeded>>);

/// The key of a client network's share of a server. `reverse`: that of a flow to it.
fn key(reverse: &Key, network: Network) -> Key {
    let clients = SocketAddr::new(network.first(), network.prefix().into());
    Key::new(reverse.protocol(), reverse.from(), clients)
}

impl PortShares {
    pub fn new(seed: u64) -> Self {
        let seeded = Seeded::new(seed);
        let shard = |_| Shard(Mutex::new(HashMap::with_hasher(seeded)));
        Self {
            seeded,
            shards: (0..SHARDS).map(shard).collect(),
        }
    }

    /// Whether a client holds its share of the server that packets with this reverse key come from.
    pub fn is_full(&self, limit: &ShareLimit, reverse: &Key, client: IpAddr) -> bool {
        let key = key(reverse, limit.clients.network(client));
        let held = self.shard(&key).and_then(|shard| shard.get(&key).copied());
        held.unwrap_or(0) >= limit.ports
    }

    /// Counts one more of a client, unless it holds its share. Gives what is to be given back.
    pub fn take(&self, limit: &ShareLimit, reverse: &Key, client: IpAddr) -> Option<Network> {
        let network = limit.clients.network(client);
        let key = key(reverse, network);
        let mut shard = self.shard(&key)?;
        let held = shard.entry(key).or_insert(0);
        let fits = *held < limit.ports;
        if fits {
            *held += 1;
        }
        // a limit of 0 does not exist, but an entry of 0 must not either
        if *held == 0 {
            shard.remove(&key);
        }
        fits.then_some(network)
    }

    /// Gives one back that was taken.
    pub fn give(&self, reverse: &Key, network: Network) {
        let key = key(reverse, network);
        let Some(mut shard) = self.shard(&key) else { return };
        let Some(held) = shard.get_mut(&key) else { return };
        *held -= 1;
        if *held == 0 {
            shard.remove(&key);
            if shard.capacity() > SPARE && shard.len() < shard.capacity() / 8 {
                let len = shard.len();
                shard.shrink_to(len * 2);
            }
        }
    }

    fn shard(&self, key: &Key) -> Option<MutexGuard<'_, HashMap<Key, u32, Seeded>>> {
        let shard = self.shards.get(self.seeded.part(key, self.shards.len()))?;
        // counts are whole after every statement
        Some(shard.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(any(test, fuzzing))]
impl PortShares {
    /// Ports held by all clients.
    pub fn held(&self) -> usize {
        let counts = |shard: &Shard| -> Vec<u32> {
            let shard = shard.0.lock().unwrap_or_else(PoisonError::into_inner);
            shard.values().copied().collect()
        };
        let all: Vec<u32> = self.shards.iter().flat_map(counts).collect();
        assert!(!all.contains(&0), "an entry of somebody who holds nothing");
        all.iter().map(|count| *count as usize).sum()
    }
}
