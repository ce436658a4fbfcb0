//! Which discovered servers a backend may have: by its settings and the frontends that use it.

use std::{collections::BTreeSet, net::IpAddr, path::Path};

use super::{
    address::{lacks_zone, not_of_one_host},
    model::{Config, DsrMethod, Mode, Server},
    raw::is_tls_name,
    tls::ServerNameFrom,
    users::MOST_FALLBACKS,
};
use crate::{
    access::Network,
    base::{BackendName, IpServerAddr, ListenAddr, ListenRange, SocketPath},
};

/// Why a discovered server is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unfit {
    /// A wildcard, multicast or broadcast address.
    NoHost,
    /// A loopback address.
    Loopback,
    /// An address of one link without its interface, or one that is not let in.
    LinkLocal,
    /// An address of this host.
    ThisHost,
    /// An address and port that a frontend listens on, or the address of a VIP.
    Frontend,
    /// Not in `servers_within`.
    Outside,
    /// The other family than `source_addr`.
    Family,
    /// Another port than the frontends in mode dsr.
    Port,
    /// No room for the frontend's range of ports.
    Range,
    /// No host name, where TLS asks for servers by their names.
    Name,
}

/// Which discovered servers a backend may have; made of a configuration.
#[derive(Debug, Clone, Default)]
pub struct ServerRules {
    max_servers: usize,
    within: Vec<Network>,
    /// What proxied frontends that use it listen on.
    listen: Vec<ListenRange>,
    /// Addresses of VIPs and NAT, which no server may have.
    ours: BTreeSet<IpAddr>,
    /// Whether a frontend in a packet mode uses it.
    by_packets: bool,
    /// Ports that frontends in mode dsr listen on, by whether they are IPv4; a server must have the same.
    dsr_ports: BTreeSet<(bool, u16)>,
    /// How far the last port of the widest range is from its first.
    furthest: u16,
    /// Of `source_addr`.
    is_ipv4: Option<bool>,
    /// Whether servers are asked for by their names.
    by_name: bool,
}

impl Unfit {
    /// Why, in words: "1.2.3.4:80 …".
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::NoHost => "is not the address of one host",
            Self::Loopback => "is a loopback address",
            Self::LinkLocal => "is a link-local address",
            Self::ThisHost => "is an address of this host",
            Self::Frontend => "is an address of a frontend",
            Self::Outside => "is not in servers_within",
            Self::Family => "is not of the family of source_addr",
            Self::Port => "has another port than the frontend in mode dsr",
            Self::Range => "has too high a port for the frontend's range",
            Self::Name => "has no host name for a name, which server_name = \"server\" needs",
        }
    }
}

impl Config {
    /// Every file that a source of servers is, or needs.
    pub(crate) fn discovery_files(&self) -> impl Iterator<Item = &Path> {
        let sources = (self.backends.values()).filter_map(|backend| backend.discovery.as_ref());
        sources.flat_map(|discovery| discovery.source.files())
    }

    /// Every unix socket that a source of servers is asked at.
    pub(crate) fn source_sockets(&self) -> impl Iterator<Item = SocketPath> {
        let sources = (self.backends.values()).filter_map(|backend| backend.discovery.as_ref());
        sources.filter_map(|discovery| discovery.source.socket())
    }

