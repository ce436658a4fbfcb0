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

use super::{Event, lock};
use crate::flow::{Flows, Hops, Moment, Services};

/// Shared by the workers.
pub struct Shared {
    /// The tables.
    pub flows: Arc<Flows>,
    /// What is served now.
    pub services: ArcSwap<Services>,
    /// The next hops now.
    pub hops: ArcSwap<Hops>,
    /// Rises whenever one of these two is replaced.
    version: AtomicU64,
    /// Interfaces served now: the first worker that misses one tells of it.
    interfaces: Mutex<BTreeSet<u32>>,
    events: Sender<Event>,
    start: Instant,
}

impl Shared {
    /// At the start: no interfaces, no hops.
    pub fn new(flows: Arc<Flows>, services: Services, events: Sender<Event>) -> Self {
        Self {
            flows,
            services: ArcSwap::from_pointee(services),
            hops: ArcSwap::default(),
            version: AtomicU64::new(1),
            interfaces: Mutex::default(),
            events,
            start: Instant::now(),
        }
    }

    /// Time since the engine started.
    pub fn now(&self) -> Moment {
        Moment(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// The number of what is in force; never 0.
    pub fn version(&self) -> u64 {
        // Acquire: who sees the number sees what was stored before it rose
        self.version.load(Ordering::Acquire)
    }

    /// Puts services in force.
    pub fn set_services(&self, services: Services) {
        self.services.store(Arc::new(services));
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Puts next hops in force.
    pub fn set_hops(&self, hops: Arc<Hops>) {
        self.hops.store(hops);
        self.version.fetch_add(1, Ordering::Release);
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
    pub fn tell(&self, event: Event) -> bool {
        !matches!(self.events.try_send(event), Err(TrySendError::Full(_)))
    }
}
