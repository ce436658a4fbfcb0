//! The views of the packet modes. Pure.

mod servers;

use std::{collections::BTreeMap, net::IpAddr, time::Instant};

use super::{
    candidates,
    status::{Alerts, Network, PacketCounts, PacketStatus, RulesStatus, Wait, Waiting},
    views::{self, Because, FrontendState, HopState, Word},
};
use crate::{
    base::{Alert, ListenRange, PortRanges, Remote, ServerAddr, ServerKey},
    config::{self, EngineChoice, LOCAL_ADDRESS, Mode, ServerNameFrom, ServerTrust},
    flow::{self, FiveTuple, FlowInfo, Hop, Resolution},
    preamble::Alpn,
    snapshot::{Facts, FrontendView, Hello, Snapshot, Way},
};

pub use servers::ServerViews;

/// The table that firewall rules are in: before connection tracking.
const TABLE: &str = "raw";

/// Their chain.
const CHAIN: &str = "CONVEY";

/// What the ClientHello of an explained connection says.
#[derive(Debug, Default)]
pub struct Asks {
    /// The name, in lower case.
    pub sni: Option<String>,
    /// The protocols that it offers.
    pub alpn: Alpn,
}

impl Asks {
    fn hello(&self) -> Hello<'_> {
        Hello::Read {
            sni: self.sni.as_deref(),
            alpn: &self.alpn,
        }
    }
}

/// The packet modes, for `GET /v1/status`.
#[must_use]
pub fn packet(status: &PacketStatus, counts: &PacketCounts, nat_ports: PortRanges) -> views::Packet {
    let counted = counts.packets.iter().filter(|(_, count)| *count > 0);
    let network = &status.network;
    let hops = network.hops.servers.iter();
    views::Packet {
        engine: status.engine.into(),
        engine_reason: status.engine_reason.to_string(),
        workers: status.workers,
        nat_ports: nat_ports.to_string(),
        interfaces: status.interfaces.clone(),
        flows: views::PacketFlows {
            nat: counts.usage.nat_flows,
            half_open: counts.usage.half_open,
            dsr: counts.usage.dsr_flows,
            max: counts.usage.max_flows,
            fragments_waiting: counts.usage.fragments_waiting,
            gave_way: counts.usage.gave_way,
        },
        packets: counted
            .map(|(reason, count)| ((*reason).into(), *count))
            .collect(),
        alerts: alerts(&status.alerts, &None),
        rules: rules(&status.rules),
        xdp: (status.engine == EngineChoice::Xdp).then(|| xdp(status, counts)),
        next_hops: hops.map(|(ip, hop)| (*ip, next_hop(*ip, hop, network))).collect(),
    }
}

fn xdp(status: &PacketStatus, counts: &PacketCounts) -> views::Xdp {
    let interfaces = status.xdp.iter().map(|(name, at)| {
        let at = views::XdpInterface {
            mode: at.mode.into(),
            reason: Some(at.why.clone()).filter(|why| !why.is_empty()),
        };
        (name.clone(), at)
    });
    let passed = counts.passed.iter().filter(|(_, count)| *count > 0);
    views::Xdp {
        interfaces: interfaces.collect(),
        passed: passed
            .map(|(reason, count)| ((*reason).to_owned(), *count))
            .collect(),
    }
}

/// Those of a server, or of all of them.
fn alerts(alerts: &Alerts, server: &Option<ServerKey>) -> Vec<Word<Alert>> {
    let found = alerts.get(server);
    found.into_iter().flatten().map(|alert| (*alert).into()).collect()
}

fn rules(status: &RulesStatus) -> views::PacketRules {
    views::PacketRules {
        error: status.error.clone(),
        restored: status.restored,
        restored_seconds_ago: status.last_restored.map(|last| last.elapsed().as_secs()),
    }
}

