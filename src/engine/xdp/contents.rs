//! What is to be in the maps: made of services, next hops and numbers. Pure.

mod left_behind;
mod nat;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use super::{
    layout::{
        ADDRESS_ABSENT, ADDRESS_OWN, ADDRESSES, EndpointKey, HopValue, INTERFACES, InterfaceValue, OriginKey,
        SettingsValue, SourceValue, TABLE_ELEMENTS, TABLE_FLAGS, TABLE_KEYED, TABLES, TargetFlags,
        TargetValue, octets,
    },
    numbers::{Configured, Numbered, Numbers},
};
use crate::{
    balance::{Balancer, HashKey},
    base::Mac,
    flow::{
        FlowTarget, Hops, PacketServiceView, ReturnLink, Services,
        stored::{ReturnOrigin, half_open_limit},
    },
};

/// Slots of a table in one element.
const SLOTS_AN_ELEMENT: usize = 4;

/// What is to be in the maps that user space writes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    /// Targets by number, with version 0.
    pub targets: BTreeMap<u16, TargetValue>,
    /// Maglev tables by the first port of their services.
    pub tables: BTreeMap<EndpointKey, Table>,
    /// Flags of addresses.
    pub addresses: BTreeMap<[u8; 16], u32>,
    /// Interfaces that the program is attached to, by index.
    pub interfaces: BTreeMap<u32, Port>,
    /// How flows begin towards targets of mode passthrough, by number.
    pub sources: BTreeMap<u16, SourceValue>,
    /// Where replies go instead of where their clients' packets come from, by the bytes of its key.
    pub moved: BTreeMap<[u8; OriginKey::SIZE], HopValue>,
    /// What the program is told besides.
    pub settings: SettingsValue,
    /// Services and addresses that there is no room for: their packets are left to the slow path.
    pub left_out: usize,
}

/// What the maps depend on besides services and next hops.
#[derive(Debug)]
pub struct Circumstances<'a> {
    /// Interfaces that the program is attached to, by index, and whether in the driver.
    pub attached: &'a BTreeMap<u32, bool>,
    /// There are passthrough flows.
    pub has_passthrough: bool,
    /// The slow path has flows of mode dsr for itself.
    pub has_others: bool,
    /// Where replies go instead of where their clients' packets come from.
    pub moved: &'a HashMap<ReturnOrigin, ReturnLink>,
    /// Passthrough flows, at most.
    pub max_flows: u32,
}

/// A Maglev table.
#[derive(Debug, Clone)]
pub struct Table {
    balancer: Arc<Balancer>,
    /// Numbers of the servers by their index; 0: it is no server of this service.
    numbers: Arc<[u16]>,
}

/// An interface that the program is attached to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port {
    /// Its link address.
    pub mac: Mac,
    /// Whether in the driver.
    pub is_native: bool,
    /// Largest IP packet that it sends, in bytes.
    pub mtu: u32,
}

impl PartialEq for Table {
    fn eq(&self, other: &Self) -> bool {
        // balancers are not changed, but replaced
        Arc::ptr_eq(&self.balancer, &other.balancer) && self.numbers == other.numbers
    }
}

impl Eq for Table {}

impl Table {
    /// That of a service, if the program may choose by it.
    fn of(service: &PacketServiceView<'_>, numbers: &Numbers) -> Option<Self> {
        let balancer = service.maglev.filter(|maglev| !maglev.slots().is_empty())?;
        if service.has_access {
            return None;
        }
        let number = |target: &Option<Arc<FlowTarget>>| {
            let target = target.as_ref()?;
            numbers.number(target, service.is_dsr)
        };
        let of: Arc<[u16]> = service
            .targets
            .iter()
            .map(|target| number(target).unwrap_or(0))
            .collect();
        // a family without servers is the slow path's, which answers
        of.iter().any(|number| *number != 0).then(|| Self {
            balancer: Arc::clone(balancer),
            numbers: of,
        })
    }

    /// The elements of the array.
    pub fn elements(&self) -> impl Iterator<Item = u64> {
        let number = |server: &u32| {
            let number = usize::try_from(*server)
                .ok()
                .and_then(|server| self.numbers.get(server));
            number.copied().unwrap_or(0)
        };
        let slots = self.balancer.slots().chunks(SLOTS_AN_ELEMENT).map(move |four| {
            let mut halves = [[0; 2]; SLOTS_AN_ELEMENT];
            for (half, server) in halves.iter_mut().zip(four) {
                *half = number(server).to_le_bytes();
            }
            let mut bytes = [0; 8];
            bytes
                .iter_mut()
                .zip(halves.as_flattened())
                .for_each(|(to, from)| *to = *from);
            // slot i is half-word i % 4 of the number, whatever the order of bytes
            u64::from_le_bytes(bytes)
        });
        let [flags, first, second] = key(self.balancer.key());
        let end = [flags, first, second]
            .into_iter()
            .take(TABLE_ELEMENTS - TABLE_FLAGS);
        slots.chain(std::iter::repeat(0)).take(TABLE_FLAGS).chain(end)
    }
}

/// Flags and key of a table.
fn key(key: HashKey) -> [u64; 3] {
    key.secret()
        .map_or([0; 3], |[first, second]| [TABLE_KEYED, first, second])
}

