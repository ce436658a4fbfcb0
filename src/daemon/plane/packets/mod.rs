//! The packet modes: the engine, the follower of the network, what the broker has applied, and the interfaces that are
//! served. A task of its own waits for the broker and the network; the control loop orders and is told.
//!
//! ```text
//! reload ── arm ──► serve(old ∪ new) ─► next hops ─► sockets ──► Armed ── commit ──► serve(new ∪ what flows still use)
//!                                                                  └──── drop ─────► as it was
//! network state ──► next hops ──► engine;   interfaces that have our VIPs and servers ──► sockets ──► engine
//! ```
//! Rules come before packets, at the start and at a reload; at the end packets end before rules.

mod demand;
mod engine;
mod interfaces;
mod kernel;
mod rules;
mod running;
mod task;
mod vips;

use std::{collections::BTreeMap, io, path::PathBuf, sync::Arc, time::Duration};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};

use crate::{
    admin::status::RulesStatus,
    base::{
        EndpointRange,
        exit::{self, Exit},
    },
    config::{Config, EngineChoice},
    engine::{Engine, network::NetworkState, xdp::Attached},
    pools::Pools,
    privilege::{BrokerError, Client},
    snapshot::Snapshot,
};
pub use demand::{Vip, VipState, absence};
pub use kernel::HostKernel;
pub use vips::Vips;

/// How long the engine's threads have to show that they are alive: a batch takes far less.
const ALIVE: Duration = Duration::from_secs(5);

/// Why the packet modes cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum PacketsError {
    /// The broker refused or failed.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The network cannot be followed.
    #[error("follow the network by netlink: {0}")]
    Follow(io::Error),
    /// The engine's threads do not start.
    #[error("start the packet engine: {0}")]
    Engine(io::Error),
    /// The NAT ports do not fit this host.
    #[error("{0}")]
    Ports(String),
    /// The task has ended.
    #[error("the packet modes have stopped")]
    Ended,
}

impl PacketsError {
    /// The exit status of a start that fails so.
    #[must_use]
    pub const fn exit(&self) -> Exit {
        match self {
            Self::Broker(BrokerError::Held(_)) => exit::UNAVAILABLE,
            _ => exit::OS_ERROR,
        }
    }
}

/// The control loop's hand on the packet modes.
#[derive(Debug)]
pub struct PacketPlane {
    workers: usize,
    orders: mpsc::UnboundedSender<Order>,
    engine: Arc<ArcSwapOption<Engine>>,
    view: watch::Receiver<Arc<View>>,
    task: JoinHandle<()>,
}

/// What the threads of the packet modes are started with.
#[derive(Debug, Clone, Copy)]
pub struct PacketThreads {
    /// Threads of the engine.
    pub workers: usize,
    /// The first shard of the counters that they write: one for each, and one more.
    pub first_shard: usize,
    /// `engine` of the configuration at the start.
    pub engine: EngineChoice,
}

/// What runs now, as its task last said.
#[derive(Debug, Default)]
pub struct View {
    /// The VIPs of the configuration in effect.
    pub vips: BTreeMap<EndpointRange, Vip>,
    /// Names of the frontends of which a VIP waits, in words; empty if none does.
    pub waiting: String,
    /// The engine that runs, and why that; `None`: none does.
    pub engine: Option<(EngineChoice, Arc<str>)>,
    /// Interfaces that are served, with their indexes.
    pub served: BTreeMap<String, u32>,
    /// Where the program of the xdp engine is attached to them.
    pub attached: BTreeMap<String, Attached>,
    /// The network as last seen.
    pub network_state: Arc<NetworkState>,
    /// VIPs that the firewall rules are for: those of flows that have outlived their frontend too.
    pub in_effect: Vec<EndpointRange>,
    /// How the firewall rules are.
    pub rules: RulesStatus,
}

/// Prepared for a configuration: to be [committed](PacketPlane::commit). Dropping it has everything put back.
#[derive(Debug)]
pub struct Armed {
    /// Tells it from those before and after it, whose end may come to be known late.
    number: u64,
    orders: Option<mpsc::UnboundedSender<Order>>,
}

impl Drop for Armed {
    fn drop(&mut self) {
        if let Some(orders) = self.orders.take() {
            // fails when the task has ended, and everything with it
            let _ = orders.send(Order::Disarm(self.number));
        }
    }
}

/// What the task is told.
#[derive(Debug)]
enum Order {
    /// Prepare for a configuration with its pools.
    Arm(
        Arc<Config>,
        Arc<Pools>,
        oneshot::Sender<Result<Armed, PacketsError>>,
    ),
    /// What was prepared under this number takes effect: the snapshot has been published. Says when packets are served so.
    Commit(u64, Arc<Config>, oneshot::Sender<()>),
    /// What was prepared under this number is given up.
    Disarm(u64),
    /// Look whether the firewall rules are still what they should be, and say when that is done.
    CheckRules(oneshot::Sender<()>),
    /// Serve nothing any more, and let another process have the packet modes.
    GiveUp,
}

