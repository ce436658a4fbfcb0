//! Certificates: those that clients get, and those that are ordered.

use std::time::{Instant, SystemTime};

use axum::{Json, http::StatusCode};

use super::{
    ask::{Ask, Nothing},
    context::{ApiContext, log_request},
};
use crate::{
    admin::{
        AdminCommand, render,
        views::{self, Problem, RenewQuery},
    },
    base::CertificateName,
};

/// Those that clients get.
pub async fn certificates(context: ApiContext, _ask: Ask) -> Result<Json<views::Certificates>, Problem> {
    Ok(Json(render::certificates(
        &context.now().snapshot,
        SystemTime::now(),
    )))
}

/// How they are.
pub async fn acme(context: ApiContext, _ask: Ask) -> Result<Json<views::Acme>, Problem> {
    let status = context.now();
    Ok(Json(render::acme(
        &status.acme,
        Instant::now(),
        SystemTime::now(),
    )))
}

/// Orders one, or all, now.
pub async fn renew(
    context: ApiContext,
    ask: Ask<Nothing, RenewQuery>,
) -> Result<Json<views::Renewing>, Problem> {
    let RenewQuery { name } = ask.query;
    // what is no name exists nowhere, and could break the log's lines
    if let Some(name) = &name {
        name.parse::<CertificateName>().map_err(|error| {
            Problem::new(
                StatusCode::BAD_REQUEST,
                format!("the name of a certificate: {error}"),
            )
        })?;
    }
    log_request(
        &ask.caller,
        &format!("acme renew {}", name.as_deref().unwrap_or("(all)")),
    );
    let command = |reply| AdminCommand::Renew { name, reply };
    let certificates = context.command(command, context.limits().reply).await??;
    Ok(Json(views::Renewing { certificates }))
}
