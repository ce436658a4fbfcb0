//! What runs out, or keeps packets from a server: counters that grow. Pure.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::base::{Alert, FrontendName, ServerKey};

/// How long it counts as lasting after a counter has grown, and the time between two warnings of one.
pub const MINUTE: Duration = Duration::from_secs(60);

/// An alert, and what it concerns.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Case {
    /// What it concerns.
    pub subject: Subject,
    /// What it is.
    pub alert: Alert,
}

/// What an alert concerns.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Subject {
    /// The packet modes as a whole.
    All,
    /// One server.
    Server(ServerKey),
    /// One frontend.
    Frontend(FrontendName),
}

/// A warning that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortage {
    /// What, and where.
    pub case: Case,
    /// Packets dropped, or connections refused, since the last warning.
    pub packets: u64,
}

/// The cases whose counters have ever grown.
#[derive(Debug, Default)]
pub struct Shortages(HashMap<Case, Spell>);

/// A counter, and what was said of it.
#[derive(Debug, Clone)]
struct Spell {
    counted: u64,
    /// Since the last warning.
    untold: u64,
    first: Instant,
    last: Instant,
    warned: Option<Instant>,
}

impl Shortages {
    /// Takes the counters as they are now. Gives the warnings that are due: at most one a minute of each case. What has
    /// no counter any more is forgotten.
    pub fn look(&mut self, counters: impl Iterator<Item = (Case, u64)>, now: Instant) -> Vec<Shortage> {
        let mut before = std::mem::take(&mut self.0);
        let mut due = Vec::new();
        for (case, count) in counters.filter(|(_, count)| *count > 0) {
            let mut spell = before.remove(&case).unwrap_or(Spell {
                counted: 0,
                untold: 0,
                first: now,
                last: now,
                warned: None,
            });
            // one that is below its earlier value has begun anew
            let grown = count.checked_sub(spell.counted).unwrap_or(count);
            spell.counted = count;
            if grown > 0 {
                due.extend(spell.grow(&case, grown, now));
            }
            self.0.insert(case, spell);
        }
        due
    }

    /// The cases of the last minute.
    pub fn lasting(&self, now: Instant) -> impl Iterator<Item = Case> {
        let lasts = move |spell: &Spell| spell.is_said() && now.duration_since(spell.last) < MINUTE;
        let lasting = self.0.iter().filter(move |(_, spell)| lasts(spell));
        lasting.map(|(case, _)| case.clone())
    }
}

impl Spell {
    /// The counter has grown. A warning if one is due.
    fn grow(&mut self, case: &Case, packets: u64, now: Instant) -> Option<Shortage> {
        if now.duration_since(self.last) >= MINUTE {
            self.first = now;
        }
        self.last = now;
        self.untold += packets;
        // a server that is new, or back, has its next hop after a packet or two
        let may_pass = case.alert == Alert::NextHop && self.first == now;
        let is_early = (self.warned).is_some_and(|warned| now.duration_since(warned) < MINUTE);
        if may_pass || is_early {
            return None;
        }
        self.warned = Some(now);
        Some(Shortage {
            case: case.clone(),
            packets: std::mem::take(&mut self.untold),
        })
    }

    /// Whether the log has it: what passes at once is not noted either.
    fn is_said(&self) -> bool {
        self.warned.is_some_and(|warned| warned + MINUTE > self.first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(alert: Alert) -> Case {
        Case {
            subject: Subject::All,
            alert,
        }
    }

    /// Looks every five seconds at one counter, and gives when was warned, of how many packets.
    fn warnings(alert: Alert, counter: &[u64]) -> Vec<(u64, u64)> {
        let (mut shortages, start) = (Shortages::default(), Instant::now());
        let mut said = Vec::new();
        for (turn, count) in (0..).zip(counter) {
            let now = start + Duration::from_secs(5 * turn);
            let due = shortages.look([(case(alert), *count)].into_iter(), now);
            said.extend(due.iter().map(|shortage| (5 * turn, shortage.packets)));
        }
        said
    }

    #[test]
    fn what_runs_out_is_warned_of_at_once_and_then_once_a_minute_with_all_that_was_lost() {
        let steadily: Vec<u64> = (0..30).map(|turn| turn * 10).collect();
        assert_eq!(
            warnings(Alert::NatPorts, &steadily),
            [(5, 10), (65, 120), (125, 120)]
        );
        assert_eq!(warnings(Alert::NatPorts, &[7; 30]), [(0, 7)], "it was over");
        assert_eq!(warnings(Alert::FlowTable, &[0; 30]), []);
    }

    #[test]
    fn a_counter_that_begins_anew_is_counted_from_nothing() {
        let mut counter = vec![100; 14];
        counter.push(3);
        assert_eq!(warnings(Alert::FlowTable, &counter), [(0, 100), (70, 3)]);
    }

    #[test]
    fn a_next_hop_that_is_found_soon_is_not_warned_of() {
        assert_eq!(warnings(Alert::NextHop, &[0, 2, 2, 2, 2]), []);
        assert_eq!(warnings(Alert::NextHop, &[0, 2, 2, 5]), [(15, 5)]);
        let mut counter = vec![2; 20];
        counter.push(4);
        assert_eq!(
            warnings(Alert::NextHop, &counter),
            [],
            "more than a minute between them"
        );
    }

    #[test]
    fn a_shortage_is_noted_until_it_has_been_over_for_a_minute() {
        let (mut shortages, start) = (Shortages::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let counted = |count| [(case(Alert::NatPorts), count)].into_iter();
        shortages.look(counted(1), at(0));
        shortages.look(counted(2), at(30));
        let noted = |shortages: &Shortages, now| shortages.lasting(now).collect::<Vec<_>>();
        assert_eq!(noted(&shortages, at(89)), [case(Alert::NatPorts)]);
        assert_eq!(noted(&shortages, at(90)), []);
        shortages.look(std::iter::empty(), at(31));
        assert_eq!(noted(&shortages, at(31)), [], "its server has gone");
    }

    #[test]
    fn what_was_not_said_is_not_noted() {
        let (mut shortages, start) = (Shortages::default(), Instant::now());
        let counted = |count| [(case(Alert::NextHop), count)].into_iter();
        assert_eq!(shortages.look(counted(1), start), []);
        assert_eq!(shortages.lasting(start).count(), 0);
        let later = start + Duration::from_secs(5);
        assert_eq!(shortages.look(counted(2), later).len(), 1);
        assert_eq!(shortages.lasting(later).count(), 1);
    }
}
