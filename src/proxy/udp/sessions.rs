//! Which sessions there are and when each ends: no I/O, no clock.
//!
//! A session takes datagrams of its client until it has had `max_requests`; then its key is free for another one, and it
//! still has answers until `max_responses` or its idle time is over.

use std::{collections::HashMap, num::NonZeroU32};

use super::wheel::{Millis, Wheel};
use crate::proxy::owners::SessionKey;

/// A session, for as long as it lives: the same is never given to two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId {
    index: u32,
    generation: u32,
}

/// When a session ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionLimits {
    /// Time without a datagram of either side.
    pub idle: Millis,
    /// Time after which it ends whatever comes.
    pub lifetime: Option<Millis>,
    /// Datagrams of the client.
    pub max_requests: Option<NonZeroU32>,
    /// Datagrams of the server.
    pub max_responses: Option<NonZeroU32>,
}

/// Datagrams of a client that a session takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// Which one.
    pub session: SessionId,
    /// How many of them; at least one.
    pub taken: u32,
    /// Whether it takes no more of them: its key is free.
    pub is_last: bool,
}

/// Datagrams of a server that a session passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Response {
    /// How many of them.
    pub taken: u32,
    /// Whether it has had all: it is to be ended.
    pub is_last: bool,
}

/// A session that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Its key.
    pub key: SessionKey,
    /// Whether it still had it.
    pub had_key: bool,
}

#[derive(Debug)]
struct Session {
    key: SessionKey,
    limits: SessionLimits,
    requests: u32,
    responses: u32,
    begun: Millis,
    last: Millis,
    has_key: bool,
}

impl Session {
    /// When its lifetime is over; `None`: never.
    fn dies(&self) -> Option<Millis> {
        Some(self.begun.saturating_add(self.limits.lifetime?))
    }

    /// When it ends if nothing comes any more.
    fn due(&self) -> Millis {
        let idle = self.last.saturating_add(self.limits.idle);
        self.dies().map_or(idle, |dies| dies.min(idle))
    }
}

#[derive(Debug)]
struct Entry {
    generation: u32,
    session: Option<Session>,
}

/// The sessions of one thread.
#[derive(Debug, Default)]
pub struct Sessions {
    by_key: HashMap<SessionKey, u32>,
    entries: Vec<Entry>,
    free: Vec<u32>,
    wheel: Wheel,
    /// The generation of entries that are made: above that of every session before.
    generation: u32,
}

impl SessionId {
    /// The place of the session among all; another may have it later.
    #[must_use]
    pub const fn index(self) -> usize {
        self.index as usize
    }

    /// As a number, below 2^63.
    #[must_use]
    pub const fn to_number(self) -> u64 {
        ((self.generation as u64) << 32) | self.index as u64
    }

    /// From a number.
    #[must_use]
    pub const fn from_number(number: u64) -> Self {
        Self {
            index: number as u32,
            generation: (number >> 32) as u32 & GENERATIONS,
        }
    }
}

/// Generations begin anew after these.
const GENERATIONS: u32 = (1 << 31) - 1;

impl Sessions {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// How many of the client's datagrams, of which there is one at least, its session takes; `None` if it has none.
    pub fn request(&mut self, key: &SessionKey, datagrams: u32, now: Millis) -> Option<Request> {
        let index = *self.by_key.get(key)?;
        let entry = self.entries.get_mut(index as usize)?;
        let session = entry.session.as_mut()?;
        session.last = session.last.max(now);
        let left = session
            .limits
            .max_requests
            .map_or(u32::MAX, |most| most.get() - session.requests);
        let taken = datagrams.min(left);
        let is_last = taken == left && session.limits.max_requests.is_some();
        if session.limits.max_requests.is_some() {
            session.requests += taken;
        }
        session.has_key = !is_last;
        let session = SessionId {
            index,
            generation: entry.generation,
        };
        if is_last {
            self.by_key.remove(key);
        }
        Some(Request {
            session,
            taken,
            is_last,
        })
    }

