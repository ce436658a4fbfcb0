//! The packet modes on the control thread: the engine, the follower of the network, what the broker has put in force,
//! and the interfaces that are served.
//!
//! ```text
//! reload ──► serve(old ∪ new) ──► sockets ──► snapshot ──► serve(new ∪ what flows still use)
//! picture of the network ──► next hops ──► engine;   interfaces that have our VIPs and servers ──► sockets ──► engine
//! ```
//! Rules come before packets, at the start and at a reload; at the end packets end before rules.

mod demand;
mod executor;
mod rules;
mod vips;

use std::{
    collections::BTreeMap, future::pending, os::fd::OwnedFd, path::PathBuf, sync::Arc, time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};

use crate::{
    config::{Config, PacketService},
    engine::{
        network::{Follower, Picture, Wanted},
        raw::{self, Engine},
    },
    firewall,
    pools::Pools,
    privilege::{Broker, BrokerError, sandbox},
    snapshot::Snapshot,
};
pub use demand::VipState;
pub use executor::KernelExecutor;
use rules::Rules;
pub use vips::Vips;

/// How often is looked whether flows of what has been removed have ended, and sockets that could not be had are tried
/// again.
pub const UPKEEP: Duration = Duration::from_secs(5);

/// How long a start or a reload waits for the next hops of servers that are new: until they are known, the first packets
/// to them would be lost.
const RESOLVE_WAIT: Duration = Duration::from_secs(1);

/// How long the engine's threads have to show that they are alive: a batch takes far less.
const ALIVE: Duration = Duration::from_secs(5);

/// Events of the engine that may wait.
const EVENTS: usize = 64;

/// Why the packet modes cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum PacketsError {
    /// The broker refused or failed.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The network cannot be followed.
    #[error("follow the network by netlink: {0}")]
    Follow(std::io::Error),
    /// The engine's threads do not start.
    #[error("start the packet engine: {0}")]
    Engine(std::io::Error),
    /// The NAT ports do not fit this host.
    #[error("{0}")]
    Ports(String),
}

/// All state of the packet modes.
#[derive(Debug)]
pub struct Packets {
    workers: usize,
    first_shard: usize,
    running: Option<Running>,
    rules: Rules,
    /// What the configuration in effect and its pools need.
    services: Vec<PacketService>,
    /// Interfaces that are served, with their indexes.
    served: BTreeMap<String, u32>,
    /// Interfaces whose sockets could not be had, and why: said once.
    refused: BTreeMap<String, String>,
    vips: Vips,
}

/// The parts that exist once a configuration needs them.
#[derive(Debug)]
struct Running {
    engine: Arc<Engine>,
    follower: Follower,
    /// What it follows.
    wanted: Wanted,
    pictures: watch::Receiver<Arc<Picture>>,
    events: mpsc::Receiver<raw::Event>,
}

/// Interfaces by name and index, with a socket for each worker.
type Sockets = Vec<(String, u32, Vec<OwnedFd>)>;

impl Running {
    /// Waits until the way to every server is known, or known not to exist.
    async fn resolved(&mut self) {
        loop {
            let settled = demand::is_resolved(&self.wanted, &self.pictures.borrow_and_update());
            if settled || self.pictures.changed().await.is_err() {
                return;
            }
        }
    }

    fn want(&mut self, wanted: Wanted) {
        if self.wanted != wanted {
            self.follower.want(wanted.clone());
            self.wanted = wanted;
        }
    }
}

/// What a reload has prepared: to be committed or abandoned.
#[derive(Debug, Default)]
pub struct Prepared {
    services: Vec<PacketService>,
    sockets: Sockets,
}

/// What the control loop hears of the packet modes.
#[derive(Debug)]
pub enum News {
    /// The network has changed.
    Picture,
    /// From the engine.
    Engine(raw::Event),
}

impl Packets {
    /// Nothing runs yet. `workers` threads, which write the counters' shards from `first_shard` on.
    #[must_use]
    pub fn new(workers: usize, first_shard: usize, record: PathBuf) -> Self {
        Self {
            workers,
            first_shard,
            running: None,
            rules: Rules::new(record),
            services: Vec::new(),
            served: BTreeMap::new(),
            refused: BTreeMap::new(),
            vips: Vips::default(),
        }
    }

    /// Threads of the engine.
    #[must_use]
    pub const fn workers(&self) -> usize {
        self.workers
    }

    /// The engine, if it runs.
    #[must_use]
    pub fn engine(&self) -> Option<&Arc<Engine>> {
        self.running.as_ref().map(|running| &running.engine)
    }

    /// Resolves to whether every thread of the engine answers; an engine that does not run is well.
    pub fn alive(&self) -> impl Future<Output = bool> + Send + use<> {
        let engine = self.engine().cloned();
        async move {
            let Some(engine) = engine else { return true };
            // it waits on a channel of the standard library, which this loop must not
            tokio::task::spawn_blocking(move || engine.is_alive(ALIVE))
                .await
                .unwrap_or(false)
        }
    }

