//! The daemon's end of the socketpair: one request at a time, each call waits for its answer.

mod xdp;

use std::{
    collections::BTreeSet,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{
    BrokerError, ListenerRef, Served, What,
    message::{Outcome, Reply, Request, Verb, decode, encode, encode_services},
};
use crate::{
    base::{PortRanges, SocketKind, SocketPath},
    config::{PacketService, Source},
    sys::{
        config_file::FileIdentity,
        fdpass::{self, RecvError},
        memfd,
    },
};
pub use xdp::XdpGrant;

/// How long a call waits for the broker. It answers within milliseconds; a file system that hangs or somebody who holds
/// the lock of iptables may hold it up.
const TIMEOUT: Duration = Duration::from_secs(20);

/// The daemon's end of the socketpair. Calls block until the broker answers, 20 s at most: where that must not be, ask by
/// a [`Client`](super::Client).
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
    pid: u32,
    /// What messages call the configuration file.
    name: String,
    /// Whether the broker leaves firewall rules at its end, for the next process.
    keeps_rules: bool,
    /// Held during a call, so that replies cannot be confused.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Number of the last request.
    last: u64,
    /// Since when the broker has owed an answer that was given up.
    silent_since: Option<Instant>,
    /// What the broker has said unasked.
    changed: Changed,
}

/// What has changed, as the broker said unasked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changed {
    /// Files that are others than when they were last read.
    pub files: BTreeSet<What>,
    /// Whether another program may have changed the firewall rules.
    pub rules: bool,
}

impl Changed {
    /// Whether nothing has.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty() && !self.rules
    }
}

/// A file as the broker has read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRead {
    /// Its content.
    pub source: Source,
    /// Changes when it is saved again.
    pub identity: FileIdentity,
    /// For the configuration: the NAT ports by which the broker has resolved it where it names none; `None`: the stock list.
    pub default_nat_ports: Option<PortRanges>,
}

impl Channel {
    /// Takes the daemon's end of a socketpair over, when the broker at the other end says that it has confined itself.
    /// `keeps_rules`: whether it leaves firewall rules at its end.
    ///
    /// # Errors
    /// It could not, or says what is no answer.
    pub(super) fn of_child(
        socket: OwnedFd,
        pid: u32,
        name: String,
        keeps_rules: bool,
    ) -> Result<Self, BrokerError> {
        let unbounded = |source| BrokerError::Failed {
            step: "SO_RCVTIMEO".into(),
            source,
        };
        fdpass::set_timeout(socket.as_fd(), TIMEOUT).map_err(unbounded)?;
        let mut channel = Self::over(socket, pid, name);
        channel.keeps_rules = keeps_rules;
        match channel.receive(RecvHow::Wait)? {
            (Reply { number: 0, outcome }, _) => only(&Outcome::Ready, (done(outcome)?, Vec::new()))?,
            (reply, _) => return Err(BrokerError::Lost(format!("unexpected first message {reply:?}"))),
        };
        Ok(channel)
    }

    pub(crate) fn over(socket: OwnedFd, pid: u32, name: String) -> Self {
        Self {
            socket,
            pid,
            name,
            keeps_rules: false,
            state: Mutex::default(),
        }
    }

    /// The broker's process id.
    #[must_use]
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether the broker leaves firewall rules at its end: under systemd, for the process that comes next.
    #[must_use]
    pub const fn keeps_rules(&self) -> bool {
        self.keeps_rules
    }

    /// Binds and listens: a TCP socket with SO_REUSEPORT (and the accepted sockets' inherited options). The first
    /// socket of a port fails with "address in use" even if the other listener shares its address.
    ///
    /// # Errors
    /// Not in the configuration, the bind failed, or the broker is lost.
    pub fn bind(&self, listener: &ListenerRef) -> Result<OwnedFd, BrokerError> {
        self.call_for_fd(Verb::Bind(listener.clone()), &Outcome::Bound)
    }

    /// Has the broker read a file anew; returns its very bytes (in a sealed memfd). A configuration becomes its policy if
    /// it is valid.
    ///
    /// # Errors
    /// The file cannot be read (missing, not a regular file, too large), no descriptor or memory is left, or the broker
    /// is lost.
    pub fn read(&self, what: What) -> Result<FileRead, BrokerError> {
        let limit = what.limit();
        let (outcome, fds) = self.request(Verb::Read(what), &[])?;
        let Outcome::Contents {
            identity,
            default_nat_ports,
        } = outcome
        else {
            return Err(unexpected(&outcome));
        };
        let Some(copy) = fds.into_iter().next() else {
            return Err(unexpected(&outcome));
        };
        let bytes = memfd::read_sealed(copy, limit).map_err(|e| BrokerError::Lost(e.to_string()))?;
        Ok(FileRead {
            source: Source {
                name: self.name.clone(),
                bytes,
            },
            identity,
            default_nat_ports,
        })
    }

