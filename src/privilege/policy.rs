//! What the broker may do: exactly what the configuration that it read itself names, and for the packet modes what was
//! in effect until now. Pure.
//!
//! The servers of a backend with `[discovery]` are not in the file: there the policy is a bound, which [`ServerRules`] says.
//! What that lets a taken-over daemon do is said in [`privilege`](super).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::{ListenerRef, log_places::LogPlaces};
use crate::{
    base::{
        EndpointRange, FrontendName, IpServerAddr, ListenAddr, ListenerId, PeerTimeouts, PortRanges,
        Protocol, SocketKind, SocketOptions, SocketPath, SocketRights,
    },
    config::{Config, Mode, PacketService, ServerRules, model::EngineChoice},
};

/// The rules of one configuration.
#[derive(Debug, Clone)]
pub struct Policy {
    config: Config,
    /// Who listens where.
    listeners: HashMap<ListenerId, FrontendName>,
    /// What [`Config::packet_services`] says.
    configured: Vec<PacketService>,
    /// Which servers the services of backends with `[discovery]` may have besides.
    bounds: Vec<Bound>,
    /// What is served now: flows outlive the configuration that they came by.
    in_effect: Vec<PacketService>,
    /// What was served before that: a reload that fails goes back to it.
    before: Vec<PacketService>,
    /// Interfaces that frontends named when `in_effect` was theirs.
    named: BTreeSet<String>,
    /// Sockets towards servers that only the broker can make.
    sockets: BTreeSet<SocketKind>,
    /// Those that they needed by the configuration that was last said to be in effect: a reload that fails goes back to it.
    sockets_before: BTreeSet<SocketKind>,
    /// Unix sockets that sources of servers are asked at.
    sources: BTreeSet<SocketPath>,
    /// Those of the configuration that was last said to be in effect: its sources are asked until another one is.
    sources_before: BTreeSet<SocketPath>,
    /// Where logs go.
    logs: LogPlaces,
    /// Where they went by the configuration that was last said to be in effect.
    logs_before: LogPlaces,
}

/// A service whose servers are discovered.
#[derive(Debug, Clone)]
struct Bound {
    /// Without them.
    service: PacketService,
    rules: Arc<ServerRules>,
}

/// A listener that may be bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Permitted {
    /// On a network.
    Network(PermittedAddr),
    /// At a path.
    Unix(SocketPath, SocketRights),
}