    /// The network as last seen.
    #[must_use]
    pub fn picture(&self) -> Arc<Picture> {
        (self.running.as_ref()).map_or_else(Arc::default, |running| running.pictures.borrow().clone())
    }

    /// The VIPs of the configuration in effect.
    #[must_use]
    pub const fn vips(&self) -> &Vips {
        &self.vips
    }

    /// Interfaces that are served.
    #[must_use]
    pub const fn served(&self) -> &BTreeMap<String, u32> {
        &self.served
    }

    /// Prepares for a configuration with its pools: starts what it needs, puts rules and filters in force for it *and* for what runs
    /// now, and opens sockets on interfaces that it adds.
    ///
    /// # Errors
    /// The first thing that could not be had; then everything is as before.
    pub async fn prepare(
        &mut self,
        config: &Config,
        pools: &Pools,
        broker: &Broker,
        snapshot: &Arc<ArcSwap<Snapshot>>,
    ) -> Result<Prepared, PacketsError> {
        let services = pools.packet_services(config);
        let before = self.rules.in_force().to_vec();
        if services.is_empty() && before.is_empty() {
            self.rules.check(broker);
            return Ok(Prepared::default());
        }
        if services.iter().any(|service| service.nat_ports.is_some()) {
            self.check_ports(config)?;
        }
        let all = demand::union(&services, &before);
        let wanted = demand::wanted(config, &all);
        self.start(config, snapshot, wanted).await?;
        if all != before {
            self.rules.serve(all, broker)?;
        }
        match self.open_missing(config, broker) {
            Ok(sockets) => Ok(Prepared { services, sockets }),
            Err((sockets, error)) => {
                self.abandon(&sockets, before, broker);
                Err(error.into())
            }
        }
    }

    /// Goes back to what was in force before a preparation whose reload has failed.
    fn abandon(&mut self, sockets: &Sockets, before: Vec<PacketService>, broker: &Broker) {
        for (name, _, _) in sockets {
            release(name, broker);
        }
        if self.rules.in_force() != before
            && let Err(error) = self.rules.serve(before, broker)
        {
            tracing::error!(
                event = "firewall_failed",
                "go back to the rules before the reload: {error}"
            );
        }
    }

    /// Puts what was prepared in force. The snapshot of the new configuration has been published, to the engine too.
    pub fn commit(&mut self, prepared: Prepared, config: &Config, broker: &Broker) {
        self.services = prepared.services;
        let Some(running) = &self.running else { return };
        for (name, ifindex, sockets) in prepared.sockets {
            running.engine.add_interface(ifindex, sockets);
            self.served.insert(name, ifindex);
        }
        self.shrink(config, broker);
        self.adopt_picture(config, broker);
    }

    /// Takes out of force what neither the configuration nor a live flow needs any more.
    fn shrink(&mut self, config: &Config, broker: &Broker) {
        let Some(running) = &self.running else { return };
        let services = &self.services;
        let in_use = if demand::leftovers(services, self.rules.in_force()).is_empty() {
            std::collections::HashSet::new()
        } else {
            running.engine.in_use()
        };
        let kept = demand::kept(config, services, self.rules.in_force(), &in_use);
        let needed = demand::union(services, &kept);
        if needed != self.rules.in_force()
            && let Err(error) = self.rules.serve(needed, broker)
        {
            tracing::error!(
                event = "firewall_failed",
                "take out rules that are no longer needed: {error}; trying again in {UPKEEP:?}"
            );
        }
        let wanted = demand::wanted(config, self.rules.in_force());
        if let Some(running) = &mut self.running {
            running.want(wanted);
        }
    }

    /// Looks whether the firewall rules are still what they should be, and mends them.
    pub fn check_rules(&mut self, broker: &Broker) {
        self.rules.check(broker);
    }

    /// Tells the workers that the snapshot has been replaced.
    pub fn snapshot_changed(&self) {
        if let Some(running) = &self.running {
            running.engine.snapshot_changed();
        }
    }

    /// Waits for news; for ever while nothing runs.
    pub async fn news(&mut self) -> News {
        let Some(running) = &mut self.running else {
            return pending().await;
        };
        tokio::select! {
            changed = running.pictures.changed() => match changed {
                Ok(()) => News::Picture,
                // the follower has ended; its last picture stays
                Err(_) => pending().await,
            },
            event = running.events.recv() => match event {
                Some(event) => News::Engine(event),
                None => pending().await,
            },
        }
    }

    /// Acts on news.
    pub fn heed(&mut self, news: &News, config: &Config, broker: &Broker) {
        if let News::Engine(raw::Event::InterfaceLost(ifindex)) = news {
            let lost = self.served.iter().find(|(_, index)| *index == ifindex);
            if let Some(name) = lost.map(|(name, _)| name.clone()) {
                self.served.remove(&name);
                release(&name, broker);
                tracing::warn!(event = "interface_lost", interface = %name, "interface {name} has vanished");
            }
        }
        self.adopt_picture(config, broker);
    }

