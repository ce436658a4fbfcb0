//! The last events.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use tokio::sync::watch;

use crate::base::by_label;

/// Events that are kept.
const KEPT: usize = 1_024;

/// The events by which overrides, and servers added at run time, change: the last of these are kept besides.
const OVERRIDES: [&str; 6] = [
    "server_override",
    "backend_override",
    "overrides_cleared",
    "server_added",
    "server_removed",
    "overrides_restored",
];

/// Fields of an event that are kept.
const MAX_FIELDS: usize = 16;

/// Longest text of a message or field that is kept, in bytes.
const MAX_TEXT: usize = 1_024;

/// Names of events that are counted; there are about a hundred.
const MAX_NAMES: usize = 512;

/// How much an event matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Info,
    /// It may need a look.
    Warning,
    /// It needs one.
    Error,
}

/// An event.
#[derive(Debug, Clone, PartialEq)]
pub struct EventRecord {
    /// When it happened.
    pub at: SystemTime,
    /// How much it matters.
    pub level: Level,
    /// Its name.
    pub name: String,
    /// What the log says.
    pub message: String,
    /// What it names, by the names of the log's fields.
    pub fields: BTreeMap<&'static str, String>,
}

/// The last events.
#[derive(Debug)]
pub struct EventLog {
    kept: Mutex<Kept>,
    /// The number of the latest.
    news: watch::Sender<u64>,
}

#[derive(Debug)]
struct Kept {
    /// The number of the next.
    next: u64,
    /// The latest at the end.
    events: VecDeque<Arc<EventRecord>>,
    /// Those of [`OVERRIDES`], the latest at the end.
    overrides: VecDeque<(u64, Arc<EventRecord>)>,
    /// How many there were, by level and name.
    counts: BTreeMap<(Level, String), u64>,
}

/// Some events in the order of their numbers.
#[derive(Debug, Default)]
pub struct Found {
    /// They, with their numbers.
    pub events: Vec<(u64, Arc<EventRecord>)>,
    /// The number to go on after.
    pub last: u64,
    /// Whether some came after the number that was asked for, and are kept no more.
    pub is_gap: bool,
}

impl Level {
    /// Every level.
    pub const ALL: [Self; 3] = [Self::Info, Self::Warning, Self::Error];

    /// The label in the API and in metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

by_label!(Level, Level::ALL);

impl EventLog {
    /// An empty one of a process that began then. Its numbers begin at the microseconds since 1970: higher than those of the
    /// process before, which had less than one event a microsecond.
    #[must_use]
    pub fn new(begun: SystemTime) -> Self {
        let since = begun.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let before = u64::try_from(since.as_micros()).unwrap_or(0);
        Self {
            kept: Mutex::new(Kept {
                next: before + 1,
                events: VecDeque::new(),
                overrides: VecDeque::new(),
                counts: BTreeMap::new(),
            }),
            news: watch::Sender::new(before),
        }
    }

    /// Adds one, cut to the size that is kept, and forgets the oldest if there is no room. Never waits for readers.
    pub fn add(&self, mut event: EventRecord) {
        cut(&mut event.message);
        cut(&mut event.name);
        while event.fields.len() > MAX_FIELDS {
            event.fields.pop_last();
        }
        event.fields.values_mut().for_each(cut);
        let mut kept = self.lock();
        let (known, key) = (kept.counts.len(), (event.level, event.name.clone()));
        match kept.counts.get_mut(&key) {
            Some(count) => *count += 1,
            None if known < MAX_NAMES => drop(kept.counts.insert(key, 1)),
            None => {}
        }
        if kept.events.len() == KEPT {
            kept.events.pop_front();
        }
        let (event, number) = (Arc::new(event), kept.next);
        if OVERRIDES.contains(&&*event.name) {
            if kept.overrides.len() == KEPT {
                kept.overrides.pop_front();
            }
            kept.overrides.push_back((number, Arc::clone(&event)));
        }
        kept.events.push_back(event);
        kept.next += 1;
        self.news.send_replace(number);
    }

    /// Those after a number that are wanted, `most` of them: the first ones, or of all the last.
    #[must_use]
    pub fn after(&self, number: Option<u64>, most: usize, wanted: impl Fn(&EventRecord) -> bool) -> Found {
        let kept = self.lock();
        let first = kept.next - kept.events.len() as u64;
        let numbered = kept.events.iter().enumerate();
        let numbered = numbered.map(|(index, event)| (first + index as u64, event));
        let wanted = numbered.filter(|(_, event)| wanted(event));
        let own = |(number, event): (u64, &Arc<EventRecord>)| (number, Arc::clone(event));
        let Some(after) = number else {
            let mut events: Vec<_> = wanted.rev().take(most).map(own).collect();
            events.reverse();
            return Found {
                events,
                last: kept.next - 1,
                is_gap: false,
            };
        };
        let mut later = wanted.filter(|(number, _)| *number > after).map(own);
        let events: Vec<_> = later.by_ref().take(most).collect();
        let last = match (later.next(), events.last()) {
            (Some(_), Some((number, _))) => *number,
            _ => kept.next - 1,
        };
        Found {
            events,
            last,
            is_gap: after.saturating_add(1) < first,
        }
    }

