//! Where connections to servers come from, and the sockets that this takes.

use std::{collections::BTreeSet, net::SocketAddr};

use super::{
    model::{Backend, Config, Frontend, Server},
    source::SourceAddress,
    tls::BackendTls,
    users::Users,
};
use crate::base::{IpFamily, ListenRange, Protocol, ServerAddr, SocketKind};

impl Frontend {
    /// Whether its servers see the clients' own addresses.
    #[must_use]
    pub fn is_transparent(&self) -> bool {
        self.source == SourceAddress::Client
    }

    /// The families in which clients can reach its addresses; those that a PROXY header names may be of either.
    #[must_use]
    pub fn client_families(&self) -> BTreeSet<IpFamily> {
        let families = |range: &ListenRange| match range.first().0 {
            SocketAddr::V4(_) => vec![IpFamily::V4],
            SocketAddr::V6(addr) if addr.ip().is_unspecified() => vec![IpFamily::V4, IpFamily::V6],
            SocketAddr::V6(_) => vec![IpFamily::V6],
        };
        self.listen.iter().flat_map(families).collect()
    }
}

impl Backend {
    /// The kind of socket that a check of a server takes: this host's own address, and the mark; `None` of a unix socket,
    /// which has neither.
    #[must_use]
    pub fn check_socket(&self, server: ServerAddr) -> Option<SocketKind> {
        Some(self.check_socket_of(server.family()?))
    }

    /// The TLS that its checks go over.
    #[must_use]
    pub fn check_tls(&self) -> Option<&BackendTls> {
        let own = self.health_check.as_ref().and_then(|check| check.tls.as_ref());
        own.or(self.tls.as_ref())
    }

    /// The TLS of its connections, and that of its checks where it is another.
    pub fn all_tls(&self) -> impl Iterator<Item = &BackendTls> {
        let checks = self.health_check.as_ref().and_then(|check| check.tls.as_ref());
        self.tls.iter().chain(checks)
    }

    fn check_socket_of(&self, family: IpFamily) -> SocketKind {
        SocketKind {
            protocol: (self.health_check.as_ref()).map_or(Protocol::Tcp, |check| check.check.protocol()),
            family,
            is_transparent: false,
            mark: self.server_socket.common.mark,
        }
    }

    /// The families of the servers that it has or may discover.
    fn server_families(&self) -> BTreeSet<IpFamily> {
        let mut families: BTreeSet<_> = (self.servers.values())
            .filter_map(|server| server.addr.family())
            .collect();
        families.extend((self.servers.values()).filter_map(|server| Some(server.check_addr?.family())));
        if self.discovery.is_some() {
            match self.source_addr {
                Some(source) => families.extend([IpFamily::of(source)]),
                None => families.extend([IpFamily::V4, IpFamily::V6]),
            }
        }
        families
    }

    /// Whether there are servers of a family.
    #[must_use]
    pub fn has_servers_of(&self, family: IpFamily) -> bool {
        let mut servers = self.servers.values();
        servers.any(|server| server.addr.family() == Some(family))
    }

    /// The servers that are unix sockets.
    pub fn unix_servers(&self) -> impl Iterator<Item = &Server> {
        self.servers.values().filter(|server| server.addr.is_unix())
    }
}

impl Config {
    /// The kinds of sockets towards servers that only the broker can make: those of [connections](Self::connection_sockets) and
    /// of [checks](Self::check_sockets).
    #[must_use]
    pub fn socket_kinds(&self) -> BTreeSet<SocketKind> {
        let mut all = self.connection_sockets();
        all.append(&mut self.check_sockets());
        all
    }

    /// Those of health checks.
    #[must_use]
    pub fn check_sockets(&self) -> BTreeSet<SocketKind> {
        let checked = self
            .backends
            .values()
            .filter(|backend| backend.health_check.is_some());
        checked
            .flat_map(|backend| {
                let families = backend.server_families().into_iter();
                families.map(|family| backend.check_socket_of(family))
            })
            .filter(|kind| kind.is_special())
            .collect()
    }

    /// Those of proxied connections.
    #[must_use]
    pub fn connection_sockets(&self) -> BTreeSet<SocketKind> {
        let users = Users::of(self);
        let mut kinds = BTreeSet::new();
        for backend in self.backends.values() {
            let users = users.of_backend(backend.name.as_str());
            for frontend in users.iter().filter(|frontend| !frontend.mode.is_packet()) {
                let families = backend.server_families().into_iter();
                kinds.extend(families.map(|family| SocketKind {
                    protocol: frontend.protocol,
                    family,
                    is_transparent: frontend.is_transparent(),
                    mark: backend.server_socket.common.mark,
                }));
            }
        }
        kinds.retain(|kind| kind.is_special());
        kinds
    }

    /// The frontends whose servers see the clients' addresses, each with the backends that it leads to.
    pub fn transparent(&self) -> impl Iterator<Item = (&Frontend, Vec<&Backend>)> {
        let users = Users::of(self);
        let frontends = self
            .frontends
            .values()
            .filter(|frontend| frontend.is_transparent());
        frontends.map(move |frontend| {
            let backends = self.backends.values().filter(|backend| {
                let users = users.of_backend(backend.name.as_str());
                users.iter().any(|user| user.name == frontend.name)
            });
            (&**frontend, backends.map(|backend| &**backend).collect())
        })
    }
}
