//! What the packet modes need of the network and the kernel, computed from the configuration, what is in effect, and the
//! network state. No I/O here.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use crate::{
    base::{Endpoint, EndpointRange, FrontendName, IpServerAddr, PortMap, PortRange, PortRanges},
    config::{Config, PacketService},
    engine::network::{Link, NetworkState, Wanted},
    flow::Resolution,
};

/// What is known of an address of a frontend in a packet mode.
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

/// What live flows use: addresses and ports of VIPs, each with that of a server.
pub type InUse = BTreeSet<(Endpoint, IpServerAddr)>;

/// Both lists as one: a service that is in both has the servers of both.
pub fn union(a: &[PacketService], b: &[PacketService]) -> Vec<PacketService> {
    let mut all = Collected::default();
    for service in a.iter().chain(b) {
        all.servers(service.vip, service.nat_ports)
            .extend(&service.servers);
    }
    all.into_services()
}

/// Services being collected: their servers by VIP and NAT ports.
#[derive(Default)]
struct Collected(BTreeMap<(EndpointRange, Option<PortRanges>), BTreeSet<IpServerAddr>>);

impl Collected {
    fn servers(&mut self, vip: EndpointRange, nat_ports: Option<PortRanges>) -> &mut BTreeSet<IpServerAddr> {
        self.0.entry((vip, nat_ports)).or_default()
    }

    fn into_services(self) -> Vec<PacketService> {
        (self.0.into_iter())
            .map(|((vip, nat_ports), servers)| PacketService {
                vip,
                nat_ports,
                servers: servers.into_iter().collect(),
            })
            .collect()
    }
}

/// What is in effect and not in the configuration's services any more, down to the port.
pub fn leftovers(services: &[PacketService], in_effect: &[PacketService]) -> Vec<PacketService> {
    let place = |service: &PacketService| (service.vip.ip(), service.vip.protocol, service.nat_ports);
    let current: PortMap<_, &PacketService> = (services.iter())
        .map(|service| (place(service), service.vip.ports(), service))
        .collect();
    let mut left = Collected::default();
    for old in in_effect {
        let near = current.overlapping(&place(old), old.vip.ports());
        let near: Vec<(PortRange, &&PacketService)> = near.collect();
        for server in &old.servers {
            let still = near.iter().filter(|(ports, new)| {
                let there = server.further(ports.first.wrapping_sub(old.vip.ports().first));
                new.servers.binary_search(&there).is_ok()
            });
            for ports in old.vip.ports().without(still.map(|(ports, _)| *ports)) {
                let offset = ports.first.wrapping_sub(old.vip.ports().first);
                left.servers(old.vip.with_ports(ports), old.nat_ports)
                    .insert(server.further(offset));
            }
        }
    }
    left.into_services()
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
    let mut kept = Vec::new();
    for old in leftovers(services, in_effect) {
        for ports in old.vip.ports().without(proxied.taken(old.vip)) {
            let part = old.part(ports);
            let servers = used_servers(&part, in_use);
            if !servers.is_empty() {
                kept.push(PacketService { servers, ..part });
            }
        }
    }
    kept
}

/// The servers of a service that live flows use.
fn used_servers(service: &PacketService, in_use: &InUse) -> Vec<IpServerAddr> {
    let lowest = IpServerAddr::new(SocketAddr::from(([0, 0, 0, 0], 0)));
    let from = Endpoint::tcp(service.vip.first().addr.0);
    let near = in_use.range((from, lowest)..);
    let near =
        near.take_while(|(hit, _)| hit.ip() == service.vip.ip() && hit.port() <= service.vip.ports().last);
    let used: BTreeSet<IpServerAddr> = near
        .filter(|(hit, _)| hit.protocol == service.vip.protocol)
        .map(|(hit, server)| service.server_of(*hit, *server))
        .collect();
    let servers = service.servers.iter().copied();
    servers.filter(|server| used.contains(server)).collect()
}