/// The firewall rules.
#[must_use]
pub fn firewall(status: &RulesStatus) -> views::Firewall {
    let of = |v6: bool| {
        let ours = status.kept.iter().filter(|rule| rule.v6 == v6);
        ours.map(|rule| rule.text.clone()).collect()
    };
    views::Firewall {
        table: TABLE.into(),
        chain: CHAIN.into(),
        ipv4: of(false),
        ipv6: of(true),
        state: rules(status),
    }
}

/// How far a next hop is known.
#[must_use]
pub fn hop_state(hop: &Hop) -> HopState {
    match &hop.resolution {
        Resolution::Known(_) => HopState::Resolved,
        Resolution::Unresolved { .. } => HopState::Unresolved,
        Resolution::NoRoute => HopState::NoRoute,
    }
}

fn next_hop(ip: IpAddr, hop: &Hop, network: &Network) -> views::NextHop {
    let link = match &hop.resolution {
        Resolution::Known(link) => Some(link),
        Resolution::Unresolved { .. } | Resolution::NoRoute => None,
    };
    views::NextHop {
        state: hop_state(hop).into(),
        reason: network.no_way.get(&ip).cloned(),
        interface: link.map(|link| {
            let name = network.links.get(&link.ifindex).cloned();
            name.unwrap_or_else(|| format!("interface {}", link.ifindex))
        }),
        mac: link.map(|link| link.destination.to_string()),
        locals: hop.locals.to_vec(),
        source_moves: network.moving.contains(&ip),
        mtu: hop.mtu,
    }
}

/// Whether packets to a frontend's addresses reach us, and why not.
#[must_use]
pub fn frontend_state(
    view: &FrontendView,
    waiting: &Waiting,
) -> (FrontendState, BTreeMap<ListenRange, String>) {
    let waiting: BTreeMap<_, _> = waits(view, waiting)
        .map(|(vip, wait)| (vip, wait.why.clone()))
        .collect();
    let state = if waiting.is_empty() {
        FrontendState::Live
    } else {
        FrontendState::Waiting
    };
    (state, waiting)
}

/// Whether clients are served that reach a frontend: a backend of its, or a fallback of that, has an eligible server, and each of its addresses is live,
/// or on no interface of this host. (So is every address of a standby, which would not take over if that were a fault.)
#[must_use]
pub fn serves(snapshot: &Snapshot, view: &FrontendView, waiting: &Waiting) -> bool {
    let mut targets = view.targets.iter();
    targets.any(|target| snapshot.has_server(target))
        && waits(view, waiting).all(|(_, wait)| wait.is_elsewhere)
}

fn waits<'a>(view: &'a FrontendView, waiting: &'a Waiting) -> impl Iterator<Item = (ListenRange, &'a Wait)> {
    let ranges = view.config.ranges();
    ranges.filter_map(|range| Some((range.listen, waiting.get(&range)?)))
}

/// A flow among the connections.
#[must_use]
pub fn connection(flow: &FlowInfo) -> views::Connection {
    // it outlives its frontend, and that one's mode
    let mode = match flow.nat {
        Some(_) => Mode::Passthrough,
        None => Mode::Dsr,
    };
    views::Connection {
        client: Remote::Addr(flow.tuple.client),
        protocol: flow.tuple.protocol.into(),
        mode: mode.into(),
        frontend: flow.frontend.clone(),
        backend: Some(flow.server.backend.clone()),
        server: Some(flow.server.server.clone()),
        server_addr: Some(flow.server_addr.into()),
        server_removed: false,
        sni: None,
        tls: None,
        server_tls: None,
        frontend_removed: false,
        local: flow.nat,
        idle_seconds: Some(flow.idle.as_secs_f64()),
        worker: None,
        age_seconds: None,
        bytes_in: None,
        bytes_out: None,
        flow: Some(flow_view(flow)),
    }
}

