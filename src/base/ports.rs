//! Ports and ranges of them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A range of ports, both ends included; never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortRange {
    /// Lowest port.
    pub first: u16,
    /// Highest port, not below `first`.
    pub last: u16,
}

/// Ranges of ports: sorted, apart from each other, one at least and [`PortRanges::MOST`] at most.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct PortRanges {
    ranges: [PortRange; Self::MOST],
    count: u8,
}

/// Stands where a list has no further range.
const NONE: PortRange = PortRange { first: 0, last: 0 };

/// A text that is no list of port ranges.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a list of port ranges such as \"10000-32767,61000-65535\"")]
pub struct NotPortRanges(String);

impl PortRange {
    /// Number of ports in it, from 1 to 65,536.
    #[must_use]
    pub const fn len(self) -> u32 {
        (self.last as u32).saturating_sub(self.first as u32) + 1
    }

    /// Never: a range has one port at least.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        false
    }

    /// Whether a port is in it.
    #[must_use]
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }

    /// Whether all ports of another range are in it.
    #[must_use]
    pub const fn covers(self, other: Self) -> bool {
        self.first <= other.first && other.last <= self.last
    }

    /// What is left of it without the ports of others, in order.
    #[must_use]
    pub fn without(self, others: impl IntoIterator<Item = Self>) -> Vec<Self> {
        let mut left = Vec::new();
        // the lowest port that is not dealt with
        let mut next = u32::from(self.first);
        for other in merged(others) {
            if let (Ok(first), Some(last)) = (u16::try_from(next), other.first.checked_sub(1)) {
                let last = last.min(self.last);
                left.extend((first <= last).then_some(Self { first, last }));
            }
            next = next.max(u32::from(other.last) + 1);
        }
        if let Some(first) = u16::try_from(next).ok().filter(|first| *first <= self.last) {
            left.push(Self {
                first,
                last: self.last,
            });
        }
        left
    }
}

/// The same ports in as few ranges as they need, in order.
#[must_use]
pub fn merged(ranges: impl IntoIterator<Item = PortRange>) -> Vec<PortRange> {
    let mut all: Vec<PortRange> = ranges.into_iter().collect();
    all.sort_unstable();
    let mut merged: Vec<PortRange> = Vec::with_capacity(all.len());
    for range in all {
        match merged.last_mut() {
            Some(before) if range.first <= before.last.saturating_add(1) => {
                before.last = before.last.max(range.last);
            }
            _ => merged.push(range),
        }
    }
    merged
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl PortRanges {
    /// Ranges, at most: each is a firewall rule for every server.
    pub const MOST: usize = 8;

    /// The NAT ports of a host with Linux's own `ip_local_port_range` (32768-60999): all others from 10000.
    pub const STOCK: Self = {
        let mut ranges = [NONE; Self::MOST];
        ranges[0] = PortRange {
            first: 10_000,
            last: 32_767,
        };
        ranges[1] = PortRange {
            first: 61_000,
            last: 65_535,
        };
        Self { ranges, count: 2 }
    };

    /// These ranges, those that meet as one; `None` if there is none, or too many.
    #[must_use]
    pub fn new(ranges: impl IntoIterator<Item = PortRange>) -> Option<Self> {
        let merged = merged(ranges);
        let mut ranges = [NONE; Self::MOST];
        let count = u8::try_from(merged.len()).ok().filter(|count| *count > 0)?;
        ranges.get_mut(..merged.len())?.copy_from_slice(&merged);
        Some(Self { ranges, count })
    }

    /// The ranges.
    pub fn iter(&self) -> impl Iterator<Item = PortRange> + Clone + use<> {
        self.ranges.into_iter().take(usize::from(self.count))
    }

    /// Number of ports, from 1 to 65,536.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.iter().map(PortRange::len).sum()
    }

    /// Never: there is one port at least.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// Whether a port is in one of them.
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        self.iter().any(|range| range.contains(port))
    }

    /// The port at a place, from 0 to [`len`](Self::len); beyond, counted from the start again.
    #[must_use]
    pub fn at(&self, place: u64) -> Option<u16> {
        let mut place = u32::try_from(place.checked_rem(u64::from(self.len()))?).ok()?;
        for range in self.iter() {
            if let Some(beyond) = place.checked_sub(range.len()) {
                place = beyond;
            } else {
                return u16::try_from(u32::from(range.first) + place).ok();
            }
        }
        None
    }
}

