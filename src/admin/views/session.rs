//! Who asks.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Word;
use crate::base::{Role, by_label};

/// `GET /v1/session`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Session {
    /// What the asker may do.
    pub role: Word<Role>,
    /// The name of the token, if there is one.
    pub token: Option<String>,
    /// By what the asker is let in.
    pub entry: Word<EntryBy>,
}

/// By what somebody is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryBy {
    /// The rights of the control socket's file.
    Socket,
    /// Being on this host.
    Loopback,
    /// A token with the request.
    Token,
    /// The session of a browser that has logged in.
    Session,
}

impl EntryBy {
    /// Every one of them.
    pub const ALL: [Self; 4] = [Self::Socket, Self::Loopback, Self::Token, Self::Session];

    /// The word for it.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Socket => "socket",
            Self::Loopback => "loopback",
            Self::Token => "token",
            Self::Session => "session",
        }
    }
}

by_label!(EntryBy, EntryBy::ALL);
