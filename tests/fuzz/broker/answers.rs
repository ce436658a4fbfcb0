//! What the broker answers to a request, and what it does to the directory, against what it may.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    net::{TcpListener, UdpSocket},
    os::{
        fd::OwnedFd,
        unix::net::{UnixListener, UnixStream},
    },
    rc::Rc,
};

use convey::{
    base::{IpFamily, ListenerId, Protocol, SocketKind, SocketPath},
    config::MAX_CONFIG_BYTES,
    privilege::{
        ListenerRef, What,
        fuzzing::{Outcome, Verb},
    },
    sys::{interfaces, memfd},
};
use socket2::{Domain, Socket, Type};

use crate::{
    Asked,
    configurations::{ALL, number_of},
    permitted::{Permitted, name_of},
    place::{self, ASKED, CONFIG, Entries, Held, Place},
};

/// Who compares.
pub struct Judge<'a> {
    place: &'a Place,
    pub permitted: Rc<RefCell<Permitted>>,
    /// The sockets that the daemon holds.
    pub held: Held,
    /// Which configuration the file has.
    pub written: usize,
    /// The identity of the configuration file as it was last read, as JSON.
    pub read: Option<String>,
    /// The files of unix sockets that are the broker's to remove: their inodes.
    made: BTreeMap<String, u64>,
    /// The directory before the request at hand, and whether a rival had the packet modes.
    before: Entries,
    was_held: bool,
}

/// A change in the directory that a request has brought.
#[derive(Debug, Default)]
struct Granted {
    /// A socket's file that may be there now, with its mode.
    made: Option<(String, u32)>,
    /// Files that the broker had made and may have removed.
    removed: Vec<String>,
    /// A socket's file whose mode may be this one now.
    mode: Option<(String, u32)>,
    /// Whether the configuration may be another file.
    config: bool,
}

impl<'a> Judge<'a> {
    pub fn new(place: &'a Place, permitted: Rc<RefCell<Permitted>>, written: usize) -> Self {
        Self {
            place,
            permitted,
            held: Held::default(),
            written,
            read: None,
            made: BTreeMap::new(),
            before: Entries::new(),
            was_held: false,
        }
    }

    /// Looks at what is there before a request.
    pub fn prepare(&mut self, verb: Option<&Verb>) {
        self.before = self.place.entries();
        let mut permitted = self.permitted.borrow_mut();
        self.was_held = permitted.is_held();
        permitted.asked = match verb {
            Some(Verb::PacketSocket(name)) => Some(name.clone()),
            _ => None,
        };
    }

    /// After a message that no daemon sends nothing is done.
    pub fn nothing_else(&self) {
        self.explain(&Granted::default());
        assert_eq!(self.place.asked(), 0, "connected for nobody");
    }

    /// The broker has ended: what it made is gone, and nothing else.
    pub fn finish(mut self) {
        if self.before.is_empty() {
            return;
        }
        let now = self.place.entries();
        for (name, inode) in &self.made {
            let is_left = now.get(name).is_some_and(|entry| entry.inode == *inode);
            assert!(!is_left, "{name} outlives the broker");
        }
        let file = self.place.read(CONFIG);
        assert_eq!(file, ALL[self.written].text.as_bytes(), "the configuration");
        self.made.clear();
    }

