//! What the broker may grant: a policy of the target's own, made of the configurations by another way.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    io,
    net::IpAddr,
    os::fd::{BorrowedFd, OwnedFd},
    rc::Rc,
    time::Duration,
};

use convey::{
    base::{EndpointRange, Holder, IpServerAddr, ListenerId, PortRanges, ServerAddr, SocketKind, SocketPath},
    config::{Config, Frontend, Mode, PacketService},
    privilege::{ClaimError, KernelOps, ListenerRef, Served},
    sys::{
        interfaces::{self, Routes},
        memfd,
    },
};

use crate::{
    configurations::{ALL, Configuration},
    place,
};

/// What the broker may grant.
pub struct Permitted {
    /// The configuration that it goes by.
    pub now: usize,
    /// The one that was last said to be in effect.
    pub confirmed: usize,
    /// The identity of the file that the former was read from, as JSON.
    pub adopted: Option<String>,
    /// Whether the API may replace the configuration.
    pub may_write: bool,
    /// What was replaced last by what, as long as that may be undone.
    pub replaced: Option<(usize, usize)>,
    /// What the firewall was last made to be, and before.
    pub in_effect: Vec<PacketService>,
    before: Vec<PacketService>,
    /// Interfaces that frontends of `in_effect` named.
    named: BTreeSet<String>,
    /// The interface of the request at hand.
    pub asked: Option<String>,
    pub firewall_fails: bool,
    /// Whether another process wants the packet modes, and has them unless the broker does.
    pub has_rival: bool,
    has_claimed: bool,
}

/// One thing that may be granted: a VIP in a mode, or a server of it.
type Grant = (EndpointRange, Option<PortRanges>, Option<IpServerAddr>);

fn grants(services: &[PacketService]) -> BTreeSet<Grant> {
    let mut all = BTreeSet::new();
    for PacketService {
        vip,
        nat_ports,
        servers,
    } in services
    {
        all.insert((*vip, *nat_ports, None));
        all.extend(servers.iter().map(|server| (*vip, *nat_ports, Some(*server))));
    }
    all
}

/// The name in the target's directory.
pub fn name_of(path: SocketPath) -> Option<String> {
    let name = path.as_path().strip_prefix(place::directory()).ok()?;
    name.to_str().map(str::to_owned)
}

impl Permitted {
    /// At the start.
    pub fn new(now: usize) -> Self {
        Self {
            now,
            confirmed: now,
            adopted: None,
            // said by hand: number 1 has no `allow_config_writes`
            may_write: now != 1,
            replaced: None,
            in_effect: Vec::new(),
            before: Vec::new(),
            named: BTreeSet::new(),
            asked: None,
            firewall_fails: false,
            has_rival: false,
            has_claimed: false,
        }
    }

