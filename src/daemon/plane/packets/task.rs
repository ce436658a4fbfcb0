//! The task of the packet modes.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Interval, MissedTickBehavior, interval, sleep_until, timeout},
};

use super::{
    Armed, Order, PacketThreads, PacketsError, View, demand,
    engine::{self, Started},
    interfaces::Interfaces,
    rules::InstalledRules,
    running::Running,
    vips::Vips,
};
use crate::{
    config::{Config, PacketService},
    engine::{
        Engine, EngineEvent,
        network::{Follower, NetworkState, Wanted},
    },
    firewall,
    pools::Pools,
    privilege::Client,
    snapshot::Snapshot,
};

/// How often is looked whether flows of what has been removed have ended, and sockets that could not be had are tried
/// again.
const UPKEEP: Duration = Duration::from_secs(5);

/// How long a start or a reload waits for the next hops of servers that are new: until they are known, the first packets
/// to them would be lost.
const RESOLVE_WAIT: Duration = Duration::from_secs(1);

/// Events of the engine that may wait.
const EVENTS: usize = 64;

/// What the task is given.
pub struct Environment {
    /// What the engine is started with.
    pub threads: PacketThreads,
    /// Where the broker is asked.
    pub broker: Client,
    /// The snapshot in effect.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// Where the engine is put.
    pub engine: Arc<ArcSwapOption<Engine>>,
    /// Where is said what runs.
    pub view: watch::Sender<Arc<View>>,
    /// The way back to the task, for guards.
    pub orders: mpsc::WeakUnboundedSender<Order>,
}

/// All state of the packet modes.
pub struct Plane {
    environment: Environment,
    running: Option<Running>,
    rules: InstalledRules,
    /// In effect; `None` before the start's.
    config: Option<Arc<Config>>,
    /// What the configuration in effect and its pools need.
    services: Vec<PacketService>,
    interfaces: Interfaces,
    vips: Vips,
    armed: Option<(u64, PreparedPackets)>,
    /// The number of the last that was armed.
    last_armed: u64,
    /// Whether the broker knows what is needed of what the process before has left in the kernel.
    is_settled: bool,
}

/// What has been prepared: to be committed or put back.
#[derive(Default)]
struct PreparedPackets {
    services: Vec<PacketService>,
    sockets: super::interfaces::Sockets,
    /// Whether the engine was started for it.
    has_started: bool,
}

/// What the task hears.
enum News {
    Order(Option<Order>),
    /// The network has changed.
    NetworkState,
    Engine(EngineEvent),
    /// It is time to look at the rules.
    RulesDue,
    Upkeep,
}

impl Plane {
    /// Nothing runs yet.
    pub fn new(environment: Environment, record: PathBuf) -> Self {
        Self {
            environment,
            running: None,
            rules: InstalledRules::new(record),
            config: None,
            services: Vec::new(),
            interfaces: Interfaces::default(),
            vips: Vips::default(),
            armed: None,
            last_armed: 0,
            is_settled: false,
        }
    }

