//! What has gone on of late: rates, and the steps of the last quarter of an hour.
//!
//! The admin thread samples the counters of everything in the snapshot once a step. What never had traffic costs nothing.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::{Snapshot, histogram::Times};

/// How long a step is.
pub const STEP: Duration = Duration::from_secs(5);

/// Steps that are kept: a quarter of an hour.
pub const STEPS: usize = 180;

/// Steps after which percentiles begin anew: they are of the last five to ten minutes.
const ANEW: u64 = 60;

/// The counters at the end of a step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sample {
    /// Connections so far.
    pub connections: u64,
    /// Those that are open.
    pub current: u64,
    /// Those that failed or were refused so far.
    pub failures: u64,
    /// Bytes from clients so far.
    pub bytes_in: u64,
    /// Bytes from servers so far.
    pub bytes_out: u64,
}

/// What a step has brought.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Step {
    /// Connections.
    pub connections: u32,
    /// Open ones at its end.
    pub current: u32,
    /// Failed or refused ones.
    pub failures: u32,
    /// Bytes from clients. As a fraction, for a count of 32 bits ends at 7 Gbit/s.
    pub bytes_in: f32,
    /// Bytes from servers.
    pub bytes_out: f32,
}

/// What goes on in a second.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Rate {
    /// Connections.
    pub connections: f64,
    /// Failed or refused ones.
    pub failures: f64,
    /// Bytes from clients.
    pub bytes_in: f64,
    /// Bytes from servers.
    pub bytes_out: f64,
}

/// Rates over the last ten seconds, minute and five minutes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Rates {
    /// Over ten seconds.
    pub ten_seconds: Rate,
    /// Over a minute.
    pub minute: Rate,
    /// Over five minutes.
    pub five_minutes: Rate,
}

/// The trend of a frontend, backend or server.
#[derive(Debug, Default)]
pub struct Trend(Mutex<Option<Box<State>>>);

#[derive(Debug)]
struct State {
    /// The step that was sampled last, and what the counters were at its end.
    last: (u64, Sample),
    /// When that was.
    at: Instant,
    /// The latest at the end.
    steps: VecDeque<Step>,
    /// When percentiles began, and what their histograms held then: now, and before that.
    anew: [(u64, [Times; 2]); 2],
}

/// The number of the last step that has ended, of a process that has begun then.
#[must_use]
pub fn step_at(begun: Instant, now: Instant) -> u64 {
    now.saturating_duration_since(begun).as_secs() / STEP.as_secs()
}

/// Samples everything in a snapshot at the end of a step.
pub fn sample(snapshot: &Snapshot, number: u64, at: Instant) {
    for frontend in snapshot.frontends.values() {
        let live = &frontend.live;
        let times = || [live.session_time.times(), live.handshake_times()];
        live.trend.sample((number, at), live.counters.sample(), times);
    }
    for backend in snapshot.backends.values() {
        let live = &backend.live;
        let times = || [live.session_time.times(), live.connect_time.times()];
        live.trend.sample((number, at), live.counters.sample(), times);
        for server in &backend.servers {
            let live = &server.live;
            let times = || [live.session_time.times(), live.connect_time.times()];
            live.trend.sample((number, at), live.sample(), times);
        }
    }
}

impl Trend {
    /// The counters at the end of a step: its number, counted from any beginning, and when that is; and the histograms that percentiles are asked of.
    /// What has never counted anything keeps no memory.
    pub fn sample(&self, (number, at): (u64, Instant), now: Sample, times: impl FnOnce() -> [Times; 2]) {
        let mut trend = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if trend.is_none() && now == Sample::default() {
            return;
        }
        let state = trend.get_or_insert_with(|| Box::new(State::new(number, at)));
        state.step_to(number, now);
        state.at = at;
        if number >= state.anew[0].0 + ANEW {
            state.anew = [(number, times()), state.anew[0]];
        }
    }

    /// The rates at a moment, to the end of the last step.
    #[must_use]
    pub fn rates(&self, now: Instant) -> Rates {
        let trend = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(state) = &*trend else {
            return Rates::default();
        };
        Rates {
            ten_seconds: state.rate(now, 2),
            minute: state.rate(now, 12),
            five_minutes: state.rate(now, 60),
        }
    }

