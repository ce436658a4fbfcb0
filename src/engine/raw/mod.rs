//! The raw engine: AF_PACKET sockets and the threads that serve them.
//!
//! ```text
//!               ┌─ convey-packet-0 ─┐   each thread: its own CPU, path, epoll, and one socket of each interface;
//! Engine ─orders┤                   ├─► the kernel shares an interface's packets among its sockets by flow
//!               └─ convey-packet-1 ─┘
//! one turn: epoll_wait ─► recvmmsg ─► Path::process, each ─► sendmmsg ─► answers
//! ```
//!
//! A thread never waits for more packets to come: a lone one is forwarded at once, and batches form by themselves under
//! load. Whatever one thread must not do alone (flows) is behind the locks of [`crate::flow::Flows`].

pub(crate) mod filter;
mod shared;
pub mod socket;
mod worker;

use std::{
    collections::BTreeSet,
    fmt,
    hash::{BuildHasher, RandomState},
    io,
    net::IpAddr,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;

use crate::{
    base::{Endpoint, IpServerAddr, PacketReason, WorkerId},
    flow::{
        Explanation, FiveTuple, FlowInfo, FlowState, FlowStore, Flows, Hops, MemoryStore, PacketCounters,
        Path, Services,
    },
    snapshot::Snapshot,
};

use super::{EngineEvent, EngineReport, EngineSettings};
use shared::EngineState;
use worker::{Handle, WorkerOrder};

/// Flows that a thread forgets in one turn: so few that packets hardly wait for it.
const CLOSED_AT_ONCE: usize = 1_024;

/// Flows that are closed before the next walk through all of them.
const CLOSED_IN_A_WALK: usize = 1 << 16;

/// Walks at most: new flows may come faster than they are closed.
const CLOSING_WALKS: usize = 64;

/// How long a thread may take to forget some.
const CLOSING_PATIENCE: Duration = Duration::from_secs(1);

/// The running engine. Dropping it ends its threads.
pub struct RawEngine<S: FlowStore = MemoryStore> {
    shared: Arc<EngineState<S>>,
    snapshot: Arc<ArcSwap<Snapshot>>,
    workers: Vec<Handle>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl<S: FlowStore> fmt::Debug for RawEngine<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawEngine")
            .field("workers", &self.workers.len())
            .finish_non_exhaustive()
    }
}

impl<S: FlowStore> RawEngine<S> {
    /// Starts the threads; they serve nothing yet. `prepare` runs first on each thread (it confines it); an error of
    /// it ends the start.
    ///
    /// # Errors
    /// A thread could not be started or prepared.
    pub fn start(
        settings: &EngineSettings,
        flows: Arc<Flows<S>>,
        snapshot: Arc<ArcSwap<Snapshot>>,
        events: tokio::sync::mpsc::Sender<EngineEvent>,
        prepare: fn() -> io::Result<()>,
    ) -> io::Result<Self> {
        let random = RandomState::new();
        let services = Services::build(&snapshot.load(), &Services::default());
        let shared = Arc::new(EngineState::new(flows, services, events, settings.start));
        let mut engine = Self {
            shared,
            snapshot,
            workers: Vec::new(),
            threads: Mutex::default(),
        };
        for index in 0..settings.workers {
            let id = WorkerId(settings.first_shard + index);
            let path = Path::new(
                id,
                index,
                Arc::clone(&engine.shared.flows),
                random.hash_one(index),
            );
            // an error drops the engine, which ends the threads started so far
            let (handle, thread) = worker::start(index, path, Arc::clone(&engine.shared), prepare)?;
            engine.workers.push(handle);
            lock(&engine.threads).push(thread);
        }
        Ok(engine)
    }

    /// Serves an interface with one socket for each worker, made by [`socket::open`].
    pub fn add_interface(&self, ifindex: u32, sockets: Vec<OwnedFd>) {
        self.shared.add_interface(ifindex);
        for (worker, socket) in self.workers.iter().zip(sockets) {
            worker.order(WorkerOrder::Serve(ifindex, socket));
        }
    }

    /// Stops serving an interface: what its sockets have queued is served first.
    pub fn remove_interface(&self, ifindex: u32) {
        self.shared.forget_interface(ifindex);
        for worker in &self.workers {
            worker.order(WorkerOrder::Retire(ifindex));
        }
    }

    /// Puts newer next hops in force.
    pub fn set_hops(&self, hops: &Hops) {
        let hops = self.shared.flows.follow_routes(hops);
        self.shared.set_hops(Arc::new(hops));
        self.wake();
    }

