//! What a keeper makes of what the one before it has left in the maps and the registry, wherever that one was ended.

use std::{
    fs::File,
    net::Ipv4Addr,
    os::{fd::AsFd as _, unix::fs::FileExt as _},
};

use convey::{
    base::{Handshake, Mac, PacketReason},
    engine::xdp::layout::{
        CLAIMS_FLOWS, CLAIMS_HALF_OPEN, EndpointKey, FlowKey, ForwardValue, ReverseValue, SourceValue,
        TargetValue,
    },
    snapshot::live::Totals,
    sys::bpf::{self, Insert, Map},
};

use crate::{
    Test,
    keeper::{TWO, by_program},
    passthrough::{By, ONE, SERVER, claimed, connect, handshakes, is_empty, sent, used},
    site::{ACK, CLIENT, FIN_ACK, SYN, Segment, Site, VIP, keeper, parse},
    tests,
};

pub const TESTS: &[Test] = tests![
    dsr_flows_go_on_and_are_counted,
    dsr_flows_that_the_map_has_dropped_meanwhile_are_not_counted,
    a_passthrough_flow_goes_on_whoever_handles_it_and_ends_as_any,
    handshakes_of_before_do_not_count_again_and_those_since_do,
    flows_that_nobody_has_counted_are_found_by_the_first_scan,
    a_flow_that_was_not_counted_and_ends_early_takes_nothing_from_the_others,
    a_server_that_is_gone_keeps_its_flows_and_gets_no_more,
    a_server_that_comes_later_has_its_flows_back,
    a_renamed_frontend_has_its_flows_back,
    flows_outlive_the_mode_of_their_frontend,
    what_was_half_written_is_written_again_or_taken_out,
    what_was_noted_and_not_written_yet_does_no_harm,
    a_port_that_was_claimed_for_no_flow_comes_back_soon,
    ports_that_are_claimed_towards_nobody_are_forgotten,
    clients_of_a_limited_frontend_count_as_before,
    limits_that_are_lower_than_before_end_no_connection,
    replies_go_where_they_went_until_nobody_is_there,
    without_a_registry_nothing_is_taken_over,
    whatever_stands_in_maps_and_registry_is_survived,
    one_follows_another_many_times,
];

/// What the program returns (include/uapi/linux/bpf.h).
const XDP_TX: u32 = 3;

/// Another server in place of the first.
fn without_first() -> String {
    ONE.replace(
        "s1 = { addr = \"10.0.0.11:80\" }",
        "s2 = { addr = \"10.0.0.12:80\" }",
    )
}

fn limited(connections: u32) -> String {
    format!("{ONE}\n[frontends.web.limits.per_client]\nconnections = {connections}\n")
}

/// Connections of a server that have begun and are open, as its counters say now.
fn of_server(site: &mut Site, name: &str) -> (u64, u64) {
    site.keeper.collect().expect("counters");
    let servers = &site.snapshot.backends["web"].servers;
    let server = servers.iter().find(|server| server.name.as_str() == name);
    let Totals { opened, current, .. } = server.expect("a server").live.counters.totals();
    (opened, current)
}

fn of_frontend(site: &Site, name: &str) -> (u64, u64) {
    let Totals { opened, current, .. } = site.snapshot.frontends[name].live.counters.totals();
    (opened, current)
}

/// The client's next packet on a connection.
fn ack(port: u16) -> Segment {
    Segment::of_client(port, ACK).numbered(101, 1_001)
}

/// Where the program sends a segment next.
fn hop_of(site: &Site, segment: Segment) -> Option<Mac> {
    let mut out = Vec::new();
    let program = site.map.maps.convey.as_fd();
    let run = bpf::test_run(program, &segment.frame(), None, &mut out).expect("a test run");
    let to = out.first_chunk().copied().map(Mac);
    to.filter(|_| run.retval == XDP_TX)
}

fn element<const N: usize>(map: &Map, key: &[u8]) -> Option<[u8; N]> {
    let mut value = [0; N];
    map.lookup(key, &mut value).expect("a map").then_some(value)
}

/// Closes a connection from both sides.
fn close(site: &mut Site, port: u16, by: By) {
    let fin = Segment::of_client(port, FIN_ACK).numbered(101, 1_001);
    let towards = sent(site, by, fin);
    sent(site, by, fin.answer(towards, FIN_ACK).numbered(1_001, 102));
    sent(site, by, Segment::of_client(port, ACK).numbered(102, 1_002));
}