    /// A packet socket on an interface that the configuration in effect needs: one that a frontend names, that has a
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

    /// Puts firewall rules, reserved ports and the filters of all packet sockets in effect for exactly these services;
    /// with none, takes everything out. Each must be in the configuration as the broker read it, or have been in effect
    /// until now.
    ///
    /// # Errors
    /// Refused, or a step failed; then what was in effect before still is.
    pub fn serve(&self, services: &[PacketService]) -> Result<Served, BrokerError> {
        let bytes = encode_services(services).map_err(|e| BrokerError::Refused(e.to_string()))?;
        let copy = memfd::sealed(&bytes).map_err(|source| BrokerError::Failed {
            step: "copy the services into memory".into(),
            source,
        })?;
        match self.request(Verb::Serve, &[copy.as_fd()])? {
            (Outcome::Served(served), _) => Ok(served),
            (outcome, _) => Err(unexpected(&outcome)),
        }
    }

    /// Has the broker make [`SocketKind::BATCH`] sockets towards servers: unbound, non-blocking, with what the kind says.
    ///
    /// # Errors
    /// Refused (no frontend needs such), a step failed, or the broker is lost.
    pub fn server_sockets(&self, kind: SocketKind) -> Result<Vec<OwnedFd>, BrokerError> {
        self.call(Verb::ServerSockets(kind), &[], &Outcome::ServerSockets)
    }

    /// Has the broker go on with the unix socket of an earlier process, and set who may connect to it.
    ///
    /// # Errors
    /// Not in the configuration, its file is gone or another, the rights cannot be set, or the broker is lost.
    pub fn take_over_socket(
        &self,
        listener: &ListenerRef,
        socket: BorrowedFd<'_>,
    ) -> Result<(), BrokerError> {
        let verb = Verb::TakeOverSocket(listener.clone());
        self.call(verb, &[socket], &Outcome::Done).map(drop)
    }

    /// Has the broker set who may connect to a unix socket that is listened at.
    ///
    /// # Errors
    /// Not in the configuration, the rights cannot be set, or the broker is lost.
    pub fn socket_rights(&self, listener: &ListenerRef) -> Result<(), BrokerError> {
        let verb = Verb::SocketRights(listener.clone());
        self.call(verb, &[], &Outcome::Done).map(drop)
    }

    /// Has the broker remove the file of a unix socket that it has made.
    ///
    /// # Errors
    /// The broker is lost.
    pub fn release_socket(&self, path: SocketPath) -> Result<(), BrokerError> {
        self.call(Verb::ReleaseSocket(path), &[], &Outcome::Done)
            .map(drop)
    }

    /// Has the broker connect to a unix socket that a source of servers is asked at. The connection does not block.
    ///
    /// # Errors
    /// No source of the configuration is asked there, nobody listens, or the broker is lost.
    pub fn connect(&self, path: SocketPath) -> Result<OwnedFd, BrokerError> {
        self.call_for_fd(Verb::Connect(path), &Outcome::Connected)
    }

    /// Has the broker open a file that lines about connections are appended to.
    ///
    /// # Errors
    /// Not in the configuration, it cannot be opened, or the broker is lost.
    pub fn log_file(&self, path: PathBuf) -> Result<OwnedFd, BrokerError> {
        self.call_for_fd(Verb::LogFile(path), &Outcome::LogFile)
    }

    /// Has the broker connect to a syslog socket. Sending does not block.
    ///
    /// # Errors
    /// Not in the configuration, nobody listens, or the broker is lost.
    pub fn log_socket(&self, path: SocketPath) -> Result<OwnedFd, BrokerError> {
        self.call_for_fd(Verb::LogSocket(path), &Outcome::Connected)
    }

    /// Tells the broker that a configuration is in effect, by the identity that [`read`](Self::read) gave: what only the one
    /// before it had is refused from now on.
    ///
    /// # Errors
    /// The broker is lost.
    pub fn in_effect(&self, identity: FileIdentity) -> Result<(), BrokerError> {
        self.call(Verb::InEffect(identity), &[], &Outcome::Done).map(drop)
    }

    /// A descriptor that becomes readable when the broker says something unasked, and at end-of-file when it dies.
    ///
    /// # Errors
    /// It cannot be duplicated.
    pub fn news_fd(&self) -> io::Result<OwnedFd> {
        self.socket.try_clone()
    }

