//! The child process: confines itself, then serves the verbs until the daemon is gone.

use std::{
    collections::BTreeSet,
    io,
    mem::ManuallyDrop,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Instant,
};

use super::{
    ListenerRef, Parser, Policy, Target, What,
    confine::{ConfineError, confine},
    files::Files,
    logs,
    message::{MAX_SERVICES_BYTES, Outcome, Reply, Request, Verb, decode, encode},
    packets::PacketSockets,
    policy::Permitted,
    rules_news::RulesNews,
    runner::Link,
    socket_files::{self, SocketFiles},
    write::{self, ConfigWrite, Writes},
};
use crate::{
    base::{Protocol, SocketKind, SocketPath, Zone},
    config::{Options, PacketService, Source},
    sys::{
        config_file::FileIdentity,
        fdpass, ids, listener, memfd, process, readiness, server_socket, udp_socket,
        unix_stream::{self, UnixConnectError},
    },
};

/// What the broker knows and holds.
pub struct Broker {
    /// What it reads.
    pub files: Files,
    /// What messages call the configuration file.
    pub name: String,
    /// What the command line adds to it.
    pub options: Options,
    /// Makes a configuration of its bytes.
    pub parse: Parser,
    /// The rules in effect.
    pub policy: Policy,
    /// Whether the API may replace the configuration, and what it has replaced.
    pub writes: Writes,
    /// The file that they were last read from; `None`: as at the start.
    pub adopted: Option<FileIdentity>,
    /// Ports bound so far: the daemon may hold sockets there.
    pub bound: BTreeSet<(Protocol, u16)>,
    /// Unix sockets that it has made.
    pub sockets: SocketFiles,
    /// What it holds for the packet modes.
    pub packets: PacketSockets,
    /// What the daemon is to be told of the firewall.
    pub rules: RulesNews,
    /// Whether firewall rules stay at the end: under systemd, for the restart. The unit takes them out at stop.
    pub keeps_rules: bool,
    /// Whether the files of unix sockets stay at the end: where the sockets themselves are kept for the process after this one.
    pub keeps_sockets: bool,
    /// Where the runner is told which commands there are; `None` where there is no runner.
    pub runner: Option<Link>,
    /// Ends with the daemon, where the kernel has such descriptors.
    pub daemon: Option<OwnedFd>,
}

/// What there is to do.
enum Next {
    /// Nothing, or nothing any more.
    Nothing,
    /// To answer.
    Request,
    /// The daemon is gone.
    End,
}

impl Broker {
    /// Takes what an earlier process has left. Without the XDP engine in the configuration it ends at once: its program would
    /// go on deciding packets by another configuration.
    pub fn inherit(&mut self, kept: Vec<(String, OwnedFd)>) {
        self.packets.inherit(kept);
        if !self.policy.has_xdp() {
            self.packets.settle_xdp();
        }
    }

    /// Runs in the forked child: confines the process, says so, serves. Returns the exit status (sysexits).
    /// `daemon` is the process that it serves: its parent.
    pub fn run(mut self, socket: &OwnedFd, target: Option<&Target>, daemon: u32) -> i32 {
        // root may give a socket to any group; who is no longer root, to those that it is in
        let mut groups = socket_files::group_ids(self.policy.socket_groups());
        // the group of Docker's socket is root's to give: as systemd does it, by the user's groups
        if let Some(target) = target.filter(|_| self.policy.has_source_sockets()) {
            groups.extend(ids::groups_of(&target.name, target.gid));
            groups.sort_unstable();
            groups.dedup();
        }
        let has_xdp = self.policy.has_xdp();
        if let Err(error) = confine(target, &groups, has_xdp).and_then(|()| self.follow(daemon)) {
            // if this cannot be said either, end-of-file says enough
            let _ = reply(
                socket.as_fd(),
                0,
                Outcome::Unable {
                    why: format!("confine it: {error}"),
                },
                &[],
            );
            return 71;
        }
        if reply(socket.as_fd(), 0, Outcome::Ready, &[]).is_err() {
            return 71;
        }
        let status = self.answer_all(socket.as_fd());
        if !self.keeps_rules {
            self.packets.clear();
        }
        if self.keeps_sockets {
            self.sockets.leave();
        }
        status
    }

