//! The xdp engine: a program in the receive path of each interface forwards what is ordinary, and leaves the rest to the raw
//! engine's sockets, the slow path.
//!
//! ```text
//!            ┌──────────── program ── XDP_TX, redirect          flows: the program changes them, user space puts whole ones in and
//! frame ────►│ parse, service, flow or table, target            takes them out
//!            └─► XDP_PASS ─► slow path: flow::Path ─ XdpStore ─► the program's maps of flows, changed by its `order` and `touch`
//! Services, Hops ─► keeper ─► targets, tables, addresses …;  its counters ─► keeper ─► the snapshot's
//! ```
//!
//! A target's entry is written in three steps, so that the program never reads half of it: the version made odd, the rest,
//! the version made even.

mod accounts;
mod aside;
pub mod attach;
mod audit;
mod batch;
mod claims;
mod contents;
mod flow_map;
mod keeper;
mod keys;
pub mod layout;
pub mod load;
mod maps;
pub mod memory;
mod nat_entry;
mod nat_map;
mod numbers;
pub mod object;
mod opening;
mod probe;
mod registry;
pub mod services;
mod store;
mod tables;
mod thread;
mod write;

use std::{
    fmt, io,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;

use super::{EngineEvent, EngineSettings, raw::RawEngine};
use crate::{
    base::{PacketReason, WorkerId},
    flow::{Hops, TableLimits},
    snapshot::Snapshot,
};
pub use attach::Attached;
pub use flow_map::FlowMap;
pub use keeper::{Adopted, Keeper};
use layout::PassReason;
pub use maps::{Clock, Maps, count};
use nat_map::NatMap;
pub use registry::Registry;
pub use store::XdpStore;
pub use tables::TableMaker;
use thread::{Desk, Inherited};

/// The running engine. Dropping it ends its threads.
pub struct XdpEngine {
    slow: RawEngine<XdpStore>,
    map: Arc<FlowMap>,
    nat: Arc<NatMap>,
    desk: Arc<Desk>,
    keeper: Mutex<Option<JoinHandle<()>>>,
}

/// What the engine is handed by the broker.
pub struct Handed {
    /// Maps and programs, in the order of [`layout::HANDED`].
    pub fds: Vec<OwnedFd>,
    /// Where is noted what the next engine has to know: see [`registry`].
    pub registry: [OwnedFd; layout::REGISTRY],
    /// The program decides already, by what an engine before this one has told it.
    pub is_taken_over: bool,
    /// Has the broker make arrays for Maglev tables. It may block.
    pub make_tables: TableMaker,
}

impl fmt::Debug for Handed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handed")
            .field("fds", &self.fds)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for XdpEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("XdpEngine")
            .field("slow", &self.slow)
            .finish_non_exhaustive()
    }
}

impl XdpEngine {
    /// Starts the slow path's threads and the keeper's; nothing is served yet, and what the program does already it goes on
    /// with, until [`begin`](Self::begin). The keeper writes the shard of the snapshot's counters behind those of the workers.
    /// `prepare` runs first on each thread of the slow path.
    ///
    /// # Errors
    /// What was handed over is not what it should be, or a thread could not be started or prepared.
    pub fn start(
        settings: &EngineSettings,
        limits: &TableLimits,
        handed: Handed,
        snapshot: Arc<ArcSwap<Snapshot>>,
        events: tokio::sync::mpsc::Sender<EngineEvent>,
        prepare: fn() -> io::Result<()>,
    ) -> io::Result<Self> {
        let maps = Maps::from_fds(handed.fds)?;
        let inherited = match handed.is_taken_over {
            true => Inherited::Everything,
            false => Inherited::Nothing,
        };
        let entries = [&maps.flows, &maps.forwards].map(|map| map.info().max_entries);
        let room = entries.into_iter().fold(0, u32::saturating_add);
        let map = Arc::new(FlowMap::new(maps, Clock::of(settings.start)?));
        let flows = Arc::new(XdpStore::flows(limits, Arc::clone(&map)));
        let nat = Arc::clone(flows.store().nat());
        let keeper = Keeper::new(
            Arc::clone(&flows),
            handed.make_tables,
            Registry::new(handed.registry),
            WorkerId(settings.first_shard + settings.workers),
        );
        let slow = RawEngine::start(settings, flows, snapshot, events, prepare)?;
        let desk = Arc::new(Desk::new());
        desk.apply(slow.services(), slow.hops());
        let thread = thread::start(Arc::clone(&desk), keeper, inherited, settings.start, room)?;
        Ok(Self {
            slow,
            map,
            nat,
            desk,
            keeper: Mutex::new(Some(thread)),
        })
    }

    /// The slow path.
    #[must_use]
    pub const fn slow(&self) -> &RawEngine<XdpStore> {
        &self.slow
    }

    /// Notes where the program is attached to an interface that is served; `None`: it is not served any more.
    pub fn attached(&self, ifindex: u32, attached: Option<Attached>) {
        self.desk.attach(ifindex, attached);
    }

    /// Has the program decide by what has been put in force, and by whatever will be: to be called when that is all of a
    /// configuration, and [`attached`](Self::attached) knows the interfaces.
    pub fn begin(&self) {
        self.desk.begin();
    }

    /// Puts newer next hops in force.
    pub fn set_hops(&self, hops: &Hops) {
        self.nat.find_origins();
        self.slow.set_hops(hops);
        self.desk.apply(self.slow.services(), self.slow.hops());
    }

    /// Puts the snapshot that is now in its place in force.
    pub fn snapshot_changed(&self) {
        self.slow.snapshot_changed();
        self.desk.apply(self.slow.services(), self.slow.hops());
    }

    /// Resolves when the program decides by all that has been put in force so far.
    pub fn applied(&self) -> impl Future<Output = ()> + Send + use<> {
        self.desk.applied()
    }

    /// What the program has done.
    #[must_use]
    pub fn report(&self) -> XdpReport {
        let counted = |map, index| count(map, index).unwrap_or(0);
        let maps = &self.map.maps;
        XdpReport {
            forwarded: FORWARDED.map(|reason| (reason, counted(&maps.reasons, reason as u32))),
            passes: PassReason::ALL
                .map(|reason| (reason, counted(&maps.passes, reason as u32)))
                .to_vec(),
            attached: self.desk.attached(),
        }
    }

    /// Whether every thread answers within the time. Blocks so long at most.
    #[must_use]
    pub fn is_alive(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let (answer, answered) = mpsc::sync_channel(1);
        self.desk.ping(answer);
        self.slow.is_alive(limit)
            && answered
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
                .is_ok()
    }

    /// Ends the threads and closes the sockets.
    pub fn stop(&self) {
        self.desk.stop();
        self.slow.stop();
        let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(keeper) = keeper {
            // an error is a panic, which the thread has reported
            let _ = keeper.join();
        }
    }
}

impl Drop for XdpEngine {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What the program does with packets that it forwards.
pub const FORWARDED: [PacketReason; 2] = [PacketReason::ToServer, PacketReason::ToClient];

/// What the program has done, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct XdpReport {
    /// Packets that it has forwarded, by whither.
    pub forwarded: [(PacketReason, u64); FORWARDED.len()],
    /// Packets of ours that it has left to the slow path, by why.
    pub passes: Vec<(PassReason, u64)>,
    /// Where it is attached, by the index of each served interface.
    pub attached: std::collections::BTreeMap<u32, Attached>,
}
