//! What virtual servers, their servers and checks have in common: times, and keywords that only need a note.

use std::time::Duration;

use super::blocks::Entry;
use crate::import::{At, DirectiveId, Draft, NoteKind, lvs::Placed};

/// Notes that are made once it is known where.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    notes: Vec<(DirectiveId, NoteKind, &'static str)>,
}

impl Settings {
    /// Convey has nothing for it.
    pub fn no_equal(&mut self, id: DirectiveId, text: &'static str) {
        self.notes.push((id, NoteKind::NoEqual, text));
    }

    /// It means something else here.
    pub fn differs(&mut self, id: DirectiveId, text: &'static str) {
        self.notes.push((id, NoteKind::Differs, text));
    }

    /// Makes the notes, in the backend.
    pub fn notes(&self, placed: &Placed, draft: &mut Draft) {
        for (id, kind, text) in &self.notes {
            let at = At::In(placed.backend);
            match kind {
                NoteKind::Differs => draft.differs(*id, at, text),
                NoteKind::NoEqual => draft.no_equal(*id, at, text),
            }
        }
    }
}

/// Times of checks, each with what says it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Timers {
    /// Between two checks.
    pub delay_loop: Option<Duration>,
    /// Of one check.
    pub connect_timeout: Option<Duration>,
    /// Checks after the first failed one.
    pub retry: Option<u64>,
    /// Between those.
    pub delay_before_retry: Option<Duration>,
    /// Whether a server is down until its first check.
    pub alpha: Option<bool>,
}

impl Timers {
    /// Takes an entry that is one of them.
    pub fn take(
        &mut self,
        entry: &Entry,
        id: DirectiveId,
        settings: &mut Settings,
        draft: &mut Draft,
    ) -> bool {
        let word = entry.word(1);
        let is_read = match entry.keyword() {
            "delay_loop" => read(&mut self.delay_loop, word.and_then(seconds)),
            "connect_timeout" => read(&mut self.connect_timeout, word.and_then(seconds)),
            "retry" | "nb_get_retry" => read(&mut self.retry, word.and_then(|word| word.parse().ok())),
            "delay_before_retry" => read(&mut self.delay_before_retry, word.and_then(seconds)),
            "alpha" => read(&mut self.alpha, flag(entry)),
            "warmup" => {
                settings.differs(id, "Convey spreads the first checks by itself");
                return true;
            }
            "log_all_failures" => {
                settings.no_equal(id, "Convey logs changes of a server's state, with the reason");
                return true;
            }
            _ => return false,
        };
        match is_read {
            true => draft.translated(id),
            false => settings.no_equal(id, "its value cannot be read"),
        }
        true
    }

    /// With what an outer block says where this one says nothing.
    pub fn within(&self, outer: &Self) -> Self {
        Self {
            delay_loop: self.delay_loop.or(outer.delay_loop),
            connect_timeout: self.connect_timeout.or(outer.connect_timeout),
            retry: self.retry.or(outer.retry),
            delay_before_retry: self.delay_before_retry.or(outer.delay_before_retry),
            alpha: self.alpha.or(outer.alpha),
        }
    }
}

fn read<T>(place: &mut Option<T>, value: Option<T>) -> bool {
    let is_read = value.is_some();
    *place = value.or(place.take());
    is_read
}

/// True or false; true without a word.
pub fn flag(entry: &Entry) -> Option<bool> {
    match entry.word(1) {
        None | Some("on" | "true" | "yes") => Some(true),
        Some("off" | "false" | "no") => Some(false),
        Some(_) => None,
    }
}

/// Seconds with a fraction or without, of at most a year.
pub fn seconds(text: &str) -> Option<Duration> {
    let seconds: f64 = text.parse().ok()?;
    let duration = Duration::try_from_secs_f64(seconds).ok()?;
    let year = Duration::from_secs(365 * 86_400);
    // Convey goes by milliseconds
    let millis = u64::try_from(duration.min(year).as_millis()).ok()?;
    Some(Duration::from_millis(millis))
}