    /// Ends with the daemon from now on, even if somebody else holds its end of the socketpair by then: a daemon that was
    /// taken over can hand it on. (A signal at its death, PR_SET_PDEATHSIG, would end us before the rules are taken out, or
    /// interrupt us while they are.)
    fn follow(&mut self, daemon: u32) -> Result<(), ConfineError> {
        self.daemon = process::pidfd(daemon).map_err(|error| ConfineError::Step("pidfd_open", error))?;
        if process::parent() == daemon {
            Ok(())
        } else {
            Err(ConfineError::Orphan)
        }
    }

    /// Answers until the daemon is gone, or sends what it never would. Returns the exit status (sysexits).
    pub fn answer_all(&mut self, socket: BorrowedFd<'_>) -> i32 {
        loop {
            match self.wait(socket) {
                Next::Nothing => continue,
                Next::Request => {}
                Next::End => return 0,
            }
            let (bytes, fds) = match fdpass::receive_untrusted(socket) {
                Ok(message) => message,
                Err(fdpass::RecvError::Closed) => return 0,
                Err(_) => return 71,
            };
            // The daemon sends only this form: anything else is an attack or a defect.
            let Ok(Request { number, verb }) = decode(&bytes) else {
                return 70;
            };
            if fds.len() != verb.descriptors() || number == 0 {
                return 70;
            }
            let (outcome, fd) = match verb {
                Verb::ServerSockets(_) | Verb::XdpLoad | Verb::XdpTables(_) => {
                    let (outcome, several) = match verb {
                        Verb::ServerSockets(kind) => self.server_sockets(kind),
                        Verb::XdpTables(count) => self.packets.xdp_tables(&self.policy, count),
                        _ => self.packets.load_xdp(&self.policy),
                    };
                    if reply(socket, number, outcome, &several).is_err() {
                        return 71;
                    }
                    continue;
                }
                Verb::XdpAttach(interface) => (self.packets.attach_xdp(&self.policy, &interface), None),
                Verb::XdpDetach(interface) => (self.packets.detach_xdp(&interface), None),
                Verb::XdpSettled => (self.packets.settle_xdp(), None),
                Verb::InEffect(identity) => {
                    self.note_in_effect(identity);
                    (Outcome::Done, None)
                }
                Verb::Bind(listener) => self.bind(&listener),
                Verb::TakeOverSocket(listener) => (self.take_over_socket(&listener, fds), None),
                Verb::SocketRights(listener) => (self.socket_rights(&listener), None),
                Verb::ReleaseSocket(path) => {
                    self.sockets.release(path);
                    (Outcome::Done, None)
                }
                Verb::Connect(path) => self.connect(path),
                Verb::LogFile(path) => logs::file(&self.policy, &path),
                Verb::LogSocket(path) => logs::socket(&self.policy, path),
                Verb::Read(what) => self.read(&what),
                Verb::PacketSocket(interface) => self.packets.open(&self.policy, &interface),
                Verb::ReleasePacketSockets(interface) => (self.packets.release(&interface), None),
                Verb::WriteConfig => {
                    let Some((before, text)) = write::texts(fds) else {
                        return 70;
                    };
                    (self.write_config(&before, &text), None)
                }
                Verb::Serve => {
                    let Some(services) = services(fds) else {
                        return 70;
                    };
                    (self.packets.serve(&mut self.policy, services), None)
                }
            };
            if reply(socket, number, outcome, fd.as_slice()).is_err() {
                return 71;
            }
        }
    }

    /// Waits for what comes next, and deals with all of it but a request and the end.
    fn wait(&mut self, socket: BorrowedFd<'_>) -> Next {
        let until = (self.rules.due()).map_or(self.files.next_look(), |due| due.min(self.files.next_look()));
        let mut all = self.packets.events();
        let events = all.len();
        all.push(socket);
        all.extend(self.daemon.as_ref().map(AsFd::as_fd));
        let readable = readiness::readable_until(&all, until);
        let is_readable = |at: usize| readable.get(at).copied().unwrap_or(false);
        let (has_request, is_over) = (is_readable(events), is_readable(events + 1));
        let has_event = (0..events).any(is_readable);
        let now = Instant::now();
        if has_event && self.packets.attend() {
            self.rules.changed(now);
        }
        if self.rules.due().is_some_and(|due| due <= now) {
            self.rules.told(now, tell(socket, Outcome::RulesChanged));
        }
        if self.files.next_look() <= now {
            self.look(socket);
        }
        if is_over {
            Next::End
        } else if has_request {
            Next::Request
        } else {
            Next::Nothing
        }
    }

