//! The operator's orders about servers.

use std::time::Instant;

use super::control::Control;
use crate::{
    admin::{
        lookup, render,
        views::{self, Problem, ServerAction},
    },
    base::ServerKey,
    snapshot::AdminState,
};

impl Control {
    /// Carries out `convey server …`.
    ///
    /// # Errors
    /// There is no such backend or server.
    pub(super) fn override_server(
        &mut self,
        backend: &str,
        server: &str,
        action: ServerAction,
    ) -> Result<views::Server, Problem> {
        let snapshot = self.snapshot.load_full();
        let (backend_view, server_view) = lookup::find_server(&snapshot, backend, server)?;
        let key = ServerKey {
            backend: backend_view.config.name.clone(),
            server: server_view.name.clone(),
        };
        let wish = self.inputs.overrides.entry(key.clone()).or_default();
        match action {
            ServerAction::Drain => wish.admin = Some(AdminState::Draining),
            ServerAction::Maintenance => wish.admin = Some(AdminState::Maintenance),
            ServerAction::Weight { weight } => wish.weight = Some(weight),
            ServerAction::Ready => {
                self.inputs.overrides.remove(&key);
            }
        }
        tracing::info!(
            event = "server_override",
            backend = %key.backend,
            server = %key.server,
            "operator: server {key}: {}",
            describe(action)
        );
        // maintenance stops its checks, and the end of it starts them
        self.checker.apply(&self.config, &mut self.inputs);
        self.publish();
        let snapshot = self.snapshot.load();
        let (backend, server) = lookup::find_server(&snapshot, backend, server)?;
        Ok(render::server(
            backend,
            server,
            &self.inputs.overrides,
            Instant::now(),
        ))
    }

    /// Forgets the overrides of servers that are no longer configured.
    pub(super) fn prune_overrides(&mut self) {
        let config = &self.config;
        self.inputs.overrides.retain(|key, _| {
            config
                .backends
                .get(&key.backend)
                .is_some_and(|b| b.servers.contains_key(&key.server))
        });
    }
}

fn describe(action: ServerAction) -> String {
    match action {
        ServerAction::Drain => "drain".to_owned(),
        ServerAction::Maintenance => "maintenance".to_owned(),
        ServerAction::Ready => "ready".to_owned(),
        ServerAction::Weight { weight } => format!("weight {weight}"),
    }
}
