//! The servers of a backend by the host names that they serve (`sni` of a server).

use std::{cmp::Reverse, sync::Arc};

use super::BackendView;
use crate::{balance::Balancer, base::HostPattern};

/// The servers of a backend that have one `sni`, or none.
#[derive(Debug)]
pub struct NameClass {
    /// That `sni`; empty: they serve the names that no other does.
    pub sni: Arc<[HostPattern]>,
    /// The choice among them, by indexes of the backend's servers. Priority groups count among them alone.
    pub balancer: Arc<Balancer>,
    /// The generation that `balancer` was built in.
    pub balancer_generation: u64,
    /// How many of them can be chosen.
    pub eligible: usize,
}

/// Which servers of a backend a connection may get.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Offered {
    /// All of them.
    #[default]
    All,
    /// Those of a class, by its index.
    Class(u16),
}

impl BackendView {
    /// Whether its servers differ in the names that they serve.
    #[must_use]
    pub fn has_names(&self) -> bool {
        !self.names.is_empty()
    }

    /// The class of the servers that serve a name: the one whose pattern names it most exactly.
    #[must_use]
    pub fn class_of(&self, name: &str) -> Option<Offered> {
        let matching = self.names.iter().enumerate().filter_map(|(index, class)| {
            let patterns = class.sni.iter().filter(|pattern| pattern.matches(name));
            Some((patterns.map(HostPattern::exactness).max()?, index))
        });
        // of two alike the first
        let (_, index) = matching.max_by_key(|(exactness, index)| (*exactness, Reverse(*index)))?;
        offered(index)
    }

    /// The servers that have no `sni`, if there are any.
    #[must_use]
    pub fn unnamed(&self) -> Option<Offered> {
        offered(self.names.iter().position(|class| class.sni.is_empty())?)
    }

    /// The choice among the servers that are offered, the generation that it was made in, and the number of its round.
    #[must_use]
    pub fn chooser(&self, offered: Offered) -> (&Balancer, u64, usize) {
        match offered {
            Offered::Class(index) if usize::from(index) < self.names.len() => {
                let class = &self.names[usize::from(index)];
                (&class.balancer, class.balancer_generation, usize::from(index) + 1)
            }
            Offered::All | Offered::Class(_) => (&self.balancer, self.balancer_generation, 0),
        }
    }

    /// Whether a server, by its index, is among those that are offered.
    #[must_use]
    pub fn offers(&self, offered: Offered, server: usize) -> bool {
        match offered {
            Offered::All => true,
            Offered::Class(class) => self
                .servers
                .get(server)
                .is_some_and(|server| server.class == class),
        }
    }

    /// How many of the servers that are offered can be chosen.
    #[must_use]
    pub fn eligible(&self, offered: Offered) -> usize {
        match offered {
            Offered::All => self.counts.eligible,
            Offered::Class(index) => self
                .names
                .get(usize::from(index))
                .map_or(0, |class| class.eligible),
        }
    }
}

fn offered(class: usize) -> Option<Offered> {
    u16::try_from(class).ok().map(Offered::Class)
}