fn dsr_flows_go_on_and_are_counted() {
    let mut site = Site::new(TWO);
    let before: Vec<_> = (40_000..40_020)
        .map(|client| by_program(&site, client, SYN))
        .collect();
    site.keeper.collect().expect("counters");
    // these were begun while nobody counted
    assert!(by_program(&site, 40_020, SYN).is_some());
    let mut site = site.restarted(TWO);
    let after: Vec<_> = (40_000..40_020)
        .map(|client| by_program(&site, client, ACK))
        .collect();
    assert_eq!(after, before);
    assert_eq!(site.counted(), (21, 21));
    site.scan_after(1);
    assert_eq!((site.counted(), site.flows.usage().dsr_flows), ((21, 21), 21));
    site.scan_after(901);
    assert_eq!((site.counted(), site.flows.usage().dsr_flows), ((21, 0), 0));
    assert!(is_empty(&site.map.maps.flows));
}

fn dsr_flows_that_the_map_has_dropped_meanwhile_are_not_counted() {
    let mut site = Site::new(TWO);
    for client in 40_000..40_010 {
        assert!(by_program(&site, client, SYN).is_some());
    }
    site.keeper.collect().expect("counters");
    let flows = &site.map.maps.flows;
    let dropped = flows.next_key(None).expect("the map").expect("a flow");
    assert!(flows.delete(&dropped).expect("the map"));
    let mut site = site.restarted(TWO);
    site.scan_after(1);
    assert_eq!(site.counted().1, 9);
    assert_eq!(site.flows.usage().dsr_flows, 9);
}

fn a_passthrough_flow_goes_on_whoever_handles_it_and_ends_as_any() {
    for by in [By::Program, By::SlowPath] {
        let mut site = Site::new(ONE);
        let towards = connect(&mut site, 40_000, [by; 3]);
        connect(&mut site, 40_001, [by; 3]);
        site.keeper.collect().expect("counters");
        let mut site = site.restarted(ONE);
        assert_eq!(
            (site.counted(), used(&site), claimed(&mut site)),
            ((2, 2), (2, 0), 2)
        );
        assert_eq!(sent(&mut site, By::SlowPath, ack(40_000)), towards);
        assert_eq!(sent(&mut site, By::Program, ack(40_000)), towards);
        let answer = ack(40_000).answer(towards, ACK).numbered(1_001, 101);
        assert_eq!(sent(&mut site, By::Program, answer).0, VIP);
        site.scan_after(1);
        assert_eq!(
            (site.counted(), used(&site), claimed(&mut site)),
            ((2, 2), (2, 0), 2)
        );

        close(&mut site, 40_000, by);
        assert_eq!((used(&site), claimed(&mut site)), ((2, 0), 1));
        let other = connect(&mut site, 40_002, [by; 3]);
        assert_eq!(other.1, SERVER, "and new ones begin");
        site.scan_after(120);
        assert_eq!(
            (site.counted(), used(&site), claimed(&mut site)),
            ((3, 2), (2, 0), 2)
        );
        site.scan_after(901);
        assert_eq!(
            (site.counted(), used(&site), claimed(&mut site)),
            ((3, 0), (0, 0), 0)
        );
    }
}

fn handshakes_of_before_do_not_count_again_and_those_since_do() {
    let mut site = Site::new(ONE);
    connect(&mut site, 40_000, [By::Program; 3]);
    sent(
        &mut site,
        By::Program,
        Segment::of_client(40_001, SYN).numbered(100, 0),
    );
    site.scan_after(61);
    assert_eq!(handshakes(&site, Handshake::Unanswered), 1);
    connect(&mut site, 40_002, [By::Program; 3]);
    let site = site.restarted(ONE);
    assert_eq!(handshakes(&site, Handshake::Unanswered), 0);
    assert_eq!(handshakes(&site, Handshake::Completed), 1);
}

fn flows_that_nobody_has_counted_are_found_by_the_first_scan() {
    let mut site = Site::new(ONE);
    for port in 40_000..40_005 {
        connect(&mut site, port, [By::SlowPath; 3]);
    }
    let mut site = site.restarted(ONE);
    assert_eq!(site.counted(), (0, 0), "their engine has died with that");
    site.scan_after(1);
    assert_eq!((site.counted(), of_server(&mut site, "s1")), ((5, 5), (5, 5)));
    close(&mut site, 40_000, By::Program);
    site.scan_after(120);
    assert_eq!(site.counted(), (5, 4));
}

