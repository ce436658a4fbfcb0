//! What is listened on, what a reload has to add and remove, and what systemd keeps over a restart.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    os::fd::{AsFd as _, OwnedFd},
};

use super::socket_files::NewFiles;
use crate::{
    base::{Endpoint, ListenAddr, ListenerId, PeerTimeouts, Protocol, SocketOptions, SocketPath, Zone},
    config::Config,
    engine::xdp::load,
    privilege::{BrokerError, Client, ListenerRef},
    sys::{
        inherited::{self, Inherited},
        listener, socket_file, udp_socket,
    },
};

/// What frontends listen on, with the number of its sockets.
#[derive(Debug, Default)]
pub struct Listeners(BTreeMap<ListenerId, usize>);

/// What a configuration needs of listeners beyond those that there are.
#[derive(Debug, Default)]
pub struct Missing {
    /// New ones: what the broker is asked for, and what their sockets have.
    wanted: BTreeMap<ListenerId, (ListenerRef, Wanted)>,
    /// Those that the configuration no longer has.
    removed: Vec<ListenerId>,
}

/// What the sockets of an address have.
#[derive(Debug, Clone, Copy, Default)]
struct Wanted {
    /// When their connections are given up.
    timeouts: PeerTimeouts,
    /// What only the broker can set.
    options: SocketOptions,
}

/// Sockets made for a configuration that is not in effect yet; dropping it closes them.
#[derive(Debug)]
pub struct PreparedListeners {
    /// New ones with at least one socket for each worker.
    pub added: BTreeMap<ListenerId, Vec<OwnedFd>>,
    /// Those that the configuration no longer has.
    pub removed: Vec<ListenerId>,
    /// The files of new unix sockets.
    pub files: NewFiles,
}

impl Missing {
    /// Makes the listeners, of a predecessor's sockets as far as they go.
    ///
    /// # Errors
    /// The first endpoint that could not be bound; nothing new is left bound.
    pub async fn bind(
        self,
        broker: &Client,
        workers: usize,
        predecessors: &mut Predecessors,
    ) -> Result<PreparedListeners, BrokerError> {
        let mut added = BTreeMap::new();
        let mut files = NewFiles::new(broker);
        for (id, (reference, has)) in self.wanted {
            let sockets = match id {
                ListenerId::Network(endpoint) => {
                    let mut sockets = predecessors.take_endpoint(endpoint, has);
                    while sockets.len() < workers {
                        sockets.push(broker.bind(reference.clone()).await?);
                    }
                    sockets
                }
                ListenerId::Unix(path) => {
                    let before = predecessors.take_socket(path);
                    files.sockets(path, reference, before, workers).await?
                }
            };
            added.insert(id, sockets);
        }
        Ok(PreparedListeners {
            added,
            removed: self.removed,
            files,
        })
    }
}

/// Listening sockets of the process before this one, which the service manager kept (DESIGN §4, Restart): clients that
/// came in between wait in their queues.
#[derive(Debug, Default)]
pub struct Predecessors {
    sockets: BTreeMap<ListenerId, Vec<OwnedFd>>,
    /// Names under which nothing need be kept: those of what is no listener of ours, and those that another version of
    /// Convey gave to one.
    outdated: BTreeSet<String>,
    /// What is the broker's.
    for_broker: Vec<(String, OwnedFd)>,
    /// Whether there was any of that.
    had_program: bool,
}

impl Predecessors {
    /// Takes over what was kept, under whatever name: what a socket listens on it says itself. Must be called before
    /// anything opens a descriptor.
    ///
    /// # Errors
    /// What the service manager says about them is not so.
    pub fn take() -> std::io::Result<Self> {
        Ok(Self::of(inherited::take()?))
    }

    fn of(inherited: Vec<Inherited>) -> Self {
        let mut all = Self::default();
        for Inherited { name, fd } in inherited {
            if name.starts_with(load::KEPT) {
                all.for_broker.push((name, fd));
                all.had_program = true;
                continue;
            }
            let id = listener_of(&fd, &name);
            if id.map(kept_as).as_ref() != Some(&name) {
                all.outdated.insert(name);
            }
            if let Some(id) = id {
                all.sockets.entry(id).or_default().push(fd);
            }
        }
        all
    }

