use super::*;
use netlink_packet_core::NetlinkMessage;
use netlink_packet_route::{
    address::AddressAttribute,
    route::{RouteAttribute, RouteMessage, RouteMetric, RouteVia},
};
use proptest::prelude::*;

const THEIRS: Mac = Mac([2, 0, 0, 0, 0, 2]);

fn datagram(payload: RouteNetlinkMessage) -> Vec<u8> {
    let mut message = NetlinkMessage::from(payload);
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

fn only(bytes: &[u8]) -> Message {
    let all: Vec<_> = decode(bytes).map(|envelope| envelope.unwrap().message).collect();
    assert_eq!(all.len(), 1);
    all.into_iter().next().unwrap()
}

fn link_message(family: AddressFamily, flags: LinkFlags) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.interface_family = family;
    message.header.index = 5;
    message.header.link_layer_type = LinkLayerType::Ether;
    message.header.flags = flags;
    message.attributes = vec![
        LinkAttribute::IfName("eth0".to_owned()),
        LinkAttribute::Mtu(9000),
        LinkAttribute::Address(THEIRS.0.to_vec()),
    ];
    message
}

#[test]
fn an_interface_is_up_only_with_a_carrier() {
    let all = LinkFlags::Up | LinkFlags::Running | LinkFlags::LowerUp;
    for (flags, is_up) in [
        (all, true),
        (LinkFlags::Up, false),
        (LinkFlags::Up | LinkFlags::LowerUp, false),
        (LinkFlags::Running | LinkFlags::LowerUp, false),
    ] {
        let message = link_message(AddressFamily::Unspec, flags);
        let expected = NetworkInterface {
            name: "eth0".to_owned(),
            medium: Medium::Ethernet(THEIRS),
            mtu: 9000,
            is_up,
        };
        let bytes = datagram(RouteNetlinkMessage::NewLink(message));
        assert_eq!(
            only(&bytes),
            Message::NetworkEvent(NetworkEvent::Link(5, expected))
        );
    }
}

#[test]
fn what_a_bridge_tells_of_its_ports_is_no_news_of_interfaces() {
    let message = link_message(AddressFamily::Bridge, LinkFlags::Up);
    let gone = datagram(RouteNetlinkMessage::DelLink(message.clone()));
    assert_eq!(only(&gone), Message::Other);
    assert_eq!(
        only(&datagram(RouteNetlinkMessage::NewLink(message))),
        Message::Other
    );
}

#[test]
fn of_a_point_to_point_interface_our_own_end_is_the_address() {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.index = 5;
    message.attributes = vec![
        AddressAttribute::Address(IpAddr::from([10, 0, 0, 2])),
        AddressAttribute::Local(IpAddr::from([10, 0, 0, 1])),
    ];
    let bytes = datagram(RouteNetlinkMessage::DelAddress(message));
    let expected = NetworkEvent::AddressGone(5, IpAddr::from([10, 0, 0, 1]));
    assert_eq!(only(&bytes), Message::NetworkEvent(expected));
}

#[test]
fn an_address_is_ready_when_it_is_known_to_be_no_duplicate_and_lasting_until_it_is_deprecated() {
    for (flags, is_ready, is_lasting) in [
        (0, true, true),
        (libc::IFA_F_TENTATIVE, false, true),
        (libc::IFA_F_TENTATIVE | libc::IFA_F_OPTIMISTIC, true, true),
        (libc::IFA_F_TENTATIVE | libc::IFA_F_DADFAILED, false, true),
        (libc::IFA_F_DEPRECATED | libc::IFA_F_PERMANENT, true, false),
        (libc::IFA_F_TEMPORARY, true, false),
    ] {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet6;
        message.header.index = 5;
        message.header.prefix_len = 64;
        let ip = IpAddr::from([0xfd; 16]);
        let flags = netlink_packet_route::address::AddressFlags::from_bits_retain(flags);
        message.attributes = vec![AddressAttribute::Address(ip), AddressAttribute::Flags(flags)];
        let bytes = datagram(RouteNetlinkMessage::NewAddress(message));
        let address = Address {
            is_ready,
            is_lasting,
            scope: 0,
            length: 64,
        };
        assert_eq!(
            only(&bytes),
            Message::NetworkEvent(NetworkEvent::Address(5, ip, address)),
            "{flags:?}"
        );
    }
}

