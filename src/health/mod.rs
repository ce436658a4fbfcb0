//! Active health checks: one task for each server, results to the daemon.
//!
//! ```text
//!  Checker (control loop) ── settings, passive failures ──► task of a server ── connect checks ──► server
//!                         ◄──────── HealthUpdate ──────────  (owns its Machine)
//! ```

mod agent;
mod ask;
mod channel;
mod connect;
mod exchange;
mod exec;
pub mod machine;
mod probe;
mod share;
mod task;
#[cfg(test)]
mod tests;
mod tls;
mod trial;
mod watched;

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::{Notify, Semaphore, mpsc, watch};

use crate::{
    balance::hash::{SplitMix64, below},
    base::{BackendName, Protocol, ServerAddr, ServerKey, ServerName, ServerTlsFailure, SocketKind},
    client::runner::Runner,
    config::{self, CheckAddr},
    pools::{AdminState, Pool, Pools, Server},
    snapshot::{BackendTls, Health},
};
use agent::Agent;
pub use connect::CheckSockets;
use machine::{CheckSettings, Machine};
use share::{Shares, Terms};
pub use trial::Trial;
use watched::{Said, Task, Watched};

/// Connect checks under way at a time, and questions to agents beside them; more wait for their turn. Far below any descriptor limit, and with a timeout of
/// 1 s still 256 dead servers a second.
pub const MAX_CONNECTS: usize = 256;

/// Time over which the first checks of many servers are spread.
const FIRST_SPREAD: Duration = Duration::from_millis(100);

/// A server's health as its task sees it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthUpdate {
    /// The server.
    pub key: ServerKey,
    /// The address that was checked.
    pub addr: ServerAddr,
    /// Which task found it out: one that has been replaced or ended since is stale.
    pub task: TaskId,
    /// Its new health.
    pub health: Health,
    /// Whether up/down/checking changed (else only the reason's text did, or what its agent says).
    pub changed: bool,
}

/// The task that watches a server; never used again for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TaskId(u64);

/// The running checks. Lives on the control thread's runtime; dropping it ends them.
#[derive(Debug)]
pub struct Checker {
    updates: mpsc::Sender<HealthUpdate>,
    watched: HashMap<BackendName, HashMap<ServerName, Watched>>,
    connects: Arc<Semaphore>,
    /// Turns of questions to agents: those that hang hold up no check.
    questions: Arc<Semaphore>,
    random: SplitMix64,
    last_task: u64,
    /// Where sockets come from that only the broker can make.
    sockets: Option<Arc<dyn CheckSockets>>,
    /// Who runs commands.
    runner: Option<Runner>,
    /// TLS of the checks of backends.
    tls: TlsToServers,
    /// Checks that are made for several servers.
    shares: Arc<Shares>,
}

/// TLS to the servers of backends that speak it.
pub type TlsToServers = HashMap<BackendName, Arc<BackendTls>>;

/// What real traffic tells a server's task.
#[derive(Debug, Default)]
struct ConnectsFailed {
    told: Notify,
    /// Why the last of them failed, if it was the server's TLS.
    tls: Mutex<Option<ServerTlsFailure>>,
}

/// What a task is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Orders {
    settings: CheckSettings,
    /// Where checks go.
    target: ServerAddr,
    /// How they connect.
    way: connect::Way,
    /// Where its agent is asked, if it is.
    agent: Option<(ServerAddr, config::AgentCheck)>,
}

/// What is known of servers anew: the initial health of those that are watched from now on, nothing of those that are no
/// longer.
pub type Known = Vec<(ServerKey, Option<Health>)>;

impl Checker {
    /// No checks yet; results will go to `updates`.
    #[must_use]
    pub fn new(updates: mpsc::Sender<HealthUpdate>) -> Self {
        Self {
            updates,
            watched: HashMap::new(),
            connects: Arc::new(Semaphore::new(MAX_CONNECTS)),
            questions: Arc::new(Semaphore::new(MAX_CONNECTS)),
            sockets: None,
            runner: None,
            // jitter need not be secret, only different in each process
            random: SplitMix64::new(RandomState::new().hash_one(0_u8)),
            last_task: 0,
            tls: TlsToServers::new(),
            shares: Arc::default(),
        }
    }

