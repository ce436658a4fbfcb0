//! What the packet modes need of the kernel (firewall rules, socket filters), derived from the configuration in one
//! place, so that the daemon, the broker and `convey firewall` mean the same.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use super::model::{Config, Mode};
use crate::base::{
    BackendName, Endpoint, EndpointRange, IpServerAddr, PortMap, PortRange, PortRanges, Protocol, ServerAddr,
    merged,
};

/// One VIP address with its ports, of a frontend in a packet mode.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PacketService {
    /// Where clients send to.
    pub vip: EndpointRange,
    /// Source ports of its flows, in passthrough; `None` in DSR.
    pub nat_ports: Option<PortRanges>,
    /// Its servers of the VIP's family, sorted, each once, by the port that the VIP's first one leads to; its others lead to
    /// those above. In DSR nothing comes back from them through us.
    pub servers: Vec<IpServerAddr>,
}

impl PacketService {
    /// Its part with these of its ports.
    #[must_use]
    pub fn part(&self, ports: PortRange) -> Self {
        let offset = ports.first.wrapping_sub(self.vip.ports().first);
        Self {
            vip: self.vip.with_ports(ports),
            nat_ports: self.nat_ports,
            servers: self.servers.iter().map(|server| server.further(offset)).collect(),
        }
    }

    /// The ports of one of its servers.
    #[must_use]
    pub const fn server_ports(&self, server: IpServerAddr) -> PortRange {
        let ports = self.vip.ports();
        let (first, more) = (server.0.port(), ports.last.saturating_sub(ports.first));
        PortRange {
            first,
            last: first.saturating_add(more),
        }
    }

    /// The server whose port a connection to one of the VIP's leads to, as it is among `servers`.
    #[must_use]
    pub const fn server_of(&self, hit: Endpoint, server: IpServerAddr) -> IpServerAddr {
        let offset = hit.port().wrapping_sub(self.vip.ports().first);
        server.with_port(server.0.port().wrapping_sub(offset))
    }

    /// Whether it has all ports of another at the same address, and what they lead to is told by the same packets.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.vip.with_ports(other.vip.ports()) == other.vip
            && self.vip.ports().covers(other.vip.ports())
            && self.nat_ports == other.nat_ports
    }

    /// Whether it has this server of a service that it [covers](Self::covers), at the same ports.
    #[must_use]
    pub fn has_server_of(&self, other: &Self, server: IpServerAddr) -> bool {
        let own = self.server_of(other.vip.first(), server);
        self.servers.binary_search(&own).is_ok()
    }
}

/// What the frontends in mode proxy listen on.
#[derive(Debug, Clone, Default)]
pub struct ProxiedEndpoints(PortMap<(IpAddr, Protocol), ()>);

impl ProxiedEndpoints {
    /// Whether a listener takes what comes to an address, as its own or as a wildcard; `[::]` takes IPv4 too.
    #[must_use]
    pub fn take(&self, endpoint: Endpoint) -> bool {
        !self.taken(endpoint.into()).is_empty()
    }

    /// The ports of an address that listeners take so.
    #[must_use]
    pub(crate) fn taken(&self, range: EndpointRange) -> Vec<PortRange> {
        let wildcards: [IpAddr; 2] = [Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into()];
        let wildcards = wildcards.into_iter().take(if range.is_ipv4() { 2 } else { 1 });
        let at = |ip| self.0.overlapping(&(ip, range.protocol), range.ports());
        std::iter::once(range.ip())
            .chain(wildcards)
            .flat_map(at)
            .map(|(ports, ())| ports)
            .collect()
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
        // of one address on several interfaces ranges may overlap
        let mut ports: BTreeMap<_, Vec<PortRange>> = BTreeMap::new();
        for range in proxied.flat_map(|frontend| frontend.ranges()) {
            ports
                .entry((range.ip(), range.protocol))
                .or_default()
                .push(range.ports());
        }
        let ranges = ports
            .into_iter()
            .flat_map(|(address, ports)| merged(ports).into_iter().map(move |ports| (address, ports, ())));
        ProxiedEndpoints(ranges.collect())
    }

    /// The services of all frontends in packet modes, sorted, with the servers that the file names.
    #[must_use]
    pub fn packet_services(&self) -> Vec<PacketService> {
        self.packet_services_with(|backend| {
            let servers = self.backends.get(backend).map(|backend| backend.servers.values());
            let addresses = servers.into_iter().flatten().map(|server| server.addr);
            addresses.filter_map(ServerAddr::on_network)
        })
    }

    /// As [`packet_services`](Self::packet_services), with other servers than the file's: those that `servers` names for
    /// a backend.
    #[must_use]
    pub fn packet_services_with<'a, S>(&'a self, servers: impl Fn(&'a BackendName) -> S) -> Vec<PacketService>
    where
        S: Iterator<Item = IpServerAddr>,
    {
        let mut services: Vec<_> = (self.frontends.values())
            .filter(|frontend| frontend.mode.is_packet())
            .flat_map(|frontend| {
                let mut all: Vec<_> = servers(&frontend.backend).collect();
                all.sort_unstable();
                all.dedup();
                frontend.ranges().map(move |vip| {
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
