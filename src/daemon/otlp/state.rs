//! What the endpoints tell of exports.

use std::{
    array,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use crate::{
    admin::views::{OtlpExport, Word},
    base::{OtlpLoss, OtlpResult, OtlpSignal},
    daemon::trouble::Trouble,
};

/// Both signals, since the start of the process.
#[derive(Debug)]
pub struct OtlpState([Arc<SignalState>; OtlpSignal::ALL.len()]);

/// One of them.
#[derive(Debug)]
pub struct SignalState {
    signal: OtlpSignal,
    /// Where it goes; `None`: it is not exported.
    url: Mutex<Option<String>>,
    results: [AtomicU64; OtlpResult::ALL.len()],
    losses: [Arc<AtomicU64>; OtlpLoss::ALL.len()],
    /// When a request was accepted last, in milliseconds since 1970; 0: never.
    accepted: AtomicU64,
    trouble: Mutex<Trouble>,
}

impl Default for OtlpState {
    fn default() -> Self {
        Self(OtlpSignal::ALL.map(|signal| Arc::new(SignalState::new(signal))))
    }
}

impl OtlpState {
    /// That of a signal.
    pub const fn of(&self, signal: OtlpSignal) -> &Arc<SignalState> {
        &self.0[signal as usize]
    }

    /// Of those that are exported.
    pub fn views(&self) -> Vec<OtlpExport> {
        self.0.iter().filter_map(|signal| signal.view()).collect()
    }
}

impl SignalState {
    fn new(signal: OtlpSignal) -> Self {
        Self {
            signal,
            url: Mutex::default(),
            results: Default::default(),
            losses: array::from_fn(|_| Arc::default()),
            accepted: AtomicU64::new(0),
            trouble: Mutex::default(),
        }
    }

    /// Where it goes from now on.
    pub fn set_url(&self, url: Option<String>) {
        let mut known = lock(&self.url);
        if *known != url {
            // what was wrong there is not wrong here
            *lock(&self.trouble) = Trouble::default();
            *known = url;
        }
    }

    /// Counts what a request has come to.
    pub fn count(&self, result: OtlpResult) {
        self.results[result as usize].fetch_add(1, Ordering::Relaxed);
        if matches!(result, OtlpResult::Accepted | OtlpResult::Partial) {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            let millis = u64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(u64::MAX);
            self.accepted.store(millis, Ordering::Relaxed);
        }
    }

    /// Counts what got lost.
    pub fn lose(&self, loss: OtlpLoss, count: u64) {
        self.losses[loss as usize].fetch_add(count, Ordering::Relaxed);
    }

    /// Where losses of a kind are counted.
    pub const fn losses(&self, loss: OtlpLoss) -> &Arc<AtomicU64> {
        &self.losses[loss as usize]
    }

    /// Everything that got lost.
    pub fn lost(&self) -> u64 {
        self.losses
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .sum()
    }

    /// Notes that something is wrong; true if it is to be said.
    pub fn fails(&self, why: &str) -> bool {
        let lost = self.lost();
        lock(&self.trouble).begins(why, lost)
    }

    /// Notes that all is well; if that is to be said: how many got lost meanwhile.
    pub fn works(&self) -> Option<u64> {
        let before = lock(&self.trouble).ends()?;
        Some(self.lost().wrapping_sub(before))
    }

    fn view(&self) -> Option<OtlpExport> {
        let url = lock(&self.url).clone()?;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let requests =
            OtlpResult::ALL.map(|result| (result.label().to_owned(), read(&self.results[result as usize])));
        let dropped = OtlpLoss::ALL.map(|loss| (loss.label().to_owned(), read(&self.losses[loss as usize])));
        let accepted = Some(read(&self.accepted)).filter(|millis| *millis > 0);
        Some(OtlpExport {
            signal: Word::from(self.signal),
            url,
            requests: requests.into(),
            dropped: dropped.into(),
            last_success: accepted.map(|millis| Duration::from_millis(millis).as_secs_f64()),
            error: lock(&self.trouble).now().map(str::to_owned),
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_exported_is_told_with_every_count() {
        let state = OtlpState::default();
        assert!(state.views().is_empty());
        let logs = state.of(OtlpSignal::Logs);
        logs.set_url(Some("http://a/v1/logs".to_owned()));
        logs.count(OtlpResult::Later);
        logs.lose(OtlpLoss::Refused, 3);
        logs.losses(OtlpLoss::QueueFull).fetch_add(4, Ordering::Relaxed);
        assert!(logs.fails("no"));
        let views = state.views();
        let [view] = views.as_slice() else {
            panic!("{views:?}")
        };
        assert_eq!(
            (view.url.as_str(), view.error.as_deref()),
            ("http://a/v1/logs", Some("no"))
        );
        assert_eq!((view.requests["later"], view.requests["accepted"]), (1, 0));
        assert_eq!(
            (view.dropped["refused"], view.dropped["queue_full"], logs.lost()),
            (3, 4, 7)
        );
        assert_eq!(view.last_success, None);
        logs.lose(OtlpLoss::Late, 1);
        assert_eq!(logs.works(), Some(1));
        logs.count(OtlpResult::Accepted);
        assert!(state.views()[0].last_success.is_some_and(|at| at > 1.7e9));
        // elsewhere nothing is known yet
        logs.fails("no");
        logs.set_url(Some("http://b/v1/logs".to_owned()));
        assert_eq!(state.views()[0].error, None);
    }
}
