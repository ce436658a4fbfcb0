//! Who may not use the control socket although its user may: the commands that Convey runs.

use axum::{
    Router,
    extract::Request,
    http::StatusCode,
    middleware::{Next, from_fn},
    response::IntoResponse as _,
};

use super::{caller::Caller, shares::Peer, views::Problem};
use crate::{client::runner::Runner, sys::ids};

/// What a command is answered.
const REFUSAL: &str = "commands that convey runs may not use its control socket: have the command tell a process of another user";

/// Routes that answer no command. The file system cannot tell: they run as the user that the socket belongs to.
pub(super) fn without_commands(routes: Router, runner: Runner) -> Router {
    routes.layer(from_fn(move |request: Request, next: Next| {
        let runner = runner.clone();
        async move {
            if is_command(
                &runner,
                request.extensions().get::<Caller>().and_then(Caller::peer),
            )
            .await
            {
                return Problem::new(StatusCode::FORBIDDEN, REFUSAL).into_response();
            }
            next.run(request).await
        }
    }))
}

async fn is_command(runner: &Runner, peer: Option<Peer>) -> bool {
    // no command can become another user
    let ours = peer.filter(|peer| peer.uid == ids::user());
    match ours.and_then(|peer| u32::try_from(peer.pid?).ok()) {
        Some(process) => runner.is_command(process).await,
        None => false,
    }
}
