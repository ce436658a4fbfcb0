//! Active health checks: one task for each server, results to the daemon.
//!
//! ```text
//!  Checker (control loop) ── settings, passive failures ──► task of a server ── connect checks ──► server
//!                         ◄──────── HealthUpdate ──────────  (owns its Machine)
//! ```

mod connect;
pub mod machine;
mod task;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{Notify, Semaphore, mpsc, watch};

use crate::{
    balance::hash::{SplitMix64, below},
    base::{ServerAddr, ServerKey},
    config::Config,
    snapshot::{AdminState, Health, Inputs},
};
use machine::{Machine, Settings};

/// Connect checks under way at a time; more wait for their turn. Far below any descriptor limit, and with a timeout of
/// 1 s still 256 dead servers a second.
const MAX_CONNECTS: usize = 256;

/// Time over which the first checks of many servers are spread.
const FIRST_SPREAD: Duration = Duration::from_millis(100);

/// A server's health as its task sees it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthUpdate {
    /// The server.
    pub key: ServerKey,
    /// The address that was checked: an update for an address that is no longer configured is stale.
    pub addr: ServerAddr,
    /// Its new health.
    pub health: Health,
    /// Whether up/down/checking changed (else only the reason's text did).
    pub changed: bool,
}

/// The running checks. Lives on the control thread's runtime; dropping it ends them.
#[derive(Debug)]
pub struct Checker {
    updates: mpsc::Sender<HealthUpdate>,
    tasks: HashMap<ServerKey, Task>,
    in_maintenance: HashSet<ServerKey>,
    connects: Arc<Semaphore>,
    random: SplitMix64,
}

/// The checker's end of a server's task, which ends when this is dropped.
#[derive(Debug)]
struct Task {
    addr: ServerAddr,
    orders: watch::Sender<Orders>,
    connects_failed: Arc<Notify>,
    had_result: watch::Receiver<bool>,
}

/// What a task is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Orders {
    settings: Settings,
    /// `source_addr` of the checks.
    source: Option<IpAddr>,
}

impl Checker {
    /// No checks yet; results will go to `updates`.
    #[must_use]
    pub fn new(updates: mpsc::Sender<HealthUpdate>) -> Self {
        Self {
            updates,
            tasks: HashMap::new(),
            in_maintenance: HashSet::new(),
            connects: Arc::new(Semaphore::new(MAX_CONNECTS)),
            // jitter need not be secret, only different in each process
            random: SplitMix64::new(RandomState::new().hash_one(0_u8)),
        }
    }

    /// Starts, changes and stops tasks so that exactly the servers of `config` are watched, those in maintenance
    /// (`inputs.overrides`) excepted. Servers whose address did not change keep their state, even if their check
    /// changed. Removes what is stale from `inputs.health` and adds initial states.
    ///
    /// To be called within the runtime, after each change of the configuration or of an override.
    pub fn apply(&mut self, config: &Config, inputs: &mut Inputs) {
        let mut wanted = HashMap::new();
        let mut in_maintenance = HashSet::new();
        for backend in config.backends.values() {
            let orders = Orders {
                settings: Settings {
                    check: backend.health_check.clone(),
                    passive: backend.passive_check.clone(),
                },
                source: backend.source_addr,
            };
            for server in backend.servers.values() {
                let key = ServerKey {
                    backend: backend.name.clone(),
                    server: server.name.clone(),
                };
                let admin = inputs.overrides.get(&key).and_then(|o| o.admin);
                if admin == Some(AdminState::Maintenance) {
                    in_maintenance.insert(key);
                } else {
                    wanted.insert(key, (server.addr, orders.clone()));
                }
            }
        }
        self.tasks
            .retain(|key, task| wanted.get(key).is_some_and(|(addr, _)| *addr == task.addr));
        inputs.health.retain(|key, _| self.tasks.contains_key(key));

        let spread = FIRST_SPREAD.min(Duration::from_millis(wanted.len() as u64));
        for (key, (addr, orders)) in wanted {
            if let Some(task) = self.tasks.get(&key) {
                task.orders.send_if_modified(|old| {
                    let is_new = *old != orders;
                    *old = orders;
                    is_new
                });
                continue;
            }
            let comes_back = self.in_maintenance.contains(&key);
            let machine = Machine::new(orders.settings.clone(), comes_back, Instant::now());
            inputs.health.insert(key.clone(), machine.health().clone());
            let task = self.start(key.clone(), addr, orders, machine, spread);
            self.tasks.insert(key, task);
        }
        self.in_maintenance = in_maintenance;
    }

    fn start(
        &mut self,
        key: ServerKey,
        addr: ServerAddr,
        orders: Orders,
        machine: Machine,
        spread: Duration,
    ) -> Task {
        let connects_failed = Arc::new(Notify::new());
        let (had_result_tx, had_result) = watch::channel(orders.settings.check.is_none());
        let (orders_tx, orders) = watch::channel(orders);
        let spread = u64::try_from(spread.as_nanos()).unwrap_or(0);
        let first_check = Instant::now() + Duration::from_nanos(below(self.random.next_u64(), spread));
        let watcher = task::Watcher {
            key,
            addr,
            machine,
            orders,
            connects_failed: Arc::clone(&connects_failed),
            had_result: had_result_tx,
            updates: self.updates.clone(),
            connects: Arc::clone(&self.connects),
            random: SplitMix64::new(self.random.next_u64()),
        };
        tokio::spawn(watcher.run(first_check));
        Task {
            addr,
            orders: orders_tx,
            connects_failed,
            had_result,
        }
    }

    /// Whether an update is about a server as it is watched now. Others are stale (the server was removed, moved to
    /// another address or taken into maintenance since) and must not reach [`Inputs::health`].
    #[must_use]
    pub fn is_current(&self, update: &HealthUpdate) -> bool {
        self.tasks
            .get(&update.key)
            .is_some_and(|task| task.addr == update.addr)
    }

    /// Resolves when every check that is running now has had its first result and its update, if any, is in the channel.
    /// The caller sets the limit of time, and goes on receiving updates meanwhile: a full channel holds up the checks.
    pub fn first_round(&self) -> impl Future<Output = ()> + Send + use<> {
        let tasks: Vec<_> = self.tasks.values().map(|task| task.had_result.clone()).collect();
        async move {
            for mut had_result in tasks {
                // an error means that the server was removed
                let _ = had_result.wait_for(|had| *had).await;
            }
        }
    }

    /// A connect of real traffic failed `max_failures` times in a row: ejects the server for a growing time, if its
    /// backend has a passive check and the server is up. The change arrives as an update, like a check's.
    ///
    /// Nobody needs to reset `failures_in_a_row` then: the snapshot does it when the server comes up again.
    pub fn passive_failure(&mut self, key: &ServerKey) {
        if let Some(task) = self.tasks.get(key) {
            task.connects_failed.notify_one();
        }
    }
}
