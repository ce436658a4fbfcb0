//! Sessions of browsers. A browser keeps the key of its session in a cookie that no script reads, in place of the token; the
//! session ends with the token, after half a day, when somebody logs out, and when the daemon ends. No I/O, no clock.

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use aws_lc_rs::digest::{SHA256, digest};
use base64ct::{Base64UrlUnpadded, Encoding as _};

use crate::admin::caller::{SessionKey, TokenHash};

/// How long a session lasts.
pub const LIFETIME: Duration = Duration::from_secs(12 * 3_600);

/// Sessions at a time; a further one ends the oldest of its token, or the oldest of all.
const MOST: usize = 256;

/// Those of one token.
const MOST_OF_ONE: usize = 32;

/// Random bytes of a session.
pub const RANDOM_BYTES: usize = 32;

/// What a browser keeps. Nothing prints it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SessionId([u8; RANDOM_BYTES]);

/// Who has logged in.
#[derive(Debug, Default)]
pub struct Sessions(Mutex<HashMap<SessionKey, Session>>);

#[derive(Debug, Clone, Copy)]
struct Session {
    token: TokenHash,
    ends: Instant,
}

impl SessionId {
    /// Of random bytes.
    #[must_use]
    pub const fn new(random: [u8; RANDOM_BYTES]) -> Self {
        Self(random)
    }

    /// As a cookie has it; `None` if that is no id.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let mut bytes = [0; RANDOM_BYTES];
        let read = Base64UrlUnpadded::decode(text, &mut bytes).ok()?;
        (read.len() == RANDOM_BYTES).then_some(Self(bytes))
    }

    /// For the cookie, which is a secret.
    #[must_use]
    pub fn secret(&self) -> String {
        Base64UrlUnpadded::encode_string(&self.0)
    }

    /// By what it is found.
    #[must_use]
    pub fn key(&self) -> SessionKey {
        let mut key = [0; 32];
        for (byte, hashed) in key.iter_mut().zip(digest(&SHA256, &self.0).as_ref()) {
            *byte = *hashed;
        }
        SessionKey(key)
    }
}

impl Sessions {
    /// Begins a session of whoever has presented a token.
    pub fn begin(&self, id: &SessionId, token: TokenHash, now: Instant) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, session| session.ends > now);
        let of_token = all.values().filter(|session| session.token == token).count();
        if of_token >= MOST_OF_ONE {
            end_oldest(&mut all, |session| session.token == token);
        } else if all.len() >= MOST {
            end_oldest(&mut all, |_| true);
        }
        all.insert(
            id.key(),
            Session {
                token,
                ends: now + LIFETIME,
            },
        );
    }

    /// The token of a session, if that has not ended.
    #[must_use]
    pub fn token(&self, key: SessionKey, now: Instant) -> Option<TokenHash> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let session = all.get(&key).filter(|session| session.ends > now);
        session.map(|session| session.token)
    }

    /// Ends a session.
    pub fn end(&self, key: SessionKey) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(&key);
    }
}

fn end_oldest(all: &mut HashMap<SessionKey, Session>, of: impl Fn(&Session) -> bool) {
    let candidates = all.iter().filter(|(_, session)| of(session));
    let oldest = candidates
        .min_by_key(|(_, session)| session.ends)
        .map(|(key, _)| *key);
    if let Some(oldest) = oldest {
        all.remove(&oldest);
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionId")
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::tokens::{Token, Tokens},
        *,
    };
    use crate::base::Role;

    fn id(number: u16) -> SessionId {
        let mut bytes = [0; RANDOM_BYTES];
        bytes[..2].copy_from_slice(&number.to_be_bytes());
        SessionId::new(bytes)
    }

    fn hash(random: u8) -> TokenHash {
        let token = Token::new([random; 32]);
        let file = token.line("a", Role::Read).unwrap();
        let tokens = Tokens::parse(file.as_bytes()).unwrap();
        tokens.find(token.secret()).unwrap().hash
    }

    #[test]
    fn a_session_is_known_by_its_cookie_until_it_ends() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        let (ours, strange) = (id(1), id(2));
        sessions.begin(&ours, hash(1), now);
        let read = SessionId::read(&ours.secret()).unwrap();
        assert_eq!(sessions.token(read.key(), now), Some(hash(1)));
        assert_eq!(sessions.token(strange.key(), now), None);
        let last = now + LIFETIME - Duration::from_millis(1);
        assert!(sessions.token(ours.key(), last).is_some());
        assert_eq!(sessions.token(ours.key(), now + LIFETIME), None);
        sessions.end(ours.key());
        assert_eq!(sessions.token(ours.key(), now), None);
        for text in ["", "AAAA", "!", &"A".repeat(44), &"A".repeat(1_000)] {
            assert_eq!(SessionId::read(text), None, "{text}");
        }
        assert_eq!(format!("{ours:?} {:?}", ours.key()), "SessionId SessionKey");
    }

    #[test]
    fn many_logins_of_one_token_end_its_own_sessions_and_keep_others() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        let other = id(u16::MAX);
        sessions.begin(&other, hash(2), now);
        for number in 0..1_000 {
            let then = now + Duration::from_millis(number.into());
            sessions.begin(&id(number), hash(1), then);
        }
        assert_eq!(sessions.0.lock().unwrap().len(), MOST_OF_ONE + 1);
        assert_eq!(sessions.token(other.key(), now), Some(hash(2)));
        assert_eq!(sessions.token(id(999).key(), now), Some(hash(1)));
        assert_eq!(sessions.token(id(0).key(), now), None);
    }

    #[test]
    fn logins_of_many_tokens_keep_no_more_than_there_may_be() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        for number in 0..1_000_u16 {
            let token = hash(u8::try_from(number % 200).unwrap());
            let then = now + Duration::from_millis(number.into());
            sessions.begin(&id(number), token, then);
        }
        assert_eq!(sessions.0.lock().unwrap().len(), MOST);
        sessions.begin(&id(1_000), hash(0), now + LIFETIME * 2);
        assert_eq!(sessions.0.lock().unwrap().len(), 1, "those that have ended go");
    }
}
