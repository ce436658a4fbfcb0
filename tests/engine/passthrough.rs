//! The same for mode passthrough: flows that the slow path and the program make and change together.

use std::net::{Ipv4Addr, SocketAddrV4};

use convey::{
    base::{Handshake, Mac, PacketReason},
    engine::xdp::layout::{CLAIMS_FLOWS, CLAIMS_HALF_OPEN, FlowKey},
    sys::bpf::{Insert, Map},
};

use crate::{
    Test,
    site::{ACK, CLIENT, Ends, FIN_ACK, SYN, SYN_ACK, Segment, Site, VIP, keeper, parse},
    tests,
};

pub const TESTS: &[Test] = tests![
    a_flow_of_the_slow_path_is_the_programs_from_its_second_packet_on,
    a_flow_of_the_program_is_the_slow_paths_too,
    a_packet_counts_though_its_target_is_being_written,
    a_flow_whose_time_is_up_ends_whole,
    a_flow_is_closed_on_request,
    a_half_open_flow_gives_its_nat_port_up_to_another,
    where_there_is_no_place_a_half_open_flow_makes_one,
    a_client_of_a_limited_frontend_counts_as_long_as_its_flow_lives,
    a_client_that_holds_its_share_of_nat_ports_gets_no_more,
    a_share_is_given_back_as_it_was_taken_whatever_a_reload_makes_of_shares,
    ways_back_are_followed_as_long_as_flows_use_them,
    a_nat_port_that_is_claimed_for_no_flow_comes_back,
    counters_that_are_wrong_are_put_right,
    flows_outlive_their_servers_configuration_and_their_frontends_mode,
    what_an_engine_before_has_left_of_passthrough_is_cleared,
];

pub const ONE: &str = r#"
[packet]
nat_ports = "61000-65535"
[frontends.web]
listen_addr = "198.51.100.1:80"
mode = "passthrough"
backend = "web"
[backends.web.servers]
s1 = { addr = "10.0.0.11:80" }
"#;

pub const SERVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 11), 80);
const NAT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 254);

/// Who handles a packet.
#[derive(Debug, Clone, Copy)]
pub enum By {
    Program,
    SlowPath,
}

/// The ends of a segment that has been forwarded.
pub fn sent(site: &mut Site, by: By, segment: Segment) -> Ends {
    match by {
        By::Program => site
            .by_program(segment)
            .unwrap_or_else(|| panic!("the program has left {segment:?} to the slow path")),
        By::SlowPath => {
            let (reason, ends) = site.slowly(segment);
            let is_sent = matches!(reason, PacketReason::ToServer | PacketReason::ToClient);
            assert!(is_sent, "{segment:?}: {reason:?}");
            ends
        }
    }
}

/// Opens a connection from a port of the client; each of the three segments is handled by one of these. Gives its ends towards
/// the server.
pub fn connect(site: &mut Site, port: u16, by: [By; 3]) -> Ends {
    let syn = Segment::of_client(port, SYN).numbered(100, 0);
    let towards = sent(site, by[0], syn);
    let back = sent(site, by[1], syn.answer(towards, SYN_ACK));
    assert_eq!(back, (VIP, SocketAddrV4::new(CLIENT, port)));
    let same = sent(site, by[2], Segment::of_client(port, ACK).numbered(101, 1_001));
    assert_eq!(same, towards);
    towards
}

pub fn is_empty(map: &Map) -> bool {
    map.next_key(None).expect("a map").is_none()
}

/// Flows, and half-open ones.
pub fn used(site: &Site) -> (u64, u64) {
    let usage = site.flows.usage();
    (usage.nat_flows, usage.half_open)
}

/// NAT ports that the server has claimed, as the metrics say.
pub fn claimed(site: &mut Site) -> u32 {
    site.keeper.collect().expect("counters");
    let backend = &site.snapshot.backends["web"];
    backend.servers[0]
        .live
        .nat_ports
        .load(std::sync::atomic::Ordering::Relaxed)
}

pub fn handshakes(site: &Site, kind: Handshake) -> u64 {
    let backend = &site.snapshot.backends["web"];
    backend.servers[0].live.counters.totals().handshakes[kind as usize]
}

fn a_flow_of_the_slow_path_is_the_programs_from_its_second_packet_on() {
    let mut site = Site::new(ONE);
    let (from, to) = connect(&mut site, 62_000, [By::SlowPath, By::Program, By::Program]);
    assert_eq!(
        (from, to),
        (SocketAddrV4::new(NAT, 62_000), SERVER),
        "the client's own port"
    );
    assert_eq!(site.listed(), ["established"]);
    assert_eq!((used(&site), claimed(&mut site)), ((1, 0), 1));
    assert_eq!(site.counted(), (1, 1));
    assert_eq!(handshakes(&site, Handshake::Completed), 1);
}