    /// Runs until nobody orders any more.
    pub async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        let mut upkeep = interval(UPKEEP);
        upkeep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            match self.news(&mut orders, &mut upkeep).await {
                News::Order(None) => return,
                News::Order(Some(Order::Arm(config, pools, reply))) => self.arm(config, &pools, reply).await,
                News::Order(Some(Order::Commit(number, config, done))) => {
                    self.commit(number, config).await;
                    // whoever asked may have gone
                    let _ = done.send(());
                }
                News::Order(Some(Order::Disarm(number))) => self.disarm(number).await,
                News::Order(Some(Order::CheckRules(done))) => {
                    self.check_rules().await;
                    // whoever asked may have gone
                    let _ = done.send(());
                }
                News::Order(Some(Order::GiveUp)) => self.give_up().await,
                News::RulesDue => self.check_rules().await,
                News::NetworkState => self.adopt_network_state().await,
                News::Engine(EngineEvent::InterfaceLost(ifindex)) => {
                    let engine = self.running.as_ref().map(|running| Arc::clone(&running.engine));
                    self.interfaces
                        .lost(ifindex, engine.as_deref(), &self.environment.broker)
                        .await;
                    self.adopt_network_state().await;
                }
                News::Engine(EngineEvent::ReturnHops) => {
                    if let Some(running) = &self.running {
                        running.follower.want_clients(running.engine.return_clients());
                    }
                }
                News::Upkeep => self.maintain().await,
            }
        }
    }

    async fn news(&mut self, orders: &mut mpsc::UnboundedReceiver<Order>, upkeep: &mut Interval) -> News {
        // between arming and its end nothing else is begun: it takes moments, and must find what it prepared
        let is_armed = self.armed.is_some();
        let Some(running) = &mut self.running else {
            return tokio::select! {
                order = orders.recv() => News::Order(order),
                _ = upkeep.tick(), if !is_armed => News::Upkeep,
            };
        };
        let rules_due = self.rules.due();
        tokio::select! {
            order = orders.recv() => News::Order(order),
            _ = upkeep.tick(), if !is_armed => News::Upkeep,
            Some(event) = running.events.recv(), if !is_armed => News::Engine(event),
            () = changed(&mut running.network_states), if !is_armed => News::NetworkState,
            () = sleep_until(rules_due.unwrap_or_else(Instant::now).into()), if rules_due.is_some() && !is_armed => News::RulesDue,
        }
    }

    async fn arm(
        &mut self,
        config: Arc<Config>,
        pools: &Pools,
        reply: oneshot::Sender<Result<Armed, PacketsError>>,
    ) {
        // given up by whoever armed it, which is on its way
        if let Some((number, _)) = self.armed {
            self.disarm(number).await;
        }
        let result = self.prepare(&config, pools).await.map(|prepared| {
            self.last_armed += 1;
            self.armed = Some((self.last_armed, prepared));
            Armed {
                number: self.last_armed,
                orders: self.environment.orders.upgrade(),
            }
        });
        // whoever asked may have given up: the guard comes back with the error, and its end has everything put back
        let _ = reply.send(result);
    }

    async fn prepare(&mut self, config: &Config, pools: &Pools) -> Result<PreparedPackets, PacketsError> {
        let services = pools.packet_services(config);
        if services.is_empty() && self.rules.in_effect().is_empty() {
            self.rules.check(&self.environment.broker).await;
            return Ok(PreparedPackets::default());
        }
        if services.iter().any(|service| service.nat_ports.is_some()) {
            self.check_ports(config)?;
        }
        let mut prepared = PreparedPackets {
            services,
            ..PreparedPackets::default()
        };
        match self.try_prepare(config, &mut prepared).await {
            Ok(()) => Ok(prepared),
            Err(error) => {
                self.put_back(prepared).await;
                Err(error)
            }
        }
    }

    async fn try_prepare(
        &mut self,
        config: &Config,
        prepared: &mut PreparedPackets,
    ) -> Result<(), PacketsError> {
        let all = demand::union(&prepared.services, self.rules.in_effect());
        // source addresses of a new configuration count once it is in effect, for flows go on meanwhile
        let in_effect = self.config.clone().filter(|_| !self.services.is_empty());
        let wanted = Wanted::of(in_effect.as_deref().unwrap_or(config), &all);
        prepared.has_started = self.start(config, wanted).await?;
        if let Some(running) = &mut self.running {
            // a server whose host is down is never resolved: it is not waited for longer than this
            let _ = timeout(RESOLVE_WAIT, running.resolved()).await;
            // before the snapshot has them
            running.engine.set_hops(&running.network_states.borrow().hops);
        }
        if !self.rules.are_for(&all) {
            self.rules.serve(all, &self.environment.broker).await?;
        }
        let needed = demand::interfaces(config, self.rules.in_effect(), &self.network_state());
        self.interfaces
            .open_missing(
                needed,
                &mut prepared.sockets,
                self.environment.threads.workers,
                &self.environment.broker,
            )
            .await?;
        Ok(())
    }

    /// Puts back what a preparation has changed.
    async fn put_back(&mut self, prepared: PreparedPackets) {
        let names: Vec<Arc<str>> = (prepared.sockets.iter())
            .map(|(name, _, _)| name.as_str().into())
            .collect();
        // ours first: as long as one of both is open the kernel gives the socket packets
        drop(prepared.sockets);
        for name in names {
            self.interfaces.release(name, &self.environment.broker).await;
        }
        if prepared.has_started {
            self.stop_engine();
        }
        self.shrink().await;
    }

    async fn disarm(&mut self, number: u64) {
        if let Some((_, prepared)) = self.armed.take_if(|(armed, _)| *armed == number) {
            self.put_back(prepared).await;
            self.adopt_network_state().await;
        }
    }

    async fn commit(&mut self, number: u64, config: Arc<Config>) {
        let Some((_, prepared)) = self.armed.take_if(|(armed, _)| *armed == number) else {
            return;
        };
        self.services = prepared.services;
        self.config = Some(config);
        self.open_up(prepared.sockets).await;
        self.shrink().await;
        if let Some(running) = &mut self.running {
            // what is reported as done has the new source addresses; a kernel that does not answer is not waited for longer
            let _ = timeout(RESOLVE_WAIT, running.followed()).await;
        }
        self.adopt_network_state().await;
        if let Some(running) = &self.running {
            running.applied().await;
        }
    }

    /// Serves interfaces whose sockets have been prepared. A program that was taken over goes by this configuration before the
    /// slow path has its packets: without that it would not know the flows.
    async fn open_up(&mut self, sockets: super::interfaces::Sockets) {
        let broker = &self.environment.broker;
        if let Some(running) = &self.running {
            for (name, ifindex, _) in &sockets {
                self.interfaces.insert(name.clone(), *ifindex);
                self.interfaces
                    .attach(name.clone(), *ifindex, &running.engine, broker)
                    .await;
            }
            running.engine.begin();
            running.applied().await;
            for (_, ifindex, sockets) in sockets {
                running.engine.add_interface(ifindex, sockets);
            }
        }
        if !std::mem::replace(&mut self.is_settled, true)
            && let Err(error) = broker.xdp_settled().await
        {
            tracing::error!(
                event = "xdp_kept",
                "cannot detach xdp from interfaces that are served no more: {error}"
            );
        }
    }

    /// Removes what neither the configuration nor a live flow needs any more, and follows no more than that.
    async fn shrink(&mut self) {
        let in_use = match &self.running {
            Some(running) if !demand::leftovers(&self.services, self.rules.in_effect()).is_empty() => {
                running.engine.in_use()
            }
            _ => BTreeSet::new(),
        };
        let config = self.config.clone();
        let kept = config.as_deref().map_or_else(Vec::new, |config| {
            demand::kept(config, &self.services, self.rules.in_effect(), &in_use)
        });
        let needed = demand::union(&self.services, &kept);
        if !self.rules.are_for(&needed)
            && let Err(error) = self.rules.serve(needed, &self.environment.broker).await
        {
            tracing::error!(
                event = "firewall_failed",
                "cannot remove stale firewall rules: {error}; trying again in {UPKEEP:?}"
            );
        }
        if let (Some(running), Some(config)) = (&mut self.running, config) {
            running.want(Wanted::of(&config, self.rules.in_effect()));
        }
    }

    /// Hands next hops on, serves interfaces that are needed now and no others, and says which VIPs wait.
    async fn adopt_network_state(&mut self) {
        let (Some(running), Some(config)) = (&self.running, self.config.clone()) else {
            self.tell();
            return;
        };
        let network_state = Arc::clone(&running.network_states.borrow());
        let engine = Arc::clone(&running.engine);
        engine.set_hops(&network_state.hops);
        let needed = demand::interfaces(&config, self.rules.in_effect(), &network_state);
        self.interfaces
            .serve(
                needed,
                &engine,
                self.environment.threads.workers,
                &self.environment.broker,
            )
            .await;
        self.vips.update(demand::vip_states(
            &config,
            &network_state,
            self.interfaces.served(),
        ));
        self.tell();
    }

    /// What has to be done now and then: to remove what no flow uses any more, and to try again what failed.
    async fn maintain(&mut self) {
        if !self.rules.are_for(&self.services) {
            self.shrink().await;
        }
        if self.interfaces.have_failed() {
            self.interfaces.release_rest(&self.environment.broker).await;
            self.adopt_network_state().await;
        }
        if self.rules.is_first_due() {
            self.check_rules().await;
        }
    }

    async fn check_rules(&mut self) {
        let before = self.rules.status().clone();
        self.rules.check(&self.environment.broker).await;
        if *self.rules.status() != before {
            self.tell();
        }
    }

    /// Serves nothing any more: the engine ends, then the rules, and with them the broker's hold on the packet modes.
    async fn give_up(&mut self) {
        let served: Vec<String> = self.interfaces.served().keys().cloned().collect();
        for name in &served {
            self.interfaces.detach(name, &self.environment.broker).await;
        }
        self.stop_engine();
        for name in served {
            self.interfaces
                .release(name.into(), &self.environment.broker)
                .await;
        }
        self.interfaces = Interfaces::default();
        self.vips.update(BTreeMap::new());
        self.services.clear();
        self.config = None;
        self.shrink().await;
        self.tell();
    }

    /// Says what runs.
    fn tell(&self) {
        let view = View {
            vips: self.vips.states().clone(),
            waiting: self.vips.waiting().to_owned(),
            engine: self.running.as_ref().map(|running| running.choice.clone()),
            served: self.interfaces.served().clone(),
            attached: self.interfaces.attached().clone(),
            network_state: self.network_state(),
            in_effect: self.rules.in_effect().iter().map(|service| service.vip).collect(),
            rules: self.rules.status().clone(),
        };
        self.environment.view.send_replace(Arc::new(view));
    }

    fn network_state(&self) -> Arc<NetworkState> {
        (self.running.as_ref()).map_or_else(Arc::default, |running| running.network_states.borrow().clone())
    }

    /// Has the follower follow, and starts it and the engine if they do not run. Whether it did.
    async fn start(&mut self, config: &Config, wanted: Wanted) -> Result<bool, PacketsError> {
        if let Some(running) = &mut self.running {
            running.want(wanted);
            return Ok(false);
        }
        let (events_tx, events) = mpsc::channel(EVENTS);
        let follower = Follower::start(wanted.clone()).map_err(PacketsError::Follow)?;
        let Environment {
            threads,
            snapshot,
            broker,
            ..
        } = &self.environment;
        let Started { engine, choice } =
            engine::start(*threads, config.packet.max_flows, snapshot, broker, events_tx).await?;
        let engine = Arc::new(engine);
        self.environment.engine.store(Some(Arc::clone(&engine)));
        self.running = Some(Running {
            engine,
            choice,
            network_states: follower.network_states(),
            follower,
            wanted,
            events,
        });
        Ok(true)
    }

    fn stop_engine(&mut self) {
        self.environment.engine.store(None);
        if let Some(running) = self.running.take() {
            running.engine.stop();
        }
    }

    fn check_ports(&self, config: &Config) -> Result<(), PacketsError> {
        let warning = firewall::check_ephemeral(self.rules.record(), config.packet.nat_ports)
            .map_err(|error| PacketsError::Ports(error.to_string()))?;
        if let Some(warning) = warning {
            tracing::warn!(event = "few_ports", "{warning}");
        }
        Ok(())
    }
}

/// Resolves at the next network state; never once the follower has ended, whose last one stays.
async fn changed(network_states: &mut watch::Receiver<Arc<NetworkState>>) {
    if network_states.changed().await.is_err() {
        pending::<()>().await;
    }
}

#[cfg(test)]
mod tests;
