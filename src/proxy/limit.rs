//! How many connections the process proxies at a time: what its limit of open files leaves.
//!
//! ```text
//! open files ─┬─ open at start, and the workers' runtimes
//!             ├─ kept back (64): control socket, broker, logs, watches, a reload's new listeners
//!             ├─ listeners, checks, sockets in stock
//!             ├─ pipes: two each, one for every four connections, at most 256 a worker
//!             └─ connections: two each; UDP sessions: one each
//! ```
//! HAProxy computes its `maxconn` so (`compute_ideal_maxconn` in its haproxy.c). Above the limit nothing is accepted: what
//! comes waits in the kernel's queues.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::Notify;

/// Descriptors that are kept back for all that is no connection; half of what there is where that is less.
const KEPT_BACK: u64 = 64;

/// Descriptors of a worker's runtime: epoll three times, its waker, signals.
const OF_A_RUNTIME: u64 = 5;

/// Pipes of a worker; beyond them, data is copied.
const MAX_PIPES: u64 = 256;

/// Connections to a pipe, where descriptors are scarce (HAProxy's `maxpipes` is a quarter of `maxconn`).
const CONNECTIONS_A_PIPE: u64 = 4;

/// A fourth of what is left is for connections alone: sessions begin with a datagram that anybody can forge, and end by time.
const OF_CONNECTIONS_ALONE: u32 = 4;

/// Least time between two log events about the limit.
const LOG_PAUSE: Duration = Duration::from_secs(60);

/// The descriptors of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptors {
    /// The limit of open files (RLIMIT_NOFILE).
    pub limit: u64,
    /// Those that are open before the workers start.
    pub open: u64,
    /// Most checks of servers under way at a time, each with one.
    pub checks: usize,
}

/// What they are spent on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Budget {
    /// What listeners, checks and connections get.
    left: u64,
    checks: usize,
    pipes_a_worker: u64,
    /// The limit of open files, to be told.
    files: u64,
}

impl Budget {
    fn new(descriptors: Descriptors, workers: usize) -> Self {
        let workers = u64::try_from(workers).unwrap_or(u64::MAX).max(1);
        let open = descriptors.open.saturating_add(OF_A_RUNTIME * workers);
        let free = descriptors.limit.saturating_sub(open);
        let free = free - KEPT_BACK.min(free / 2);
        // of 4 connections and a pipe, the pipe takes 2 descriptors of 10
        let pipes = free / (2 * CONNECTIONS_A_PIPE + 2);
        let pipes_a_worker = (pipes / workers).min(MAX_PIPES);
        Self {
            left: free - 2 * pipes_a_worker * workers,
            checks: descriptors.checks,
            pipes_a_worker,
            files: descriptors.limit,
        }
    }

    /// How many connections there may be beside so many listening sockets and servers to check. At least one.
    fn connections(&self, listeners: usize, servers: usize) -> u32 {
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let others = count(listeners).saturating_add(count(servers.min(self.checks)));
        let connections = self.left.saturating_sub(others) / 2;
        u32::try_from(connections).unwrap_or(u32::MAX).max(1)
    }
}

/// What takes up descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occupant {
    /// A connection: towards the client, and towards the server.
    Connection,
    /// A UDP session: towards the server.
    Session,
}

impl Occupant {
    const fn descriptors(self) -> u32 {
        match self {
            Self::Connection => 2,
            Self::Session => 1,
        }
    }
}

/// What is open, and how many descriptors it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Used {
    open: u32,
    descriptors: u32,
}

impl Used {
    const fn unpacked(packed: u64) -> Self {
        Self {
            open: packed as u32,
            descriptors: (packed >> 32) as u32,
        }
    }

    const fn sessions(self) -> u32 {
        // of two that take 2 and 1
        (2 * self.open as u64).saturating_sub(self.descriptors as u64) as u32
    }

    /// In one word, which changes at once.
    const fn packed(self) -> u64 {
        (self.descriptors as u64) << 32 | self.open as u64
    }
}

