//! What user space writes, read back: by an engine that takes the maps of another one over.

use std::net::{IpAddr, Ipv6Addr};

use super::{
    EndpointKey, HopValue, InterfaceValue, LOCALS, SettingsValue, SourceValue, TargetFlags, TargetValue,
    TrafficValue,
    codec::{
        Reader, SETTINGS_ANY_INTERFACE, SETTINGS_MOVED, SETTINGS_OTHERS, SETTINGS_PASSTHROUGH, TARGET_DOWN,
        TARGET_KNOWN, TARGET_L2, TARGET_SLOW, Writer,
    },
    nat::SERVED,
};
use crate::base::{Mac, PortRange, PortRanges};

/// An address of a value, which has no family beside it.
fn address(octets: [u8; 16]) -> IpAddr {
    let ip = Ipv6Addr::from(octets);
    ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4)
}

impl EndpointKey {
    /// From the maps' bytes; `None` if nobody of ours has written them.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; Self::SIZE]) -> Option<Self> {
        Self::read(&mut Reader(bytes)).filter(|key| key.to_bytes() == *bytes)
    }
}

impl TargetValue {
    /// From the map's bytes; `None` if nobody of ours has written them.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; Self::SIZE]) -> Option<Self> {
        let mut from = Reader(bytes);
        let (version, incarnation) = (from.u32()?, from.u32()?);
        let address = address(from.take()?);
        let (hop, shift) = (Mac(from.take()?), from.u16()?);
        let (interface_mac, flags) = (Mac(from.take()?), from.u16()?);
        let value = Self {
            version,
            incarnation,
            address,
            hop,
            shift,
            interface_mac,
            flags: TargetFlags {
                known: flags & TARGET_KNOWN != 0,
                down: flags & TARGET_DOWN != 0,
                l2: flags & TARGET_L2 != 0,
                slow: flags & TARGET_SLOW != 0,
            },
            ifindex: from.u32()?,
            mtu: from.u32()?,
            idle: from.u32()?,
        };
        (value.to_bytes() == *bytes).then_some(value)
    }
}

impl SourceValue {
    /// From the map's bytes; `None` if nobody of ours has written them.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; Self::SIZE]) -> Option<Self> {
        let mut from = Reader(bytes);
        let count = usize::try_from(from.u32()?)
            .ok()
            .filter(|count| *count <= LOCALS)?;
        let (server, share, half_of_ports) = (from.u32()?, from.u32()?, from.u32()?);
        let prefixes = (from.u8()?, from.u8()?);
        let (flags, _) = (from.u16()?, from.u32()?);
        let locals: Option<Vec<_>> = (0..count).map(|_| from.take().map(address)).collect();
        let value = Self {
            locals: locals?,
            server,
            share,
            half_of_ports,
            prefixes,
            is_served: flags & SERVED != 0,
        };
        (value.to_bytes() == *bytes).then_some(value)
    }
}

impl HopValue {
    /// From the map's bytes; `None` if nobody of ours has written them.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; Self::SIZE]) -> Option<Self> {
        let mut from = Reader(bytes);
        Some(Self {
            mac: Mac(from.take()?),
            interface_mac: Mac(from.take()?),
            ifindex: from.u32()?,
            mtu: from.u32()?,
        })
    }
}

impl InterfaceValue {
    /// From the map's bytes; `None` if nobody of ours has written them.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; Self::SIZE]) -> Option<Self> {
        let mut from = Reader(bytes);
        let (mac, _) = (Mac(from.take()?), from.u16()?);
        let value = Self {
            mac,
            is_native: from.u32()? != 0,
            mtu: from.u32()?,
        };
        (value.to_bytes() == *bytes).then_some(value)
    }
}

impl SettingsValue {
    /// From the map's bytes; `None` if nobody of ours has written them.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; Self::SIZE]) -> Option<Self> {
        let mut from = Reader(bytes);
        let flags = from.u32()?;
        let (max_flows, max_half_open) = (from.u32()?, from.u32()?);
        let (_, count, _) = (from.u32()?, from.u32()?, from.u32()?);
        let mut range = || {
            let (first, last) = (from.u16()?, from.u16()?);
            (first <= last).then_some(PortRange { first, last })
        };
        let count = usize::try_from(count)
            .ok()
            .filter(|count| *count <= PortRanges::MOST)?;
        let ranges: Option<Vec<_>> = (0..count).map(|_| range()).collect();
        let value = Self {
            nat_ports: PortRanges::new(ranges?)?,
            has_passthrough: flags & SETTINGS_PASSTHROUGH != 0,
            any_interface: flags & SETTINGS_ANY_INTERFACE != 0,
            has_moved: flags & SETTINGS_MOVED != 0,
            has_others: flags & SETTINGS_OTHERS != 0,
            max_flows,
            max_half_open,
        };
        (value.to_bytes() == *bytes).then_some(value)
    }
}