    /// Takes what the broker has said unasked, without waiting.
    ///
    /// # Errors
    /// The broker is lost.
    pub fn news(&self) -> Result<Changed, BrokerError> {
        let mut state = self.state();
        self.take_late(&mut state)?;
        Ok(std::mem::take(&mut state.changed))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn call_for_fd(&self, verb: Verb, expected: &Outcome) -> Result<OwnedFd, BrokerError> {
        let fds = self.call(verb, &[], expected)?;
        fds.into_iter()
            .next()
            .ok_or_else(|| BrokerError::Lost("no descriptor received".into()))
    }

    pub(super) fn call(
        &self,
        verb: Verb,
        fds: &[BorrowedFd<'_>],
        expected: &Outcome,
    ) -> Result<Vec<OwnedFd>, BrokerError> {
        only(expected, self.request(verb, fds)?)
    }

    fn request(&self, verb: Verb, fds: &[BorrowedFd<'_>]) -> Result<(Outcome, Vec<OwnedFd>), BrokerError> {
        let mut state = self.state();
        if state.silent_since.is_some() {
            self.take_late(&mut state)?;
        }
        if let Some(since) = state.silent_since {
            return Err(BrokerError::Silent(since.elapsed()));
        }
        state.last += 1;
        let number = state.last;
        let request = encode(&Request { number, verb }).map_err(|e| BrokerError::Refused(e.to_string()))?;
        let asked = Instant::now();
        fdpass::send(self.socket.as_fd(), &request, fds).map_err(|e| BrokerError::Lost(e.to_string()))?;
        loop {
            match self.receive(RecvHow::Wait) {
                Err(BrokerError::Silent(_)) => {
                    state.silent_since = Some(asked);
                    return Err(BrokerError::Silent(asked.elapsed()));
                }
                Err(error) => return Err(error),
                Ok((reply, fds)) if reply.number == number => return Ok((done(reply.outcome)?, fds)),
                Ok((reply, _)) => state.unasked(&reply)?,
            }
        }
    }

    /// Takes what is there without waiting: an answer that was given up, or something unasked.
    fn take_late(&self, state: &mut State) -> Result<(), BrokerError> {
        loop {
            match self.receive(RecvHow::Try) {
                Err(BrokerError::Silent(_)) => return Ok(()),
                // only an answer has descriptors, and one at most is late
                Err(BrokerError::Failed { .. }) => state.silent_since = None,
                Err(error) => return Err(error),
                // what comes with it is closed
                Ok((reply, _)) => state.unasked(&reply)?,
            }
        }
    }

    /// Takes one message; [`BrokerError::Silent`] when none comes.
    fn receive(&self, how: RecvHow) -> Result<(Reply, Vec<OwnedFd>), BrokerError> {
        let lost = |why: String| BrokerError::Lost(why);
        let received = match how {
            RecvHow::Wait => fdpass::receive(self.socket.as_fd()),
            RecvHow::Try => fdpass::try_receive(self.socket.as_fd()),
        };
        let (bytes, fds) = match received {
            Ok(message) => message,
            Err(RecvError::TimedOut) => return Err(BrokerError::Silent(TIMEOUT)),
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
        if fds.len() != reply.outcome.descriptors() {
            return Err(lost(format!(
                "{} descriptors came with {:?}",
                fds.len(),
                reply.outcome
            )));
        }
        Ok((reply, fds))
    }
}

/// How a message is waited for.
#[derive(Debug, Clone, Copy)]
enum RecvHow {
    /// Until the time-out.
    Wait,
    /// Not at all.
    Try,
}

impl State {
    /// Takes a message that is no answer to the request at hand.
    fn unasked(&mut self, reply: &Reply) -> Result<(), BrokerError> {
        match (reply.number, &reply.outcome) {
            (0, Outcome::Changed(what)) => {
                self.changed.files.insert(what.clone());
            }
            (0, Outcome::RulesChanged) => self.changed.rules = true,
            // late: whoever asked has given up
            (number, _) if number > 0 && number <= self.last => {
                if number == self.last {
                    self.silent_since = None;
                }
            }
            (number, _) => {
                return Err(BrokerError::Lost(format!(
                    "answer to request {number} instead of {}",
                    self.last
                )));
            }
        }
        Ok(())
    }
}

/// An outcome that is no failure.
fn done(outcome: Outcome) -> Result<Outcome, BrokerError> {
    match outcome {
        Outcome::Refused { why } => Err(BrokerError::Refused(why)),
        Outcome::Held(holder) => Err(BrokerError::Held(holder)),
        Outcome::Unable { why } => Err(BrokerError::Unable(why)),
        Outcome::Unreadable { why } => Err(BrokerError::Unreadable(why)),
        Outcome::Stale => Err(BrokerError::Changed),
        Outcome::Failed { step, errno: 0 } => Err(BrokerError::Lost(step)),
        Outcome::Failed { step, errno } => Err(BrokerError::Failed {
            step,
            source: io::Error::from_raw_os_error(errno),
        }),
        outcome => Ok(outcome),
    }
}

/// The descriptors of an outcome, if it is the expected one.
fn only(expected: &Outcome, (outcome, fds): (Outcome, Vec<OwnedFd>)) -> Result<Vec<OwnedFd>, BrokerError> {
    if outcome == *expected {
        Ok(fds)
    } else {
        Err(unexpected(&outcome))
    }
}

fn unexpected(outcome: &Outcome) -> BrokerError {
    BrokerError::Lost(format!("unexpected answer {outcome:?}"))
}
