//! What is served, by VIP, protocol and port: made of a snapshot for the packet path.

mod counts;
mod left_behind;

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use super::{key::Key, key::Seeded, shares::ShareLimit, tcp_state::TcpState};
use crate::{
    access::FrontendAccess,
    balance::{Balancer, Pick, PickState},
    base::{
        AccessReason, FrontendName, IpServerAddr, ListenRange, PacketReason, PortMap, PortRanges, Protocol,
        ServerKey, ServerState, WorkerId,
    },
    config::{DsrMethod, Mode, PortsPerClient},
    snapshot::{
        FrontendView, ServerView, Snapshot,
        live::{BackendStats, FrontendStats, ServerStats},
    },
};

pub use counts::SeenElsewhere;
pub use left_behind::{LeftBehind, Nobody};

/// UDP flows without a configured time.
const UDP_IDLE: Duration = Duration::from_secs(60);
/// TCP flows without a configured time.
const TCP_IDLE: Duration = Duration::from_secs(900);

/// What is served: made of each snapshot, shared by the workers.
#[derive(Debug, Default)]
pub struct Services {
    generation: u64,
    /// Those of one port.
    by_vip: HashMap<Vip, Arc<Service>, Seeded>,
    /// Those of several, by a VIP's address with port 0.
    by_range: PortMap<Vip, Arc<Service>, Seeded>,
    addresses: HashSet<IpAddr, Seeded>,
    nat_ports: PortRanges,
    ports: PortCounts,
    any_interface: bool,
    ports_per_client: PortsPerClient,
}

/// The NAT ports that there are towards each server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct PortCounts {
    v4: u32,
    v6: u32,
}

impl PortCounts {
    /// Of a VIP's family.
    const fn of(self, vip: ListenRange) -> u32 {
        if vip.ip().is_ipv4() { self.v4 } else { self.v6 }
    }
}

/// How packets of a service travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum ForwardMode {
    /// Full NAT, both ways through us.
    Passthrough,
    /// Only the destination changes, or only its link address, and only the client's packets come through us.
    Dsr,
}

/// One VIP address, with a port or several in a row, and what is behind it.
#[derive(Debug)]
pub(super) struct Service {
    pub mode: ForwardMode,
    pub range: ListenRange,
    /// What it was made of.
    pub view: Arc<FrontendView>,
    /// By the index of the server in its backend; `None`: of another family than the VIP.
    pub targets: Vec<Option<Arc<FlowTarget>>>,
}

/// A server behind a VIP, as one generation knows it: what a flow points at.
#[derive(Debug)]
pub struct FlowTarget {
    /// The frontend of the VIP.
    pub frontend: FrontendName,
    /// The server's name.
    pub server: ServerKey,
    /// The server's address.
    pub ip: IpAddr,
    /// How far its ports are above the VIP's, counted round at 65,536: none in DSR without port mapping.
    shift: u16,
    /// In DSR, whether packets to it keep their addresses, for it has the VIP itself (`dsr_method = "l2"`).
    pub has_vip: bool,
    /// The server's state.
    pub state: ServerState,
    idle: Duration,
    /// Half of the NAT ports that there are towards it, towards all ports of a range together.
    half_of_ports: u32,
    /// What a client may hold of them; `None`: all.
    share: Option<ShareLimit>,
    access: Option<Arc<FrontendAccess>>,
    frontend_live: Arc<FrontendStats>,
    backend_live: Arc<BackendStats>,
    server_live: Arc<ServerStats>,
}

/// An address and port of ours as a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Vip(Key);

impl Vip {
    fn new(protocol: Protocol, addr: SocketAddr) -> Self {
        Self(Key::new(protocol, addr, addr))
    }
}

impl Services {
    /// The services of a snapshot; those whose frontends are the same as before are shared with `previous`.
    #[must_use]
    pub fn build(snapshot: &Snapshot, previous: &Self) -> Self {
        let ports = PortCounts {
            v4: snapshot.nat_ports_towards(true),
            v6: snapshot.nat_ports_towards(false),
        };
        let mut services = Self {
            generation: snapshot.generation,
            nat_ports: snapshot.nat_ports,
            ports,
            any_interface: snapshot.any_interface,
            ports_per_client: snapshot.ports_per_client,
            ..Self::default()
        };
        let mut by_range = Vec::new();
        for frontend in snapshot.frontends.values() {
            let mode = match frontend.config.mode {
                Mode::Proxy => continue,
                Mode::Passthrough => ForwardMode::Passthrough,
                Mode::Dsr => ForwardMode::Dsr,
            };
            for range in &frontend.config.listen {
                let same = previous.of(frontend.config.protocol, *range).filter(|service| {
                    Arc::ptr_eq(&service.view, frontend)
                        && service.range == *range
                        && previous.ports == ports
                        && previous.ports_per_client == snapshot.ports_per_client
                });
                let service = same.map_or_else(
                    || {
                        let per_client = snapshot.ports_per_client;
                        let ports = ports.of(*range);
                        Arc::new(Service::new(
                            Arc::clone(frontend),
                            *range,
                            mode,
                            ports,
                            per_client,
                        ))
                    },
                    Arc::clone,
                );
                services.addresses.insert(range.ip());
                let first = range.first().0;
                if range.is_several() {
                    let address = Vip::new(frontend.config.protocol, SocketAddr::new(first.ip(), 0));
                    by_range.push((address, range.ports(), service));
                } else {
                    services
                        .by_vip
                        .insert(Vip::new(frontend.config.protocol, first), service);
                }
            }
        }
        services.by_range = by_range.into_iter().collect();
        services
    }