    /// Has checks that take a socket of the broker's ask here.
    pub fn set_sockets(&mut self, sockets: Arc<dyn CheckSockets>) {
        self.sockets = Some(sockets);
    }

    /// Has checks by commands run here.
    pub fn set_runner(&mut self, runner: Runner) {
        self.runner = Some(runner);
    }

    /// Takes TLS to servers, for the backends that are [applied](Self::apply) from now on: those where it is another are
    /// returned. What did not change is the same [`Arc`].
    pub fn set_tls(&mut self, tls: TlsToServers) -> Vec<BackendName> {
        let before = std::mem::replace(&mut self.tls, tls);
        let of = |all: &TlsToServers, name| all.get(name).map(Arc::as_ptr);
        let mut names: Vec<_> = before.keys().chain(self.tls.keys()).collect();
        names.sort();
        names.dedup();
        names.retain(|name| of(&before, *name) != of(&self.tls, *name));
        names.into_iter().cloned().collect()
    }

    /// Starts, changes and stops tasks so that exactly the servers of the pools of these backends are watched, those in
    /// maintenance excepted. Servers whose address did not change keep their state, even if their check changed.
    ///
    /// What has been tried out for these pools is taken over: tasks and what they have found.
    ///
    /// To be called within the runtime, with the backends that [`Pools::apply`] has named.
    pub fn apply<'a>(
        &mut self,
        pools: &Pools,
        changed: impl IntoIterator<Item = &'a BackendName>,
        mut tried: Trial,
    ) -> Known {
        let mut known = Known::new();
        let mut todo = Vec::new();
        for name in changed {
            let pool = pools.get(name.as_str());
            let is_there = |server: &ServerName| pool.is_some_and(|p| p.server(server.as_str()).is_some());
            if let Some(watched) = self.watched.get_mut(name) {
                watched.retain(|server, _| {
                    let stays = is_there(server);
                    if !stays {
                        known.push((key_of(name, server), None));
                    }
                    stays
                });
            }
            match pool {
                Some(pool) => todo.extend(pool.servers().iter().map(|server| (pool, server))),
                None => {
                    self.watched.remove(name);
                }
            }
        }
        let spread = FIRST_SPREAD.min(Duration::from_millis(todo.len() as u64));
        for (pool, server) in todo {
            let tried = tried.take(&pool.key(server), server.addr);
            known.extend(self.watch(pool, server, spread, tried));
        }
        known
    }

    /// Starts to check the servers that pools not in effect yet have in these backends and that are not watched, without
    /// anybody being told; those in maintenance excepted.
    ///
    /// To be called within the runtime.
    pub fn try_out<'a>(
        &mut self,
        pools: &Pools,
        changed: impl IntoIterator<Item = &'a BackendName>,
        tls: &TlsToServers,
    ) -> Trial {
        self.start_new(pools, changed, tls, |settings, now| {
            Machine::new(settings, false, now)
        })
    }

    /// Starts to check those servers of these backends that are not watched.
    fn start_new<'a>(
        &mut self,
        pools: &Pools,
        changed: impl IntoIterator<Item = &'a BackendName>,
        tls: &TlsToServers,
        machine: fn(CheckSettings, Instant) -> Machine,
    ) -> Trial {
        let new: Vec<_> = changed
            .into_iter()
            .filter_map(|name| pools.get(name.as_str()))
            .flat_map(|pool| pool.servers().iter().map(move |server| (pool, server)))
            .filter(|(_, server)| server.overridden.admin != Some(AdminState::Maintenance))
            .map(|(pool, server)| (pool, server, pool.key(server)))
            .filter(|(_, server, key)| self.task(key).is_none_or(|task| task.addr != server.addr))
            .collect();
        let spread = FIRST_SPREAD.min(Duration::from_millis(new.len() as u64));
        let mut trial = Trial::default();
        for (pool, server, key) in new {
            let orders = Orders::of(pool.backend(), server, tls);
            let machine = machine(orders.settings.clone(), Instant::now());
            let health = machine.health().clone();
            let agent = Agent::default();
            let task = self.start(key.clone(), server.addr, orders, machine, agent, spread);
            trial.add(key, task, health);
        }
        trial
    }

    /// As [`try_out`](Self::try_out), of servers that count as up until their checks say otherwise.
    ///
    /// To be called within the runtime.
    pub fn presume_up(&mut self, pools: &Pools, backend: &BackendName) -> Trial {
        let tls = self.tls.clone();
        self.start_new(pools, [backend], &tls, Machine::presumed_up)
    }

    /// As [`apply`](Self::apply), for one server whose override has changed.
    pub fn apply_override(&mut self, pool: &Pool, server: &Server) -> Known {
        self.watch(pool, server, Duration::ZERO, None)
            .into_iter()
            .collect()
    }

    /// Watches a server as its pool says; what is known of it anew, if anything.
    fn watch(
        &mut self,
        pool: &Pool,
        server: &Server,
        spread: Duration,
        tried: Option<(Task, Health)>,
    ) -> Option<(ServerKey, Option<Health>)> {
        let backend = pool.backend();
        let orders = Orders::of(backend, server, &self.tls);
        let watched = self.watched.entry(backend.name.clone()).or_default();
        if server.overridden.admin == Some(AdminState::Maintenance) {
            let before = watched.remove(&server.name);
            watched.insert(
                server.name.clone(),
                before.map_or(Watched::Not(None), Watched::not),
            );
            return Some((pool.key(server), None));
        }
        let before = watched.get(&server.name);
        if let Some(Watched::By(task)) = before
            && task.addr == server.addr
        {
            task.order(orders);
            return None;
        }
        if let Some((task, health)) = tried {
            task.order(orders);
            watched.insert(server.name.clone(), Watched::By(task));
            return Some((pool.key(server), Some(health)));
        }
        let comes_back = matches!(before, Some(Watched::Not(_)));
        let agent = before.map_or_else(Agent::default, |before| before.agent(&orders));
        let machine = Machine::new(orders.settings.clone(), comes_back, Instant::now());
        let health = agent.over(machine.health());
        let key = pool.key(server);
        let task = self.start(key.clone(), server.addr, orders, machine, agent, spread);
        let watched = self.watched.entry(backend.name.clone()).or_default();
        watched.insert(server.name.clone(), Watched::By(task));
        Some((key, Some(health)))
    }

    fn start(
        &mut self,
        key: ServerKey,
        addr: ServerAddr,
        orders: Orders,
        machine: Machine,
        agent: Agent,
        spread: Duration,
    ) -> Task {
        let connects_failed = Arc::new(ConnectsFailed::default());
        let said = Said::default();
        said.set(&agent);
        let (had_result_tx, had_result) =
            watch::channel(orders.settings.check.is_none() && orders.agent.is_none());
        let (orders_tx, orders) = watch::channel(orders);
        let spread = u64::try_from(spread.as_nanos()).unwrap_or(0);
        let first_check = Instant::now() + Duration::from_nanos(below(self.random.next_u64(), spread));
        self.last_task += 1;
        let id = TaskId(self.last_task);
        let watcher = task::Watcher {
            key,
            addr,
            id,
            machine,
            orders,
            connects_failed: Arc::clone(&connects_failed),
            had_result: had_result_tx,
            updates: self.updates.clone(),
            connects: Arc::clone(&self.connects),
            questions: Arc::clone(&self.questions),
            sockets: self.sockets.clone(),
            runner: self.runner.clone(),
            shares: Arc::clone(&self.shares),
            agent,
            said: said.clone(),
            random: SplitMix64::new(self.random.next_u64()),
        };
        tokio::spawn(watcher.run(first_check));
        Task {
            id,
            addr,
            orders: orders_tx,
            connects_failed,
            had_result,
            said,
        }
    }

    /// Whether an update is about a server as it is watched now. Others are stale (the server was removed, moved to
    /// another address or taken into maintenance since) and must not reach the snapshot.
    #[must_use]
    pub fn is_current(&self, update: &HealthUpdate) -> bool {
        self.task(&update.key).is_some_and(|task| task.id == update.task)
    }

    /// Resolves when every check that is running now has had its first result and its update, if any, is in the channel.
    /// The caller sets the limit of time, and goes on receiving updates meanwhile: a full channel holds up the checks.
    pub fn first_round(&self) -> impl Future<Output = ()> + Send + use<> {
        let watched = self.watched.values().flat_map(HashMap::values);
        let tasks: Vec<_> = (watched.filter_map(Watched::task))
            .map(|task| task.had_result.clone())
            .collect();
        async move {
            for mut had_result in tasks {
                // an error means that the server was removed
                let _ = had_result.wait_for(|had| *had).await;
            }
        }
    }

    /// A connect of real traffic failed `max_failures` times in a row, the last time by the server's TLS if that has a reason: ejects the server for a growing time, if its
    /// backend has a passive check and the server is up. The change arrives as an update, like a check's.
    ///
    /// Nobody needs to reset `failures_in_a_row` then: the snapshot does it when the server comes up again.
    pub fn passive_failure(&self, key: &ServerKey, tls: Option<ServerTlsFailure>) {
        if let Some(task) = self.task(key) {
            task.connects_failed.tell(tls);
        }
    }

    /// The task of a server that is watched.
    #[cfg(test)]
    pub(crate) fn task_of(&self, key: &ServerKey) -> Option<TaskId> {
        Some(self.task(key)?.id)
    }

    fn task(&self, key: &ServerKey) -> Option<&Task> {
        self.watched.get(&key.backend)?.get(&key.server)?.task()
    }
}

