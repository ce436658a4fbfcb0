//! What a keeper makes of what the one before it has left in the maps and the registry.

use std::{net::Ipv4Addr, os::fd::AsFd as _};

use convey::{
    base::{Handshake, Mac, PacketReason},
    engine::xdp::layout::{SourceValue, TargetValue},
    snapshot::live::Totals,
    sys::bpf::{self, Map},
};

use crate::{
    Test,
    keeper::{TWO, by_program},
    passthrough::{By, ONE, SERVER, claimed, connect, handshakes, is_empty, sent, used},
    site::{ACK, CLIENT, FIN_ACK, SYN, Segment, Site, VIP, parse},
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
    clients_of_a_limited_frontend_count_as_before,
    limits_that_are_lower_than_before_end_no_connection,
    replies_go_where_they_went_until_nobody_is_there,
];

/// What the program returns (include/uapi/linux/bpf.h).
const XDP_TX: u32 = 3;

/// Another server in place of the first.
pub fn without_first() -> String {
    ONE.replace(
        "s1 = { addr = \"10.0.0.11:80\" }",
        "s2 = { addr = \"10.0.0.12:80\" }",
    )
}

fn limited(connections: u32) -> String {
    format!("{ONE}\n[frontends.web.limits.per_client]\nconnections = {connections}\n")
}

/// Connections of a server that have begun and are open, as its counters say now.
pub fn of_server(site: &mut Site, name: &str) -> (u64, u64) {
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
pub fn ack(port: u16) -> Segment {
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

pub fn element<const N: usize>(map: &Map, key: &[u8]) -> Option<[u8; N]> {
    let mut value = [0; N];
    map.lookup(key, &mut value).expect("a map").then_some(value)
}

/// Closes a connection from both sides.
pub fn close(site: &mut Site, port: u16, by: By) {
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
