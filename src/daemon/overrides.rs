//! The operator's overrides.

use std::time::Instant;

use axum::http::StatusCode;

use super::Control;
use crate::{
    admin::{
        lookup,
        packets::ServerViews,
        render,
        views::{self, Problem, ServerAction, ServerRequest},
    },
    base::ServerKey,
    pools::{AdminState, Override},
};

impl Control {
    /// Carries out `convey server …`.
    ///
    /// # Errors
    /// There is no such backend or server; or it is the last eligible one, and force is not asked for.
    pub(super) fn override_server(
        &mut self,
        backend: &str,
        server: &str,
        request: ServerRequest,
        by: &str,
    ) -> Result<views::Server, Problem> {
        let now = Instant::now();
        let ServerRequest { action, force } = request;
        let (backend_view, server_view) = lookup::find_server(self.state.snapshot(), backend, server)?;
        let key = ServerKey {
            backend: backend_view.config.name.clone(),
            server: server_view.name.clone(),
        };
        let overridden = with(self.state.overridden(&key).unwrap_or_default(), action);
        let is_last = self.state.would_be_the_last(&key, overridden, now);
        if is_last && !force {
            return Err(conflict(format!(
                "server {key} is the last eligible server of backend {}: without it, new connections are refused. \
                 Repeat with --force (API: \"force\": true) to override",
                key.backend
            )));
        }
        tracing::info!(
            event = "server_override",
            backend = %key.backend,
            server = %key.server,
            by,
            "operator: server {key}: {action}"
        );
        self.state.set_override(&key, overridden);
        self.saved.follow(self.state.pools());
        // not in the next window: the answer shows it
        self.publish();
        let (_, server) = lookup::find_server(self.state.snapshot(), backend, server)?;
        Ok(render::state_of(server, Instant::now()))
    }

    /// The same for all servers of a backend.
    ///
    /// # Errors
    /// There is no such backend; or none of its servers would be eligible any more, and force is not asked for.
    pub(super) fn override_backend(
        &mut self,
        backend: &str,
        request: ServerRequest,
        by: &str,
    ) -> Result<views::Backend, Problem> {
        let ServerRequest { action, force } = request;
        let view = lookup::find_backend(self.state.snapshot(), backend)?;
        let name = view.config.name.clone();
        let is_end = match action {
            ServerAction::Drain | ServerAction::Maintenance | ServerAction::Weight { weight: 0 } => true,
            ServerAction::Ready | ServerAction::Weight { .. } => false,
        };
        if is_end && view.counts.eligible > 0 && !force {
            return Err(conflict(format!(
                "backend {name} has no eligible server then: new connections are refused. Send \"force\": true if that is wanted"
            )));
        }
        let keys: Vec<ServerKey> = (view.servers.iter())
            .map(|server| ServerKey {
                backend: name.clone(),
                server: server.name.clone(),
            })
            .collect();
        tracing::info!(
            event = "backend_override",
            backend = %name,
            by,
            "operator: all {} server(s) of backend {name}: {action}",
            keys.len()
        );
        for key in &keys {
            let overridden = with(self.state.overridden(key).unwrap_or_default(), action);
            self.state.set_override(key, overridden);
        }
        self.saved.follow(self.state.pools());
        self.publish();
        let status = self.board.published().load();
        let view = lookup::find_backend(&status.snapshot, name.as_str())?;
        Ok(render::backend(
            &ServerViews::new(&status),
            view,
            status.discovery.get(&name),
            Instant::now(),
        ))
    }

    /// Clears every override, and says which there were.
    pub(super) fn clear_overrides(&mut self, by: &str) -> views::Overrides {
        let cleared = render::overrides(self.state.snapshot());
        if cleared.overrides.is_empty() {
            return cleared;
        }
        tracing::info!(
            event = "overrides_cleared",
            by,
            "operator: all {} override(s) are cleared",
            cleared.overrides.len()
        );
        for one in &cleared.overrides {
            let key = ServerKey {
                backend: one.backend.clone(),
                server: one.server.clone(),
            };
            self.state.set_override(&key, Override::default());
        }
        self.saved.follow(self.state.pools());
        self.publish();
        cleared
    }
}

fn conflict(message: String) -> Problem {
    Problem::new(StatusCode::CONFLICT, message)
}

/// An override after an action.
fn with(before: Override, action: ServerAction) -> Override {
    let admin = |state| Override {
        admin: Some(state),
        ..before
    };
    match action {
        ServerAction::Drain => admin(AdminState::Draining),
        ServerAction::Maintenance => admin(AdminState::Maintenance),
        ServerAction::Ready => Override::default(),
        ServerAction::Weight { weight } => Override {
            weight: Some(weight),
            ..before
        },
    }
}
