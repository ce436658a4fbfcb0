use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{base::PacketReason, flow::stored::Side, packet::Tags};

/// What `constants.h` defines as numbers.
fn constants() -> BTreeMap<&'static str, u64> {
    let lines = include_str!("../bpf/constants.h").lines();
    let defined = lines.filter_map(|line| {
        let mut words = line.strip_prefix("#define ")?.split_whitespace();
        let (name, value) = (words.next()?, words.next()?);
        Some((name, value.parse().ok()?))
    });
    defined.collect()
}

#[test]
fn program_and_user_space_have_the_same_numbers() {
    let constants = constants();
    let of = |name: &str| constants.get(name).copied().unwrap_or_else(|| panic!("{name}"));
    for (name, value) in [
        ("TABLE_ELEMENTS", TABLE_ELEMENTS as u64),
        ("TABLE_FLAGS", TABLE_FLAGS as u64),
        ("TABLE_KEY_0", TABLE_FLAGS as u64 + 1),
        ("TABLE_KEY_1", TABLE_FLAGS as u64 + 2),
        ("TABLE_KEYED", TABLE_KEYED),
        ("SLOTS", crate::balance::TABLE_SLOTS as u64),
        ("RANGES", RANGES as u64),
        ("ADDRESS_OWN", u64::from(ADDRESS_OWN)),
        ("ADDRESS_ABSENT", u64::from(ADDRESS_ABSENT)),
        ("REASON_TO_SERVER", PacketReason::ToServer as u64),
        ("REASON_TO_CLIENT", PacketReason::ToClient as u64),
        ("CLAIMS", CLAIMS.into()),
        ("CLAIMS_FLOWS", CLAIMS_FLOWS.into()),
        ("CLAIMS_HALF_OPEN", CLAIMS_HALF_OPEN.into()),
        ("CLAIMS_GAVE_WAY", CLAIMS_GAVE_WAY.into()),
        ("SHARES", SHARES as u64),
        ("LOCALS", LOCALS as u64),
        ("NAT_RANGES", PortRanges::MOST as u64),
        ("STATE_SYN", StateCode::Syn as u64),
        ("STATE_REFUSED", StateCode::Refused as u64),
        ("STATE_ESTABLISHED", StateCode::Established as u64),
        ("STATE_RESET", StateCode::Reset as u64),
        ("STATE_CLOSED", StateCode::Closed as u64),
        ("STATE_ASKED", StateCode::Asked as u64),
        ("STATE_TALKING", StateCode::Talking as u64),
        ("STATE_ANSWERED", StateCode::Answered as u64),
        ("STATE_CLIENT_HALF_CLOSED", StateCode::ClientHalfClosed as u64),
        ("STATE_SERVER_HALF_CLOSED", StateCode::ServerHalfClosed as u64),
        ("STATE_SERVER_CLOSED", StateCode::ServerClosed as u64),
        ("STATE_REPLIED", StateCode::Replied as u64),
        ("WATCH_OVER", WatchCode::Over as u64),
        ("WATCH_AWAITED", WatchCode::Awaited as u64),
        ("WATCH_OVERDUE", WatchCode::Overdue as u64),
    ] {
        assert_eq!(of(name), value, "{name}");
    }
    assert!(of("REASONS") >= PacketReason::COUNT as u64);
    assert!(of("PASSES") >= PassReason::ALL.len() as u64);
}

#[test]
fn program_and_user_space_name_the_reasons_in_the_same_order() {
    let header = include_str!("../bpf/constants.h");
    let listed = header
        .split_once("enum pass_reason {")
        .and_then(|(_, rest)| rest.split_once('}'))
        .map(|(inside, _)| inside.split(',').map(str::trim).filter(|name| !name.is_empty()));
    let listed: Vec<_> = listed.into_iter().flatten().collect();
    let named = |reason: &PassReason| {
        let mut name = String::from("PASS");
        for letter in format!("{reason:?}").chars() {
            if letter.is_uppercase() {
                name.push('_');
            }
            name.push(letter.to_ascii_uppercase());
        }
        name
    };
    assert_eq!(listed, PassReason::ALL.iter().map(named).collect::<Vec<_>>());
}

fn addr() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
    let v4 = any::<([u8; 4], [u8; 4])>().prop_map(|(a, b)| (IpAddr::from(a), IpAddr::from(b)));
    let v6 = any::<([u8; 16], [u8; 16])>().prop_map(|(a, b)| (IpAddr::from(a), IpAddr::from(b)));
    (prop_oneof![v4, v6], any::<(u16, u16)>())
        .prop_map(|((a, b), (c, d))| (SocketAddr::new(a, c), SocketAddr::new(b, d)))
}

