//! What a worker has counted: written by it alone, read by anybody.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::base::PacketReason;

/// One counter for each reason. In a cache line of its own worker's.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Counters([AtomicU64; PacketReason::COUNT]);

impl Counters {
    /// Counts packets. Called by the counters' own worker only: a load and a store, no locked instruction.
    pub fn add(&self, reason: PacketReason, packets: u64) {
        if let Some(counter) = self.0.get(reason as usize) {
            let sum = counter.load(Ordering::Relaxed).wrapping_add(packets);
            counter.store(sum, Ordering::Relaxed);
        }
    }

    /// Packets counted until now.
    pub fn get(&self, reason: PacketReason) -> u64 {
        let counter = self.0.get(reason as usize);
        counter.map_or(0, |counter| counter.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_own_counter() {
        let counters = Counters::default();
        counters.add(PacketReason::ToServer, 3);
        counters.add(PacketReason::Truncated, 2);
        counters.add(PacketReason::ToServer, 1);
        let counted: Vec<_> = PacketReason::ALL
            .iter()
            .map(|reason| (*reason, counters.get(*reason)))
            .filter(|(_, count)| *count > 0)
            .collect();
        assert_eq!(
            counted,
            [(PacketReason::ToServer, 4), (PacketReason::Truncated, 2)]
        );
    }
}
