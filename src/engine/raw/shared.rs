//! What the workers share with each other and with the engine's owner.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use arc_swap::ArcSwap;
use tokio::sync::mpsc::{Sender, error::TrySendError};

use super::{super::EngineEvent, lock};
use crate::flow::{FlowStore, Flows, Hops, Moment, Services};

/// Numbers of what is in effect, never 0. A worker takes what has another number than its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Versions<T> {
    /// Of the services.
    pub services: T,
    /// Of the next hops.
    pub hops: T,
}

/// Shared by the workers.
pub struct EngineState<S> {
    /// The tables.
    pub flows: Arc<Flows<S>>,
    /// What is served now.
    pub services: ArcSwap<Services>,
    /// The next hops now.
    pub hops: ArcSwap<Hops>,
    /// Rise whenever one of these two is replaced.
    versions: Versions<AtomicU64>,
    /// Interfaces served now: the first worker that misses one tells of it.
    interfaces: Mutex<BTreeSet<u32>>,
    events: Sender<EngineEvent>,
    start: Instant,
}

impl<S: FlowStore> EngineState<S> {
    /// At the start, which is [`Moment`] 0: no interfaces, no hops.
    pub fn new(
        flows: Arc<Flows<S>>,
        services: Services,
        events: Sender<EngineEvent>,
        start: Instant,
    ) -> Self {
        Self {
            flows,
            services: ArcSwap::from_pointee(services),
            hops: ArcSwap::default(),
            versions: Versions {
                services: AtomicU64::new(1),
                hops: AtomicU64::new(1),
            },
            interfaces: Mutex::default(),
            events,
            start,
        }
    }

    /// Time since the engine started.
    pub fn now(&self) -> Moment {
        Moment(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// The numbers of what is in effect.
    pub fn versions(&self) -> Versions<u64> {
        // Acquire: who sees a number sees what was stored before it rose
        Versions {
            services: self.versions.services.load(Ordering::Acquire),
            hops: self.versions.hops.load(Ordering::Acquire),
        }
    }

    /// Puts services in force.
    pub fn set_services(&self, services: Services) {
        self.services.store(Arc::new(services));
        self.versions.services.fetch_add(1, Ordering::Release);
    }

    /// Puts next hops in force.
    pub fn set_hops(&self, hops: Arc<Hops>) {
        self.hops.store(hops);
        self.versions.hops.fetch_add(1, Ordering::Release);
    }

    /// An interface is served from now on.
    pub fn add_interface(&self, ifindex: u32) {
        lock(&self.interfaces).insert(ifindex);
    }

    /// An interface is not served any more; whether it was.
    pub fn forget_interface(&self, ifindex: u32) -> bool {
        lock(&self.interfaces).remove(&ifindex)
    }

    /// Interfaces served now, by index.
    pub fn interfaces(&self) -> Vec<u32> {
        lock(&self.interfaces).iter().copied().collect()
    }

    /// Tells the engine's owner; whether that worked or can never work.
    pub fn tell(&self, event: EngineEvent) -> bool {
        !matches!(self.events.try_send(event), Err(TrySendError::Full(_)))
    }
}
