//! How many flows there may be: `max_flows`, shared by passthrough and the cache of DSR.
//!
//! Passthrough may take everything that DSR does not hold, and DSR's cache half at most: to lose an entry costs it
//! nothing, while a passthrough flow that is refused is a connection that fails. Half-open passthrough flows may hold
//! a quarter, so that unverified (half-open) flows can never use the half reserved for verified ones.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::base::PacketReason;

/// Divisor of `max_flows`: the share that half-open passthrough flows may hold.
const HALF_OPEN_PART: u32 = 4;
/// Divisor of `max_flows`: the share that DSR's cache may hold.
const DSR_PART: u32 = 2;

/// Places for flows.
#[derive(Debug)]
pub(super) struct Quota {
    max: u32,
    all: AtomicU32,
    half_open: AtomicU32,
    dsr: AtomicU32,
}

/// Half-open passthrough flows among `max_flows`, at most.
pub fn half_open_limit(max_flows: u32) -> u32 {
    (max_flows / HALF_OPEN_PART).max(1)
}

/// Adds one if that keeps a counter within a limit.
fn take(counter: &AtomicU32, limit: u32) -> bool {
    counter
        .fetch_update(Relaxed, Relaxed, |used| (used < limit).then_some(used + 1))
        .is_ok()
}

impl Quota {
    pub const fn new(max: u32) -> Self {
        Self {
            max,
            all: AtomicU32::new(0),
            half_open: AtomicU32::new(0),
            dsr: AtomicU32::new(0),
        }
    }

    pub const fn max(&self) -> u32 {
        self.max
    }

    /// Half-open passthrough flows, at most.
    pub fn half_open_limit(&self) -> u32 {
        half_open_limit(self.max)
    }

    /// Entries of DSR's cache, at most.
    pub fn dsr_limit(&self) -> u32 {
        (self.max / DSR_PART).max(1)
    }

    pub fn half_open(&self) -> u32 {
        self.half_open.load(Relaxed)
    }

    pub fn dsr(&self) -> u32 {
        self.dsr.load(Relaxed)
    }

    pub fn nat(&self) -> u32 {
        self.all.load(Relaxed).saturating_sub(self.dsr())
    }

    /// Takes a place for a new passthrough flow, which is half-open.
    ///
    /// # Errors
    /// Why there is none.
    pub fn take_nat(&self) -> Result<(), PacketReason> {
        if !take(&self.half_open, self.half_open_limit()) {
            return Err(PacketReason::SynShareFull);
        }
        if !take(&self.all, self.max) {
            self.half_open.fetch_sub(1, Relaxed);
            return Err(PacketReason::TableFull);
        }
        Ok(())
    }

    /// A passthrough flow has become established.
    pub fn established(&self) {
        self.half_open.fetch_sub(1, Relaxed);
    }

    /// Gives the place of a passthrough flow back.
    pub fn give_nat(&self, was_half_open: bool) {
        self.all.fetch_sub(1, Relaxed);
        if was_half_open {
            self.half_open.fetch_sub(1, Relaxed);
        }
    }

    /// Takes a place for an entry of DSR's cache, if there is one.
    pub fn take_dsr(&self) -> bool {
        if !take(&self.dsr, self.dsr_limit()) {
            return false;
        }
        if !take(&self.all, self.max) {
            self.dsr.fetch_sub(1, Relaxed);
            return false;
        }
        true
    }

    /// Gives the place of an entry of DSR's cache back.
    pub fn give_dsr(&self) {
        self.all.fetch_sub(1, Relaxed);
        self.dsr.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dsr_leaves_half_of_the_room_to_passthrough() {
        let room = Quota::new(8);
        assert_eq!((0..8).filter(|_| room.take_dsr()).count(), 4);
        for _ in 0..4 {
            assert_eq!(room.take_nat(), Ok(()));
            room.established();
        }
        assert_eq!(room.take_nat(), Err(PacketReason::TableFull));
        assert_eq!((room.nat(), room.dsr(), room.half_open()), (4, 4, 0));
        room.give_dsr();
        assert_eq!(room.take_nat(), Ok(()));
    }

    #[test]
    fn half_open_flows_hold_a_quarter_at_most() {
        let room = Quota::new(8);
        assert_eq!((room.take_nat(), room.take_nat()), (Ok(()), Ok(())));
        assert_eq!(room.take_nat(), Err(PacketReason::SynShareFull));
        room.established();
        assert_eq!(room.take_nat(), Ok(()));
        room.give_nat(true);
        room.give_nat(false);
        assert_eq!((room.nat(), room.half_open()), (1, 1));
    }
}
