//! The raw engine: AF_PACKET sockets and the threads that serve them.

pub mod filter;
pub mod socket;

use std::{io, num::NonZeroU32, os::fd::OwnedFd, sync::Arc, time::Duration};

use arc_swap::ArcSwap;

use crate::{
    base::PacketReason,
    flow::{Explanation, FiveTuple, FlowInfo, Hops, Usage},
    snapshot::Snapshot,
};

/// How an engine is made.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Threads.
    pub workers: usize,
    /// Shard of the snapshot's counters that the first thread writes; the others follow.
    pub first_shard: usize,
    /// `max_flows`.
    pub max_flows: NonZeroU32,
}

/// The running engine. Dropping it ends its threads.
#[derive(Debug)]
pub struct Engine {}

/// What the engine has counted, and how full it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Packets by what became of them, by discriminant of [`PacketReason`]; a super-frame counts once.
    pub packets: Vec<(PacketReason, u64)>,
    /// The tables.
    pub usage: Usage,
    /// Interfaces served now, by index.
    pub interfaces: Vec<u32>,
}

/// What a thread tells the control loop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The interface of this index has vanished: its sockets are closed.
    InterfaceLost(u32),
}

impl Engine {
    /// Starts the threads; they serve nothing yet. `prepare` runs first on each thread (it confines it); an error of
    /// it ends the start.
    ///
    /// # Errors
    /// A thread could not be started or prepared.
    pub fn start(
        settings: &Settings,
        snapshot: Arc<ArcSwap<Snapshot>>,
        events: tokio::sync::mpsc::Sender<Event>,
        prepare: fn() -> io::Result<()>,
    ) -> io::Result<Self> {
        let _ = (settings, snapshot, events, prepare);
        todo!("engine")
    }

    /// Serves an interface with one socket for each worker, made by [`socket::open`].
    pub fn add_interface(&self, ifindex: u32, sockets: Vec<OwnedFd>) {
        let _ = (ifindex, sockets);
        todo!("engine")
    }

    /// Stops serving an interface: what its sockets have queued is served first.
    pub fn remove_interface(&self, ifindex: u32) {
        let _ = ifindex;
        todo!("engine")
    }

    /// Puts newer next hops in force.
    pub fn set_hops(&self, hops: Arc<Hops>) {
        let _ = hops;
        todo!("engine")
    }

    /// Tells the workers that the snapshot has been replaced (an idle one would not look).
    pub fn snapshot_changed(&self) {
        todo!("engine")
    }

    /// Counters and table sizes.
    #[must_use]
    pub fn report(&self) -> Report {
        todo!("engine")
    }

    /// Where a 5-tuple would go.
    #[must_use]
    pub fn explain(&self, tuple: &FiveTuple) -> Explanation {
        let _ = tuple;
        todo!("engine")
    }

    /// Passthrough flows that match, `limit` at most, and how many match in all.
    #[must_use]
    pub fn flows(&self, wanted: &dyn Fn(&FlowInfo) -> bool, limit: usize) -> (u64, Vec<FlowInfo>) {
        let _ = (wanted, limit);
        todo!("engine")
    }

    /// What flows still need although the configuration may not have it any more; see
    /// [`crate::flow::Flows::in_use`].
    #[must_use]
    pub fn in_use(
        &self,
    ) -> std::collections::HashSet<(
        crate::base::ListenAddr,
        crate::base::Protocol,
        crate::base::ServerAddr,
    )> {
        todo!("engine")
    }

    /// Whether every thread answers within the time. Blocks so long at most.
    #[must_use]
    pub fn is_alive(&self, limit: Duration) -> bool {
        let _ = limit;
        todo!("engine")
    }

    /// Ends the threads and closes the sockets.
    pub fn stop(&self) {
        todo!("engine")
    }
}