impl Contents {
    /// What is to be there. Targets without a number are given one; those that are configured no more keep theirs.
    pub fn plan(
        services: &Services,
        hops: &Hops,
        circumstances: &Circumstances<'_>,
        numbers: &mut Numbers,
    ) -> Self {
        let Circumstances {
            attached,
            has_passthrough,
            has_others,
            moved,
            max_flows,
        } = *circumstances;
        let all: Vec<_> = services.views().collect();
        numbers.configure(all.iter().flat_map(|service| {
            let targets = service.targets.iter().flatten();
            targets.map(|target| Configured {
                target,
                is_dsr: service.is_dsr,
                protocol: service.protocol,
                range: service.range,
            })
        }));
        let numbers = &*numbers;
        let targets = numbers
            .iter()
            .map(|(number, numbered)| (number, target(numbered, hops)));
        let tables = all.iter().filter_map(|service| {
            let key = EndpointKey {
                addr: service.range.first().0,
                protocol: service.protocol,
            };
            Some((key, Table::of(service, numbers)?))
        });
        let (tables, without_table) = limited(tables.collect(), TABLES);
        let (addresses, without_flags) = limited(addresses(services, hops), ADDRESSES);
        let (interfaces, without_port) = limited(interfaces(hops, attached), INTERFACES);
        // the others' replies go the way that they came by
        let (moved, _) = limited(nat::moved(moved), super::layout::MOVED);
        Self {
            targets: targets.collect(),
            tables,
            addresses,
            interfaces,
            sources: nat::sources(services, hops, numbers),
            settings: SettingsValue {
                nat_ports: services.nat_ports(),
                has_passthrough: has_passthrough || services.has_passthrough(),
                any_interface: services.any_interface(),
                has_others,
                has_moved: !moved.is_empty(),
                max_flows,
                max_half_open: half_open_limit(max_flows),
            },
            moved,
            left_out: without_table + without_flags + without_port,
        }
    }
}

impl From<Port> for InterfaceValue {
    fn from(attached: Port) -> Self {
        Self {
            mac: attached.mac,
            is_native: attached.is_native,
            mtu: attached.mtu,
        }
    }
}

/// The first so many, and how many others there are.
fn limited<K: Ord, V>(mut all: BTreeMap<K, V>, most: usize) -> (BTreeMap<K, V>, usize) {
    let left_out = all.len().saturating_sub(most);
    for _ in 0..left_out {
        all.pop_last();
    }
    (all, left_out)
}

fn target(numbered: &Numbered, hops: &Hops) -> TargetValue {
    let target = &numbered.target;
    let way = if numbered.is_dsr {
        target.direct_way(hops)
    } else {
        target.nat_way(hops).map(|(link, mtu, _)| (link, mtu))
    };
    let (link, mtu) = way.unzip();
    TargetValue {
        version: 0,
        incarnation: numbered.incarnation,
        address: target.ip,
        hop: link.map_or(Mac([0; 6]), |link| link.destination),
        shift: target.shift(),
        interface_mac: link.map_or(Mac([0; 6]), |link| link.source),
        flags: TargetFlags {
            known: way.is_some(),
            down: target.is_down(),
            l2: numbered.is_dsr && target.has_vip,
            slow: target.access().is_some(),
        },
        ifindex: link.map_or(0, |link| link.ifindex),
        mtu: mtu.unwrap_or(0),
        idle: u32::try_from(target.idle().as_millis()).unwrap_or(u32::MAX),
    }
}

fn addresses(services: &Services, hops: &Hops) -> BTreeMap<[u8; 16], u32> {
    let own: BTreeSet<_> = services.addresses().chain(hops.own.iter().copied()).collect();
    let mut flags: BTreeMap<_, u32> = own.into_iter().map(|ip| (octets(ip), ADDRESS_OWN)).collect();
    for vip in &hops.absent_vips {
        *flags.entry(octets(*vip)).or_default() |= ADDRESS_ABSENT;
    }
    flags
}

fn interfaces(hops: &Hops, attached: &BTreeMap<u32, bool>) -> BTreeMap<u32, Port> {
    let interface = |(ifindex, is_native): (&u32, &bool)| {
        let known = hops.interfaces.get(ifindex)?;
        let port = Port {
            mac: known.mac,
            is_native: *is_native,
            mtu: known.mtu,
        };
        Some((*ifindex, port))
    };
    attached.iter().filter_map(interface).collect()
}

/// What is to be done to come from what a map holds to what it is to hold.
#[derive(Debug, PartialEq, Eq)]
pub struct Difference<'a, K, V> {
    /// What is new or another.
    pub put: Vec<(&'a K, &'a V)>,
    /// Keys of what is to go.
    pub gone: Vec<K>,
}

impl<'a, K: Ord + Copy, V: PartialEq> Difference<'a, K, V> {
    /// Between what is there and what is to be there.
    pub fn between(before: &BTreeMap<K, V>, now: &'a BTreeMap<K, V>) -> Self {
        Self {
            put: now
                .iter()
                .filter(|(key, value)| before.get(*key) != Some(*value))
                .collect(),
            gone: before
                .keys()
                .filter(|key| !now.contains_key(*key))
                .copied()
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests;