    /// Puts the snapshot that is now in its place in force. To be called after each replacement.
    pub fn snapshot_changed(&self) {
        let services = Services::build(&self.snapshot.load(), &self.shared.services.load());
        self.shared.set_services(services);
        self.wake();
    }

    /// What is served now.
    #[must_use]
    pub fn services(&self) -> Arc<Services> {
        self.shared.services.load_full()
    }

    /// The next hops now.
    #[must_use]
    pub fn hops(&self) -> Arc<Hops> {
        self.shared.hops.load_full()
    }

    /// Counters and table sizes.
    #[must_use]
    pub fn report(&self) -> EngineReport {
        let sum = |reason| {
            self.workers
                .iter()
                .map(|worker| worker.counters.read(reason))
                .sum()
        };
        EngineReport {
            packets: PacketReason::ALL
                .iter()
                .map(|reason| (*reason, sum(*reason)))
                .collect(),
            usage: self.shared.flows.usage(),
            interfaces: self.shared.interfaces(),
            xdp: None,
        }
    }

    /// Where a 5-tuple would go.
    #[must_use]
    pub fn explain(&self, tuple: &FiveTuple) -> Explanation {
        let EngineState {
            flows,
            services,
            hops,
            ..
        } = &*self.shared;
        flows.explain(&services.load(), &hops.load(), tuple, self.shared.now())
    }

    /// Flows that match, `limit` at most, and how many match in all.
    #[must_use]
    pub fn flows(&self, wanted: &dyn Fn(&FlowInfo) -> bool, limit: usize) -> (u64, Vec<FlowInfo>) {
        self.shared.flows.list(wanted, limit, self.shared.now())
    }

    /// Closes passthrough flows that match, and counts them: they are forgotten. Those of DSR do not come through here on their
    /// way back, so that nothing here can end them. Takes its time: it walks through all flows.
    #[must_use]
    pub fn close_flows(&self, wanted: &dyn Fn(&FlowInfo) -> bool) -> u64 {
        let is_over = |flow: &FlowInfo| matches!(flow.state, FlowState::Closing | FlowState::Refused);
        let closable = |flow: &FlowInfo| flow.nat.is_some() && !is_over(flow) && wanted(flow);
        let mut closed = 0;
        for _ in 0..CLOSING_WALKS {
            let (_, found) = self.flows(&closable, CLOSED_IN_A_WALK);
            // what one thread forgets, it counts: each has its turn
            for (flows, worker) in found.chunks(CLOSED_AT_ONCE).zip(self.workers.iter().cycle()) {
                let (answer, answered) = mpsc::sync_channel(1);
                worker.order(WorkerOrder::Forget(flows.to_vec(), answer));
                match answered.recv_timeout(CLOSING_PATIENCE) {
                    Ok(count) => closed += count,
                    // stuck, which the watchdog sees, or ended
                    Err(_) => return closed,
                }
            }
            if found.len() < CLOSED_IN_A_WALK {
                break;
            }
        }
        closed
    }

    /// How many live flows of either mode have a 5-tuple that is wanted; closing ones do not count.
    #[must_use]
    pub fn count_flows(&self, wanted: &dyn Fn(&FiveTuple) -> bool) -> u64 {
        self.shared.flows.count(wanted, self.shared.now())
    }

    /// One client behind each return hop: their next hops are to be in [`Hops::clients`].
    #[must_use]
    pub fn return_clients(&self) -> BTreeSet<IpAddr> {
        self.shared.flows.return_clients()
    }

    /// What flows still need although the configuration may not have it any more; see
    /// [`crate::flow::Flows::in_use`].
    #[must_use]
    pub fn in_use(&self) -> BTreeSet<(Endpoint, IpServerAddr)> {
        self.shared.flows.in_use(self.shared.now())
    }

    /// Whether every thread answers within the time. Blocks so long at most.
    #[must_use]
    pub fn is_alive(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let (answer, answers) = mpsc::sync_channel(self.workers.len());
        for worker in &self.workers {
            worker.order(WorkerOrder::Ping(answer.clone()));
        }
        drop(answer);
        (self.workers.iter()).all(|_| {
            let left = deadline.saturating_duration_since(Instant::now());
            answers.recv_timeout(left).is_ok()
        })
    }

    /// Ends the threads and closes the sockets.
    pub fn stop(&self) {
        for worker in &self.workers {
            worker.order(WorkerOrder::Stop);
        }
        for thread in lock(&self.threads).drain(..) {
            // an error is a panic, which the thread has reported; there is nothing left to end
            let _ = thread.join();
        }
    }

    fn wake(&self) {
        for worker in &self.workers {
            worker.wake();
        }
    }
}

impl<S: FlowStore> Drop for RawEngine<S> {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Nothing that is kept behind these locks can be left half changed by a panic.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