#[test]
fn a_route_is_understood_with_its_gateway_of_the_other_family() {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.destination_prefix_length = 24;
    message.header.kind = RouteType::Unicast;
    let gateway = IpAddr::from([0xfe; 16]);
    message.attributes = vec![
        RouteAttribute::Destination(std::net::Ipv4Addr::new(10, 0, 0, 0).into()),
        RouteAttribute::Oif(5),
        RouteAttribute::Via(RouteVia::from(gateway)),
        RouteAttribute::Metrics(vec![RouteMetric::Hoplimit(3), RouteMetric::Mtu(1400)]),
    ];
    let bytes = datagram(RouteNetlinkMessage::NewRoute(message));
    let expected = Route {
        kind: RouteKind::Unicast,
        destination: IpAddr::from([10, 0, 0, 0]),
        length: 24,
        ifindex: Some(5),
        gateway: Some(gateway),
        source: None,
        mtu: Some(1400),
    };
    assert_eq!(only(&bytes), Message::Route(expected));
}

#[test]
fn a_neighbours_state_says_whether_its_link_address_can_be_used() {
    use NeighbourState::{Delay, Failed, Incomplete, Noarp, Permanent, Probe, Reachable, Stale};
    let address = IpAddr::from([10, 0, 0, 2]);
    let told = |state, mac: Option<Mac>| {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.ifindex = 5;
        message.header.state = state;
        message
            .attributes
            .push(NeighbourAttribute::Destination(address.into()));
        message
            .attributes
            .extend(mac.map(|mac| NeighbourAttribute::LinkLayerAddress(mac.0.to_vec())));
        match only(&datagram(RouteNetlinkMessage::NewNeighbour(message))) {
            Message::NetworkEvent(NetworkEvent::Neighbour(key, state)) => {
                assert_eq!(key, NeighbourKey { ifindex: 5, address });
                state
            }
            other => panic!("{other:?}"),
        }
    };
    for state in [Reachable, Delay, Probe, Permanent, Noarp] {
        let known = told(state, Some(THEIRS));
        assert_eq!(known, Neighbour::Known(THEIRS), "{state}");
    }
    assert_eq!(told(Stale, Some(THEIRS)), Neighbour::Stale(THEIRS));
    for (state, mac) in [(Incomplete, None), (Failed, Some(THEIRS)), (Reachable, None)] {
        assert_eq!(told(state, mac), Neighbour::Unknown, "{state}");
    }
}

#[test]
fn an_attribute_that_we_do_not_read_may_be_as_odd_as_it_likes() {
    let mut bytes = datagram(RouteNetlinkMessage::NewLink(link_message(
        AddressFamily::Unspec,
        LinkFlags::Up,
    )));
    // IFLA_STATS64 of three bytes
    bytes.extend([7, 0, 23, 0, 1, 2, 3, 0]);
    let len = u32::try_from(bytes.len()).unwrap();
    bytes[..4].copy_from_slice(&len.to_ne_bytes());
    assert!(matches!(
        only(&bytes),
        Message::NetworkEvent(NetworkEvent::Link(5, _))
    ));
}

#[test]
fn a_bad_message_does_not_hide_the_next() {
    let mut bytes = datagram(RouteNetlinkMessage::NewNeighbour(NeighbourMessage::default()));
    // shorter than its header
    bytes.truncate(20);
    bytes[..4].copy_from_slice(&20_u32.to_ne_bytes());
    bytes.extend(datagram(RouteNetlinkMessage::NewLink(link_message(
        AddressFamily::Unspec,
        LinkFlags::Up,
    ))));
    let all: Vec<_> = decode(&bytes).collect();
    assert!(all[0].is_err() && all[1].is_ok() && all.len() == 2);
}

#[test]
fn rules_and_next_hop_objects_are_news_of_routing() {
    for kind in [libc::RTM_NEWRULE, libc::RTM_DELRULE, 104, 105] {
        let mut bytes = datagram(RouteNetlinkMessage::NewRoute(RouteMessage::default()));
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        assert_eq!(only(&bytes), Message::NetworkEvent(NetworkEvent::Routing));
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic_or_go_on_for_ever(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(decode(&bytes).count() <= bytes.len() / 16 + 1);
    }

    #[test]
    fn no_attributes_make_it_panic(
        kind in prop::sample::select(vec![16_u16, 17, 20, 21, 24, 25, 28, 29, 2, 3]),
        family in prop::sample::select(vec![0_u8, 2, 7, 10]),
        body in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        let mut bytes = u32::try_from(17 + body.len()).unwrap().to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.push(family);
        bytes.extend(body);
        prop_assert_eq!(decode(&bytes).count(), 1);
    }
}
