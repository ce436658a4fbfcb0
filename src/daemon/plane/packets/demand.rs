//! What the packet modes need of the network and the kernel, computed from the configuration, what is in effect, and the
//! network state. No I/O here.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::IpAddr,
};

use crate::{
    base::{Endpoint, FrontendName, ServerAddr},
    config::{Config, PacketService},
    engine::network::{Link, NetworkState, Wanted},
    flow::Resolution,
};

/// What is known of a frontend's endpoint in a packet mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vip {
    /// The frontend.
    pub frontend: FrontendName,
    /// Whether it is served.
    pub state: VipState,
}

/// Whether packets to a VIP reach us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VipState {
    /// They do.
    Live,
    /// They do not.
    Waiting {
        /// Why, in words.
        why: String,
        /// Whether no interface of this host has it: another load balancer may.
        is_elsewhere: bool,
    },
}

/// What live flows use.
pub type InUse = HashSet<(Endpoint, ServerAddr)>;

/// Both lists as one: a service that is in both has the servers of both.
pub fn union(a: &[PacketService], b: &[PacketService]) -> Vec<PacketService> {
    let mut all: BTreeMap<_, BTreeSet<ServerAddr>> = BTreeMap::new();
    for service in a.iter().chain(b) {
        all.entry((service.vip, service.nat_ports))
            .or_default()
            .extend(&service.servers);
    }
    all.into_iter()
        .map(|((vip, nat_ports), servers)| PacketService {
            vip,
            nat_ports,
            servers: servers.into_iter().collect(),
        })
        .collect()
}

/// What is in effect and not in the configuration's services any more.
pub fn leftovers(services: &[PacketService], in_effect: &[PacketService]) -> Vec<PacketService> {
    let services: HashMap<_, _> = (services.iter())
        .map(|service| ((service.vip, service.nat_ports), &service.servers))
        .collect();
    (in_effect.iter())
        .filter_map(|old| {
            let Some(still) = services.get(&(old.vip, old.nat_ports)) else {
                return Some(old.clone());
            };
            // both are sorted
            let servers: Vec<_> = (old.servers.iter().copied())
                .filter(|server| still.binary_search(server).is_err())
                .collect();
            (!servers.is_empty()).then(|| PacketService {
                servers,
                ..old.clone()
            })
        })
        .collect()
}

/// The leftovers that live flows still use. An address that a proxy frontend listens on now is given up at once: its rule
/// would keep clients from the listener.
pub fn kept(
    config: &Config,
    services: &[PacketService],
    in_effect: &[PacketService],
    in_use: &InUse,
) -> Vec<PacketService> {
    let proxied = config.proxied_endpoints();
    leftovers(services, in_effect)
        .into_iter()
        .filter(|old| !proxied.take(old.vip))
        .filter_map(|old| {
            let servers: Vec<_> = (old.servers.iter().copied())
                .filter(|server| in_use.contains(&(old.vip, *server)))
                .collect();
            (!servers.is_empty()).then_some(PacketService { servers, ..old })
        })
        .collect()
}

/// Whether the way to every server is known, or known not to exist.
pub fn is_resolved(wanted: &Wanted, network_state: &NetworkState) -> bool {
    (wanted.servers.iter()).all(|server| {
        let hop = network_state.hops.servers.get(server);
        hop.is_some_and(|hop| !matches!(hop.resolution, Resolution::Unresolved { .. }))
    })
}

/// Interfaces whose packets are needed, with their indexes: those that frontends name or that have their VIPs, and
/// those by which answers of passthrough servers come in.
pub fn interfaces(
    config: &Config,
    services: &[PacketService],
    network_state: &NetworkState,
) -> BTreeMap<String, u32> {
    let named = config.frontends.values().filter(|f| f.mode.is_packet());
    let mut names: BTreeSet<&str> = named.clone().filter_map(|f| f.interface.as_deref()).collect();
    let at_named: HashSet<Endpoint> = named
        .filter(|f| f.interface.is_some())
        .flat_map(|f| f.endpoints())
        .collect();
    for service in services {
        if !at_named.contains(&service.vip) {
            names.extend(arrivals(network_state, service.vip.ip()));
        }
        if service.nat_ports.is_some() {
            let ways =
                (service.servers.iter()).filter_map(|s| network_state.server_interfaces.get(&s.0.ip()));
            names.extend(ways.map(String::as_str));
        }
    }
    (names.into_iter())
        .filter_map(|name| Some((name.to_owned(), network_state.links.get(name)?.ifindex)))
        .collect()
}

