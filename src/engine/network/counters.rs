//! What the follower counts.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The counters, shared with the task, which alone writes them.
#[derive(Debug, Default)]
pub struct Counts {
    pub probes: Count,
    pub probes_put_off: Count,
    pub probes_failed: Count,
    pub overruns: Count,
    pub unreadable: Count,
    pub table_full: Count,
}

/// One counter.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    pub fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }
}

/// What the follower has counted since it started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NetworkCounters {
    /// Datagrams sent to have a next hop resolved or confirmed.
    pub probes: u64,
    /// Times that one was put off because too many were due at once.
    pub probes_put_off: u64,
    /// Those that the kernel refused to send.
    pub probes_failed: u64,
    /// Times that notifications were lost, and everything was asked for again.
    pub overruns: u64,
    /// Messages of the kernel that were not understood.
    pub unreadable: u64,
    /// Interfaces and addresses that found no room in the table.
    pub table_full: u64,
}

impl From<&Counts> for NetworkCounters {
    fn from(counts: &Counts) -> Self {
        let get = |count: &Count| count.0.load(Relaxed);
        Self {
            probes: get(&counts.probes),
            probes_put_off: get(&counts.probes_put_off),
            probes_failed: get(&counts.probes_failed),
            overruns: get(&counts.overruns),
            unreadable: get(&counts.unreadable),
            table_full: get(&counts.table_full),
        }
    }
}