impl TrafficValue {
    /// As the registry has it, which is as the map has one CPU's.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::SIZE] {
        let fields = self.fields();
        let to = fields.iter().fold(Writer::new(), |to, field| to.u64(*field));
        to.end()
    }

    /// Each counter as it is here, unless it is higher than there: then it is wrong.
    #[must_use]
    pub fn at_most(&self, now: &Self) -> Self {
        let fields = self.fields().into_iter().zip(now.fields());
        let bytes = fields.fold(Writer::<{ Self::SIZE }>::new(), |to, (field, now)| {
            to.u64(field.min(now))
        });
        Self::sum(&bytes.end())
    }

    /// In the order of the map's.
    const fn fields(&self) -> [u64; Self::SIZE / 8] {
        [
            self.packets,
            self.bytes,
            self.opened,
            self.dsr_completed,
            self.dsr_incomplete,
            self.packets_out,
            self.bytes_out,
            self.nat_opened,
            self.nat_closed,
            self.completed,
            self.unanswered,
            self.unacknowledged,
        ]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Mapped ones are IPv4 ones.
    fn ip() -> impl Strategy<Value = IpAddr> {
        any::<IpAddr>().prop_map(|ip| ip.to_canonical())
    }

    fn mac() -> impl Strategy<Value = Mac> {
        any::<[u8; 6]>().prop_map(Mac)
    }

    fn ranges() -> impl Strategy<Value = PortRanges> {
        let range = any::<(u16, u16)>().prop_map(|(one, other)| PortRange {
            first: one.min(other),
            last: one.max(other),
        });
        prop::collection::vec(range, 1..=PortRanges::MOST)
            .prop_map(|ranges| PortRanges::new(ranges).expect("ranges"))
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            (address, locals) in (ip(), prop::collection::vec(ip(), 0..=LOCALS)),
            (hop, interface_mac, nat_ports) in (mac(), mac(), ranges()),
            (version, incarnation, ifindex, mtu) in any::<(u32, u32, u32, u32)>(),
            (shift, idle, server, share) in any::<(u16, u32, u32, u32)>(),
            (prefixes, flags) in any::<((u8, u8), [bool; 4])>(),
        ) {
            let [a, b, c, d] = flags;
            let target = TargetValue {
                version, incarnation, address, hop, shift, interface_mac, ifindex, mtu, idle,
                flags: TargetFlags { known: a, down: b, l2: c, slow: d },
            };
            prop_assert_eq!(TargetValue::from_bytes(&target.to_bytes()), Some(target));
            let source = SourceValue { locals, server, share, half_of_ports: mtu, prefixes, is_served: a };
            prop_assert_eq!(SourceValue::from_bytes(&source.to_bytes()), Some(source));
            let hop = HopValue { mac: hop, interface_mac, ifindex, mtu };
            prop_assert_eq!(HopValue::from_bytes(&hop.to_bytes()), Some(hop));
            let interface = InterfaceValue { mac: interface_mac, is_native: a, mtu };
            prop_assert_eq!(InterfaceValue::from_bytes(&interface.to_bytes()), Some(interface));
            let settings = SettingsValue {
                nat_ports, has_passthrough: a, any_interface: b, has_moved: c, has_others: d,
                max_flows: share, max_half_open: server,
            };
            prop_assert_eq!(SettingsValue::from_bytes(&settings.to_bytes()), Some(settings));
        }

        #[test]
        fn what_would_be_written_otherwise_is_not_read(bytes in any::<[[u8; 32]; 5]>()) {
            let bytes = bytes.as_flattened();
            macro_rules! check {
                ($($value:ty),*) => {$(
                    let some = bytes.first_chunk().expect("enough");
                    if let Some(read) = <$value>::from_bytes(some) {
                        prop_assert_eq!(read.to_bytes(), *some);
                    }
                )*};
            }
            check!(EndpointKey, TargetValue, SourceValue, HopValue, InterfaceValue, SettingsValue);
        }

        #[test]
        fn no_counter_is_above_what_it_can_be(noted in any::<[u64; 12]>(), now in any::<[u64; 12]>()) {
            let of = |fields: [u64; 12]| TrafficValue::sum(&fields.map(u64::to_ne_bytes).concat());
            prop_assert_eq!(of(noted).to_bytes().to_vec(), noted.map(u64::to_ne_bytes).concat());
            let least: Vec<_> = noted.iter().zip(now).map(|(noted, now)| *noted.min(&now)).collect();
            prop_assert_eq!(of(noted).at_most(&of(now)).fields().to_vec(), least);
        }
    }
}