fn a_flow_that_was_not_counted_and_ends_early_takes_nothing_from_the_others() {
    let mut site = Site::new(ONE);
    for port in 40_000..40_003 {
        connect(&mut site, port, [By::SlowPath; 3]);
    }
    let mut site = site.restarted(ONE);
    let (_, flows) = site.flows.list(&|_| true, 10, site.now());
    assert_eq!(site.close(&flows), 3);
    assert_eq!(of_server(&mut site, "s1").1, 0);
    for port in 40_010..40_014 {
        connect(&mut site, port, [By::Program; 3]);
    }
    site.scan_after(1);
    assert_eq!((site.counted().1, of_server(&mut site, "s1").1), (4, 4));
}

fn a_server_that_is_gone_keeps_its_flows_and_gets_no_more() {
    let mut site = Site::new(ONE);
    let towards = connect(&mut site, 40_000, [By::Program; 3]);
    site.keeper.collect().expect("counters");
    let mut site = site.restarted(&without_first());
    for by in [By::Program, By::SlowPath] {
        assert_eq!(sent(&mut site, by, ack(40_000)), towards);
        let answer = ack(40_000).answer(towards, ACK).numbered(1_001, 101);
        assert_eq!(sent(&mut site, by, answer).0, VIP);
    }
    assert_eq!(site.listed(), ["established"]);
    for port in 40_010..40_030 {
        let other = connect(&mut site, port, [By::Program; 3]);
        assert_eq!(*other.1.ip(), Ipv4Addr::new(10, 0, 0, 12));
    }
    site.scan_after(1);
    assert_eq!((of_server(&mut site, "s2"), site.counted()), ((20, 20), (20, 20)));
    assert_eq!(used(&site), (21, 0));
    close(&mut site, 40_000, By::Program);
    assert_eq!(site.map.maps.claims.get(1), 0);
    site.scan_after(120);
    site.scan_after(120);
    site.apply();
    assert_eq!(used(&site), (20, 0));
    let maps = &site.map.maps;
    assert_eq!(
        element::<{ SourceValue::SIZE }>(&maps.sources, &1_u32.to_ne_bytes()),
        None
    );
    let target =
        element(&maps.targets, &1_u32.to_ne_bytes()).and_then(|bytes| TargetValue::from_bytes(&bytes));
    assert_eq!(
        target.map(|target| target.incarnation),
        Some(0),
        "its number is free"
    );
}

fn a_server_that_comes_later_has_its_flows_back() {
    for (text, by) in [(ONE.to_owned(), By::Program), (TWO.to_owned(), By::Program)] {
        let mut site = Site::new(&text);
        let is_dsr = text.contains("dsr");
        for port in 40_000..40_030 {
            match is_dsr {
                true => assert!(by_program(&site, port, SYN).is_some()),
                false => drop(connect(&mut site, port, [by; 3])),
            }
        }
        let (_, of_first) = of_server(&mut site, "s1");
        assert!(of_first > 0);
        let other = match is_dsr {
            true => text.replace("s1 = ", "# s1 = "),
            false => without_first(),
        };
        let mut site = site.restarted(&other);
        site.scan_after(1);
        site.config = parse(&text);
        site.apply();
        assert_eq!(of_server(&mut site, "s1").1, of_first);
        site.scan_after(1);
        assert_eq!(of_server(&mut site, "s1").1, of_first);
        assert_eq!(site.counted().1, 30);
        site.scan_after(901);
        assert_eq!((of_server(&mut site, "s1").1, site.counted().1), (0, 0));
    }
}

fn a_renamed_frontend_has_its_flows_back() {
    let mut site = Site::new(ONE);
    let towards = connect(&mut site, 40_000, [By::Program; 3]);
    site.keeper.collect().expect("counters");
    let mut site = site.restarted(&ONE.replace("[frontends.web]", "[frontends.other]"));
    assert_eq!(sent(&mut site, By::Program, ack(40_000)), towards);
    assert_eq!(
        (of_frontend(&site, "other"), of_server(&mut site, "s1")),
        ((1, 1), (1, 1))
    );
    site.scan_after(1);
    assert_eq!(of_frontend(&site, "other"), (1, 1));
    site.scan_after(901);
    assert_eq!((of_frontend(&site, "other"), used(&site)), ((1, 0), (0, 0)));
}

