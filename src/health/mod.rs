//! Active health checks: one task for each server, results to the daemon.

pub mod machine;

use tokio::sync::mpsc;

use crate::{
    base::{ServerAddr, ServerKey},
    config::Config,
    snapshot::{Health, Inputs},
};

/// A server's health as its task sees it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthUpdate {
    /// The server.
    pub key: ServerKey,
    /// The address that was checked: an update for an address that is no longer configured is stale.
    pub addr: ServerAddr,
    /// Its new health.
    pub health: Health,
    /// Whether up/down/checking changed (else only the reason's text did).
    pub changed: bool,
}

/// The running checks. Lives on the control thread's runtime.
#[derive(Debug)]
pub struct Checker {
    updates: mpsc::Sender<HealthUpdate>,
}

impl Checker {
    /// No checks yet; results will go to `updates`.
    #[must_use]
    pub fn new(updates: mpsc::Sender<HealthUpdate>) -> Self {
        Self { updates }
    }

    /// Starts, changes and stops tasks so that exactly the servers of `config` are checked, those in maintenance
    /// (`inputs.overrides`) excepted. Servers whose address and check did not change keep their state.
    /// Removes what is stale from `inputs.health` and adds initial states.
    pub fn apply(&mut self, config: &Config, inputs: &mut Inputs) {
        let _ = (config, inputs, &self.updates);
        todo!()
    }

    /// Resolves when every running check has had its first result.
    pub async fn first_round(&self) {
        todo!()
    }

    /// A connect of real traffic failed `max_failures` times in a row: ejects the server for a growing time, if its
    /// backend has a passive check.
    pub fn passive_failure(&mut self, key: &ServerKey) {
        let _ = key;
        todo!()
    }
}