    /// The last steps up to a moment, the oldest first: as many as there are, [`STEPS`] at most.
    #[must_use]
    pub fn steps(&self, now: Instant) -> Vec<Step> {
        let trend = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(state) = &*trend else {
            return Vec::new();
        };
        let away = state.away(now);
        let steps =
            (state.steps.iter().copied()).chain(std::iter::repeat_n(Step::default(), away.min(STEPS)));
        let all: Vec<_> = steps.collect();
        all[all.len().saturating_sub(STEPS)..].to_vec()
    }

    /// What the histograms of [`sample`](Self::sample) held five to ten minutes ago.
    #[must_use]
    pub fn earlier(&self) -> [Times; 2] {
        let trend = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        trend
            .as_ref()
            .map_or_else(Default::default, |state| state.anew[1].1)
    }
}

impl State {
    /// One whose counters stood at nothing a step ago.
    fn new(number: u64, at: Instant) -> Self {
        let nothing = (number, <[Times; 2]>::default());
        Self {
            last: (number.saturating_sub(1), Sample::default()),
            at,
            steps: VecDeque::new(),
            anew: [nothing, nothing],
        }
    }

    fn step_to(&mut self, number: u64, now: Sample) {
        let (last, before) = std::mem::replace(&mut self.last, (number, now));
        let Some(steps) = number.checked_sub(last).filter(|steps| *steps > 0) else {
            // the same step again: its end is where the next begins, and nothing is counted twice
            self.last = (last, before);
            return;
        };
        // while it was not in the snapshot it had no steps
        let away = usize::try_from(steps - 1).unwrap_or(usize::MAX).min(STEPS);
        self.steps.extend(std::iter::repeat_n(Step::default(), away));
        self.steps.push_back(Step::between(&before, &now));
        let too_many = self.steps.len().saturating_sub(STEPS);
        self.steps.drain(..too_many);
    }

    /// Steps since it was sampled last, up to a moment. The last of them may be about to be sampled.
    fn away(&self, now: Instant) -> usize {
        let steps = now.saturating_duration_since(self.at).as_secs() / STEP.as_secs();
        usize::try_from(steps.saturating_sub(1)).unwrap_or(usize::MAX)
    }

    /// The rate over so many steps up to a moment.
    fn rate(&self, now: Instant, over: usize) -> Rate {
        let away = self.away(now);
        let steps = self.steps.iter().rev().take(over.saturating_sub(away));
        // a young process has not lived through all of them
        let lived = usize::try_from(self.last.0).unwrap_or(usize::MAX);
        let over = over.min(lived.saturating_add(away)).max(1);
        let seconds = STEP.as_secs_f64() * f64::from(u32::try_from(over).unwrap_or(u32::MAX));
        let mut sum = Rate::default();
        for step in steps {
            sum.connections += f64::from(step.connections);
            sum.failures += f64::from(step.failures);
            sum.bytes_in += f64::from(step.bytes_in);
            sum.bytes_out += f64::from(step.bytes_out);
        }
        Rate {
            connections: sum.connections / seconds,
            failures: sum.failures / seconds,
            bytes_in: sum.bytes_in / seconds,
            bytes_out: sum.bytes_out / seconds,
        }
    }
}

