//! What one worker has counted.

use std::fmt::Debug;

use crate::{base::PacketReason, snapshot::live::Counter};

/// Where a worker counts the verdicts on its packets.
pub trait PacketCounters: Debug + Send + Sync + 'static {
    /// Counts packets. Only the worker's own thread may.
    fn add(&self, reason: PacketReason, packets: u64);

    /// Packets counted so far.
    fn read(&self, reason: PacketReason) -> u64;
}

/// Packets of one worker by verdict; a super-frame counts once. Written by its thread, read by any.
#[derive(Debug)]
#[repr(align(128))]
pub struct ReasonCounters([Counter; PacketReason::COUNT]);

impl Default for ReasonCounters {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

impl PacketCounters for ReasonCounters {
    #[inline]
    fn add(&self, reason: PacketReason, packets: u64) {
        if let Some(counter) = self.0.get(reason as usize) {
            counter.add(packets);
        }
    }

    fn read(&self, reason: PacketReason) -> u64 {
        self.0.get(reason as usize).map_or(0, Counter::read)
    }
}
