//! Places that a connection or session takes up, each given back on drop.

use std::sync::Arc;

use super::{limit::Occupant, shared::WorkerContext};
use crate::{
    base::WorkerId,
    snapshot::{FrontendView, live::FrontendStats},
};

/// A place of a connection or session among those of the process, given back on drop.
pub struct ProcessPlace {
    shared: Arc<WorkerContext>,
    what: Occupant,
}

impl ProcessPlace {
    /// Takes a place if there is one where there may be `most` connections.
    #[must_use]
    pub fn take(shared: &Arc<WorkerContext>, what: Occupant, most: u32) -> Option<Self> {
        shared.limit.try_take(what, most).then(|| Self {
            shared: Arc::clone(shared),
            what,
        })
    }

    /// What the workers share.
    #[must_use]
    pub fn shared(&self) -> &WorkerContext {
        &self.shared
    }
}

impl Drop for ProcessPlace {
    fn drop(&mut self) {
        self.shared.limit.release(self.what);
    }
}

/// A slot of a frontend's `max_connections`, given back on drop.
pub struct FrontendSlot(Arc<FrontendStats>);

impl FrontendSlot {
    /// Takes a slot if there is one.
    #[must_use]
    pub fn take(frontend: &FrontendView) -> Option<Self> {
        let live = &frontend.live;
        live.slots
            .try_take(frontend.config.most_connections())
            .then(|| Self(Arc::clone(live)))
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