/// The proxied connections and sessions of the process against their limit.
#[derive(Debug)]
pub struct ConnectionLimit {
    budget: Budget,
    listeners: AtomicUsize,
    /// See [`Used`].
    used: AtomicU64,
    freed: Notify,
    stock: AtomicUsize,
    pauses: AtomicU64,
    logged_at: Mutex<Option<Instant>>,
}

impl ConnectionLimit {
    /// No connection yet, and no listener.
    pub fn new(descriptors: Descriptors, workers: usize) -> Self {
        Self {
            budget: Budget::new(descriptors, workers),
            listeners: AtomicUsize::new(0),
            used: AtomicU64::new(0),
            freed: Notify::new(),
            stock: AtomicUsize::new(0),
            pauses: AtomicU64::new(0),
            logged_at: Mutex::new(None),
        }
    }

    /// Most connections at a time while so many servers are configured.
    pub fn most(&self, servers: usize) -> u32 {
        let listeners = self.listeners.load(Ordering::Relaxed);
        let stock = self.stock.load(Ordering::Relaxed);
        self.budget.connections(listeners.saturating_add(stock), servers)
    }

    /// Connections and sessions that are open now.
    pub fn open(&self) -> u32 {
        Used::unpacked(self.used.load(Ordering::Relaxed)).open
    }

    /// How many connections and sessions there would be if connections took all that is left.
    pub fn reachable(&self, servers: usize) -> u32 {
        let used = Used::unpacked(self.used.load(Ordering::Relaxed));
        let descriptors = self
            .most(servers)
            .saturating_mul(Occupant::Connection.descriptors());
        let left = descriptors.saturating_sub(used.descriptors) / Occupant::Connection.descriptors();
        used.open.saturating_add(left)
    }

    /// How often a listener has stopped accepting because of the limit.
    pub fn pauses(&self) -> u64 {
        self.pauses.load(Ordering::Relaxed)
    }

    /// Most pipes of a worker.
    pub fn pipes_a_worker(&self) -> usize {
        usize::try_from(self.budget.pipes_a_worker).unwrap_or(usize::MAX)
    }

