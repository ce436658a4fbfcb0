//! What the program has counted of each target, and what is new of that. Pure.
//!
//! The program does not see a DSR flow end: the map drops the one unused for longest without a word. So ends are what is
//! missing: flows that had begun when a scan of the map began, less those that it has found. Passthrough flows it ends itself.

use std::collections::HashMap;

use super::layout::TrafficValue;
use crate::flow::SeenElsewhere;

/// Accounts by the number of the target.
#[derive(Debug, Default)]
pub struct Accounts(HashMap<u16, Account>);

#[derive(Debug, Default)]
struct Account {
    /// Which target of that number it is of.
    incarnation: u32,
    /// The program's counters when they were last read: they go on when another target has the number.
    last: TrafficValue,
    /// DSR flows that the program has begun.
    begun: u64,
    /// Those that the slow path has put into the map, and counted.
    put_in: u64,
    /// Those that have been counted as ended.
    closed: u64,
    /// Those that had begun when the scan began.
    before_scan: u64,
}

impl Account {
    const fn opened(&self) -> u64 {
        self.begun + self.put_in
    }

    /// Takes all but so many of those that had begun for ended. How many more that are.
    fn close_all_but(&mut self, begun: u64, live: u64) -> u64 {
        let closed = begun.saturating_sub(live).max(self.closed);
        closed - std::mem::replace(&mut self.closed, closed)
    }
}

impl Accounts {
    /// Takes in what the program's counters of a target stand at, and how many of its DSR flows the slow path has put in since
    /// it has its number. Gives what is new, which is nothing at the first time; ends of DSR flows are not among it.
    pub fn read(&mut self, number: u16, incarnation: u32, now: TrafficValue, put_in: u64) -> SeenElsewhere {
        let account = self.0.entry(number).or_insert_with(|| Account {
            last: now,
            ..Account::default()
        });
        if account.incarnation != incarnation {
            *account = Account {
                incarnation,
                last: account.last,
                ..Account::default()
            };
        }
        let last = std::mem::replace(&mut account.last, now);
        let opened = now.opened.wrapping_sub(last.opened);
        account.begun += opened;
        account.put_in = put_in;
        let new = |now: u64, last: u64| now.wrapping_sub(last);
        SeenElsewhere {
            opened: opened + new(now.nat_opened, last.nat_opened),
            closed: new(now.nat_closed, last.nat_closed),
            bytes: new(now.bytes, last.bytes),
            bytes_out: new(now.bytes_out, last.bytes_out),
            completed: new(now.completed, last.completed),
            unanswered: new(now.unanswered, last.unanswered),
            unacknowledged: new(now.unacknowledged, last.unacknowledged),
            dsr_completed: new(now.dsr_completed, last.dsr_completed),
            dsr_incomplete: new(now.dsr_incomplete, last.dsr_incomplete),
        }
    }

    /// A scan begins, right after the counters have been read.
    pub fn scan_begins(&mut self) {
        for account in self.0.values_mut() {
            account.before_scan = account.opened();
        }
    }

    /// A scan has ended, which has found so many DSR flows of a target that had begun before it. How many have ended since the
    /// last one.
    pub fn scan_ended(&mut self, number: u16, live: u64) -> u64 {
        let account = self.0.get_mut(&number);
        account.map_or(0, |account| account.close_all_but(account.before_scan, live))
    }

    /// A target's number is free: it has no flows any more. How many DSR flows have ended.
    pub fn forget(&mut self, number: u16) -> u64 {
        let account = self.0.get_mut(&number);
        account.map_or(0, |account| account.close_all_but(account.opened(), 0))
    }

    /// DSR flows that have begun and not been found to have ended.
    #[must_use]
    pub fn live(&self) -> u64 {
        self.0
            .values()
            .map(|account| account.opened().saturating_sub(account.closed))
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(opened: u64, bytes: u64) -> TrafficValue {
        TrafficValue {
            opened,
            bytes,
            ..TrafficValue::default()
        }
    }

    #[test]
    fn what_was_read_before_is_not_counted_again() {
        let mut accounts = Accounts::default();
        let first = accounts.read(1, 7, counted(3, 100), 0);
        assert_eq!(first, SeenElsewhere::default(), "what was there is of others");
        let second = accounts.read(1, 7, counted(5, 150), 0);
        assert_eq!((second.opened, second.bytes), (2, 50));
        assert_eq!(accounts.live(), 2);
    }

    #[test]
    fn ends_of_passthrough_flows_are_the_programs_own_count() {
        let counted = |nat_opened, nat_closed| TrafficValue {
            nat_opened,
            nat_closed,
            bytes_out: 10 * nat_opened,
            unanswered: nat_closed,
            ..TrafficValue::default()
        };
        let mut accounts = Accounts::default();
        let _ = accounts.read(1, 7, counted(5, 5), 0);
        let seen = accounts.read(1, 7, counted(9, 6), 0);
        assert_eq!((seen.opened, seen.closed), (4, 1));
        assert_eq!((seen.bytes_out, seen.unanswered), (40, 1));
        assert_eq!(accounts.live(), 0, "of DSR there is none");
        accounts.scan_begins();
        assert_eq!(accounts.scan_ended(1, 0), 0);
        assert_eq!(accounts.forget(1), 0);
    }

    #[test]
    fn flows_that_a_scan_does_not_find_have_ended() {
        let mut accounts = Accounts::default();
        let _ = accounts.read(1, 7, counted(0, 0), 0);
        let _ = accounts.read(1, 7, counted(8, 0), 2);
        accounts.scan_begins();
        // a flow that begins now is none that is missing
        let _ = accounts.read(1, 7, counted(9, 0), 2);
        assert_eq!(accounts.scan_ended(1, 4), 6);
        assert_eq!(accounts.live(), 5);
        accounts.scan_begins();
        assert_eq!(accounts.scan_ended(1, 5), 0);
        assert_eq!(accounts.scan_ended(2, 5), 0, "nothing is known of it");
    }

    #[test]
    fn a_number_begins_anew_with_another_target_though_its_counters_go_on() {
        let mut accounts = Accounts::default();
        let _ = accounts.read(1, 7, counted(0, 0), 0);
        let _ = accounts.read(1, 7, counted(8, 80), 1);
        assert_eq!(accounts.forget(1), 9, "all of them");
        assert_eq!(accounts.live(), 0);
        let anew = accounts.read(1, 8, counted(10, 90), 0);
        assert_eq!((anew.opened, anew.bytes), (2, 10));
        assert_eq!(accounts.live(), 2);
    }
}