    pub fn check(&mut self, asked: &Asked, outcome: &Outcome, fds: Vec<OwnedFd>) {
        let is_refused = matches!(outcome, Outcome::Refused { .. });
        let mut granted = Granted::default();
        let mut connections = 0;
        match &asked.request.verb {
            Verb::Bind(listener) => self.bound(listener, outcome, fds, &mut granted),
            Verb::Read(what) => self.file_read(what, outcome, fds),
            // what may be opened has been asked where it is opened
            Verb::PacketSocket(name) => {
                let is_there = interfaces::list().is_ok_and(|all| all.contains_key(name));
                let permitted = self.permitted.borrow();
                assert!(
                    !is_refused || !is_there || !permitted.allows_interface(name),
                    "{name}: {outcome:?}"
                );
            }
            Verb::ReleasePacketSockets(_) => assert_eq!(*outcome, Outcome::Done),
            Verb::Serve => self.served(asked, outcome),
            Verb::ServerSockets(kind) => {
                let may = self.permitted.borrow().allows_kind(*kind);
                assert_eq!(is_refused, !may, "{kind}: {outcome:?}");
                let is_failed = matches!(outcome, Outcome::Failed { .. });
                assert!(is_refused || is_failed || *outcome == Outcome::ServerSockets);
                for socket in fds {
                    is_of(&Socket::from(socket), *kind);
                }
            }
            Verb::TakeOverSocket(listener) => self.taken_over(listener, asked, outcome, &mut granted),
            Verb::SocketRights(listener) => {
                let may = self.permitted.borrow().allows_socket(listener);
                assert_eq!(is_refused, may.is_none(), "{listener:?}: {outcome:?}");
                assert!(is_refused || matches!(outcome, Outcome::Done | Outcome::Unable { .. }));
                granted.mode = may.filter(|_| *outcome == Outcome::Done);
                if let Some((name, mode)) = &granted.mode {
                    self.has_mode(name, *mode);
                }
            }
            Verb::ReleaseSocket(path) => {
                assert_eq!(*outcome, Outcome::Done);
                granted.removed.extend(name_of(*path));
            }
            Verb::Connect(path) => connections = self.connected(*path, outcome, fds),
            // no configuration here has a connection log outside of the journal
            Verb::LogFile(path) => {
                assert!(is_refused && fds.is_empty(), "{}: {outcome:?}", path.display());
            }
            Verb::LogSocket(path) => assert!(is_refused && fds.is_empty(), "{path:?}: {outcome:?}"),
            // no configuration here has engine = "xdp"
            Verb::XdpLoad | Verb::XdpAttach(_) | Verb::XdpTables(_) => {
                assert!(is_refused && fds.is_empty(), "{outcome:?}");
            }
            Verb::XdpDetach(_) | Verb::XdpSettled => assert_eq!(*outcome, Outcome::Done),
            Verb::WriteConfig => self.config_written(&asked.texts, outcome, &mut granted),
            Verb::InEffect(identity) => {
                assert_eq!(*outcome, Outcome::Done);
                let identity = serde_json::to_string(identity).expect("an identity");
                self.in_effect(&identity, &mut granted);
            }
        }
        self.explain(&granted);
        self.forget(&granted);
        assert_eq!(self.place.asked(), connections, "connections to {ASKED}");
    }

    fn bound(&mut self, listener: &ListenerRef, outcome: &Outcome, fds: Vec<OwnedFd>, granted: &mut Granted) {
        let permitted = self.permitted.borrow();
        let may = permitted.allows_listener(listener);
        let is_refused = matches!(outcome, Outcome::Refused { .. });
        assert_eq!(is_refused, may.is_none(), "{listener:?}: {outcome:?}");
        let Some(socket) = fds.into_iter().next() else {
            return;
        };
        match may.expect("what was refused does not come") {
            ListenerId::Network(endpoint) => {
                let bound = match endpoint.protocol {
                    Protocol::Tcp => TcpListener::from(socket).local_addr(),
                    Protocol::Udp => UdpSocket::from(socket).local_addr(),
                };
                assert_eq!(bound.expect("a listener"), endpoint.addr.0);
            }
            ListenerId::Unix(path) => {
                let (name, mode) = permitted.allows_socket(listener).expect("a unix socket");
                let listening = UnixListener::from(socket);
                let addr = listening.local_addr().expect("its address");
                assert_eq!(addr.as_pathname(), Some(path.as_path()));
                let entries = self.place.entries();
                self.made.insert(name.clone(), entries[&name].inode);
                self.held.take(&name, listening.into());
                granted.made = Some((name, mode));
            }
        }
    }

