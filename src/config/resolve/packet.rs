//! What the packet modes demand of addresses, ports and families.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    ops::Range,
};

use crate::{
    base::{IpServerAddr, ListenRange, PortMap, Protocol, Zone},
    config::{
        address::not_of_one_host,
        findings::Findings,
        model::{Backend, Config, DsrMethod, Frontend, Mode},
        raw,
        users::Users,
    },
};

/// Checks every frontend in a packet mode, and the servers behind them.
pub fn check(file: &raw::File, config: &Config, users: &Users<'_>, findings: &mut Findings) {
    let raw_frontends = file.frontends.as_ref().map(|at| &at.value.0);
    let mut uses: BTreeMap<&str, Uses<'_>> = BTreeMap::new();
    let (mut vips, mut by_port) = (Vips::default(), Vec::new());
    for frontend in config.frontends.values().filter(|f| f.mode.is_packet()) {
        let name = frontend.name.as_str();
        let Some(raw) = raw_frontends.and_then(|all| all.get(name)) else {
            continue;
        };
        findings.within("frontends", |findings| {
            findings.within(name, |findings| {
                interface(frontend, &raw.value, findings);
                findings.within("listen_addr", |findings| {
                    listen_addresses(frontend, &raw.value, findings);
                });
            });
        });
        let backend = uses.entry(frontend.backend.as_str()).or_default();
        let listen = raw.value.listen_addr.iter().flat_map(|at| &at.value.0);
        for (range, span) in listen.filter(|(range, _)| not_of_one_host(range.ip()).is_none()) {
            let vip = Vip {
                frontend,
                range: *range,
                span: span.clone(),
            };
            by_port.push(((range.ip(), frontend.protocol), range.ports(), vip.clone()));
            vips.by_ip.entry(range.ip()).or_insert_with(|| vip.clone());
            let method = config.backends.get(&frontend.backend).map(|b| b.dsr_method);
            if method != Some(DsrMethod::L2) {
                one_answer(backend, &vip, findings);
            }
            backend.add(vip);
        }
    }
    if vips.by_ip.is_empty() {
        return;
    }
    vips.by_port = by_port.into_iter().collect();
    let raw_backends = file.backends.iter().flat_map(|at| &at.value.0);
    for (name, raw) in raw_backends {
        let Some(backend) = config.backends.get(name.as_str()) else {
            continue;
        };
        let only_packets = users.are_only_packets(name);
        let uses = uses.get(name.as_str());
        if let Some(uses) = uses {
            method(uses, backend, findings);
            families(uses, backend, findings);
        }
        for (server, at) in raw.value.servers.iter().flat_map(|at| &at.value.0) {
            let Some(at) = &at.value.fixed() else { continue };
            // one at a path is refused elsewhere
            if let Some(addr) = at.value.on_network() {
                let place = Place {
                    backend: name,
                    only_packets,
                    server,
                    addr,
                    span: at.span.clone(),
                };
                place.check(uses, backend, config, &vips, findings);
            }
        }
    }
}

/// 0.3.5 refused flows beyond `connection_tracker_capacity`. Said once, where its packet modes are used and nothing
/// else is said.
pub fn capacity(file: &raw::File, config: &Config, findings: &mut Findings) {
    let Some((section, packet)) = file.packet_section() else {
        return;
    };
    let Some(capacity) = &packet.value.connection_tracker_capacity else {
        return;
    };
    let limit = config.packet.max_flows.get();
    let used = config
        .frontends
        .values()
        .any(|frontend| frontend.mode.is_packet());
    findings.within(section, |findings| match &packet.value.max_flows {
        Some(max_flows) if max_flows.value.0 < u64::from(limit) => findings.within("max_flows", |findings| {
            findings.warn(
                max_flows.span.clone(),
                format!("`connection_tracker_capacity` is larger, so the limit is {limit}"),
                "remove connection_tracker_capacity, which is 0.3.5's key, so that max_flows is the limit"
                    .to_owned(),
            );
        }),
        None if used && capacity.value.0 != u64::from(limit) => {
            findings.within("connection_tracker_capacity", |findings| {
                findings.warn(
                    capacity.key.clone(),
                    format!("the limit is {limit} flows; in Convey 0.3.5 this key was the limit"),
                    format!("write max_flows = {limit} to confirm that, or remove this key and write another max_flows"),
                );
            });
        }
        _ => {}
    });
}

