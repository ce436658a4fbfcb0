//! The packet modes in `convey status`.

use std::{fmt::Write as _, net::IpAddr};

use super::{Look, counted, rate_text};
use crate::{
    admin::views::{HopState, NatPortUse, NextHop, Packet, PacketRules, Server, ServerPackets, Word, Xdp},
    base::{Alert, PacketReason},
    cli::{
        table::{Align, Table},
        text::{Cell, Style, harmless, time},
    },
};

/// Claimed NAT ports of a server from which on they are shown, in percent: half-open flows then live shorter.
const NAT_PORTS_SHOWN: u32 = 50;

/// The engine, the flows, packets by verdict, and the next hops to the servers. With an earlier picture and the seconds
/// since, packets have rates too.
pub fn draw(packet: &Packet, then: Option<(&Packet, f64)>, look: &Look<'_>) -> String {
    let Look { colour, width, .. } = *look;
    let mut out = headline(packet, colour);
    for line in packet.xdp.iter().flat_map(attached) {
        let _ = writeln!(out, "{line}");
    }
    for note in rules(&packet.rules) {
        let _ = writeln!(out, "{}", Style::Notice.paint(&note, colour));
    }
    for alert in &packet.alerts {
        let _ = writeln!(out, "{}", Style::Bad.paint(&alert_text(alert), colour));
    }
    if !packet.packets.is_empty() {
        out.push('\n');
        out.push_str(&counters(packet, then).fit(width, &[]).render(colour));
    }
    if !packet.next_hops.is_empty() {
        out.push('\n');
        out.push_str(
            &next_hops(packet)
                .fit(width, &["MTU", "SOURCE ADDRESS"])
                .render(colour),
        );
    }
    out
}

/// What the packet modes have to say of a server.
pub fn server_notes(server: &Server) -> impl Iterator<Item = String> {
    let packet = server.packet.as_ref();
    let nat_ports = packet
        .and_then(|packet| packet.nat_ports)
        .map(NatPortUse::percent)
        .filter(|percent| *percent >= NAT_PORTS_SHOWN)
        .map(|percent| format!("NAT {percent} %"));
    let alerts = packet.into_iter().flat_map(|packet| &packet.alerts);
    nat_ports.into_iter().chain(alerts.map(alert_text))
}

/// Whether an operator should look at a server.
pub fn server_needs_attention(server: &Server) -> bool {
    let has_alerts = |packet: &ServerPackets| !packet.alerts.is_empty();
    server.packet.as_ref().is_some_and(has_alerts)
}

fn alert_text(alert: &Word<Alert>) -> String {
    match alert.known() {
        Some(alert) => alert.sentence().to_owned(),
        None => harmless(&alert.to_string()).into_owned(),
    }
}

fn headline(packet: &Packet, colour: bool) -> String {
    let serving = if packet.interfaces.is_empty() {
        Style::Notice.paint("serving no interface", colour)
    } else {
        format!("serving {}", harmless(&packet.interfaces.join(", ")))
    };
    let flows = &packet.flows;
    let fragments = match flows.fragments_waiting {
        0 => String::new(),
        1 => "; 1 fragment waiting".to_owned(),
        many => format!("; {many} fragments waiting"),
    };
    format!(
        "{}: engine {}, {}, {serving}\n\
         flows: {} passthrough ({} half-open), {} dsr; limit {}; NAT ports {}{fragments}\n",
        Style::Bold.paint("packets", colour),
        harmless(&packet.engine.to_string()),
        counted(packet.workers as u64, "worker"),
        flows.nat,
        flows.half_open,
        flows.dsr,
        flows.max,
        harmless(&packet.nat_ports),
    )
}

/// Where the program of engine "xdp" is attached, a line for each interface.
fn attached(xdp: &Xdp) -> impl Iterator<Item = String> {
    xdp.interfaces.iter().map(|(name, at)| {
        let reason = at
            .reason
            .as_deref()
            .map(|reason| format!(": {}", harmless(reason)));
        let (name, mode) = (harmless(name), at.mode.to_string());
        format!("xdp on {name}: {}{}", harmless(&mode), reason.unwrap_or_default())
    })
}

/// What is to be said of the firewall rules; nothing as long as they are right and nobody has touched them.
fn rules(rules: &PacketRules) -> Vec<String> {
    let error =
        (rules.error.as_deref()).map(|error| format!("firewall rules: NOT verified: {}", harmless(error)));
    let restored = (rules.restored > 0).then(|| {
        let ago = (rules.restored_seconds_ago)
            .map(|seconds| format!(", last {} ago", time(seconds as f64)))
            .unwrap_or_default();
        format!(
            "firewall rules: changed by another program and restored {}{ago}",
            counted(rules.restored, "time")
        )
    });
    error.into_iter().chain(restored).collect()
}

/// Packets by verdict, in their order; those that this version does not know come last.
fn counters(packet: &Packet, then: Option<(&Packet, f64)>) -> Table {
    let mut columns = vec![("PACKETS", Align::Left), ("TOTAL", Align::Right)];
    if then.is_some() {
        columns.push(("PER S", Align::Right));
    }
    columns.push(("MEANING", Align::Left));
    let mut table = Table::new(&columns);
    for (reason, count) in &packet.packets {
        let mut row = vec![Cell::plain(reason), Cell::plain(count)];
        if let Some((then, seconds)) = then {
            let before = then.packets.get(reason).copied().unwrap_or(0);
            row.push(Cell::plain(rate_text(
                count.saturating_sub(before) as f64 / seconds,
            )));
        }
        row.push(Cell::new(
            reason.known().map_or("", PacketReason::sentence),
            Style::Dim,
        ));
        table.row(row);
    }
    table
}

fn next_hops(packet: &Packet) -> Table {
    let mut table = Table::new(&[
        ("NEXT HOP TO", Align::Left),
        ("STATE", Align::Left),
        ("VIA", Align::Left),
        ("MAC", Align::Left),
        ("SOURCE ADDRESS", Align::Left),
        ("MTU", Align::Right),
        ("NOTE", Align::Left),
    ]);
    for (server, hop) in &packet.next_hops {
        table.row(next_hop(*server, hop));
    }
    table
}

fn next_hop(server: IpAddr, hop: &NextHop) -> Vec<Cell> {
    let (state, note) = match hop.state.known() {
        Some(HopState::Resolved) => (Cell::new("resolved", Style::Good), None),
        Some(HopState::NoRoute) => (Cell::new("no route", Style::Bad), None),
        Some(HopState::Unresolved) => {
            let note = Some("waiting for its link address");
            (Cell::new("unresolved", Style::Notice), note)
        }
        None => (Cell::plain(&hop.state), None),
    };
    let moves = hop
        .source_moves
        .then_some("source is a VIP: a fail-over moves it; set [packet] nat_address");
    let text = |text: Option<&String>| Cell::plain(text.map_or("", String::as_str));
    let (local, mtu) = if hop.state == HopState::NoRoute {
        (Cell::plain(""), Cell::plain(""))
    } else {
        (Cell::plain(joined(&hop.locals)), Cell::plain(hop.mtu))
    };
    vec![
        Cell::plain(server),
        state,
        text(hop.interface.as_ref()),
        text(hop.mac.as_ref()),
        local,
        mtu,
        Cell::plain(hop.reason.as_deref().or(note).or(moves).unwrap_or("")),
    ]
}

fn joined(addresses: &[IpAddr]) -> String {
    let texts: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
    texts.join(", ")
}