/// Interfaces that have an address and are up, loopback not among them.
fn arrivals(network_state: &NetworkState, ip: IpAddr) -> impl Iterator<Item = &str> {
    let names = network_state.vips.get(&ip).into_iter().flatten();
    names
        .map(String::as_str)
        .filter(|name| is_usable(network_state.links.get(*name)))
}

fn is_usable(link: Option<&Link>) -> bool {
    link.is_some_and(|link| !link.is_loopback)
}

/// The state of every VIP of the configuration.
pub fn vip_states(
    config: &Config,
    network_state: &NetworkState,
    served: &BTreeMap<String, u32>,
) -> BTreeMap<Endpoint, Vip> {
    let packet_frontends = config.frontends.values().filter(|f| f.mode.is_packet());
    packet_frontends
        .flat_map(|frontend| frontend.endpoints().map(move |endpoint| (frontend, endpoint)))
        .map(|(frontend, endpoint)| {
            let ip = endpoint.ip();
            let why = why_waiting(frontend.interface.as_deref(), ip, network_state, served);
            let state = why.map_or(VipState::Live, |why| VipState::Waiting {
                why,
                is_elsewhere: !network_state.vips.contains_key(&ip),
            });
            let frontend = frontend.name.clone();
            (endpoint, Vip { frontend, state })
        })
        .collect()
}

/// Why an address that no interface has for good does not reach us.
pub fn absence(ip: IpAddr, network_state: &NetworkState) -> String {
    if network_state.hops.own.contains(&ip) {
        return format!(
            "{ip} is not usable yet, or another host has it (see `ip address`: tentative, dadfailed)"
        );
    }
    format!("no interface has {ip} (expected on a standby; otherwise: ip address add {ip} dev …)")
}

