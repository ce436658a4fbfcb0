//! Pictures of the packet modes.

use super::*;

fn packet() -> Packet {
    let hop = |state: HopState| NextHop {
        state: state.into(),
        reason: None,
        interface: None,
        mac: None,
        locals: vec!["10.1.0.1".parse().expect("an address")],
        source_moves: false,
        mtu: 1500,
    };
    let known = NextHop {
        interface: Some("eth1".into()),
        mac: Some("02:00:00:00:00:02".into()),
        ..hop(HopState::Resolved)
    };
    let lost = NextHop {
        reason: Some("no route leads there".into()),
        ..hop(HopState::NoRoute)
    };
    Packet {
        engine: EngineChoice::Raw.into(),
        engine_reason: "auto: the only one of this version".into(),
        workers: 2,
        nat_ports: "61000-65535".into(),
        interfaces: vec!["eth0".into(), "eth1".into()],
        flows: PacketFlows {
            nat: 1200,
            half_open: 3,
            dsr: 17,
            max: 1_048_576,
            fragments_waiting: 0,
            gave_way: 0,
        },
        packets: [
            (PacketReason::ToServer.into(), 123_456),
            (PacketReason::ResetNoFlow.into(), 7),
        ]
        .into(),
        alerts: vec![],
        rules: PacketRules::default(),
        xdp: None,
        next_hops: [
            ("10.1.0.2".parse().expect("an address"), known),
            ("10.1.0.3".parse().expect("an address"), hop(HopState::Unresolved)),
            ("10.1.0.4".parse().expect("an address"), lost),
        ]
        .into(),
    }
}

/// Two frontends in packet modes, of which one waits for one of its addresses.
pub fn packet_site() -> Status {
    let mut status = example();
    status.backends.clear();
    status.packet = Some(packet());
    if let Some(web) = status.frontends.get_mut("web") {
        web.mode = Mode::Passthrough.into();
        web.state = Some(FrontendState::Waiting.into());
        web.listen = vec![listen("192.0.2.1:80"), listen("192.0.2.2:80")];
        web.waiting = [(
            "192.0.2.2:80".parse().expect("a range"),
            "no interface has 192.0.2.2".to_owned(),
        )]
        .into();
    }
    if let Some(mail) = status.frontends.get_mut("mail") {
        mail.mode = Mode::Dsr.into();
        mail.protocol = Protocol::Udp.into();
        mail.state = Some(FrontendState::Live.into());
        mail.max_connections = None;
    }
    status
}

#[test]
fn packet_modes_show_what_waits_packets_by_verdict_and_the_next_hops_to_the_servers() {
    assert_drawn(
        &draw(&packet_site(), None, false),
        "
convey 1.0.0-dev  pid 4242, running, up 3h 12m, 2 workers
configuration /etc/convey/convey.toml (generation 3)

FRONTEND  LISTENS ON      MODE         BACKEND  CONNS  MAX   TOTAL      IN     OUT  NOTE
mail      0.0.0.0:25 udp  dsr          empty       10    -      10     0 B     0 B
web       192.0.2.1:80    passthrough  web         17    -  122219  181 MB  8.3 GB
          192.0.2.2:80                                                              waiting: no interface has 192.0.2.2

packets: engine raw, 2 workers, serving eth0, eth1
flows: 1200 passthrough (3 half-open), 17 dsr; limit 1048576; NAT ports 61000-65535

PACKETS         TOTAL  MEANING
to_server      123456  forwarded to a server
reset_no_flow       7  answered with a reset: it belongs to no flow, which may have expired (see idle_timeout)

NEXT HOP TO  STATE       VIA   MAC                SOURCE ADDRESS   MTU  NOTE
10.1.0.2     resolved    eth1  02:00:00:00:00:02  10.1.0.1        1500
10.1.0.3     unresolved                           10.1.0.1        1500  waiting for its link address
10.1.0.4     no route                                                   no route leads there
",
    );
}

#[test]
fn a_next_hop_has_all_its_source_addresses_and_says_which_a_fail_over_moves() {
    let mut status = packet_site();
    let packet = status.packet.as_mut().expect("packet modes");
    packet.next_hops.retain(|_, hop| hop.state == HopState::Resolved);
    for hop in packet.next_hops.values_mut() {
        hop.locals.push("10.1.0.7".parse().expect("an address"));
        hop.source_moves = true;
    }
    let drawn = draw(&status, None, false);
    let (_, hops) = drawn.split_at(drawn.find("NEXT HOP").unwrap_or(0));
    assert_drawn(
        hops,
        "
NEXT HOP TO  STATE     VIA   MAC                SOURCE ADDRESS       MTU  NOTE
10.1.0.2     resolved  eth1  02:00:00:00:00:02  10.1.0.1, 10.1.0.7  1500  source is a VIP: a fail-over moves it; set [packet] nat_address
",
    );
}

#[test]
fn packets_have_rates_with_an_earlier_picture() {
    let (then, mut now) = (packet_site(), packet_site());
    if let Some(packet) = &mut now.packet {
        packet.packets.insert(PacketReason::ToServer.into(), 124_456);
        packet.packets.insert(Word::Other("a_new_verdict".into()), 1);
        packet.packets.insert(PacketReason::SynShareFull.into(), 3);
        packet.interfaces.clear();
        packet.flows.fragments_waiting = 2;
        packet.next_hops.clear();
    }
    let earlier = Earlier {
        status: &then,
        seconds: 2.0,
    };
    let drawn = draw(&now, Some(earlier), false);
    let (_, packets) = drawn.split_at(drawn.find("packets: ").unwrap_or(0));
    assert_drawn(
        packets,
        "
packets: engine raw, 2 workers, serving no interface
flows: 1200 passthrough (3 half-open), 17 dsr; limit 1048576; NAT ports 61000-65535; 2 fragments waiting

PACKETS          TOTAL  PER S  MEANING
to_server       124456    500  forwarded to a server
reset_no_flow        7    0.0  answered with a reset: it belongs to no flow, which may have expired (see idle_timeout)
syn_share_full       3    1.5  dropped: half-open flows hold their quarter of the flow table; raise [packet] max_flows
a_new_verdict        1    0.5
",
    );
}