    /// The snapshot's generation.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// What is served at an address and port.
    pub(super) fn at(&self, protocol: Protocol, addr: SocketAddr) -> Option<&Arc<Service>> {
        let one = self.by_vip.get(&Vip::new(protocol, addr));
        if one.is_some() || self.by_range.is_empty() {
            return one;
        }
        let address = Vip::new(protocol, SocketAddr::new(addr.ip(), 0));
        self.by_range.at(&address, addr.port())
    }

    /// Every service, in no order.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.by_vip.values().chain(self.by_range.values())
    }

    /// What is served at the first of these.
    fn of(&self, protocol: Protocol, range: ListenRange) -> Option<&Arc<Service>> {
        self.at(protocol, range.first().0)
    }

    /// Whether anything is served at an address.
    pub(super) fn has_address(&self, ip: IpAddr) -> bool {
        self.addresses.contains(&ip)
    }

    /// The addresses at which anything is served.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().copied()
    }

    /// `nat_ports`.
    #[must_use]
    pub const fn nat_ports(&self) -> PortRanges {
        self.nat_ports
    }

    /// `any_interface`: servers' packets count by whichever interface they come in.
    #[must_use]
    pub const fn any_interface(&self) -> bool {
        self.any_interface
    }

    /// Compares a flow's server with these services, once for each generation. What is configured no more stays as it
    /// was: its flows live on.
    pub fn renew_target(&self, key: &Key, target: &mut Arc<FlowTarget>, generation: &mut u64) {
        // a worker that has older services still must not undo it
        if *generation < self.generation {
            *generation = self.generation;
            if let Some(now) = self.renew(key.protocol(), key.to(), target) {
                *target = Arc::clone(now);
            }
        }
    }

    /// The server of a flow as this generation knows it; `None` if frontend or server are not configured any more, or
    /// not as they were.
    pub(super) fn renew(
        &self,
        protocol: Protocol,
        vip: SocketAddr,
        target: &FlowTarget,
    ) -> Option<&Arc<FlowTarget>> {
        let service = self.at(protocol, vip)?;
        let backend = &service.view.backend;
        if backend.config.name != target.server.backend {
            return None;
        }
        let index = backend.index(target.server.server.as_str())?;
        let now = service.targets.get(index)?.as_ref()?;
        // connections of a server know it by the address and port that they began with
        let same = (now.ip, now.shift, now.has_vip) == (target.ip, target.shift, target.has_vip);
        same.then_some(now)
    }
}

impl Service {
    /// `ports`: the NAT ports that there are towards each server.
    fn new(
        view: Arc<FrontendView>,
        range: ListenRange,
        mode: ForwardMode,
        ports: u32,
        per_client: PortsPerClient,
    ) -> Self {
        // each port of a server has so many of its own
        let half_of_ports = (ports / 2).saturating_mul(range.ports().len());
        let share = per_client.of(ports).filter(|_| mode == ForwardMode::Passthrough);
        let share = share.map(|ports| ShareLimit {
            clients: view.config.limits.per_client.unwrap_or_default(),
            ports,
        });
        let targets = (view.backend.servers.iter())
            .map(|server| {
                let addr = server.addr.on_network()?;
                let is_of_family = addr.0.is_ipv4() == range.ip().is_ipv4();
                let target = || FlowTarget::new(&view, (server, addr), range, mode, half_of_ports, share);
                is_of_family.then(|| Arc::new(target()))
            })
            .collect();
        Self {
            mode,
            range,
            view,
            targets,
        }
    }

    /// The frontend's name.
    pub fn frontend(&self) -> &FrontendName {
        &self.view.config.name
    }

    /// Who may open a flow; `None`: everybody.
    pub fn access(&self) -> Option<&FrontendAccess> {
        self.view.access.as_deref()
    }

    /// Counts a packet that its rules or limits refuse.
    pub fn refuse(&self, worker: WorkerId, reason: AccessReason) -> PacketReason {
        refuse(&self.view.live, worker, reason)
    }

    fn maglev(&self) -> Option<&Balancer> {
        self.view.backend.maglev.as_deref()
    }

    /// What a flow falls on a slot by. A client's address alone chooses for all ports of a range, and alike for all ranges
    /// whose servers have the same names: media goes where its signalling went, data where the control connection is.
    fn hash(&self, maglev: &Balancer, client: SocketAddr, vip: SocketAddr) -> u64 {
        if self.range.is_several() {
            maglev.client_hash(client.ip())
        } else {
            maglev.flow_hash(client, vip)
        }
    }

