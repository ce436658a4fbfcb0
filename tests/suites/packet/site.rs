//! What most tests need: a client, a load balancer, servers that can do DSR, and a plan of who serves what.

use std::{
    cell::Cell,
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use convey::config::model::XdpMode;

use crate::lab::{
    Convey, Family, Host, Lab, PATIENCE,
    dsr::{self, Rewrite},
    kernel::{KernelBalancer, Method, Service},
};
use crate::xdp::{OtherEnd, finish_checksums};

/// Whether nftables stands in for Convey, to prove the suite.
pub fn kernel_in_place() -> bool {
    std::env::var("CONVEY_PACKET_SUBJECT").is_ok_and(|subject| subject == "kernel")
}

thread_local! {
    /// The engine of the test that runs here, if it is another than the suite's.
    static ENGINE: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// Runs a test by an engine (`xdp`, `xdp-native`), whichever the suite is run with.
pub fn by_engine(engine: &'static str, test: fn()) {
    /// Also when the test fails: others run on its thread.
    struct Restore;
    impl Drop for Restore {
        fn drop(&mut self) {
            ENGINE.set(None);
        }
    }
    ENGINE.set(Some(engine));
    let _restore = Restore;
    test();
}

/// The engine that the suite is run with, as lines of `[packet]`: `CONVEY_PACKET_ENGINE=xdp` is where it attaches by itself,
/// `xdp-native` in the driver.
fn engine_lines() -> &'static str {
    let suite = std::env::var("CONVEY_PACKET_ENGINE").ok();
    match ENGINE.get().or(suite.as_deref()) {
        Some("xdp") => "engine = \"xdp\"\n",
        Some("xdp-native") => "engine = \"xdp\"\nxdp_mode = \"native\"\n",
        _ => "",
    }
}

/// A packet mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// Both addresses are rewritten, answers come back through the load balancer.
    Passthrough,
    /// Answers go to the client directly.
    Dsr,
}

impl Mode {
    /// As in the configuration.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Passthrough => "passthrough",
            Self::Dsr => "dsr",
        }
    }
}

/// A mode and an address family.
pub type Way = (Mode, Family);

/// Both modes with both families.
pub const WAYS: [Way; 4] = [
    (Mode::Passthrough, Family::V4),
    (Mode::Passthrough, Family::V6),
    (Mode::Dsr, Family::V4),
    (Mode::Dsr, Family::V6),
];

/// Passthrough with both families.
pub const PASSTHROUGH: [Way; 2] = [WAYS[0], WAYS[1]];

/// DSR with both families.
pub const DSR: [Way; 2] = [WAYS[2], WAYS[3]];

/// The address of a way's frontends; every lab has the same.
pub const fn vip((mode, family): Way) -> IpAddr {
    let last = match mode {
        Mode::Passthrough => 100,
        Mode::Dsr => 101,
    };
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::new(10, 77, 0, last)),
        // fd77::1:100, as a host is fd77::N
        Family::V6 => IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 1, 0x100 + last as u16 - 100)),
    }
}