/// An address that may be listened on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PermittedAddr {
    /// Where.
    pub addr: ListenAddr,
    /// By which protocol.
    pub protocol: Protocol,
    /// When the kernel gives up connections that it accepts.
    pub timeouts: PeerTimeouts,
    /// What the operator has chosen for its sockets.
    pub options: SocketOptions,
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
            bounds: bounds(&config),
            listeners: listeners(&config),
            sockets: config.socket_kinds(),
            sockets_before: config.socket_kinds(),
            sources: config.source_sockets().collect(),
            sources_before: config.source_sockets().collect(),
            logs: LogPlaces::of(&config),
            logs_before: LogPlaces::of(&config),
            config,
            in_effect: Vec::new(),
            before: Vec::new(),
            named: BTreeSet::new(),
        }
    }

    /// Goes on with another configuration. What is in effect stays so.
    pub fn adopt(&mut self, config: Config) {
        self.configured = config.packet_services();
        self.bounds = bounds(&config);
        self.listeners = listeners(&config);
        self.sockets = config.socket_kinds();
        self.sources = config.source_sockets().collect();
        self.logs = LogPlaces::of(&config);
        self.config = config;
    }

    /// Notes that the configuration is in effect: what only one before it needed is needed no more.
    pub fn in_effect_alone(&mut self) {
        self.sockets_before.clone_from(&self.sockets);
        self.sources_before.clone_from(&self.sources);
        self.logs_before.clone_from(&self.logs);
    }

    /// The configuration.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Whether packets are moved by the XDP engine.
    #[must_use]
    pub fn has_xdp(&self) -> bool {
        self.config.packet.engine == EngineChoice::Xdp
    }

    /// Whether sources of servers are asked at unix sockets.
    #[must_use]
    pub fn has_source_sockets(&self) -> bool {
        !self.sources.is_empty()
    }

    /// Whether a unix socket may be connected to.
    ///
    /// # Errors
    /// Why not, as text for the operator.
    pub fn may_connect(&self, path: SocketPath) -> Result<(), String> {
        match self.sources.contains(&path) || self.sources_before.contains(&path) {
            true => Ok(()),
            false => Err(format!(
                "no source of servers is asked at {path} in the configuration"
            )),
        }
    }

    /// Whether logs may go to one of these places.
    pub fn has_log(&self, is_it: impl Fn(&LogPlaces) -> bool) -> bool {
        is_it(&self.logs) || is_it(&self.logs_before)
    }

    /// The groups that frontends give their unix sockets to.
    pub fn socket_groups(&self) -> impl Iterator<Item = &str> {
        let frontends = self.config.frontends.values();
        frontends.filter_map(|frontend| frontend.socket_rights.group.as_deref())
    }

    /// Whether a frontend listens at a path.
    #[must_use]
    pub fn has_socket(&self, path: SocketPath) -> bool {
        self.listeners.contains_key(&ListenerId::Unix(path))
    }

    /// Whether sockets of a kind may be made.
    ///
    /// # Errors
    /// Why not, as text for the operator.
    pub fn may_make(&self, kind: SocketKind) -> Result<(), String> {
        if self.sockets.contains(&kind) || self.sockets_before.contains(&kind) {
            return Ok(());
        }
        Err(format!(
            "no frontend with source = \"client\" and no backend with server_socket.mark needs sockets of the kind {kind}"
        ))
    }

    /// The services in effect.
    #[must_use]
    pub fn in_effect(&self) -> &[PacketService] {
        &self.in_effect
    }

    /// Notes that these services, which [`may_serve`](Self::may_serve) allowed, are in effect now.
    pub fn served(&mut self, services: Vec<PacketService>) {
        let alien = (self.find_alien(&services, &[&self.configured], &BTreeSet::new())).is_some();
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

    /// Whether there are servers that the configuration does not name one by one.
    #[must_use]
    pub const fn has_bounds(&self) -> bool {
        !self.bounds.is_empty()
    }

    /// Whether rules and filters may be applied for these services, on a host with these addresses.
    ///
    /// # Errors
    /// The first that is neither in the configuration nor was in effect, nor may be discovered, as text for the operator.
    pub fn may_serve(&self, services: &[PacketService], host: &BTreeSet<IpAddr>) -> Result<(), String> {
        let known = [
            self.configured.as_slice(),
            self.in_effect.as_slice(),
            self.before.as_slice(),
        ];
        match self.find_alien(services, &known, host) {
            None => self.are_few(services),
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

    /// Whether no service has more discovered servers than may be: those of now, and as many whose flows go on.
    fn are_few(&self, services: &[PacketService]) -> Result<(), String> {
        for service in services {
            let Some(bound) = self.bounds.iter().find(|bound| bound.service.covers(service)) else {
                continue;
            };
            let most = (bound.rules.max_servers().saturating_mul(2)).saturating_add(self.named(service));
            if service.servers.len() > most {
                return Err(format!(
                    "{} servers for {}, with those that have gone and whose flows go on, are more than twice max_servers",
                    service.servers.len(),
                    service.vip
                ));
            }
        }
        Ok(())
    }

    /// How many servers the configuration names for a service.
    fn named(&self, service: &PacketService) -> usize {
        let named = self.configured.iter().filter(|known| known.covers(service));
        named.map(|known| known.servers.len()).sum()
    }

    /// The first service, or server of a service, that none of the lists has and no bound lets in. A part of a range is known
    /// with the range: a reload that narrows one keeps what is left over for its flows.
    fn find_alien<'a>(
        &self,
        services: &'a [PacketService],
        known: &[&[PacketService]],
        host: &BTreeSet<IpAddr>,
    ) -> Option<(&'a PacketService, Option<IpServerAddr>)> {
        let known = || known.iter().copied().flatten();
        let mut permitted: BTreeMap<Front, BTreeSet<IpServerAddr>> = BTreeMap::new();
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
            let bound = self.bounds.iter().find(|bound| bound.service.covers(service));
            let is_known = |server: IpServerAddr| {
                exact.is_some_and(|servers| servers.contains(&server))
                    || bound.is_some_and(|bound| bound.lets_in(service, server, host))
                    || known().any(|known| known.covers(service) && known.has_server_of(service, server))
            };
            let alien = service.servers.iter().find(|server| !is_known(**server));
            alien.map(|server| (service, Some(*server)))
        })
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
            ListenerRef::Stats => (self.config.stats.as_ref())
                .map(|stats| plain(stats.listen))
                .ok_or_else(|| "the configuration has no [stats] section".to_owned()),
            ListenerRef::AdminApi => (self.config.admin.api.as_ref())
                .map(|api| plain(api.listen))
                .ok_or_else(|| "the configuration has no listen_addr in [admin]".to_owned()),
            ListenerRef::AcmeHttp => (self.config.acme.as_ref())
                .and_then(|acme| acme.http_listen_addr)
                .map(plain)
                .ok_or_else(|| "the configuration has no http_listen_addr in [acme]".to_owned()),
            ListenerRef::Frontend { name, listener } => {
                let frontend = self
                    .config
                    .frontends
                    .get(name.as_str())
                    .ok_or_else(|| format!("the configuration has no frontend `{name}`"))?;
                if frontend.mode.is_packet() {
                    return Err(format!(
                        "frontend `{name}` is in a packet mode: nothing listens on {listener}"
                    ));
                }
                if self.listeners.get(listener) != Some(&frontend.name) {
                    return Err(format!(
                        "frontend `{name}` does not listen on {listener} in the configuration"
                    ));
                }
                Ok(match *listener {
                    ListenerId::Network(endpoint) => Permitted::Network(PermittedAddr {
                        addr: endpoint.addr,
                        protocol: endpoint.protocol,
                        timeouts: frontend.client_timeouts(),
                        options: frontend.client_socket,
                    }),
                    ListenerId::Unix(path) => Permitted::Unix(path, frontend.socket_rights.clone()),
                })
            }
        }
    }
}

