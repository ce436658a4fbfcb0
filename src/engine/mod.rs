//! What moves the packets of the packet modes: threads, sockets and next hops around the pure path of
//! [`crate::flow`].
//!
//! ```text
//! broker ─ sockets ─► Engine: raw ─ threads: receive a batch ─► flow::Path ─► send a batch
//! netlink ─► network::Follower ─ Hops, interfaces, VIPs ────────────┘
//! ```
//!
//! Whoever has an [`Engine`] does not know which it is.

pub mod network;
pub mod raw;
pub mod xdp;

use std::{
    collections::BTreeSet,
    io,
    net::IpAddr,
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use tokio::sync::mpsc::Sender;

use crate::{
    base::{Endpoint, IpServerAddr, PacketReason},
    flow::{Explanation, FiveTuple, FlowInfo, Flows, Hops, Usage},
    snapshot::Snapshot,
};
use raw::RawEngine;

/// How an engine is made.
#[derive(Debug, Clone)]
pub struct EngineSettings {
    /// Threads.
    pub workers: usize,
    /// Shard of the snapshot's counters that the first thread writes; the others follow.
    pub first_shard: usize,
    /// When moments begin.
    pub start: Instant,
}

/// What moves packets. Dropping it ends it.
#[derive(Debug)]
pub enum Engine {
    /// AF_PACKET sockets.
    Raw(RawEngine),
}

/// What the engine has counted, and how full it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EngineReport {
    /// Packets by what became of them, by discriminant of [`PacketReason`]; a super-frame counts once.
    pub packets: Vec<(PacketReason, u64)>,
    /// The tables.
    pub usage: Usage,
    /// Interfaces served now, by index.
    pub interfaces: Vec<u32>,
}

/// What a thread tells the control loop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineEvent {
    /// The interface of this index has vanished: its sockets are closed.
    InterfaceLost(u32),
    /// There are other return hops than before: [`Engine::return_clients`].
    ReturnHops,
}

impl Engine {
    /// Starts the raw engine; it serves nothing yet. `prepare` runs first on each of its threads (it confines it); an error
    /// of it ends the start.
    ///
    /// # Errors
    /// A thread could not be started or prepared.
    pub fn start_raw(
        settings: &EngineSettings,
        flows: Arc<Flows>,
        snapshot: Arc<ArcSwap<Snapshot>>,
        events: Sender<EngineEvent>,
        prepare: fn() -> io::Result<()>,
    ) -> io::Result<Self> {
        RawEngine::start(settings, flows, snapshot, events, prepare).map(Self::Raw)
    }

    /// Serves an interface with one socket for each worker, made by [`raw::socket::open`].
    pub fn add_interface(&self, ifindex: u32, sockets: Vec<OwnedFd>) {
        match self {
            Self::Raw(raw) => raw.add_interface(ifindex, sockets),
        }
    }

    /// Stops serving an interface: what its sockets have queued is served first.
    pub fn remove_interface(&self, ifindex: u32) {
        match self {
            Self::Raw(raw) => raw.remove_interface(ifindex),
        }
    }

    /// Puts newer next hops in force.
    pub fn set_hops(&self, hops: &Hops) {
        match self {
            Self::Raw(raw) => raw.set_hops(hops),
        }
    }

    /// Puts the snapshot that is now in its place in force. To be called after each replacement.
    pub fn snapshot_changed(&self) {
        match self {
            Self::Raw(raw) => raw.snapshot_changed(),
        }
    }

    /// Counters and table sizes.
    #[must_use]
    pub fn report(&self) -> EngineReport {
        match self {
            Self::Raw(raw) => raw.report(),
        }
    }

    /// Where a 5-tuple would go.
    #[must_use]
    pub fn explain(&self, tuple: &FiveTuple) -> Explanation {
        match self {
            Self::Raw(raw) => raw.explain(tuple),
        }
    }

    /// Flows that match, `limit` at most, and how many match in all.
    #[must_use]
    pub fn flows(&self, wanted: &dyn Fn(&FlowInfo) -> bool, limit: usize) -> (u64, Vec<FlowInfo>) {
        match self {
            Self::Raw(raw) => raw.flows(wanted, limit),
        }
    }

    /// Closes passthrough flows that match, and counts them. Takes its time: it walks through all flows.
    #[must_use]
    pub fn close_flows(&self, wanted: &dyn Fn(&FlowInfo) -> bool) -> u64 {
        match self {
            Self::Raw(raw) => raw.close_flows(wanted),
        }
    }

    /// How many live flows of either mode have a 5-tuple that is wanted; closing ones do not count.
    #[must_use]
    pub fn count_flows(&self, wanted: &dyn Fn(&FiveTuple) -> bool) -> u64 {
        match self {
            Self::Raw(raw) => raw.count_flows(wanted),
        }
    }

    /// One client behind each return hop: their next hops are to be in [`Hops::clients`].
    #[must_use]
    pub fn return_clients(&self) -> BTreeSet<IpAddr> {
        match self {
            Self::Raw(raw) => raw.return_clients(),
        }
    }

    /// What flows still need although the configuration may not have it any more; see
    /// [`crate::flow::Flows::in_use`].
    #[must_use]
    pub fn in_use(&self) -> BTreeSet<(Endpoint, IpServerAddr)> {
        match self {
            Self::Raw(raw) => raw.in_use(),
        }
    }

    /// Whether every thread answers within the time. Blocks so long at most.
    #[must_use]
    pub fn is_alive(&self, limit: Duration) -> bool {
        match self {
            Self::Raw(raw) => raw.is_alive(limit),
        }
    }

    /// Ends the threads and closes the sockets.
    pub fn stop(&self) {
        match self {
            Self::Raw(raw) => raw.stop(),
        }
    }
}