/// An address of a frontend in a packet mode, with its ports.
#[derive(Clone)]
struct Vip<'a> {
    frontend: &'a Frontend,
    range: ListenRange,
    span: Range<usize>,
}

/// All of them; of those that share an address, the first.
#[derive(Default)]
struct Vips<'a> {
    by_port: PortMap<(IpAddr, Protocol), Vip<'a>>,
    by_ip: HashMap<IpAddr, Vip<'a>>,
}

impl<'a> Vips<'a> {
    /// The one that has an address and port, of whichever protocol.
    fn at(&self, addr: SocketAddr) -> Option<&Vip<'a>> {
        [Protocol::Tcp, Protocol::Udp]
            .iter()
            .find_map(|protocol| self.by_port.at(&(addr.ip(), *protocol), addr.port()))
    }
}

/// What frontends in packet modes ask of a backend: the first that asks each.
#[derive(Default)]
struct Uses<'a> {
    v4: Option<Vip<'a>>,
    v6: Option<Vip<'a>>,
    dsr_v6: Option<Vip<'a>>,
    /// By whether it is IPv4, and the first port.
    dsr_ports: BTreeMap<(bool, u16), Vip<'a>>,
    /// By whether it is IPv4, and protocol.
    dsr_answers: BTreeMap<(bool, Protocol), Vip<'a>>,
}

impl<'a> Uses<'a> {
    fn add(&mut self, vip: Vip<'a>) {
        let dsr = vip.frontend.mode == Mode::Dsr;
        let v4 = vip.range.ip().is_ipv4();
        if dsr {
            self.dsr_ports
                .entry((v4, vip.range.ports().first))
                .or_insert_with(|| vip.clone());
            self.dsr_answers
                .entry((v4, vip.frontend.protocol))
                .or_insert_with(|| vip.clone());
        }
        if v4 {
            self.v4.get_or_insert(vip);
        } else {
            if dsr {
                self.dsr_v6.get_or_insert_with(|| vip.clone());
            }
            self.v6.get_or_insert(vip);
        }
    }
}

fn family(v4: bool) -> &'static str {
    if v4 { "IPv4" } else { "IPv6" }
}

/// Whether an address is on an interface that it names. The packet path knows addresses without one.
fn zoned(addr: &SocketAddr, zone: Option<&Zone>) -> bool {
    zone.is_some() || matches!(addr, SocketAddr::V6(v6) if v6.scope_id() != 0)
}

fn listen_addresses(frontend: &Frontend, raw: &raw::Frontend, findings: &mut Findings) {
    let mode = frontend.mode;
    for (range, span) in raw.listen_addr.iter().flat_map(|at| &at.value.0) {
        let (ip, addr) = (range.ip(), range.first());
        if let Some(kind) = not_of_one_host(ip) {
            let help = if ip.is_loopback() {
                "clients of other hosts cannot send to it: write the address that they send to, or mode = \"proxy\" for clients on this host"
            } else {
                "packets are forwarded for addresses named one by one: write the address that clients send to, or mode = \"proxy\" to listen on all"
            };
            findings.error(
                span.clone(),
                format!("mode {mode} cannot serve {ip}, {kind}"),
                help.to_owned(),
            );
        } else if zoned(&addr.0, addr.zone()) {
            findings.error(
                span.clone(),
                format!("mode {mode} cannot serve {range}, an address with an interface"),
                "write an address that is not link-local; `interface` names where its packets arrive"
                    .to_owned(),
            );
        }
    }
}

