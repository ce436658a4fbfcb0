//! The server that a client's network has had before.

use std::{net::IpAddr, time::Instant};

use crate::{
    balance::{StickyBounds, StickyKey, StickyTable, StuckTo},
    snapshot::{BackendView, Offered, ServerView},
};

/// Where a connection looks for the server of its client's network, and notes the one that it gets.
pub struct Stick<'a> {
    table: &'a StickyTable,
    key: StickyKey,
    bounds: StickyBounds,
    now: Instant,
}

impl<'a> Stick<'a> {
    /// `None`: nothing sticks in this backend.
    pub fn of(backend: &'a BackendView, offered: Offered, client: IpAddr) -> Option<Self> {
        let (key, bounds) = backend.sticky(offered, client)?;
        Some(Self {
            table: backend.live.sticky(),
            key,
            bounds,
            now: Instant::now(),
        })
    }

    /// The index of the server that it sticks to, if that is still there and can be chosen.
    pub fn server(&self, backend: &BackendView, offered: Offered) -> Option<usize> {
        let to = self.table.get(&self.key, self.bounds, self.now)?;
        backend.index_of_stuck(offered, &to)
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
