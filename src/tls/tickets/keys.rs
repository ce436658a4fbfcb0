//! Keys of tickets: how they change with time, and how they are kept in files. No clock and no randomness here.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::hkdf;
use base64ct::{Base64, Encoding};

use super::{CLOCK_SKEW, TICKET_LIFETIME};

/// Bytes of one key with its name.
pub const KEY_BYTES: usize = 48;

/// How long one key encrypts.
pub const ROTATION: Duration = Duration::from_secs(6 * 3600);

/// As long as tickets of a key can be good: then it is thrown away.
const KEPT: Duration = Duration::from_secs(ROTATION.as_secs() + TICKET_LIFETIME.as_secs());

/// The length that HAProxy and nginx have for AES-256; the other one of theirs, for AES-128, is [`KEY_BYTES`].
const LONG_KEY_BYTES: usize = 80;

/// Most keys of one file.
const MAX_KEYS: usize = 1_000;

/// First line of the file in the state directory.
const HEADER: &str = "convey ticket keys 1";

/// What a ticket says of its key. It is sent in the clear.
pub type KeyName = [u8; 16];

/// The keys of tickets: one encrypts, all decrypt.
#[derive(Clone, PartialEq, Eq)]
pub struct TicketKeys {
    keys: Vec<TicketKey>,
    /// Index of the one that encrypts.
    current: usize,
}

#[derive(Clone, PartialEq, Eq)]
struct TicketKey {
    name: KeyName,
    secret: Vec<u8>,
    /// When it was made; `None`: somebody else looks after it.
    made: Option<SystemTime>,
}

/// Why bytes are no keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TicketKeyError {
    /// A shared file without a key.
    #[error("the file has no key: write one with `openssl rand -base64 80 | tr -d '\\n'`, one a line")]
    Empty,
    /// A line of a shared file that is no key.
    #[error(
        "line {line} is not a ticket key: that is 80 (or 48) random bytes in base64, as `openssl rand -base64 80 | tr -d '\\n'` writes them"
    )]
    Line {
        /// Line of the file, from 1.
        line: usize,
    },
    /// Two keys of one name.
    #[error("the key on line {line} is there twice")]
    Twice {
        /// Line of the file, from 1.
        line: usize,
    },
    /// More than [`MAX_KEYS`].
    #[error("the file has more than {MAX_KEYS} keys")]
    TooMany,
    /// A file of the state directory that this version did not write.
    #[error("this version of Convey did not write it")]
    NotState,
}

impl TicketKeys {
    /// One key of our own.
    #[must_use]
    pub fn new(now: SystemTime, random: [u8; KEY_BYTES]) -> Self {
        Self {
            keys: vec![TicketKey::own(now, random)],
            current: 0,
        }
    }

    /// The keys of our own after this time, if they change: a key encrypts for [`ROTATION`], and is kept until its last
    /// ticket has expired.
    #[must_use]
    pub fn rotated(&self, now: SystemTime, random: [u8; KEY_BYTES]) -> Option<Self> {
        self.next_rotation().filter(|due| {
            // one from the future (the clock was set back) would encrypt for too long
            *due <= now
                || due
                    .duration_since(now)
                    .is_ok_and(|wait| wait > ROTATION + CLOCK_SKEW)
        })?;
        let is_kept = |key: &&TicketKey| key.age(now).is_some_and(|age| age < KEPT);
        let mut keys = vec![TicketKey::own(now, random)];
        keys.extend(self.keys.iter().filter(is_kept).cloned());
        Some(Self { keys, current: 0 })
    }

    /// When they change next; `None` for those of a shared file, which change with it.
    #[must_use]
    pub fn next_rotation(&self) -> Option<SystemTime> {
        let newest = self.keys.get(self.current)?;
        newest.made?.checked_add(ROTATION)
    }