fn interface(frontend: &Frontend, raw: &raw::Frontend, findings: &mut Findings) {
    if frontend.interface.as_deref() != Some("lo") {
        return;
    }
    if let Some(at) = &raw.options.interface {
        findings.within("interface", |findings| {
            findings.error(
                at.span.clone(),
                "client packets never arrive on lo",
                "a VIP may be on lo; name the interface that faces the clients, such as \"eth0\"".to_owned(),
            );
        });
    }
}

/// `tc`'s action knows IPv4 only.
fn method(uses: &Uses<'_>, backend: &Backend, findings: &mut Findings) {
    let Some(vip) = uses
        .dsr_v6
        .as_ref()
        .filter(|_| backend.dsr_method == DsrMethod::Tc)
    else {
        return;
    };
    vip.error(
        format!(
            "mode dsr over IPv6 needs dsr_method = \"nft\" or \"l2\" in backend `{}`",
            backend.name
        ),
        format!(
            "add dsr_method = \"nft\" to [backends.{}]: \"tc\", the default, rewrites IPv4 only",
            crate::config::quote::key(backend.name.as_str())
        ),
        findings,
    );
}

/// A server in mode dsr that does not have the VIPs itself cannot tell by which address a packet came to the load balancer: its answers leave from one.
fn one_answer(uses: &Uses<'_>, vip: &Vip<'_>, findings: &mut Findings) {
    let kind = (vip.range.ip().is_ipv4(), vip.frontend.protocol);
    let first = uses
        .dsr_answers
        .get(&kind)
        .filter(|first| vip.frontend.mode == Mode::Dsr && first.range != vip.range);
    let Some(first) = first else { return };
    vip.within(findings, |findings| {
        findings.warn(
            vip.span.clone(),
            format!(
                "the same servers answer for {} too: in mode dsr their answers can have only one source address and port",
                first.range
            ),
            "use another backend for it, whose servers have other addresses or ports".to_owned(),
        );
    });
}

/// Nothing translates between IPv4 and IPv6: each address needs servers of its family.
fn families(uses: &Uses<'_>, backend: &Backend, findings: &mut Findings) {
    if backend.servers.is_empty() || backend.discovery.is_some() {
        return;
    }
    for (v4, vip) in [(true, &uses.v4), (false, &uses.v6)] {
        let served = backend
            .servers
            .values()
            .any(|server| server.addr.ip().is_some_and(|ip| ip.is_ipv4() == v4));
        if let Some(vip) = vip.as_ref().filter(|_| !served) {
            vip.error(
                format!(
                    "no server of backend `{}` is {}: nothing can be forwarded for {}",
                    backend.name,
                    family(v4),
                    vip.range
                ),
                "packet modes do not translate between IPv4 and IPv6: add servers of this family, or use mode = \"proxy\""
                    .to_owned(),
                findings,
            );
        }
    }
}

impl Vip<'_> {
    fn error(&self, message: String, help: String, findings: &mut Findings) {
        self.within(findings, |findings| {
            findings.error(self.span.clone(), message, help);
        });
    }

    fn within(&self, findings: &mut Findings, find: impl FnOnce(&mut Findings)) {
        findings.within("frontends", |findings| {
            findings.within(self.frontend.name.as_str(), |findings| {
                findings.within("listen_addr", find);
            });
        });
    }
}

/// A server's address, and where it stands.
struct Place<'a> {
    backend: &'a str,
    /// Whether all frontends that use the backend are in packet modes.
    only_packets: bool,
    server: &'a str,
    addr: IpServerAddr,
    span: Range<usize>,
}