fn flows_outlive_the_mode_of_their_frontend() {
    let mut site = Site::new(ONE);
    let towards = connect(&mut site, 40_000, [By::Program; 3]);
    let mut site = site.restarted(&ONE.replace("passthrough", "dsr"));
    site.scan_after(0);
    assert_eq!(site.by_program(ack(40_000)), None, "it is of the other mode");
    assert_eq!(sent(&mut site, By::SlowPath, ack(40_000)), towards);
    let answer = ack(40_000).answer(towards, ACK).numbered(1_001, 101);
    assert_eq!(sent(&mut site, By::Program, answer).0, VIP);
    assert!(by_program(&site, 40_001, SYN).is_some());

    let mut site = site.restarted(ONE);
    for by in [By::Program, By::SlowPath] {
        assert_eq!(sent(&mut site, by, ack(40_000)), towards);
    }
    site.scan_after(1);
    assert_eq!(used(&site), (1, 0));
}

/// Has the version of a target's entry be odd, as in the first of the three steps in which it is written, and what follows be
/// half of something else.
fn tear(site: &Site, number: u32) {
    let targets = &site.map.maps.targets;
    let mut target: [u8; TargetValue::SIZE] = element(targets, &number.to_ne_bytes()).expect("a target");
    target[0] |= 1;
    target[20..].fill(7);
    targets
        .update(&number.to_ne_bytes(), &target, Insert::Any)
        .expect("targets");
}

fn what_was_half_written_is_written_again_or_taken_out() {
    let mut site = Site::new(ONE);
    let towards = connect(&mut site, 40_000, [By::Program; 3]);
    tear(&site, 1);
    // of an interface one entry, of a number nothing but one of its entries
    let maps = &site.map.maps;
    maps.ports.delete(&1_u32.to_ne_bytes()).expect("a port");
    tear(&site, 9);
    let source: [u8; SourceValue::SIZE] = element(&maps.sources, &1_u32.to_ne_bytes()).expect("a source");
    maps.sources
        .update(&9_u32.to_ne_bytes(), &source, Insert::Any)
        .expect("a source");
    assert_eq!(site.by_program(ack(40_000)), None);

    let mut site = site.restarted(ONE);
    assert_eq!(sent(&mut site, By::Program, ack(40_000)), towards);
    let maps = &site.map.maps;
    assert!(!is_empty(&maps.ports));
    assert_eq!(
        element::<{ SourceValue::SIZE }>(&maps.sources, &9_u32.to_ne_bytes()),
        None
    );
    let target =
        element(&maps.targets, &9_u32.to_ne_bytes()).and_then(|bytes| TargetValue::from_bytes(&bytes));
    let target = target.expect("an entry that can be read");
    assert_eq!((target.incarnation, target.version % 2), (0, 0));
    let versions: Vec<_> = (1..=9_u32)
        .filter_map(|number| element(&maps.targets, &number.to_ne_bytes()))
        .filter_map(|bytes| TargetValue::from_bytes(&bytes))
        .map(|target| target.version)
        .collect();
    site.config = parse(&without_first());
    site.apply();
    let again: [u8; TargetValue::SIZE] = element(&site.map.maps.targets, &2_u32.to_ne_bytes()).expect("one");
    let again = TargetValue::from_bytes(&again).expect("a target");
    assert!(
        versions.iter().all(|version| *version < again.version),
        "no version comes twice"
    );
}

fn what_was_noted_and_not_written_yet_does_no_harm() {
    let site = Site::new(ONE);
    let maps = &site.map.maps;
    // as if that had ended right after it had noted its only target
    maps.targets
        .update(&1_u32.to_ne_bytes(), &[0; TargetValue::SIZE], Insert::Any)
        .expect("targets");
    for map in [&maps.sources, &maps.tables] {
        let key = map.next_key(None).expect("a map").expect("an element");
        map.delete(&key).expect("an element");
    }
    let mut site = site.restarted(ONE);
    connect(&mut site, 40_000, [By::Program; 3]);
    connect(&mut site, 40_001, [By::SlowPath; 3]);
    site.scan_after(1);
    assert_eq!(
        (site.counted(), used(&site), claimed(&mut site)),
        ((2, 2), (2, 0), 2)
    );
}