fn a_flow_of_the_program_is_the_slow_paths_too() {
    let mut site = Site::new(ONE);
    let towards = connect(&mut site, 40_000, [By::Program, By::SlowPath, By::SlowPath]);
    assert_eq!(towards.1, SERVER);
    assert_eq!(site.listed(), ["established"]);
    assert_eq!((used(&site), claimed(&mut site)), ((1, 0), 1));
    let fin = Segment::of_client(40_000, FIN_ACK).numbered(101, 1_001);
    sent(&mut site, By::SlowPath, fin);
    sent(
        &mut site,
        By::Program,
        fin.answer(towards, FIN_ACK).numbered(1_001, 102),
    );
    assert_eq!(site.listed(), ["half_closed"]);
    sent(
        &mut site,
        By::SlowPath,
        Segment::of_client(40_000, ACK).numbered(102, 1_002),
    );
    assert_eq!(site.listed(), ["closing"]);
    assert_eq!(claimed(&mut site), 0, "the port is another's if one is wanted");
    assert_eq!(used(&site), (1, 0));
}

fn a_packet_counts_though_its_target_is_being_written() {
    let mut site = Site::new(ONE);
    let syn = Segment::of_client(40_000, SYN).numbered(100, 0);
    let towards = sent(&mut site, By::Program, syn);
    let targets = &site.map.maps.targets;
    let number = 1_u32.to_ne_bytes();
    let mut target = vec![0; targets.value_bytes()];
    assert!(targets.lookup(&number, &mut target).expect("targets"));
    // its version is odd, as in the first of the three steps in which it is written
    target[0] |= 1;
    targets.update(&number, &target, Insert::Any).expect("targets");
    let answer = syn.answer(towards, SYN_ACK);
    assert_eq!(site.by_program(answer), None, "the slow path knows it whole");
    sent(&mut site, By::SlowPath, answer);
    assert_eq!(site.listed(), ["syn_answered"]);
    sent(
        &mut site,
        By::SlowPath,
        Segment::of_client(40_000, ACK).numbered(101, 1_001),
    );
    assert_eq!(site.listed(), ["established"]);
    assert_eq!(used(&site), (1, 0));
}

fn a_flow_whose_time_is_up_ends_whole() {
    let mut site = Site::new(ONE);
    connect(&mut site, 40_000, [By::Program; 3]);
    let syn = Segment::of_client(40_001, SYN);
    sent(&mut site, By::SlowPath, syn);
    assert_eq!((used(&site), site.listed().len()), ((2, 1), 2));
    site.scan_after(61);
    assert_eq!((used(&site), claimed(&mut site)), ((1, 0), 1));
    assert_eq!(handshakes(&site, Handshake::Unanswered), 1);
    site.scan_after(901);
    assert_eq!((used(&site), claimed(&mut site)), ((0, 0), 0));
    assert_eq!(site.counted(), (2, 0));
    let maps = &site.map.maps;
    assert!(is_empty(&maps.forwards) && is_empty(&maps.reverses));
}

fn a_flow_is_closed_on_request() {
    let mut site = Site::new(ONE);
    connect(&mut site, 40_000, [By::Program; 3]);
    let (_, flows) = site.flows.list(&|_| true, 10, site.now());
    assert_eq!(site.close(&flows), 1);
    assert_eq!((used(&site), site.close(&flows)), ((0, 0), 0));
    let ack = Segment::of_client(40_000, ACK).numbered(101, 1_001);
    assert_eq!(site.by_program(ack), None);
    assert_eq!(site.slowly(ack).0, PacketReason::ResetNoFlow);
}

fn a_half_open_flow_gives_its_nat_port_up_to_another() {
    let mut site = Site::new(&ONE.replace("61000-65535", "61000-61000"));
    let first = sent(&mut site, By::Program, Segment::of_client(40_000, SYN));
    let second = sent(&mut site, By::SlowPath, Segment::of_client(40_001, SYN));
    assert_eq!(first, second, "there is one port");
    assert_eq!((used(&site), claimed(&mut site)), ((1, 1), 1));
    assert_eq!(site.flows.usage().gave_way, 1);
    let late = Segment::of_client(40_000, SYN)
        .answer(first, SYN_ACK)
        .numbered(5, 77);
    let back = sent(&mut site, By::Program, late);
    assert_eq!(back.1.port(), 40_001);
    connect(&mut site, 40_001, [By::SlowPath, By::SlowPath, By::SlowPath]);
    let (reason, _) = site.slowly(Segment::of_client(40_002, SYN));
    assert_eq!(
        reason,
        PacketReason::PortsExhausted,
        "an established flow keeps it"
    );
    assert_eq!(used(&site), (1, 0));
}

