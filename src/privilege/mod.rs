//! The broker (the one process that holds capabilities), its verbs and policy, and how the daemon drops
//! everything and proves it.
//!
//! ```text
//! main ── parse ── fork ─┬─ daemon: drop everything, prove it, run       (parent, MainPID)
//!                        └─ broker: keep CAP_NET_BIND_SERVICE (+ CAP_DAC_READ_SEARCH if root), serve verbs (child)
//! ```

use std::{io, net::SocketAddr, os::fd::OwnedFd, path::Path};

use crate::{
    base::{FrontendName, ListenAddr},
    config::{Options, Source},
};

/// A listener that the configuration names. The broker binds nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum ListenerRef {
    /// One of a frontend's listen addresses.
    Frontend {
        /// The frontend.
        name: String,
        /// Which of its addresses.
        addr: ListenAddr,
    },
    /// The `[stats]` listener.
    Stats,
}

impl ListenerRef {
    /// Names a frontend's listener.
    #[must_use]
    pub fn frontend(name: &FrontendName, addr: ListenAddr) -> Self {
        Self::Frontend {
            name: name.as_str().to_owned(),
            addr,
        }
    }
}

/// Why the broker did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The configuration (as the broker read it) does not name this.
    #[error("the privileged broker refused: {0}")]
    Refused(String),
    /// The system call behind the verb failed.
    #[error("{step}: {source}")]
    Failed {
        /// What was tried, for example `bind 0.0.0.0:80`.
        step: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The broker is gone or talks nonsense: the daemon must end.
    #[error("lost the privileged broker: {0}")]
    Lost(String),
}

/// The daemon's end of the socketpair. Calls block for a short, bounded time.
#[derive(Debug)]
pub struct Broker {
    socket: OwnedFd,
}

/// Who the processes become when started as root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// The user's name, for messages.
    pub name: String,
}

impl Broker {
    /// Forks the broker; returns in the daemon only. Must be called before any thread exists.
    ///
    /// # Errors
    /// The process already has threads, or a system call failed.
    pub fn fork(path: &Path, source: &Source, options: Options, target: Option<&Target>) -> io::Result<Self> {
        let _ = (path, source, options, target);
        todo!()
    }

    /// Binds and listens: a TCP socket with SO_REUSEPORT (and the accepted sockets' inherited options).
    ///
    /// # Errors
    /// Not in the configuration, the bind failed, or the broker is lost.
    pub fn bind(&self, listener: &ListenerRef) -> Result<OwnedFd, BrokerError> {
        let _ = (listener, &self.socket);
        todo!()
    }

    /// Has the broker read the configuration file anew and adopt it as its policy if it is valid; returns the very
    /// bytes (in a sealed memfd), valid or not.
    ///
    /// # Errors
    /// The file cannot be read (missing, not a regular file, too large), or the broker is lost.
    pub fn read_config(&self) -> Result<Source, BrokerError> {
        todo!()
    }

    /// A descriptor that becomes readable at end-of-file when the broker dies.
    ///
    /// # Errors
    /// It cannot be duplicated.
    pub fn death_fd(&self) -> io::Result<OwnedFd> {
        self.socket.try_clone()
    }
}

/// `bind` is given to the stats server's address as well.
pub type BoundAddr = SocketAddr;
