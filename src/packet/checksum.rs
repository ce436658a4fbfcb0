//! The Internet checksum: whole (RFC 1071) and incremental (RFC 1624, equation 3: HC' = ~(~HC + ~m + m')).

use std::net::IpAddr;

/// Folds a sum of 16-bit words to 16 bits, carries added in.
const fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + ((sum >> 16) & 0xffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    // two folds leave no carry
    sum as u16
}

/// A sum of 16-bit words in ones' complement: collects bytes, addresses and numbers in any order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// Adds bytes that start at an even place; an odd last byte is filled up with zero.
    #[must_use]
    pub fn bytes(self, bytes: &[u8]) -> Self {
        let (words, rest) = bytes.as_chunks::<4>();
        let mut sum = self.0;
        for word in words {
            // up to 2^32 words of 32 bits fit; frames are shorter by far
            sum += u64::from(u32::from_be_bytes(*word));
        }
        let mut last = [0; 4];
        for (to, from) in last.iter_mut().zip(rest) {
            *to = *from;
        }
        Self(sum + u64::from(u32::from_be_bytes(last)))
    }

    /// Adds an address.
    #[must_use]
    pub fn address(self, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => self.bytes(&address.octets()),
            IpAddr::V6(address) => self.bytes(&address.octets()),
        }
    }

    /// Adds a number.
    #[must_use]
    pub fn number(self, number: u32) -> Self {
        Self(self.0 + u64::from(number))
    }

    /// Adds the pseudo-header of a transport packet (RFC 9293 section 3.1, RFC 8200 section 8.1).
    #[must_use]
    pub fn pseudo_header(self, source: IpAddr, destination: IpAddr, protocol: u8, len: usize) -> Self {
        self.address(source)
            .address(destination)
            .number(u32::from(protocol))
            .number(u32::try_from(len).unwrap_or(u32::MAX))
    }

    /// The checksum: the complement of the sum.
    #[must_use]
    pub const fn finish(self) -> u16 {
        !fold(self.0)
    }
}

/// What changes in the words that a checksum covers: the sum of ~old + new.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Delta(u64);

impl Delta {
    /// A 16-bit word changes.
    #[must_use]
    pub const fn word(self, old: u16, new: u16) -> Self {
        if old == new {
            return self;
        }
        Self(self.0 + (!old) as u64 + new as u64)
    }

    /// An address changes. Both are of one family.
    #[must_use]
    pub fn address(self, old: IpAddr, new: IpAddr) -> Self {
        match (old, new) {
            (IpAddr::V4(old), IpAddr::V4(new)) => self.double_word(old.to_bits(), new.to_bits()),
            (IpAddr::V6(old), IpAddr::V6(new)) => {
                let (old, new) = (old.to_bits(), new.to_bits());
                (0..4).rev().fold(self, |delta, place| {
                    delta.double_word((old >> (place * 32)) as u32, (new >> (place * 32)) as u32)
                })
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => self,
        }
    }

    const fn double_word(self, old: u32, new: u32) -> Self {
        if old == new {
            return self;
        }
        Self(self.0 + (!old) as u64 + new as u64)
    }

    /// Both changes.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// A finished checksum after the change.
    #[must_use]
    pub const fn finished(self, checksum: u16) -> u16 {
        if self.0 == 0 {
            return checksum;
        }
        !fold(self.0 + (!checksum) as u64)
    }

    /// A UDP checksum after the change: zero means none and stays; a result of zero is written as 0xffff (RFC 768).
    #[must_use]
    pub const fn finished_udp(self, checksum: u16) -> u16 {
        match (checksum, self.finished(checksum)) {
            (0, _) => 0,
            (_, 0) => 0xffff,
            (_, updated) => updated,
        }
    }

    /// An unfinished checksum (the sum of the pseudo-header, not complemented) after a change of addresses.
    #[must_use]
    pub const fn unfinished(self, sum: u16) -> u16 {
        if self.0 == 0 {
            return sum;
        }
        fold(self.0 + sum as u64)
    }
}

/// The checksum of bytes that hold zero where it is to stand; 0 of bytes that hold a right one.
#[must_use]
pub fn checksum(bytes: &[u8]) -> u16 {
    Sum::default().bytes(bytes).finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_example_of_rfc_1071_sums_up() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::default().bytes(&bytes).finish(), !0xddf2);
        assert_eq!(checksum(&bytes), !0xddf2);
    }

    #[test]
    fn the_example_of_rfc_1624_comes_out_as_zero_and_not_as_minus_zero() {
        // section 4: m = 0x5555 becomes 0x3285 under the checksum 0xdd2f
        assert_eq!(Delta::default().word(0x5555, 0x3285).finished(0xdd2f), 0x0000);
    }

    #[test]
    fn an_odd_last_byte_counts_as_the_high_one() {
        assert_eq!(Sum::default().bytes(&[0x12]).finish(), !0x1200);
        assert_eq!(Sum::default().bytes(&[0, 0, 0x12]).finish(), !0x1200);
        assert_eq!(Sum::default().bytes(&[0, 0, 0, 1, 2]).finish(), !0x0201);
    }

    #[test]
    fn no_udp_checksum_stays_none_and_a_zero_is_written_as_all_ones() {
        let delta = Delta::default().word(0x5555, 0x3285);
        assert_eq!(delta.finished_udp(0), 0);
        assert_eq!(delta.finished_udp(0xdd2f), 0xffff);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn an_updated_checksum_is_that_of_the_changed_bytes(
            mut bytes in proptest::collection::vec(any::<u8>(), 4..200),
            place in any::<prop::sample::Index>(),
            new in any::<u16>(),
        ) {
            let place = place.index(bytes.len() / 2) * 2;
            let before = checksum(&bytes);
            let old = u16::from_be_bytes([bytes[place], bytes[place + 1]]);
            bytes[place..place + 2].copy_from_slice(&new.to_be_bytes());
            prop_assume!(bytes.iter().any(|byte| *byte != 0));
            prop_assume!(before != 0xffff);
            prop_assert_eq!(Delta::default().word(old, new).finished(before), checksum(&bytes));
        }

        #[test]
        fn addresses_change_a_checksum_as_their_bytes_do(old in any::<[u8; 16]>(), new in any::<[u8; 16]>(), rest in 1..=u16::MAX) {
            let sum = |address: [u8; 16]| Sum::default().address(IpAddr::from(address)).number(u32::from(rest));
            let delta = Delta::default().address(IpAddr::from(old), IpAddr::from(new));
            prop_assert_eq!(delta.finished(sum(old).finish()), sum(new).finish());
            prop_assert_eq!(delta.unfinished(!sum(old).finish()), !sum(new).finish());
        }
    }
}
