//! What the broker may do: exactly what the configuration that it read itself names, and for the packet modes what was
//! in effect until now. Pure.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::ListenerRef;
use crate::{
    base::{Endpoint, EndpointRange, FrontendName, ListenAddr, PortRanges, ServerAddr},
    config::{Config, PacketService},
};

/// The rules of one configuration.
#[derive(Debug, Clone)]
pub struct Policy {
    config: Config,
    /// Who listens where.
    listeners: HashMap<Endpoint, FrontendName>,
    /// What [`Config::packet_services`] says.
    configured: Vec<PacketService>,
    /// What is served now: flows outlive the configuration that they came by.
    in_effect: Vec<PacketService>,
    /// What was served before that: a reload that fails goes back to it.
    before: Vec<PacketService>,
    /// Interfaces that frontends named when `in_effect` was theirs.
    named: BTreeSet<String>,
}

/// A listener that may be bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permitted {
    /// Where.
    pub addr: ListenAddr,
    /// TCP_USER_TIMEOUT of the connections that it accepts.
    pub user_timeout: Option<Duration>,
}

/// What the broker found out about an interface that a packet socket is wanted on.
#[derive(Debug, Clone, Copy)]
pub struct SocketRequest<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its index.
    pub index: u32,
    /// Whether it is a loopback interface.
    pub is_loopback: bool,
    /// The addresses that it has now.
    pub addresses: &'a [IpAddr],
}

impl Policy {
    /// The policy that a configuration is.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            configured: config.packet_services(),
            listeners: listeners(&config),
            config,
            in_effect: Vec::new(),
            before: Vec::new(),
            named: BTreeSet::new(),
        }
    }

    /// Goes on with another configuration. What is in effect stays so.
    pub fn adopt(&mut self, config: Config) {
        self.configured = config.packet_services();
        self.listeners = listeners(&config);
        self.config = config;
    }

    /// The services in effect.
    #[must_use]
    pub fn in_effect(&self) -> &[PacketService] {
        &self.in_effect
    }

    /// Notes that these services, which [`may_serve`](Self::may_serve) allowed, are in effect now.
    pub fn served(&mut self, services: Vec<PacketService>) {
        let alien = find_alien(&services, &[&self.configured]).is_some();
        let mut named: BTreeSet<String> = self.configured_interfaces().map(str::to_owned).collect();
        if alien {
            named.append(&mut self.named);
        }
        self.named = named;
        if services != self.in_effect {
            self.before = std::mem::replace(&mut self.in_effect, services);
        }
    }

    /// Whether a frontend in a packet mode names this interface.
    #[must_use]
    pub fn names_interface(&self, name: &str) -> bool {
        self.named.contains(name) || self.configured_interfaces().any(|configured| configured == name)
    }

    /// Whether a packet socket may be opened on an interface. `egress` tells by which interface a server is reached.
    ///
    /// # Errors
    /// Why not, as text for the operator.
    pub fn may_open(
        &self,
        wanted: &SocketRequest<'_>,
        egress: impl FnMut(SocketAddr) -> Option<u32>,
    ) -> Result<(), String> {
        let name = wanted.name;
        if self.names_interface(name) {
            return Ok(());
        }
        if wanted.is_loopback {
            return Err(format!(
                "client packets never arrive on {name:?}, a loopback interface that no frontend names"
            ));
        }
        let services = || self.configured.iter().chain(&self.in_effect);
        if services().any(|service| wanted.addresses.contains(&service.vip.ip())) {
            return Ok(());
        }
        // a server of many ports or frontends is asked for once
        let servers: BTreeMap<IpAddr, SocketAddr> = services()
            .filter(|service| service.nat_ports.is_some())
            .flat_map(|service| &service.servers)
            .map(|server| (server.0.ip(), server.0))
            .collect();
        if servers
            .into_values()
            .map(egress)
            .any(|index| index == Some(wanted.index))
        {
            return Ok(());
        }
        Err(format!(
            "no frontend in a packet mode needs a packet socket on {name:?}: none names it, it has none of their \
             addresses, and no passthrough server is reached by it"
        ))
    }

    /// Whether rules and filters may be applied for these services.
    ///
    /// # Errors
    /// The first that is neither in the configuration nor was in effect, as text for the operator.
    pub fn may_serve(&self, services: &[PacketService]) -> Result<(), String> {
        let known = [
            self.configured.as_slice(),
            self.in_effect.as_slice(),
            self.before.as_slice(),
        ];
        match find_alien(services, &known) {
            None => Ok(()),
            Some((service, server)) => {
                let how = match (server, service.nat_ports) {
                    (Some(server), _) => format!("to server {}", server.0),
                    (None, Some(ports)) => {
                        format!("in passthrough from ports {ports}")
                    }
                    (None, None) => "in DSR".to_owned(),
                };
                Err(format!(
                    "the configuration has no packet-mode frontend on {} {how}",
                    service.vip
                ))
            }
        }
    }

    fn configured_interfaces(&self) -> impl Iterator<Item = &str> {
        let frontends = self.config.frontends.values();
        frontends
            .filter(|frontend| frontend.mode.is_packet())
            .filter_map(|frontend| frontend.interface.as_deref())
    }

    /// Whether a listener may be bound, and how.
    ///
    /// # Errors
    /// Why not, as text for the operator.
    pub fn may_bind(&self, listener: &ListenerRef) -> Result<Permitted, String> {
        match listener {
            ListenerRef::Stats => {
                let stats = self
                    .config
                    .stats
                    .as_ref()
                    .ok_or("the configuration has no [stats] section")?;
                Ok(Permitted {
                    addr: stats.listen,
                    user_timeout: None,
                })
            }
            ListenerRef::Frontend { name, endpoint } => {
                let frontend = self
                    .config
                    .frontends
                    .get(name.as_str())
                    .ok_or_else(|| format!("the configuration has no frontend `{name}`"))?;
                if frontend.mode.is_packet() {
                    return Err(format!(
                        "frontend `{name}` is in a packet mode: nothing listens on {endpoint}"
                    ));
                }
                if self.listeners.get(endpoint) != Some(&frontend.name) {
                    return Err(format!(
                        "frontend `{name}` does not listen on {endpoint} in the configuration"
                    ));
                }
                Ok(Permitted {
                    addr: endpoint.addr,
                    user_timeout: frontend.tcp_user_timeout,
                })
            }
        }
    }
}

