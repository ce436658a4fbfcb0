//! What the program has counted of each target, and what is new of that. Pure.
//!
//! The program does not see a DSR flow end: the map drops the one unused for longest without a word. So ends are what is
//! missing: flows that had begun when a scan of the map began, less those that it has found. Passthrough flows it ends itself.
//! Of flows that were taken over, whoever opened them may have died before it had counted them: there scans tell how many may
//! be open, and that is what counts, until a scan leaves no doubt and finds nothing to put right.

use std::collections::HashMap;

use super::{layout::TrafficValue, numbers::Numbered, registry::Counted};
use crate::flow::SeenElsewhere;

/// Accounts by the number of the target.
#[derive(Debug, Default)]
pub struct Accounts(HashMap<u16, Account>);

/// What is to be counted of a target.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    /// Which target of its number it is.
    pub incarnation: u32,
    /// Its mode.
    pub is_dsr: bool,
    /// What the program's counters stand at.
    pub traffic: TrafficValue,
    /// Flows that the slow path has put into the maps, and counted, since it has its number.
    pub put_in: u64,
    /// Whether anybody hears what is counted of it.
    pub is_heard: bool,
}

impl Reading {
    /// Of a target with a number, without the program's counters.
    #[must_use]
    pub fn of(numbered: &Numbered) -> Self {
        Self {
            incarnation: numbered.incarnation,
            is_dsr: numbered.is_dsr,
            traffic: TrafficValue::default(),
            put_in: numbered.opened_here,
            is_heard: !numbered.is_left_behind,
        }
    }
}

/// Live flows of a target that a scan has found and that had begun before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Found {
    /// Those that have surely been counted as opened before.
    pub surely: u64,
    /// And those that may have been.
    pub at_most: u64,
}

#[derive(Debug, Default)]
struct Account {
    incarnation: u32,
    is_dsr: bool,
    /// The program's counters when they were last read: they go on when another target has the number.
    last: TrafficValue,
    put_in: u64,
    /// Flows that have begun, and those that were taken over.
    opened: u64,
    /// Those of them that have ended: never more.
    closed: u64,
    /// Ends that the program has counted, of flows that are not counted as opened yet.
    early: u64,
    /// All ends that the program has counted.
    ended: u64,
    /// Flows that are open have been counted as opened where somebody hears it.
    is_heard: bool,
    /// What was taken over is not known to be right yet.
    is_doubtful: bool,
    /// `opened` and `ended` when the scan began.
    at_scan: Option<(u64, u64)>,
    /// What was last noted for whoever comes after.
    noted: Option<Counted>,
}

impl Account {
    /// Of a target that has its number now.
    const fn new(reading: &Reading, last: TrafficValue) -> Self {
        Self {
            incarnation: reading.incarnation,
            is_dsr: reading.is_dsr,
            last,
            put_in: 0,
            opened: 0,
            closed: 0,
            early: 0,
            ended: 0,
            is_heard: true,
            is_doubtful: false,
            at_scan: None,
            noted: None,
        }
    }

    const fn open(&self) -> u64 {
        self.opened.saturating_sub(self.closed)
    }

    fn read(&mut self, reading: &Reading) -> SeenElsewhere {
        let now = reading.traffic;
        let last = std::mem::replace(&mut self.last, now);
        let new = |now: u64, last: u64| now.wrapping_sub(last);
        let begun = new(now.opened, last.opened).saturating_add(new(now.nat_opened, last.nat_opened));
        let ended = new(now.nat_closed, last.nat_closed);
        let put_in = reading
            .put_in
            .saturating_sub(std::mem::replace(&mut self.put_in, reading.put_in));
        self.opened = self.opened.saturating_add(begun).saturating_add(put_in);
        self.ended = self.ended.wrapping_add(ended);
        self.early = self.early.saturating_add(ended);
        let closed = self.early.min(self.open());
        self.early -= closed;
        self.closed += closed;
        if !reading.is_heard {
            return SeenElsewhere::default();
        }
        // those of the slow path are counted by that
        let (opened, closed) = match std::mem::replace(&mut self.is_heard, true) {
            true => (begun, closed),
            false => (
                self.open().saturating_sub(self.put_in),
                self.put_in.saturating_sub(self.open()),
            ),
        };
        SeenElsewhere {
            opened,
            closed,
            bytes: new(now.bytes, last.bytes),
            bytes_out: new(now.bytes_out, last.bytes_out),
            completed: new(now.completed, last.completed),
            unanswered: new(now.unanswered, last.unanswered),
            unacknowledged: new(now.unacknowledged, last.unacknowledged),
            dsr_completed: new(now.dsr_completed, last.dsr_completed),
            dsr_incomplete: new(now.dsr_incomplete, last.dsr_incomplete),
        }
    }

