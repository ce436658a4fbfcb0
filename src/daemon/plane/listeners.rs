//! What is listened on, what a reload has to add and remove, and what systemd keeps over a restart.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    os::fd::{AsFd as _, OwnedFd},
};

use crate::{
    base::{Endpoint, ListenAddr, PeerTimeouts, Protocol, SocketOptions, Zone},
    config::Config,
    privilege::{BrokerError, Client, ListenerRef},
    sys::{
        inherited::{self, Inherited},
        listener, udp_socket,
    },
};

/// Endpoints of frontends that workers accept on, with the number of their sockets.
#[derive(Debug, Default)]
pub struct Listeners(BTreeMap<Endpoint, usize>);

/// What a configuration needs of listeners beyond those that there are.
#[derive(Debug, Default)]
pub struct Missing {
    /// New endpoints: what the broker is asked for, and what their sockets have.
    wanted: BTreeMap<Endpoint, (ListenerRef, Wanted)>,
    /// Endpoints that the configuration no longer has.
    removed: Vec<Endpoint>,
}

/// What the sockets of an endpoint have.
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
    /// New endpoints with at least one socket for each worker.
    pub added: BTreeMap<Endpoint, Vec<OwnedFd>>,
    /// Endpoints that the configuration no longer has.
    pub removed: Vec<Endpoint>,
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
        for (endpoint, (reference, has)) in self.wanted {
            let mut sockets = predecessors.take_endpoint(endpoint, has);
            while sockets.len() < workers {
                sockets.push(broker.bind(reference.clone()).await?);
            }
            added.insert(endpoint, sockets);
        }
        Ok(PreparedListeners {
            added,
            removed: self.removed,
        })
    }
}