/// A VIP's prefix: a host route, which never is the source of the load balancer's own connections.
pub fn vip_prefix(way: Way) -> String {
    let bits = match way.1 {
        Family::V4 => 32,
        Family::V6 => 128,
    };
    format!("{}/{bits}", vip(way))
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Transport {
    /// As in the configuration and in nftables.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// A service on one port of every way's VIP.
#[derive(Debug, Clone)]
pub struct Port {
    /// Part of the names of its frontends and backends.
    pub name: &'static str,
    /// Its protocol.
    pub transport: Transport,
    /// The port that clients know.
    pub port: u16,
    /// The servers' port.
    pub target: u16,
}

impl Port {
    /// The same port on both sides.
    pub const fn same(name: &'static str, transport: Transport, port: u16) -> Self {
        Self {
            name,
            transport,
            port,
            target: port,
        }
    }
}

/// Who serves what.
#[derive(Clone)]
pub struct Plan {
    /// Modes and families that are served.
    pub ways: Vec<Way>,
    /// Services.
    pub ports: Vec<Port>,
    /// Servers by name, with their weights.
    pub servers: Vec<(Host, u32)>,
    /// `dsr_method` of each backend.
    pub method: &'static str,
    /// `[packet] nat_ports`.
    pub nat_ports: &'static str,
    /// Further lines of `[packet]`.
    pub passthrough: String,
    /// Further lines of each frontend.
    pub frontend: String,
    /// Further lines of each backend: health checks.
    pub backend: String,
}

/// No checks: a server counts as up whatever happens.
pub const BLIND: &str = "health_check = { enabled = false }";

/// A health check that notices within half a second.
pub const FAST_CHECK: &str =
    r#"health_check = { interval = "200ms", fast_interval = "100ms", timeout = "2s", rise = 1, fall = 2 }"#;

/// What a frontend is called.
pub fn frontend_name(port: &str, (mode, family): Way) -> String {
    format!("{port}-{}-{}", mode.label(), family_label(family))
}

/// What a backend is called.
pub fn backend_name(port: &str, family: Family) -> String {
    format!("{port}-{}", family_label(family))
}

const fn family_label(family: Family) -> &'static str {
    match family {
        Family::V4 => "v4",
        Family::V6 => "v6",
    }
}

impl Plan {
    /// These services by all ways, all servers of weight 1, without health checks.
    pub fn new<'a>(ports: &[Port], servers: impl IntoIterator<Item = &'a Host>) -> Self {
        Self {
            ways: WAYS.to_vec(),
            ports: ports.to_vec(),
            servers: servers.into_iter().map(|host| (host.clone(), 1)).collect(),
            method: "nft",
            nat_ports: "61000-65535",
            passthrough: String::new(),
            frontend: String::new(),
            backend: BLIND.to_owned(),
        }
    }

    /// By these ways only.
    pub fn by(mut self, ways: &[Way]) -> Self {
        self.ways = ways.to_vec();
        self
    }

    /// As a configuration of Convey.
    pub fn config(&self) -> String {
        let mut text = format!(
            "[packet]\nworkers = 2\nnat_ports = \"{}\"\n{}{}\n",
            self.nat_ports,
            if self.passthrough.contains("engine =") {
                ""
            } else {
                engine_lines()
            },
            self.passthrough
        );
        for port in &self.ports {
            for way in &self.ways {
                let _ = writeln!(
                    text,
                    "[frontends.{}]\nlisten_addr = \"{}\"\nmode = \"{}\"\nprotocol = \"{}\"\nbackend = \"{}\"\n{}",
                    frontend_name(port.name, *way),
                    SocketAddr::new(vip(*way), port.port),
                    way.0.label(),
                    port.transport.label(),
                    backend_name(port.name, way.1),
                    self.frontend
                );
            }
            for family in Family::ALL {
                if self.ways.iter().any(|way| way.1 == family) {
                    text += &self.backend_config(port, family);
                }
            }
        }
        text
    }

    fn backend_config(&self, port: &Port, family: Family) -> String {
        let mut text = format!(
            "[backends.{}]\ndsr_method = \"{}\"\n{}\n",
            backend_name(port.name, family),
            self.method,
            self.backend
        );
        for (server, weight) in &self.servers {
            let addr = server.addr_of(family, port.target);
            let _ = writeln!(
                text,
                "servers.{} = {{ addr = \"{addr}\", weight = {weight} }}",
                server.name()
            );
        }
        text
    }

    /// As rules of nftables.
    pub fn services(&self) -> Vec<Service> {
        self.ports
            .iter()
            .flat_map(|port| self.ways.iter().map(move |way| (port, *way)))
            .map(|(port, way)| Service {
                method: match way.0 {
                    Mode::Passthrough => Method::Nat,
                    Mode::Dsr => Method::Stateless,
                },
                vip: SocketAddr::new(vip(way), port.port),
                protocol: port.transport.label(),
                servers: self
                    .servers
                    .iter()
                    .map(|(host, weight)| (host.addr_of(way.1, port.target), *weight))
                    .collect(),
            })
            .collect()
    }
}

/// A client, a load balancer that has all VIPs, and servers called a, b, c …
pub struct Site {
    /// Servers, in order.
    pub servers: Vec<Host>,
    /// Where requests come from.
    pub client: Host,
    /// Where Convey runs.
    pub lb: Host,
    /// What a veth needs at its other end to take frames from the load balancer's driver, if the suite runs there.
    pub other_end: Option<OtherEnd>,
    /// Last, so that it ends last.
    pub lab: Lab,
}