fn why_waiting(
    interface: Option<&str>,
    vip: IpAddr,
    network_state: &NetworkState,
    served: &BTreeMap<String, u32>,
) -> Option<String> {
    let Some(holders) = network_state.vips.get(&vip) else {
        return Some(absence(vip, network_state));
    };
    let by_name = interface.into_iter();
    let mut ways: Vec<&str> = by_name
        .filter(|name| network_state.links.contains_key(*name))
        .collect();
    if interface.is_none() {
        ways.extend(arrivals(network_state, vip));
    }
    if ways.iter().any(|name| served.contains_key(*name)) {
        return None;
    }
    Some(match (interface, ways.first()) {
        (_, Some(way)) => format!("interface {way} cannot be used, see the log"),
        (Some(name), None) => format!("interface {name} does not exist or is not up"),
        (None, None)
            if holders
                .iter()
                .all(|name| network_state.links.get(name).is_some_and(|l| l.is_loopback)) =>
        {
            format!(
                "only a loopback interface has {vip}: name the interface on which its packets arrive (interface = …)"
            )
        }
        (None, None) => format!("no interface with {vip} is up"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Options, Source};

    fn service(vip: &str, nat: bool, servers: &[&str]) -> PacketService {
        PacketService {
            vip: Endpoint::tcp(vip.parse().unwrap()),
            nat_ports: nat.then_some(crate::base::PortRanges::STOCK),
            servers: servers.iter().map(|s| ServerAddr(s.parse().unwrap())).collect(),
        }
    }

    fn load(text: &str) -> Config {
        let source = Source {
            name: "test.toml".to_owned(),
            bytes: text.into(),
        };
        config::load(&source, Options::default()).unwrap().config
    }

    fn site() -> Config {
        load(
            r#"
            [frontends.web]
            listen_addr = "10.0.0.1:80"
            mode = "passthrough"
            backend = "web"
            [backends.web]
            servers.a = { addr = "10.1.0.2:80" }
            servers.b = { addr = "10.1.0.3:80" }
            "#,
        )
    }

    fn network_state() -> NetworkState {
        let link = |ifindex, is_loopback| Link { ifindex, is_loopback };
        NetworkState {
            links: [
                ("lo".to_owned(), link(1, true)),
                ("front".to_owned(), link(2, false)),
                ("back".to_owned(), link(3, false)),
                ("other".to_owned(), link(4, false)),
            ]
            .into(),
            vips: [("10.0.0.1".parse().unwrap(), BTreeSet::from(["front".to_owned()]))].into(),
            server_interfaces: [("10.1.0.2".parse().unwrap(), "back".to_owned())].into(),
            ..NetworkState::default()
        }
    }

    #[test]
    fn interfaces_of_vips_and_of_passthrough_servers_are_served_and_no_others() {
        let config = site();
        let served = interfaces(&config, &config.packet_services(), &network_state());
        assert_eq!(served, [("back".to_owned(), 3), ("front".to_owned(), 2)].into());
    }

    #[test]
    fn a_removed_server_is_kept_for_its_flows_and_only_as_long() {
        let config = site();
        let new = config.packet_services();
        let old = service(
            "10.0.0.1:80",
            true,
            &["10.1.0.2:80", "10.1.0.3:80", "10.1.0.9:80"],
        );
        let gone = ServerAddr("10.1.0.9:80".parse().unwrap());
        let in_use = InUse::from([(old.vip, gone)]);
        let before = [old];
        assert_eq!(
            kept(&config, &new, &before, &in_use),
            [service("10.0.0.1:80", true, &["10.1.0.9:80"])]
        );
        assert_eq!(kept(&config, &new, &before, &InUse::new()), []);
        assert_eq!(union(&new, &[]), new);
    }

    #[test]
    fn an_address_that_is_proxied_now_is_given_up_at_once() {
        let config = load(
            r#"
            [frontends.web]
            listen_addr = "10.0.0.1:80"
            backend = "web"
            [backends.web]
            servers.a = { addr = "10.1.0.2:80" }
            "#,
        );
        let old = service("10.0.0.1:80", false, &["10.1.0.2:80"]);
        let in_use = InUse::from([(old.vip, old.servers[0])]);
        assert_eq!(kept(&config, &[], std::slice::from_ref(&old), &in_use), []);
        let wildcard = load(
            r#"
            [frontends.web]
            listen_addr = "0.0.0.0:80"
            backend = "web"
            [backends.web]
            servers.a = { addr = "10.1.0.2:80" }
            "#,
        );
        assert_eq!(kept(&wildcard, &[], &[old], &in_use), []);
    }

    #[test]
    fn a_vip_waits_until_an_interface_that_is_served_has_it() {
        let config = site();
        let state = |network_state: &NetworkState, served: &[(&str, u32)]| {
            let served = served.iter().map(|(n, i)| ((*n).to_owned(), *i)).collect();
            vip_states(&config, network_state, &served)
                .into_values()
                .next()
                .unwrap()
                .state
        };
        assert_eq!(state(&network_state(), &[("front", 2)]), VipState::Live);
        let absent = NetworkState {
            vips: BTreeMap::new(),
            ..network_state()
        };
        let waits = |state: VipState, text: &str, elsewhere: bool| match state {
            VipState::Waiting { why, is_elsewhere } => {
                assert!(why.contains(text), "{why}");
                assert_eq!(is_elsewhere, elsewhere, "{why}");
            }
            VipState::Live => panic!("live"),
        };
        waits(state(&absent, &[("front", 2)]), "no interface has 10.0.0.1", true);
        waits(state(&network_state(), &[]), "front cannot be used", false);
        let on_loopback = NetworkState {
            vips: [("10.0.0.1".parse().unwrap(), BTreeSet::from(["lo".to_owned()]))].into(),
            ..network_state()
        };
        waits(state(&on_loopback, &[("front", 2)]), "interface = ", false);
    }
}