/// Listening sockets of the process before this one, which the service manager kept (DESIGN §4, Restart): clients that
/// came in between wait in their queues.
#[derive(Debug, Default)]
pub struct Predecessors {
    sockets: BTreeMap<Endpoint, Vec<OwnedFd>>,
    /// Names under which nothing need be kept: those of what is no listener of ours, and those that another version of
    /// Convey gave to one.
    outdated: BTreeSet<String>,
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
            let endpoint = endpoint_of(&fd, &name);
            if endpoint.map(kept_as).as_ref() != Some(&name) {
                all.outdated.insert(name);
            }
            if let Some(endpoint) = endpoint {
                all.sockets.entry(endpoint).or_default().push(fd);
            }
        }
        all
    }

    /// Ports that their sockets listen on.
    pub fn ports(&self) -> impl Iterator<Item = (Protocol, u16)> {
        let endpoints = self.sockets.keys();
        endpoints.map(|endpoint| (endpoint.protocol, endpoint.port()))
    }

    /// What they listen on.
    pub fn endpoints(&self) -> impl Iterator<Item = Endpoint> {
        self.sockets.keys().copied()
    }

    /// Ends the listeners that nobody has taken; the names of all descriptors that need not be kept any longer.
    pub fn end(self) -> Vec<String> {
        let mut names = self.outdated;
        for (endpoint, sockets) in self.sockets {
            for socket in sockets {
                // one of UDP ends where nobody keeps it
                listener::end(socket.as_fd());
            }
            names.insert(kept_as(endpoint));
        }
        names.into_iter().collect()
    }

    fn take_endpoint(&mut self, endpoint: Endpoint, wanted: Wanted) -> Vec<OwnedFd> {
        let mut sockets = self.sockets.remove(&endpoint).unwrap_or_default();
        let is_as_wanted = |socket: &OwnedFd| listener::has_chosen(socket.as_fd(), wanted.options);
        if !sockets.iter().all(is_as_wanted) {
            tracing::info!(
                event = "listener_not_taken_over",
                "the inherited sockets of {endpoint} have another mark or other buffers: it is opened anew"
            );
            for socket in sockets {
                listener::end(socket.as_fd());
            }
            self.outdated.insert(kept_as(endpoint));
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
}

/// What a socket listens on. Of an interface by its number or by its name, whichever it is kept as: the socket knows both.
/// `None` too if its interface is gone: nothing comes to it any more, not even if there is one of that name again.
fn endpoint_of(fd: &OwnedFd, name: &str) -> Option<Endpoint> {
    let tcp = listener::address_of(fd.as_fd()).map(Endpoint::tcp);
    let by_number = tcp.or_else(|| udp_socket::address_of(fd.as_fd()).map(Endpoint::udp))?;
    let has_number = matches!(by_number.addr.0, SocketAddr::V6(addr) if addr.scope_id() != 0);
    if has_number && kept_as(by_number) == name {
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
    /// What `config` needs beyond what we have. Endpoints that stay are not touched, whatever frontend has them.
    #[must_use]
    pub fn missing(&self, config: &Config) -> Missing {
        let proxied = config.frontends.values().filter(|f| !f.mode.is_packet());
        let wanted: BTreeMap<Endpoint, _> = proxied
            .flat_map(|frontend| frontend.endpoints().map(move |endpoint| (endpoint, frontend)))
            .collect();
        let gone = self.0.keys().filter(|endpoint| !wanted.contains_key(endpoint));
        let removed = gone.copied().collect();
        let new = wanted
            .into_iter()
            .filter(|(endpoint, _)| !self.0.contains_key(endpoint));
        let wanted = new.map(|(endpoint, frontend)| {
            let reference = ListenerRef::frontend(&frontend.name, endpoint);
            let wanted = Wanted {
                timeouts: frontend.client_timeouts(),
                options: frontend.client_socket,
            };
            (endpoint, (reference, wanted))
        });
        Missing {
            wanted: wanted.collect(),
            removed,
        }
    }

    /// Notes an endpoint that is listened on now, by so many sockets.
    pub fn insert(&mut self, endpoint: Endpoint, sockets: usize) {
        self.0.insert(endpoint, sockets);
    }

    /// Notes an endpoint that is no longer listened on.
    pub fn remove(&mut self, endpoint: Endpoint) {
        self.0.remove(&endpoint);
    }

    /// Number of sockets.
    pub fn sockets(&self) -> usize {
        self.0.values().sum()
    }

    /// Takes all of them out.
    pub fn take_all(&mut self) -> Vec<Endpoint> {
        std::mem::take(&mut self.0).into_keys().collect()
    }
}

/// The name under which the service manager keeps the sockets of an endpoint (`FDNAME=`; a colon separates such names).
///
/// A contract with other versions, which forget what they do not want by this name: no released form of it may change.
/// They take over by what a socket listens on, whatever its name.
pub fn kept_as(endpoint: Endpoint) -> String {
    let addr = endpoint.addr;
    let name = match endpoint.protocol {
        Protocol::Tcp => format!("listener {addr}"),
        Protocol::Udp => format!("listener udp {addr}"),
    };
    name.replace(':', "_")
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
            assert_eq!(kept_as(endpoint), name);
        }
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
        let mut predecessors = Predecessors::of(vec![kept(kept_as(endpoint), socket)]);
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
        let mut predecessors = Predecessors::of(vec![kept(kept_as(endpoint), socket)]);
        let taken = predecessors.take_endpoint(endpoint, Wanted::default());
        let socket = std::net::UdpSocket::from(taken.into_iter().next().unwrap());
        assert_eq!(socket.recv(&mut [0; 20]).unwrap(), 9);
        assert!(predecessors.end().is_empty());
    }

    #[test]
    fn a_listener_with_another_mark_than_the_configuration_says_is_opened_anew() {
        let (endpoint, socket, manager) = listening();
        let mut predecessors = Predecessors::of(vec![kept(kept_as(endpoint), socket)]);
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
        assert_eq!(predecessors.end(), [kept_as(endpoint)]);
    }

    #[test]
    fn what_no_version_listens_with_is_kept_no_longer() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let name = kept_as(Endpoint::udp(socket.local_addr().unwrap()));
        let predecessors = Predecessors::of(vec![kept(&name, socket)]);
        assert_eq!(predecessors.endpoints().count(), 0);
        assert_eq!(predecessors.end(), [name]);
    }

    #[test]
    fn listeners_that_nobody_takes_are_ended() {
        let (endpoint, socket, manager) = listening();
        let (pipe, _end) = std::io::pipe().unwrap();
        let predecessors = Predecessors::of(vec![kept(kept_as(endpoint), socket), kept("map", pipe)]);
        assert_eq!(predecessors.end(), [kept_as(endpoint), "map".to_owned()]);
        assert_eq!(listener::address_of(manager.as_fd()), None);
    }
}