    /// Which servers a backend with `[discovery]` may discover; `None` without it.
    #[must_use]
    pub fn server_rules(&self, backend: &str) -> Option<ServerRules> {
        let backend = self.backends.get(backend)?;
        let discovery = backend.discovery.as_ref()?;
        let mut rules = ServerRules {
            max_servers: usize::try_from(discovery.max_servers.get()).unwrap_or(usize::MAX),
            within: discovery.servers_within.clone(),
            is_ipv4: backend.source_addr.map(|ip| ip.is_ipv4()),
            by_name: (backend.tls.as_ref()).is_some_and(|tls| tls.server_name == ServerNameFrom::Server),
            ours: self.packet.nat_addresses.iter().copied().collect(),
            ..ServerRules::default()
        };
        for frontend in self.frontends.values() {
            let is_packet = frontend.mode.is_packet();
            if is_packet {
                rules.ours.extend(frontend.listen.iter().map(|range| range.ip()));
            }
            if !self.leads_to(&frontend.backend, is_packet, &backend.name)
                && !(frontend.targets()).any(|target| self.leads_to(target, is_packet, &backend.name))
            {
                continue;
            }
            rules.by_packets |= is_packet;
            if !is_packet {
                rules.listen.extend(&frontend.listen);
            }
            let is_mapped = frontend.mode != Mode::Dsr || backend.dsr_method == DsrMethod::Nft;
            for range in &frontend.listen {
                let ports = range.ports();
                if is_mapped {
                    rules.furthest = rules.furthest.max(ports.last.saturating_sub(ports.first));
                } else {
                    rules.dsr_ports.insert((range.ip().is_ipv4(), ports.first));
                }
            }
        }
        Some(rules)
    }

    /// Whether connections to one backend may end at another: itself, or a fallback of mode proxy.
    fn leads_to(&self, from: &BackendName, is_packet: bool, to: &BackendName) -> bool {
        let next = |name: &&BackendName| self.backends.get(*name)?.fallback.as_ref();
        let most = if is_packet { 0 } else { MOST_FALLBACKS };
        std::iter::successors(Some(from), next)
            .take(1 + most)
            .any(|name| name == to)
    }
}

impl ServerRules {
    /// Most servers.
    #[must_use]
    pub const fn max_servers(&self) -> usize {
        self.max_servers
    }

    /// Whether a frontend in a packet mode uses the backend, so that names and limits of its servers mean nothing.
    #[must_use]
    pub const fn are_for_packets(&self) -> bool {
        self.by_packets
    }

    /// Why a server may not be taken on a host with these addresses; `None` if it may.
    #[must_use]
    pub fn unfit(&self, server: &Server, host: &BTreeSet<IpAddr>) -> Option<Unfit> {
        let is_named = !self.by_name || is_tls_name(server.name.as_str());
        let unfit = (!is_named).then_some(Unfit::Name);
        match server.addr.on_network() {
            Some(addr) => self.unfit_address(addr, host).or(unfit),
            // no source names a path
            None => Some(Unfit::NoHost),
        }
    }

