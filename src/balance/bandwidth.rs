//! How many bytes a server has moved of late, as least bandwidth compares servers by it.
//!
//! Each byte counts as one when it moves and fades from then on: to 1/e after [`FADE`]. That is the average age, 7 s, of the
//! bytes in the 14 s over which NetScaler's method "least bandwidth" averages (NetScaler, "Load balancing: the least
//! bandwidth method"), and needs no list of the bytes (Gardner: Exponential Smoothing, 1985). At a steady rate a server stands
//! at rate × `FADE`.
//!
//! A connection that has just been given out moves its bytes later, so that until then all that come would be given to one
//! server. It is therefore charged in advance with what it moves in its first round trip; that fades as bytes do.

use std::time::{Duration, Instant};

/// After this time a byte counts 1/e.
pub const FADE: Duration = Duration::from_secs(7);

/// Charge of a new connection, in bytes: ten segments (RFC 6928).
const CHARGE: f64 = 14_600.0;

/// The bytes of a server of late.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bandwidth {
    /// What it stands at, in bytes.
    level: f64,
    /// What it had moved in all at that moment.
    bytes: u64,
    /// `None`: nobody has asked yet.
    at: Option<Instant>,
}

impl Bandwidth {
    /// Takes up what the server has moved in all, both ways; gives what it stands at, in bytes. What moved before it was first
    /// asked for does not count.
    pub fn seen(&mut self, bytes: u64, now: Instant) -> u64 {
        let Some(at) = self.at else {
            (self.bytes, self.at) = (bytes, Some(now));
            return self.level();
        };
        let past = now.saturating_duration_since(at);
        let fade = (-past.as_secs_f64() / FADE.as_secs_f64()).exp();
        self.level = self.level * fade + bytes.saturating_sub(self.bytes) as f64;
        // sums of running threads may come in another order than they were made in
        self.bytes = self.bytes.max(bytes);
        self.at = Some(at.max(now));
        self.level()
    }

    /// Charges it with a connection that has been given to it.
    pub fn charge(&mut self) {
        self.level += CHARGE;
    }

    fn level(&self) -> u64 {
        // never negative, and a number that is too large becomes the largest
        self.level as u64
    }
}

#[cfg(test)]
mod tests {
    use super::super::{
        testing::{Chooser, assert_follows},
        *,
    };
    use super::*;
    use crate::balance::hash::SplitMix64;
    use proptest::prelude::*;

    const STEP: Duration = Duration::from_millis(100);

    /// What a server stands at after moving `bytes` in each of so many steps.
    fn steady(bytes: u64, steps: u32) -> (Bandwidth, u64, Instant) {
        let (mut server, mut total, mut now) = (Bandwidth::default(), 0, Instant::now());
        server.seen(0, now);
        for _ in 0..steps {
            now += STEP;
            total += bytes;
            server.seen(total, now);
        }
        (server, total, now)
    }

    #[test]
    fn what_moved_before_the_first_question_does_not_count() {
        let mut server = Bandwidth::default();
        assert_eq!(server.seen(1 << 40, Instant::now()), 0);
    }

    #[test]
    fn a_byte_counts_1_e_after_seven_seconds() {
        let (mut server, now) = (Bandwidth::default(), Instant::now());
        server.seen(0, now);
        assert_eq!(server.seen(1_000_000, now), 1_000_000);
        assert_eq!(server.seen(1_000_000, now + FADE), 367_879);
        assert_eq!(server.seen(1_000_000, now + 100 * FADE), 0);
    }