    fn file_read(&mut self, what: &What, outcome: &Outcome, fds: Vec<OwnedFd>) {
        let mut permitted = self.permitted.borrow_mut();
        let name = match what {
            What::Config => Some(CONFIG),
            other => permitted.configuration().file(other),
        };
        let is_refused = matches!(outcome, Outcome::Refused { .. });
        assert_eq!(is_refused, name.is_none(), "{what:?}: {outcome:?}");
        for copy in fds {
            let bytes = memfd::read_sealed(copy, MAX_CONFIG_BYTES).expect("a sealed memfd");
            assert_eq!(bytes, self.place.read(name.expect("a file that is named")));
        }
        if *what != What::Config {
            return;
        }
        let Outcome::Contents { identity, .. } = outcome else {
            panic!("the configuration: {outcome:?}");
        };
        let identity = serde_json::to_string(identity).expect("an identity");
        self.read = Some(identity.clone());
        permitted.replaced = permitted.replaced.filter(|(_, text)| *text == self.written);
        if ALL[self.written].config().is_some() {
            permitted.now = self.written;
            permitted.adopted = Some(identity);
        }
    }

    fn served(&self, asked: &Asked, outcome: &Outcome) {
        let mut permitted = self.permitted.borrow_mut();
        let services = &asked.services;
        let is_refused = matches!(outcome, Outcome::Refused { .. });
        assert_eq!(
            is_refused,
            !permitted.allows_services(services),
            "{services:?}: {outcome:?}"
        );
        match outcome {
            // what is there is the rival's
            Outcome::Served(_) if self.was_held => assert!(services.is_empty()),
            Outcome::Held(_) => assert!(self.was_held && !services.is_empty()),
            Outcome::Served(_) => {
                assert!(!permitted.firewall_fails);
                permitted.serve(services.clone());
            }
            Outcome::Unable { .. } => assert!(permitted.firewall_fails),
            _ => assert!(is_refused, "{outcome:?}"),
        }
    }

    fn taken_over(
        &mut self,
        listener: &ListenerRef,
        asked: &Asked,
        outcome: &Outcome,
        granted: &mut Granted,
    ) {
        let may = self.permitted.borrow().allows_socket(listener);
        let is_refused = matches!(outcome, Outcome::Refused { .. });
        assert_eq!(is_refused, may.is_none(), "{listener:?}: {outcome:?}");
        let Some((name, mode)) = may else {
            return;
        };
        let is_it = asked.socket.as_ref() == Some(&name);
        match outcome {
            Outcome::Done => assert!(is_it, "{listener:?} with {:?}", asked.socket),
            // without CAP_NET_ADMIN none can be
            _ => assert!(matches!(outcome, Outcome::Unable { .. }), "{outcome:?}"),
        }
        if *outcome == Outcome::Done {
            let entries = self.place.entries();
            self.made.insert(name.clone(), entries[&name].inode);
            self.has_mode(&name, mode);
            granted.mode = Some((name, mode));
        }
    }

    fn connected(&self, path: SocketPath, outcome: &Outcome, fds: Vec<OwnedFd>) -> usize {
        let may = self.permitted.borrow().allows_connection(path);
        let is_refused = matches!(outcome, Outcome::Refused { .. });
        assert_eq!(is_refused, !may, "{path}: {outcome:?}");
        assert_eq!(*outcome == Outcome::Connected, may, "{path}: {outcome:?}");
        let connections = fds.len();
        for socket in fds {
            let peer = UnixStream::from(socket).peer_addr().expect("a connection");
            assert_eq!(peer.as_pathname(), Some(path.as_path()));
        }
        connections
    }

    fn config_written(&mut self, texts: &[Vec<u8>], outcome: &Outcome, granted: &mut Granted) {
        let mut permitted = self.permitted.borrow_mut();
        let [before, text] = [0, 1].map(|at| number_of(&texts[at]));
        let valid = text.filter(|number| ALL[*number].config().is_some());
        let is_back = |text| permitted.replaced == Some((text, self.written));
        let expected = match valid {
            _ if !permitted.may_write => matches!(outcome, Outcome::Refused { .. }),
            _ if before != Some(self.written) => *outcome == Outcome::Stale,
            None => matches!(outcome, Outcome::Unreadable { .. }),
            Some(text) if !is_back(text) && !ALL[text].adds_nothing_to(permitted.configuration()) => {
                matches!(outcome, Outcome::Refused { .. })
            }
            Some(_) => *outcome == Outcome::Done,
        };
        assert!(expected, "{before:?} by {text:?}: {outcome:?}");
        if let (Outcome::Done, Some(text)) = (outcome, valid) {
            permitted.replaced = Some((self.written, text));
            self.written = text;
            granted.config = true;
        }
    }

