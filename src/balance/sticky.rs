//! Which server each client network was sent to last, so that it is sent there again.
//!
//! An entry lives for a time after its last use. The table is bounded: while it is full of living entries, networks without one
//! are balanced as if nothing were sticky, and counted. Clients that have an entry lose nothing to however many come after them,
//! as they would if the oldest made room: whoever forges addresses could then unstick everybody.
//!
//! Threads lock one part of the table at a time. In each, entries stand in a list in the order of their last use, the next to be
//! forgotten last, so that making room costs the same however many there are.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use super::hash;
use crate::base::{ServerAddr, ServerName};

/// Parts of the table that threads lock one by one.
const SHARDS: usize = 16;

/// Entries forgotten with each use of a shard, if they are over: more than one is added.
const FORGOTTEN: usize = 2;

const NONE: u32 = u32::MAX;

/// Who sticks to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StickyKey {
    /// The first address of the client's network.
    pub network: IpAddr,
    /// Which servers of the backend it is about: those of a class of names, or all.
    pub class: u16,
}

/// A server that somebody sticks to. At another address it is another server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StuckTo {
    /// Its name.
    pub name: ServerName,
    /// Its address.
    pub addr: ServerAddr,
}

/// How long entries live and how many there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StickyBounds {
    /// Time after the last use.
    pub ttl: Duration,
    /// Most entries.
    pub max_entries: usize,
}

/// The table of a backend.
#[derive(Debug)]
pub struct StickyTable {
    shards: [Mutex<Shard>; SHARDS],
    /// Entries of all shards.
    used: AtomicUsize,
    refused: AtomicU64,
    /// The shard that is looked through next for entries that are over.
    hand: AtomicUsize,
}

#[derive(Debug, Default)]
struct Shard {
    by_key: HashMap<StickyKey, u32>,
    entries: Vec<Entry>,
    free: Vec<u32>,
    /// The ends of the list.
    newest: Option<u32>,
    oldest: Option<u32>,
}

#[derive(Debug)]
struct Entry {
    key: StickyKey,
    server: StuckTo,
    used_at: Instant,
    /// Neighbours in the list, used earlier and later.
    older: u32,
    newer: u32,
}

impl Default for StickyTable {
    fn default() -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            used: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
            hand: AtomicUsize::new(0),
        }
    }
}

impl StickyTable {
    /// The server that a client's network sticks to, which counts as a use.
    #[must_use]
    pub fn get(&self, key: &StickyKey, bounds: StickyBounds, now: Instant) -> Option<StuckTo> {
        let mut shard = self.shard_of(key);
        self.forgot(shard.forget(bounds.ttl, now, FORGOTTEN));
        let server = shard.get(key, bounds.ttl, now);
        server.cloned()
    }

    /// As [`get`](Self::get), but no use.
    #[must_use]
    pub fn peek(&self, key: &StickyKey, ttl: Duration, now: Instant) -> Option<StuckTo> {
        let shard = self.shard_of(key);
        let entry = shard.entries.get(*shard.by_key.get(key)? as usize)?;
        (!is_over(entry, ttl, now)).then(|| entry.server.clone())
    }

    /// Has a client's network stick to a server from now on. False: there is no room for it.
    pub fn stick(&self, key: StickyKey, server: StuckTo, bounds: StickyBounds, now: Instant) -> bool {
        let mut shard = self.shard_of(&key);
        if shard.replace(&key, &server, now) {
            return true;
        }
        self.forgot(shard.forget(bounds.ttl, now, FORGOTTEN));
        if self.take_place(bounds) {
            shard.insert(key, server, now);
            return true;
        }
        drop(shard);
        if self.make_room(bounds, now) && self.take_place(bounds) {
            let mut shard = self.shard_of(&key);
            // another connection of the network may have come in between
            if shard.replace(&key, &server, now) {
                self.forgot(1);
            } else {
                shard.insert(key, server, now);
            }
            return true;
        }
        self.refused.fetch_add(1, Ordering::Relaxed);
        false
    }

    /// How many networks stick to a server now. Looks at the ends of the shards, and forgets what is over.
    #[must_use]
    pub fn entries(&self, ttl: Duration, now: Instant) -> usize {
        for shard in &self.shards {
            self.forgot(lock(shard).forget(ttl, now, usize::MAX));
        }
        self.used.load(Ordering::Relaxed)
    }

