//! Which packets are ours, as the program's maps `services` and `ranges` say it. Pure.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use super::layout::{
    EndpointKey, RANGED, RANGES, RANGES_SIZE, RangeValue, SERVICES, ServiceValue, ranges_to_bytes,
};
use crate::{
    base::{PortRange, Protocol, merged},
    config::PacketService,
};

/// A key of either map, in bytes.
pub type Key = [u8; EndpointKey::SIZE];

/// What both maps hold, or are to hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceMaps {
    /// Services of one port.
    pub services: BTreeMap<Key, [u8; ServiceValue::SIZE]>,
    /// Those of several ports, by their address and protocol.
    pub ranges: BTreeMap<Key, [u8; RANGES_SIZE]>,
    /// Services that there is no room for: the slow path has them.
    pub left_out: usize,
}

/// The services at one address and protocol.
#[derive(Debug, Default)]
struct Place {
    dsr: Vec<PortRange>,
    passthrough: Vec<PortRange>,
}

impl ServiceMaps {
    /// What they are to hold for these services. Those in DSR come first where there is not room for all. Where a port is both,
    /// as long as flows of an earlier configuration go on, it is passthrough's: what is of no flow there, and what may be of a
    /// DSR flow, is left to the slow path, which knows which packet is whose.
    #[must_use]
    pub fn of(services: &[PacketService]) -> Self {
        let mut places: BTreeMap<(IpAddr, Protocol), Place> = BTreeMap::new();
        for service in services {
            let place = places
                .entry((service.vip.ip(), service.vip.protocol))
                .or_default();
            match service.nat_ports {
                Some(_) => place.passthrough.push(service.vip.ports()),
                None => place.dsr.push(service.vip.ports()),
            }
        }
        let mut maps = Self::default();
        for ((ip, protocol), place) in &mut places {
            place.settle();
            maps.add(*ip, *protocol, &place.dsr, true);
        }
        for ((ip, protocol), place) in &places {
            maps.add(*ip, *protocol, &place.passthrough, false);
        }
        maps.add_ranges(&places);
        maps
    }

    fn add(&mut self, ip: IpAddr, protocol: Protocol, ports: &[PortRange], is_dsr: bool) {
        for one in ports.iter().filter(|range| range.first == range.last) {
            if self.services.len() >= SERVICES {
                self.left_out += 1;
                continue;
            }
            let value = ServiceValue {
                first_port: one.first,
                is_dsr,
                is_range: false,
            };
            self.services
                .insert(key(ip, one.first, protocol), value.to_bytes());
        }
    }

    fn add_ranges(&mut self, places: &BTreeMap<(IpAddr, Protocol), Place>) {
        let several = |ports: &[PortRange], is_dsr| -> Vec<RangeValue> {
            let several = ports.iter().filter(|range| range.first < range.last);
            let value = |range: &PortRange| RangeValue {
                ports: (range.first, range.last),
                is_dsr,
            };
            several.map(value).collect()
        };
        let mut all: Vec<_> = (places.iter())
            .map(|(place, ports)| {
                (
                    place,
                    several(&ports.dsr, true),
                    several(&ports.passthrough, false),
                )
            })
            .filter(|(_, dsr, passthrough)| !dsr.is_empty() || !passthrough.is_empty())
            .collect();
        // stable: of those with DSR in the order of their addresses
        all.sort_by_key(|(_, dsr, _)| dsr.is_empty());
        for ((ip, protocol), mut values, passthrough) in all {
            values.extend(passthrough);
            if self.ranges.len() >= RANGED {
                self.left_out += values.len();
                continue;
            }
            self.left_out += values.len().saturating_sub(RANGES);
            self.ranges
                .insert(key(*ip, 0, *protocol), ranges_to_bytes(&values));
        }
    }
}

impl Place {
    /// Each range once, and those in DSR only where nothing is passthrough's.
    fn settle(&mut self) {
        let taken = merged(self.passthrough.iter().copied());
        self.dsr.retain(|range| {
            let at = taken.partition_point(|taken| taken.last < range.first);
            taken.get(at).is_none_or(|taken| taken.first > range.last)
        });
        for ports in [&mut self.dsr, &mut self.passthrough] {
            ports.sort_unstable();
            ports.dedup();
        }
    }
}

