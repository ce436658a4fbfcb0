//! The server of a backend that a client's network was sent to last.

use std::{net::IpAddr, time::Instant};

use super::{BackendView, Offered};
use crate::balance::{StickyBounds, StickyKey, StuckTo};

impl BackendView {
    /// Under what a client is remembered, for how long, and among how many; `None`: nothing sticks here.
    #[must_use]
    pub fn sticky(&self, offered: Offered, client: IpAddr) -> Option<(StickyKey, StickyBounds)> {
        let sticky = self.config.sticky?;
        let (.., round) = self.chooser(offered);
        let key = StickyKey {
            network: sticky.network(client),
            // there are as many as classes of names
            class: u16::try_from(round).unwrap_or(u16::MAX),
        };
        let bounds = StickyBounds {
            ttl: sticky.ttl,
            max_entries: usize::try_from(sticky.max_entries.get()).unwrap_or(usize::MAX),
        };
        Some((key, bounds))
    }

    /// The index of a server that somebody sticks to, if it is still there, among those offered and eligible.
    #[must_use]
    pub fn index_of_stuck(&self, offered: Offered, to: &StuckTo) -> Option<usize> {
        let index = self.index(to.name.as_str())?;
        let server = self.servers.get(index)?;
        let is_there = server.addr == to.addr && server.is_eligible() && self.offers(offered, index);
        is_there.then_some(index)
    }

    /// The index of the server that a client would be sent to because its network was there before. It is no use of it.
    #[must_use]
    pub fn would_stick_to(&self, offered: Offered, client: IpAddr, now: Instant) -> Option<usize> {
        let (key, bounds) = self.sticky(offered, client)?;
        let to = self.live.sticky().peek(&key, bounds.ttl, now)?;
        self.index_of_stuck(offered, &to)
    }
}
