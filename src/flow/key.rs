//! Compact addresses and 5-tuples as keys, and the seeded hash they are found by.

use std::{
    hash::{BuildHasher, Hash, Hasher},
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use crate::{
    balance::hash::{SplitMix64, mix64},
    base::Protocol,
};

/// Set in a key's tag when its addresses are IPv6 (IPv4 ones are stored mapped, and must not meet real mapped ones).
const V6: u8 = 0x80;

/// Two ends and a protocol: where a packet comes from and goes to. 37 bytes instead of the 68 of two `SocketAddr`s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    from: [u8; 16],
    to: [u8; 16],
    from_port: u16,
    to_port: u16,
    tag: u8,
}

fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

impl Key {
    /// The key of packets of a protocol from one end to the other. Both are of one family.
    pub fn new(protocol: Protocol, from: SocketAddr, to: SocketAddr) -> Self {
        let family = if from.is_ipv6() { V6 } else { 0 };
        Self {
            from: octets(from.ip()),
            to: octets(to.ip()),
            from_port: from.port(),
            to_port: to.port(),
            tag: protocol.number() | family,
        }
    }

    /// Where from.
    pub fn from(&self) -> SocketAddr {
        self.addr(self.from, self.from_port)
    }

    /// Where to.
    pub fn to(&self) -> SocketAddr {
        self.addr(self.to, self.to_port)
    }

    /// The protocol.
    pub fn protocol(&self) -> Protocol {
        if self.tag & !V6 == Protocol::Tcp.number() {
            Protocol::Tcp
        } else {
            Protocol::Udp
        }
    }

    fn addr(&self, octets: [u8; 16], port: u16) -> SocketAddr {
        let ip = Ipv6Addr::from(octets);
        let mapped = ip.to_ipv4_mapped().filter(|_| self.tag & V6 == 0);
        SocketAddr::new(mapped.map_or(IpAddr::V6(ip), IpAddr::V4), port)
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u128(u128::from_ne_bytes(self.from));
        state.write_u128(u128::from_ne_bytes(self.to));
        let ports = u64::from(self.from_port) << 16 | u64::from(self.to_port);
        state.write_u64(ports | u64::from(self.tag) << 32);
    }
}

/// A hash function that nobody outside can aim at, because its seeds are secret: folded multiplication, as in
/// wyhash (Wang Yi) and its kin, a few nanoseconds a key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seeded {
    first: u64,
    second: u64,
}

/// The high and the low half of a product, joined.
#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product >> 64) as u64 ^ product as u64 // each half fits
}

impl Seeded {
    /// A function of a seed.
    pub fn new(seed: u64) -> Self {
        let mut seeds = SplitMix64::new(seed);
        Self {
            first: seeds.next_u64(),
            // odd: a multiplier that loses nothing
            second: seeds.next_u64() | 1,
        }
    }

    /// The number of one of `count` parts (a power of two), from bits that hash maps do not look at first.
    #[inline]
    pub fn part(&self, key: &impl Hash, count: usize) -> usize {
        // the remainder fits
        (self.hash_one(key) >> 32) as usize & count.saturating_sub(1)
    }
}

impl Default for Seeded {
    fn default() -> Self {
        Self::new(0)
    }
}

impl BuildHasher for Seeded {
    type Hasher = Folded;

    #[inline]
    fn build_hasher(&self) -> Folded {
        Folded {
            state: self.first,
            multiplier: self.second,
        }
    }
}

/// A hash in the making.
#[derive(Debug)]
pub(super) struct Folded {
    state: u64,
    multiplier: u64,
}

impl Hasher for Folded {
    #[inline]
    fn write_u64(&mut self, word: u64) {
        self.state = fold(self.state ^ word, self.multiplier).wrapping_add(self.multiplier.rotate_left(32));
    }

    #[inline]
    fn write_u128(&mut self, word: u128) {
        self.write_u64(word as u64);
        self.write_u64((word >> 64) as u64);
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            for (to, from) in word.iter_mut().zip(chunk) {
                *to = *from;
            }
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    #[inline]
    fn write_u8(&mut self, byte: u8) {
        self.write_u64(u64::from(byte));
    }

    #[inline]
    fn write_u16(&mut self, word: u16) {
        self.write_u64(u64::from(word));
    }

    #[inline]
    fn write_u32(&mut self, word: u32) {
        self.write_u64(u64::from(word));
    }

    #[inline]
    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }

    #[inline]
    fn finish(&self) -> u64 {
        mix64(self.state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_key_gives_its_ends_back() {
        for (from, to) in [
            ("192.0.2.1:5", "198.51.100.1:80"),
            ("[2001:db8::1]:5", "[2001:db8::2]:80"),
            ("[::ffff:192.0.2.1]:5", "[::ffff:192.0.2.2]:80"),
        ] {
            let key = Key::new(Protocol::Udp, addr(from), addr(to));
            assert_eq!((key.from(), key.to()), (addr(from), addr(to)));
            assert_eq!(key.protocol(), Protocol::Udp);
        }
    }

    #[test]
    fn an_ipv6_packet_with_mapped_addresses_is_not_the_ipv4_flow() {
        let four = Key::new(Protocol::Tcp, addr("192.0.2.1:5"), addr("192.0.2.2:80"));
        let six = Key::new(
            Protocol::Tcp,
            addr("[::ffff:192.0.2.1]:5"),
            addr("[::ffff:192.0.2.2]:80"),
        );
        assert_ne!(four, six);
    }

    #[test]
    fn keys_that_differ_in_one_bit_spread_over_the_parts() {
        let seeded = Seeded::new(7);
        let mut counts = [0_u32; 64];
        for port in 0..6_400_u16 {
            let from = SocketAddr::from(([192, 0, 2, 1], port));
            let key = Key::new(Protocol::Tcp, from, addr("198.51.100.1:80"));
            counts[seeded.part(&key, 64)] += 1;
        }
        assert!(counts.iter().all(|count| (50..200).contains(count)), "{counts:?}");
    }

    #[test]
    fn another_seed_puts_keys_elsewhere() {
        let key = Key::new(Protocol::Tcp, addr("192.0.2.1:5"), addr("192.0.2.2:80"));
        assert_ne!(Seeded::new(1).hash_one(key), Seeded::new(2).hash_one(key));
    }
}
