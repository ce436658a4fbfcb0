//! What belongs to ranges of ports, found by port.

use std::{
    collections::HashMap,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash},
};

use super::PortRange;

/// Values of ranges of ports that do not overlap, of each key (such as an address) its own. Of ranges that do overlap it may
/// not find all.
#[derive(Debug, Clone)]
pub struct PortMap<K, V, S = BuildHasherDefault<DefaultHasher>>(HashMap<K, Vec<(PortRange, V)>, S>);

impl<K: Hash + Eq, V, S: BuildHasher + Default> PortMap<K, V, S> {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of the range that a port of a key is in.
    pub fn at(&self, key: &K, port: u16) -> Option<&V> {
        let only = PortRange {
            first: port,
            last: port,
        };
        self.overlapping(key, only).next().map(|(_, value)| value)
    }

    /// All values, in no order.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.0.values().flatten().map(|(_, value)| value)
    }

    /// The ranges of a key that have a port of this one, in order, with their values.
    pub fn overlapping<'a>(
        &'a self,
        key: &K,
        ports: PortRange,
    ) -> impl Iterator<Item = (PortRange, &'a V)> + use<'a, K, V, S> {
        let all = self.0.get(key).map_or(&[][..], Vec::as_slice);
        let from = all.partition_point(|(range, _)| range.last < ports.first);
        let near = all.get(from..).unwrap_or_default().iter();
        near.take_while(move |(range, _)| range.first <= ports.last)
            .map(|(range, value)| (*range, value))
    }
}

impl<K, V, S: Default> Default for PortMap<K, V, S> {
    fn default() -> Self {
        Self(HashMap::default())
    }
}

impl<K: Hash + Eq, V, S: BuildHasher + Default> FromIterator<(K, PortRange, V)> for PortMap<K, V, S> {
    fn from_iter<T: IntoIterator<Item = (K, PortRange, V)>>(all: T) -> Self {
        let mut map = HashMap::<K, Vec<_>, S>::default();
        for (key, ports, value) in all {
            map.entry(key).or_default().push((ports, value));
        }
        for ranges in map.values_mut() {
            ranges.sort_by_key(|(range, _)| *range);
        }
        Self(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn range(first: u16, last: u16) -> PortRange {
        PortRange { first, last }
    }

    #[test]
    fn a_port_is_found_in_its_range_and_nowhere_else() {
        let all = [
            ("a", range(20, 29), 'y'),
            ("a", range(10, 10), 'x'),
            ("a", range(30, 39), 'z'),
            ("b", range(15, 15), 'w'),
        ];
        let map: PortMap<_, _> = all.into_iter().collect();
        for (port, found) in [
            (9, None),
            (10, Some('x')),
            (11, None),
            (19, None),
            (20, Some('y')),
            (29, Some('y')),
            (30, Some('z')),
            (40, None),
        ] {
            assert_eq!(map.at(&"a", port).copied(), found, "{port}");
        }
        assert_eq!(map.at(&"c", 10), None);
        let over = |first, last| {
            let found = map.overlapping(&"a", range(first, last));
            found.map(|(_, value)| *value).collect::<String>()
        };
        assert_eq!(over(0, u16::MAX), "xyz");
        assert_eq!(over(10, 20), "xy");
        assert_eq!(over(29, 30), "yz");
        assert_eq!(over(11, 19), "");
    }
}
