//! The packet modes; nothing as long as no frontend has needed them.

use super::{
    family::{Family, Samples, Scope::Packet, Value},
    scrape::Scrape,
};
use crate::{
    admin::{packets, status::PacketStatus, views::HopState},
    flow::Usage,
};

/// The families.
pub const FAMILIES: &[Family] = &[
    Family::info(
        Packet,
        "convey_packet_engine",
        "The engine of the packet modes",
        |scrape, put| {
            if let Some(packet) = &scrape.status.packet {
                put(&[("engine", packet.engine.label())], Value::Info);
            }
        },
    ),
    Family::gauge(
        Packet,
        "convey_packet_workers",
        "Worker threads of the packet modes",
        |scrape, put| of_status(scrape, put, |packet| packet.workers.into()),
    ),
    Family::counter(
        Packet,
        "convey_packets",
        "Packets of the packet modes by verdict; verdicts without any are absent",
        |scrape, put| {
            for (verdict, count) in &scrape.packets.packets {
                if *count > 0 {
                    put(&[("verdict", verdict.label())], (*count).into());
                }
            }
        },
    ),
    Family::info(
        Packet,
        "convey_packet_xdp_interface",
        "Where the program of engine xdp is attached to an interface: in the driver (native), behind it (generic), or nowhere (none)",
        |scrape, put| {
            for (interface, at) in scrape.status.packet.iter().flat_map(|packet| &packet.xdp) {
                put(
                    &[("interface", interface), ("mode", at.mode.label())],
                    Value::Info,
                );
            }
        },
    ),
    Family::counter(
        Packet,
        "convey_packet_xdp_passed",
        "Packets of frontends that the program of engine xdp has left to the packet sockets, by why",
        |scrape, put| {
            for (reason, count) in &scrape.packets.passed {
                put(&[("reason", reason)], (*count).into());
            }
        },
    ),
    Family::gauge(
        Packet,
        "convey_packet_nat_flows",
        "Flows of mode passthrough, half-open ones included",
        |scrape, put| of_tables(scrape, put, |usage| usage.nat_flows),
    ),
    Family::gauge(
        Packet,
        "convey_packet_half_open_flows",
        "Flows of mode passthrough that are half-open",
        |scrape, put| of_tables(scrape, put, |usage| usage.half_open),
    ),
    Family::gauge(
        Packet,
        "convey_packet_dsr_flows",
        "Flows in the cache of mode dsr",
        |scrape, put| of_tables(scrape, put, |usage| usage.dsr_flows),
    ),
    Family::gauge(
        Packet,
        "convey_packet_max_flows",
        "The limit of both together",
        |scrape, put| of_tables(scrape, put, |usage| usage.max_flows),
    ),
    Family::gauge(
        Packet,
        "convey_packet_waiting_fragments",
        "Fragments that wait for the first of their datagram",
        |scrape, put| of_tables(scrape, put, |usage| usage.fragments_waiting),
    ),
    Family::counter(
        Packet,
        "convey_packet_displaced_flows",
        "Closed and half-open flows that have given their place or NAT port to new ones",
        |scrape, put| of_tables(scrape, put, |usage| usage.gave_way),
    ),
    Family::gauge(
        Packet,
        "convey_packet_next_hops",
        "Next hops of servers by state",
        |scrape, put| {
            let Some(packet) = &scrape.status.packet else {
                return;
            };
            for state in HopState::ALL {
                let hops = packet.network.hops.servers.values();
                let count = hops.filter(|hop| packets::hop_state(hop) == state).count();
                put(&[("state", state.label())], count.into());
            }
        },
    ),
    Family::gauge(
        Packet,
        "convey_packet_firewall_rules_ok",
        "Whether the firewall rules are known to be as they should",
        |scrape, put| of_status(scrape, put, |packet| packet.rules.error.is_none().into()),
    ),
    Family::counter(
        Packet,
        "convey_packet_firewall_restored",
        "How often another program had changed the firewall rules and they were restored",
        |scrape, put| of_status(scrape, put, |packet| packet.rules.restored.into()),
    ),
    Family::gauge(
        Packet,
        "convey_packet_alerts",
        "What an operator should look at, by its name: how many servers it concerns, or 1",
        |scrape, put| {
            let Some(packet) = &scrape.status.packet else {
                return;
            };
            let mut counts = std::collections::BTreeMap::<&str, u64>::new();
            for alert in packet.alerts.values().flatten() {
                *counts.entry(alert.label()).or_default() += 1;
            }
            for (alert, count) in counts {
                put(&[("alert", alert)], count.into());
            }
        },
    ),
];

fn of_status(scrape: &Scrape, put: &mut Samples<'_>, value: impl Fn(&PacketStatus) -> Value) {
    if let Some(packet) = &scrape.status.packet {
        put(&[], value(packet));
    }
}

fn of_tables(scrape: &Scrape, put: &mut Samples<'_>, value: fn(&Usage) -> u64) {
    of_status(scrape, put, |_| value(&scrape.packets.usage).into());
}