    /// What the broker goes on with, by the names under which it was kept.
    pub fn take_for_broker(&mut self) -> Vec<(String, OwnedFd)> {
        std::mem::take(&mut self.for_broker)
    }

    /// Whether the broker got a program in the kernel.
    pub const fn had_program(&self) -> bool {
        self.had_program
    }

    /// Ports that their sockets listen on.
    pub fn ports(&self) -> impl Iterator<Item = (Protocol, u16)> {
        let endpoints = self.sockets.keys().filter_map(|id| id.endpoint());
        endpoints.map(|endpoint| (endpoint.protocol, endpoint.port()))
    }

    /// What they listen on.
    pub fn listeners(&self) -> impl Iterator<Item = ListenerId> {
        self.sockets.keys().copied()
    }

    /// Ends the listeners that nobody has taken; the names of all descriptors that need not be kept any longer.
    pub fn end(self) -> Vec<String> {
        let mut names = self.outdated;
        for (id, sockets) in self.sockets {
            for socket in sockets {
                // one of UDP ends where nobody keeps it
                listener::end(socket.as_fd());
            }
            names.insert(kept_as(id));
        }
        names.into_iter().collect()
    }

    fn take_endpoint(&mut self, endpoint: Endpoint, wanted: Wanted) -> Vec<OwnedFd> {
        let mut sockets = self.sockets.remove(&endpoint.into()).unwrap_or_default();
        let is_as_wanted = |socket: &OwnedFd| listener::has_chosen(socket.as_fd(), wanted.options);
        if !sockets.iter().all(is_as_wanted) {
            tracing::info!(
                event = "listener_not_taken_over",
                "the inherited sockets of {endpoint} have another mark or other buffers: it is opened anew"
            );
            for socket in sockets {
                listener::end(socket.as_fd());
            }
            self.outdated.insert(kept_as(endpoint.into()));
            return Vec::new();
        }
        sockets.retain(|socket| {
            let taken = match endpoint.protocol {
                Protocol::Tcp => listener::take_over(socket.as_fd(), wanted.timeouts),
                Protocol::Udp => udp_socket::take_over(socket.as_fd(), endpoint.addr.0),
            };
            if let Err(error) = &taken {
                tracing::warn!(
                    event = "listener_not_taken_over",
                    "cannot use the inherited socket of {endpoint}: {error}"
                );
                listener::end(socket.as_fd());
            }
            taken.is_ok()
        });
        sockets
    }

    /// The one at a path; others that were there are ended.
    fn take_socket(&mut self, path: SocketPath) -> Option<OwnedFd> {
        let mut sockets = self.sockets.remove(&ListenerId::Unix(path))?;
        let socket = sockets.pop();
        for other in sockets {
            listener::end(other.as_fd());
        }
        socket
    }
}

/// What a socket listens on.
fn listener_of(fd: &OwnedFd, name: &str) -> Option<ListenerId> {
    let endpoint = endpoint_of(fd, name).map(ListenerId::Network);
    endpoint.or_else(|| {
        let path = socket_file::path_of(fd)?;
        SocketPath::new(path.to_str()?).ok().map(ListenerId::Unix)
    })
}

/// What a socket listens on on a network. Of an interface by its number or by its name, whichever it is kept as: the socket knows both.
/// `None` too if its interface is gone: nothing comes to it any more, not even if there is one of that name again.
fn endpoint_of(fd: &OwnedFd, name: &str) -> Option<Endpoint> {
    let tcp = listener::address_of(fd.as_fd()).map(Endpoint::tcp);
    let by_number = tcp.or_else(|| udp_socket::address_of(fd.as_fd()).map(Endpoint::udp))?;
    let has_number = matches!(by_number.addr.0, SocketAddr::V6(addr) if addr.scope_id() != 0);
    if has_number && kept_as(by_number.into()) == name {
        return Some(by_number);
    }
    let interface = listener::interface_of(fd.as_fd()).ok()?;
    let zone = interface.as_deref().and_then(Zone::new);
    Some(zone.map_or(by_number, |zone| Endpoint {
        addr: ListenAddr::zoned(by_number.addr.0, zone),
        ..by_number
    }))
}

