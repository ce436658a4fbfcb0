//! What outlives a snapshot: counters and connection slots of frontends, backends and servers.
//!
//! Counters are sharded by worker thread; each shard has one writer, so an update is a plain load and store, and
//! a reader sums the shards. Slots are process-wide atomics.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, OnceLock, PoisonError, Weak,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Instant,
};

use tokio::sync::Notify;

use crate::{
    balance::{Bandwidth, StickyTable},
    base::{
        AccessReason, BackendName, DatagramDrop, FrontendName, Handshake, ServerAddr, ServerDrop, ServerName,
        ServerTlsFailure, TerminationReason, WorkerId,
    },
    pools::Server,
};

/// A monotonic counter with a single writing thread.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the thread that owns the shard may call it: a second writer's updates would be lost.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0
            .store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// The value as last written.
    #[must_use]
    pub fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One thread's counters of one frontend, backend or server.
///
/// Aligned to two cache lines (the unit that x86 prefetches), so that threads do not share one.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct StatsShard {
    /// Connections accepted (frontend), routed (backend), established (server).
    pub opened: Counter,
    /// Those of them that have ended; the difference is the current number, so it cannot drift.
    pub closed: Counter,
    /// Bytes from clients to servers.
    pub bytes_in: Counter,
    /// Bytes from servers to clients.
    pub bytes_out: Counter,
    /// Datagrams of UDP sessions from clients to servers.
    pub datagrams_in: Counter,
    /// Datagrams of UDP sessions from servers to clients.
    pub datagrams_out: Counter,
    /// Connect attempts to a server that failed; of UDP sessions, that ICMP has told its port is closed or unreachable.
    pub connect_failures: Counter,
    /// Connect attempts after the first of a connection.
    pub retries: Counter,
    /// Accept calls that failed for want of descriptors or memory (frontends only).
    pub accept_errors: Counter,
    /// Ended connections by [`TerminationReason`].
    pub ended: PerEnding<Counter>,
    /// Connections that access rules or limits refused, by [`AccessReason`] (frontends only); in packet modes the packets
    /// that would have made flows.
    pub refused: [Counter; AccessReason::ALL.len()],
    /// Datagrams that the UDP proxy has dropped, by [`DatagramDrop`] (frontends only).
    pub lost: [Counter; DatagramDrop::ALL.len()],
    /// TCP handshakes by how they ended, in packet modes (servers only).
    pub handshakes: [Counter; Handshake::ALL.len()],
    /// Packets that did not leave for it, by [`ServerDrop`] (servers only).
    pub dropped: [Counter; ServerDrop::ALL.len()],
    /// TLS handshakes with it that failed, by [`ServerTlsFailure`] (servers only).
    pub tls_failures: [Counter; ServerTlsFailure::ALL.len()],
}

/// One for each [`TerminationReason`], by discriminant: more than an array that has a default may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PerEnding<T>([T; TerminationReason::ALL.len()]);

impl<T: Default> Default for PerEnding<T> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| T::default()))
    }
}

impl<T> std::ops::Deref for PerEnding<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T> std::ops::DerefMut for PerEnding<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.0
    }
}

/// Counters with one shard for each worker.
#[derive(Debug)]
pub struct Counters(Box<[StatsShard]>);

/// The shards summed at one moment. Sums of running threads: exact once they pause, never negative.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Totals {
    /// See [`StatsShard::opened`].
    pub opened: u64,
    /// Connections that are open now.
    pub current: u64,
    /// See [`StatsShard::bytes_in`].
    pub bytes_in: u64,
    /// See [`StatsShard::bytes_out`].
    pub bytes_out: u64,
    /// See [`StatsShard::datagrams_in`].
    pub datagrams_in: u64,
    /// See [`StatsShard::datagrams_out`].
    pub datagrams_out: u64,
    /// See [`StatsShard::connect_failures`].
    pub connect_failures: u64,
    /// See [`StatsShard::retries`].
    pub retries: u64,
    /// See [`StatsShard::accept_errors`].
    pub accept_errors: u64,
    /// See [`StatsShard::ended`], by discriminant.
    pub ended: PerEnding<u64>,
    /// See [`StatsShard::refused`], by discriminant.
    pub refused: [u64; AccessReason::ALL.len()],
    /// See [`StatsShard::lost`], by discriminant.
    pub lost: [u64; DatagramDrop::ALL.len()],
    /// See [`StatsShard::handshakes`], by discriminant.
    pub handshakes: [u64; Handshake::ALL.len()],
    /// See [`StatsShard::dropped`], by discriminant.
    pub dropped: [u64; ServerDrop::ALL.len()],
    /// See [`StatsShard::tls_failures`], by discriminant.
    pub tls_failures: [u64; ServerTlsFailure::ALL.len()],
}

