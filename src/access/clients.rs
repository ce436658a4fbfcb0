//! What each client network has: its open connections, and its new ones of late.
//!
//! The table is bounded, and its bound no way around a limit: an entry is removed only when it says what a new one would
//! (no connection, a full bucket). While it is full of others, clients without an entry share one, the overflow entry, with
//! what one client network may have. So whoever comes from however many addresses gets at most one such share beyond those
//! in the table, and its owner with an entry loses nothing. Removing looks at a few entries for each new one, so what a new
//! client costs does not depend on how many there are.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    num::NonZeroU32,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{bucket::Bucket, network::Network};
use crate::base::AccessReason;

/// Parts of the table that threads lock one by one.
const SHARDS: usize = 64;

/// Client networks of one table: some 25 MB.
pub const CAPACITY: usize = 1 << 18;

/// Entries looked at for each new one while there is room, and without room.
const LOOKS: usize = 2;
const LOOKS_WHEN_FULL: usize = 16;

/// What each client network may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PerClient {
    /// `prefix4`: bits of an IPv4 address that make a client network.
    pub prefix4: u8,
    /// `prefix6`: bits of an IPv6 address that make one.
    pub prefix6: u8,
    /// `connections` at a time.
    pub connections: Option<NonZeroU32>,
    /// `new_per_second`: connections a second.
    pub new_per_second: Option<NonZeroU32>,
    /// `datagrams_per_second`: datagrams a second, of flows that there are too.
    pub datagrams_per_second: Option<NonZeroU32>,
    /// `handshakes_per_second`: TLS handshakes a second, where TLS ends at the frontend.
    pub handshakes_per_second: Option<NonZeroU32>,
}

impl Default for PerClient {
    /// Each IPv4 address and each /64 is a client; no limits.
    fn default() -> Self {
        Self {
            prefix4: 32,
            prefix6: 64,
            connections: None,
            new_per_second: None,
            datagrams_per_second: None,
            handshakes_per_second: None,
        }
    }
}

impl PerClient {
    /// The client network of an address. An IPv4 address in IPv6 form is the IPv4 address.
    #[must_use]
    pub fn network(&self, client: IpAddr) -> Network {
        let client = client.to_canonical();
        let prefix = if client.is_ipv4() {
            self.prefix4
        } else {
            self.prefix6
        };
        Network::of(client, prefix)
    }
}

/// Where a connection was counted: to be handed back with its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a connection that is never given back counts for ever"]
pub enum Counted {
    /// In the entry of its client network.
    Own(Network),
    /// In the overflow entry.
    Overflow,
}

/// Client networks with what they have; shared by all threads.
#[derive(Debug)]
pub struct Clients {
    shards: Box<[Mutex<ClientShard>]>,
    overflow: Mutex<Entry>,
    /// Entries of all shards.
    used: AtomicUsize,
    capacity: usize,
    /// The shard whose entries are looked at next.
    hand: AtomicUsize,
}

#[derive(Debug, Default)]
struct ClientShard {
    entries: HashMap<Network, Entry>,
    /// Each entry once, those longest not looked at first.
    order: VecDeque<Network>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Entry {
    connections: u32,
    bucket: Bucket,
    datagrams: Bucket,
    handshakes: Bucket,
}

impl Entry {
    fn admit(&mut self, limits: &PerClient, now: u64) -> Result<(), AccessReason> {
        self.attempt(limits, now)?;
        self.connections += 1;
        Ok(())
    }

    fn attempt(&mut self, limits: &PerClient, now: u64) -> Result<(), AccessReason> {
        self.has_room(limits)?;
        if limits
            .new_per_second
            .is_some_and(|rate| !self.bucket.take(rate, now))
        {
            return Err(AccessReason::ClientRate);
        }
        Ok(())
    }

    fn count(&mut self, limits: &PerClient) -> Result<(), AccessReason> {
        self.has_room(limits)?;
        self.connections += 1;
        Ok(())
    }

    fn datagram(&mut self, limits: &PerClient, now: u64) -> Result<(), AccessReason> {
        let rate = limits.datagrams_per_second;
        if rate.is_some_and(|rate| !self.datagrams.take(rate, now)) {
            return Err(AccessReason::ClientDatagrams);
        }
        Ok(())
    }

    fn handshake(&mut self, limits: &PerClient, now: u64) -> Result<(), AccessReason> {
        let rate = limits.handshakes_per_second;
        if rate.is_some_and(|rate| !self.handshakes.take(rate, now)) {
            return Err(AccessReason::ClientHandshakes);
        }
        Ok(())
    }

    fn has_room(&self, limits: &PerClient) -> Result<(), AccessReason> {
        let is_full = (limits.connections).is_some_and(|max| self.connections >= max.get());
        if is_full {
            return Err(AccessReason::ClientConnections);
        }
        Ok(())
    }

    fn release(&mut self) {
        self.connections = self.connections.saturating_sub(1);
    }