proptest! {
    #[test]
    fn a_key_of_a_flow_is_read_as_it_was_written((from, to) in addr(), is_tcp in any::<bool>()) {
        let protocol = if is_tcp { Protocol::Tcp } else { Protocol::Udp };
        let key = FlowKey { from, to: EndpointKey { addr: to, protocol } };
        prop_assert_eq!(FlowKey::from_bytes(&key.to_bytes()), Some(key));
    }

    #[test]
    fn a_flow_is_read_as_it_was_written(
        seen in any::<u64>(),
        begun in any::<u64>(),
        target in any::<u32>(),
        incarnation in any::<u32>(),
        state in prop::sample::select(&StateCode::ALL[..]),
    ) {
        let flow = FlowValue { seen, begun, target, incarnation, state, watch: WatchCode::Overdue };
        prop_assert_eq!(FlowValue::from_bytes(&flow.to_bytes()), Some(flow));
    }

    #[test]
    fn bytes_that_are_none_of_ours_are_not_misread(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        // whatever they are: an answer or none, and no panic
        let _ = FlowKey::from_bytes(&bytes);
        if let Some(flow) = FlowValue::from_bytes(&bytes) {
            prop_assert_eq!(&flow.to_bytes()[..26], &bytes[..26]);
        }
    }
}

fn half() -> impl Strategy<Value = HalfValue> {
    any::<(u32, u32, Option<u32>)>().prop_map(|(end, acknowledged, fin)| HalfValue {
        end,
        acknowledged,
        fin,
    })
}

fn origin() -> impl Strategy<Value = OriginKey> {
    any::<(u32, [u8; 6], u8, bool)>().prop_map(|(ifindex, mac, tags, is_ipv6)| OriginKey {
        ifindex,
        mac: Mac(mac),
        tags: Tags::new(&[0x81, 0, 0, 7].repeat(usize::from(tags % 3))).expect("tags"),
        is_ipv6,
    })
}

proptest! {
    #[test]
    fn both_directions_of_a_flow_are_read_as_they_were_written(
        (from, to) in addr(),
        (half, origin) in (half(), origin()),
        (seen, begun, target) in any::<(u64, u64, u32)>(),
        (peer_fin, other_syn, clock) in any::<(Option<u32>, Option<u32>, Option<u32>)>(),
        (is_followed, shared, first) in any::<(bool, Option<u8>, u8)>(),
        state in prop::sample::select(&StateCode::ALL[..]),
    ) {
        let nat = EndpointKey { addr: to, protocol: Protocol::Tcp };
        let forward = ForwardValue {
            seen, begun, nat, target, incarnation: 7, half, peer_fin, other_syn, clock, origin, state,
            watch: WatchCode::Overdue,
            first_fin: [None, Some(Side::Client), Some(Side::Server)][usize::from(first % 3)],
            is_followed, shared,
        };
        prop_assert_eq!(ForwardValue::from_bytes(&forward.to_bytes()), Some(forward));
        let reverse = ReverseValue {
            seen, begun, client: FlowKey { from, to: nat }, target, incarnation: 7, half, peer_fin, origin, state,
            is_followed,
        };
        prop_assert_eq!(ReverseValue::from_bytes(&reverse.to_bytes()), Some(reverse));
        prop_assert_eq!(OriginKey::from_bytes(&origin.to_bytes()), Some(origin));
    }

    #[test]
    fn directions_that_are_none_of_ours_are_not_misread(bytes in prop::collection::vec(any::<u8>(), 0..128)) {
        // whatever they are: an answer or none, and no panic
        let _ = (ForwardValue::from_bytes(&bytes), ReverseValue::from_bytes(&bytes));
        let _ = OrderResult::from_bytes(&bytes);
    }
}

#[test]
fn what_came_of_an_order_is_in_its_last_field() {
    let order = Order {
        what: OrderKind::End,
        key: FlowKey {
            from: "192.0.2.1:1".parse().expect("an address"),
            to: EndpointKey {
                addr: "192.0.2.2:2".parse().expect("an address"),
                protocol: Protocol::Tcp,
            },
        },
        begun: 7,
    };
    let mut bytes = order.to_bytes();
    assert_eq!(OrderResult::from_bytes(&bytes), OrderResult::default());
    bytes[Order::SIZE - 4..].copy_from_slice(&5_u32.to_ne_bytes());
    let result = OrderResult {
        is_found: true,
        is_share_full: false,
        is_proven: true,
    };
    assert_eq!(OrderResult::from_bytes(&bytes), result);
}

#[test]
fn counters_of_all_cpus_are_summed() {
    let one = [1_u64, 100, 1, 0, 0, 5, 50, 1, 0, 1, 0, 2]
        .map(u64::to_ne_bytes)
        .concat();
    let other = [2_u64, 200, 0, 1, 3, 6, 60, 1, 1, 0, 4, 1]
        .map(u64::to_ne_bytes)
        .concat();
    let sum = TrafficValue {
        packets: 3,
        bytes: 300,
        opened: 1,
        dsr_completed: 1,
        dsr_incomplete: 3,
        packets_out: 11,
        bytes_out: 110,
        nat_opened: 2,
        nat_closed: 1,
        completed: 1,
        unanswered: 4,
        unacknowledged: 3,
    };
    assert_eq!(TrafficValue::sum(&[one, other].concat()), sum);
    assert_eq!(
        sum_of_numbers(&[5_u64.to_ne_bytes(), 7_u64.to_ne_bytes()].concat()),
        12
    );
}
