//! Reload.

use axum::{Json, http::StatusCode};

use super::{
    ask::{Ask, Nothing},
    context::{ApiContext, log_request},
};
use crate::admin::{
    AdminCommand,
    views::{self, Problem, ReloadFailed, ReloadQuery},
};

/// Has the configuration read anew and applied.
pub async fn reload(
    context: ApiContext,
    ask: Ask<Nothing, ReloadQuery>,
) -> Result<Json<views::Reloaded>, Problem> {
    let ReloadQuery { cut } = ask.query;
    log_request(&ask.caller, if cut { "reload --cut" } else { "reload" });
    let by = ask.caller.to_string();
    let command = |reply| AdminCommand::Reload { cut, by, reply };
    let reloaded = context.command(command, context.limits().reload).await?;
    reloaded.map(Json).map_err(failed)
}

/// Nothing has changed.
pub fn failed(failed: ReloadFailed) -> Problem {
    let status = if failed.config_error {
        StatusCode::UNPROCESSABLE_ENTITY
    } else {
        StatusCode::INTERNAL_SERVER_ERROR
    };
    Problem::new(status, failed.message)
}
