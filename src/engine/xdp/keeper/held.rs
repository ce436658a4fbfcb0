//! What the maps hold that another engine has written, read back.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
};

use super::{AT_ONCE, writing::nothing};
use crate::{
    engine::xdp::{
        contents::{Contents, Port},
        keys::return_origin,
        layout::{EndpointKey, HopValue, InterfaceValue, OriginKey, SettingsValue, SourceValue, TargetValue},
        maps::Maps,
    },
    flow::{ReturnLink, stored::ReturnOrigin},
    packet::LinkHeader,
    sys::bpf::{BatchCursor, Map},
};

/// The version of what is to be written again whatever it is: it may be half written.
const TO_WRITE: u32 = 1;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Held {
    /// Without the tables.
    pub contents: Contents,
    /// The latest of the targets' entries, even.
    pub version: u32,
    /// Where there are tables.
    pub tables: BTreeSet<EndpointKey>,
}

impl Held {
    /// Reads all of it. What nobody of ours has written, or has written half, is taken out.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn read(maps: &Maps) -> io::Result<Self> {
        let mut held = Self::default();
        held.read_targets(&maps.targets)?;
        held.read_tables(&maps.tables)?;
        held.read_interfaces(maps)?;
        let contents = &mut held.contents;
        contents.addresses = read(&maps.addresses, Some, |flags| Some(u32::from_ne_bytes(*flags)))?;
        let number = |key| u16::try_from(u32::from_ne_bytes(key)).ok();
        contents.sources = read(&maps.sources, number, SourceValue::from_bytes)?;
        contents.moved = read(&maps.moved, Some, HopValue::from_bytes)?;
        let mut settings = [0; SettingsValue::SIZE];
        maps.settings.lookup(&0_u32.to_ne_bytes(), &mut settings)?;
        contents.settings = SettingsValue::from_bytes(&settings).unwrap_or_default();
        Ok(held)
    }

    /// Where replies go instead of where their clients' packets come from.
    pub fn moved(&self) -> HashMap<ReturnOrigin, ReturnLink> {
        let link = |(origin, hop): (&[u8; OriginKey::SIZE], &HopValue)| {
            let link = LinkHeader {
                ifindex: hop.ifindex,
                source: hop.interface_mac,
                destination: hop.mac,
            };
            let to = ReturnLink { link, mtu: hop.mtu };
            Some((return_origin(&OriginKey::from_bytes(origin)?), to))
        };
        self.contents.moved.iter().filter_map(link).collect()
    }

    fn read_targets(&mut self, map: &Map) -> io::Result<()> {
        for_each(map, |key: [u8; 4], bytes: &[u8; TargetValue::SIZE]| {
            let Ok(number) = u16::try_from(u32::from_ne_bytes(key)) else {
                return;
            };
            let [a, b, c, d, ..] = *bytes;
            let version = u32::from_ne_bytes([a, b, c, d]);
            self.version = self.version.max(version);
            let target = TargetValue::from_bytes(bytes).filter(|target| target.version.is_multiple_of(2));
            let target = match target {
                // what was cleared, or nothing was ever written to
                Some(target) if target.incarnation == 0 => return,
                Some(target) => TargetValue { version: 0, ..target },
                None => TargetValue {
                    version: TO_WRITE,
                    ..nothing()
                },
            };
            self.contents.targets.insert(number, target);
        })?;
        self.version = self.version.wrapping_add(self.version % 2);
        Ok(())
    }

    fn read_tables(&mut self, map: &Map) -> io::Result<()> {
        for key in keys(map)? {
            match key.first_chunk().and_then(EndpointKey::from_bytes) {
                Some(endpoint) => drop(self.tables.insert(endpoint)),
                None => drop(map.delete(&key)?),
            }
        }
        Ok(())
    }

    /// An interface has an entry in two maps.
    fn read_interfaces(&mut self, maps: &Maps) -> io::Result<()> {
        let index = |key: [u8; 4]| Some(u32::from_ne_bytes(key));
        let mut interfaces = read(&maps.interfaces, index, InterfaceValue::from_bytes)?;
        let ports = keys(&maps.ports)?;
        interfaces.retain(|ifindex, _| ports.contains(&ifindex.to_ne_bytes()[..]));
        for key in keys(&maps.interfaces)?.union(&ports) {
            let ifindex = key.first_chunk().copied().map(u32::from_ne_bytes);
            if ifindex.is_none_or(|ifindex| !interfaces.contains_key(&ifindex)) {
                maps.interfaces.delete(key)?;
                maps.ports.delete(key)?;
            }
        }
        let port = |(ifindex, interface): (u32, InterfaceValue)| {
            let port = Port {
                mac: interface.mac,
                is_native: interface.is_native,
                mtu: interface.mtu,
            };
            (ifindex, port)
        };
        self.contents.interfaces = interfaces.into_iter().map(port).collect();
        Ok(())
    }
}

/// All elements of a map whose key and value can be read; the others are taken out.
fn read<const K: usize, const V: usize, Key: Ord, Value>(
    map: &Map,
    key_of: impl Fn([u8; K]) -> Option<Key>,
    value_of: impl Fn(&[u8; V]) -> Option<Value>,
) -> io::Result<BTreeMap<Key, Value>> {
    let (mut all, mut foreign) = (BTreeMap::new(), Vec::new());
    for_each(map, |key, value| match (key_of(key), value_of(value)) {
        (Some(of), Some(value)) => drop(all.insert(of, value)),
        _ => foreign.push(key),
    })?;
    for key in foreign {
        map.delete(&key)?;
    }
    Ok(all)
}

fn for_each<const K: usize, const V: usize>(
    map: &Map,
    mut see: impl FnMut([u8; K], &[u8; V]),
) -> io::Result<()> {
    let (mut cursor, mut keys, mut values) = (BatchCursor::default(), Vec::new(), Vec::new());
    while !cursor.is_at_end() {
        map.lookup_batch(&mut cursor, AT_ONCE, &mut keys, &mut values)?;
        for (key, value) in keys.as_chunks::<K>().0.iter().zip(values.as_chunks::<V>().0) {
            see(*key, value);
        }
    }
    Ok(())
}

/// The keys of a map that has no batches.
fn keys(map: &Map) -> io::Result<BTreeSet<Vec<u8>>> {
    let mut keys = BTreeSet::new();
    let mut last = None;
    // where the last one has just vanished, the kernel begins anew
    while let Some(key) = map.next_key(last.as_deref())?
        && keys.insert(key.clone())
    {
        last = Some(key);
    }
    Ok(keys)
}
