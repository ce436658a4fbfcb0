//! The server that a client's network has had before.

use std::{net::IpAddr, time::Instant};

use crate::{
    balance::{StickyBounds, StickyKey, StickyTable, StuckTo},
    snapshot::{BackendView, ServerView},
};

/// Where a connection looks for the server of its client's network, and notes the one that it gets.
pub struct Stick<'a> {
    table: &'a StickyTable,
    key: StickyKey,
    bounds: StickyBounds,
    now: Instant,
}

impl<'a> Stick<'a> {
    /// `None`: nothing sticks in this backend. `round` is that of the servers that are offered.
    pub fn of(backend: &'a BackendView, round: usize, client: IpAddr) -> Option<Self> {
        let sticky = backend.config.sticky?;
        Some(Self {
            table: backend.live.sticky(),
            key: StickyKey {
                network: sticky.network(client),
                // there are as many as classes of names
                class: u16::try_from(round).unwrap_or(u16::MAX),
            },
            bounds: StickyBounds {
                ttl: sticky.ttl,
                max_entries: usize::try_from(sticky.max_entries.get()).unwrap_or(usize::MAX),
            },
            now: Instant::now(),
        })
    }

    /// The index of the server that it sticks to, if that is still there and can be chosen.
    pub fn server(&self, backend: &BackendView) -> Option<usize> {
        let StuckTo { name, addr } = self.table.get(&self.key, self.bounds, self.now)?;
        let index = backend.index(name.as_str())?;
        let server = backend.servers.get(index)?;
        (server.addr == addr && server.is_eligible()).then_some(index)
    }

    /// Has it stick to a server from now on, if there is room for it.
    pub fn to(self, server: &ServerView) {
        let server = StuckTo {
            name: server.name.clone(),
            addr: server.addr,
        };
        // that there is none, the table counts
        self.table.stick(self.key, server, self.bounds, self.now);
    }
}