/// The first service, or server of a service, that none of the lists has. A part of a range is known with the range: a reload
/// that narrows one keeps what is left over for its flows.
fn find_alien<'a>(
    services: &'a [PacketService],
    known: &[&[PacketService]],
) -> Option<(&'a PacketService, Option<ServerAddr>)> {
    let known = || known.iter().copied().flatten();
    let mut permitted: BTreeMap<Front, BTreeSet<ServerAddr>> = BTreeMap::new();
    for service in known() {
        permitted
            .entry(front(service))
            .or_default()
            .extend(&service.servers);
    }
    services.iter().find_map(|service| {
        let exact = permitted.get(&front(service));
        let mut whole = known().filter(|known| known.covers(service));
        if exact.is_none() && whole.next().is_none() {
            return Some((service, None));
        }
        let is_known = |server: ServerAddr| {
            exact.is_some_and(|servers| servers.contains(&server))
                || known().any(|known| known.covers(service) && known.has_server_of(service, server))
        };
        let alien = service.servers.iter().find(|server| !is_known(**server));
        alien.map(|server| (service, Some(*server)))
    })
}

/// A service without its servers.
type Front = (EndpointRange, Option<PortRanges>);

fn front(service: &PacketService) -> Front {
    (service.vip, service.nat_ports)
}

