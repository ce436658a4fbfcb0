//! Which VIPs are live, as it was last said.

use std::collections::{BTreeMap, BTreeSet};

use super::demand::{Vip, VipState};
use crate::base::EndpointRange;

/// The VIPs of the configuration in effect.
#[derive(Debug, Default)]
pub struct Vips {
    states: BTreeMap<EndpointRange, Vip>,
    waiting: String,
}

impl Vips {
    /// Their states.
    #[must_use]
    pub const fn states(&self) -> &BTreeMap<EndpointRange, Vip> {
        &self.states
    }

    /// Names of the frontends that wait for one of theirs, in words; empty if none does.
    #[must_use]
    pub fn waiting(&self) -> &str {
        &self.waiting
    }

    /// Takes their states, and logs those that have changed.
    pub fn update(&mut self, states: BTreeMap<EndpointRange, Vip>) {
        for (range, vip) in &states {
            if self.states.get(range) == Some(vip) {
                continue;
            }
            let (frontend, addr) = (&vip.frontend, range.listen);
            match &vip.state {
                VipState::Live => tracing::info!(
                    event = "vip_live", frontend = %frontend,
                    "frontend {frontend}: {addr} is live"
                ),
                VipState::Waiting { why, .. } => tracing::warn!(
                    event = "vip_waiting", frontend = %frontend,
                    "frontend {frontend}: {addr} is waiting: {why}"
                ),
            }
        }
        let waiting: BTreeSet<&str> = (states.values())
            .filter(|vip| matches!(vip.state, VipState::Waiting { .. }))
            .map(|vip| vip.frontend.as_str())
            .collect();
        self.waiting = Vec::from_iter(waiting).join(", ");
        self.states = states;
    }
}
