//! The class of a packet in the field that routers treat it by (RFC 2474): six bits of TOS (IPv4) or traffic class (IPv6).

use std::fmt;

/// A code point, 0 to 63.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Dscp(u8);

/// The registered names (IANA, "Differentiated Services Field Codepoints"), in small letters as tc, nft and iptables have them.
const NAMES: [(&str, u8); 23] = [
    ("cs0", 0),
    ("le", 1),
    ("cs1", 8),
    ("af11", 10),
    ("af12", 12),
    ("af13", 14),
    ("cs2", 16),
    ("af21", 18),
    ("af22", 20),
    ("af23", 22),
    ("cs3", 24),
    ("af31", 26),
    ("af32", 28),
    ("af33", 30),
    ("cs4", 32),
    ("af41", 34),
    ("af42", 36),
    ("af43", 38),
    ("cs5", 40),
    ("va", 44),
    ("ef", 46),
    ("cs6", 48),
    ("cs7", 56),
];

impl Dscp {
    /// The highest number.
    pub const MAX: u8 = 63;

    /// What packets have that nobody has given a class.
    pub const BEST_EFFORT: Self = Self(0);

    /// The one of this number; `None` above [`MAX`](Self::MAX).
    #[must_use]
    pub const fn new(number: u8) -> Option<Self> {
        if number <= Self::MAX {
            Some(Self(number))
        } else {
            None
        }
    }

    /// The one of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let (_, number) = NAMES.iter().find(|(own, _)| own.eq_ignore_ascii_case(name))?;
        Some(Self(*number))
    }

    /// Every name.
    pub fn names() -> impl Iterator<Item = &'static str> {
        NAMES.iter().map(|(name, _)| *name)
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }

    /// Its name, if it has one.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        NAMES
            .iter()
            .find(|(_, number)| *number == self.0)
            .map(|(name, _)| *name)
    }

    /// The byte that it is in, with nothing in the two bits of ECN.
    #[must_use]
    pub const fn tos(self) -> u8 {
        self.0 << 2
    }
}

impl fmt::Display for Dscp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => self.0.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_stands_for_its_number_and_no_number_has_two() {
        for (name, number) in NAMES {
            let of_name = Dscp::named(name).unwrap();
            assert_eq!(of_name.number(), number);
            assert_eq!(of_name.to_string(), name);
        }
        for class in 0..8 {
            assert_eq!(Dscp::named(&format!("CS{class}")), Dscp::new(8 * class));
        }
        for (class, precedence) in
            (1..=4).flat_map(|class| (1..=3).map(move |precedence| (class, precedence)))
        {
            let number = 8 * class + 2 * precedence;
            assert_eq!(Dscp::named(&format!("af{class}{precedence}")), Dscp::new(number));
        }
    }

    #[test]
    fn a_code_point_has_six_bits_above_those_of_ecn() {
        assert_eq!(Dscp::named("ef").map(Dscp::tos), Some(0xb8));
        assert_eq!(Dscp::new(63).map(Dscp::tos), Some(0b1111_1100));
        assert_eq!(Dscp::new(64), None);
        assert_eq!(Dscp::named("af14"), None);
    }
}