impl Listeners {
    /// What `config` needs beyond what we have. Listeners that stay are not touched, whatever frontend has them.
    #[must_use]
    pub fn missing(&self, config: &Config) -> Missing {
        let proxied = config.frontends.values().filter(|f| !f.mode.is_packet());
        let wanted: BTreeMap<ListenerId, _> = proxied
            .flat_map(|frontend| frontend.listeners().map(move |id| (id, frontend)))
            .collect();
        let gone = self.0.keys().filter(|id| !wanted.contains_key(id));
        let removed = gone.copied().collect();
        let new = wanted.into_iter().filter(|(id, _)| !self.0.contains_key(id));
        let wanted = new.map(|(id, frontend)| {
            let reference = ListenerRef::frontend(&frontend.name, id);
            let wanted = Wanted {
                timeouts: frontend.client_timeouts(),
                options: frontend.client_socket,
            };
            (id, (reference, wanted))
        });
        Missing {
            wanted: wanted.collect(),
            removed,
        }
    }

    /// Notes what is listened on now, by so many sockets.
    pub fn insert(&mut self, id: ListenerId, sockets: usize) {
        self.0.insert(id, sockets);
    }

    /// Notes what is no longer listened on.
    pub fn remove(&mut self, id: ListenerId) {
        self.0.remove(&id);
    }

    /// Number of sockets.
    pub fn sockets(&self) -> usize {
        self.0.values().sum()
    }

    /// Takes all of them out.
    pub fn take_all(&mut self) -> Vec<ListenerId> {
        std::mem::take(&mut self.0).into_keys().collect()
    }
}

