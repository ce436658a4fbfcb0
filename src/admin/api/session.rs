//! Sessions of browsers: who somebody is, logging in and out.

use std::time::Instant;

use aws_lc_rs::rand;
use axum::{Json, http::StatusCode, response::Response};
use schemars::{Schema, SchemaGenerator};

use super::{
    answer::Answer,
    ask::Ask,
    context::{ApiContext, log_request},
};
use crate::admin::{
    auth::{self, SessionId},
    caller::{Caller, Login},
    views::{EntryBy, Problem, Session},
};

/// Who the asker is, and what the browser shall keep of it from now on.
pub struct WithCookie {
    answer: Session,
    /// `None`: nothing.
    keep: Option<SessionId>,
}

impl Answer for WithCookie {
    const MEDIA: &'static str = "application/json";

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<Session>()
    }

    fn into_response(self) -> Response {
        let mut response = Answer::into_response(Json(self.answer));
        // whoever stands before the routes knows of which form the cookie is
        response.extensions_mut().insert(auth::Keep(self.keep));
        response
    }
}

/// Who asks, and what they may do.
pub async fn session(_context: ApiContext, ask: Ask) -> Result<Json<Session>, Problem> {
    Ok(Json(session_of(&ask.caller)))
}

/// Begins the session of a token that is presented.
pub async fn log_in(context: ApiContext, ask: Ask) -> Result<WithCookie, Problem> {
    let Caller::Token {
        login: Login::Token(token),
        ..
    } = ask.caller
    else {
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "there is nothing to log in with: sessions are begun with Authorization: Bearer TOKEN, where [admin] has a tokens_file",
        ));
    };
    let mut random = [0; auth::SESSION_BYTES];
    rand::fill(&mut random)
        .map_err(|_| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the system has no randomness"))?;
    let id = SessionId::new(random);
    if !context.sessions().begin(&id, token, Instant::now()) {
        return Err(Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            "this token has logged in too often of late: try again in a minute, or send it with each request",
        ));
    }
    log_request(&ask.caller, "log in");
    Ok(WithCookie {
        answer: session_of(&ask.caller),
        keep: Some(id),
    })
}

/// Ends the session that asks, if one does.
pub async fn log_out(context: ApiContext, ask: Ask) -> Result<WithCookie, Problem> {
    if let Caller::Token {
        login: Login::Session(session),
        ..
    } = ask.caller
    {
        context.sessions().end(session);
        log_request(&ask.caller, "log out");
    }
    Ok(WithCookie {
        answer: session_of(&ask.caller),
        keep: None,
    })
}

fn session_of(caller: &Caller) -> Session {
    let (token, entry) = match caller {
        Caller::Local(_) => (None, EntryBy::Socket),
        Caller::Anybody | Caller::Loopback { .. } => (None, EntryBy::Loopback),
        Caller::Token { name, login, .. } => {
            let entry = match login {
                Login::Token(_) => EntryBy::Token,
                Login::Session(_) => EntryBy::Session,
            };
            (Some(name.to_string()), entry)
        }
    };
    Session {
        role: caller.role().into(),
        token,
        entry: entry.into(),
    }
}