    /// Takes a place if it fits into what `most` connections take. To be [released](Self::release).
    pub fn try_take(&self, what: Occupant, most: u32) -> bool {
        let limit = most.saturating_mul(Occupant::Connection.descriptors());
        let taken = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |packed| {
                let used = Used::unpacked(packed);
                let descriptors = used.descriptors.saturating_add(what.descriptors());
                let open = used.open.saturating_add(1);
                let fits = match what {
                    Occupant::Connection => descriptors <= limit,
                    Occupant::Session => {
                        let sessions = used.sessions().saturating_add(1);
                        descriptors <= limit && sessions <= limit - limit / OF_CONNECTIONS_ALONE
                    }
                };
                fits.then(|| Used { open, descriptors }.packed())
            });
        taken.is_ok()
    }

    /// Gives a place back, once its descriptors are closed.
    pub fn release(&self, what: Occupant) {
        let one = Used {
            open: 1,
            descriptors: what.descriptors(),
        };
        self.used.fetch_sub(one.packed(), Ordering::Relaxed);
        self.freed.notify_one();
    }

    /// Signalled when a place is given back; wakes one listener.
    pub fn freed(&self) -> &Notify {
        &self.freed
    }

    /// Notes how many sockets are kept in stock at most.
    pub fn stock(&self, sockets: usize) {
        self.stock.store(sockets, Ordering::Relaxed);
        self.freed().notify_one();
    }

    /// Notes a listening socket.
    pub fn listener_added(&self) {
        self.listeners.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that a listening socket is closed, which leaves its descriptor to connections.
    pub fn listener_removed(&self) {
        self.listeners.fetch_sub(1, Ordering::Relaxed);
        self.freed().notify_one();
    }

    /// Counts a pause of a listener, and logs it if the last one is a minute ago.
    pub fn note_pause(&self, most: u32) {
        self.pauses.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        let mut logged_at = self.logged_at.lock().unwrap_or_else(PoisonError::into_inner);
        if logged_at.is_some_and(|at| now - at < LOG_PAUSE) {
            return;
        }
        *logged_at = Some(now);
        tracing::warn!(
            event = "connection_limit_reached",
            limit = most,
            "all {most} connections that {} open files allow are in use: new ones wait until one ends; raise the limit \
             of open files (LimitNOFILE= of the unit, ulimit -n)",
            self.budget.files,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(limit: u64, workers: usize) -> Budget {
        let descriptors = Descriptors {
            limit,
            open: 30,
            checks: 256,
        };
        Budget::new(descriptors, workers)
    }

    #[test]
    fn what_is_spent_never_exceeds_the_limit() {
        for limit in (0..5_000).chain([65_536, 1 << 20, 1 << 30]) {
            for workers in [1, 2, 64] {
                for (listeners, servers) in [(0, 0), (2, 1), (100, 10_000)] {
                    let budget = budget(limit, workers);
                    let connections = u64::from(budget.connections(listeners, servers));
                    let pipes = budget.pipes_a_worker * workers as u64;
                    let others = 30 + 5 * workers as u64 + listeners as u64 + (servers as u64).min(256);
                    let spent = 2 * connections + 2 * pipes + others;
                    // one connection there may be in any case
                    assert!(spent <= limit || connections == 1, "{limit}: {budget:?}");
                }
            }
        }
    }

    #[test]
    fn sixty_four_are_kept_back_and_half_of_what_there_is_where_it_is_little() {
        // 1,000 less 35 less 64 leaves 901: 90 pipes, 360 connections
        assert_eq!(budget(1_000, 1).pipes_a_worker, 90);
        assert_eq!(budget(1_000, 1).connections(0, 0), 360);
        // 48 less 35 leaves 13, of which 7 are spent
        assert_eq!(budget(48, 1).pipes_a_worker, 0);
        assert_eq!(budget(48, 1).connections(1, 1), 2);
        assert_eq!(budget(10, 2).connections(2, 1), 1);
    }

    #[test]
    fn where_there_are_many_every_worker_has_all_its_pipes_and_the_rest_is_for_connections() {
        let budget = budget(1 << 20, 2);
        assert_eq!(budget.pipes_a_worker, MAX_PIPES);
        assert_eq!(
            budget.connections(2, 3),
            ((1 << 20) - 30 - 10 - 64 - 1_024 - 5) / 2
        );
    }

    #[test]
    fn checks_take_no_more_than_run_at_a_time() {
        let budget = budget(4_096, 1);
        assert_eq!(budget.connections(0, 256), budget.connections(0, 10_000));
        assert_eq!(budget.connections(0, 0) - budget.connections(0, 256), 128);
    }

    #[test]
    fn a_session_takes_half_the_place_of_a_connection() {
        let descriptors = Descriptors {
            limit: 300,
            open: 30,
            checks: 0,
        };
        let limit = ConnectionLimit::new(descriptors, 1);
        assert!(limit.try_take(Occupant::Connection, 2));
        assert!(limit.try_take(Occupant::Session, 2));
        assert!(!limit.try_take(Occupant::Connection, 2), "one descriptor is left");
        assert!(limit.try_take(Occupant::Session, 2));
        assert!(!limit.try_take(Occupant::Session, 2));
        assert_eq!(limit.open(), 3);
        assert_eq!(limit.reachable(0), 3 + limit.most(0) - 2);
        for what in [Occupant::Connection, Occupant::Session, Occupant::Session] {
            limit.release(what);
        }
        let sessions = (0..10).filter(|_| limit.try_take(Occupant::Session, 4)).count();
        assert_eq!(sessions, 6, "a fourth is for connections");
        assert!(limit.try_take(Occupant::Connection, 4));
        for what in [Occupant::Session; 6].into_iter().chain([Occupant::Connection]) {
            limit.release(what);
        }
        assert_eq!((limit.open(), limit.reachable(0)), (0, limit.most(0)));
    }

    #[test]
    fn a_listener_that_is_closed_leaves_room_for_connections() {
        let descriptors = Descriptors {
            limit: 300,
            open: 30,
            checks: 256,
        };
        let limit = ConnectionLimit::new(descriptors, 1);
        let before = limit.most(0);
        limit.listener_added();
        limit.listener_added();
        assert_eq!(limit.most(0), before - 1);
        limit.listener_removed();
        limit.listener_removed();
        assert_eq!(limit.most(0), before);
    }
}