fn where_there_is_no_place_a_half_open_flow_makes_one() {
    let mut site = Site::with(ONE, 8);
    for port in [40_000, 40_001] {
        sent(&mut site, By::SlowPath, Segment::of_client(port, SYN));
    }
    assert_eq!(used(&site), (2, 2), "a quarter");
    sent(&mut site, By::SlowPath, Segment::of_client(40_002, SYN));
    assert_eq!((used(&site), claimed(&mut site)), ((2, 2), 2));
    assert_eq!(site.flows.usage().gave_way, 1);
    for port in [40_010, 40_011, 40_012, 40_013, 40_014, 40_015, 40_016, 40_017] {
        connect(&mut site, port, [By::SlowPath; 3]);
    }
    assert_eq!(used(&site), (8, 0), "those that came before have given way");
    let (reason, _) = site.slowly(Segment::of_client(40_020, SYN));
    assert_eq!(reason, PacketReason::TableFull);
    assert_eq!(used(&site), (8, 0));
}

fn a_client_of_a_limited_frontend_counts_as_long_as_its_flow_lives() {
    let limited = format!("{ONE}\n[frontends.web.limits.per_client]\nconnections = 1\n");
    let mut site = Site::new(&limited);
    let syn = Segment::of_client(40_000, SYN);
    assert_eq!(site.by_program(syn), None, "the slow path asks the limits");
    connect(&mut site, 40_000, [By::SlowPath; 3]);
    let refused = |site: &mut Site| site.slowly(Segment::of_client(40_001, SYN)).0;
    assert_ne!(refused(&mut site), PacketReason::ToServer);
    site.scan_after(0);
    assert_ne!(refused(&mut site), PacketReason::ToServer, "it lives");
    site.scan_after(901);
    assert_eq!(used(&site), (0, 0));
    connect(&mut site, 40_001, [By::SlowPath; 3]);
    // gone without a word, as when the program has given its port to another
    let key = site
        .map
        .maps
        .forwards
        .next_key(None)
        .expect("a map")
        .expect("a flow");
    site.map.maps.forwards.delete(&key).expect("a flow");
    site.scan_after(0);
    assert_eq!(refused(&mut site), PacketReason::ToServer);
}

fn a_client_that_holds_its_share_of_nat_ports_gets_no_more() {
    let shared = ONE.replace("[packet]", "[packet]\nmax_ports_per_client = 2");
    let mut site = Site::new(&shared);
    connect(&mut site, 40_000, [By::Program; 3]);
    connect(&mut site, 40_001, [By::SlowPath; 3]);
    let (reason, _) = site.slowly(Segment::of_client(40_002, SYN));
    assert_ne!(reason, PacketReason::ToServer);
    assert_eq!(site.by_program(Segment::of_client(40_002, SYN)), None);
    assert_eq!(used(&site), (2, 0));
    site.scan_after(901);
    connect(&mut site, 40_002, [By::SlowPath; 3]);
    assert!(!is_empty(&site.map.maps.shares));
    site.scan_after(901);
    site.scan_after(901);
    assert_eq!(used(&site), (0, 0));
    assert!(is_empty(&site.map.maps.shares), "who holds nothing has no entry");
}

fn a_share_is_given_back_as_it_was_taken_whatever_a_reload_makes_of_shares() {
    let shared = ONE.replace("[packet]", "[packet]\nmax_ports_per_client = 2");
    let others = [
        ONE.replace("[packet]", "[packet]\nmax_ports_per_client = \"off\""),
        format!("{shared}\n[frontends.web.limits.per_client]\nprefix4 = 24\n"),
        shared.replace("passthrough", "dsr"),
    ];
    for other in others {
        let mut site = Site::new(&shared);
        connect(&mut site, 40_000, [By::Program; 3]);
        site.config = parse(&other);
        site.apply();
        site.scan_after(901);
        site.scan_after(901);
        assert_eq!(used(&site), (0, 0), "{other}");
        assert!(is_empty(&site.map.maps.shares), "{other}");
    }
}

