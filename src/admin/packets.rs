//! The views of the packet modes: pure, from what the daemon knows of its engine.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use super::views;
use crate::{
    base::{Endpoint, ListenAddr, PacketReason, PortRange, Protocol},
    flow::{self, Because, FiveTuple, FlowInfo, Hop, Hops, Resolution, Usage},
    snapshot::{FrontendView, Snapshot},
};

/// What only the daemon knows of the packet modes.
#[derive(Debug, Clone, Default)]
pub struct PacketInfo {
    /// The engine's label; empty if none runs.
    pub engine: &'static str,
    /// Why this engine.
    pub engine_reason: String,
    /// Its worker threads.
    pub workers: usize,
    /// Names of the interfaces that are served.
    pub interfaces: Vec<String>,
    /// How full the tables are.
    pub usage: Usage,
    /// Packets by what became of them.
    pub packets: Vec<(PacketReason, u64)>,
    /// The ways to the servers.
    pub hops: Arc<Hops>,
    /// Names of interfaces by index.
    pub links: BTreeMap<u32, String>,
    /// Why there is no way to a server.
    pub no_way: BTreeMap<IpAddr, String>,
    /// Why VIPs wait, those that do.
    pub waiting: Waiting,
}

/// Why VIPs wait.
pub type Waiting = BTreeMap<Endpoint, Wait>;

/// Why a VIP waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    /// In words.
    pub why: String,
    /// Whether no interface of this host has it: another load balancer may.
    pub is_elsewhere: bool,
}

/// The packet modes, for `GET /v1/status`.
#[must_use]
pub fn packet(info: &PacketInfo, nat_ports: PortRange) -> views::Packet {
    let counted = info.packets.iter().filter(|(_, count)| *count > 0);
    let hops = info.hops.servers.iter();
    views::Packet {
        engine: info.engine.to_owned(),
        engine_reason: info.engine_reason.clone(),
        workers: info.workers,
        nat_ports: nat_ports.to_string(),
        interfaces: info.interfaces.clone(),
        flows: views::PacketFlows {
            nat: info.usage.nat_flows,
            half_open: info.usage.half_open,
            dsr: info.usage.dsr_flows,
            max: info.usage.max_flows,
            fragments_waiting: info.usage.fragments_waiting,
        },
        packets: counted
            .map(|(reason, count)| (reason.label().to_owned(), *count))
            .collect(),
        next_hops: hops
            .map(|(ip, hop)| (ip.to_string(), next_hop(*ip, hop, info)))
            .collect(),
    }
}

fn next_hop(ip: IpAddr, hop: &Hop, info: &PacketInfo) -> views::NextHop {
    let (state, link) = match &hop.resolution {
        Resolution::Known(link) => ("known", Some(link)),
        Resolution::Unresolved => ("unresolved", None),
        Resolution::NoRoute => ("no_route", None),
    };
    views::NextHop {
        state: state.to_owned(),
        reason: info.no_way.get(&ip).cloned(),
        interface: link.map(|link| {
            let name = info.links.get(&link.ifindex).cloned();
            name.unwrap_or_else(|| format!("interface {}", link.ifindex))
        }),
        mac: link.map(|link| link.destination.to_string()),
        local: hop.local.to_string(),
        mtu: hop.mtu,
    }
}

/// Whether packets to a frontend's addresses reach us, and why not; nothing of a proxied one.
#[must_use]
pub fn frontend_state(view: &FrontendView, waiting: &Waiting) -> (Option<String>, BTreeMap<String, String>) {
    if !view.config.mode.is_packet() {
        return (None, BTreeMap::new());
    }
    let waiting: BTreeMap<String, String> = waits(view, waiting)
        .map(|(vip, wait)| (vip.to_string(), wait.why.clone()))
        .collect();
    let state = if waiting.is_empty() { "live" } else { "waiting" };
    (Some(state.to_owned()), waiting)
}

/// Whether clients are served that reach a frontend: its backend has an eligible server, and each of its addresses is live,
/// or on no interface of this host. (So is every address of a standby, which would not take over if that were a fault.)
#[must_use]
pub fn serves(view: &FrontendView, waiting: &Waiting) -> bool {
    view.backend.counts.eligible > 0 && waits(view, waiting).all(|(_, wait)| wait.is_elsewhere)
}

fn waits<'a>(view: &'a FrontendView, waiting: &'a Waiting) -> impl Iterator<Item = (ListenAddr, &'a Wait)> {
    let endpoints = view.config.endpoints();
    endpoints.filter_map(|endpoint| Some((endpoint.addr, waiting.get(&endpoint)?)))
}

