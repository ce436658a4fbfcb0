//! Sets of networks, of which a large one is looked up as fast as a small one.

use std::net::IpAddr;

use super::network::{Network, NetworkError};

/// Most networks of one list. A million IPv4 ones take 8 MB.
pub const MAX_NETWORKS: usize = 1 << 21;

/// Largest file of a list in bytes: so many IPv4 networks, each in its longest form, a line each.
pub const MAX_LIST_BYTES: usize = MAX_NETWORKS * 20;

/// From how many ranges on IPv4 has an index of the first 16 bits (256 KB): below, a search takes few steps anyway.
const INDEX_FROM: usize = 64;

/// Most characters of a bad line that its error repeats.
const SHOWN: usize = 60;

/// A set of addresses, as sorted ranges that neither overlap nor touch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Networks {
    v4: Vec<(u32, u32)>,
    /// Of each possible first 16 bits how many ranges begin below them, and of all; empty for few ranges.
    index4: Box<[u32]>,
    v6: Vec<(u128, u128)>,
    entries: usize,
}

/// Why a text is not a list of networks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// A line is no network.
    #[error("line {line}: \"{text}\": {error}")]
    Line {
        /// Which, from 1.
        line: usize,
        /// Its beginning.
        text: String,
        /// What is wrong with it.
        error: NetworkError,
    },
    /// There are too many.
    #[error("line {line}: it has more than {MAX_NETWORKS} networks")]
    TooMany {
        /// The first line too many, from 1.
        line: usize,
    },
}

impl Networks {
    /// Reads a list: a network or address a line; what follows `#` is a comment.
    ///
    /// # Errors
    /// The first line that is something else, or one too many.
    pub fn parse(text: &[u8]) -> Result<Self, ListError> {
        let mut networks = Vec::new();
        for (index, bytes) in text.split(|byte| *byte == b'\n').enumerate() {
            let line = index + 1;
            let content = bytes.split(|byte| *byte == b'#').next().unwrap_or_default();
            let content = content.trim_ascii();
            if content.is_empty() {
                continue;
            }
            if networks.len() == MAX_NETWORKS {
                return Err(ListError::TooMany { line });
            }
            let network = str::from_utf8(content)
                .map_err(|_| NetworkError::Form)
                .and_then(str::parse);
            networks.push(network.map_err(|error| ListError::Line {
                line,
                text: String::from_utf8_lossy(content).chars().take(SHOWN).collect(),
                error,
            })?);
        }
        Ok(networks.into_iter().collect())
    }

    /// Whether an address is in one of the networks. An IPv4 address in IPv6 form is the IPv4 address.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(ip) => self.contains4(ip.to_bits()),
            IpAddr::V6(ip) => is_in(&self.v6, ip.to_bits()),
        }
    }

    /// How many networks it was made of.
    #[must_use]
    pub const fn entries(&self) -> usize {
        self.entries
    }

    fn contains4(&self, address: u32) -> bool {
        let high = usize::try_from(address >> 16).unwrap_or(0);
        let Some([begin, end]) = self.index4.get(high..).and_then(<[u32]>::first_chunk) else {
            return is_in(&self.v4, address);
        };
        let at = |place: u32| usize::try_from(place).unwrap_or(usize::MAX);
        // the one before may reach in here from lower 16 bits
        let candidates = self.v4.get(at(*begin).saturating_sub(1)..at(*end));
        candidates.is_some_and(|ranges| is_in(ranges, address))
    }
}

impl FromIterator<Network> for Networks {
    fn from_iter<T: IntoIterator<Item = Network>>(networks: T) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        let mut entries = 0;
        for network in networks {
            entries += 1;
            match (network.first(), network.last()) {
                (IpAddr::V4(first), IpAddr::V4(last)) => v4.push((first.to_bits(), last.to_bits())),
                (first, last) => v6.push((bits6(first), bits6(last))),
            }
        }
        let v4 = merged(v4, |last| last.checked_add(1));
        let v6 = merged(v6, |last| last.checked_add(1));
        Self {
            index4: index(&v4),
            v4,
            v6,
            entries,
        }
    }
}

