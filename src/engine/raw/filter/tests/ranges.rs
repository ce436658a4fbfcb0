//! Services with a range of ports.

use super::*;

#[test]
fn a_range_is_taken_from_its_first_port_to_its_last() {
    let nat = "61000-65535".parse().ok();
    let services = [
        service(Protocol::Udp, "192.0.2.1:9000-9010", nat, &["10.0.0.1:7000"]),
        service(Protocol::Tcp, "[2001:db8::1]:1-65535", None, &["[fd00::1]:1"]),
        // what a reload has left over
        service(Protocol::Udp, "192.0.2.1:9008-9012", nat, &["10.0.0.1:7008"]),
    ];
    let (client, client6) = ("198.51.100.7:50000", "[2001:db8:f::7]:50000");
    let nat = "192.0.2.9:61000";
    check(
        &services,
        &[
            (true, "the first", Packet::udp(client, "192.0.2.1:9000")),
            (true, "one within", Packet::udp(client, "192.0.2.1:9005")),
            (true, "the last", Packet::udp(client, "192.0.2.1:9012")),
            (false, "the one before", Packet::udp(client, "192.0.2.1:8999")),
            (false, "the one after", Packet::udp(client, "192.0.2.1:9013")),
            (false, "another protocol", Packet::tcp(client, "192.0.2.1:9005")),
            (true, "port 1 of all", Packet::tcp(client6, "[2001:db8::1]:1")),
            (
                true,
                "port 65535 of all",
                Packet::tcp(client6, "[2001:db8::1]:65535"),
            ),
            (false, "of all, by UDP", Packet::udp(client6, "[2001:db8::1]:1")),
            (true, "an answer of the first", Packet::udp("10.0.0.1:7000", nat)),
            (true, "an answer of the last", Packet::udp("10.0.0.1:7012", nat)),
            (false, "below", Packet::udp("10.0.0.1:6999", nat)),
            (false, "above", Packet::udp("10.0.0.1:7013", nat)),
        ],
    );
}

#[test]
fn ports_in_a_row_are_one_range() {
    let keys = vec![
        (8_001, 8_001),
        (80, 80),
        (65_534, 65_535),
        (8_000, 8_002),
        (8_001, 8_001),
    ];
    assert_eq!(joined(keys), [(80, 80), (8_000, 8_002), (65_534, 65_535)]);
}
