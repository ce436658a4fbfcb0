//! How many passthrough flows there are and may be, and how many NAT ports are claimed towards each server: counters that the
//! program and the slow path change at once.

use super::layout::{CLAIMS_FLOWS, CLAIMS_GAVE_WAY, CLAIMS_HALF_OPEN};
use crate::{base::PacketReason, flow::stored::half_open_limit, sys::bpf::MappedCounters};

/// Place of the passthrough flows.
pub const FLOWS: usize = CLAIMS_FLOWS as usize;
/// Place of those that are half-open.
pub const HALF_OPEN: usize = CLAIMS_HALF_OPEN as usize;
const GAVE_WAY: usize = CLAIMS_GAVE_WAY as usize;

/// The counters, with the limits of an engine.
#[derive(Debug, Clone, Copy)]
pub struct Counts<'a> {
    /// Theirs.
    pub claims: &'a MappedCounters,
    /// Passthrough flows, at most.
    pub max_flows: u32,
}

impl Counts<'_> {
    /// Passthrough flows.
    #[must_use]
    pub fn flows(&self) -> u64 {
        u64::try_from(self.claims.get(FLOWS)).unwrap_or(0)
    }

    /// Those that are half-open.
    #[must_use]
    pub fn half_open(&self) -> u64 {
        u64::try_from(self.claims.get(HALF_OPEN)).unwrap_or(0)
    }

    /// Flows that have given their place or NAT port to new ones.
    #[must_use]
    pub fn gave_way(&self) -> u64 {
        u64::try_from(self.claims.get(GAVE_WAY)).unwrap_or(0)
    }

    /// One more has.
    pub fn give_way(&self) {
        self.claims.add(GAVE_WAY, 1);
    }

    /// NAT ports that are claimed towards a server.
    #[must_use]
    pub fn towards(&self, server: u16) -> u32 {
        let claimed = self.claims.get(server.into());
        u32::try_from(claimed.max(0)).unwrap_or(u32::MAX)
    }

    /// One more is.
    pub fn claim_port(&self, server: u16) {
        self.claims.add(server.into(), 1);
    }

    /// One less is.
    pub fn release_port(&self, server: u16) {
        self.claims.add(server.into(), -1);
    }

    /// Takes a place for a half-open flow.
    ///
    /// # Errors
    /// Why there is none.
    pub fn take_place(&self) -> Result<(), PacketReason> {
        let max = self.max_flows;
        if !self.claims.add_below(HALF_OPEN, half_open_limit(max).into()) {
            return Err(PacketReason::SynShareFull);
        }
        if !self.claims.add_below(FLOWS, max.into()) {
            self.claims.add(HALF_OPEN, -1);
            return Err(PacketReason::TableFull);
        }
        Ok(())
    }

    /// Gives one back.
    pub fn give_place(&self) {
        self.claims.add(FLOWS, -1);
        self.claims.add(HALF_OPEN, -1);
    }
}
