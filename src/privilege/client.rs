//! The daemon's end of the socketpair.

use std::{
    collections::BTreeSet,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use super::{
    BrokerError, Executor, ListenerRef, Parser, Policy, Served, Target, broker,
    message::{Outcome, Reply, Request, Verb, decode, encode, encode_services},
    packets::Packets,
};
use crate::{
    config::{self, MAX_CONFIG_BYTES, Options, PacketService, Source},
    sys::{
        fdpass::{self, RecvError},
        ids, memfd, process,
    },
};

/// How long a call waits for the broker. It answers within milliseconds; a file system that hangs or somebody who holds
/// the lock of iptables may hold it up. Well below the 30 s of the unit's watchdog.
const TIMEOUT: Duration = Duration::from_secs(20);

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
    /// Forks the broker; returns in the daemon only, when the broker has confined itself. Must be called before any
    /// thread exists. `target` comes from [`super::resolve_target`]: some user if and only if started as root.
    /// `executor` does the broker's work for the packet modes. `bound` are ports that the daemon has listeners of already.
    ///
    /// # Errors
    /// The process already has threads, the configuration is not valid, or a step of the start failed.
    pub fn fork(
        path: &Path,
        source: &Source,
        options: Options,
        target: Option<&Target>,
        executor: Box<dyn Executor>,
        bound: BTreeSet<u16>,
    ) -> Result<Self, ForkError> {
        Self::fork_with(config::load, path, source, options, target, executor, bound)
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
        executor: Box<dyn Executor>,
        bound: BTreeSet<u16>,
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
            bound,
            packets: Packets::new(executor, std::process::id()),
            keeps_rules: is_under_systemd(|name| std::env::var(name).ok(), std::process::id()),
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
        only(&Outcome::Ready, broker.receive(0)?)?;
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

    /// A packet socket on an interface that the configuration in force needs: one that a frontend names, that has a
    /// VIP, or by which a passthrough server is reached. One call for each worker; all sockets of an interface share a
    /// fanout group.
    ///
    /// # Errors
    /// Refused (nothing needs this interface), the interface is gone (`ENODEV`), or a step failed.
    pub fn packet_socket(&self, interface: &str) -> Result<OwnedFd, BrokerError> {
        let verb = Verb::PacketSocket(interface.to_owned());
        self.call_for_fd(verb, &Outcome::PacketSocket)
    }

    /// Has the broker close its duplicates of an interface's packet sockets, after the engine has closed them: as long
    /// as one of both is open, the kernel gives the socket its share of the packets.
    ///
    /// # Errors
    /// The broker is lost.
    pub fn release_packet_sockets(&self, interface: &str) -> Result<(), BrokerError> {
        let verb = Verb::ReleasePacketSockets(interface.to_owned());
        self.call(verb, &[], &Outcome::Done).map(drop)
    }

    /// Puts firewall rules, reserved ports and the filters of all packet sockets in force for exactly these services;
    /// with none, takes everything out. Each must be in the configuration as the broker read it, or have been in force
    /// until now.
    ///
    /// # Errors
    /// Refused, or a step failed; then what was in force before still is.
    pub fn serve(&self, services: &[PacketService]) -> Result<Served, BrokerError> {
        let bytes = encode_services(services).map_err(|e| BrokerError::Refused(e.to_string()))?;
        let copy = memfd::sealed(&bytes).map_err(|source| BrokerError::Failed {
            step: "copy the services into memory".into(),
            source,
        })?;
        match self.request(Verb::Serve, &[copy.as_fd()])? {
            (Outcome::Served(served), _) => Ok(served),
            (outcome, _) => Err(BrokerError::Lost(format!("it answered {outcome:?}"))),
        }
    }

    /// A descriptor that becomes readable at end-of-file when the broker dies.
    ///
    /// # Errors
    /// It cannot be duplicated.
    pub fn death_fd(&self) -> io::Result<OwnedFd> {
        self.socket.try_clone()
    }

    fn call_for_fd(&self, verb: Verb, expected: &Outcome) -> Result<OwnedFd, BrokerError> {
        let fds = self.call(verb, &[], expected)?;
        fds.into_iter()
            .next()
            .ok_or_else(|| BrokerError::Lost("it sent no descriptor".into()))
    }

    fn call(
        &self,
        verb: Verb,
        fds: &[BorrowedFd<'_>],
        expected: &Outcome,
    ) -> Result<Vec<OwnedFd>, BrokerError> {
        only(expected, self.request(verb, fds)?)
    }

    fn request(&self, verb: Verb, fds: &[BorrowedFd<'_>]) -> Result<(Outcome, Vec<OwnedFd>), BrokerError> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last += 1;
        let request =
            encode(&Request { number: *last, verb }).map_err(|e| BrokerError::Refused(e.to_string()))?;
        fdpass::send(self.socket.as_fd(), &request, fds).map_err(|e| BrokerError::Lost(e.to_string()))?;
        self.receive(*last)
    }

    /// Takes the reply to request `number`: what has been done and its descriptors, or an error.
    fn receive(&self, number: u64) -> Result<(Outcome, Vec<OwnedFd>), BrokerError> {
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
            Outcome::Refused { why } => Err(BrokerError::Refused(why)),
            Outcome::Unable { why } => Err(BrokerError::Unable(why)),
            Outcome::Unreadable { why } => Err(BrokerError::Unreadable(why)),
            Outcome::Failed { step, errno: 0 } => Err(lost(step)),
            Outcome::Failed { step, errno } => Err(BrokerError::Failed {
                step,
                source: io::Error::from_raw_os_error(errno),
            }),
            outcome => Ok((outcome, fds)),
        }
    }
}

/// The descriptors of an outcome, if it is the expected one.
fn only(expected: &Outcome, (outcome, fds): (Outcome, Vec<OwnedFd>)) -> Result<Vec<OwnedFd>, BrokerError> {
    if outcome == *expected {
        Ok(fds)
    } else {
        Err(BrokerError::Lost(format!("it answered {outcome:?}")))
    }
}

/// Whether systemd started this very process as a service that it watches, not just one of its ancestors.
fn is_under_systemd(environment: impl Fn(&str) -> Option<String>, pid: u32) -> bool {
    let main_pid = environment("SYSTEMD_EXEC_PID");
    environment("INVOCATION_ID").is_some()
        && environment("NOTIFY_SOCKET").is_some()
        && main_pid.is_none_or(|main_pid| main_pid == pid.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemd_is_told_from_a_shell_that_it_started() {
        let under = |set: &'static [(&str, &str)]| {
            let get = move |name: &str| {
                let found = set.iter().find(|(key, _)| *key == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            is_under_systemd(get, 7)
        };
        assert!(under(&[
            ("INVOCATION_ID", "x"),
            ("NOTIFY_SOCKET", "@x"),
            ("SYSTEMD_EXEC_PID", "7")
        ]));
        assert!(under(&[("INVOCATION_ID", "x"), ("NOTIFY_SOCKET", "@x")]));
        assert!(!under(&[
            ("INVOCATION_ID", "x"),
            ("NOTIFY_SOCKET", "@x"),
            ("SYSTEMD_EXEC_PID", "6")
        ]));
        assert!(!under(&[("INVOCATION_ID", "x")]) && !under(&[("NOTIFY_SOCKET", "@x")]) && !under(&[]));
    }
}
