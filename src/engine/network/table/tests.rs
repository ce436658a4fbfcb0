use super::*;

const SERVER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));
const OWN: Mac = Mac([2, 0, 0, 0, 0, 1]);
const THEIRS: Mac = Mac([2, 0, 0, 0, 0, 2]);
const KEY: NeighbourKey = NeighbourKey {
    ifindex: 5,
    address: SERVER,
};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn ethernet(name: &str) -> NetworkInterface {
    NetworkInterface {
        name: name.to_owned(),
        medium: Medium::Ethernet(OWN),
        mtu: 1500,
        is_up: true,
    }
}

fn on_link() -> Route {
    Route {
        kind: RouteKind::Unicast,
        destination: SERVER,
        length: 32,
        ifindex: Some(5),
        gateway: None,
        source: Some(ip("10.0.0.1")),
        mtu: None,
    }
}

fn ready(scope: u8) -> Address {
    Address {
        is_ready: true,
        is_lasting: true,
        scope,
        length: 24,
    }
}

fn wanted() -> Wanted {
    Wanted {
        servers: BTreeSet::from([SERVER]),
        vips: BTreeSet::from([ip("10.0.0.80"), ip("fd00::80")]),
        ..Wanted::default()
    }
}

/// A server on the link of eth0, resolved.
fn table() -> Table {
    let mut table = Table::default();
    table.want(wanted());
    table.apply(NetworkEvent::Link(5, ethernet("eth0")));
    table.answered(SERVER, RouteAnswer::Route(on_link()));
    table.apply(NetworkEvent::Neighbour(KEY, Neighbour::Known(THEIRS)));
    table
}

fn resolution(table: &Table) -> Resolution {
    table.network_state().hops.servers[&SERVER].resolution
}

#[test]
fn a_network_state_says_what_it_is_about() {
    let mut table = table();
    assert_eq!(*table.network_state().wanted, wanted());
    let other = Wanted {
        nat_addresses: vec![ip("10.0.0.7")],
        ..wanted()
    };
    table.want(other.clone());
    assert_eq!(*table.network_state().wanted, other);
}

#[test]
fn a_resolved_server_has_a_link_header() {
    let network_state = table().network_state();
    let hop = &network_state.hops.servers[&SERVER];
    assert_eq!(
        *hop,
        Hop {
            resolution: Resolution::Known(LinkHeader {
                ifindex: 5,
                source: OWN,
                destination: THEIRS
            }),
            mtu: 1500,
            locals: [ip("10.0.0.1")].into(),
        }
    );
    assert_eq!(network_state.server_interfaces[&SERVER], "eth0");
    assert!(network_state.no_way.is_empty());
}

#[test]
fn a_stale_link_address_is_used_and_asked_about() {
    let mut table = table();
    assert!(table.needs().is_empty());
    assert!(table.apply(NetworkEvent::Neighbour(KEY, Neighbour::Stale(THEIRS))));
    assert!(matches!(resolution(&table), Resolution::Known(_)));
    assert_eq!(table.needs(), BTreeMap::from([(KEY, (SERVER, Need::Confirm))]));
}

#[test]
fn a_lost_neighbour_is_unresolved_and_asked_for() {
    let mut table = table();
    assert!(table.apply(NetworkEvent::Neighbour(KEY, Neighbour::Unknown)));
    assert!(matches!(resolution(&table), Resolution::Unresolved { .. }));
    assert_eq!(table.needs(), BTreeMap::from([(KEY, (SERVER, Need::Resolve))]));
}

#[test]
fn neighbours_that_are_no_next_hops_are_not_kept() {
    let mut table = table();
    let other = NeighbourKey {
        ifindex: 5,
        address: ip("10.0.0.3"),
    };
    assert!(!table.apply(NetworkEvent::Neighbour(other, Neighbour::Known(THEIRS))));
    assert_eq!(table.neighbours.len(), 1);
    let route = Route {
        gateway: Some(ip("fe80::1")),
        ..on_link()
    };
    table.answered(SERVER, RouteAnswer::Route(route));
    table.forget_neighbours();
    let keys: Vec<_> = table.neighbours.keys().map(|key| key.address).collect();
    assert_eq!(keys, [ip("fe80::1")], "a gateway may be of the other family");
}

#[test]
fn servers_behind_one_gateway_need_one_probe() {
    let mut table = table();
    let other = ip("10.0.1.2");
    table.want(Wanted {
        servers: BTreeSet::from([SERVER, other]),
        ..Wanted::default()
    });
    for server in [SERVER, other] {
        let route = Route {
            gateway: Some(ip("10.0.0.254")),
            ..on_link()
        };
        table.answered(server, RouteAnswer::Route(route));
    }
    assert_eq!(table.needs().len(), 1);
}