fn flow_view(flow: &FlowInfo) -> views::Flow {
    views::Flow {
        vip: flow.tuple.vip,
        nat: flow.nat,
        state: flow.state.into(),
        idle_seconds: flow.idle.as_secs_f64(),
        expires_in_seconds: flow.expires_in.as_secs_f64(),
    }
}

/// Where packets of a 5-tuple would go. `found` is the engine's answer; `None` if no engine runs.
#[must_use]
pub fn explanation(
    snapshot: &Snapshot,
    tuple: &FiveTuple,
    asks: &Asks,
    found: Option<flow::Explanation>,
    waiting: &Waiting,
) -> views::Explanation {
    let mut view = views::Explanation {
        protocol: tuple.protocol.into(),
        client: tuple.client,
        vip: tuple.vip,
        frontend: None,
        mode: None,
        backend: None,
        because: Because::Packets(flow::Because::NotServed).into(),
        server: None,
        server_addr: None,
        server_state: None,
        candidates: 0,
        route: None,
        refused: None,
        balance: None,
        shares: Vec::new(),
        server_tls: None,
        slot: None,
        sticky: false,
        flow: None,
        blocked_by: None,
    };
    match found.filter(|found| found.because != flow::Because::NotServed) {
        Some(found) => packet_explanation(&mut view, snapshot, tuple, found, waiting),
        None => {
            if let Some(frontend) = proxied_by(snapshot, tuple) {
                name_frontend(&mut view, snapshot, frontend);
                view.because = Because::Proxied.into();
                proxied_way(&mut view, snapshot, frontend, tuple, asks);
                let access = frontend.access.as_ref();
                let denied = access.and_then(|access| access.check_rules(tuple.client.0.ip()).err());
                view.blocked_by = denied.map(|reason| Word::Known(reason.into()));
            }
        }
    }
    view
}

/// Where the routes lead, and why not.
fn proxied_way(
    view: &mut views::Explanation,
    snapshot: &Snapshot,
    frontend: &FrontendView,
    tuple: &FiveTuple,
    asks: &Asks,
) {
    let facts = Facts {
        client: Remote::Addr(tuple.client),
        destination: Some(tuple.vip),
        hello: match frontend.needs_hello || frontend.tls.is_some() {
            true => asks.hello(),
            false => Hello::Unread,
        },
    };
    match frontend.way(&facts) {
        Ok(way) => {
            let way = snapshot.with_fallback(frontend, way, &facts);
            proxied_choice(view, &way, tuple);
            let asked = match facts.hello {
                Hello::Read { sni, .. } => sni,
                Hello::Unread | Hello::NotTls => None,
            };
            view.server_tls = (way.backend.config.tls.as_ref()).map(|tls| to_server(tls, view, asked));
        }
        Err(reason) => {
            view.refused = Some(reason.into());
            view.route = frontend.deciding_route(&facts);
            (view.backend, view.candidates) = (None, 0);
        }
    }
}

/// The TLS that a connection to the server goes through, of a client that asks for this name.
fn to_server(
    tls: &config::BackendTls,
    view: &views::Explanation,
    asked: Option<&str>,
) -> views::TlsToServers {
    let address = || match view.server_addr {
        Some(ServerAddr::Ip(addr)) => addr.0.ip().to_string(),
        Some(ServerAddr::Unix(_)) => LOCAL_ADDRESS.to_string(),
        None => "the server's address".to_owned(),
    };
    let server = || view.server.as_ref().map(ToString::to_string);
    views::TlsToServers {
        verified: tls.trust != ServerTrust::Anybody,
        server_name: match &tls.server_name {
            ServerNameFrom::Address => address(),
            ServerNameFrom::Server => server().unwrap_or_else(|| "the server's name".to_owned()),
            ServerNameFrom::Client => asked.map_or_else(address, str::to_owned),
            ServerNameFrom::Fixed(name) => name.to_string(),
        },
    }
}