    pub fn configuration(&self) -> &'static Configuration {
        &ALL[self.now]
    }

    fn config(&self) -> &'static Config {
        self.configuration().config().expect("a valid configuration")
    }

    fn packet_frontends(&self) -> impl Iterator<Item = &'static Frontend> {
        let frontends = self.config().frontends.values();
        frontends
            .map(AsRef::as_ref)
            .filter(|frontend: &&Frontend| frontend.mode != Mode::Proxy)
    }

    fn configured(&self) -> BTreeSet<Grant> {
        let mut all = BTreeSet::new();
        for frontend in self.packet_frontends() {
            let nat_ports = match frontend.mode {
                Mode::Passthrough => Some(self.config().packet.nat_ports),
                Mode::Proxy | Mode::Dsr => None,
            };
            for vip in frontend.ranges() {
                all.insert((vip, nat_ports, None));
                for server in self.config().backends[&frontend.backend].servers.values() {
                    match server.addr {
                        ServerAddr::Ip(addr) if addr.0.is_ipv4() == vip.is_ipv4() => {
                            all.insert((vip, nat_ports, Some(addr)));
                        }
                        // packets are not forwarded to a unix socket
                        ServerAddr::Ip(_) | ServerAddr::Unix(_) => {}
                    }
                }
            }
        }
        all
    }

    pub fn allows_services(&self, services: &[PacketService]) -> bool {
        let mut all = self.configured();
        all.extend(grants(&self.in_effect));
        all.extend(grants(&self.before));
        grants(services).is_subset(&all)
    }

    pub fn allows_listener(&self, listener: &ListenerRef) -> Option<ListenerId> {
        let config = self.config();
        let tcp = |addr| ListenerId::Network(convey::base::Endpoint::tcp(addr));
        match listener {
            ListenerRef::Stats => config.stats.as_ref().map(|stats| tcp(stats.listen.0)),
            ListenerRef::AdminApi => config.admin.api.as_ref().map(|api| tcp(api.listen.0)),
            ListenerRef::AcmeHttp => {
                let addr = config.acme.as_ref().and_then(|acme| acme.http_listen_addr);
                addr.map(|addr| tcp(addr.0))
            }
            ListenerRef::Frontend { name, listener } => {
                let mut frontends = config.frontends.values();
                let frontend = frontends.find(|frontend| frontend.name.as_str() == name)?;
                let is_one = match *listener {
                    ListenerId::Network(endpoint) => {
                        endpoint.protocol == frontend.protocol && frontend.range_of(endpoint.addr).is_some()
                    }
                    ListenerId::Unix(path) => self.mode_of(name, path).is_some(),
                };
                (is_one && frontend.mode == Mode::Proxy).then_some(*listener)
            }
        }
    }

    /// The mode that the file of a unix socket of a frontend has.
    fn mode_of(&self, frontend: &str, path: SocketPath) -> Option<u32> {
        let file = name_of(path)?;
        let sockets = self.configuration().sockets;
        let is_it = |socket: &&(&str, &str, u32)| socket.0 == file && socket.1 == frontend;
        sockets.iter().find(is_it).map(|socket| socket.2)
    }

    /// The file of the unix socket that a listener is, and its mode; `None` unless it is one that may be.
    pub fn allows_socket(&self, listener: &ListenerRef) -> Option<(String, u32)> {
        let ListenerRef::Frontend {
            name,
            listener: ListenerId::Unix(path),
        } = listener
        else {
            return None;
        };
        Some((name_of(*path)?, self.mode_of(name, *path)?))
    }

    /// Whether a unix socket may be connected to: it is asked for servers, or was until now.
    pub fn allows_connection(&self, path: SocketPath) -> bool {
        let name = name_of(path);
        let mut sources = [self.now, self.confirmed]
            .map(|number| ALL[number].sources)
            .into_iter()
            .flatten();
        sources.any(|source| name.as_deref() == Some(source))
    }

    pub fn allows_kind(&self, kind: SocketKind) -> bool {
        ALL[self.now].needs(kind) || ALL[self.confirmed].needs(kind)
    }

    fn named_now(&self) -> BTreeSet<String> {
        self.packet_frontends()
            .filter_map(|frontend| frontend.interface.clone())
            .collect()
    }

    /// Whether packets may come in by an interface, as far as this file knows of this host.
    pub fn allows_interface(&self, name: &str) -> bool {
        if self.named.contains(name) || self.named_now().contains(name) {
            return true;
        }
        let all = interfaces::list().expect("the host's interfaces");
        let Some(interface) = all.get(name) else {
            return false;
        };
        let mut wanted = self.configured();
        wanted.extend(grants(&self.in_effect));
        let has_vip = |ip: IpAddr| interface.addresses.contains(&ip);
        let routes = Routes::new().expect("the host's routes");
        !interface.is_loopback
            && wanted.iter().any(|(vip, nat_ports, server)| {
                let reaches = |server: IpServerAddr| routes.egress(server.0) == Some(interface.index);
                has_vip(vip.ip()) || nat_ports.is_some() && server.is_some_and(reaches)
            })
    }

    pub fn serve(&mut self, services: Vec<PacketService>) {
        let mut named = self.named_now();
        if !grants(&services).is_subset(&self.configured()) {
            named.append(&mut self.named);
        }
        self.named = named;
        if services != self.in_effect {
            self.before = std::mem::replace(&mut self.in_effect, services);
        }
    }

    /// Whether a rival has the packet modes.
    pub fn is_held(&self) -> bool {
        self.has_rival && !self.has_claimed
    }
}

/// What would change the kernel: asks whether it may.
pub struct Kernel(pub Rc<RefCell<Permitted>>);

impl KernelOps for Kernel {
    fn open_packet_socket(
        &mut self,
        ifindex: u32,
        _: u16,
        services: &[PacketService],
    ) -> io::Result<OwnedFd> {
        let permitted = self.0.borrow();
        let name = permitted
            .asked
            .as_ref()
            .expect("nobody asked for a packet socket");
        assert!(permitted.allows_interface(name), "a packet socket on {name:?}");
        let index = interfaces::list()?.get(name).map(|interface| interface.index);
        assert_eq!(
            index,
            Some(ifindex),
            "a packet socket on another interface than {name:?}"
        );
        assert_eq!(
            services, permitted.in_effect,
            "a filter for what is not in effect"
        );
        memfd::sealed(b"a packet socket")
    }

    fn refilter(&mut self, _: BorrowedFd<'_>, services: &[PacketService]) -> io::Result<()> {
        assert!(
            self.0.borrow().allows_services(services),
            "a filter for {services:?}"
        );
        Ok(())
    }

    fn claim(&mut self, _: Duration) -> Result<(), ClaimError> {
        let mut permitted = self.0.borrow_mut();
        if permitted.is_held() {
            return Err(ClaimError::Held(Holder {
                pid: Some(1),
                config_file: None,
            }));
        }
        permitted.has_claimed = true;
        Ok(())
    }

    fn release(&mut self) {
        let mut permitted = self.0.borrow_mut();
        // what was in effect until now is said to be no longer by the reply that is yet to come
        permitted.has_claimed = false;
    }

    fn apply_firewall(&mut self, services: &[PacketService]) -> Result<Served, String> {
        let permitted = self.0.borrow();
        assert!(permitted.has_claimed, "rules while a rival may have some");
        assert!(permitted.allows_services(services), "rules for {services:?}");
        if permitted.firewall_fails {
            return Err("the firewall does not work".to_owned());
        }
        Ok(Served::default())
    }

    fn clear_firewall(&mut self) -> Result<(), String> {
        panic!("the rules outlive the messages");
    }
}
