//! What outlives a snapshot: counters and connection slots of frontends, backends and servers.
//!
//! Counters are sharded by worker thread; each shard has one writer, so an update is a plain load and store, and
//! a reader sums the shards. Slots are process-wide atomics.

use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Instant,
};

use tokio::sync::Notify;

pub use super::counter::Counter;
use super::{
    histogram::{Histogram, PerWorker, Times},
    sampling::Sampler,
    trend::{Sample, Trend},
};
use crate::{
    balance::{Bandwidth, StickyTable},
    base::{
        AccessReason, DatagramDrop, Handshake, ServerDrop, ServerTlsFailure, TerminationReason, WorkerId,
    },
    config::CipherSuite,
};

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

    /// One counter of all shards.
    #[must_use]
    pub fn sum(&self, of: impl Fn(&StatsShard) -> &Counter) -> u64 {
        self.0
            .iter()
            .map(|shard| of(shard).read())
            .fold(0, u64::wrapping_add)
    }

    /// Connections that are open now.
    #[must_use]
    pub fn current(&self) -> u64 {
        // as in the totals: the closed ones first
        let closed = self.sum(|shard| &shard.closed);
        self.sum(|shard| &shard.opened).saturating_sub(closed)
    }

    /// What a trend is made of. That a server was tried in vain is no failure of a connection that has found another.
    #[must_use]
    pub fn sample(&self) -> Sample {
        let mut sample = Sample {
            current: self.current(),
            ..Sample::default()
        };
        for shard in &self.0 {
            sample.connections += shard.opened.read();
            sample.bytes_in += shard.bytes_in.read();
            sample.bytes_out += shard.bytes_out.read();
            sample.failures += shard.accept_errors.read();
            let failed = (TerminationReason::ALL.iter()).filter(|reason| reason.is_failure());
            sample.failures += failed
                .map(|reason| shard.ended[*reason as usize].read())
                .sum::<u64>();
            sample.failures += shard.refused.iter().map(Counter::read).sum::<u64>();
        }
        sample
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
    /// Which of its connections are logged.
    pub sampler: Sampler,
    /// How long its connections lasted, from accept to the end.
    pub session_time: PerWorker<Histogram>,
    /// Its TLS sessions, where TLS ends here.
    pub tls: PerWorker<TlsCounters>,
    /// What went on of late.
    pub trend: Trend,
}

/// One thread's TLS sessions of a frontend.
#[derive(Debug, Default)]
pub struct TlsCounters {
    /// How long complete handshakes took.
    pub handshake_time: Histogram,
    /// Sessions by suite, by its place in [`CipherSuite::ALL`], which tells the version too.
    pub sessions: [Counter; CipherSuite::ALL.len()],
    /// Those that went on with an earlier one.
    pub resumed: Counter,
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
    /// How long those waited that waited for a server, whatever came of it.
    pub queue_time: PerWorker<Histogram>,
    /// How long connections to its servers took to be established, TLS included.
    pub connect_time: PerWorker<Histogram>,
    /// How long its connections lasted, from accept to the end.
    pub session_time: PerWorker<Histogram>,
    /// What went on of late.
    pub trend: Trend,
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
    /// How long connections to it took to be established, TLS included.
    pub connect_time: PerWorker<Histogram>,
    /// How long its connections lasted, from accept to the end.
    pub session_time: PerWorker<Histogram>,
    /// What went on of late.
    pub trend: Trend,
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
            sampler: Sampler::default(),
            session_time: PerWorker::new(workers),
            tls: PerWorker::new(workers),
            trend: Trend::default(),
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
            queue_time: PerWorker::new(workers),
            connect_time: PerWorker::new(workers),
            session_time: PerWorker::new(workers),
            trend: Trend::default(),
            sticky: OnceLock::new(),
        })
    }

    /// Which server each client network had last.
    #[must_use]
    pub fn sticky(&self) -> &StickyTable {
        self.sticky.get_or_init(Box::default)
    }
}

impl FrontendStats {
    /// TLS handshakes.
    #[must_use]
    pub fn handshake_times(&self) -> Times {
        Times::sum(self.tls.all().map(|tls| &tls.handshake_time))
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
            connect_time: PerWorker::new(workers),
            session_time: PerWorker::new(workers),
            trend: Trend::default(),
            bandwidth: Mutex::default(),
        })
    }

    /// What its trend is made of: every failed attempt is a failure.
    #[must_use]
    pub fn sample(&self) -> Sample {
        let mut sample = self.counters.sample();
        sample.failures += self.counters.sum(|shard| &shard.connect_failures);
        sample
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
