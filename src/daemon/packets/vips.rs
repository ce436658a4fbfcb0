//! Which VIPs are live, as it was last said.

use std::collections::{BTreeMap, BTreeSet};

use super::demand::{VipKey, VipState};

/// The VIPs of the configuration in effect.
#[derive(Debug, Default)]
pub struct Vips {
    states: BTreeMap<VipKey, VipState>,
    waiting: String,
}

impl Vips {
    /// Their states.
    #[must_use]
    pub const fn states(&self) -> &BTreeMap<VipKey, VipState> {
        &self.states
    }

    /// Names of the frontends that wait for one of theirs, in words; empty if none does.
    #[must_use]
    pub fn waiting(&self) -> &str {
        &self.waiting
    }

    /// Takes their states, and logs those that have changed.
    pub fn update(&mut self, states: BTreeMap<VipKey, VipState>) {
        for (key, state) in &states {
            if self.states.get(key) == Some(state) {
                continue;
            }
            let (frontend, vip) = (&key.frontend, key.vip);
            match state {
                VipState::Live => tracing::info!(
                    event = "vip_live", frontend = %frontend,
                    "frontend {frontend}: {vip} is live"
                ),
                VipState::Waiting { why, .. } => tracing::warn!(
                    event = "vip_waiting", frontend = %frontend,
                    "frontend {frontend}: {vip} waits: {why}"
                ),
            }
        }
        let waits = |(key, state): (&VipKey, &VipState)| {
            matches!(state, VipState::Waiting { .. }).then(|| key.frontend.as_str().to_owned())
        };
        let waiting: BTreeSet<String> = states.iter().filter_map(waits).collect();
        self.waiting = Vec::from_iter(waiting).join(", ");
        self.states = states;
    }
}
