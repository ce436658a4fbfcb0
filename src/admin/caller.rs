//! Who asks the API, and what they may do.

use std::{fmt, net::IpAddr, sync::Arc};

use axum::http::StatusCode;

use super::{shares::Peer, views::Problem};
use crate::base::Role;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// A process of this host, at the control socket, whose file says who may; `None` if the kernel does not say which.
    Local(Option<Peer>),
    /// Whoever asks for no more than whether the daemon is well.
    Anybody,
    /// Somebody on this host, over TCP without a token.
    Loopback {
        /// From where.
        from: IpAddr,
        /// What they may do.
        role: Role,
    },
    /// Somebody with a token.
    Token {
        /// What the token is called.
        name: Arc<str>,
        /// From where.
        from: IpAddr,
        /// What it may do.
        role: Role,
        /// How it was presented.
        login: Login,
    },
}

/// How a token was presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Login {
    /// With the request itself.
    Token(TokenHash),
    /// When a browser logged in: the session that it has since.
    Session(SessionKey),
}

/// SHA-256 of a token's text. Nothing prints it.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct TokenHash(pub [u8; 32]);

/// By what a session is found: SHA-256 of its id, so that the time that a search takes says nothing of ids. Nothing prints it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionKey(pub [u8; 32]);

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash")
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKey")
    }
}

impl Caller {
    /// What they may do.
    pub const fn role(&self) -> Role {
        match self {
            Self::Local(_) => Role::Configure,
            Self::Anybody => Role::Read,
            Self::Loopback { role, .. } | Self::Token { role, .. } => *role,
        }
    }

    /// The process, if it is one of this host at the control socket.
    pub const fn peer(&self) -> Option<Peer> {
        match self {
            Self::Local(peer) => *peer,
            Self::Anybody | Self::Loopback { .. } | Self::Token { .. } => None,
        }
    }
}

/// Whether somebody may do what needs a role.
///
/// # Errors
/// The answer to somebody whose role is not enough, and to nobody.
pub(super) fn permit(caller: Option<&Caller>, needed: Role) -> Result<(), Problem> {
    let refused = |message: String| Err(Problem::new(StatusCode::FORBIDDEN, message));
    let Some(caller) = caller else {
        return refused(format!("this needs the role {needed}, and nobody knows who asks"));
    };
    let role = caller.role();
    if role.may(needed) {
        return Ok(());
    }
    let remedy = match caller {
        Caller::Local(_) | Caller::Anybody => "",
        Caller::Loopback { .. } => ": see [admin] loopback_role",
        Caller::Token { .. } => ": see its line in tokens_file",
    };
    refused(format!(
        "this needs the role {needed}, and {caller} has {role}{remedy}"
    ))
}

/// As log and history say it: `uid 0, pid 4711`, `token grafana from 192.0.2.7`.
impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(Some(Peer { uid, pid: Some(pid) })) => write!(f, "uid {uid}, pid {pid}"),
            Self::Local(Some(Peer { uid, pid: None })) => write!(f, "uid {uid}"),
            Self::Local(None) => f.write_str("somebody at the control socket"),
            Self::Anybody => f.write_str("somebody"),
            Self::Loopback { from, .. } => write!(f, "somebody from {from}"),
            Self::Token { name, from, .. } => write!(f, "token {name} from {from}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_may_do_what_those_before_it_may_and_a_refusal_says_what_is_missing() {
        let token = |role| Caller::Token {
            name: "grafana".into(),
            from: [192, 0, 2, 7].into(),
            role,
            login: Login::Token(TokenHash::default()),
        };
        for (index, has) in Role::ALL.into_iter().enumerate() {
            for (other, needed) in Role::ALL.into_iter().enumerate() {
                let permitted = permit(Some(&token(has)), needed);
                assert_eq!(permitted.is_ok(), other <= index, "{has} {needed}");
            }
        }
        let refused = permit(Some(&token(Role::Read)), Role::Operate).unwrap_err();
        assert_eq!(refused.status, 403);
        assert_eq!(
            refused.message,
            "this needs the role operate, and token grafana from 192.0.2.7 has read: see its line in tokens_file"
        );
        assert!(permit(Some(&Caller::Local(None)), Role::Configure).is_ok());
        assert!(permit(None, Role::Read).is_err());
    }
}