    /// The last by which overrides have changed, whatever else has happened since.
    #[must_use]
    pub fn overrides(&self) -> Found {
        let kept = self.lock();
        Found {
            events: kept.overrides.iter().cloned().collect(),
            last: kept.next - 1,
            is_gap: kept.overrides.len() == KEPT,
        }
    }

    /// Tells when there is a later one than was seen.
    #[must_use]
    pub fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// How many there were, by level and name.
    #[must_use]
    pub fn counts(&self) -> Vec<(Level, String, u64)> {
        let kept = self.lock();
        let counts = kept.counts.iter();
        counts
            .map(|((level, name), count)| (*level, name.clone(), *count))
            .collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn cut(text: &mut String) {
    if text.len() > MAX_TEXT {
        let end = (0..=MAX_TEXT).rev().find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or(0));
        text.push('…');
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn event(name: &str) -> EventRecord {
        EventRecord {
            at: SystemTime::UNIX_EPOCH,
            level: Level::Info,
            name: name.to_owned(),
            message: name.repeat(2),
            fields: BTreeMap::from([("backend", "web".to_owned())]),
        }
    }

    fn names(some: &Found) -> Vec<&str> {
        some.events.iter().map(|(_, event)| event.name.as_str()).collect()
    }

    fn log(count: usize) -> EventLog {
        let log = EventLog::new(SystemTime::UNIX_EPOCH + Duration::from_micros(100));
        for number in 0..count {
            log.add(event(&format!("e{number}")));
        }
        log
    }

    #[test]
    fn what_was_overridden_is_known_whatever_else_has_happened_since() {
        let log = EventLog::new(SystemTime::UNIX_EPOCH);
        let named = |name: &str| EventRecord {
            at: SystemTime::UNIX_EPOCH,
            level: Level::Info,
            name: name.to_owned(),
            message: String::new(),
            fields: BTreeMap::new(),
        };
        log.add(named("server_override"));
        (0..KEPT * 2).for_each(|_| log.add(named("admin")));
        log.add(named("overrides_cleared"));
        let found = log.overrides();
        let names: Vec<_> = found
            .events
            .iter()
            .map(|(number, event)| (*number, &*event.name))
            .collect();
        assert_eq!(
            names,
            [(1, "server_override"), (KEPT as u64 * 2 + 2, "overrides_cleared")]
        );
        (0..KEPT * 2).for_each(|_| log.add(named("server_override")));
        assert_eq!(log.overrides().events.len(), KEPT);
    }

    #[test]
    fn without_a_number_the_last_ones_are_told() {
        let some = log(5).after(None, 2, |_| true);
        assert_eq!(
            (names(&some), some.last, some.is_gap),
            (vec!["e3", "e4"], 105, false)
        );
    }

    #[test]
    fn after_a_number_the_next_ones_are_told_and_where_to_go_on() {
        let log = log(5);
        let some = log.after(Some(101), 2, |_| true);
        assert_eq!((names(&some), some.last), (vec!["e1", "e2"], 103));
        let some = log.after(Some(some.last), 2, |_| true);
        assert_eq!((names(&some), some.last), (vec!["e3", "e4"], 105));
        assert!(names(&log.after(Some(some.last), 2, |_| true)).is_empty());
    }

    #[test]
    fn what_is_not_wanted_is_passed_over_and_not_asked_for_again() {
        let some = log(5).after(Some(100), 10, |event| event.name == "e1");
        assert_eq!((names(&some), some.last), (vec!["e1"], 105));
    }

    #[test]
    fn the_oldest_are_forgotten_and_who_has_missed_them_is_told() {
        let log = log(KEPT + 3);
        assert_eq!(log.after(Some(0), usize::MAX, |_| true).events.len(), KEPT);
        for (after, is_gap) in [(102, true), (103, false), (104, false), (0, true)] {
            assert_eq!(log.after(Some(after), 1, |_| true).is_gap, is_gap, "{after}");
        }
    }

    #[test]
    fn numbers_go_on_over_a_restart() {
        let before = log(3).after(None, 1, |_| true).last;
        let later = EventLog::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1));
        later.add(event("new"));
        let some = later.after(Some(before), 10, |_| true);
        assert_eq!(names(&some), ["new"]);
        assert!(some.is_gap, "nobody knows what came between");
    }

    #[test]
    fn what_is_kept_has_a_limit() {
        let log = log(0);
        let long = EventRecord {
            message: "ü".repeat(MAX_TEXT),
            ..event("long")
        };
        log.add(long);
        let some = log.after(None, 1, |_| true);
        assert!(some.events[0].1.message.len() <= MAX_TEXT + 3);
        for number in 0..MAX_NAMES * 2 {
            log.add(event(&number.to_string()));
        }
        assert_eq!(log.counts().len(), MAX_NAMES);
    }

    #[test]
    fn all_are_counted_also_those_that_are_forgotten() {
        let log = log(0);
        for _ in 0..KEPT * 2 {
            log.add(event("same"));
        }
        assert_eq!(log.counts(), [(Level::Info, "same".to_owned(), 2_048)]);
    }
}
