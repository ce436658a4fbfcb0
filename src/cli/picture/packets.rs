//! The packet modes in `convey status`.

use super::{counted, rate_text};
use crate::{
    admin::views::{NextHop, Packet},
    base::PacketReason,
    cli::text::{Align, Cell, Style, Table, harmless},
};

/// The engine, the flows, what became of packets, and the ways to the servers. With an earlier picture and the seconds
/// since, packets have rates too.
pub fn draw(packet: &Packet, then: Option<(&Packet, f64)>, colour: bool) -> String {
    let mut out = headline(packet, colour);
    if !packet.packets.is_empty() {
        out.push('\n');
        out.push_str(&counters(packet, then).render(colour));
    }
    if !packet.next_hops.is_empty() {
        out.push('\n');
        out.push_str(&ways(packet).render(colour));
    }
    out
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
        1 => "; 1 fragment waits".to_owned(),
        many => format!("; {many} fragments wait"),
    };
    format!(
        "{}: engine {} ({}), {}, {serving}\n\
         flows: {} passthrough ({} half-open), {} dsr; {} at most; NAT ports {}{fragments}\n",
        Style::Bold.paint("packets", colour),
        harmless(&packet.engine),
        harmless(&packet.engine_reason),
        counted(packet.workers as u64, "worker"),
        flows.nat,
        flows.half_open,
        flows.dsr,
        flows.max,
        harmless(&packet.nat_ports),
    )
}

/// Packets by reason, in the order of the reasons; what this version does not know comes last.
fn counters(packet: &Packet, then: Option<(&Packet, f64)>) -> Table {
    let mut columns = vec![("PACKETS", Align::Left), ("TOTAL", Align::Right)];
    if then.is_some() {
        columns.push(("PER S", Align::Right));
    }
    let mut table = Table::new(&columns);
    let place = |label: &str| PacketReason::from_label(label).map_or(PacketReason::COUNT, |r| r as usize);
    let mut counted: Vec<(&String, &u64)> = packet.packets.iter().collect();
    counted.sort_by_key(|(label, _)| (place(label), *label));
    for (label, count) in counted {
        let mut row = vec![Cell::plain(label), Cell::plain(count.to_string())];
        if let Some((then, seconds)) = then {
            let before = then.packets.get(label).copied().unwrap_or(0);
            row.push(Cell::plain(rate_text(
                count.saturating_sub(before) as f64 / seconds,
            )));
        }
        table.row(row);
    }
    table
}

fn ways(packet: &Packet) -> Table {
    let mut table = Table::new(&[
        ("WAY TO", Align::Left),
        ("STATE", Align::Left),
        ("BY", Align::Left),
        ("MAC", Align::Left),
        ("OUR ADDRESS", Align::Left),
        ("MTU", Align::Right),
        ("NOTE", Align::Left),
    ]);
    for (server, hop) in &packet.next_hops {
        table.row(way(server, hop));
    }
    table
}

fn way(server: &str, hop: &NextHop) -> Vec<Cell> {
    let (state, style, note) = match hop.state.as_str() {
        "known" => ("known", Style::Good, None),
        "no_route" => ("no route", Style::Bad, None),
        "unresolved" => ("unresolved", Style::Notice, Some("asking for its link address")),
        other => (other, Style::Plain, None),
    };
    let text = |text: Option<&String>| Cell::plain(text.map_or("", String::as_str));
    let (local, mtu) = match hop.state.as_str() {
        "no_route" => (Cell::plain(""), Cell::plain("")),
        _ => (Cell::plain(&hop.local), Cell::plain(hop.mtu.to_string())),
    };
    vec![
        Cell::plain(server),
        Cell::new(state, style),
        text(hop.interface.as_ref()),
        text(hop.mac.as_ref()),
        local,
        mtu,
        Cell::plain(hop.reason.as_deref().or(note).unwrap_or("")),
    ]
}