/// Whether a network state is about all that is wanted, and in it the way to every server is known, or known not to exist.
pub fn is_resolved(wanted: &Wanted, network_state: &NetworkState) -> bool {
    let is_known = |server| {
        let hop = network_state.hops.servers.get(server);
        hop.is_some_and(|hop| !matches!(hop.resolution, Resolution::Unresolved { .. }))
    };
    *network_state.wanted == *wanted && wanted.servers.iter().all(is_known)
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
    let at_named: PortMap<_, ()> = named
        .filter(|f| f.interface.is_some())
        .flat_map(|f| f.ranges())
        .map(|range| ((range.ip(), range.protocol), range.ports(), ()))
        .collect();
    for service in services {
        let place = (service.vip.ip(), service.vip.protocol);
        if at_named.at(&place, service.vip.ports().first).is_none() {
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
) -> BTreeMap<EndpointRange, Vip> {
    let packet_frontends = config.frontends.values().filter(|f| f.mode.is_packet());
    packet_frontends
        .flat_map(|frontend| frontend.ranges().map(move |range| (frontend, range)))
        .map(|(frontend, range)| {
            let ip = range.ip();
            let why = why_waiting(frontend.interface.as_deref(), ip, network_state, served);
            let state = why.map_or(VipState::Live, |why| VipState::Waiting {
                why,
                is_elsewhere: !network_state.vips.contains_key(&ip),
            });
            let frontend = frontend.name.clone();
            (range, Vip { frontend, state })
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
            vip: EndpointRange {
                listen: vip.parse().unwrap(),
                protocol: crate::base::Protocol::Tcp,
            },
            nat_ports: nat.then_some(PortRanges::STOCK),
            servers: servers.iter().map(|s| s.parse().unwrap()).collect(),
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
        let gone: IpServerAddr = "10.1.0.9:80".parse().unwrap();
        let in_use = InUse::from([(old.vip.first(), gone)]);
        let before = [old];
        assert_eq!(
            kept(&config, &new, &before, &in_use),
            [service("10.0.0.1:80", true, &["10.1.0.9:80"])]
        );
        assert_eq!(kept(&config, &new, &before, &InUse::new()), []);
        assert_eq!(union(&new, &[]), new);
    }

    /// Live flows by the port that they hit and the server's.
    fn used(flows: &[(u16, u16)]) -> InUse {
        let pair = |(hit, server): &(u16, u16)| {
            let vip = Endpoint::tcp(SocketAddr::from(([10, 0, 0, 1], *hit)));
            (vip, IpServerAddr::new(SocketAddr::from(([10, 1, 0, 2], *server))))
        };
        flows.iter().map(pair).collect()
    }

    fn range(listen: &str, server: &str) -> PacketService {
        service(listen, true, &[server])
    }

    #[test]
    fn of_a_range_that_changes_only_the_ports_that_it_loses_are_left_over() {
        let old = [range("10.0.0.1:9000-9010", "10.1.0.2:7000")];
        let left = |new: &[PacketService]| leftovers(new, &old);
        assert_eq!(left(&[range("10.0.0.1:9000-9020", "10.1.0.2:7000")]), []);
        // it begins elsewhere, and each port leads where it did
        assert_eq!(left(&[range("10.0.0.1:8990-9010", "10.1.0.2:6990")]), []);
        assert_eq!(
            left(&[
                range("10.0.0.1:9002-9003", "10.1.0.2:7002"),
                range("10.0.0.1:9007", "10.1.0.2:7007")
            ]),
            [
                range("10.0.0.1:9000-9001", "10.1.0.2:7000"),
                range("10.0.0.1:9004-9006", "10.1.0.2:7004"),
                range("10.0.0.1:9008-9010", "10.1.0.2:7008"),
            ]
        );
        // the same ports lead elsewhere
        assert_eq!(left(&[range("10.0.0.1:9000-9010", "10.1.0.2:7001")]), old);
    }

    #[test]
    fn a_port_that_a_range_has_lost_is_kept_for_its_flows_and_no_others() {
        let (config, new) = (site(), [range("10.0.0.1:9000-9004", "10.1.0.2:7000")]);
        let old = [range("10.0.0.1:9000-9010", "10.1.0.2:7000")];
        let kept = |flows: &[(u16, u16)]| kept(&config, &new, &old, &used(flows));
        let lost = range("10.0.0.1:9005-9010", "10.1.0.2:7005");
        assert_eq!(kept(&[(9_000, 7_000), (9_004, 7_004)]), []);
        assert_eq!(
            kept(&[(9_000, 7_000), (9_010, 7_010)]),
            std::slice::from_ref(&lost)
        );
        // another server of that port, another frontend's port
        assert_eq!(kept(&[(9_010, 7_009), (9_011, 7_011)]), []);
        assert_eq!(union(&new, &[lost]).len(), 2);
    }

    #[test]
    fn of_a_kept_range_ports_that_are_proxied_now_are_given_up_at_once() {
        let config = load(
            r#"
            [frontends.web]
            listen_addr = "10.0.0.1:9003-9004"
            backend = "web"
            [backends.web]
            servers.a = { addr = "10.1.0.2:80" }
            "#,
        );
        let old = [range("10.0.0.1:9000-9010", "10.1.0.2:7000")];
        assert_eq!(
            kept(
                &config,
                &[],
                &old,
                &used(&[(9_000, 7_000), (9_004, 7_004), (9_010, 7_010)])
            ),
            [
                range("10.0.0.1:9000-9002", "10.1.0.2:7000"),
                range("10.0.0.1:9005-9010", "10.1.0.2:7005"),
            ]
        );
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
        let in_use = InUse::from([(old.vip.first(), old.servers[0])]);
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