impl Site {
    /// A site with so many servers.
    pub fn new(name: &str, servers: usize) -> Self {
        let site = Self::without_vips(name, servers);
        for way in WAYS {
            site.lb.add_address("eth0", &vip_prefix(way));
        }
        site
    }

    /// The same before anybody has given the load balancer its VIPs.
    pub fn without_vips(name: &str, servers: usize) -> Self {
        let lab = Lab::new(name);
        let (client, lb) = (lab.host("client"), lab.host("lb"));
        let other_end = engine_lines()
            .contains("native")
            .then(|| OtherEnd::prepare(&lab, &lb));
        let servers: Vec<Host> = (["a", "b", "c", "d"][..servers].iter())
            .map(|name| lab.host(name))
            .collect();
        if !engine_lines().is_empty() {
            // else all of their packets were the slow path's
            [&client].into_iter().chain(&servers).for_each(finish_checksums);
        }
        Self {
            servers,
            client,
            lb,
            other_end,
            lab,
        }
    }

    /// Gives the load balancer another interface, with a cable to one of a host's. What it gives keeps the cable fit for the
    /// suite's engine.
    #[must_use]
    pub fn plug_in(&self, name: &str, end: (&Host, &str)) -> Option<OtherEnd> {
        self.lab.cable((&self.lb, name), end);
        self.other_end_at(end.0, end.1)
    }

    /// As [`other_end`](Self::other_end), at the other end of another cable.
    #[must_use]
    pub fn other_end_at(&self, host: &Host, name: &str) -> Option<OtherEnd> {
        let is_native = self.other_end.is_some();
        is_native.then(|| OtherEnd::at(host, name, XdpMode::Native))
    }

    /// Every host.
    pub fn hosts(&self) -> impl Iterator<Item = &Host> {
        [&self.client, &self.lb].into_iter().chain(&self.servers)
    }

    /// Prepares the servers for DSR and starts the load balancer, ready.
    #[track_caller]
    pub fn balance(&self, plan: &Plan) -> Balancer {
        self.prepare_servers(plan);
        if kernel_in_place() {
            Balancer::Kernel(KernelBalancer::start(&self.lb, plan.nat_ports, &plan.services()))
        } else {
            Balancer::Convey(Box::new(self.lab.convey(&self.lb, &plan.config())))
        }
    }

    /// Convey alone, for tests that the kernel cannot stand in for.
    #[track_caller]
    pub fn convey(&self, plan: &Plan) -> Convey {
        self.prepare_servers(plan);
        self.lab.convey(&self.lb, &plan.config())
    }

    /// Has the answers of every server of a plan leave as DSR wants them.
    #[track_caller]
    pub fn prepare_servers(&self, plan: &Plan) {
        let except = [IpAddr::V4(self.lb.ip4()), IpAddr::V6(self.lb.ip6())];
        for (server, _) in &plan.servers {
            let rewrites: Vec<Rewrite> = plan
                .ports
                .iter()
                .flat_map(|port| plan.ways.iter().map(move |way| (port, *way)))
                .filter(|(_, way)| way.0 == Mode::Dsr)
                .map(|(port, way)| Rewrite {
                    own: server.addr_of(way.1, port.target),
                    vip: SocketAddr::new(vip(way), port.port),
                    protocol: port.transport.label(),
                })
                .collect();
            if !rewrites.is_empty() {
                dsr::install_by(plan.method, server, &rewrites, &except);
            }
        }
    }
}

/// The load balancer of a test.
pub enum Balancer {
    /// Ours.
    Convey(Box<Convey>),
    /// Nftables in its place.
    Kernel(KernelBalancer),
}

impl Balancer {
    /// Ours, if it is.
    pub fn convey(&self) -> Option<&Convey> {
        match self {
            Self::Convey(convey) => Some(convey),
            Self::Kernel(_) => None,
        }
    }

    /// Goes over to another plan (of the same servers); must succeed.
    #[track_caller]
    pub fn change(&self, plan: &Plan) {
        match self {
            Self::Convey(convey) => convey.reload(&plan.config()),
            Self::Kernel(kernel) => kernel.change(&plan.services()),
        }
    }
}

/// Repeats until it works: for what is allowed to take a moment.
#[track_caller]
pub fn eventually<T, E: std::fmt::Display>(what: &str, mut attempt: impl FnMut() -> Result<T, E>) -> T {
    let start = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(error) if start.elapsed() > PATIENCE => panic!("{what}: {error}"),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}