    /// Whether it says no more than an entry that is not there.
    fn is_as_new(&self, limits: &PerClient, now: u64) -> bool {
        self.connections == 0
            && (limits.new_per_second).is_none_or(|rate| self.bucket.is_full(rate, now))
            && (limits.datagrams_per_second).is_none_or(|rate| self.datagrams.is_full(rate, now))
            && (limits.handshakes_per_second).is_none_or(|rate| self.handshakes.is_full(rate, now))
    }
}

impl Clients {
    /// An empty table of so many entries at most.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            overflow: Mutex::default(),
            used: AtomicUsize::new(0),
            capacity,
            hand: AtomicUsize::new(0),
        }
    }

    /// Counts a new connection if its client network may have one. `now` is in milliseconds of a clock that never goes back.
    ///
    /// # Errors
    /// Which limit it is at.
    pub fn admit(&self, limits: &PerClient, client: IpAddr, now: u64) -> Result<Counted, AccessReason> {
        self.change(limits, client, now, |entry| entry.admit(limits, now))
    }

    /// As [`admit`](Self::admit), but the connection is only begun: it takes its part of a second, and does not count.
    /// Gives where it did, for [`take_back`](Self::take_back).
    ///
    /// # Errors
    /// Which limit it is at.
    pub fn attempt(&self, limits: &PerClient, client: IpAddr, now: u64) -> Result<Counted, AccessReason> {
        self.change(limits, client, now, |entry| entry.attempt(limits, now))
    }

    /// Counts a connection that was begun so.
    ///
    /// # Errors
    /// It is at the limit of connections by now.
    pub fn count(&self, limits: &PerClient, client: IpAddr, now: u64) -> Result<Counted, AccessReason> {
        self.change(limits, client, now, |entry| entry.count(limits))
    }

    /// Counts a datagram of a client network.
    ///
    /// # Errors
    /// It has sent as many as it may.
    pub fn datagram(&self, limits: &PerClient, client: IpAddr, now: u64) -> Result<Counted, AccessReason> {
        self.change(limits, client, now, |entry| entry.datagram(limits, now))
    }

    /// Counts a TLS handshake of a client network.
    ///
    /// # Errors
    /// It has begun as many as it may.
    pub fn handshake(&self, limits: &PerClient, client: IpAddr, now: u64) -> Result<Counted, AccessReason> {
        self.change(limits, client, now, |entry| entry.handshake(limits, now))
    }

    fn change(
        &self,
        limits: &PerClient,
        client: IpAddr,
        now: u64,
        change: impl FnOnce(&mut Entry) -> Result<(), AccessReason>,
    ) -> Result<Counted, AccessReason> {
        let network = limits.network(client);
        if let Some(entry) = self.shard(&network).entries.get_mut(&network) {
            return change(entry).map(|()| Counted::Own(network));
        }
        let is_full = self.used.load(Ordering::Relaxed) >= self.capacity;
        self.look(limits, now, if is_full { LOOKS_WHEN_FULL } else { LOOKS });
        let mut shard = self.shard(&network);
        // another thread may have been first
        if let Some(entry) = shard.entries.get_mut(&network) {
            return change(entry).map(|()| Counted::Own(network));
        }
        let taken = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                (used < self.capacity).then_some(used + 1)
            });
        if taken.is_err() {
            drop(shard);
            let mut overflow = lock(&self.overflow);
            return change(&mut overflow).map(|()| Counted::Overflow);
        }
        let mut entry = Entry::default();
        let changed = change(&mut entry);
        shard.entries.insert(network, entry);
        shard.order.push_back(network);
        changed.map(|()| Counted::Own(network))
    }

    /// A connection has ended.
    pub fn release(&self, counted: Counted) {
        self.with(counted, Entry::release);
    }

    /// A connection that was begun or counted is refused after all: its part of a second is given back.
    pub fn take_back(&self, counted: Counted) {
        self.with(counted, |entry| entry.bucket.give_back());
    }

    /// Client networks with an entry.
    #[cfg(test)]
    fn entries(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn with(&self, counted: Counted, change: impl FnOnce(&mut Entry)) {
        match counted {
            // an entry with a connection is never removed
            Counted::Own(network) => {
                if let Some(entry) = self.shard(&network).entries.get_mut(&network) {
                    change(entry);
                }
            }
            Counted::Overflow => change(&mut lock(&self.overflow)),
        }
    }

    /// Looks at so many entries of the next shard, and removes those that say no more than new ones.
    fn look(&self, limits: &PerClient, now: u64, count: usize) {
        let index = self.hand.fetch_add(1, Ordering::Relaxed) % SHARDS;
        let mut guard = lock(&self.shards[index]);
        let shard = &mut *guard;
        for _ in 0..count.min(shard.order.len()) {
            let Some(network) = shard.order.pop_front() else {
                return;
            };
            let goes = (shard.entries.get(&network)).is_none_or(|entry| entry.is_as_new(limits, now));
            if goes {
                shard.entries.remove(&network);
                self.used.fetch_sub(1, Ordering::Relaxed);
            } else {
                shard.order.push_back(network);
            }
        }
    }

    fn shard(&self, network: &Network) -> MutexGuard<'_, ClientShard> {
        lock(&self.shards[shard_of(network)])
    }
}

/// Which shard a client network is in. Who can tell finds a lock that others want too, and no room that others lack.
fn shard_of(network: &Network) -> usize {
    let bits = match network.first() {
        IpAddr::V4(ip) => u64::from(ip.to_bits()),
        IpAddr::V6(ip) => {
            let bits = ip.to_bits();
            u64::try_from((bits >> 64) ^ (bits & u128::from(u64::MAX))).unwrap_or(0)
        }
    };
    // Fibonacci hashing (Knuth, TAOCP 6.4): the upper bits of a product with 2^64 / φ
    let mixed = bits.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    usize::try_from(mixed).unwrap_or(0) % SHARDS
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // what is guarded is whole after every statement
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
