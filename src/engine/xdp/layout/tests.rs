use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::base::PacketReason;

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
        ("STATE_SYN", StateCode::Syn as u64),
        ("STATE_REFUSED", StateCode::Refused as u64),
        ("STATE_ESTABLISHED", StateCode::Established as u64),
        ("STATE_RESET", StateCode::Reset as u64),
        ("STATE_CLOSED", StateCode::Closed as u64),
        ("STATE_ASKED", StateCode::Asked as u64),
        ("STATE_TALKING", StateCode::Talking as u64),
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

#[test]
fn counters_of_all_cpus_are_summed() {
    let one = [1_u64, 100, 1, 0, 0].map(u64::to_ne_bytes).concat();
    let other = [2_u64, 200, 0, 1, 3].map(u64::to_ne_bytes).concat();
    let sum = TrafficValue {
        packets: 3,
        bytes: 300,
        opened: 1,
        completed: 1,
        incomplete: 3,
    };
    assert_eq!(TrafficValue::sum(&[one, other].concat()), sum);
    assert_eq!(
        sum_of_numbers(&[5_u64.to_ne_bytes(), 7_u64.to_ne_bytes()].concat()),
        12
    );
}
