//! Tickets: sessions that clients keep for us, encrypted with keys that only we, and who shares them with us, have (RFC 5077,
//! and RFC 8446, section 4.6.1).
//!
//! A ticket is `name of the key (16) | nonce (12) | AES-256-GCM of (time (8) | session) | tag (16)`. What is authenticated
//! beside it binds it to the frontend that it was made at, and to whom that trusts: one of a frontend that asks for no
//! certificate must not open one that does (CVE-2025-23419), and none outlives a change of the CA or its revocation lists.

mod keys;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use rustls::server::ProducesTickets;

use super::context::Context;
pub use keys::{KEY_BYTES, KeyName, ROTATION, TicketKeyError, TicketKeys};

/// How long a ticket is good for.
pub const TICKET_LIFETIME: Duration = Duration::from_secs(12 * 3600);

/// How far the clocks of two load balancers that share keys may differ.
const CLOCK_SKEW: Duration = Duration::from_secs(300);

const NAME_BYTES: usize = size_of::<KeyName>();
const TIME_BYTES: usize = 8;

/// The keys that all threads and frontends encrypt tickets with. They are replaced as a whole; nobody waits.
#[derive(Debug)]
pub struct TicketKeyRing(ArcSwap<Sealers>);

impl TicketKeyRing {
    /// A ring with these keys.
    #[must_use]
    pub fn new(keys: &TicketKeys) -> Arc<Self> {
        Arc::new(Self(ArcSwap::from_pointee(Sealers::new(keys))))
    }

    /// Uses other keys from now on. Tickets of keys that are in both stay good.
    pub fn replace(&self, keys: &TicketKeys) {
        self.0.store(Arc::new(Sealers::new(keys)));
    }
}

/// Keys, ready for use.
struct Sealers {
    all: Vec<(KeyName, RandomizedNonceKey)>,
    /// Index of the one that encrypts.
    current: Option<usize>,
}

impl Sealers {
    fn new(keys: &TicketKeys) -> Self {
        let sealer = |(name, key): (KeyName, [u8; 32])| {
            // it takes every key of this length
            RandomizedNonceKey::new(&AES_256_GCM, &key)
                .ok()
                .map(|key| (name, key))
        };
        let all: Vec<_> = keys.derived().into_iter().filter_map(sealer).collect();
        Self {
            current: all.iter().position(|(name, _)| Some(*name) == keys.current()),
            all,
        }
    }
}

impl fmt::Debug for Sealers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealers")
            .field("keys", &self.all.len())
            .finish_non_exhaustive()
    }
}

/// What makes and reads the tickets of one frontend.
#[derive(Debug)]
pub(super) struct Tickets {
    ring: Arc<TicketKeyRing>,
    context: Context,
    clock: fn() -> SystemTime,
}

impl Tickets {
    /// Tickets of a frontend.
    pub const fn new(ring: Arc<TicketKeyRing>, context: Context, clock: fn() -> SystemTime) -> Self {
        Self { ring, context, clock }
    }

    fn seal(&self, session: &[u8]) -> Option<Vec<u8>> {
        let now = (self.clock)();
        let sealers = self.ring.0.load();
        let (name, key) = sealers.all.get(sealers.current?)?;
        let mut sealed = Vec::with_capacity(TIME_BYTES + session.len() + AES_256_GCM.tag_len());
        sealed.extend(now.duration_since(UNIX_EPOCH).ok()?.as_secs().to_be_bytes());
        sealed.extend(session);
        let nonce = key.seal_in_place_append_tag(self.aad(name), &mut sealed).ok()?;
        let mut ticket = Vec::with_capacity(NAME_BYTES + NONCE_LEN + sealed.len());
        ticket.extend(name);
        ticket.extend(nonce.as_ref());
        ticket.extend(sealed);
        Some(ticket)
    }

    fn open(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk::<NAME_BYTES>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let sealers = self.ring.0.load();
        let (_, key) = sealers.all.iter().find(|(known, _)| known == name)?;
        let mut sealed = sealed.to_vec();
        let opened = key
            .open_in_place(Nonce::from(nonce), self.aad(name), &mut sealed)
            .ok()?;
        let (time, session) = opened.split_first_chunk::<TIME_BYTES>()?;
        let made = UNIX_EPOCH.checked_add(Duration::from_secs(u64::from_be_bytes(*time)))?;
        self.is_good(made).then(|| session.to_vec())
    }

    /// Whether a ticket made then is good now.
    fn is_good(&self, made: SystemTime) -> bool {
        let now = (self.clock)();
        let is_fresh = match now.duration_since(made) {
            Ok(age) => age <= TICKET_LIFETIME,
            Err(ahead) => ahead.duration() <= CLOCK_SKEW,
        };
        is_fresh && self.context.lasts(made, now)
    }

    fn aad(&self, name: &KeyName) -> Aad<[u8; 32 + NAME_BYTES]> {
        let mut bytes = [0; 32 + NAME_BYTES];
        let (context, rest) = bytes.split_at_mut(32);
        context.copy_from_slice(self.context.digest());
        rest.copy_from_slice(name);
        Aad::from(bytes)
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(TICKET_LIFETIME.as_secs()).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.seal(plain)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.open(cipher)
    }
}

#[cfg(test)]
mod tests;
