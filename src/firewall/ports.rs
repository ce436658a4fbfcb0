//! Sets of ports as `net.ipv4.ip_local_reserved_ports` writes them, and how many ephemeral ports are left. Pure.

use std::{collections::BTreeSet, fmt, str::FromStr};

use crate::base::{PortRange, PortRanges};

/// With fewer ephemeral ports than this a host must not be left: 0.3.5 left 1,000, and its 1,001st health check or
/// proxied connection to one server failed.
pub const FEWEST_EPHEMERAL: u32 = 4_096;
/// With fewer than this the operator is warned.
pub const FEW_EPHEMERAL: u32 = 8_192;

/// Lowest NAT port that is taken without being named: below it are services of their own.
const LOWEST_BY_DEFAULT: u16 = 10_000;
/// With fewer NAT ports than this a server is soon without one.
const FEWEST_NAT_PORTS: u32 = 4_096;
/// The node ports of Kubernetes (`--service-node-port-range` of kube-apiserver), which kube-proxy takes packets to.
const NODE_PORTS: PortRange = PortRange {
    first: 30_000,
    last: 32_767,
};

/// A set of ports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortSet(BTreeSet<u16>);

impl PortSet {
    /// Every port of these ranges.
    pub fn of(ranges: impl IntoIterator<Item = PortRange>) -> Self {
        Self(
            ranges
                .into_iter()
                .flat_map(|range| range.first..=range.last)
                .collect(),
        )
    }

    /// Ports of either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        Self(self.0.union(&other.0).copied().collect())
    }

    /// Ports of this one that are not of the other.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        Self(self.0.difference(&other.0).copied().collect())
    }

    /// Ports of both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        Self(self.0.intersection(&other.0).copied().collect())
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }

    fn ranges(&self) -> Vec<(u16, u16)> {
        let mut ranges: Vec<(u16, u16)> = Vec::new();
        for &port in &self.0 {
            match ranges.last_mut() {
                Some((_, last)) if last.checked_add(1) == Some(port) => *last = port,
                _ => ranges.push((port, port)),
            }
        }
        ranges
    }
}

impl fmt::Display for PortSet {
    /// As the kernel prints it: ranges with a dash, separated by commas; nothing for the empty set.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (first, last)) in self.ranges().into_iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            if first == last {
                write!(f, "{comma}{first}")?;
            } else {
                write!(f, "{comma}{first}-{last}")?;
            }
        }
        Ok(())
    }
}

/// A text that is no set of ports.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a valid list of ports such as \"8080,9000-9100\"")]
pub struct NotPorts(String);

impl FromStr for PortSet {
    type Err = NotPorts;

    fn from_str(text: &str) -> Result<Self, NotPorts> {
        let port = |number: &str| number.parse::<u16>().map_err(|_| NotPorts(text.to_owned()));
        let mut ports = BTreeSet::new();
        for part in text.trim().split(',').filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (port(first)?, port(last)?);
            if first > last {
                return Err(NotPorts(text.to_owned()));
            }
            ports.extend(first..=last);
        }
        Ok(Self(ports))
    }
}

/// The NAT ports of a host unless its file says otherwise: every port from 10000 that is neither ephemeral (`local`) nor
/// reserved by others, nor a node port beside kube-proxy; of many pieces the largest. Where too few remain, the stock list,
/// which is then to be reserved.
#[must_use]
pub fn default_nat_ports(local: PortRange, reserved: &PortSet, has_kube_proxy: bool) -> PortRanges {
    let node_ports = PortSet::of(has_kube_proxy.then_some(NODE_PORTS));
    let candidates = PortSet::of([PortRange {
        first: LOWEST_BY_DEFAULT,
        last: u16::MAX,
    }]);
    let free = candidates.without(&PortSet::of([local])).without(reserved);
    largest(&free.without(&node_ports))
        .filter(|ranges| ranges.len() >= FEWEST_NAT_PORTS)
        .or_else(|| largest(&PortSet::of(PortRanges::STOCK.iter()).without(&node_ports)))
        .unwrap_or(PortRanges::STOCK)
}

/// As many pieces of a set as ranges may be, the largest ones.
fn largest(ports: &PortSet) -> Option<PortRanges> {
    let mut pieces: Vec<PortRange> = (ports.ranges().into_iter())
        .map(|(first, last)| PortRange { first, last })
        .collect();
    pieces.sort_by_key(|piece| std::cmp::Reverse(piece.len()));
    pieces.truncate(PortRanges::MOST);
    PortRanges::new(pieces)
}

/// How many ephemeral ports the NAT ports leave to the host's own connections (the proxy's and health checks' too).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ephemeral {
    /// At least [`FEW_EPHEMERAL`], or the NAT ports take none of them away.
    Enough(u32),
    /// Fewer than [`FEW_EPHEMERAL`]: a warning.
    Few(u32),
    /// Fewer than [`FEWEST_EPHEMERAL`]: refused.
    TooFew(u32),
}