    proptest! {
        #[test]
        fn at_a_steady_rate_a_server_stands_at_seven_seconds_of_it(bytes in 1_000_u64..1 << 40) {
            let (mut server, total, now) = steady(bytes, 1_000);
            let due = bytes as f64 * 70.0;
            let is = server.seen(total, now) as f64;
            prop_assert!((is / due - 1.0).abs() < 0.01, "{is} for {due}");
        }

        #[test]
        fn how_often_one_asks_changes_little(
            moves in prop::collection::vec((0_u64..1 << 30, 0_u64..500), 1..60),
            asked in prop::collection::vec(any::<bool>(), 60),
        ) {
            let (mut often, mut seldom) = (Bandwidth::default(), Bandwidth::default());
            let (mut now, mut total) = (Instant::now(), 0);
            often.seen(0, now);
            seldom.seen(0, now);
            for ((bytes, millis), asked) in moves.into_iter().zip(asked) {
                total += bytes;
                often.seen(total, now);
                if asked {
                    seldom.seen(total, now);
                }
                now += Duration::from_millis(millis);
            }
            let (often, seldom) = (often.seen(total, now), seldom.seen(total, now));
            // asked late, bytes count as if they had moved then
            prop_assert!(often <= seldom, "{often} {seldom}");
            prop_assert!(seldom <= total);
        }

        #[test]
        fn a_clock_and_a_sum_that_go_back_do_no_harm(
            asked in prop::collection::vec((any::<u64>(), 0_u64..100_000, any::<bool>()), 0..40),
        ) {
            let start = Instant::now();
            let mut server = Bandwidth::default();
            for (bytes, millis, is_charged) in asked {
                let level = server.seen(bytes, start + Duration::from_millis(millis));
                if is_charged {
                    server.charge();
                    assert!(level <= server.level());
                }
            }
        }
    }

    /// A site whose connections each move their own number of bytes a step; connections come and never end.
    fn run(
        weights: &[u32],
        arrivals: usize,
        rate: impl Fn(&mut SplitMix64) -> u64,
    ) -> (Vec<u64>, Vec<usize>) {
        let mut chooser = Chooser::new(Algorithm::LeastBandwidth, weights);
        let mut random = SplitMix64::new(7);
        let mut servers = vec![Bandwidth::default(); weights.len()];
        let (mut rates, mut totals, mut counts) = (
            vec![0; weights.len()],
            vec![0; weights.len()],
            vec![0; weights.len()],
        );
        let mut now = Instant::now();
        for _ in 0..arrivals {
            chooser.loads = (servers.iter_mut().zip(&totals))
                .map(|(server, bytes)| server.seen(*bytes, now))
                .collect();
            let index = chooser.pick().expect("one");

            servers[index].charge();
            counts[index] += 1;
            rates[index] += rate(&mut random);
            now += STEP;
            for (total, rate) in totals.iter_mut().zip(&rates) {
                *total += rate;
            }
        }
        (rates, counts)
    }

    #[test]
    fn bandwidth_comes_out_by_weight_whatever_each_connection_moves() {
        // one connection in ten moves a hundred times as much
        let (rates, _) = run(&[1, 2, 5], 4_000, |random| {
            if random.next_u64() % 10 == 0 {
                100_000
            } else {
                1_000
            }
        });
        let all: u64 = rates.iter().sum();
        for (rate, weight) in rates.iter().zip([1, 2, 5]) {
            let share = *rate as f64 / all as f64 * 8.0 / f64::from(weight);
            assert!((0.95..1.05).contains(&share), "{rates:?}");
        }
    }

    #[test]
    fn connections_that_come_at_once_do_not_all_get_the_server_that_moved_least() {
        let mut chooser = Chooser::new(Algorithm::LeastBandwidth, &[1, 1]);
        let now = Instant::now();
        let mut servers = [steady(1_000, 100).0, steady(1_010, 100).0];
        for (server, bytes) in servers.iter_mut().zip([100_000, 101_000]) {
            server.seen(bytes, now);
        }
        let mut counts = [0; 2];
        for _ in 0..1_000 {
            chooser.loads = (servers.iter_mut().zip([100_000, 101_000]))
                .map(|(server, bytes)| server.seen(bytes, now))
                .collect();
            let index = chooser.pick().expect("one");
            servers[index].charge();
            counts[index] += 1;
        }
        assert_follows(&counts, &[1.0, 1.0]);
    }
}