    /// Hands next hops on, serves interfaces that are needed now and no others, and says which VIPs wait.
    fn adopt_picture(&mut self, config: &Config, broker: &Broker) {
        let picture = self.picture();
        let Some(running) = &self.running else { return };
        running.engine.set_hops(Arc::clone(&picture.hops));
        let needed = demand::interfaces(config, self.rules.in_force(), &picture);
        let gone: Vec<String> = (self.served.iter())
            .filter(|(name, ifindex)| needed.get(*name) != Some(ifindex))
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            if let Some(ifindex) = self.served.remove(&name) {
                running.engine.remove_interface(ifindex);
                release(&name, broker);
                tracing::info!(event = "interface_left", interface = %name, "no longer serving interface {name}");
            }
        }
        let engine = Arc::clone(&running.engine);
        for (name, ifindex) in &needed {
            if self.served.contains_key(name) {
                continue;
            }
            match self.open(name, broker) {
                Ok(sockets) => {
                    engine.add_interface(*ifindex, sockets);
                    self.refused.remove(name);
                    self.served.insert(name.clone(), *ifindex);
                    tracing::info!(event = "interface_served", interface = %name, "serving interface {name}");
                }
                Err(error) => {
                    let why = error.to_string();
                    if self.refused.get(name) != Some(&why) {
                        tracing::error!(event = "interface_refused", interface = %name, "cannot serve interface {name}: {why}");
                        self.refused.insert(name.clone(), why);
                    }
                }
            }
        }
        self.vips
            .update(demand::vip_states(config, &picture, &self.served));
    }

    /// What has to be done now and then: to give up what no flow uses any more, and to try again what failed.
    pub fn keep_up(&mut self, config: &Config, broker: &Broker) {
        if self.rules.in_force() != self.services {
            self.shrink(config, broker);
        }
        if !self.refused.is_empty() {
            self.adopt_picture(config, broker);
        }
        if self.rules.are_due() {
            self.rules.check(broker);
        }
    }

    /// Ends the engine's threads. Rules stay until the broker takes them out.
    pub fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.engine.stop();
        }
    }

    async fn start(
        &mut self,
        config: &Config,
        snapshot: &Arc<ArcSwap<Snapshot>>,
        wanted: Wanted,
    ) -> Result<(), PacketsError> {
        let running = match &mut self.running {
            Some(running) if running.wanted == wanted => return Ok(()),
            Some(running) => {
                running.want(wanted);
                running
            }
            None => {
                let (events_tx, events) = mpsc::channel(EVENTS);
                let follower = Follower::start(wanted.clone()).map_err(PacketsError::Follow)?;
                let settings = raw::Settings {
                    workers: self.workers,
                    first_shard: self.first_shard,
                    max_flows: config.packet.max_flows,
                };
                let engine = Engine::start(
                    &settings,
                    Arc::clone(snapshot),
                    events_tx,
                    sandbox::confine_packet_thread,
                )
                .map_err(PacketsError::Engine)?;
                let pictures = follower.pictures();
                self.running.insert(Running {
                    engine: Arc::new(engine),
                    follower,
                    wanted,
                    pictures,
                    events,
                })
            }
        };
        // a server whose host is down is never resolved: it is not waited for longer than this
        let _ = timeout(RESOLVE_WAIT, running.resolved()).await;
        Ok(())
    }

    /// Sockets for interfaces that the configuration needs and that are not served; on an error with those that could
    /// be had.
    fn open_missing(&self, config: &Config, broker: &Broker) -> Result<Sockets, (Sockets, BrokerError)> {
        let needed = demand::interfaces(config, self.rules.in_force(), &self.picture());
        let mut opened = Sockets::new();
        for (name, ifindex) in needed {
            if self.served.contains_key(&name) {
                continue;
            }
            match self.open(&name, broker) {
                Ok(sockets) => opened.push((name, ifindex, sockets)),
                Err(error) => return Err((opened, error)),
            }
        }
        Ok(opened)
    }

    fn check_ports(&self, config: &Config) -> Result<(), PacketsError> {
        let warning = firewall::check_ephemeral(self.rules.record(), config.packet.nat_ports)
            .map_err(|error| PacketsError::Ports(error.to_string()))?;
        if let Some(warning) = warning {
            tracing::warn!(event = "few_ports", "{warning}");
        }
        Ok(())
    }

    fn open(&self, interface: &str, broker: &Broker) -> Result<Vec<OwnedFd>, BrokerError> {
        let sockets: Result<Vec<_>, _> = (0..self.workers)
            .map(|_| broker.packet_socket(interface))
            .collect();
        if sockets.is_err() {
            release(interface, broker);
        }
        sockets
    }
}

/// Has the broker close its duplicates of an interface's sockets: as long as it holds them they are members of the
/// fanout group, and what the kernel gives them is lost.
fn release(interface: &str, broker: &Broker) {
    if let Err(error) = broker.release_packet_sockets(interface) {
        tracing::error!(event = "interface_kept", interface = %interface, "release interface {interface}: {error}");
    }
}