#[test]
fn only_routes_that_cover_a_server_make_it_stale() {
    let mut table = table();
    assert!(table.stale().is_empty());
    let network = |destination: &str, length| Route {
        destination: ip(destination),
        length,
        ..on_link()
    };
    for (destination, length) in [("10.0.1.0", 24), ("10.0.0.3", 32), ("0.0.0.0", 8), ("::", 0)] {
        assert!(
            !table.route_changed(&network(destination, length)),
            "{destination}/{length}"
        );
    }
    for (destination, length) in [("10.0.0.0", 24), ("10.0.0.2", 32), ("0.0.0.0", 0)] {
        assert!(
            table.route_changed(&network(destination, length)),
            "{destination}/{length}"
        );
        assert_eq!(table.stale(), &BTreeSet::from([SERVER]));
        table.answered(SERVER, RouteAnswer::Route(on_link()));
    }
}

#[test]
fn ipv6_networks_cover_as_they_should() {
    let route = |destination: &str, length| Route {
        destination: ip(destination),
        length,
        ..on_link()
    };
    assert!(covers(&route("fd00::", 64), ip("fd00::1")));
    assert!(covers(&route("::", 0), ip("fd00::1")));
    assert!(covers(&route("fd00::1", 128), ip("fd00::1")));
    assert!(!covers(&route("fd00::1", 128), ip("fd00::2")));
    assert!(!covers(&route("fd00:0:0:1::", 64), ip("fd00::1")));
    // lengths that no kernel sends
    assert!(!covers(&route("fd00::1", 255), ip("fd00::2")));
}

#[test]
fn the_same_news_again_change_nothing() {
    let mut table = table();
    assert!(!table.apply(NetworkEvent::Link(5, ethernet("eth0"))));
    assert!(table.apply(NetworkEvent::Address(5, ip("10.0.0.1"), ready(0))));
    assert!(!table.apply(NetworkEvent::Address(5, ip("10.0.0.1"), ready(0))));
    assert!(!table.apply(NetworkEvent::AddressGone(5, ip("10.0.0.9"))));
    assert!(!table.apply(NetworkEvent::LinkGone(9)));
    assert!(!table.apply(NetworkEvent::Neighbour(KEY, Neighbour::Known(THEIRS))));
}

#[test]
fn whatever_changes_an_interface_or_address_has_all_routes_asked_for() {
    for event in [
        NetworkEvent::Link(6, ethernet("eth1")),
        NetworkEvent::LinkGone(5),
        NetworkEvent::Address(5, ip("10.0.0.9"), ready(0)),
        NetworkEvent::Routing,
    ] {
        let mut table = table();
        assert!(table.apply(event.clone()));
        assert_eq!(table.stale(), &BTreeSet::from([SERVER]), "{event:?}");
    }
}

#[test]
fn why_there_is_no_way_follows_from_route_and_interface() {
    let down = NetworkInterface {
        is_up: false,
        ..ethernet("eth0")
    };
    let tunnel = NetworkInterface {
        medium: Medium::Other,
        ..ethernet("wg0")
    };
    let kind = |kind| Route { kind, ..on_link() };
    let no_source = Route {
        source: None,
        ..on_link()
    };
    for (link, route, reason) in [
        (ethernet("eth0"), kind(RouteKind::Local), NoWay::OwnAddress),
        (ethernet("eth0"), kind(RouteKind::Blackhole), NoWay::Blackhole),
        (ethernet("eth0"), kind(RouteKind::Prohibit), NoWay::Prohibited),
        (ethernet("eth0"), kind(RouteKind::Unreachable), NoWay::Unreachable),
        (ethernet("eth0"), kind(RouteKind::Other), NoWay::NotUnicast),
        (down, on_link(), NoWay::InterfaceDown("eth0".to_owned())),
        (tunnel, on_link(), NoWay::NotEthernet("wg0".to_owned())),
        (ethernet("eth0"), no_source, NoWay::NoSource("eth0".to_owned())),
    ] {
        let mut table = table();
        table.apply(NetworkEvent::Link(5, link));
        table.answered(SERVER, RouteAnswer::Route(route));
        let network_state = table.network_state();
        assert_eq!(network_state.no_way[&SERVER], reason);
        assert_eq!(resolution(&table), Resolution::NoRoute);
        assert!(table.needs().is_empty(), "nobody is asked for in vain: {reason}");
    }
}

