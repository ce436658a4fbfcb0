//! The daemon's end of the socketpair.

use std::{
    collections::BTreeSet,
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use super::{
    BrokerError, ListenerRef, Parser, Policy, Target, broker,
    message::{Outcome, Reply, Request, Verb, decode, encode},
};
use crate::{
    config::{self, MAX_CONFIG_BYTES, Options, PacketService, Source},
    sys::{
        fdpass::{self, RecvError},
        ids, memfd, process,
    },
};

/// How long a call waits for the broker. It answers within milliseconds; a file system that hangs may hold it up.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Why there is no broker.
#[derive(Debug, thiserror::Error)]
pub enum ForkError {
    /// Root has to say who to become.
    #[error("started as root without a user to become")]
    NoTarget,
    /// The configuration does not parse: no policy.
    #[error("the configuration is not valid")]
    Config,
    /// A system call failed.
    #[error("{0}: {1}")]
    Step(&'static str, io::Error),
    /// No child was made.
    #[error(transparent)]
    Fork(#[from] process::ForkError),
    /// The child could not confine itself.
    #[error("start the privileged broker: {0}")]
    Start(#[from] BrokerError),
}

/// The daemon's end of the socketpair. Calls block for a short, bounded time.
#[derive(Debug)]
pub struct Broker {
    socket: OwnedFd,
    pid: u32,
    path: String,
    /// Number of the last request. Held during a call, so that replies cannot be confused.
    last: Mutex<u64>,
}

impl Broker {
    /// A packet socket on an interface that the configuration in force needs: one that a frontend names, that has a
    /// VIP, or by which the answers of a passthrough server come in. One call for each worker.
    ///
    /// # Errors
    /// Refused (the configuration does not need this interface), or a step failed.
    pub fn packet_socket(&self, interface: &str) -> Result<OwnedFd, BrokerError> {
        let _ = interface;
        todo!("privilege")
    }

    /// Puts firewall rules, reserved ports and the filters of all packet sockets in force for exactly these services.
    /// Each must be in the configuration as the broker read it, or have been in force until now.
    ///
    /// # Errors
    /// Refused, or a step failed; then what was in force before still is.
    pub fn serve(&self, services: &[PacketService]) -> Result<(), BrokerError> {
        let _ = services;
        todo!("privilege")
    }

    /// Forks the broker; returns in the daemon only, when the broker has confined itself. Must be called before any
    /// thread exists. `target` comes from [`super::resolve_target`]: some user if and only if started as root.
    ///
    /// # Errors
    /// The process already has threads, the configuration is not valid, or a step of the start failed.
    pub fn fork(
        path: &Path,
        source: &Source,
        options: Options,
        target: Option<&Target>,
    ) -> Result<Self, ForkError> {
        Self::fork_with(config::load, path, source, options, target)
    }

    /// As [`fork`](Self::fork), with another parser than [`config::load`].
    ///
    /// # Errors
    /// As [`fork`](Self::fork).
    pub fn fork_with(
        parse: Parser,
        path: &Path,
        source: &Source,
        options: Options,
        target: Option<&Target>,
    ) -> Result<Self, ForkError> {
        if ids::is_root() && target.is_none() {
            return Err(ForkError::NoTarget);
        }
        let loaded = parse(source, options).map_err(|_| ForkError::Config)?;
        let child = broker::Broker {
            // links in the path are followed at each reading, so that swapping one is a new configuration
            path: std::path::absolute(path).map_err(|e| ForkError::Step("find the configuration file", e))?,
            name: source.name.clone(),
            options,
            parse,
            policy: Policy::new(loaded.config),
            bound: BTreeSet::new(),
        };
        let (ours, theirs) = fdpass::pair().map_err(|e| ForkError::Step("make a socketpair", e))?;
        let pid = process::fork_child(theirs, |socket| child.run(&socket, target))?;
        fdpass::set_timeout(ours.as_fd(), TIMEOUT).map_err(|e| ForkError::Step("SO_RCVTIMEO", e))?;
        let broker = Self {
            socket: ours,
            pid: pid.as_raw().unsigned_abs(),
            path: source.name.clone(),
            last: Mutex::new(0),
        };
        broker.receive(0, &Outcome::Ready)?;
        Ok(broker)
    }

    /// The broker's process id.
    #[must_use]
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// Binds and listens: a TCP socket with SO_REUSEPORT (and the accepted sockets' inherited options). The first
    /// socket of a port fails with "address in use" even if the other listener shares its address.
    ///
    /// # Errors
    /// Not in the configuration, the bind failed, or the broker is lost.
    pub fn bind(&self, listener: &ListenerRef) -> Result<OwnedFd, BrokerError> {
        self.call_for_fd(Verb::Bind(listener.clone()), &Outcome::Bound)
    }

    /// Has the broker read the configuration file anew and adopt it as its policy if it is valid; returns the very
    /// bytes (in a sealed memfd), valid or not.
    ///
    /// # Errors
    /// The file cannot be read (missing, not a regular file, too large), or the broker is lost.
    pub fn read_config(&self) -> Result<Source, BrokerError> {
        let copy = self.call_for_fd(Verb::ReadConfig, &Outcome::Config)?;
        let bytes =
            memfd::read_sealed(copy, MAX_CONFIG_BYTES).map_err(|e| BrokerError::Lost(e.to_string()))?;
        Ok(Source {
            name: self.path.clone(),
            bytes,
        })
    }

    /// A descriptor that becomes readable at end-of-file when the broker dies.
    ///
    /// # Errors
    /// It cannot be duplicated.
    pub fn death_fd(&self) -> io::Result<OwnedFd> {
        self.socket.try_clone()
    }

    fn call_for_fd(&self, verb: Verb, expected: &Outcome) -> Result<OwnedFd, BrokerError> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last += 1;
        let request =
            encode(&Request { number: *last, verb }).map_err(|e| BrokerError::Refused(e.to_string()))?;
        fdpass::send(self.socket.as_fd(), &request, &[]).map_err(|e| BrokerError::Lost(e.to_string()))?;
        let fds = self.receive(*last, expected)?;
        fds.into_iter()
            .next()
            .ok_or_else(|| BrokerError::Lost("it sent no descriptor".into()))
    }

    /// Takes the reply to request `number`: `expected` with its descriptors, or an error.
    fn receive(&self, number: u64, expected: &Outcome) -> Result<Vec<OwnedFd>, BrokerError> {
        let lost = |why: String| BrokerError::Lost(why);
        let (bytes, fds) = match fdpass::receive(self.socket.as_fd()) {
            Ok(message) => message,
            Err(RecvError::NoDescriptorsLeft) => {
                let source = io::Error::from_raw_os_error(libc::EMFILE);
                return Err(BrokerError::Failed {
                    step: "take a descriptor from the broker".into(),
                    source,
                });
            }
            Err(error) => return Err(lost(error.to_string())),
        };
        let reply: Reply = decode(&bytes).map_err(|e| lost(e.to_string()))?;
        if reply.number != number {
            return Err(lost(format!(
                "it answered request {} instead of {number}",
                reply.number
            )));
        }
        if fds.len() != reply.outcome.descriptors() {
            return Err(lost(format!(
                "{} descriptors came with {:?}",
                fds.len(),
                reply.outcome
            )));
        }
        match reply.outcome {
            outcome if outcome == *expected => Ok(fds),
            Outcome::Refused { why } => Err(BrokerError::Refused(why)),
            Outcome::Unreadable { why } => Err(BrokerError::Unreadable(why)),
            Outcome::Failed { step, errno: 0 } => Err(lost(step)),
            Outcome::Failed { step, errno } => Err(BrokerError::Failed {
                step,
                source: io::Error::from_raw_os_error(errno),
            }),
            outcome => Err(lost(format!("it answered {outcome:?}"))),
        }
    }
}