impl Default for PortRanges {
    /// The stock list.
    fn default() -> Self {
        Self::STOCK
    }
}

impl From<PortRange> for PortRanges {
    fn from(range: PortRange) -> Self {
        let mut ranges = [NONE; Self::MOST];
        if let Some(first) = ranges.first_mut() {
            *first = range;
        }
        Self { ranges, count: 1 }
    }
}

impl fmt::Display for PortRanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{range}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for PortRanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PortRanges {
    type Err = NotPortRanges;

    fn from_str(text: &str) -> Result<Self, NotPortRanges> {
        let wrong = || NotPortRanges(text.to_owned());
        let ranges: Vec<PortRange> = (text.split(','))
            .map(|part| {
                let (first, last) = part.split_once('-')?;
                let (first, last) = (first.parse().ok()?, last.parse().ok()?);
                (first <= last).then_some(PortRange { first, last })
            })
            .collect::<Option<_>>()
            .ok_or_else(wrong)?;
        Self::new(ranges).ok_or_else(wrong)
    }
}

impl From<PortRanges> for String {
    fn from(ranges: PortRanges) -> Self {
        ranges.to_string()
    }
}

impl TryFrom<String> for PortRanges {
    type Error = NotPortRanges;

    fn try_from(text: String) -> Result<Self, NotPortRanges> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_range_of_ports_has_both_its_ends() {
        let range = PortRange {
            first: 61_000,
            last: 65_535,
        };
        assert_eq!(range.len(), 4_536);
        assert!(range.contains(61_000) && range.contains(65_535) && !range.contains(60_999));
        assert_eq!(range.to_string(), "61000-65535");
    }

    #[test]
    fn what_is_left_of_a_range_is_what_others_do_not_have() {
        let range = |(first, last)| PortRange { first, last };
        let left = |whole, others: &[(u16, u16)]| {
            let left = range(whole).without(others.iter().copied().map(range));
            left.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
        };
        assert_eq!(left((10, 20), &[]), "10-20");
        assert_eq!(left((10, 20), &[(10, 20)]), "");
        assert_eq!(left((10, 20), &[(5, 12), (15, 15), (20, 30)]), "13-14,16-19");
        assert_eq!(left((10, 20), &[(0, 9), (21, 65_535)]), "10-20");
        assert_eq!(left((0, 65_535), &[(65_535, 65_535), (0, 0)]), "1-65534");
        assert_eq!(left((10, 20), &[(12, 14), (0, 13)]), "15-20");
    }

    #[test]
    fn the_stock_list_has_27304_ports() {
        assert_eq!(PortRanges::STOCK.to_string(), "10000-32767,61000-65535");
        assert_eq!(PortRanges::STOCK.len(), 27_304);
        assert_eq!(PortRanges::STOCK.to_string().parse(), Ok(PortRanges::STOCK));
    }

    #[test]
    fn ranges_are_sorted_and_those_that_meet_are_one() {
        let ranges = |text: &str| text.parse::<PortRanges>().map(|ranges| ranges.to_string());
        assert_eq!(ranges("30-40,10-20,21-25").as_deref(), Ok("10-25,30-40"));
        assert_eq!(ranges("10-50,20-30").as_deref(), Ok("10-50"));
        for wrong in [
            "",
            "7",
            "9-8",
            "1-2,",
            "1-70000",
            "1-1,3-3,5-5,7-7,9-9,11-11,13-13,15-15,17-17",
        ] {
            assert!(ranges(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn every_place_has_a_port_of_its_own(
            parts in prop::collection::vec((any::<u16>(), 0..300_u16), 1..8),
        ) {
            let parts = parts.into_iter().map(|(first, more)| PortRange {
                first,
                last: first.saturating_add(more),
            });
            let ranges = PortRanges::new(parts).unwrap();
            let ports: Vec<_> = (0..u64::from(ranges.len())).map(|place| ranges.at(place).unwrap()).collect();
            prop_assert!(ports.is_sorted_by(|a, b| a < b));
            prop_assert!(ports.iter().all(|port| ranges.contains(*port)));
            prop_assert_eq!(ranges.at(u64::from(ranges.len())), ports.first().copied());
        }
    }
}
