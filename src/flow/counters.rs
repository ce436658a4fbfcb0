//! What one worker has counted.

use crate::{base::PacketReason, snapshot::live::Counter};

/// Packets of one worker by verdict; a super-frame counts once. Written by its thread, read by any.
#[derive(Debug)]
#[repr(align(128))]
pub struct ReasonCounters([Counter; PacketReason::COUNT]);

impl Default for ReasonCounters {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

impl ReasonCounters {
    /// Counts packets. Only the worker's own thread may.
    #[inline]
    pub fn add(&self, reason: PacketReason, packets: u64) {
        if let Some(counter) = self.0.get(reason as usize) {
            counter.add(packets);
        }
    }

    /// Packets counted so far.
    #[must_use]
    pub fn read(&self, reason: PacketReason) -> u64 {
        self.0.get(reason as usize).map_or(0, Counter::read)
    }
}
