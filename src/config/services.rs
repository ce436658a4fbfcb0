//! What the packet modes need of the kernel (firewall rules, socket filters), derived from the configuration in one
//! place, so that the daemon, the broker and `convey firewall` mean the same.

use std::{
    collections::HashSet,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

use super::model::{Config, Mode};
use crate::base::{BackendName, Endpoint, ListenAddr, PortRanges, ServerAddr};

/// One VIP address and port of a frontend in a packet mode.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PacketService {
    /// Where clients send to.
    pub vip: Endpoint,
    /// Source ports of its flows, in passthrough; `None` in DSR.
    pub nat_ports: Option<PortRanges>,
    /// Its servers of the VIP's family, sorted, each once. In DSR nothing comes back from them through us.
    pub servers: Vec<ServerAddr>,
}

/// What the frontends in mode proxy listen on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProxiedEndpoints(HashSet<Endpoint>);

impl ProxiedEndpoints {
    /// Whether a listener takes what comes to an address, as its own or as a wildcard; `[::]` takes IPv4 too.
    #[must_use]
    pub fn take(&self, endpoint: Endpoint) -> bool {
        let wildcard = |addr: SocketAddr| {
            self.0.contains(&Endpoint {
                addr: ListenAddr(addr),
                ..endpoint
            })
        };
        let port = endpoint.port();
        self.0.contains(&endpoint)
            || wildcard((Ipv6Addr::UNSPECIFIED, port).into())
            || (endpoint.is_ipv4() && wildcard((Ipv4Addr::UNSPECIFIED, port).into()))
    }
}

impl Config {
    /// What its frontends in mode proxy listen on.
    #[must_use]
    pub fn proxied_endpoints(&self) -> ProxiedEndpoints {
        let proxied = self
            .frontends
            .values()
            .filter(|frontend| !frontend.mode.is_packet());
        ProxiedEndpoints(proxied.flat_map(|frontend| frontend.endpoints()).collect())
    }

    /// The services of all frontends in packet modes, sorted, with the servers that the file names.
    #[must_use]
    pub fn packet_services(&self) -> Vec<PacketService> {
        self.packet_services_with(|backend| {
            let servers = self.backends.get(backend).map(|backend| backend.servers.values());
            servers.into_iter().flatten().map(|server| server.addr)
        })
    }

    /// As [`packet_services`](Self::packet_services), with other servers than the file's: those that `servers` names for
    /// a backend.
    #[must_use]
    pub fn packet_services_with<'a, S>(&'a self, servers: impl Fn(&'a BackendName) -> S) -> Vec<PacketService>
    where
        S: Iterator<Item = ServerAddr>,
    {
        let mut services: Vec<_> = (self.frontends.values())
            .filter(|frontend| frontend.mode.is_packet())
            .flat_map(|frontend| {
                let mut all: Vec<_> = servers(&frontend.backend).collect();
                all.sort_unstable();
                all.dedup();
                frontend.endpoints().map(move |vip| {
                    let servers = (all.iter().copied())
                        .filter(|addr| addr.0.is_ipv4() == vip.is_ipv4())
                        .collect();
                    PacketService {
                        vip,
                        nat_ports: (frontend.mode == Mode::Passthrough).then_some(self.packet.nat_ports),
                        servers,
                    }
                })
            })
            .collect();
        services.sort_unstable();
        services
    }
}
