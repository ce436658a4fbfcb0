//! A passthrough flow of the program's maps, as the path looks at it: what it changes, the program does.

use std::{net::IpAddr, sync::Arc};

use super::{
    flow_map::life,
    keys::origin_key,
    layout::OrderKind,
    nat_map::{FoundFlow, NatMap},
};
use crate::{
    base::AccessReason,
    flow::{
        FlowInfo, FlowTarget, Moment, Services,
        stored::{FlowEntry, Key, NatEntry, Observed, ReturnOrigin, ReturnPath, Segment, Side},
    },
};

/// See the [module](self).
#[derive(Debug)]
pub struct NatMapEntry {
    nat: Arc<NatMap>,
    found: FoundFlow,
    /// The program has just found that its client holds its share of NAT ports.
    is_share_full: bool,
}

impl NatMapEntry {
    /// Of a flow of these maps.
    #[must_use]
    pub const fn new(nat: Arc<NatMap>, found: FoundFlow) -> Self {
        Self {
            nat,
            found,
            is_share_full: false,
        }
    }

    /// When it is forgotten if nothing comes.
    #[must_use]
    pub fn expires(&self) -> Moment {
        self.found.flow.expires()
    }

    /// Ends it.
    pub fn end(&self) {
        let FoundFlow { key, begun, .. } = &self.found;
        self.nat.end(key, *begun);
    }

    /// Counts it for its client, which has proven to be who it says, until it is over. Its client's share of NAT ports the
    /// program has counted.
    ///
    /// # Errors
    /// The client is at a limit: the flow must end.
    pub fn count(&self, client: IpAddr, now: Moment) -> Result<(), AccessReason> {
        if self.is_share_full {
            return Err(AccessReason::ClientPorts);
        }
        let FoundFlow { key, begun, flow } = &self.found;
        let Some(access) = flow.target.access() else {
            return Ok(());
        };
        let take = || access.count(client, now.0);
        self.nat.aside.count(*key, *begun, take)
    }

    /// Lets its replies go back to where its client sends from, and that way be followed: of what the program lets go back by
    /// itself, the next scan finds the ways.
    pub fn follow(&mut self, origin: ReturnOrigin, client: IpAddr) {
        if self.found.flow.back.origin != origin {
            let FoundFlow { key, begun, .. } = &self.found;
            let _ = self.nat.order(key, *begun, OrderKind::Move(origin_key(&origin)));
        }
        // it is left again when a scan finds no flow that uses it
        self.found.flow.back = self.nat.returns.enter(origin, client);
    }
}

impl FlowEntry for NatMapEntry {
    fn target(&self) -> &Arc<FlowTarget> {
        &self.found.flow.target
    }

    fn renew(&mut self, key: &Key, services: &Services) {
        self.found.flow.renew(key, services);
    }

    fn can_reopen(&self) -> bool {
        self.found.flow.can_reopen()
    }

    fn info(&self, key: &Key, now: Moment) -> FlowInfo {
        self.found.flow.info(key, now)
    }
}

impl NatEntry for NatMapEntry {
    fn reverse(&self) -> &Key {
        &self.found.flow.reverse
    }

    fn back(&self) -> &ReturnPath {
        &self.found.flow.back
    }

    /// The program takes the packet in, and counts what it shows of the handshake.
    fn observe(&mut self, side: Side, segment: &Segment, _: Moment) -> Observed {
        let FoundFlow { key, begun, .. } = &self.found;
        let shown = self.nat.order(key, *begun, OrderKind::Observe(side, *segment));
        self.is_share_full = shown.is_share_full;
        if self.nat.aside.has(key) {
            let now = self.nat.forward(key).filter(|now| now.begun == *begun);
            if now.is_none_or(|now| life(now.state).can_reopen()) {
                self.nat.aside.give_back(key);
            }
        }
        Observed {
            is_proven: shown.is_proven || shown.is_share_full,
            handshake: None,
        }
    }

    fn proves_path(&self, segment: &Segment) -> bool {
        self.found.flow.proves_path(segment)
    }

    fn is_under_way(&self, side: Side, sequence: u32) -> bool {
        self.found.flow.is_under_way(side, sequence)
    }

    fn allows_error(&mut self, now: Moment) -> bool {
        self.nat.aside.allows_error(&self.found.key, now)
    }
}
