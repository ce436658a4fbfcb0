//! Sessions that are kept here, for clients of TLS 1.2 that know no tickets (Java before 13 and old Windows), and for all
//! where `tickets = false`.

use std::{fmt, sync::Arc, time::SystemTime};

use rustls::server::{ServerSessionMemoryCache, StoresServerSessions};

use super::context::Context;

/// Most sessions that are kept, of all frontends together: HAProxy's `tune.ssl.cachesize`. One takes some 300 bytes, more with a
/// client certificate.
const MAX_SESSIONS: usize = 20_000;

/// The sessions of all frontends. The oldest give way to new ones.
pub struct SessionCache(Arc<ServerSessionMemoryCache>);

impl SessionCache {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self(ServerSessionMemoryCache::new(MAX_SESSIONS))
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

/// The sessions of one frontend.
#[derive(Debug)]
pub(super) struct Sessions {
    cache: Arc<ServerSessionMemoryCache>,
    context: Context,
    clock: fn() -> SystemTime,
}

impl Sessions {
    /// Those of a frontend.
    pub fn new(cache: &SessionCache, context: Context, clock: fn() -> SystemTime) -> Self {
        Self {
            cache: Arc::clone(&cache.0),
            context,
            clock,
        }
    }

    /// Another frontend, or the same with another CA, looks elsewhere; so do all a day later.
    fn key(&self, id: &[u8]) -> Vec<u8> {
        let period = self.context.period((self.clock)());
        [self.context.digest().as_slice(), &period.to_be_bytes(), id].concat()
    }
}

impl StoresServerSessions for Sessions {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        self.cache.put(self.key(&key), value)
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.cache.get(&self.key(key))
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.cache.take(&self.key(key))
    }

    fn can_cache(&self) -> bool {
        true
    }
}