    /// Begins a session. The key must be free.
    pub fn open(&mut self, key: SessionKey, limits: SessionLimits, now: Millis) -> SessionId {
        let session = Session {
            key,
            limits,
            requests: 0,
            responses: 0,
            begun: now,
            last: now,
            has_key: true,
        };
        let due = session.due();
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                // a process has fewer descriptors than numbers
                let index = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
                self.entries.push(Entry {
                    generation: self.generation,
                    session: None,
                });
                index
            }
        };
        let replaced = self.by_key.insert(key, index);
        debug_assert!(replaced.is_none(), "the key is free");
        let mut generation = 0;
        if let Some(entry) = self.entries.get_mut(index as usize) {
            generation = entry.generation;
            entry.session = Some(session);
        }
        self.wheel.insert(index, due, now);
        SessionId { index, generation }
    }

    /// How many of the server's datagrams a session passes; `None` if it has ended.
    pub fn response(&mut self, id: SessionId, datagrams: u32, now: Millis) -> Option<Response> {
        let session = self.get_mut(id)?;
        session.last = session.last.max(now);
        let Some(most) = session.limits.max_responses else {
            return Some(Response {
                taken: datagrams,
                is_last: false,
            });
        };
        let taken = datagrams.min(most.get() - session.responses);
        session.responses += taken;
        let is_last = session.responses == most.get();
        Some(Response { taken, is_last })
    }

    /// Ends a session; `None` if it has ended before.
    pub fn end(&mut self, id: SessionId) -> Option<Ended> {
        self.get_mut(id)?;
        let entry = self.entries.get_mut(id.index())?;
        let session = entry.session.take()?;
        entry.generation = (entry.generation + 1) & GENERATIONS;
        self.generation = self.generation.max(entry.generation);
        self.wheel.remove(id.index);
        self.free.push(id.index);
        if session.has_key {
            self.by_key.remove(&session.key);
        }
        if self.len() == 0 {
            // what a flood has taken goes back
            let generation = (self.generation + 1) & GENERATIONS;
            *self = Self {
                generation,
                ..Self::default()
            };
        }
        Some(Ended {
            key: session.key,
            had_key: session.has_key,
        })
    }

    /// Appends sessions whose idle time or lifetime is over; they are to be ended. Looks at `most` at a time: true if there may be more.
    pub fn expired(&mut self, now: Millis, most: usize, out: &mut Vec<SessionId>) -> bool {
        for _ in 0..most {
            let Some(index) = self.wheel.pop_due(now) else {
                return false;
            };
            let Some(entry) = self.entries.get(index as usize) else {
                continue;
            };
            let Some(session) = &entry.session else { continue };
            let due = session.due();
            if due <= now {
                out.push(SessionId {
                    index,
                    generation: entry.generation,
                });
            } else {
                self.wheel.insert(index, due, now);
            }
        }
        true
    }

    /// Whether a session's lifetime is over.
    #[must_use]
    pub fn has_lived(&self, id: SessionId, now: Millis) -> bool {
        let entry = self.entries.get(id.index());
        let entry = entry.filter(|entry| entry.generation == id.generation);
        let session = entry.and_then(|entry| entry.session.as_ref());
        session.and_then(Session::dies).is_some_and(|dies| dies <= now)
    }

    /// When to look for them next; `None`: there are no sessions.
    #[must_use]
    pub fn next_look(&self) -> Option<Millis> {
        self.wheel.next_due()
    }

    /// Every session with its key, and when its last datagram came.
    pub fn iter(&self) -> impl Iterator<Item = (SessionId, &SessionKey, Millis)> {
        self.entries.iter().zip(0_u32..).filter_map(|(entry, index)| {
            let session = entry.session.as_ref()?;
            let generation = entry.generation;
            Some((SessionId { index, generation }, &session.key, session.last))
        })
    }

    /// The key of a session.
    #[must_use]
    pub fn key(&self, id: SessionId) -> Option<SessionKey> {
        let entry = self.entries.get(id.index())?;
        let session = entry
            .session
            .as_ref()
            .filter(|_| entry.generation == id.generation)?;
        Some(session.key)
    }

    fn get_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        let entry = self.entries.get_mut(id.index())?;
        entry
            .session
            .as_mut()
            .filter(|_| entry.generation == id.generation)
    }
}

#[cfg(test)]
#[path = "tests/sessions.rs"]
mod tests;
