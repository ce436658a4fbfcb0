//! Sessions that are kept here, for clients of TLS 1.2 that know no tickets (Java before 13 and old Windows), and for all
//! where `tickets = false`.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use aws_lc_rs::digest;
use rustls::server::StoresServerSessions;

use super::{context::Context, tickets::TICKET_LIFETIME};

/// Most sessions that are kept, of all frontends together: HAProxy's `tune.ssl.cachesize`. One takes some 300 bytes, more with a
/// client certificate.
const MAX_SESSIONS: usize = 20_000;

/// So many threads can look for sessions at once.
const SHARDS: usize = 16;

/// Context and id of a session.
type Key = [u8; 32];

/// The sessions of all frontends. The oldest give way to new ones.
pub struct SessionCache(Arc<[Mutex<Shard>]>);

/// rustls has such a cache too, but takes a session out of it by looking through all of them.
#[derive(Default)]
struct Shard {
    sessions: HashMap<Key, Saved>,
    /// The oldest first; some may have been taken meanwhile.
    order: VecDeque<Key>,
}

struct Saved {
    at: SystemTime,
    session: Vec<u8>,
}

impl SessionCache {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self((0..SHARDS).map(|_| Mutex::default()).collect())
    }

    /// How many sessions there are.
    #[must_use]
    pub fn count(&self) -> usize {
        let shards = self.0.iter().map(|shard| locked(shard).sessions.len());
        shards.sum()
    }
}

impl Default for SessionCache {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for SessionCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionCache")
    }
}

impl Shard {
    fn put(&mut self, key: Key, saved: Saved) {
        if self.sessions.insert(key, saved).is_none() {
            self.order.push_back(key);
        }
        if self.order.len() > MAX_SESSIONS / SHARDS
            && let Some(oldest) = self.order.pop_front()
        {
            self.sessions.remove(&oldest);
        }
    }
}

/// A thread that panicked has not left anything half done in there.
fn locked(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The sessions of one frontend.
#[derive(Debug)]
pub(super) struct Sessions {
    cache: SessionCache,
    context: Context,
    clock: fn() -> SystemTime,
}

impl Sessions {
    /// Those of a frontend.
    pub fn new(cache: &SessionCache, context: Context, clock: fn() -> SystemTime) -> Self {
        Self {
            cache: SessionCache(Arc::clone(&cache.0)),
            context,
            clock,
        }
    }

    /// Another frontend, or the same with another CA, looks elsewhere.
    fn key(&self, id: &[u8]) -> Key {
        let mut hash = digest::Context::new(&digest::SHA256);
        hash.update(self.context.digest());
        hash.update(id);
        let mut key = Key::default();
        key.copy_from_slice(hash.finish().as_ref());
        key
    }

    fn shard(&self, key: &Key) -> Option<MutexGuard<'_, Shard>> {
        self.cache.0.get(usize::from(key[0]) % SHARDS).map(locked)
    }

    fn good(&self, saved: &Saved) -> bool {
        let now = (self.clock)();
        // one from the future was saved before the clock was set back
        let age = now.duration_since(saved.at).unwrap_or_default();
        age <= TICKET_LIFETIME && self.context.lasts(saved.at, now)
    }
}

impl StoresServerSessions for Sessions {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        let key = self.key(&key);
        let saved = Saved {
            at: (self.clock)(),
            session: value,
        };
        let shard = self.shard(&key);
        shard.map(|mut shard| shard.put(key, saved)).is_some()
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        let key = self.key(key);
        let shard = self.shard(&key)?;
        let saved = shard.sessions.get(&key)?;
        self.good(saved).then(|| saved.session.clone())
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        let key = self.key(key);
        let saved = self.shard(&key)?.sessions.remove(&key)?;
        self.good(&saved).then_some(saved.session)
    }

    fn can_cache(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::settings::ServerSettings;

    fn sessions(cache: &SessionCache) -> Sessions {
        let context = Context::new(&ServerSettings::new("web"));
        Sessions::new(cache, context, SystemTime::now)
    }

    #[test]
    fn the_cache_is_bounded_and_the_oldest_give_way() {
        let cache = SessionCache::new();
        let sessions = sessions(&cache);
        let id = |number: usize| number.to_be_bytes().to_vec();
        let total = MAX_SESSIONS * 2;
        for number in 0..total {
            assert!(sessions.put(id(number), vec![0; 8]));
        }
        assert!(cache.count() <= MAX_SESSIONS, "{}", cache.count());
        assert_eq!(sessions.get(&id(0)), None);
        assert!(sessions.get(&id(total - 1)).is_some());
    }

    #[test]
    fn a_session_that_was_taken_is_gone_and_costs_no_room_for_ever() {
        let cache = SessionCache::new();
        let sessions = sessions(&cache);
        for round in 0..MAX_SESSIONS * 2 {
            sessions.put(round.to_be_bytes().to_vec(), b"session".to_vec());
            assert_eq!(sessions.take(&round.to_be_bytes()), Some(b"session".to_vec()));
            assert_eq!(sessions.take(&round.to_be_bytes()), None);
        }
        assert_eq!(cache.count(), 0);
        let waiting: usize = cache.0.iter().map(|shard| locked(shard).order.len()).sum();
        assert!(waiting <= MAX_SESSIONS);
    }

    #[test]
    fn a_session_is_saved_anew_under_its_id() {
        let cache = SessionCache::new();
        let sessions = sessions(&cache);
        sessions.put(vec![1], b"old".to_vec());
        sessions.put(vec![1], b"new".to_vec());
        assert_eq!(sessions.get(&[1]), Some(b"new".to_vec()));
        assert_eq!(cache.count(), 1);
    }
}