fn bits6(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

/// Whether one of sorted disjoint ranges has it: the last that begins at or below it is the only one that can.
fn is_in<T: Ord + Copy>(ranges: &[(T, T)], address: T) -> bool {
    let following = ranges.partition_point(|(first, _)| *first <= address);
    let candidate = following.checked_sub(1).and_then(|index| ranges.get(index));
    candidate.is_some_and(|(_, last)| address <= *last)
}

/// Sorted, with what overlaps or touches made one.
fn merged<T: Ord + Copy>(mut ranges: Vec<(T, T)>, successor: impl Fn(T) -> Option<T>) -> Vec<(T, T)> {
    ranges.sort_unstable();
    let mut out: Vec<(T, T)> = Vec::new();
    for (first, last) in ranges {
        match out.last_mut() {
            // without a successor it reaches to the end of all
            Some((_, end)) if successor(*end).is_none_or(|next| first <= next) => *end = (*end).max(last),
            _ => out.push((first, last)),
        }
    }
    out.shrink_to_fit();
    out
}

/// See [`Networks::index4`].
fn index(ranges: &[(u32, u32)]) -> Box<[u32]> {
    if ranges.len() < INDEX_FROM {
        return Box::default();
    }
    let mut below = Vec::with_capacity((1 << 16) + 1);
    let mut place = 0;
    for high in 0..=(1_u64 << 16) {
        let start = high << 16;
        while ranges
            .get(place)
            .is_some_and(|(first, _)| u64::from(*first) < start)
        {
            place += 1;
        }
        below.push(u32::try_from(place).unwrap_or(u32::MAX));
    }
    below.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn networks(text: &str) -> Networks {
        Networks::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_list_has_a_network_a_line_and_comments() {
        let list = networks("# ours\n\n10.0.0.0/8\r\n  192.0.2.1 # one host\n2001:db8::/32\n");
        assert_eq!(list.entries(), 3);
        let has = |address: &str| list.contains(address.parse().unwrap());
        assert!(has("10.1.2.3") && has("192.0.2.1") && has("2001:db8::9") && has("::ffff:10.0.0.1"));
        assert!(!has("11.0.0.0") && !has("9.255.255.255") && !has("192.0.2.2") && !has("2001:db9::"));
        assert_eq!(networks(""), Networks::default());
    }

    #[test]
    fn a_bad_line_is_named() {
        let why = |text: &[u8]| Networks::parse(text).unwrap_err().to_string();
        assert_eq!(
            why(b"10.0.0.0/8\n# good\n10.1.0.0/8 # not\n"),
            "line 3: \"10.1.0.0/8\": it has bits set after its prefix; the network is 10.0.0.0/8"
        );
        assert!(why(b"\xff\xfe").starts_with("line 1: "));
        assert!(why(&b"x".repeat(1 << 20)).len() < 200);
    }

    #[test]
    fn networks_that_touch_or_overlap_are_one_range() {
        let list = networks("10.0.0.0/9\n10.128.0.0/9\n10.2.0.0/16\n255.255.255.255\n255.255.255.254\n");
        assert_eq!(list.v4, [(0x0a00_0000, 0x0aff_ffff), (0xffff_fffe, 0xffff_ffff)]);
        let all = networks("0.0.0.0/0\n1.0.0.0/8\n::/0\n");
        assert_eq!((all.v4.as_slice(), all.v6.len()), ([(0, u32::MAX)].as_slice(), 1));
    }

    proptest! {
        /// Whether a list contains an address is what comparing it with every network says, with and without an index.
        #[test]
        fn a_list_contains_what_one_of_its_networks_does(
            // few high bits, so that networks meet
            nets in proptest::collection::vec((any::<u32>(), 12_u8..=32), 0..300),
            asked in proptest::collection::vec(any::<u32>(), 50),
            spread in prop_oneof![Just(u32::MAX), Just(0x0003_ffff), Just(0xff)],
        ) {
            let nets: Vec<Network> = nets
                .iter()
                .map(|(bits, prefix)| Network::of(IpAddr::V4((bits & spread).into()), *prefix))
                .collect();
            let list: Networks = nets.iter().copied().collect();
            let edges = nets.iter().flat_map(|net| [net.first(), net.last()]).flat_map(|edge| match edge {
                IpAddr::V4(ip) => [ip.to_bits(), ip.to_bits().wrapping_add(1), ip.to_bits().wrapping_sub(1)],
                IpAddr::V6(_) => [0; 3],
            });
            for bits in asked.iter().map(|bits| bits & spread).chain(edges) {
                let address = IpAddr::V4(bits.into());
                let truth = nets.iter().any(|net| net.first() <= address && address <= net.last());
                prop_assert_eq!(list.contains(address), truth, "{}", address);
            }
        }
    }
}
