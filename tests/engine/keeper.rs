//! The keeper of the xdp engine's maps, the program in test runs, and the slow path over the program's flows: mode dsr.

use std::net::Ipv4Addr;

use convey::base::PacketReason;

use crate::{
    Test,
    site::{ACK, SYN, Segment, Site, keeper, parse},
    tests,
};

pub const TESTS: &[Test] = tests![
    a_flow_of_the_slow_path_is_in_the_programs_map_lives_by_its_packets_and_ends_there,
    a_flow_that_the_map_has_dropped_counts_as_ended,
    new_flows_are_decided_by_the_newest_configuration_and_others_stay,
    what_an_engine_before_has_left_is_cleared,
];

pub const TWO: &str = r#"
[frontends.web]
listen_addr = "198.51.100.1:80"
mode = "dsr"
backend = "web"
[backends.web.servers]
s1 = { addr = "10.0.0.11:80" }
s2 = { addr = "10.0.0.12:80" }
"#;

/// The server that the program sends a client's segment to; `None`: it leaves it to the slow path.
pub fn by_program(site: &Site, client: u16, flags: u8) -> Option<Ipv4Addr> {
    let ends = site.by_program(Segment::of_client(client, flags));
    ends.map(|(_, to)| *to.ip())
}

/// What the slow path makes of a client's segment.
fn slowly(site: &mut Site, client: u16, flags: u8) -> PacketReason {
    site.slowly(Segment::of_client(client, flags)).0
}

fn a_flow_of_the_slow_path_is_in_the_programs_map_lives_by_its_packets_and_ends_there() {
    let mut site = Site::new(TWO);
    assert_eq!(slowly(&mut site, 40_000, SYN), PacketReason::ToServer);
    assert_eq!(site.listed(), ["syn"]);
    assert_eq!(slowly(&mut site, 40_000, ACK), PacketReason::ToServer);
    assert_eq!(site.listed(), ["established"], "the program has taken it in");
    assert!(by_program(&site, 40_000, ACK).is_some(), "and goes on with it");
    site.keeper.collect().expect("counters");
    assert_eq!(site.counted(), (1, 1));
    site.scan_after(901);
    assert_eq!(site.counted(), (1, 0));
    assert_eq!(site.map.maps.flows.next_key(None).expect("the map"), None);
}

fn a_flow_that_the_map_has_dropped_counts_as_ended() {
    let mut site = Site::new(TWO);
    for client in 40_000..40_010 {
        assert!(by_program(&site, client, SYN).is_some());
    }
    site.keeper.collect().expect("counters");
    assert_eq!(site.counted(), (10, 10));
    let dropped = site
        .map
        .maps
        .flows
        .next_key(None)
        .expect("the map")
        .expect("a flow");
    assert!(site.map.maps.flows.delete(&dropped).expect("the map"));
    site.scan_after(0);
    assert_eq!(site.counted(), (10, 9));
    assert_eq!(site.flows.usage().dsr_flows, 9);
}

fn new_flows_are_decided_by_the_newest_configuration_and_others_stay() {
    let mut site = Site::new(TWO);
    let first = Ipv4Addr::new(10, 0, 0, 11);
    let before: Vec<_> = (40_000..40_064)
        .map(|client| by_program(&site, client, SYN))
        .collect();
    assert!(before.contains(&Some(first)), "{before:?}");
    site.config = parse(&TWO.replace("s1 = ", "# s1 = "));
    site.apply();
    let after: Vec<_> = (50_000..50_064)
        .map(|client| by_program(&site, client, SYN))
        .collect();
    assert!(
        !after.contains(&Some(first)) && !after.contains(&None),
        "{after:?}"
    );
    let kept: Vec<_> = (40_000..40_064)
        .map(|client| by_program(&site, client, ACK))
        .collect();
    assert_eq!(kept, before, "flows outlive their server's configuration");
}

fn what_an_engine_before_has_left_is_cleared() {
    let mut site = Site::new(TWO);
    assert!(by_program(&site, 40_000, SYN).is_some());
    let mut successor = keeper(&site.loaded, &site.flows);
    successor.clear().expect("the maps");
    let maps = &site.map.maps;
    for map in [
        &maps.flows,
        &maps.tables,
        &maps.addresses,
        &maps.interfaces,
        &maps.ports,
    ] {
        assert_eq!(map.next_key(None).expect("a map"), None);
    }
    assert_eq!(by_program(&site, 40_001, SYN), None, "nothing says where it goes");
    site.keeper = successor;
    site.apply();
    assert!(by_program(&site, 40_001, SYN).is_some());
}