#[test]
fn a_vip_is_where_it_is_ready_and_moves() {
    let mut table = table();
    let vip = ip("fd00::80");
    table.apply(NetworkEvent::Link(
        1,
        NetworkInterface {
            medium: Medium::Loopback,
            ..ethernet("lo")
        },
    ));
    let tentative = Address {
        is_ready: false,
        ..ready(0)
    };
    table.apply(NetworkEvent::Address(5, vip, tentative));
    assert!(table.network_state().vips.is_empty());
    assert!(table.network_state().hops.absent_vips.contains(&vip));
    table.apply(NetworkEvent::Address(5, vip, ready(0)));
    table.apply(NetworkEvent::Address(1, vip, ready(254)));
    let both = BTreeSet::from(["eth0".to_owned(), "lo".to_owned()]);
    assert_eq!(table.network_state().vips[&vip], both);
    assert!(!table.network_state().hops.absent_vips.contains(&vip));
    table.apply(NetworkEvent::AddressGone(5, vip));
    assert_eq!(
        table.network_state().vips[&vip],
        BTreeSet::from(["lo".to_owned()])
    );
}

#[test]
fn an_interface_that_is_gone_takes_its_addresses_along() {
    let mut table = table();
    table.apply(NetworkEvent::Address(5, ip("10.0.0.80"), ready(0)));
    table.apply(NetworkEvent::LinkGone(5));
    table.apply(NetworkEvent::Link(5, ethernet("eth0")));
    assert!(table.network_state().vips.is_empty());
}

fn locals(table: &Table) -> Vec<IpAddr> {
    table.network_state().hops.servers[&SERVER].locals.to_vec()
}

#[test]
fn all_nat_addresses_of_a_servers_family_are_used_and_the_first_of_ours_is_asked_with() {
    let mut table = table();
    let (first, second) = (ip("10.0.0.7"), ip("10.0.0.8"));
    table.want(Wanted {
        nat_addresses: vec![first, ip("fd00::7"), second],
        ..wanted()
    });
    assert_eq!(locals(&table), [first, second]);
    assert_eq!(table.fixed_source(SERVER), None);
    table.apply(NetworkEvent::Address(5, second, ready(0)));
    assert_eq!(table.fixed_source(SERVER), Some(second));
    table.apply(NetworkEvent::Address(5, first, ready(0)));
    assert_eq!(table.fixed_source(SERVER), Some(first));
    assert_eq!(table.fixed_source(ip("fd00::2")), None);
    table.answered(SERVER, RouteAnswer::None(NoWay::Unreachable));
    assert_eq!(
        locals(&table),
        [first, second],
        "a way that is gone has its addresses still"
    );
}

#[test]
fn no_vip_is_the_source_of_flows_where_the_interface_has_another_address() {
    let mut table = table();
    let vip = ip("10.0.0.80");
    table.apply(NetworkEvent::Address(5, vip, ready(0)));
    let route = Route {
        source: Some(vip),
        ..on_link()
    };
    table.answered(SERVER, RouteAnswer::Route(route));
    assert_eq!(locals(&table), [vip]);
    table.apply(NetworkEvent::Address(5, ip("10.0.0.1"), ready(0)));
    assert_eq!(locals(&table), [ip("10.0.0.1")]);
    table.want(Wanted {
        nat_addresses: vec![vip],
        ..wanted()
    });
    assert_eq!(locals(&table), [vip], "what is configured counts");
}

#[test]
fn answers_for_servers_that_nobody_wants_any_more_are_dropped() {
    let mut table = table();
    table.want(Wanted::default());
    assert_eq!(table.answered(SERVER, RouteAnswer::Route(on_link())), None);
    table.forget_neighbours();
    assert!(table.network_state().hops.servers.is_empty() && table.neighbours.is_empty());
}

#[test]
fn what_finds_no_room_is_counted() {
    let mut table = Table::default();
    for index in 0..=u32::try_from(MAX_LINKS).unwrap() {
        table.apply(NetworkEvent::Link(index, ethernet("eth")));
    }
    assert_eq!((table.links.len(), table.refused()), (MAX_LINKS, 1));
    // what is there may still change
    let renamed = ethernet("renamed");
    assert!(table.apply(NetworkEvent::Link(0, renamed)));
    let mut number = 0_u32;
    while table.refused() == 1 {
        table.apply(NetworkEvent::Address(
            0,
            IpAddr::from(number.to_be_bytes()),
            ready(0),
        ));
        number += 1;
    }
    assert_eq!((table.addresses.iter().count(), number), (65_536, 65_537));
}
