//! The addresses that are listened on, and what a reload has to add and remove.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::OwnedFd,
};

use crate::{
    base::ListenAddr,
    config::Config,
    privilege::{Broker, BrokerError, ListenerRef},
};

/// Addresses of frontends that workers accept on.
#[derive(Debug, Default)]
pub struct Listeners(BTreeSet<ListenAddr>);

/// Sockets made for a configuration that is not in force yet; dropping it closes them.
#[derive(Debug)]
pub struct Prepared {
    /// New addresses with a socket for each worker.
    pub added: BTreeMap<ListenAddr, Vec<OwnedFd>>,
    /// Addresses that the configuration no longer has.
    pub removed: Vec<ListenAddr>,
}

impl Listeners {
    /// Binds what `config` has and we have not. Addresses that stay are not touched, whatever frontend has them.
    ///
    /// # Errors
    /// The first address that could not be bound; nothing is left bound.
    pub fn prepare(&self, config: &Config, broker: &Broker, workers: usize) -> Result<Prepared, BrokerError> {
        let wanted: BTreeMap<ListenAddr, ListenerRef> = config
            .frontends
            .values()
            .filter(|f| !f.mode.is_packet())
            .flat_map(|f| {
                f.listen
                    .iter()
                    .map(|addr| (*addr, ListenerRef::frontend(&f.name, *addr)))
            })
            .collect();
        let mut added = BTreeMap::new();
        for (addr, reference) in &wanted {
            if !self.0.contains(addr) {
                let sockets = (0..workers)
                    .map(|_| broker.bind(reference))
                    .collect::<Result<Vec<_>, _>>()?;
                added.insert(*addr, sockets);
            }
        }
        let removed = self
            .0
            .iter()
            .filter(|addr| !wanted.contains_key(addr))
            .copied()
            .collect();
        Ok(Prepared { added, removed })
    }

    /// Notes an address that is listened on now.
    pub fn insert(&mut self, addr: ListenAddr) {
        self.0.insert(addr);
    }

    /// Notes an address that is no longer listened on.
    pub fn remove(&mut self, addr: ListenAddr) {
        self.0.remove(&addr);
    }

    /// Takes all addresses out.
    pub fn take_all(&mut self) -> Vec<ListenAddr> {
        std::mem::take(&mut self.0).into_iter().collect()
    }
}