/// What proxied frontends listen on.
fn listeners(config: &Config) -> HashMap<Endpoint, FrontendName> {
    let frontends = config.frontends.values();
    frontends
        .filter(|frontend| !frontend.mode.is_packet())
        .flat_map(|frontend| {
            frontend
                .endpoints()
                .map(|endpoint| (endpoint, frontend.name.clone()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::Protocol,
        config::{self, Options, Source},
    };

    fn policy() -> Policy {
        policy_of(
            r#"
            [stats]
            port = 7000
            [frontends.web]
            tcp_user_timeout = "30s"
            listen_addr = ["0.0.0.0:80", "[::]:80"]
            backend = "pool"
            [frontends.mail]
            listen_addr = "10.0.0.1:25"
            backend = "pool"
            [backends.pool]
            servers.a = { addr = "10.0.0.2:80" }
            "#,
        )
    }

    /// `web` is found by its VIP and its server, `named` by its interface; `proxied` needs no packets.
    const PACKETS: &str = r#"
        [frontends.web]
        listen_addr = "10.0.0.1:80"
        mode = "passthrough"
        backend = "web"
        [backends.web]
        servers.a = { addr = "10.1.0.2:80" }
        servers.b = { addr = "10.1.0.3:80" }
        [frontends.named]
        listen_addr = "10.0.9.1:53"
        mode = "dsr"
        protocol = "udp"
        interface = "eth9"
        backend = "named"
        [backends.named]
        servers.a = { addr = "10.2.0.2:53" }
        [frontends.proxied]
        listen_addr = "10.0.7.1:80"
        backend = "proxied"
        [backends.proxied]
        servers.a = { addr = "10.7.0.2:80" }
    "#;

    /// Whether `name`, which has index 7 and one address, may be opened when servers of `network` are behind it.
    fn open(policy: &Policy, name: &str, address: &str, network: &str) -> Result<(), String> {
        let wanted = SocketRequest {
            name,
            index: 7,
            is_loopback: name == "lo",
            addresses: &[address.parse().unwrap()],
        };
        policy.may_open(&wanted, |server| {
            Some(if server.to_string().starts_with(network) {
                7
            } else {
                1
            })
        })
    }

    #[test]
    fn packet_sockets_are_opened_where_packets_come_in_and_nowhere_else() {
        let policy = policy_of(PACKETS);
        open(&policy, "eth9", "192.0.2.1", "none").unwrap();
        open(&policy, "eth0", "10.0.0.1", "none").unwrap();
        open(&policy, "eth1", "192.0.2.1", "10.1.").unwrap();
        for (name, address, network) in [
            ("eth2", "192.0.2.1", "none"),
            // the servers of DSR answer the clients, those of a proxied frontend the kernel's sockets
            ("eth2", "192.0.2.1", "10.2."),
            ("eth2", "192.0.2.1", "10.7."),
            ("eth2", "10.0.7.1", "none"),
            ("lo", "10.0.0.1", "10.1."),
        ] {
            let refused = open(&policy, name, address, network);
            assert!(
                refused.as_ref().is_err_and(|why| why.contains(name)),
                "{name} {address} {network}: {refused:?}"
            );
        }
        let proxy = policy_of("[global]\n");
        assert!(open(&proxy, "eth0", "10.0.0.1", "10.1.").is_err());
    }

    #[test]
    fn loopback_is_opened_if_a_frontend_names_it() {
        let wanted = SocketRequest {
            name: "eth9",
            index: 1,
            is_loopback: true,
            addresses: &[],
        };
        policy_of(PACKETS).may_open(&wanted, |_| None).unwrap();
    }

    fn services() -> Vec<PacketService> {
        policy_of(PACKETS).configured
    }

    #[test]
    fn exactly_what_the_configuration_says_is_served() {
        let policy = policy_of(PACKETS);
        policy.may_serve(&services()).unwrap();
        policy.may_serve(&[]).unwrap();
        type PolicyChange = fn(&mut PacketService);
        let changes: [(PolicyChange, &str); 6] = [
            (
                |s| s.vip.listen = "10.0.0.1:22".parse().unwrap(),
                "10.0.0.1:22 (tcp)",
            ),
            (
                |s| s.vip = Endpoint::tcp(([0, 0, 0, 0], 80).into()).into(),
                "0.0.0.0:80",
            ),
            (|s| s.vip.protocol = Protocol::Udp, "10.0.0.1:80 (udp)"),
            (
                |s| {
                    s.nat_ports = "1-65535".parse().ok();
                },
                "passthrough from ports 1-65535",
            ),
            (|s| s.nat_ports = None, "in DSR"),
            // known, but of another frontend
            (
                |s| s.servers = vec![ServerAddr::new(([10, 2, 0, 2], 53).into())],
                "10.2.0.2:53",
            ),
        ];
        for (change, named) in changes {
            let mut services = services();
            change(&mut services[0]);
            let refused = policy.may_serve(&services);
            assert!(
                refused.as_ref().is_err_and(|why| why.contains(named)),
                "{services:?}: {refused:?}"
            );
        }
    }

    #[test]
    fn flows_outlive_their_configuration_but_nothing_returns_by_itself() {
        let mut policy = policy_of(PACKETS);
        policy.served(services());
        policy.adopt(policy_of("[global]\n").config);
        policy.may_serve(&services()).unwrap();
        open(&policy, "eth9", "192.0.2.1", "none").unwrap();
        open(&policy, "eth0", "10.0.0.1", "none").unwrap();

        // a change that fails is undone, one that is gone for good stays so
        policy.served(services()[..1].to_vec());
        policy.may_serve(&services()).unwrap();
        policy.served(Vec::new());
        policy.may_serve(&services()[..1]).unwrap();
        assert!(policy.may_serve(&services()).is_err());
        for (name, address) in [("eth9", "192.0.2.1"), ("eth0", "10.0.0.1")] {
            assert!(open(&policy, name, address, "10.1.").is_err(), "{name}");
        }
    }

    #[test]
    fn nothing_listens_for_a_frontend_in_a_packet_mode() {
        let listener = ListenerRef::Frontend {
            name: "web".into(),
            endpoint: Endpoint::tcp(([10, 0, 0, 1], 80).into()),
        };
        let refused = policy_of(PACKETS).may_bind(&listener);
        assert!(
            refused.as_ref().is_err_and(|why| why.contains("packet mode")),
            "{refused:?}"
        );
    }

    fn policy_of(text: &str) -> Policy {
        let source = Source {
            name: "test.toml".to_owned(),
            bytes: text.into(),
        };
        Policy::new(config::load(&source, Options::default()).unwrap().config)
    }

    fn bind(name: &str, addr: &str) -> Result<Permitted, String> {
        let listener = ListenerRef::Frontend {
            name: name.into(),
            endpoint: Endpoint::tcp(addr.parse().unwrap()),
        };
        policy().may_bind(&listener)
    }

    #[test]
    fn every_address_of_a_frontend_may_be_bound_with_its_time_out() {
        for addr in ["0.0.0.0:80", "[::]:80"] {
            let expected = Permitted {
                addr: addr.parse().unwrap(),
                user_timeout: Some(Duration::from_secs(30)),
            };
            assert_eq!(bind("web", addr), Ok(expected));
        }
    }

    #[test]
    fn no_other_address_port_or_frontend_is_bound() {
        for (name, addr) in [
            ("web", "0.0.0.0:81"),
            ("web", "127.0.0.1:80"),
            ("web", "[::1]:80"),
            ("web", "10.0.0.1:25"),
            ("mail", "0.0.0.0:80"),
            ("ssh", "0.0.0.0:22"),
            ("", "0.0.0.0:80"),
        ] {
            let refused = bind(name, addr);
            assert!(
                refused.as_ref().is_err_and(|why| why.contains(name)),
                "{name} {addr}: {refused:?}"
            );
        }
    }

    #[test]
    fn stats_are_bound_only_if_the_section_exists() {
        assert_eq!(
            policy().may_bind(&ListenerRef::Stats).unwrap().addr,
            "127.0.0.1:7000".parse().unwrap()
        );
        let without = policy_of("[global]\n");
        assert_eq!(
            without.may_bind(&ListenerRef::Stats),
            Err("the configuration has no [stats] section".into())
        );
    }
}