/// A listener of the admin thread's.
fn plain(addr: ListenAddr) -> Permitted {
    Permitted::Network(PermittedAddr {
        addr,
        protocol: Protocol::Tcp,
        timeouts: PeerTimeouts::default(),
        options: SocketOptions::default(),
    })
}

impl Bound {
    /// Whether a service that this one covers may have a server.
    fn lets_in(&self, service: &PacketService, server: IpServerAddr, host: &BTreeSet<IpAddr>) -> bool {
        let first = self.service.server_of(service.vip.first(), server);
        first.0.is_ipv4() == service.vip.is_ipv4() && self.rules.unfit_address(first, host).is_none()
    }
}

/// The services whose servers are discovered.
fn bounds(config: &Config) -> Vec<Bound> {
    let packets = config.frontends.values().filter(|f| f.mode.is_packet());
    packets
        .filter_map(|frontend| {
            Some((
                frontend,
                Arc::new(config.server_rules(frontend.backend.as_str())?),
            ))
        })
        .flat_map(|(frontend, rules)| {
            let nat_ports = (frontend.mode == Mode::Passthrough).then_some(config.packet.nat_ports);
            frontend.ranges().map(move |vip| Bound {
                service: PacketService {
                    vip,
                    nat_ports,
                    servers: Vec::new(),
                },
                rules: Arc::clone(&rules),
            })
        })
        .collect()
}

/// A service without its servers.
type Front = (EndpointRange, Option<PortRanges>);

fn front(service: &PacketService) -> Front {
    (service.vip, service.nat_ports)
}

/// What proxied frontends listen on.
fn listeners(config: &Config) -> HashMap<ListenerId, FrontendName> {
    let frontends = config.frontends.values();
    frontends
        .filter(|frontend| !frontend.mode.is_packet())
        .flat_map(|frontend| {
            frontend
                .listeners()
                .map(|listener| (listener, frontend.name.clone()))
        })
        .collect()
}

#[cfg(test)]
mod tests;