impl PacketPlane {
    /// Starts the task; no engine runs yet. `record` is where the firewall notes what it has done. To be called within the runtime.
    #[must_use]
    pub fn start(
        threads: PacketThreads,
        record: PathBuf,
        broker: Client,
        snapshot: Arc<ArcSwap<Snapshot>>,
    ) -> Self {
        let (orders, inbox) = mpsc::unbounded_channel();
        let (view_tx, view) = watch::channel(Arc::default());
        let engine = Arc::new(ArcSwapOption::empty());
        let environment = task::Environment {
            threads,
            broker,
            snapshot,
            engine: Arc::clone(&engine),
            view: view_tx,
            orders: orders.downgrade(),
        };
        Self {
            workers: threads.workers,
            orders,
            engine,
            view,
            task: tokio::spawn(task::Plane::new(environment, record).run(inbox)),
        }
    }

    /// Threads of the engine.
    #[must_use]
    pub const fn workers(&self) -> usize {
        self.workers
    }

    /// Where the engine is found, once it runs.
    #[must_use]
    pub const fn engine(&self) -> &Arc<ArcSwapOption<Engine>> {
        &self.engine
    }

    /// What runs now.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.borrow())
    }

    /// Resolves when the view is another.
    pub async fn changed(&mut self) {
        if self.view.changed().await.is_err() {
            // the task has ended with the daemon
            std::future::pending::<()>().await;
        }
    }

    /// Resolves to whether every thread of the engine answers, and the task lives; an engine that does not run is well.
    pub fn alive(&self) -> impl Future<Output = bool> + Send + use<> {
        let engine = self.engine.load_full();
        let engines = Arc::clone(&self.engine);
        let is_over = self.task.is_finished();
        async move {
            let Some(engine) = engine else { return !is_over };
            let asked = Arc::clone(&engine);
            // it waits on a channel of the standard library, which this loop must not
            let answers = tokio::task::spawn_blocking(move || asked.is_alive(ALIVE)).await;
            // one that was given up meanwhile has nothing to answer
            let is_current = || {
                engines
                    .load()
                    .as_ref()
                    .is_some_and(|now| Arc::ptr_eq(now, &engine))
            };
            !is_over && (answers.unwrap_or(false) || !is_current())
        }
    }

    /// Prepares for a configuration with its pools: starts what it needs, applies rules and filters for it *and* for what
    /// runs now, and opens sockets on interfaces that it adds.
    ///
    /// # Errors
    /// The first thing that could not be had; then everything is as before.
    pub fn arm(
        &self,
        config: Arc<Config>,
        pools: Arc<Pools>,
    ) -> impl Future<Output = Result<Armed, PacketsError>> + Send + use<> {
        let (reply, answer) = oneshot::channel();
        let sent = self.orders.send(Order::Arm(config, pools, reply));
        async move {
            sent.map_err(|_| PacketsError::Ended)?;
            answer.await.map_err(|_| PacketsError::Ended)?
        }
    }

    /// Has what was prepared take effect; resolves when packets are served so. The snapshot of the new configuration has
    /// been published, to the engine too.
    pub fn commit(&self, mut armed: Armed, config: Arc<Config>) -> impl Future<Output = ()> + Send + use<> {
        armed.orders = None;
        let (done, is_done) = oneshot::channel();
        let _ = self.orders.send(Order::Commit(armed.number, config, done));
        async move { drop(is_done.await) }
    }

    /// Has the firewall rules looked after; resolves when that is done.
    pub fn check_rules(&self) -> impl Future<Output = ()> + Send + use<> {
        let (done, is_done) = oneshot::channel();
        let _ = self.orders.send(Order::CheckRules(done));
        async move { drop(is_done.await) }
    }

    /// Ends the packet modes and lets another process have them: the engine, then the rules, then the place.
    pub fn give_up(&self) {
        // fails when the task has ended
        let _ = self.orders.send(Order::GiveUp);
    }

    /// Tells the engine that the snapshot has been replaced.
    pub fn snapshot_changed(&self) {
        if let Some(engine) = &*self.engine.load() {
            engine.snapshot_changed();
        }
    }

    /// Ends the task and the engine's threads. Rules stay until the broker removes them.
    pub fn stop(&self) {
        self.task.abort();
        if let Some(engine) = self.engine.swap(None) {
            engine.stop();
        }
    }
}