impl Place<'_> {
    fn check(
        &self,
        uses: Option<&Uses<'_>>,
        backend: &Backend,
        config: &Config,
        vips: &Vips<'_>,
        findings: &mut Findings,
    ) {
        let Some(uses) = uses else {
            if let Some(vip) = vips.at(self.addr.0) {
                self.is_vip(
                    vip,
                    "this host cannot reach its own VIPs: write the address of the server itself",
                    findings,
                );
            }
            return;
        };
        let ip = self.addr.0.ip();
        if let Some(kind) = not_of_one_host(ip) {
            self.error(
                format!(
                    "packets cannot be forwarded to server `{}`: {ip} is {kind}",
                    self.server
                ),
                "write the address of another host; only mode proxy reaches servers on this one",
                findings,
            );
            return;
        }
        if zoned(&self.addr.0, self.addr.zone()) {
            self.error(
                format!(
                    "packets cannot be forwarded to server `{}`: its address has an interface",
                    self.server
                ),
                "write an address that is not link-local",
                findings,
            );
            return;
        }
        if let Some(vip) = vips.by_ip.get(&ip) {
            self.is_vip(
                vip,
                "packets to it would come back: write the address of the server itself",
                findings,
            );
            return;
        }
        if config.packet.nat_addresses.contains(&ip) {
            self.error(
                format!("server `{}` has this host's nat_address {ip}", self.server),
                "write the address of the server itself",
                findings,
            );
        }
        self.check_family(uses, findings);
        self.check_port(uses, backend, findings);
    }

    fn check_family(&self, uses: &Uses<'_>, findings: &mut Findings) {
        let v4 = self.addr.0.is_ipv4();
        // where no address can be used at all, that has been said
        let unreached = if v4 {
            uses.v4.is_none() && uses.v6.is_some()
        } else {
            uses.v6.is_none() && uses.v4.is_some()
        };
        if !unreached || !self.only_packets {
            return;
        }
        self.within(findings, |findings| {
            findings.warn(
                self.span.clone(),
                format!(
                    "server `{}` is {}, but no address of a frontend that uses it is: it gets no packets",
                    self.server,
                    family(v4)
                ),
                "packet modes do not translate between IPv4 and IPv6".to_owned(),
            );
        });
    }

    /// DSR leaves ports as they are, unless the server's own rules map them back.
    fn check_port(&self, uses: &Uses<'_>, backend: &Backend, findings: &mut Findings) {
        let port = self.addr.0.port();
        if backend.dsr_method == DsrMethod::Nft {
            return;
        }
        let v4 = self.addr.0.is_ipv4();
        let mut listens = uses.dsr_ports.range((v4, 0)..=(v4, u16::MAX));
        let Some(((_, listen), vip)) = listens.find(|((_, listen), _)| *listen != port) else {
            return;
        };
        let same = self.addr.with_port(*listen);
        let range = vip.range;
        let of_range = if range.is_several() {
            format!(", the first of {}", range.ports())
        } else {
            String::new()
        };
        self.clash(
            vip,
            format!(
                "server `{}` has port {port}, but frontend `{}` in mode dsr listens on port {listen}{of_range}",
                self.server, vip.frontend.name
            ),
            &format!(
                "write \"{same}\", or dsr_method = \"nft\" in [backends.{}], which can map ports",
                crate::config::quote::key(self.backend)
            ),
            findings,
        );
    }

    fn is_vip(&self, vip: &Vip<'_>, help: &str, findings: &mut Findings) {
        let message = format!(
            "server `{}` has the address {} of frontend `{}` in mode {}",
            self.server,
            vip.range.ip(),
            vip.frontend.name,
            vip.frontend.mode
        );
        self.clash(vip, message, help, findings);
    }

    fn path(&self) -> [&str; 5] {
        ["backends", self.backend, "servers", self.server, "addr"]
    }

    fn clash(&self, vip: &Vip<'_>, message: String, help: &str, findings: &mut Findings) {
        findings.clash(&self.path(), self.span.clone(), vip.span.clone(), message, help);
    }

    fn error(&self, message: String, help: &str, findings: &mut Findings) {
        self.within(findings, |findings| {
            findings.error(self.span.clone(), message, help.to_owned());
        });
    }

    fn within(&self, findings: &mut Findings, find: impl FnOnce(&mut Findings)) {
        findings.within("backends", |findings| {
            findings.within(self.backend, |findings| {
                findings.within("servers", |findings| {
                    findings.within(self.server, |findings| findings.within("addr", find));
                });
            });
        });
    }
}
