//! What is to be in the maps for passthrough.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
};

use crate::{
    engine::xdp::{
        keys::origin_key,
        layout::{HopValue, LOCALS, OriginKey, SourceValue},
        numbers::{Numbered, Numbers},
    },
    flow::{Hops, PacketServiceView, ReturnLink, Services, stored::ReturnOrigin},
};

/// How flows begin towards each target of mode passthrough that has a number, the retired ones too: what is counted of their
/// flows is counted by that. Without addresses none begin there: the slow path opens them.
pub fn sources(services: &Services, hops: &Hops, numbers: &Numbers) -> BTreeMap<u16, SourceValue> {
    let served = served_among_nat_ports(services);
    let passthrough = numbers.iter().filter(|(_, numbered)| !numbered.is_dsr);
    let source = |(number, numbered): (u16, &Numbered)| {
        let target = &numbered.target;
        let way = target.nat_way(hops).map(|(_, _, locals)| locals);
        // with more than it knows the program would choose otherwise than the slow path
        let locals = way.filter(|locals| locals.len() <= LOCALS && numbered.is_configured());
        let locals = locals.unwrap_or_default().to_vec();
        let share = target.share();
        let prefixes = share.map(|limit| (limit.clients.prefix4, limit.clients.prefix6));
        let value = SourceValue {
            server: numbered.server.into(),
            share: share.map_or(0, |limit| limit.ports),
            half_of_ports: target.half_of_ports(),
            prefixes: prefixes.unwrap_or_default(),
            is_served: locals.iter().any(|local| served.contains(local)),
            locals,
        };
        (number, value)
    };
    passthrough.map(source).collect()
}

/// Addresses at which ports among the NAT ports are served: what clients send to is no NAT port.
fn served_among_nat_ports(services: &Services) -> HashSet<IpAddr> {
    let nat_ports = services.nat_ports();
    let overlaps = |service: &PacketServiceView<'_>| {
        let ports = service.range.ports();
        let mut ranges = nat_ports.iter();
        ranges.any(|nat| nat.first <= ports.last && ports.first <= nat.last)
    };
    let served = services.views().filter(overlaps);
    served.map(|service| service.range.ip()).collect()
}

/// Return hops that have moved.
pub fn moved(moved: &HashMap<ReturnOrigin, ReturnLink>) -> BTreeMap<[u8; OriginKey::SIZE], HopValue> {
    let hop = |(origin, to): (&ReturnOrigin, &ReturnLink)| {
        let value = HopValue {
            mac: to.link.destination,
            interface_mac: to.link.source,
            ifindex: to.link.ifindex,
            mtu: to.mtu,
        };
        (origin_key(origin).to_bytes(), value)
    };
    moved.iter().map(hop).collect()
}
