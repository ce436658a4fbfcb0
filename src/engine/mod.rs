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
    flow::{Explanation, FiveTuple, FlowInfo, Flows, Hops, TableLimits, Usage},
    snapshot::Snapshot,
};
use raw::RawEngine;
use xdp::{Handed, XdpEngine, XdpReport};

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
    /// A program in the kernel, and the raw engine for what it leaves.
    Xdp(XdpEngine),
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
    /// What the program of the xdp engine has done; its packets are among those above. `None`: another engine runs.
    pub xdp: Option<XdpReport>,
}

impl EngineReport {
    /// With what the program has done besides.
    fn with(mut self, program: XdpReport) -> Self {
        for (reason, count) in &mut self.packets {
            let forwarded = program.forwarded.iter().filter(|(whither, _)| whither == reason);
            *count = forwarded.fold(*count, |count, (_, more)| count.wrapping_add(*more));
        }
        self.xdp = Some(program);
        self
    }
}

/// What a thread tells the control loop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineEvent {
    /// The interface of this index has vanished: its sockets are closed.
    InterfaceLost(u32),
    /// There are other return hops than before: [`Engine::return_clients`].
    ReturnHops,
}

/// Does something with the raw engine, whether it is the engine or the slow path of one.
macro_rules! slow {
    ($engine:expr, $slow:ident => $what:expr) => {
        match $engine {
            Self::Raw($slow) => $what,
            Self::Xdp(xdp) => {
                let $slow = xdp.slow();
                $what
            }
        }
    };
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

    /// Starts the xdp engine; it serves nothing yet. As [`start_raw`](Self::start_raw), with what the broker has handed over.
    ///
    /// # Errors
    /// What was handed over is not what it should be, or a thread could not be started or prepared.
    pub fn start_xdp(
        settings: &EngineSettings,
        limits: &TableLimits,
        handed: Handed,
        snapshot: Arc<ArcSwap<Snapshot>>,
        events: Sender<EngineEvent>,
        prepare: fn() -> io::Result<()>,
    ) -> io::Result<Self> {
        XdpEngine::start(settings, limits, handed, snapshot, events, prepare).map(Self::Xdp)
    }

    /// The xdp engine, if it is that.
    #[must_use]
    pub const fn xdp(&self) -> Option<&XdpEngine> {
        match self {
            Self::Raw(_) => None,
            Self::Xdp(xdp) => Some(xdp),
        }
    }

    /// Serves an interface with one socket for each worker, made by [`raw::socket::open`].
    pub fn add_interface(&self, ifindex: u32, sockets: Vec<OwnedFd>) {
        slow!(self, slow => slow.add_interface(ifindex, sockets));
    }

    /// Stops serving an interface: what its sockets have queued is served first.
    pub fn remove_interface(&self, ifindex: u32) {
        slow!(self, slow => slow.remove_interface(ifindex));
    }

    /// Has the xdp engine's program decide by what has been put in force: see [`XdpEngine::begin`].
    pub fn begin(&self) {
        if let Some(xdp) = self.xdp() {
            xdp.begin();
        }
    }

    /// Puts newer next hops in force.
    pub fn set_hops(&self, hops: &Hops) {
        match self {
            Self::Raw(raw) => raw.set_hops(hops),
            Self::Xdp(xdp) => xdp.set_hops(hops),
        }
    }

    /// Puts the snapshot that is now in its place in force. To be called after each replacement.
    pub fn snapshot_changed(&self) {
        match self {
            Self::Raw(raw) => raw.snapshot_changed(),
            Self::Xdp(xdp) => xdp.snapshot_changed(),
        }
    }

    /// Resolves when new flows are decided by all that has been put in force so far. A worker of the slow path takes it with
    /// its next packets by itself.
    pub fn applied(&self) -> impl Future<Output = ()> + Send + use<> {
        let applied = self.xdp().map(XdpEngine::applied);
        async move {
            if let Some(applied) = applied {
                applied.await;
            }
        }
    }

    /// Counters and table sizes.
    #[must_use]
    pub fn report(&self) -> EngineReport {
        let report = slow!(self, slow => slow.report());
        match self.xdp() {
            Some(xdp) => report.with(xdp.report()),
            None => report,
        }
    }

    /// Where a 5-tuple would go.
    #[must_use]
    pub fn explain(&self, tuple: &FiveTuple) -> Explanation {
        slow!(self, slow => slow.explain(tuple))
    }

    /// Flows that match, `limit` at most, and how many match in all.
    #[must_use]
    pub fn flows(&self, wanted: &dyn Fn(&FlowInfo) -> bool, limit: usize) -> (u64, Vec<FlowInfo>) {
        slow!(self, slow => slow.flows(wanted, limit))
    }

    /// Closes passthrough flows that match, and counts them. Takes its time: it walks through all flows.
    #[must_use]
    pub fn close_flows(&self, wanted: &dyn Fn(&FlowInfo) -> bool) -> u64 {
        slow!(self, slow => slow.close_flows(wanted))
    }

    /// How many live flows of either mode have a 5-tuple that is wanted; closing ones do not count.
    #[must_use]
    pub fn count_flows(&self, wanted: &dyn Fn(&FiveTuple) -> bool) -> u64 {
        slow!(self, slow => slow.count_flows(wanted))
    }

    /// One client behind each return hop: their next hops are to be in [`Hops::clients`].
    #[must_use]
    pub fn return_clients(&self) -> BTreeSet<IpAddr> {
        slow!(self, slow => slow.return_clients())
    }

    /// What flows still need although the configuration may not have it any more; see
    /// [`crate::flow::Flows::in_use`].
    #[must_use]
    pub fn in_use(&self) -> BTreeSet<(Endpoint, IpServerAddr)> {
        slow!(self, slow => slow.in_use())
    }

    /// Whether every thread answers within the time. Blocks so long at most.
    #[must_use]
    pub fn is_alive(&self, limit: Duration) -> bool {
        match self {
            Self::Raw(raw) => raw.is_alive(limit),
            Self::Xdp(xdp) => xdp.is_alive(limit),
        }
    }

    /// Ends the threads and closes the sockets.
    pub fn stop(&self) {
        match self {
            Self::Raw(raw) => raw.stop(),
            Self::Xdp(xdp) => xdp.stop(),
        }
    }
}
