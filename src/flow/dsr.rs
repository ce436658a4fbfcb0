//! The cache of DSR flows: keeps a flow on its server while weights change and servers drain.
//!
//! Set-associative: a flow's hash names a set of [`WAYS`] places. Where a set is full, a half-open entry gives way
//! first, then the one unused for longest; a half-open newcomer finds no place among established ones. To lose an entry
//! costs nothing as long as Maglev gives the same server.

use std::{
    hash::BuildHasher,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    Moment,
    handshake::{HandshakeWatch, Seen},
    key::{Key, Seeded},
    quota::Quota,
    services::FlowTarget,
    store::{Admission, Beginning, NewFlow, Visit, Visitor},
    tcp_state::TcpState,
};
use crate::base::WorkerId;

/// Places of a set.
const WAYS: usize = 8;
/// Sets of a shard, about.
const SETS_A_SHARD: u32 = 256;

/// One DSR flow.
#[derive(Debug)]
pub struct Entry {
    pub key: Key,
    pub target: Arc<FlowTarget>,
    pub life: TcpState,
    /// When its last packet came.
    pub seen: Moment,
    pub handshake: HandshakeWatch,
    /// Generation of the services that `target` has been compared with.
    pub generation: u64,
    pub admission: Admission,
}

/// The cache.
#[derive(Debug)]
pub(super) struct DsrCache {
    seeded: Seeded,
    shards: Box<[CacheShard]>,
    /// Sets of each shard, a power of two.
    sets: usize,
}

/// The sets of a shard; none until the first flow.
#[derive(Debug, Default)]
#[repr(align(128))]
struct CacheShard(Mutex<Vec<Vec<Entry>>>);

impl CacheShard {
    fn lock(&self) -> MutexGuard<'_, Vec<Vec<Entry>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// A flow that begins. One packet proves nothing, whatever its flags: the next one does.
    pub fn new(beginning: &Beginning, flow: NewFlow, admission: Admission) -> Self {
        Self {
            key: beginning.key,
            target: flow.target,
            life: TcpState::first(beginning.segment.kind),
            seen: beginning.now,
            handshake: HandshakeWatch::new(beginning.segment.kind, beginning.now),
            generation: flow.generation,
            admission,
        }
    }

    /// When it is forgotten if nothing comes.
    pub fn expires(&self) -> Moment {
        self.seen.after(self.target.direct_lifetime(self.life))
    }
}

/// What is left to do for an entry that has been removed from its set.
fn forget(room: &Quota, entry: Entry, worker: WorkerId) {
    if let Some(handshake) = entry.handshake.forgotten(Seen::ClientSide, entry.life) {
        entry.target.count_handshake(worker, handshake);
    }
    close(room, entry, worker);
}

/// The same without a word about its handshake.
fn close(room: &Quota, entry: Entry, worker: WorkerId) {
    room.give_dsr();
    entry.target.count_closed(worker);
    drop(entry.admission);
}

impl DsrCache {
    /// A cache of `limit` entries, which [`Quota`] enforces.
    pub fn new(limit: u32, seed: u64) -> Self {
        // a set is seldom filled evenly: twice as many places as entries
        let sets = (limit / (WAYS as u32 / 2)).next_power_of_two();
        let shards = (sets / SETS_A_SHARD).clamp(16, 4_096);
        Self {
            seeded: Seeded::new(seed),
            shards: (0..shards).map(|_| CacheShard::default()).collect(),
            sets: (sets / shards).max(1) as usize,
        }
    }

    /// Shards that [`sweep`](Self::sweep) knows, from 0.
    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    fn shard(&self, key: &Key) -> (Option<&CacheShard>, usize) {
        let hash = self.seeded.hash_one(key);
        let shard = (hash >> 32) as usize & (self.shards.len() - 1);
        (self.shards.get(shard), hash as usize & (self.sets - 1))
    }