impl ConnectsFailed {
    fn tell(&self, tls: Option<ServerTlsFailure>) {
        *self.tls.lock().unwrap_or_else(PoisonError::into_inner) = tls;
        self.told.notify_one();
    }

    /// Waits for the next time.
    async fn next(&self) -> Option<ServerTlsFailure> {
        self.told.notified().await;
        *self.tls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Orders {
    fn of(backend: &config::Backend, server: &Server, tls: &TlsToServers) -> Self {
        let settings = backend.health_check.as_ref();
        let check = settings.map(|check| &check.check);
        let target_at = |port| CheckAddr::target(server.check_addr, server.addr, port);
        let target = target_at(settings.and_then(|check| check.port));
        let tls = tls.get(&backend.name).zip(backend.check_tls());
        Self {
            settings: CheckSettings {
                check: backend.health_check.clone(),
                passive: backend.passive_check.clone(),
            },
            target,
            way: connect::Way {
                source: settings
                    .and_then(|check| check.source_addr)
                    .or(backend.source_addr),
                socket: (backend.check_socket(target)).filter(|kind| kind.is_special()),
                options: backend.server_socket.without_buffers(),
                send_proxy: settings.filter(|check| check.send_proxy).and(backend.send_proxy),
                tls: tls.map(|(tls, settings)| tls::CheckTls::of(tls, settings, server, check)),
            },
            agent: (backend.agent_check.as_ref()).map(|agent| (target_at(Some(agent.port)), agent.clone())),
        }
    }

    /// How its agent is connected to.
    fn agent_way(&self) -> connect::Way {
        connect::Way {
            // that of a check by UDP is another
            socket: self.way.socket.map(|kind| SocketKind {
                protocol: Protocol::Tcp,
                ..kind
            }),
            send_proxy: None,
            tls: None,
            ..self.way.clone()
        }
    }

    /// The terms of a check that is made for several servers; `None` if it is this one's alone.
    fn shared(&self) -> Option<Terms> {
        let check = self.settings.check.as_ref().filter(|check| check.share)?;
        Some(Terms {
            addr: self.target,
            check: check.check.clone(),
            timeout: check.timeout,
            way: self.way.clone(),
        })
    }
}

fn key_of(backend: &BackendName, server: &ServerName) -> ServerKey {
    ServerKey {
        backend: backend.clone(),
        server: server.clone(),
    }
}