impl Counters {
    /// Zeroed counters for so many workers.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self((0..workers).map(|_| StatsShard::default()).collect())
    }

    /// The calling worker's own shard.
    #[inline]
    #[must_use]
    pub fn shard(&self, worker: WorkerId) -> &StatsShard {
        &self.0[worker.0]
    }

    /// Bytes of all shards, both ways.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let of = |shard: &StatsShard| shard.bytes_in.read().wrapping_add(shard.bytes_out.read());
        self.0.iter().map(of).fold(0, u64::wrapping_add)
    }

    /// Sums the shards.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        // all closed before any opened: a connection that starts in between must not make the difference negative; and
        // the difference of the sums, because in packet modes one worker may close what another has opened
        let closed: u64 = self.0.iter().map(|shard| shard.closed.read()).sum();
        for shard in &self.0 {
            totals.opened += shard.opened.read();
            totals.bytes_in += shard.bytes_in.read();
            totals.bytes_out += shard.bytes_out.read();
            totals.datagrams_in += shard.datagrams_in.read();
            totals.datagrams_out += shard.datagrams_out.read();
            totals.connect_failures += shard.connect_failures.read();
            totals.retries += shard.retries.read();
            totals.accept_errors += shard.accept_errors.read();
            add(&mut totals.ended.0, &shard.ended.0);
            add(&mut totals.refused, &shard.refused);
            add(&mut totals.lost, &shard.lost);
            add(&mut totals.handshakes, &shard.handshakes);
            add(&mut totals.dropped, &shard.dropped);
            add(&mut totals.tls_failures, &shard.tls_failures);
        }
        totals.current = totals.opened.saturating_sub(closed);
        totals
    }
}

/// Adds a shard's counters to the sums.
fn add(sums: &mut [u64], counters: &[Counter]) {
    for (sum, counter) in sums.iter_mut().zip(counters) {
        *sum += counter.read();
    }
}

/// Connection slots shared by all threads, with waiters woken when one is freed.
#[derive(Debug, Default)]
pub struct Slots {
    used: AtomicU32,
    freed: Notify,
}

impl Slots {
    /// Takes a slot if fewer than `limit` are taken; without a limit always.
    pub fn try_take(&self, limit: Option<u32>) -> bool {
        match limit {
            None => {
                self.used.fetch_add(1, Ordering::Relaxed);
                true
            }
            Some(limit) => self
                .used
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                    (used < limit).then_some(used + 1)
                })
                .is_ok(),
        }
    }

    /// Gives one slot back and wakes one waiter of these slots.
    pub fn release(&self) {
        self.used.fetch_sub(1, Ordering::Relaxed);
        self.freed.notify_one();
    }

    /// Slots taken now.
    #[must_use]
    pub fn used(&self) -> u32 {
        self.used.load(Ordering::Relaxed)
    }

    /// Signalled by [`release`](Self::release).
    #[must_use]
    pub fn freed(&self) -> &Notify {
        &self.freed
    }
}

/// A frontend's lasting part.
#[derive(Debug)]
pub struct FrontendStats {
    /// Its counters.
    pub counters: Counters,
    /// Its connections against `max_connections`.
    pub slots: Slots,
    /// Its TLS handshakes under way against `max_handshakes`.
    pub handshakes: Slots,
}

/// A backend's lasting part.
#[derive(Debug)]
pub struct BackendStats {
    /// Its counters.
    pub counters: Counters,
    /// Connections waiting for a server below its limit, against `max_queue`.
    pub queue: Slots,
    /// Signalled when any server of the backend frees a slot or becomes usable.
    pub server_freed: Notify,
    /// Which server each client network had last; made with the first.
    sticky: OnceLock<Box<StickyTable>>,
}

/// A server's lasting part.
#[derive(Debug)]
pub struct ServerStats {
    /// Its counters.
    pub counters: Counters,
    /// Its connections, being established ones included, against `max_connections`; least connections reads it.
    pub slots: Slots,
    /// Connects that failed in a row (passive check). Workers count up and report when it reaches `max_failures`; a
    /// successful connect sets it to 0, and so does a [build](super::Builder::build) when the server comes up again.
    pub failures_in_a_row: AtomicU32,
    /// NAT ports that passthrough flows to it have claimed.
    pub nat_ports: AtomicU32,
    /// Its bytes of late: looked at by least bandwidth alone.
    bandwidth: Mutex<Bandwidth>,
}

impl FrontendStats {
    /// A fresh one for so many workers.
    #[must_use]
    pub fn new(workers: usize) -> Arc<Self> {
        Arc::new(Self {
            counters: Counters::new(workers),
            slots: Slots::default(),
            handshakes: Slots::default(),
        })
    }
}

impl BackendStats {
    /// A fresh one for so many workers.
    #[must_use]
    pub fn new(workers: usize) -> Arc<Self> {
        Arc::new(Self {
            counters: Counters::new(workers),
            queue: Slots::default(),
            server_freed: Notify::new(),
            sticky: OnceLock::new(),
        })
    }

    /// Which server each client network had last.
    #[must_use]
    pub fn sticky(&self) -> &StickyTable {
        self.sticky.get_or_init(Box::default)
    }
}