    /// How many keys there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.keys.len()
    }

    /// Keys of our own for the state directory. As secret as a private key: mode 0600.
    #[must_use]
    pub fn to_state(&self) -> Vec<u8> {
        let mut text = format!("{HEADER}\n");
        for key in &self.keys {
            let made = key.made.and_then(|made| made.duration_since(UNIX_EPOCH).ok());
            let bytes: Vec<u8> = key.name.iter().chain(&key.secret).copied().collect();
            text += &format!(
                "{} {}\n",
                made.unwrap_or_default().as_secs(),
                Base64::encode_string(&bytes)
            );
        }
        text.into_bytes()
    }

    /// Reads what [`to_state`](Self::to_state) wrote. Keys whose tickets have all expired are left out; `None` if that
    /// leaves nothing.
    ///
    /// # Errors
    /// Something else wrote it, or it is damaged.
    pub fn from_state(bytes: &[u8], now: SystemTime) -> Result<Option<Self>, TicketKeyError> {
        let text = std::str::from_utf8(bytes).map_err(|_| TicketKeyError::NotState)?;
        let lines = text.strip_prefix(HEADER).ok_or(TicketKeyError::NotState)?;
        let mut keys = Vec::new();
        for line in lines.lines().skip(1) {
            let (made, key) = line.split_once(' ').ok_or(TicketKeyError::NotState)?;
            let made = made.parse().map_err(|_| TicketKeyError::NotState)?;
            let made = UNIX_EPOCH
                .checked_add(Duration::from_secs(made))
                .ok_or(TicketKeyError::NotState)?;
            let random = <[u8; KEY_BYTES]>::try_from(decoded(key).ok_or(TicketKeyError::NotState)?)
                .map_err(|_| TicketKeyError::NotState)?;
            keys.push(TicketKey::own(made, random));
        }
        if keys.len() > MAX_KEYS {
            return Err(TicketKeyError::TooMany);
        }
        keys.retain(|key| key.age(now).is_some_and(|age| age < KEPT));
        Ok((!keys.is_empty()).then_some(Self { keys, current: 0 }))
    }

    /// Reads `ticket_keys_file`: one key a line, as HAProxy's `tls-ticket-keys` (base64 of 80 or 48 bytes), or one key of
    /// as many bytes, as nginx's `ssl_session_ticket_key`.
    ///
    /// As with HAProxy the last key but one encrypts, so that a new key at the end, which decrypts already, gets to every
    /// load balancer before one of them uses it; a lone key does both.
    ///
    /// # Errors
    /// It has no key, or a line that is none.
    pub fn from_shared(bytes: &[u8]) -> Result<Self, TicketKeyError> {
        // text may have the length of a key too; random bytes are never all text
        let is_text = bytes
            .iter()
            .all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace());
        if let Some(key) = TicketKey::shared(bytes).filter(|_| !is_text) {
            return Ok(Self {
                keys: vec![key],
                current: 0,
            });
        }
        let mut keys: Vec<TicketKey> = Vec::new();
        for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            let text = line.trim_ascii();
            if text.is_empty() || text.starts_with(b"#") {
                continue;
            }
            let line = index + 1;
            let key = std::str::from_utf8(text)
                .ok()
                .and_then(decoded)
                .and_then(|bytes| TicketKey::shared(&bytes))
                .ok_or(TicketKeyError::Line { line })?;
            if keys.len() == MAX_KEYS {
                return Err(TicketKeyError::TooMany);
            }
            if keys.iter().any(|other| other.name == key.name) {
                return Err(TicketKeyError::Twice { line });
            }
            keys.push(key);
        }
        let last = keys.len().checked_sub(1).ok_or(TicketKeyError::Empty)?;
        Ok(Self {
            keys,
            current: last.saturating_sub(1),
        })
    }

    /// The name of the key that encrypts.
    pub(super) fn current(&self) -> Option<KeyName> {
        self.keys.get(self.current).map(|key| key.name)
    }

    /// Names and AES-256 keys. The secrets of files have several lengths; HKDF
    /// (RFC 5869) makes one of them, and keeps them apart from what another program does with the same file.
    pub(super) fn derived(&self) -> Vec<(KeyName, [u8; 32])> {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"convey ticket key 1");
        let derive = |key: &TicketKey| {
            let mut derived = [0; 32];
            let secret = salt.extract(&key.secret);
            let info = [key.name.as_slice()];
            let expanded = secret.expand(&info, hkdf::HKDF_SHA256);
            // one block of the hash: it cannot be too long
            let filled = expanded.and_then(|output| output.fill(&mut derived));
            filled.ok().map(|()| (key.name, derived))
        };
        self.keys.iter().filter_map(derive).collect()
    }
}

impl TicketKey {
    fn own(made: SystemTime, random: [u8; KEY_BYTES]) -> Self {
        let (name, secret) = random.split_at(size_of::<KeyName>());
        Self {
            name: name.try_into().unwrap_or_default(),
            secret: secret.to_vec(),
            made: Some(made),
        }
    }

    fn shared(bytes: &[u8]) -> Option<Self> {
        let (name, secret) = bytes.split_first_chunk()?;
        matches!(bytes.len(), KEY_BYTES | LONG_KEY_BYTES).then(|| Self {
            name: *name,
            secret: secret.to_vec(),
            made: None,
        })
    }

    /// How old it is; 0 if it was made in the future.
    fn age(&self, now: SystemTime) -> Option<Duration> {
        self.made.map(|made| now.duration_since(made).unwrap_or_default())
    }
}

fn decoded(text: &str) -> Option<Vec<u8>> {
    Base64::decode_vec(text).ok()
}

impl fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketKeys")
            .field("keys", &self.keys.len())
            .finish_non_exhaustive()
    }
}