    fn bind(&mut self, listener: &ListenerRef) -> (Outcome, Option<OwnedFd>) {
        let permitted = match self.policy.may_bind(listener) {
            Ok(Permitted::Network(permitted)) => permitted,
            Ok(Permitted::Unix(path, rights)) => return self.sockets.bind(path, &rights),
            Err(why) => return (Outcome::refused(&why), None),
        };
        let addr = permitted.addr;
        let interface = addr.zone().map(Zone::as_str);
        let what = listener::Listen {
            addr: addr.0,
            interface,
            timeouts: permitted.timeouts,
            options: permitted.options,
        };
        // once the daemon may hold sockets of this port the probe would see those
        let port = (permitted.protocol, addr.0.port());
        let ours = self.bound.contains(&port);
        let bound = match permitted.protocol {
            Protocol::Tcp if ours => listener::listen(&what),
            Protocol::Tcp => {
                listener::probe_exclusive(addr.0, interface).and_then(|()| listener::listen(&what))
            }
            Protocol::Udp if ours => udp_socket::listen(addr.0, interface, permitted.options),
            Protocol::Udp => udp_socket::probe_exclusive(addr.0, interface)
                .and_then(|()| udp_socket::listen(addr.0, interface, permitted.options)),
        };
        match bound {
            Ok(socket) => {
                self.bound.insert(port);
                (Outcome::Bound, Some(socket))
            }
            Err(error) => {
                let step = match error.step {
                    "bind" => format!("bind {addr}"),
                    step => format!("bind {addr}: {step}"),
                };
                (
                    Outcome::failed(&step, error.source.raw_os_error().unwrap_or(0)),
                    None,
                )
            }
        }
    }

    fn take_over_socket(&mut self, listener: &ListenerRef, fds: Vec<ManuallyDrop<OwnedFd>>) -> Outcome {
        match (self.policy.may_bind(listener), fds.into_iter().next()) {
            (Ok(Permitted::Unix(path, rights)), Some(socket)) => {
                self.sockets.take_over(path, socket, &rights)
            }
            (Err(why), _) => Outcome::refused(&why),
            (Ok(_), _) => Outcome::refused("it is no unix socket"),
        }
    }

    fn socket_rights(&self, listener: &ListenerRef) -> Outcome {
        match self.policy.may_bind(listener) {
            Ok(Permitted::Unix(path, rights)) => self.sockets.set_rights(path, &rights),
            Ok(Permitted::Network(_)) => Outcome::refused("it is no unix socket"),
            Err(why) => Outcome::refused(&why),
        }
    }

    fn connect(&self, path: SocketPath) -> (Outcome, Option<OwnedFd>) {
        if let Err(why) = self.policy.may_connect(path) {
            return (Outcome::refused(&why), None);
        }
        match unix_stream::connect(path.as_path()) {
            Ok(socket) => (Outcome::Connected, Some(socket)),
            Err(UnixConnectError::Ours(error)) => {
                let errno = error.raw_os_error().unwrap_or(libc::EIO);
                (Outcome::failed(&format!("connect to {path}"), errno), None)
            }
            Err(error) => (Outcome::unable(&format!("connect to {path}: {error}")), None),
        }
    }

    fn read(&mut self, what: &What) -> (Outcome, Option<OwnedFd>) {
        let (bytes, identity, copy) = match self.files.read(what) {
            Ok(read) => read,
            Err(outcome) => return (outcome, None),
        };
        let default_nat_ports = match what {
            What::Config => {
                self.writes.read(&bytes);
                self.adopt(bytes, identity);
                self.options.default_nat_ports
            }
            What::NetworkList(_)
            | What::TlsFile(_)
            | What::CertificateDir(_)
            | What::DiscoveryFile(_)
            | What::TokensFile(_)
            | What::AcmeFile(_)
            | What::TelemetryFile(_) => None,
        };
        let outcome = Outcome::Contents {
            identity,
            default_nat_ports,
        };
        (outcome, Some(copy))
    }