/// Judges NAT ports. `local` is `ip_local_port_range`; `reserved` are the ports that others reserved (without what we
/// added ourselves).
#[must_use]
pub fn ephemeral_left(local: PortRange, reserved: &PortSet, nat: PortRanges) -> Ephemeral {
    let others_leave = PortSet::of([local]).without(reserved);
    let left = others_leave.without(&PortSet::of(nat.iter())).len();
    if left == others_leave.len() || left >= FEW_EPHEMERAL {
        Ephemeral::Enough(left)
    } else if left >= FEWEST_EPHEMERAL {
        Ephemeral::Few(left)
    } else {
        Ephemeral::TooFew(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> PortSet {
        text.parse().unwrap()
    }

    const fn range(first: u16, last: u16) -> PortRange {
        PortRange { first, last }
    }

    #[test]
    fn sets_are_read_and_written_as_the_kernel_does() {
        for text in ["", "80", "80,82", "61000-65535", "0-1,8080,9000-9100,65535"] {
            assert_eq!(set(text).to_string(), text);
        }
        assert_eq!(set("3,1-2,2\n").to_string(), "1-3");
        for text in ["x", "1-", "-2", "65536", "9-8", "1 2"] {
            assert!(text.parse::<PortSet>().is_err(), "{text}");
        }
    }

    #[test]
    fn union_difference_and_intersection() {
        assert_eq!(set("1-5").union(&set("4-9")), set("1-9"));
        assert_eq!(set("1-9").without(&set("4-5,9")), set("1-3,6-8"));
        assert_eq!(set("1-9").intersection(&set("8-20")), set("8-9"));
        assert_eq!(PortSet::of([range(0, 65_535)]).len(), 65_536);
    }

    #[test]
    fn the_default_is_every_port_from_10000_that_is_neither_ephemeral_nor_reserved() {
        let default = |local, reserved| default_nat_ports(local, &set(reserved), false).to_string();
        assert_eq!(default(range(32_768, 60_999), ""), "10000-32767,61000-65535");
        assert_eq!(
            default(range(20_000, 29_999), "61000,65535"),
            "10000-19999,30000-60999,61001-65534"
        );
    }

    #[test]
    fn where_too_few_ports_remain_the_default_is_the_stock_list() {
        for (local, reserved) in [
            (range(1_024, 65_535), ""),
            (range(10_000, 65_000), ""),
            (range(32_768, 60_999), "10000-62000"),
        ] {
            assert_eq!(
                default_nat_ports(local, &set(reserved), false),
                PortRanges::STOCK,
                "{local} {reserved}"
            );
        }
    }

    #[test]
    fn beside_kube_proxy_no_node_port_is_taken() {
        let default = |local| default_nat_ports(local, &set(""), true).to_string();
        assert_eq!(default(range(32_768, 60_999)), "10000-29999,61000-65535");
        assert_eq!(
            default(range(1_024, 65_535)),
            "10000-29999,61000-65535",
            "the stock list neither"
        );
    }

    #[test]
    fn of_more_pieces_than_there_may_be_ranges_the_largest_are_taken() {
        let holes = "11000,12000,13000,14000,15000,16000,17000,18000,19000,20000";
        let ports = default_nat_ports(range(32_768, 60_999), &set(holes), false);
        assert_eq!(ports.iter().count(), PortRanges::MOST);
        assert!(ports.contains(25_000) && ports.contains(65_535));
    }

    #[test]
    fn the_default_range_takes_no_ephemeral_port() {
        let local = range(32_768, 60_999);
        assert_eq!(
            ephemeral_left(local, &set(""), range(61_000, 65_535).into()),
            Ephemeral::Enough(28_232)
        );
    }

    #[test]
    fn a_large_nat_range_is_warned_about_below_8192_and_refused_below_4096_ephemeral_ports() {
        let local = range(32_768, 60_999);
        let nat = |left: u16| range(32_768 + left, 65_535);
        for (left, judged) in [
            (8_192, Ephemeral::Enough(8_192)),
            (8_191, Ephemeral::Few(8_191)),
            (4_096, Ephemeral::Few(4_096)),
            (4_095, Ephemeral::TooFew(4_095)),
            (0, Ephemeral::TooFew(0)),
        ] {
            assert_eq!(ephemeral_left(local, &set(""), nat(left).into()), judged);
        }
    }

    #[test]
    fn ports_that_the_administrator_reserved_count_as_gone() {
        let judged = ephemeral_left(
            range(32_768, 60_999),
            &set("40000-49999"),
            range(50_000, 65_535).into(),
        );
        assert_eq!(judged, Ephemeral::Few(7_232));
    }

    #[test]
    fn a_host_that_has_few_anyway_is_not_our_doing() {
        let judged = ephemeral_left(range(50_000, 50_999), &set(""), range(61_000, 65_535).into());
        assert_eq!(judged, Ephemeral::Enough(1_000));
    }
}