fn a_port_that_was_claimed_for_no_flow_comes_back_soon() {
    let mut site = Site::new(ONE);
    connect(&mut site, 40_000, [By::SlowPath; 3]);
    sent(&mut site, By::SlowPath, Segment::of_client(40_001, SYN));
    let key = FlowKey {
        from: std::net::SocketAddrV4::new(CLIENT, 40_001).into(),
        to: EndpointKey {
            addr: VIP.into(),
            protocol: convey::base::Protocol::Tcp,
        },
    };
    // the slow path had claimed a place and a port for it, and not made it yet
    let forwards = &site.map.maps.forwards;
    let forward: [u8; ForwardValue::SIZE] = element(forwards, &key.to_bytes()).expect("a flow");
    let nat = ForwardValue::from_bytes(&forward).expect("a flow").nat;
    assert!(forwards.delete(&key.to_bytes()).expect("a flow"));
    let reverse = FlowKey {
        from: SERVER.into(),
        to: nat,
    };
    let mut site = site.restarted(ONE);
    assert_eq!(used(&site), (2, 1));
    let is_claimed = |site: &Site| {
        element::<{ ReverseValue::SIZE }>(&site.map.maps.reverses, &reverse.to_bytes()).is_some()
    };
    site.scan_after(1);
    assert!(is_claimed(&site), "it may be on its way");
    site.scan_after(1);
    assert!(!is_claimed(&site));
    assert_eq!((used(&site), claimed(&mut site)), ((1, 0), 1));
    assert_eq!(site.counted(), (1, 1));
}

fn ports_that_are_claimed_towards_nobody_are_forgotten() {
    let mut site = Site::new(ONE);
    connect(&mut site, 40_000, [By::Program; 3]);
    for server in [2, 3, 65_535] {
        site.map.maps.claims.set(server, 40);
    }
    let mut site = site.restarted(ONE);
    let claims = &site.map.maps.claims;
    assert_eq!([1, 2, 3, 65_535].map(|server| claims.get(server)), [1, 0, 0, 0]);
    assert_eq!(claims.get(CLAIMS_FLOWS as usize), 1);
    assert_eq!(claims.get(CLAIMS_HALF_OPEN as usize), 0);
    assert_eq!(claimed(&mut site), 1);
}

fn clients_of_a_limited_frontend_count_as_before() {
    let mut site = Site::new(&limited(2));
    connect(&mut site, 40_000, [By::SlowPath; 3]);
    connect(&mut site, 40_001, [By::SlowPath; 3]);
    // whose client may be forged
    let mut site = site.restarted(&limited(3));
    sent(
        &mut site,
        By::SlowPath,
        Segment::of_client(40_002, SYN).numbered(100, 0),
    );
    site.scan_after(1);
    let next = |site: &mut Site, port| site.slowly(Segment::of_client(port, SYN)).0;
    assert_eq!(next(&mut site, 40_003), PacketReason::ToServer, "a third may be");
    let mut site = site.restarted(&limited(2));
    site.scan_after(1);
    assert_ne!(next(&mut site, 40_004), PacketReason::ToServer);
    site.scan_after(1);
    assert_ne!(
        next(&mut site, 40_004),
        PacketReason::ToServer,
        "each counts once"
    );
    close(&mut site, 40_000, By::SlowPath);
    assert_eq!(next(&mut site, 40_004), PacketReason::ToServer, "one has ended");
}

fn limits_that_are_lower_than_before_end_no_connection() {
    let mut site = Site::new(&limited(3));
    for port in 40_000..40_003 {
        connect(&mut site, port, [By::SlowPath; 3]);
    }
    let mut site = site.restarted(&limited(1));
    site.scan_after(1);
    for port in 40_000..40_003 {
        assert_eq!(sent(&mut site, By::SlowPath, ack(port)).1, SERVER);
    }
    let next = |site: &mut Site, port| site.slowly(Segment::of_client(port, SYN)).0;
    for port in 40_000..40_003 {
        assert_ne!(
            next(&mut site, 40_004),
            PacketReason::ToServer,
            "before the end of {port}"
        );
        close(&mut site, port, By::SlowPath);
        // those that have not counted so far do now
        site.scan_after(1);
    }
    assert_eq!(next(&mut site, 40_004), PacketReason::ToServer);
}

