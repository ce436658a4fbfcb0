//! Sessions of browsers. A browser keeps the key of its session in a cookie that no script reads, in place of the token; the
//! session ends with the token, after half a day, when somebody logs out, and when the daemon ends. No I/O, no clock.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use aws_lc_rs::digest::{SHA256, digest};
use base64ct::{Base64UrlUnpadded, Encoding as _};

use super::tokens::Tokens;
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

/// Logins of one token in a minute; more are refused, for each is told in the log.
const LOGINS: u32 = 20;

/// In so long.
const MINUTE: Duration = Duration::from_secs(60);

/// Who has logged in.
#[derive(Debug, Default)]
pub struct Sessions(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    sessions: HashMap<SessionKey, Session>,
    /// When a token began to log in, and how often since: those of the last minute.
    logins: HashMap<TokenHash, (Instant, u32)>,
    /// The tokens that there were at the last request.
    tokens: Option<Arc<Tokens>>,
}

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
    /// Ends the sessions of tokens that are none any more; `None`: nobody needs one.
    pub fn follow(&self, tokens: Option<&Arc<Tokens>>) {
        let mut state = self.lock();
        let is_known = match (&state.tokens, tokens) {
            (Some(before), Some(now)) => Arc::ptr_eq(before, now),
            (None, None) => true,
            _ => false,
        };
        if !is_known {
            let is_one = |token| tokens.is_some_and(|tokens| tokens.holder(token).is_some());
            state.sessions.retain(|_, session| is_one(session.token));
            state.tokens = tokens.map(Arc::clone);
        }
    }

    /// Begins a session of whoever has presented a token; false if that has logged in too often.
    #[must_use]
    pub fn begin(&self, id: &SessionId, token: TokenHash, now: Instant) -> bool {
        let mut state = self.lock();
        state
            .logins
            .retain(|_, (begun, _)| now.saturating_duration_since(*begun) < MINUTE);
        let (_, count) = state.logins.entry(token).or_insert((now, 0));
        if *count >= LOGINS {
            return false;
        }
        *count += 1;
        let all = &mut state.sessions;
        all.retain(|_, session| session.ends > now);
        let of_token = all.values().filter(|session| session.token == token).count();
        if of_token >= MOST_OF_ONE {
            end_oldest(all, |session| session.token == token);
        } else if all.len() >= MOST {
            end_oldest(all, |_| true);
        }
        all.insert(
            id.key(),
            Session {
                token,
                ends: now + LIFETIME,
            },
        );
        true
    }

    /// The token of a session, if that has not ended.
    #[must_use]
    pub fn token(&self, key: SessionKey, now: Instant) -> Option<TokenHash> {
        let state = self.lock();
        let session = state.sessions.get(&key).filter(|session| session.ends > now);
        session.map(|session| session.token)
    }

    /// Ends a session.
    pub fn end(&self, key: SessionKey) {
        self.lock().sessions.remove(&key);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
        assert!(sessions.begin(&ours, hash(1), now));
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
        assert!(sessions.begin(&other, hash(2), now));
        for number in 0..1_000 {
            let then = now + Duration::from_secs(u64::from(number) * 4);
            assert!(sessions.begin(&id(number), hash(1), then));
        }
        assert_eq!(sessions.lock().sessions.len(), MOST_OF_ONE + 1);
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
            assert!(sessions.begin(&id(number), token, then));
        }
        assert_eq!(sessions.lock().sessions.len(), MOST);
        assert!(sessions.begin(&id(1_000), hash(0), now + LIFETIME * 2));
        assert_eq!(sessions.lock().sessions.len(), 1, "those that have ended go");
    }

    #[test]
    fn a_token_that_logs_in_all_the_time_is_refused_for_a_while_and_others_are_not() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        let begun = (0..1_000).filter(|number| sessions.begin(&id(*number), hash(1), now));
        assert_eq!(begun.count(), usize::try_from(LOGINS).unwrap());
        assert!(sessions.begin(&id(2_000), hash(2), now));
        assert!(sessions.begin(&id(2_001), hash(1), now + MINUTE));
    }

    #[test]
    fn a_session_ends_with_its_token_also_if_that_comes_back() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        let tokens = |random: u8| {
            let line = Token::new([random; 32]).line("a", Role::Read).unwrap();
            Arc::new(Tokens::parse(line.as_bytes()).unwrap())
        };
        let (first, second) = (tokens(1), tokens(2));
        sessions.follow(Some(&first));
        assert!(sessions.begin(&id(1), hash(1), now));
        sessions.follow(Some(&first));
        assert!(sessions.token(id(1).key(), now).is_some());
        sessions.follow(Some(&second));
        sessions.follow(Some(&first));
        assert!(sessions.token(id(1).key(), now).is_none());
    }
}