/// Who can get a proxied connection, and who gets it where that is certain.
fn proxied_choice(view: &mut views::Explanation, way: &Way, tuple: &FiveTuple) {
    let (backend, offered) = (&*way.backend, way.offered);
    view.route = way.route;
    view.backend = Some(backend.config.name.clone());
    view.candidates = backend.eligible(offered);
    view.balance = Some(backend.config.balance.into());
    view.shares = candidates::of(backend, offered);
    let (balancer, ..) = backend.chooser(offered);
    view.slot = balancer.slot(balancer.flow_hash(tuple.client.0, tuple.vip.0));
    let stuck = candidates::stuck(backend, offered, tuple, Instant::now());
    view.sticky = stuck.is_some();
    let chosen = stuck.or_else(|| candidates::certain(backend, offered, tuple));
    if let Some(server) = chosen.and_then(|index| backend.servers.get(index)) {
        view.server = Some(server.name.clone());
        view.server_addr = Some(server.addr);
        view.server_state = Some(server.state.into());
    }
}

fn packet_explanation(
    view: &mut views::Explanation,
    snapshot: &Snapshot,
    tuple: &FiveTuple,
    found: flow::Explanation,
    waiting: &Waiting,
) {
    let frontend = (found.frontend.as_ref()).and_then(|name| snapshot.frontends.get(name));
    let waits = frontend.and_then(|view| {
        let mut ranges = view.config.ranges();
        let range = ranges.find(|range| range.listen.offset(tuple.vip).is_some())?;
        waiting.get(&range)
    });
    view.blocked_by = match (waits, found.blocked_by) {
        (Some(wait), _) => Some(Word::Other(wait.why.clone())),
        (None, reason) => reason.map(Word::Known),
    };
    if let Some(name) = found.frontend {
        match snapshot.frontends.get(&name) {
            Some(frontend) => name_frontend(view, snapshot, frontend),
            None => view.frontend = Some(name),
        }
    }
    if let Some((key, addr)) = found.server {
        view.server_state = snapshot.server(&key).map(|server| server.state.into());
        view.backend = Some(key.backend);
        view.server = Some(key.server);
        view.server_addr = Some(addr.into());
    }
    view.because = Because::Packets(found.because).into();
    view.slot = found.slot;
    view.flow = found.flow.as_ref().map(flow_view);
}

fn name_frontend(view: &mut views::Explanation, snapshot: &Snapshot, frontend: &FrontendView) {
    view.frontend = Some(frontend.config.name.clone());
    view.mode = Some(frontend.config.mode.into());
    view.backend = Some(frontend.config.backend.clone());
    view.candidates = snapshot
        .backends
        .get(&frontend.config.backend)
        .map_or(0, |backend| backend.counts.eligible);
}

/// The frontend whose listener takes connections to an address: that of the address itself before a wildcard's.
fn proxied_by<'a>(snapshot: &'a Snapshot, tuple: &FiveTuple) -> Option<&'a FrontendView> {
    let wanted = tuple.vip.0;
    let rank = |listen: &ListenRange| {
        if !listen.ports().contains(wanted.port()) {
            return None;
        }
        if listen.ip() == wanted.ip() {
            return Some(0);
        }
        if !listen.ip().is_unspecified() {
            return None;
        }
        // [::] takes IPv4 too, after 0.0.0.0
        match (listen.ip().is_ipv4(), wanted.is_ipv4()) {
            (same, other) if same == other => Some(1),
            (false, true) => Some(2),
            _ => None,
        }
    };
    (snapshot.frontends.values())
        .filter(|view| !view.config.mode.is_packet() && view.config.protocol == tuple.protocol)
        .filter_map(|view| Some((view.config.listen.iter().filter_map(rank).min()?, view)))
        .min_by_key(|(rank, view)| (*rank, view.config.name.clone()))
        .map(|(_, view)| view.as_ref())
}

#[cfg(test)]
mod tests;