/// A passthrough flow among the connections.
#[must_use]
pub fn connection(flow: &FlowInfo, snapshot: &Snapshot) -> views::Connection {
    // a flow outlives its frontend
    let mode = snapshot
        .frontends
        .get(&flow.frontend)
        .map(|view| view.config.mode.label());
    views::Connection {
        client: flow.tuple.client.to_string(),
        protocol: flow.tuple.protocol.label().to_owned(),
        mode: mode.unwrap_or("passthrough").to_owned(),
        frontend: flow.frontend.to_string(),
        backend: flow.server.backend.to_string(),
        server: Some(flow.server.server.to_string()),
        worker: None,
        age_seconds: None,
        bytes_in: None,
        bytes_out: None,
        flow: Some(flow_view(flow)),
    }
}

fn flow_view(flow: &FlowInfo) -> views::Flow {
    views::Flow {
        vip: flow.tuple.vip.to_string(),
        nat: flow.nat.map(|nat| nat.to_string()),
        state: flow.state.to_owned(),
        idle_seconds: flow.idle.as_secs_f64(),
        expires_in_seconds: flow.expires_in.as_secs_f64(),
    }
}

/// Where packets of a 5-tuple would go. `found` is the engine's answer; `None` if no engine runs.
#[must_use]
pub fn explanation(
    snapshot: &Snapshot,
    tuple: &FiveTuple,
    found: Option<flow::Explanation>,
    waiting: &Waiting,
) -> views::Explanation {
    let found = found.filter(|found| found.because != Because::NotServed);
    let mut view = views::Explanation {
        protocol: tuple.protocol.label().to_owned(),
        client: tuple.client.to_string(),
        vip: tuple.vip.to_string(),
        frontend: None,
        mode: None,
        backend: None,
        because: Because::NotServed.label().to_owned(),
        server: None,
        server_addr: None,
        server_state: None,
        candidates: 0,
        slot: None,
        flow: None,
        hindrance: None,
    };
    match found {
        Some(found) => packet_explanation(&mut view, snapshot, tuple, found, waiting),
        None => {
            if let Some(frontend) = proxied_by(snapshot, tuple) {
                name_frontend(&mut view, snapshot, frontend);
                "proxied".clone_into(&mut view.because);
            }
        }
    }
    view
}

fn packet_explanation(
    view: &mut views::Explanation,
    snapshot: &Snapshot,
    tuple: &FiveTuple,
    found: flow::Explanation,
    waiting: &Waiting,
) {
    if let Some(name) = &found.frontend {
        match snapshot.frontends.get(name) {
            Some(frontend) => name_frontend(view, snapshot, frontend),
            None => view.frontend = Some(name.to_string()),
        }
    }
    if let Some((key, addr)) = &found.server {
        let server = (snapshot.backends.get(&key.backend))
            .and_then(|backend| backend.servers.iter().find(|server| server.name == key.server));
        view.backend = Some(key.backend.to_string());
        view.server = Some(key.server.to_string());
        view.server_addr = Some(addr.to_string());
        view.server_state = server.map(|server| server.state);
    }
    found.because.label().clone_into(&mut view.because);
    view.slot = found.slot;
    view.flow = found.flow.as_ref().map(flow_view);
    let waits = (found.frontend).and_then(|_| waiting.get(&tuple.endpoint()));
    view.hindrance = match (waits, found.hindrance) {
        (Some(wait), _) => Some(wait.why.clone()),
        (None, hindrance) => hindrance.map(|reason| reason.label().to_owned()),
    };
}

fn name_frontend(view: &mut views::Explanation, snapshot: &Snapshot, frontend: &FrontendView) {
    view.frontend = Some(frontend.config.name.to_string());
    view.mode = Some(frontend.config.mode.label().to_owned());
    view.backend = Some(frontend.config.backend.to_string());
    view.candidates = snapshot
        .backends
        .get(&frontend.config.backend)
        .map_or(0, |backend| backend.counts.eligible);
}

/// The frontend whose listener takes connections to an address: that of the address itself before a wildcard's.
fn proxied_by<'a>(snapshot: &'a Snapshot, tuple: &FiveTuple) -> Option<&'a FrontendView> {
    if tuple.protocol != Protocol::Tcp {
        return None;
    }
    let wanted = tuple.vip.0;
    let rank = |listen: &ListenAddr| {
        let listen = listen.0;
        if listen == wanted {
            return Some(0);
        }
        if listen.port() != wanted.port() || !listen.ip().is_unspecified() {
            return None;
        }
        // [::] takes IPv4 too, after 0.0.0.0
        match (listen.is_ipv4(), wanted.is_ipv4()) {
            (same, other) if same == other => Some(1),
            (false, true) => Some(2),
            _ => None,
        }
    };
    (snapshot.frontends.values())
        .filter(|view| !view.config.mode.is_packet())
        .filter_map(|view| Some((view.config.listen.iter().filter_map(rank).min()?, view)))
        .min_by_key(|(rank, view)| (*rank, view.config.name.clone()))
        .map(|(_, view)| view.as_ref())
}

#[cfg(test)]
mod tests;