/// The name under which the service manager keeps the sockets of a listener (`FDNAME=`; a colon separates such names).
///
/// A contract with other versions, which forget what they do not want by this name: no released form of it may change.
/// They take over by what a socket listens on, whatever its name.
pub fn kept_as(id: ListenerId) -> String {
    let path = match id {
        ListenerId::Network(Endpoint {
            addr,
            protocol: Protocol::Tcp,
        }) => return format!("listener {addr}").replace(':', "_"),
        ListenerId::Network(Endpoint {
            addr,
            protocol: Protocol::Udp,
        }) => return format!("listener udp {addr}").replace(':', "_"),
        ListenerId::Unix(path) => path,
    };
    let is_plain = |c: char| c == ' ' || (c.is_ascii_graphic() && c != ':');
    let shown: String = (path.as_str().chars())
        .map(|c| if is_plain(c) { c } else { '_' })
        .collect();
    // what only the number tells apart
    let number = (path.as_str().bytes()).fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    if shown == path.as_str() {
        format!("listener unix {shown}")
    } else {
        format!("listener unix {shown} {number:016x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_kept_sockets_are_those_of_every_version_and_have_no_colon() {
        let addr = |text: &str| text.parse().unwrap();
        for (endpoint, name) in [
            (Endpoint::tcp(addr("192.0.2.1:80")), "listener 192.0.2.1_80"),
            (
                Endpoint::tcp(addr("[2001:db8::1]:443")),
                "listener [2001_db8__1]_443",
            ),
            (Endpoint::udp(addr("192.0.2.1:53")), "listener udp 192.0.2.1_53"),
        ] {
            assert_eq!(kept_as(endpoint.into()), name);
        }
        let at = |path: &str| kept_as(ListenerId::Unix(SocketPath::new(path).unwrap()));
        assert_eq!(
            at("/run/convey/web one.sock"),
            "listener unix /run/convey/web one.sock"
        );
        // the manager's names are ASCII, and never those of two sockets
        let (one, other) = (at("/run/ä:.sock"), at("/run/ö:.sock"));
        assert!(
            one.starts_with("listener unix /run/__.sock ") && one.is_ascii() && !one.contains(':'),
            "{one}"
        );
        assert_ne!(one, other);
    }

    /// A listening socket, with the service manager's copy of it.
    fn listening() -> (Endpoint, OwnedFd, OwnedFd) {
        let what = listener::Listen {
            addr: "127.0.0.1:0".parse().unwrap(),
            interface: None,
            timeouts: PeerTimeouts::default(),
            options: SocketOptions::default(),
        };
        let socket = listener::listen(&what).unwrap();
        let addr = listener::address_of(socket.as_fd()).unwrap();
        let manager = socket.try_clone().unwrap();
        (Endpoint::tcp(addr), socket, manager)
    }

    fn kept(name: impl Into<String>, fd: impl Into<OwnedFd>) -> Inherited {
        Inherited {
            name: name.into(),
            fd: fd.into(),
        }
    }

    #[test]
    fn a_listener_is_taken_over_whatever_another_version_called_it() {
        for name in ["listener tcp 127.0.0.1_80", "stored", "80"] {
            let (endpoint, socket, manager) = listening();
            let mut predecessors = Predecessors::of(vec![kept(name, socket)]);
            assert_eq!(predecessors.take_endpoint(endpoint, Wanted::default()).len(), 1);
            // to be kept under today's name instead
            assert_eq!(predecessors.end(), [name]);
            assert_eq!(listener::address_of(manager.as_fd()), Some(endpoint.addr.0));
        }
    }

    #[test]
    fn a_listener_that_this_version_called_so_stays_under_its_name() {
        let (endpoint, socket, _manager) = listening();
        let mut predecessors = Predecessors::of(vec![kept(kept_as(endpoint.into()), socket)]);
        assert_eq!(predecessors.take_endpoint(endpoint, Wanted::default()).len(), 1);
        assert!(predecessors.end().is_empty());
    }

    #[test]
    fn a_socket_of_udp_is_taken_over_with_what_waits_in_it() {
        let socket =
            udp_socket::listen("127.0.0.1:0".parse().unwrap(), None, SocketOptions::default()).unwrap();
        let addr = udp_socket::address_of(socket.as_fd()).unwrap();
        let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        client.send_to(b"meanwhile", addr).unwrap();
        let endpoint = Endpoint::udp(addr);
        let mut predecessors = Predecessors::of(vec![kept(kept_as(endpoint.into()), socket)]);
        let taken = predecessors.take_endpoint(endpoint, Wanted::default());
        let socket = std::net::UdpSocket::from(taken.into_iter().next().unwrap());
        assert_eq!(socket.recv(&mut [0; 20]).unwrap(), 9);
        assert!(predecessors.end().is_empty());
    }

    #[test]
    fn a_listener_with_another_mark_than_the_configuration_says_is_opened_anew() {
        let (endpoint, socket, manager) = listening();
        let mut predecessors = Predecessors::of(vec![kept(kept_as(endpoint.into()), socket)]);
        let wanted = Wanted {
            options: SocketOptions {
                mark: std::num::NonZeroU32::new(7),
                ..SocketOptions::default()
            },
            ..Wanted::default()
        };
        assert!(predecessors.take_endpoint(endpoint, wanted).is_empty());
        assert_eq!(listener::address_of(manager.as_fd()), None);
        // before the new ones are kept under it
        assert_eq!(predecessors.end(), [kept_as(endpoint.into())]);
    }

    #[test]
    fn what_no_version_listens_with_is_kept_no_longer() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let name = kept_as(Endpoint::udp(socket.local_addr().unwrap()).into());
        let predecessors = Predecessors::of(vec![kept(&name, socket)]);
        assert_eq!(predecessors.listeners().count(), 0);
        assert_eq!(predecessors.end(), [name]);
    }

    #[test]
    fn what_is_the_xdp_programs_is_the_brokers_and_stays_kept() {
        let names = ["xdp", "xdp link 7 driver", "xdp"];
        let all = names.map(|name| kept(name, std::io::pipe().unwrap().0));
        let mut predecessors = Predecessors::of(all.into());
        let brokers = predecessors.take_for_broker();
        assert_eq!(brokers.iter().map(|(name, _)| name).collect::<Vec<_>>(), names);
        assert!(predecessors.take_for_broker().is_empty() && predecessors.end().is_empty());
    }

    #[test]
    fn listeners_that_nobody_takes_are_ended() {
        let (endpoint, socket, manager) = listening();
        let (pipe, _end) = std::io::pipe().unwrap();
        let predecessors = Predecessors::of(vec![kept(kept_as(endpoint.into()), socket), kept("map", pipe)]);
        assert_eq!(predecessors.end(), [kept_as(endpoint.into()), "map".to_owned()]);
        assert_eq!(listener::address_of(manager.as_fd()), None);
    }
}
