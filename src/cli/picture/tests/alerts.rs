//! What an operator should look at.

use super::*;
use crate::{
    admin::views::{NatPortUse, ServerPackets},
    base::Alert,
};

fn with(claimed: u32, alerts: &[Alert]) -> Server {
    Server {
        packet: Some(ServerPackets {
            alerts: alerts.iter().map(|alert| (*alert).into()).collect(),
            nat_ports: Some(NatPortUse {
                claimed,
                available: 200,
            }),
            ..ServerPackets::default()
        }),
        ..server("10.0.0.2:80", ServerState::Up, 1.0, Traffic::default())
    }
}

#[test]
fn alerts_and_scarce_nat_ports_stand_beside_their_servers() {
    for (server, note) in [
        (with(99, &[]), ""),
        (with(127, &[]), "NAT 63 %"),
        (
            with(200, &[Alert::NatPorts]),
            "NAT 100 %; no NAT port is free: new flows are dropped; widen [packet] nat_ports or add a nat_address",
        ),
        (
            with(0, &[Alert::DsrIncomplete]),
            "no handshake completes: run the output of `convey backend-script`, then `convey-backend-setup check` there",
        ),
    ] {
        assert_eq!(server_note(&server), note);
    }
}

#[test]
fn alerts_about_all_servers_stand_below_the_heading_of_the_packet_modes() {
    let mut status = packets::packet_site();
    if let Some(packet) = &mut status.packet {
        packet.alerts = vec![Alert::FlowTable.into(), Word::Other("a_new_alert".into())];
    }
    let drawn = draw(&status, None, false);
    let noted = "NAT ports 61000-65535\n\
                 the flow table is full: new flows are dropped; raise [packet] max_flows\n\
                 a_new_alert\n";
    assert!(drawn.contains(noted), "{drawn}");
}