fn key(ip: IpAddr, port: u16, protocol: Protocol) -> Key {
    let addr = SocketAddr::new(ip, port);
    EndpointKey { addr, protocol }.to_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{EndpointRange, ListenAddr, PortRanges};

    const TCP: Protocol = Protocol::Tcp;

    fn range(ip: &str, ports: (u16, u16), protocol: Protocol) -> EndpointRange {
        let first = ListenAddr::new(SocketAddr::new(ip.parse().unwrap(), ports.0));
        let one = EndpointRange {
            listen: first.into(),
            protocol,
        };
        one.with_ports(PortRange {
            first: ports.0,
            last: ports.1,
        })
    }

    fn dsr(ip: &str, ports: (u16, u16)) -> PacketService {
        PacketService {
            vip: range(ip, ports, TCP),
            nat_ports: None,
            servers: Vec::new(),
        }
    }

    fn passthrough(ip: &str, ports: (u16, u16)) -> PacketService {
        PacketService {
            nat_ports: Some(PortRanges::STOCK),
            ..dsr(ip, ports)
        }
    }

    fn at(ip: &str, port: u16) -> Key {
        key(ip.parse().unwrap(), port, TCP)
    }

    fn service(first_port: u16, is_dsr: bool) -> [u8; 4] {
        ServiceValue {
            first_port,
            is_dsr,
            is_range: false,
        }
        .to_bytes()
    }

    fn several(all: &[(u16, u16, bool)]) -> [u8; RANGES_SIZE] {
        let value = |(first, last, is_dsr): &(u16, u16, bool)| RangeValue {
            ports: (*first, *last),
            is_dsr: *is_dsr,
        };
        ranges_to_bytes(&all.iter().map(value).collect::<Vec<_>>())
    }

    #[test]
    fn a_port_is_a_service_and_ports_in_a_row_are_a_range() {
        let maps = ServiceMaps::of(&[
            dsr("10.0.0.1", (80, 80)),
            dsr("2001:db8::1", (53, 53)),
            dsr("10.0.0.1", (8_000, 8_999)),
            passthrough("10.0.0.1", (443, 443)),
            passthrough("10.0.0.2", (1, 9)),
        ]);
        assert_eq!(
            maps.services,
            BTreeMap::from([
                (at("10.0.0.1", 80), service(80, true)),
                (at("10.0.0.1", 443), service(443, false)),
                (at("2001:db8::1", 53), service(53, true)),
            ])
        );
        assert_eq!(
            maps.ranges,
            BTreeMap::from([
                (at("10.0.0.1", 0), several(&[(8_000, 8_999, true)])),
                (at("10.0.0.2", 0), several(&[(1, 9, false)])),
            ])
        );
        assert_eq!(maps.left_out, 0);
    }

    #[test]
    fn a_port_that_passthrough_has_too_is_not_the_programs() {
        let maps = ServiceMaps::of(&[
            dsr("10.0.0.1", (80, 80)),
            passthrough("10.0.0.1", (70, 90)),
            dsr("10.0.0.1", (91, 91)),
            dsr("10.0.0.1", (60, 70)),
            dsr("10.0.0.1", (100, 110)),
            passthrough("10.0.0.1", (110, 110)),
            dsr("10.0.0.1", (443, 443)),
            passthrough("10.0.0.1", (443, 443)),
        ]);
        let expected = [(91, true), (110, false), (443, false)];
        let expected = expected.map(|(port, is_dsr)| (at("10.0.0.1", port), service(port, is_dsr)));
        assert_eq!(maps.services, BTreeMap::from(expected));
        assert_eq!(maps.ranges[&at("10.0.0.1", 0)], several(&[(70, 90, false)]));
    }

    #[test]
    fn what_there_is_no_room_for_is_counted_and_dsr_comes_first() {
        let mut services: Vec<_> = (0..17).map(|i| dsr("10.0.0.1", (i * 10, i * 10 + 5))).collect();
        services.push(passthrough("10.0.0.1", (5_000, 5_001)));
        let maps = ServiceMaps::of(&services);
        let expected: Vec<_> = (0..16).map(|i| (i * 10, i * 10 + 5, true)).collect();
        assert_eq!(maps.ranges[&at("10.0.0.1", 0)], several(&expected));
        assert_eq!(maps.left_out, 2);

        let mut services: Vec<_> = (0..=u16::MAX)
            .map(|port| passthrough("10.0.0.1", (port, port)))
            .collect();
        services.push(dsr("10.0.0.2", (80, 80)));
        let maps = ServiceMaps::of(&services);
        assert_eq!((maps.services.len(), maps.left_out), (SERVICES, 1));
        assert_eq!(maps.services[&at("10.0.0.2", 80)], service(80, true));
        services[0] = dsr("10.0.0.1", (0, 0));
        services.extend((0..=u16::MAX).map(|port| dsr("10.0.0.3", (port, port))));
        assert_eq!(ServiceMaps::of(&services).left_out, 2 + 65_535);
    }

    #[test]
    fn the_order_of_services_changes_nothing() {
        let mut services = vec![
            dsr("10.0.0.1", (80, 80)),
            passthrough("10.0.0.1", (70, 90)),
            dsr("10.0.0.1", (100, 110)),
            dsr("10.0.0.1", (100, 110)),
        ];
        let maps = ServiceMaps::of(&services);
        services.reverse();
        assert_eq!(ServiceMaps::of(&services), maps);
    }
}