    /// Goes by a configuration from now on if it is valid. Both processes parse the same bytes with the same code and
    /// options: the daemon sees by itself whether they are. The host's ephemeral ports may have changed meanwhile.
    fn adopt(&mut self, bytes: Vec<u8>, identity: FileIdentity) {
        let source = Source {
            name: self.name.clone(),
            bytes,
        };
        let Ok(mut loaded) = (self.parse)(&source, self.options) else {
            return;
        };
        let assumed = self.options.default_nat_ports;
        let default_nat_ports = self.packets.default_nat_ports(&loaded.config, assumed);
        if assumed != default_nat_ports {
            self.options.default_nat_ports = default_nat_ports;
            match (self.parse)(&source, self.options) {
                Ok(anew) => loaded = anew,
                Err(_) => return,
            }
        }
        self.files.adopt(&loaded.config);
        if let Some(runner) = &mut self.runner {
            runner.adopt(&loaded.config);
        }
        self.policy.adopt(loaded.config);
        self.adopted = Some(identity);
    }

    /// Replaces the configuration file.
    fn write_config(&mut self, before: &[u8], text: &[u8]) -> Outcome {
        let write = ConfigWrite {
            path: self.files.config_path(),
            name: &self.name,
            parse: self.parse,
            options: self.options,
            now: self.policy.config(),
            before,
            text,
        };
        self.writes.perform(&write)
    }

    /// The daemon runs by a configuration, which may be another than the last that was read by now.
    fn note_in_effect(&mut self, identity: FileIdentity) {
        self.writes.in_effect();
        if self.adopted == Some(identity) {
            self.policy.in_effect_alone();
            self.sockets.keep_only(|path| self.policy.has_socket(path));
            if let Some(runner) = &mut self.runner {
                runner.in_effect_alone();
            }
        }
    }

    fn server_sockets(&self, kind: SocketKind) -> (Outcome, Vec<OwnedFd>) {
        if let Err(why) = self.policy.may_make(kind) {
            return (Outcome::refused(&why), Vec::new());
        }
        match server_socket::make(kind, SocketKind::BATCH) {
            Ok(sockets) => (Outcome::ServerSockets, sockets),
            Err(error) => {
                let step = format!("make sockets ({kind})");
                let errno = error.raw_os_error().unwrap_or(libc::EIO);
                (Outcome::failed(&step, errno), Vec::new())
            }
        }
    }

    /// Tells the daemon which files have changed. What it has no room for is said at the next look.
    fn look(&mut self, socket: BorrowedFd<'_>) {
        self.files.look(Instant::now(), |what| {
            tell(socket, Outcome::Changed(what.clone()))
        });
        if let Some(runner) = &mut self.runner {
            runner.tell();
        }
    }
}

/// Says something unasked. Whether there was room for it.
fn tell(socket: BorrowedFd<'_>, outcome: Outcome) -> bool {
    encode(&Reply { number: 0, outcome }).is_ok_and(|bytes| fdpass::try_send(socket, &bytes, &[]).is_ok())
}

/// The services in a sealed memfd; `None` if they have another form. Closed is only what is a memfd.
fn services(fds: Vec<ManuallyDrop<OwnedFd>>) -> Option<Vec<PacketService>> {
    let copy = fds.into_iter().next()?;
    if !memfd::is_sealed(copy.as_fd()) {
        return None;
    }
    let bytes = memfd::read_sealed(ManuallyDrop::into_inner(copy), MAX_SERVICES_BYTES).ok()?;
    decode(&bytes).ok()
}

fn reply(socket: BorrowedFd<'_>, number: u64, outcome: Outcome, fds: &[OwnedFd]) -> io::Result<()> {
    let bytes = encode(&Reply { number, outcome }).map_err(io::Error::other)?;
    let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
    fdpass::send(socket, &bytes, &fds)
}