    /// Why no server at an address may be taken on a host with these addresses; `None` if it may.
    #[must_use]
    pub fn unfit_address(&self, addr: IpServerAddr, host: &BTreeSet<IpAddr>) -> Option<Unfit> {
        let (socket, zone) = (addr.0, addr.zone());
        let ip = socket.ip();
        let is_named = self.within.iter().any(|network| network.has(ip));
        let by_default = self.within.is_empty();
        if ip.is_loopback() {
            if by_default || self.by_packets {
                return Some(Unfit::Loopback);
            }
        } else if not_of_one_host(ip).is_some() {
            return Some(Unfit::NoHost);
        }
        if is_link_local(ip) && (by_default || self.by_packets || lacks_zone(socket, zone)) {
            return Some(Unfit::LinkLocal);
        }
        if self.ours.contains(&ip) {
            return Some(Unfit::Frontend);
        }
        if (by_default || self.by_packets) && host.contains(&ip) {
            return Some(Unfit::ThisHost);
        }
        if !by_default && !is_named {
            return Some(Unfit::Outside);
        }
        let is_ours = |range: &ListenRange| {
            let wildcard = range.ip().is_unspecified() && (host.contains(&ip) || ip.is_loopback());
            let same = range.offset(ListenAddr::new(socket)).is_some();
            same || (wildcard && range.ports().contains(socket.port()))
        };
        if self.listen.iter().any(is_ours) {
            return Some(Unfit::Frontend);
        }
        if self.is_ipv4.is_some_and(|is_ipv4| is_ipv4 != ip.is_ipv4()) {
            return Some(Unfit::Family);
        }
        let mut dsr = self.dsr_ports.iter();
        if dsr.any(|(is_ipv4, port)| *is_ipv4 == ip.is_ipv4() && *port != socket.port()) {
            return Some(Unfit::Port);
        }
        if socket.port() > u16::MAX - self.furthest {
            return Some(Unfit::Range);
        }
        None
    }
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Options, Source, load};

    fn rules(text: &str) -> ServerRules {
        let source = Source {
            name: "c.toml".to_owned(),
            bytes: text.into(),
        };
        let config = load(&source, Options::default()).unwrap().config;
        config.server_rules("web").unwrap()
    }

    const PROXY: &str = "[frontends.web]\nlisten_addr = \"0.0.0.0:80\"\nbackend = \"web\"\n\
        [frontends.vip]\nlisten_addr = \"192.0.2.9:80\"\nmode = \"passthrough\"\nbackend = \"other\"\n\
        [backends.other]\nservers.a.addr = \"10.9.9.9:80\"\n\
        [backends.web.discovery]\nkind = \"file\"\npath = \"/w\"\n";

    fn unfit(rules: &ServerRules, addr: &str) -> Option<Unfit> {
        let host = ["127.0.0.1", "10.0.0.254", "::1"];
        let host = host.iter().map(|ip| ip.parse().unwrap()).collect();
        rules.unfit_address(addr.parse().unwrap(), &host)
    }

    #[test]
    fn by_default_a_server_is_another_host() {
        let rules = rules(PROXY);
        for (addr, why) in [
            ("10.0.0.1:80", None),
            ("[2001:db8::1]:80", None),
            ("127.0.0.9:80", Some(Unfit::Loopback)),
            ("[::1]:80", Some(Unfit::Loopback)),
            ("0.0.0.0:80", Some(Unfit::NoHost)),
            ("224.0.0.1:80", Some(Unfit::NoHost)),
            ("255.255.255.255:80", Some(Unfit::NoHost)),
            ("169.254.1.1:80", Some(Unfit::LinkLocal)),
            ("[fe80::1%eth0]:80", Some(Unfit::LinkLocal)),
            ("10.0.0.254:81", Some(Unfit::ThisHost)),
            ("192.0.2.9:443", Some(Unfit::Frontend)),
        ] {
            assert_eq!(unfit(&rules, addr), why, "{addr}");
        }
    }

    #[test]
    fn named_networks_are_let_in_and_no_others_but_never_the_frontend_itself() {
        let rules = rules(&format!(
            "{PROXY}servers_within = [\"127.0.0.0/8\", \"10.0.0.0/24\", \"fe80::/10\"]\n"
        ));
        for (addr, why) in [
            ("127.0.0.9:8080", None),
            ("10.0.0.254:8080", None),
            ("[fe80::1%eth0]:80", None),
            ("[fe80::1]:80", Some(Unfit::LinkLocal)),
            ("10.0.1.1:80", Some(Unfit::Outside)),
            ("[::1]:80", Some(Unfit::Outside)),
            ("127.0.0.1:80", Some(Unfit::Frontend)),
            ("10.0.0.254:80", Some(Unfit::Frontend)),
            ("10.0.0.1:80", None),
        ] {
            assert_eq!(unfit(&rules, addr), why, "{addr}");
        }
    }

    #[test]
    fn the_packet_modes_ask_for_ports_and_other_hosts() {
        let dsr = PROXY
            .replace("\"0.0.0.0:80\"", "\"192.0.2.1:80\"\nmode = \"dsr\"")
            .replace("192.0.2.9", "192.0.2.2");
        let within = rules(&format!("{dsr}servers_within = [\"0.0.0.0/0\"]\n"));
        for (addr, why) in [
            ("10.0.0.1:80", None),
            ("10.0.0.1:81", Some(Unfit::Port)),
            ("10.0.0.254:80", Some(Unfit::ThisHost)),
            ("127.0.0.1:80", Some(Unfit::Loopback)),
            ("192.0.2.1:80", Some(Unfit::Frontend)),
        ] {
            assert_eq!(unfit(&within, addr), why, "{addr}");
        }
        let range = PROXY.replace("0.0.0.0:80", "0.0.0.0:8000-8009");
        assert_eq!(unfit(&rules(&range), "10.0.0.1:65526"), None);
        assert_eq!(unfit(&rules(&range), "10.0.0.1:65527"), Some(Unfit::Range));
    }
}