    /// Takes in how many flows a scan has found. What has opened or ended beyond what was counted.
    fn correct(&mut self, found: Found) -> SeenElsewhere {
        let Some((opened, ended)) = self.at_scan.take() else {
            return SeenElsewhere::default();
        };
        let begun = self.opened.saturating_sub(opened);
        let at_most = found.at_most.saturating_add(begun);
        let open = self.open();
        let right = if self.is_doubtful {
            let ended = self.ended.wrapping_sub(ended);
            let at_least = found
                .surely
                .saturating_add(begun)
                .saturating_sub(ended)
                .min(at_most);
            let right = open
                .saturating_sub(std::mem::take(&mut self.early))
                .clamp(at_least, at_most);
            self.is_doubtful = at_least < at_most || right != open;
            right
        } else if self.is_dsr {
            open.min(at_most)
        } else {
            open
        };
        let (more, less) = (right.saturating_sub(open), open.saturating_sub(right));
        self.opened = self.opened.saturating_add(more);
        self.closed += less;
        self.heard(more, less)
    }

    fn heard(&self, opened: u64, closed: u64) -> SeenElsewhere {
        let (opened, closed) = if self.is_heard { (opened, closed) } else { (0, 0) };
        SeenElsewhere {
            opened,
            closed,
            ..SeenElsewhere::default()
        }
    }

    /// How far it has been counted, if that is something else than what was noted.
    fn take_new(&mut self) -> Option<Counted> {
        let counted = Counted {
            traffic: self.last,
            incarnation: self.incarnation,
            open: self.open(),
        };
        (self.noted.replace(counted) != Some(counted)).then_some(counted)
    }
}

impl Accounts {
    /// Takes in how a number stands. Gives what is new, which is nothing at the first time; ends of DSR flows are not among it.
    pub fn read(&mut self, number: u16, reading: &Reading) -> SeenElsewhere {
        let account = self.0.entry(number);
        let account = account.or_insert_with(|| Account::new(reading, reading.traffic));
        if account.incarnation != reading.incarnation {
            *account = Account::new(reading, account.last);
        }
        account.read(reading)
    }

    /// Takes over how far an engine before this one has counted a target, `most` flows of which can be open. `reading`: how it
    /// stands now.
    pub fn take_over(&mut self, number: u16, reading: &Reading, counted: &Counted, most: u64) {
        let is_same = counted.incarnation == reading.incarnation;
        let account = Account {
            opened: if is_same { counted.open.min(most) } else { 0 },
            is_heard: false,
            is_doubtful: true,
            ..Account::new(reading, counted.traffic.at_most(&reading.traffic))
        };
        self.0.insert(number, account);
    }

    /// How far numbers have been counted, by number: those of which that has not been given before.
    pub fn take_new(&mut self) -> Vec<(u16, Counted)> {
        let accounts = self.0.iter_mut();
        let mut counted: Vec<_> = accounts
            .filter_map(|(number, account)| Some((*number, account.take_new()?)))
            .collect();
        counted.sort_unstable_by_key(|(number, _)| *number);
        counted
    }

    /// A scan begins, right after the counters have been read.
    pub fn scan_begins(&mut self) {
        for account in self.0.values_mut() {
            account.at_scan = Some((account.opened, account.ended));
        }
    }

    /// A scan has ended, which has found so many flows of a target. What has opened or ended, as that shows.
    pub fn scan_ended(&mut self, number: u16, found: Found) -> SeenElsewhere {
        let account = self.0.get_mut(&number);
        account.map_or_else(SeenElsewhere::default, |account| account.correct(found))
    }

    /// A target's number is free: it has no flows any more. What has ended.
    pub fn forget(&mut self, number: u16) -> SeenElsewhere {
        let Some(account) = self.0.get_mut(&number) else {
            return SeenElsewhere::default();
        };
        let open = account.open();
        account.closed = account.opened;
        account.heard(0, open)
    }

    /// DSR flows that have begun and not been found to have ended.
    #[must_use]
    pub fn live(&self) -> u64 {
        let direct = self.0.values().filter(|account| account.is_dsr);
        direct.map(Account::open).fold(0, u64::saturating_add)
    }
}

#[cfg(test)]
mod tests;