    /// How often there was no room for one.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    fn shard_of(&self, key: &StickyKey) -> MutexGuard<'_, Shard> {
        let bits = match key.network {
            IpAddr::V4(ip) => u64::from(ip.to_bits()),
            IpAddr::V6(ip) => hash::mix64((ip.to_bits() >> 64) as u64) ^ ip.to_bits() as u64,
        };
        // whoever aims at one part finds a map in it that hashes with a secret; the remainder fits
        let index = (hash::mix64(bits ^ u64::from(key.class)) % SHARDS as u64) as usize;
        lock(&self.shards[index])
    }

    fn take_place(&self, bounds: StickyBounds) -> bool {
        let most = bounds.max_entries;
        let take = |used: usize| (used < most).then_some(used + 1);
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .is_ok()
    }

    fn forgot(&self, entries: usize) {
        if entries > 0 {
            self.used.fetch_sub(entries, Ordering::Relaxed);
        }
    }

    /// Looks for entries that are over; true once there were some.
    fn make_room(&self, bounds: StickyBounds, now: Instant) -> bool {
        (0..SHARDS).any(|_| {
            let hand = self.hand.fetch_add(1, Ordering::Relaxed);
            let forgotten = lock(&self.shards[hand % SHARDS]).forget(bounds.ttl, now, SHARDS);
            self.forgot(forgotten);
            forgotten > 0
        })
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shard {
    fn get(&mut self, key: &StickyKey, ttl: Duration, now: Instant) -> Option<&StuckTo> {
        let index = *self.by_key.get(key)?;
        let entry = self.entries.get(index as usize)?;
        if is_over(entry, ttl, now) {
            return None;
        }
        self.touch(index, now);
        Some(&self.entries.get(index as usize)?.server)
    }

    /// False if it has no entry.
    fn replace(&mut self, key: &StickyKey, server: &StuckTo, now: Instant) -> bool {
        let Some(index) = self.by_key.get(key).copied() else {
            return false;
        };
        if let Some(entry) = self.entries.get_mut(index as usize)
            && entry.server != *server
        {
            entry.server = server.clone();
        }
        self.touch(index, now);
        true
    }

    fn insert(&mut self, key: StickyKey, server: StuckTo, now: Instant) {
        let entry = Entry {
            key,
            server,
            used_at: now,
            older: NONE,
            newer: NONE,
        };
        let index = match self.free.pop() {
            Some(index) => {
                if let Some(place) = self.entries.get_mut(index as usize) {
                    *place = entry;
                }
                index
            }
            None => {
                self.entries.push(entry);
                // fewer than max_entries may be
                u32::try_from(self.entries.len() - 1).unwrap_or(NONE - 1)
            }
        };
        self.by_key.insert(key, index);
        self.link(index);
    }

    /// Forgets entries that are over, so many at most; how many.
    fn forget(&mut self, ttl: Duration, now: Instant, most: usize) -> usize {
        let mut forgotten = 0;
        while forgotten < most
            && let Some(index) = self.oldest
            && let Some(entry) = self.entries.get(index as usize)
            && is_over(entry, ttl, now)
        {
            let key = entry.key;
            self.unlink(index);
            self.by_key.remove(&key);
            self.free.push(index);
            forgotten += 1;
        }
        if forgotten > 0 && self.by_key.is_empty() {
            // what a flood has taken goes back
            *self = Self::default();
        }
        forgotten
    }

    fn touch(&mut self, index: u32, now: Instant) {
        self.unlink(index);
        if let Some(entry) = self.entries.get_mut(index as usize) {
            entry.used_at = now;
        }
        self.link(index);
    }

    /// Puts one in as the newest.
    fn link(&mut self, index: u32) {
        let before = self.newest.replace(index);
        if let Some(entry) = self.entries.get_mut(index as usize) {
            (entry.older, entry.newer) = (before.unwrap_or(NONE), NONE);
        }
        match before.and_then(|before| self.entries.get_mut(before as usize)) {
            Some(before) => before.newer = index,
            None => self.oldest = Some(index),
        }
    }

    fn unlink(&mut self, index: u32) {
        let Some(entry) = self.entries.get(index as usize) else {
            return;
        };
        let (older, newer) = (entry.older, entry.newer);
        match self.entries.get_mut(older as usize) {
            Some(entry) => entry.newer = newer,
            None => self.oldest = Some(newer).filter(|newer| *newer != NONE),
        }
        match self.entries.get_mut(newer as usize) {
            Some(entry) => entry.older = older,
            None => self.newest = Some(older).filter(|older| *older != NONE),
        }
    }
}

fn is_over(entry: &Entry, ttl: Duration, now: Instant) -> bool {
    now.saturating_duration_since(entry.used_at) >= ttl
}

#[cfg(test)]
#[path = "tests/sticky.rs"]
mod tests;
