//! The parts of the packet modes that exist once a configuration needs them.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};

use super::demand;
use crate::{
    config::EngineChoice,
    engine::{
        Engine, EngineEvent,
        network::{Follower, NetworkState, Wanted},
    },
};

/// How long a reload waits for the engine's program to take it: it takes milliseconds.
const APPLY_WAIT: Duration = Duration::from_secs(10);

/// See the [module](self).
pub struct Running {
    pub engine: Arc<Engine>,
    /// Which that is, and why.
    pub choice: (EngineChoice, Arc<str>),
    pub follower: Follower,
    /// What it follows.
    pub wanted: Wanted,
    pub network_states: watch::Receiver<Arc<NetworkState>>,
    pub events: mpsc::Receiver<EngineEvent>,
}

impl Running {
    /// Waits until the way to every server is known, or known not to exist.
    pub async fn resolved(&mut self) {
        loop {
            let settled = demand::is_resolved(&self.wanted, &self.network_states.borrow_and_update());
            if settled || self.network_states.changed().await.is_err() {
                return;
            }
        }
    }

    /// Waits until there is a network state about what is wanted now.
    pub async fn followed(&mut self) {
        while *self.network_states.borrow_and_update().wanted != self.wanted {
            if self.network_states.changed().await.is_err() {
                return;
            }
        }
    }

    /// Waits until new flows are decided by what has been put in force.
    pub async fn applied(&self) {
        if timeout(APPLY_WAIT, self.engine.applied()).await.is_err() {
            tracing::error!(
                event = "xdp_late",
                "the program in the kernel has not taken the configuration within {APPLY_WAIT:?}; it still may"
            );
        }
    }

    /// Has the follower follow.
    pub fn want(&mut self, wanted: Wanted) {
        if self.wanted != wanted {
            self.follower.want(wanted.clone());
            self.wanted = wanted;
        }
    }
}