impl ServerStats {
    /// A fresh one for so many workers.
    #[must_use]
    pub fn new(workers: usize) -> Arc<Self> {
        Arc::new(Self {
            counters: Counters::new(workers),
            slots: Slots::default(),
            failures_in_a_row: AtomicU32::new(0),
            nat_ports: AtomicU32::new(0),
            bandwidth: Mutex::default(),
        })
    }

    /// What it stands at in bytes of late, both ways.
    #[must_use]
    pub fn bytes_of_late(&self, now: Instant) -> u64 {
        let bytes = self.counters.bytes();
        let mut bandwidth = self.bandwidth.lock().unwrap_or_else(PoisonError::into_inner);
        bandwidth.seen(bytes, now)
    }

    /// Charges it in advance with a connection that it was given by its bytes of late.
    pub fn charge(&self) {
        let mut bandwidth = self.bandwidth.lock().unwrap_or_else(PoisonError::into_inner);
        bandwidth.charge();
    }
}

/// The lasting parts by name. Snapshots and connections own them: what is removed goes on counting while a connection holds
/// it, and is found again when it comes back meanwhile.
#[derive(Debug, Default)]
pub(super) struct StatsSet {
    workers: usize,
    frontends: HashMap<FrontendName, Weak<FrontendStats>>,
    backends: HashMap<BackendName, Weak<BackendStats>>,
    /// Keyed by address too: a server that moves to another address is another server.
    servers: HashMap<BackendName, HashMap<(ServerName, ServerAddr), Weak<ServerStats>>>,
    /// Those of discovered servers that are away, for they may come back; the one that went last is at the end.
    away: VecDeque<Arc<ServerStats>>,
}

/// Most discovered servers that are away and whose counters are kept, some 1 KB for each worker; of more the oldest are
/// forgotten.
const MOST_AWAY: usize = 1_000;

impl StatsSet {
    /// An empty set for so many workers.
    pub fn new(workers: usize) -> Self {
        Self {
            workers,
            ..Self::default()
        }
    }

    /// A frontend's.
    pub fn frontend(&mut self, name: &FrontendName) -> Arc<FrontendStats> {
        let weak = self.frontends.entry(name.clone()).or_default();
        shared(weak, || FrontendStats::new(self.workers))
    }

    /// A backend's.
    pub fn backend(&mut self, name: &BackendName) -> Arc<BackendStats> {
        let weak = self.backends.entry(name.clone()).or_default();
        shared(weak, || BackendStats::new(self.workers))
    }

    /// A server's.
    pub fn server(&mut self, backend: &BackendName, server: &Server) -> Arc<ServerStats> {
        let servers = match self.servers.get_mut(backend) {
            Some(servers) => servers,
            None => self.servers.entry(backend.clone()).or_default(),
        };
        let weak = servers.entry((server.name.clone(), server.addr)).or_default();
        shared(weak, || ServerStats::new(self.workers))
    }

    /// Discovered servers of a backend have gone: their counters are kept for a while. What nobody holds of the backend's
    /// others is forgotten.
    pub fn gone(&mut self, backend: &BackendName, gone: impl Iterator<Item = Arc<ServerStats>>) {
        for stats in gone {
            // it was away before, and back meanwhile
            self.away.retain(|away| !Arc::ptr_eq(away, &stats));
            if self.away.len() >= MOST_AWAY {
                self.away.pop_front();
            }
            self.away.push_back(stats);
        }
        if let Some(servers) = self.servers.get_mut(backend) {
            servers.retain(|_, weak| weak.strong_count() > 0);
        }
    }

    /// Forgets what nobody holds any more.
    pub fn forget_unused(&mut self) {
        fn is_held<T>(weak: &Weak<T>) -> bool {
            weak.strong_count() > 0
        }
        self.frontends.retain(|_, weak| is_held(weak));
        self.backends.retain(|_, weak| is_held(weak));
        self.servers.retain(|_, servers| {
            servers.retain(|_, weak| is_held(weak));
            !servers.is_empty()
        });
    }
}

fn shared<T>(weak: &mut Weak<T>, make: impl FnOnce() -> Arc<T>) -> Arc<T> {
    weak.upgrade().unwrap_or_else(|| {
        let new = make();
        *weak = Arc::downgrade(&new);
        new
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_sum_the_shards_and_current_is_opened_minus_closed() {
        let counters = Counters::new(2);
        counters.shard(WorkerId(0)).opened.add(3);
        counters.shard(WorkerId(1)).opened.add(2);
        counters.shard(WorkerId(1)).closed.add(1);
        counters.shard(WorkerId(0)).bytes_in.add(10);
        let totals = counters.totals();
        assert_eq!((totals.opened, totals.current, totals.bytes_in), (5, 4, 10));
    }

    #[test]
    fn slots_stop_at_the_limit_and_free_again() {
        let slots = Slots::default();
        assert!(slots.try_take(Some(2)) && slots.try_take(Some(2)));
        assert!(!slots.try_take(Some(2)), "a third of two");
        slots.release();
        assert!(slots.try_take(Some(2)));
        assert_eq!(slots.used(), 2);
    }
}
