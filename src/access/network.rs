//! One network: an address and the length of its prefix.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// A network such as 10.0.0.0/8 or 2001:db8::/32; a single address is one with the longest prefix. No bit is set after
/// the prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Network {
    first: IpAddr,
    prefix: u8,
}

/// Why a text is not a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// It has another form.
    #[error("it is not an IP address or network, such as 10.0.0.0/8 or 2001:db8::/32")]
    Form,
    /// The prefix is longer than the address.
    #[error("the prefix must be from 0 to {0}")]
    Prefix(u8),
    /// There are bits after the prefix: a slip in one of the two.
    #[error("it has bits set after its prefix; the network is {0}")]
    HostBits(Network),
    /// An IPv4 address in the form of an IPv6 one: clients are looked up by the IPv4 one.
    #[error("it is an IPv4 address in IPv6 form; write it as IPv4")]
    Mapped,
}

impl Network {
    /// The network of an address with a prefix so long; bits after it are cleared, and a prefix longer than the address
    /// is the whole address.
    #[must_use]
    pub fn of(address: IpAddr, prefix: u8) -> Self {
        match address {
            IpAddr::V4(ip) => {
                let prefix = prefix.min(32);
                let first = Ipv4Addr::from_bits(ip.to_bits() & mask4(prefix)).into();
                Self { first, prefix }
            }
            IpAddr::V6(ip) => {
                let prefix = prefix.min(128);
                let first = Ipv6Addr::from_bits(ip.to_bits() & mask6(prefix)).into();
                Self { first, prefix }
            }
        }
    }

    /// Its first address.
    #[must_use]
    pub const fn first(self) -> IpAddr {
        self.first
    }

    /// How many bits of an address it fixes.
    #[must_use]
    pub const fn prefix(self) -> u8 {
        self.prefix
    }

    /// Whether it has an address.
    #[must_use]
    pub fn has(self, address: IpAddr) -> bool {
        (self.first..=self.last()).contains(&address)
    }

    /// Its last address.
    #[must_use]
    pub fn last(self) -> IpAddr {
        match self.first {
            IpAddr::V4(ip) => Ipv4Addr::from_bits(ip.to_bits() | !mask4(self.prefix)).into(),
            IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() | !mask6(self.prefix)).into(),
        }
    }
}

/// The first `prefix` of 32 bits.
const fn mask4(prefix: u8) -> u32 {
    match u32::MAX.checked_shl(32 - prefix as u32) {
        Some(mask) => mask,
        None => 0,
    }
}

/// The first `prefix` of 128 bits.
const fn mask6(prefix: u8) -> u128 {
    match u128::MAX.checked_shl(128 - prefix as u32) {
        Some(mask) => mask,
        None => 0,
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NetworkError::Form)?;
        if let IpAddr::V6(ip) = address
            && ip.to_ipv4_mapped().is_some()
        {
            return Err(NetworkError::Mapped);
        }
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => longest,
            Some(digits) if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) => {
                return Err(NetworkError::Form);
            }
            Some(digits) => digits
                .parse()
                .ok()
                .filter(|prefix| *prefix <= longest)
                .ok_or(NetworkError::Prefix(longest))?,
        };
        let network = Self::of(address, prefix);
        if network.first == address {
            Ok(network)
        } else {
            Err(NetworkError::HostBits(network))
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_address = self.prefix == if self.first.is_ipv4() { 32 } else { 128 };
        if is_address {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}/{}", self.first, self.prefix)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    #[test]
    fn a_network_is_printed_as_it_is_read() {
        for text in [
            "10.0.0.0/8",
            "0.0.0.0/0",
            "192.0.2.1",
            "2001:db8::/32",
            "::/0",
            "2001:db8::1",
        ] {
            assert_eq!(network(text).to_string(), text);
        }
        assert_eq!(network("192.0.2.1/32").to_string(), "192.0.2.1");
    }

    #[test]
    fn a_network_ends_at_its_last_address() {
        let last = |text: &str| network(text).last().to_string();
        assert_eq!(last("10.0.0.0/8"), "10.255.255.255");
        assert_eq!(last("0.0.0.0/0"), "255.255.255.255");
        assert_eq!(last("192.0.2.1"), "192.0.2.1");
        assert_eq!(last("2001:db8::/32"), "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff");
    }

    #[test]
    fn what_is_no_network_is_told_why() {
        let why = |text: &str| text.parse::<Network>().unwrap_err().to_string();
        assert_eq!(
            why("10.1.0.0/8"),
            "it has bits set after its prefix; the network is 10.0.0.0/8"
        );
        assert_eq!(why("10.0.0.0/33"), "the prefix must be from 0 to 32");
        assert_eq!(why("2001:db8::/129"), "the prefix must be from 0 to 128");
        assert!(why("::ffff:10.0.0.1").contains("write it as IPv4"));
        for text in [
            "",
            "10.0.0",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0.0/8/8",
            "all",
            "010.0.0.1",
        ] {
            assert_eq!(text.parse::<Network>(), Err(NetworkError::Form), "{text:?}");
        }
    }
}
