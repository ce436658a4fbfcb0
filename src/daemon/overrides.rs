//! The operator's overrides.

use std::time::Instant;

use super::Control;
use crate::{
    admin::{
        lookup, render,
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
            return Err(Problem {
                status: 409,
                message: format!(
                    "server {key} is the last eligible server of backend {}: without it, new connections are refused. \
                     Repeat with --force (API: \"force\": true) to override",
                    key.backend
                ),
            });
        }
        tracing::info!(
            event = "server_override",
            backend = %key.backend,
            server = %key.server,
            "operator: server {key}: {action}"
        );
        self.state.set_override(&key, overridden);
        self.saved.follow(self.state.pools());
        // not in the next window: the answer shows it
        self.publish();
        let (_, server) = lookup::find_server(self.state.snapshot(), backend, server)?;
        Ok(render::state_of(server, Instant::now()))
    }
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