    fn in_effect(&self, identity: &str, granted: &mut Granted) {
        let mut permitted = self.permitted.borrow_mut();
        permitted.replaced = None;
        if permitted.adopted.as_deref() != Some(identity) {
            return;
        }
        permitted.confirmed = permitted.now;
        let sockets = permitted.configuration().sockets;
        let is_needed = |name: &String| sockets.iter().any(|socket| socket.0 == name);
        let gone = self.made.keys().filter(|name| !is_needed(name));
        granted.removed.extend(gone.cloned());
    }

    /// The file that the broker has at a name, if it is still there, has a mode.
    fn has_mode(&self, name: &str, mode: u32) {
        let entries = self.place.entries();
        let inode = self.made.get(name).expect("a socket of the broker's");
        if let Some(entry) = entries.get(name).filter(|entry| entry.inode == *inode) {
            assert_eq!(entry.mode, mode, "{name}");
        }
    }

    /// Nothing in the directory has changed but what was granted, and what was to go has gone.
    fn explain(&self, granted: &Granted) {
        let now = self.place.entries();
        let file = self.place.read(CONFIG);
        assert_eq!(file, ALL[self.written].text.as_bytes(), "the configuration");
        let names = self
            .before
            .keys()
            .chain(now.keys().filter(|name| !self.before.contains_key(*name)));
        for name in names {
            let (before, after) = (self.before.get(name), now.get(name));
            let is_made = self.made.get(name);
            let goes =
                granted.removed.contains(name) && before.is_some_and(|before| is_made == Some(&before.inode));
            let is_right = match (before, after) {
                (Some(_), after) if goes => after.is_none(),
                (_, Some(after)) if granted.made.as_ref().is_some_and(|made| made.0 == *name) => {
                    let mode = granted.made.as_ref().map(|made| made.1);
                    after.is_socket
                        && Some(after.mode) == mode
                        && before.is_none_or(|before| before.is_socket)
                }
                (Some(before), Some(after)) if name == CONFIG && granted.config => before.mode == after.mode,
                (Some(before), Some(after)) => {
                    let mode = granted.mode.as_ref().filter(|mode| mode.0 == *name);
                    let mode = mode.map_or(before.mode, |mode| mode.1);
                    *after == place::Entry { mode, ..*before } || after == before
                }
                (_, _) => false,
            };
            assert!(is_right, "{name}: {before:?} became {after:?} by {granted:?}");
        }
    }

    /// What was removed is the broker's no more.
    fn forget(&mut self, granted: &Granted) {
        for name in &granted.removed {
            self.made.remove(name);
        }
    }
}

/// A socket towards servers is of the kind that was asked for, and goes nowhere yet.
fn is_of(socket: &Socket, kind: SocketKind) {
    let of = match kind.protocol {
        Protocol::Tcp => Type::STREAM,
        Protocol::Udp => Type::DGRAM,
    };
    assert_eq!(socket.r#type().expect("its type"), of);
    let addr = socket.local_addr().expect("its address");
    let (domain, addr) = (addr.domain(), addr.as_socket().expect("an IP address"));
    assert_eq!(domain == Domain::IPV4, kind.family == IpFamily::V4);
    assert!(addr.ip().is_unspecified() && addr.port() == 0, "bound to {addr}");
    assert!(socket.peer_addr().is_err(), "connected");
    assert_eq!(socket.mark().expect("its mark"), kind.mark.map_or(0, u32::from));
    if kind.family == IpFamily::V4 {
        let is_transparent = socket.ip_transparent_v4().expect("an option");
        assert_eq!(is_transparent, kind.is_transparent);
    }
}
