//! One check of an address for all servers that want the same of it, each of which counts what is found by itself.
//!
//! ```text
//!  server a ── turn ──► check ──► result ──┬──► a
//!  server b ── (has none: waits) ◄─────────┴──► b
//! ```
//! Whoever is due first makes the check, so that the shortest interval leads.

use std::{
    collections::HashMap,
    future::pending,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::{connect::Way, machine::CheckResult};
use crate::{base::ServerAddr, config};

/// What is shared, by address. An entry goes with the last server that has it.
#[derive(Debug, Default)]
pub struct Shares(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    by_addr: HashMap<ServerAddr, Vec<Weak<Shared>>>,
    /// Entries from which on those that are gone are looked for.
    full_at: usize,
}

/// What a check is made by: those that are equal can be one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    pub addr: ServerAddr,
    pub check: config::Check,
    pub timeout: Duration,
    pub way: Way,
}

/// A check that was made.
#[derive(Debug, Clone)]
pub struct Made {
    pub result: CheckResult,
    pub started: Instant,
    pub took: Duration,
}

#[derive(Debug)]
struct Shared {
    terms: Terms,
    is_running: AtomicBool,
    results: watch::Sender<Option<Made>>,
}

/// A server's part of a check.
#[derive(Debug)]
pub struct Share {
    shared: Arc<Shared>,
    results: watch::Receiver<Option<Made>>,
}

/// The right to make the check now; dropping it lets another.
#[derive(Debug)]
pub struct Turn(Arc<Shared>);

impl Shares {
    /// Takes part in the check of these terms.
    pub fn join(&self, terms: Terms) -> Share {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.forget_gone();
        let of_addr = known.by_addr.entry(terms.addr).or_default();
        let same = of_addr
            .iter()
            .filter_map(Weak::upgrade)
            .find(|shared| shared.terms == terms);
        let shared = same.unwrap_or_else(|| {
            let shared = Arc::new(Shared {
                terms,
                is_running: AtomicBool::new(false),
                results: watch::Sender::new(None),
            });
            of_addr.push(Arc::downgrade(&shared));
            shared
        });
        let results = shared.results.subscribe();
        Share { shared, results }
    }
}

impl Known {
    fn forget_gone(&mut self) {
        if self.by_addr.len() < self.full_at {
            return;
        }
        self.by_addr.retain(|_, of_addr| {
            of_addr.retain(|shared| shared.strong_count() > 0);
            !of_addr.is_empty()
        });
        self.full_at = 2 * self.by_addr.len() + 64;
    }
}

impl Share {
    /// What is checked.
    pub fn terms(&self) -> &Terms {
        &self.shared.terms
    }

    /// The right to make the check; `None` while another makes it.
    pub fn turn(&self) -> Option<Turn> {
        let running = &self.shared.is_running;
        let was = running.compare_exchange(false, true, Ordering::AcqRel, Ordering::Acquire);
        was.is_ok().then(|| Turn(Arc::clone(&self.shared)))
    }

    /// The next result, whoever makes the check.
    pub async fn next(&mut self) -> Made {
        while self.results.changed().await.is_ok() {
            if let Some(made) = self.results.borrow_and_update().clone() {
                return made;
            }
        }
        // the sender is held here
        pending().await
    }
}

impl Turn {
    /// Tells everybody.
    pub fn done(self, made: Made) {
        self.0.results.send_replace(Some(made));
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.is_running.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(port: u16, seconds: u64) -> Terms {
        Terms {
            addr: ServerAddr::new(([192, 0, 2, 1], port).into()),
            check: config::Check::Tcp,
            timeout: Duration::from_secs(seconds),
            way: Way::default(),
        }
    }

    #[tokio::test]
    async fn one_makes_the_check_and_all_hear_of_it() {
        let shares = Shares::default();
        let (mut a, mut b, other) = (
            shares.join(terms(80, 1)),
            shares.join(terms(80, 1)),
            shares.join(terms(80, 2)),
        );
        let turn = a.turn().unwrap();
        assert!(b.turn().is_none(), "it is under way");
        assert!(other.turn().is_some(), "on other terms it is another check");
        turn.done(Made {
            result: CheckResult::Passed,
            started: Instant::now(),
            took: Duration::ZERO,
        });
        assert_eq!(a.next().await.result, CheckResult::Passed);
        assert_eq!(b.next().await.result, CheckResult::Passed);
        let turn = b.turn().unwrap();
        drop(turn);
        assert!(a.turn().is_some(), "one that is given up lets another");
    }

    #[test]
    fn what_nobody_shares_any_more_is_forgotten() {
        let shares = Shares::default();
        for port in 1..10_000 {
            drop(shares.join(terms(port, 1)));
        }
        assert!(shares.0.lock().unwrap().by_addr.len() < 100);
    }
}