fn ways_back_are_followed_as_long_as_flows_use_them() {
    let mut site = Site::new(ONE);
    sent(&mut site, By::Program, Segment::of_client(40_000, SYN));
    site.scan_after(0);
    assert!(site.flows.return_clients().is_empty(), "its client may be forged");
    let before = site.flows.returns_version();
    connect(&mut site, 40_000, [By::Program; 3]);
    site.scan_after(0);
    assert_eq!(site.flows.return_clients(), [CLIENT.into()].into());
    assert_ne!(site.flows.returns_version(), before, "it is told");

    // the client's router is another now
    site.route(CLIENT, Mac([2, 0, 0, 0, 9, 9]));
    site.apply();
    site.route(CLIENT, Mac([2, 0, 0, 0, 9, 7]));
    site.apply();
    assert!(!is_empty(&site.map.maps.moved));
    site.scan_after(901);
    site.apply();
    assert!(site.flows.return_clients().is_empty());
    assert!(is_empty(&site.map.maps.moved));
}

fn a_nat_port_that_is_claimed_for_no_flow_comes_back() {
    let mut site = Site::new(ONE);
    connect(&mut site, 40_000, [By::SlowPath; 3]);
    sent(&mut site, By::SlowPath, Segment::of_client(40_001, SYN));
    let maps = &site.map.maps;
    // whoever made the second died before its other entry
    let key = FlowKey {
        from: SocketAddrV4::new(CLIENT, 40_001).into(),
        to: convey::engine::xdp::layout::EndpointKey {
            addr: VIP.into(),
            protocol: convey::base::Protocol::Tcp,
        },
    };
    assert!(maps.forwards.delete(&key.to_bytes()).expect("a flow"));
    let count = |site: &Site| {
        let mut key = None;
        let mut count = 0;
        while let Some(next) = site.map.maps.reverses.next_key(key.as_deref()).expect("a map") {
            key = Some(next);
            count += 1;
        }
        count
    };
    assert_eq!(count(&site), 2);
    for _ in 0..31 {
        site.scan_after(0);
    }
    assert_eq!(count(&site), 1);
    assert_eq!(
        (used(&site), claimed(&mut site)),
        ((1, 0), 1),
        "and is not counted"
    );
}

fn counters_that_are_wrong_are_put_right() {
    let mut site = Site::new(ONE);
    connect(&mut site, 40_000, [By::Program; 3]);
    let claims = &site.map.maps.claims;
    claims.add(CLAIMS_FLOWS as usize, 5);
    claims.add(CLAIMS_HALF_OPEN as usize, 3);
    assert_eq!(used(&site), (6, 3));
    site.scan_after(0);
    site.scan_after(0);
    assert_eq!(used(&site), (1, 0));
}

fn flows_outlive_their_servers_configuration_and_their_frontends_mode() {
    let mut site = Site::new(ONE);
    let towards = connect(&mut site, 40_000, [By::Program; 3]);
    let ack = Segment::of_client(40_000, ACK).numbered(101, 1_001);
    site.config = parse(&ONE.replace(
        "s1 = { addr = \"10.0.0.11:80\" }",
        "s2 = { addr = \"10.0.0.12:80\" }",
    ));
    site.apply();
    site.scan_after(0);
    assert_eq!(sent(&mut site, By::Program, ack), towards);
    let other = sent(&mut site, By::Program, Segment::of_client(40_001, SYN));
    assert_eq!(*other.1.ip(), Ipv4Addr::new(10, 0, 0, 12));

    site.config = parse(&ONE.replace("passthrough", "dsr"));
    site.apply();
    site.scan_after(0);
    assert_eq!(sent(&mut site, By::SlowPath, ack), towards);
    assert_eq!(sent(&mut site, By::Program, ack), towards);
    let answer = ack.answer(towards, ACK).numbered(1_001, 101);
    assert_eq!(sent(&mut site, By::Program, answer).0, VIP);
}

fn what_an_engine_before_has_left_of_passthrough_is_cleared() {
    let mut site = Site::new(ONE);
    connect(&mut site, 40_000, [By::Program; 3]);
    sent(&mut site, By::SlowPath, Segment::of_client(40_001, SYN));
    site.map
        .maps
        .moved
        .update(&[0; 20], &[0; 20], Insert::Any)
        .expect("a hop");
    let mut successor = keeper(&site.loaded, &site.flows);
    successor.clear().expect("the maps");
    let maps = &site.map.maps;
    for map in [
        &maps.forwards,
        &maps.reverses,
        &maps.shares,
        &maps.sources,
        &maps.moved,
    ] {
        assert!(is_empty(map));
    }
    assert_eq!(used(&site), (0, 0));
    site.keeper = successor;
    site.apply();
    connect(&mut site, 40_000, [By::Program; 3]);
}