    /// Looks at a live entry under its lock, and forgets it if `look` says so; `None` if there is none.
    pub fn visit<R>(
        &self,
        room: &Quota,
        key: &Key,
        visitor: Visitor,
        look: impl FnOnce(&mut Entry) -> Visit<R>,
    ) -> Option<R> {
        let (shard, set) = self.shard(key);
        let mut sets = shard?.lock();
        let set = sets.get_mut(set)?;
        let index = set.iter().position(|entry| entry.key == *key)?;
        let entry = set.get_mut(index)?;
        let step = if entry.expires() <= visitor.now {
            Visit::Remove(None)
        } else {
            match look(entry) {
                Visit::Keep(result) => Visit::Keep(Some(result)),
                Visit::Remove(result) => Visit::Remove(Some(result)),
            }
        };
        match step {
            Visit::Keep(result) => result,
            Visit::Remove(result) => {
                forget(room, set.swap_remove(index), visitor.worker);
                result
            }
        }
    }

    /// Remembers a flow, if there is a place for it.
    pub fn insert(&self, room: &Quota, entry: Entry, visitor: Visitor) {
        let Visitor { now, worker } = visitor;
        let (Some(shard), set) = self.shard(&entry.key) else {
            return;
        };
        let mut sets = shard.lock();
        if sets.is_empty() {
            sets.resize_with(self.sets, Vec::new);
        }
        let Some(set) = sets.get_mut(set) else { return };
        if let Some(known) = set.iter().position(|known| known.key == entry.key) {
            // another worker was faster: the flow goes on
            close(room, set.swap_remove(known), worker);
        }
        if set.len() >= WAYS || !room.take_dsr() {
            let Some(victim) = victim(set, &entry, now) else {
                return;
            };
            forget(room, set.swap_remove(victim), worker);
            if !room.take_dsr() {
                return;
            }
        }
        entry.target.count_opened(worker);
        if set.len() == set.capacity() {
            set.reserve_exact(WAYS / 2);
        }
        set.push(entry);
    }

    /// Forgets what has expired in one shard. Returns the number of entries looked at.
    pub fn sweep(&self, index: usize, room: &Quota, visitor: Visitor) -> usize {
        let Visitor { now, worker } = visitor;
        let Some(shard) = self.shards.get(index) else {
            return 0;
        };
        let mut looked_at = 0;
        for set in shard.lock().iter_mut() {
            looked_at += set.len();
            for entry in set.extract_if(.., |entry| entry.expires() <= now) {
                forget(room, entry, worker);
            }
            if set.is_empty() {
                set.shrink_to(0);
            }
        }
        looked_at
    }

    /// Looks at a live entry without changing anything.
    pub fn peek<R>(&self, key: &Key, now: Moment, look: impl FnOnce(&Entry) -> R) -> Option<R> {
        let (shard, set) = self.shard(key);
        let sets = shard?.lock();
        let entry = sets.get(set)?.iter().find(|entry| entry.key == *key)?;
        (entry.expires() > now).then(|| look(entry))
    }

    /// Calls for every live entry, shard by shard.
    pub fn for_each(&self, now: Moment, mut see: impl FnMut(&Entry)) {
        for shard in &self.shards {
            for entry in shard
                .lock()
                .iter()
                .flatten()
                .filter(|entry| entry.expires() > now)
            {
                see(entry);
            }
        }
    }
}

/// Which entry of a set gives way to a new one; `None` if none does.
fn victim(set: &[Entry], new: &Entry, now: Moment) -> Option<usize> {
    let rank = |entry: &Entry| {
        let class = if entry.expires() <= now {
            0
        } else if entry.life.is_half_open() {
            1
        } else {
            2
        };
        (class, entry.seen)
    };
    let (index, entry) = set.iter().enumerate().min_by_key(|(_, entry)| rank(entry))?;
    let established = rank(entry).0 == 2;
    (!(established && new.life.is_half_open())).then_some(index)
}

#[cfg(any(test, fuzzing))]
impl DsrCache {
    /// Checks what must be true of the whole cache while nobody changes it.
    pub fn check_invariants(&self, room: &Quota) {
        let mut entries = 0;
        for shard in &self.shards {
            for set in shard.lock().iter() {
                assert!(set.len() <= WAYS);
                let keys: std::collections::HashSet<_> = set.iter().map(|entry| entry.key).collect();
                assert_eq!(keys.len(), set.len(), "a flow twice");
                entries += set.len();
            }
        }
        assert_eq!(entries, room.dsr() as usize);
        assert!(room.dsr() <= room.dsr_limit());
    }
}