fn replies_go_where_they_went_until_nobody_is_there() {
    let (old, new) = (Mac([2, 0, 0, 0, 9, 9]), Mac([2, 0, 0, 0, 9, 7]));
    let mut site = Site::new(ONE);
    let towards = connect(&mut site, 40_000, [By::Program; 3]);
    site.scan_after(0);
    for router in [old, new] {
        site.route(CLIENT, router);
        site.apply();
    }
    let answer = ack(40_000).answer(towards, ACK).numbered(1_001, 101);
    assert_eq!(hop_of(&site, answer), Some(new));
    let mut site = site.restarted(ONE);
    assert_eq!(hop_of(&site, answer), Some(new), "before its routes are known");
    site.scan_after(1);
    site.apply();
    assert_eq!(hop_of(&site, answer), Some(new));
    site.route(CLIENT, new);
    site.apply();
    assert_eq!(hop_of(&site, answer), Some(new), "the routes say so, too");
    site.scan_after(901);
    site.apply();
    assert!(is_empty(&site.map.maps.moved));
}

fn without_a_registry_nothing_is_taken_over() {
    let mut site = Site::new(ONE);
    connect(&mut site, 40_000, [By::Program; 3]);
    let [first, second, _] = site.loaded.hand_out_registry().expect("descriptors");
    for file in [first, second] {
        let file = File::from(file);
        // the checksum of what was noted
        file.write_all_at(&[0x55; 8], 24).expect("a file");
    }
    let mut successor = keeper(&site.loaded, &site.flows);
    assert!(successor.adopt().is_err());
    assert_eq!(used(&site), (1, 0), "nothing was changed");
    successor.clear().expect("the maps");
    site.keeper = successor;
    site.apply();
    assert_eq!(used(&site), (0, 0));
    connect(&mut site, 40_000, [By::Program; 3]);
    let mut site = site.restarted(ONE);
    site.scan_after(1);
    assert_eq!(site.counted(), (1, 1), "what came after can be taken over");
}

fn whatever_stands_in_maps_and_registry_is_survived() {
    let mut site = Site::new(ONE);
    let towards = connect(&mut site, 40_000, [By::Program; 3]);
    let maps = &site.map.maps;
    for byte in [0x00, 0x5a, 0xff] {
        for map in [
            &maps.targets,
            &maps.sources,
            &maps.moved,
            &maps.addresses,
            &maps.interfaces,
            &maps.settings,
            &maps.forwards,
            &maps.reverses,
            &maps.flows,
            &maps.shares,
        ] {
            let info = map.info();
            let key = match info.kind {
                bpf::kind::ARRAY => vec![0; 4],
                _ => vec![byte; info.key_size as usize],
            };
            let value = vec![byte | 1; map.value_bytes()];
            map.update(&key, &value, Insert::Any).expect("an element");
        }
        maps.claims.set(usize::from(byte) + 2, i64::MIN);
    }
    let [_, _, counted] = site.loaded.hand_out_registry().expect("descriptors");
    File::from(counted)
        .write_all_at(&[0xff; 4_096], 0)
        .expect("a file");
    let mut site = site.restarted(ONE);
    assert_eq!(sent(&mut site, By::Program, ack(40_000)), towards);
    for _ in 0..3 {
        site.scan_after(1);
    }
    assert_eq!(
        (site.counted(), used(&site), claimed(&mut site)),
        ((1, 1), (1, 0), 1)
    );
    connect(&mut site, 40_001, [By::Program; 3]);
    let maps = &site.map.maps;
    assert_eq!(element::<{ SourceValue::SIZE }>(&maps.sources, &[0x5a; 4]), None);
}

fn one_follows_another_many_times() {
    let mut site = Site::new(ONE);
    let towards = connect(&mut site, 40_000, [By::Program; 3]);
    for port in 50_000..50_010 {
        site = match port % 3 {
            0 => site.restarted(&without_first()),
            _ => site.restarted(ONE),
        };
        connect(&mut site, port, [By::Program; 3]);
        if port % 2 == 0 {
            site.scan_after(1);
        }
        assert_eq!(sent(&mut site, By::Program, ack(40_000)), towards);
    }
    site = site.restarted(ONE);
    site.scan_after(1);
    assert_eq!(used(&site), (11, 0));
    let open = site.counted().1;
    assert!(
        (1..11).contains(&open),
        "those of the other server are nobody's: {open}"
    );
    site.scan_after(901);
    assert_eq!(
        (site.counted().1, used(&site), claimed(&mut site)),
        (0, (0, 0), 0)
    );
}