impl Step {
    fn between(before: &Sample, now: &Sample) -> Self {
        let count = |before: u64, now: u64| u32::try_from(now.saturating_sub(before)).unwrap_or(u32::MAX);
        #[allow(clippy::cast_precision_loss, reason = "seven digits of a rate are enough")]
        let bytes = |before: u64, now: u64| now.saturating_sub(before) as f32;
        Self {
            connections: count(before.connections, now.connections),
            current: count(0, now.current),
            failures: count(before.failures, now.failures),
            bytes_in: bytes(before.bytes_in, now.bytes_in),
            bytes_out: bytes(before.bytes_out, now.bytes_out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(connections: u64) -> Sample {
        Sample {
            connections,
            current: 1,
            failures: connections / 10,
            bytes_in: connections * 100,
            bytes_out: connections * 1_000,
        }
    }

    /// A trend and when its steps end.
    struct Sampled(Trend, Instant);

    impl Sampled {
        fn new() -> Self {
            Self(Trend::default(), Instant::now())
        }

        fn at(&self, number: u32) -> Instant {
            self.1 + STEP * number
        }

        fn sample(&self, number: u32, now: Sample, times: impl FnOnce() -> [Times; 2]) {
            (self.0).sample((number.into(), self.at(number)), now, times);
        }

        fn rates(&self, number: u32) -> Rates {
            self.0.rates(self.at(number))
        }

        fn steps(&self, number: u32) -> Vec<Step> {
            self.0.steps(self.at(number))
        }
    }

    fn no_times() -> [Times; 2] {
        <[Times; 2]>::default()
    }

    #[test]
    fn a_steady_stream_has_the_same_rate_over_every_window() {
        let trend = Sampled::new();
        for step in 1..=100 {
            trend.sample(step, counted(u64::from(step) * 50), no_times);
        }
        let rates = trend.rates(100);
        for rate in [rates.ten_seconds, rates.minute, rates.five_minutes] {
            assert_eq!(
                (rate.connections, rate.failures, rate.bytes_in, rate.bytes_out),
                (10.0, 1.0, 1_000.0, 10_000.0)
            );
        }
    }

    #[test]
    fn a_young_process_has_the_average_of_its_life_and_not_of_a_whole_window() {
        let trend = Sampled::new();
        for step in 1..=4 {
            trend.sample(step, counted(u64::from(step) * 50), no_times);
        }
        let rates = trend.rates(4);
        assert_eq!(
            (rates.minute.connections, rates.five_minutes.connections),
            (10.0, 10.0)
        );
        // what had no traffic before has lived as long as its process
        let late = Sampled::new();
        late.sample(11, counted(0), no_times);
        late.sample(12, counted(600), no_times);
        assert_eq!(late.rates(12).minute.connections, 10.0);
    }

    #[test]
    fn what_has_stopped_leaves_the_short_window_first() {
        let trend = Sampled::new();
        trend.sample(101, counted(600), no_times);
        trend.sample(102, counted(600), no_times);
        trend.sample(103, counted(600), no_times);
        let rates = trend.rates(103);
        assert_eq!(
            (
                rates.ten_seconds.connections,
                rates.minute.connections,
                rates.five_minutes.connections
            ),
            (0.0, 10.0, 2.0)
        );
    }

    #[test]
    fn what_is_not_sampled_any_more_has_no_rate_soon() {
        let trend = Sampled::new();
        trend.sample(101, counted(600), no_times);
        for (number, rate) in [(101, 60.0), (102, 60.0), (103, 60.0), (104, 0.0)] {
            assert_eq!(trend.rates(number).ten_seconds.connections, rate, "at {number}");
        }
        assert_eq!(trend.steps(104).len(), 3);
        assert_eq!(trend.rates(200), Rates::default());
    }

    #[test]
    fn the_steps_of_a_quarter_of_an_hour_are_kept_also_over_a_time_away() {
        let trend = Sampled::new();
        trend.sample(1, counted(10), no_times);
        trend.sample(3, counted(30), no_times);
        let connections =
            |number| -> Vec<_> { trend.steps(number).iter().map(|step| step.connections).collect() };
        assert_eq!(connections(3), [10, 0, 20]);
        trend.sample(10_000, counted(31), no_times);
        let steps = connections(10_000);
        assert_eq!((steps.len(), steps[STEPS - 1], steps[0]), (STEPS, 1, 0));
    }

    #[test]
    fn a_step_that_is_sampled_twice_counts_once() {
        let trend = Sampled::new();
        trend.sample(1, counted(10), no_times);
        trend.sample(1, counted(20), no_times);
        trend.sample(2, counted(30), no_times);
        let sum: u32 = trend.steps(2).iter().map(|step| step.connections).sum();
        assert_eq!(sum, 30);
    }

    #[test]
    fn what_never_counted_anything_keeps_no_memory() {
        let trend = Sampled::new();
        trend.sample(1, Sample::default(), || unreachable!("nothing is asked of it"));
        assert!(trend.0.0.lock().unwrap().is_none());
        assert_eq!(trend.rates(1), Rates::default());
    }

    #[test]
    fn percentiles_are_of_the_last_five_to_ten_minutes() {
        let trend = Sampled::new();
        let held = |count| {
            let mut times = Times::default();
            times.buckets[0] = count;
            [times; 2]
        };
        for step in 1..=200 {
            trend.sample(step, counted(step.into()), || held(step.into()));
            let since = u64::from(step) - trend.0.earlier()[0].buckets[0];
            assert!(step <= 120 || (60..=121).contains(&since), "{since} at {step}");
        }
    }
}
