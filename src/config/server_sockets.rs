//! Where connections to servers come from, and the sockets that this takes.

use std::{collections::BTreeSet, net::SocketAddr};

use super::{
    model::{Backend, Config, Frontend},
    source::SourceAddress,
    users::Users,
};
use crate::base::{IpFamily, ListenRange, ServerAddr, SocketKind};

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
    /// The servers of a family.
    pub fn servers_of(&self, family: IpFamily) -> impl Iterator<Item = ServerAddr> {
        let addresses = self.servers.values().map(|server| server.addr);
        addresses.filter(move |addr| IpFamily::of(addr.0.ip()) == family)
    }
}

impl Config {
    /// The transparent sockets that its frontends need.
    #[must_use]
    pub fn socket_kinds(&self) -> BTreeSet<SocketKind> {
        self.transparent()
            .flat_map(|(frontend, servers)| {
                servers.into_iter().map(|server| SocketKind {
                    protocol: frontend.protocol,
                    family: IpFamily::of(server.0.ip()),
                })
            })
            .collect()
    }

    /// The frontends whose servers see the clients' addresses, each with its servers, sorted.
    pub fn transparent(&self) -> impl Iterator<Item = (&Frontend, BTreeSet<ServerAddr>)> {
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
            let servers = backends.flat_map(|backend| backend.servers.values());
            (&**frontend, servers.map(|server| server.addr).collect())
        })
    }
}