    /// The server for a new flow; `None` if none is up.
    pub fn choose(&self, client: SocketAddr, vip: SocketAddr) -> Option<&Arc<FlowTarget>> {
        let maglev = self.maglev()?;
        let pick = Pick {
            client_hash: 0,
            flow_hash: self.hash(maglev, client, vip),
            random: 0,
            load: &|_| 0,
            usable: &|index| matches!(self.targets.get(index), Some(Some(_))),
        };
        let index = maglev.pick(&mut PickState::default(), &pick)?;
        self.targets.get(index)?.as_ref()
    }

    /// The slot of the Maglev table that a flow falls on.
    pub fn slot(&self, client: SocketAddr, vip: SocketAddr) -> Option<usize> {
        let maglev = self.maglev()?;
        maglev.slot(self.hash(maglev, client, vip))
    }
}

impl FlowTarget {
    fn new(
        frontend: &FrontendView,
        (server, addr): (&ServerView, IpServerAddr),
        range: ListenRange,
        mode: ForwardMode,
        half_of_ports: u32,
        share: Option<ShareLimit>,
    ) -> Self {
        let method = frontend.backend.config.dsr_method;
        let maps_ports = method == DsrMethod::Nft;
        let shift = if mode == ForwardMode::Passthrough || maps_ports {
            addr.0.port().wrapping_sub(range.ports().first)
        } else {
            0
        };
        let idle = frontend
            .config
            .idle_timeout
            .unwrap_or(match frontend.config.protocol {
                Protocol::Tcp => TCP_IDLE,
                Protocol::Udp => UDP_IDLE,
            });
        Self {
            frontend: frontend.config.name.clone(),
            server: ServerKey {
                backend: frontend.backend.config.name.clone(),
                server: server.name.clone(),
            },
            ip: addr.0.ip(),
            shift,
            has_vip: method == DsrMethod::L2,
            state: server.state,
            idle,
            half_of_ports,
            share,
            access: frontend.access.clone(),
            frontend_live: Arc::clone(&frontend.live),
            backend_live: Arc::clone(&frontend.backend.live),
            server_live: Arc::clone(&server.live),
        }
    }

    /// Where packets to a VIP's port go.
    pub const fn at(&self, vip: SocketAddr) -> SocketAddr {
        SocketAddr::new(self.ip, vip.port().wrapping_add(self.shift))
    }

    /// Whether new packets to it would be lost: it failed its checks.
    pub fn is_down(&self) -> bool {
        self.state == ServerState::Down
    }

    /// How long a flow in a state is remembered after its last packet.
    pub fn lifetime(&self, life: TcpState) -> Duration {
        life.lifetime(self.idle, self.is_scarce())
    }

    /// The same in mode dsr, whose flows take no NAT ports: these may be scarce for frontends of the other mode.
    #[must_use]
    pub fn direct_lifetime(&self, life: TcpState) -> Duration {
        life.lifetime(self.idle, false)
    }

    /// How far its ports are above the VIP's, counted round at 65,536.
    #[must_use]
    pub const fn shift(&self) -> u16 {
        self.shift
    }

    /// How long an open flow is remembered after its last packet.
    #[must_use]
    pub const fn idle(&self) -> Duration {
        self.idle
    }

    /// Half of the NAT ports that there are towards it: where more are claimed, what is half-open is soon forgotten.
    #[must_use]
    pub const fn half_of_ports(&self) -> u32 {
        self.half_of_ports
    }

    /// Whether half of the NAT ports towards it are claimed.
    fn is_scarce(&self) -> bool {
        self.server_live.nat_ports.load(Relaxed) > self.half_of_ports
    }

    /// What a client may hold of its NAT ports; `None`: all.
    pub const fn share(&self) -> Option<&ShareLimit> {
        self.share.as_ref()
    }

    /// Who may open a flow; `None`: everybody.
    pub fn access(&self) -> Option<&FrontendAccess> {
        self.access.as_deref()
    }

    /// Counts a packet that the rules or limits refuse.
    pub fn refuse(&self, worker: WorkerId, reason: AccessReason) -> PacketReason {
        refuse(&self.frontend_live, worker, reason)
    }

    /// So many NAT ports are claimed towards its server: for who keeps that count elsewhere.
    pub fn set_claimed_ports(&self, claimed: u32) {
        self.server_live.nat_ports.store(claimed, Relaxed);
    }

    /// A flow has claimed a NAT port.
    pub fn claim_port(&self) {
        self.server_live.nat_ports.fetch_add(1, Relaxed);
    }

    /// A flow has given its NAT port back.
    pub fn release_port(&self) {
        // the server may have been configured anew meanwhile, and count from 0
        let _ = (self.server_live.nat_ports).fetch_update(Relaxed, Relaxed, |claimed| claimed.checked_sub(1));
    }
}

fn refuse(frontend: &FrontendStats, worker: WorkerId, reason: AccessReason) -> PacketReason {
    if let Some(counter) = frontend.counters.shard(worker).refused.get(reason as usize) {
        counter.add(1);
    }
    reason.into()
}
