//! Places that a connection or session takes up, each given back on drop.

use std::sync::Arc;

use super::shared::WorkerContext;
use crate::{
    base::WorkerId,
    snapshot::{FrontendView, live::FrontendStats},
};

/// A connection's place among those of the process, given back on drop.
pub struct ProcessPlace(Arc<WorkerContext>);

impl ProcessPlace {
    /// Takes a place if fewer than `most` are taken.
    #[must_use]
    pub fn take(shared: &Arc<WorkerContext>, most: u32) -> Option<Self> {
        shared.limit.try_take(most).then(|| Self(Arc::clone(shared)))
    }

    /// What the workers share.
    #[must_use]
    pub fn shared(&self) -> &WorkerContext {
        &self.0
    }
}

impl Drop for ProcessPlace {
    fn drop(&mut self) {
        self.0.limit.release();
    }
}

/// A slot of a frontend's `max_connections`, given back on drop.
pub struct FrontendSlot(Arc<FrontendStats>);

impl FrontendSlot {
    /// Takes a slot if there is one.
    #[must_use]
    pub fn take(frontend: &FrontendView) -> Option<Self> {
        let config = &frontend.config;
        let limit = config.max_connections.map(u32::from);
        let sessions = config.udp.map(|udp| udp.max_sessions.get());
        let limit = [limit, sessions].into_iter().flatten().min();
        let live = &frontend.live;
        live.slots.try_take(limit).then(|| Self(Arc::clone(live)))
    }

    /// Takes a slot whatever the limit.
    #[must_use]
    pub fn take_beyond_the_limit(frontend: &FrontendView) -> Self {
        frontend.live.slots.try_take(None);
        Self(Arc::clone(&frontend.live))
    }
}

impl Drop for FrontendSlot {
    fn drop(&mut self) {
        self.0.slots.release();
    }
}

/// Counts a connection as open in its frontend until it is dropped, so that the number of open ones cannot drift.
pub struct FrontendPlace {
    slot: FrontendSlot,
    worker: WorkerId,
}

impl FrontendPlace {
    /// Counts one that has this slot.
    #[must_use]
    pub fn new(slot: FrontendSlot, worker: WorkerId) -> Self {
        slot.0.counters.shard(worker).opened.add(1);
        Self { slot, worker }
    }
}

impl Drop for FrontendPlace {
    fn drop(&mut self) {
        self.slot.0.counters.shard(self.worker).closed.add(1);
    }
}
