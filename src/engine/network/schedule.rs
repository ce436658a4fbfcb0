//! When to have the kernel ask for a next hop: soon, ever more seldom while nobody answers, and never too many at once.
//! Pure: the time is an argument.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use tokio::time::Instant;

use super::table::{Need, NeighbourKey};

/// Probes a second, and how many may come at once. A thousand stale next hops take 10 s of each [`CONFIRM_EVERY`].
const PER_SECOND: f64 = 100.0;
const BURST: f64 = 100.0;

/// How soon an unresolved next hop is probed again; doubled each time up to [`SLOWEST`].
const FIRST_WAIT: Duration = Duration::from_millis(200);
const SLOWEST: Duration = Duration::from_secs(5);

/// How often a stale next hop is asked whether it is still there: the kernel waits 5 s for other signs of life and asks
/// then, so that a link address that has changed is noticed within about half a minute.
const CONFIRM_EVERY: Duration = Duration::from_secs(25);

/// How long a probe that found no room waits for the next try.
const REFUSED_WAIT: Duration = Duration::from_millis(100);

/// The schedule.
#[derive(Debug)]
pub struct Probes {
    pending: BTreeMap<NeighbourKey, Pending>,
    tokens: f64,
    filled_at: Instant,
}

#[derive(Debug)]
struct Pending {
    server: IpAddr,
    need: Need,
    due: Instant,
    wait: Duration,
}

/// Probes that are due.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// The servers to send to, one for each next hop.
    pub servers: Vec<IpAddr>,
    /// How many had to be put off.
    pub refused: u64,
}

impl Probes {
    /// A schedule without entries.
    #[must_use]
    pub const fn new(now: Instant) -> Self {
        Self {
            pending: BTreeMap::new(),
            tokens: BURST,
            filled_at: now,
        }
    }

    /// Takes in which next hops need something now. A new need is due at once.
    pub fn update(&mut self, now: Instant, needs: BTreeMap<NeighbourKey, (IpAddr, Need)>) {
        self.pending
            .retain(|key, pending| needs.get(key).is_some_and(|(_, need)| *need == pending.need));
        for (key, (server, need)) in needs {
            let pending = self.pending.entry(key).or_insert(Pending {
                server,
                need,
                due: now,
                wait: match need {
                    Need::Resolve => FIRST_WAIT,
                    Need::Confirm => CONFIRM_EVERY,
                },
            });
            pending.server = server;
        }
    }

    /// The probes that are due.
    pub fn due(&mut self, now: Instant) -> Due {
        let elapsed = now.saturating_duration_since(self.filled_at);
        self.tokens = (self.tokens + elapsed.as_secs_f64() * PER_SECOND).min(BURST);
        self.filled_at = now;
        let mut ready: Vec<&mut Pending> = self.pending.values_mut().filter(|p| p.due <= now).collect();
        // who has waited longest comes first
        ready.sort_by_key(|pending| pending.due);
        let mut due = Due::default();
        for pending in ready {
            if self.tokens < 1.0 {
                due.refused += 1;
                pending.due = now + REFUSED_WAIT;
                continue;
            }
            self.tokens -= 1.0;
            due.servers.push(pending.server);
            pending.due = now + pending.wait;
            if pending.need == Need::Resolve {
                pending.wait = (pending.wait * 2).min(SLOWEST);
            }
        }
        due
    }

    /// When the next probe is due.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.pending.values().map(|pending| pending.due).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn need(last: u8, need: Need) -> (NeighbourKey, (IpAddr, Need)) {
        let address = IpAddr::from([10, 0, 0, last]);
        (NeighbourKey { ifindex: 1, address }, (address, need))
    }

    fn probes_within(probes: &mut Probes, start: Instant, seconds: u64) -> usize {
        let mut count = 0;
        while let Some(at) = probes
            .next()
            .filter(|at| *at < start + Duration::from_secs(seconds))
        {
            count += probes.due(at).servers.len();
        }
        count
    }

    #[test]
    fn an_unresolved_next_hop_is_kicked_at_once_and_then_ever_more_seldom() {
        let start = Instant::now();
        let mut probes = Probes::new(start);
        probes.update(start, BTreeMap::from([need(1, Need::Resolve)]));
        // at 0, 0.2, 0.6, 1.4, 3.0, 6.2 and every 5 s from there
        assert_eq!(probes_within(&mut probes, start, 7), 6);
        assert_eq!(probes_within(&mut probes, start, 57), 10);
    }

    #[test]
    fn a_stale_next_hop_is_asked_about_every_25_seconds() {
        let start = Instant::now();
        let mut probes = Probes::new(start);
        probes.update(start, BTreeMap::from([need(1, Need::Confirm)]));
        assert_eq!(probes_within(&mut probes, start, 60), 3);
    }

    #[test]
    fn a_next_hop_that_is_lost_again_is_kicked_at_once() {
        let start = Instant::now();
        let mut probes = Probes::new(start);
        probes.update(start, BTreeMap::from([need(1, Need::Resolve)]));
        assert_eq!(probes_within(&mut probes, start, 30), 10);
        probes.update(start, BTreeMap::new());
        assert_eq!(probes.next(), None);
        let later = start + Duration::from_secs(31);
        probes.update(later, BTreeMap::from([need(1, Need::Resolve)]));
        assert_eq!(probes.due(later).servers.len(), 1);
    }

    #[test]
    fn the_same_need_told_again_changes_no_schedule() {
        let start = Instant::now();
        let mut probes = Probes::new(start);
        for _ in 0..3 {
            probes.update(start, BTreeMap::from([need(1, Need::Resolve)]));
            probes.due(start);
        }
        assert_eq!(probes.next(), Some(start + FIRST_WAIT));
    }

    #[test]
    fn more_than_the_bound_are_put_off_counted_and_then_served() {
        let start = Instant::now();
        let mut probes = Probes::new(start);
        probes.update(start, (0..=255).map(|last| need(last, Need::Confirm)).collect());
        let due = probes.due(start);
        assert_eq!((due.servers.len(), due.refused), (100, 156));
        assert_eq!(probes_within(&mut probes, start, 3), 156);
    }
}
