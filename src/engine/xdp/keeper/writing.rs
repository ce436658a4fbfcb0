//! Writing into the maps what is to be there, as far as it is not.

use std::{collections::BTreeMap, io};

use super::Keeper;
use crate::{
    base::Mac,
    engine::xdp::{
        contents::{Contents, Difference, Port},
        layout::{HopValue, InterfaceValue, OriginKey, SettingsValue, SourceValue, TargetFlags, TargetValue},
        write::{delete_all, put_all},
    },
    sys::bpf::Insert,
};

impl Keeper {
    /// Writes what is to be there. What the program may do less comes before what it may do more.
    pub(super) fn write(&mut self, wanted: &Contents) -> io::Result<()> {
        self.write_settings(wanted.settings)?;
        self.write_addresses(&wanted.addresses)?;
        self.write_interfaces(&wanted.interfaces)?;
        self.write_moved(&wanted.moved)?;
        self.write_targets(&wanted.targets)?;
        // no flow begins towards what is not there, and one that is there can begin
        self.write_sources(&self.still_named(&wanted.sources))?;
        self.map.numbers().written();
        let named = self.tables.apply(&self.map.maps.tables, &wanted.tables);
        self.write_sources(&wanted.sources)?;
        named
    }

    /// Sources as they are wanted, but that flows can begin towards what tables still name: this process may end before they name
    /// others, and new clients come while nobody runs.
    fn still_named(&self, wanted: &BTreeMap<u16, SourceValue>) -> BTreeMap<u16, SourceValue> {
        let as_before = |(number, value): (&u16, &SourceValue)| {
            let written = self.written.sources.get(number);
            let stays = written.filter(|_| value.locals.is_empty());
            (*number, stays.unwrap_or(value).clone())
        };
        wanted.iter().map(as_before).collect()
    }

    fn write_settings(&mut self, wanted: SettingsValue) -> io::Result<()> {
        if self.written.settings != wanted {
            (self.map.maps.settings).update(&0_u32.to_ne_bytes(), &wanted.to_bytes(), Insert::Any)?;
            self.written.settings = wanted;
        }
        Ok(())
    }

    fn write_addresses(&mut self, wanted: &BTreeMap<[u8; 16], u32>) -> io::Result<()> {
        let Difference { put, gone } = Difference::between(&self.written.addresses, wanted);
        let map = &self.map.maps.addresses;
        delete_all(map, gone.iter().copied())?;
        put_all(
            map,
            put.iter()
                .map(|(address, flags)| (**address, flags.to_ne_bytes())),
        )?;
        self.written.addresses.clone_from(wanted);
        Ok(())
    }

    fn write_interfaces(&mut self, wanted: &BTreeMap<u32, Port>) -> io::Result<()> {
        let Difference { put, gone } = Difference::between(&self.written.interfaces, wanted);
        let maps = &self.map.maps;
        // the kernel removes ports of interfaces that vanish by itself
        delete_all(&maps.ports, gone.iter().map(|ifindex| ifindex.to_ne_bytes()))?;
        delete_all(&maps.interfaces, gone.iter().map(|ifindex| ifindex.to_ne_bytes()))?;
        for (ifindex, port) in put {
            let (key, value) = (ifindex.to_ne_bytes(), InterfaceValue::from(*port));
            maps.interfaces.update(&key, &value.to_bytes(), Insert::Any)?;
            // where the kernel knows of programs at the way out, their descriptor follows; 0 is none
            let mut way_out = vec![0; maps.ports.value_bytes()];
            way_out.iter_mut().zip(key).for_each(|(to, from)| *to = from);
            if let Err(error) = maps.ports.update(&key, &way_out, Insert::Any) {
                // seldom, for it has vanished meanwhile; whatever else it is must not go unseen
                tracing::warn!(
                    event = "xdp_map_error",
                    interface = ifindex,
                    "the program cannot send by the interface with index {ifindex} what comes by others ({error}): packet sockets \
                     do, which costs more; if that interface is there, report it, and take engine = \"raw\" until then"
                );
            }
        }
        self.written.interfaces.clone_from(wanted);
        Ok(())
    }

    /// Writes targets in three steps, so that the program never reads half of one: the version made odd with what was there,
    /// the rest, and the version made even.
    fn write_targets(&mut self, wanted: &BTreeMap<u16, TargetValue>) -> io::Result<()> {
        let none = nothing();
        let Difference { put, gone } = Difference::between(&self.written.targets, wanted);
        let changed: Vec<_> = (put.into_iter().map(|(number, value)| (*number, *value)))
            .chain(gone.into_iter().map(|number| (number, none)))
            .collect();
        let before: Vec<_> = (changed.iter())
            .map(|(number, _)| (*number, *self.written.targets.get(number).unwrap_or(&none)))
            .collect();
        let (odd, even) = (self.version.wrapping_add(1), self.version.wrapping_add(2));
        self.version = even;
        for (values, version) in [(&before, odd), (&changed, odd), (&changed, even)] {
            let elements = values.iter().map(|(number, value)| {
                let value = TargetValue { version, ..*value };
                (u32::from(*number).to_ne_bytes(), value.to_bytes())
            });
            put_all(&self.map.maps.targets, elements)?;
        }
        self.written.targets.clone_from(wanted);
        Ok(())
    }

    fn write_sources(&mut self, wanted: &BTreeMap<u16, SourceValue>) -> io::Result<()> {
        let Difference { put, gone } = Difference::between(&self.written.sources, wanted);
        let map = &self.map.maps.sources;
        let key = |number: u16| u32::from(number).to_ne_bytes();
        delete_all(map, gone.iter().map(|number| key(*number)))?;
        put_all(
            map,
            put.iter()
                .map(|(number, value)| (key(**number), value.to_bytes())),
        )?;
        self.written.sources.clone_from(wanted);
        Ok(())
    }

    fn write_moved(&mut self, wanted: &BTreeMap<[u8; OriginKey::SIZE], HopValue>) -> io::Result<()> {
        let Difference { put, gone } = Difference::between(&self.written.moved, wanted);
        let map = &self.map.maps.moved;
        delete_all(map, gone.iter().copied())?;
        put_all(map, put.iter().map(|(origin, hop)| (**origin, hop.to_bytes())))?;
        self.written.moved.clone_from(wanted);
        Ok(())
    }
}

/// The entry of a number that nothing has.
pub(super) const fn nothing() -> TargetValue {
    TargetValue {
        version: 0,
        incarnation: 0,
        address: std::net::IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
        hop: Mac([0; 6]),
        shift: 0,
        interface_mac: Mac([0; 6]),
        flags: TargetFlags {
            known: false,
            down: false,
            l2: false,
            slow: false,
        },
        ifindex: 0,
        mtu: 0,
        idle: 0,
    }
}
