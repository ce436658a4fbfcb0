//! Who asks the API, and what they may do.

use std::{fmt, net::IpAddr, sync::Arc};

use super::shares::Peer;
use crate::base::Role;

/// Who asks.
#[expect(dead_code, reason = "the listener on TCP makes the others")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// A process of this host, at the control socket, whose file says who may; `None` if the kernel does not say which.
    Local(Option<Peer>),
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
    },
}

impl Caller {
    /// What they may do.
    pub const fn role(&self) -> Role {
        match self {
            Self::Local(_) => Role::Configure,
            Self::Loopback { role, .. } | Self::Token { role, .. } => *role,
        }
    }

    /// The process, if it is one of this host at the control socket.
    pub const fn peer(&self) -> Option<Peer> {
        match self {
            Self::Local(peer) => *peer,
            Self::Loopback { .. } | Self::Token { .. } => None,
        }
    }
}

/// As log and history say it: `uid 0, pid 4711`, `token grafana from 192.0.2.7`.
impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(Some(Peer { uid, pid: Some(pid) })) => write!(f, "uid {uid}, pid {pid}"),
            Self::Local(Some(Peer { uid, pid: None })) => write!(f, "uid {uid}"),
            Self::Local(None) => f.write_str("somebody at the control socket"),
            Self::Loopback { from, .. } => write!(f, "somebody from {from}"),
            Self::Token { name, from, .. } => write!(f, "token {name} from {from}"),
        }
    }
}
