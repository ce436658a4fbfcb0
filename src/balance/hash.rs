//! Hashes that are equal on every machine and in every version, so that two load balancers choose alike.
//!
//! FNV-1a, 64 bits (Fowler, Noll, Vo; IETF draft-eastlake-fnv) collects the bytes; the finaliser of SplitMix64
//! (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014; constants "Mix13" of D. Stafford)
//! spreads them, because the high bits of FNV-1a hardly depend on the last bytes. There is no secret key: a client
//! that may choose its address can choose its server. Where that matters, `hash_seed` makes them those of
//! [`HashKey`](super::HashKey).

use std::net::{IpAddr, SocketAddr};

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;
const GOLDEN_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// Continues an FNV-1a hash over more bytes.
fn fnv1a(mut hash: u64, bytes: &[u8]) -> u64 {
    for byte in bytes {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME);
    }
    hash
}

/// Spreads every bit of a number over all bits; a bijection.
#[inline]
#[must_use]
pub const fn mix64(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Hash of a server's name; other seeds give independent hashes.
#[must_use]
pub fn name_hash(name: &str, seed: u64) -> u64 {
    mix64(fnv1a(FNV_OFFSET, name.as_bytes()) ^ seed)
}

fn add_ip(hash: u64, ip: IpAddr) -> u64 {
    // an IPv4 client of a dual-stack listener is the same client
    match ip.to_canonical() {
        IpAddr::V4(ip) => fnv1a(hash, &ip.octets()),
        IpAddr::V6(ip) => fnv1a(hash, &ip.octets()),
    }
}

/// Hash of a client: its IP address without the port.
pub(super) fn client_hash(ip: IpAddr) -> u64 {
    mix64(add_ip(FNV_OFFSET, ip))
}

/// Hash of a flow: both addresses and ports.
pub(super) fn flow_hash(client: SocketAddr, listen: SocketAddr) -> u64 {
    let mut hash = FNV_OFFSET;
    for addr in [client, listen] {
        hash = add_ip(hash, addr.ip());
        hash = fnv1a(hash, &addr.port().to_be_bytes());
    }
    mix64(hash)
}

/// The SplitMix64 generator: good enough to spread load and jitter, not for secrets. The seed is the caller's.
#[derive(Debug, Clone)]
pub struct SplitMix64(u64);

impl SplitMix64 {
    /// A generator that starts from any number.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 random bits.
    #[inline]
    pub const fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN_GAMMA);
        mix64(self.0)
    }
}

/// Maps 64 random bits to a number below `limit` (0 if that is 0) by multiplication (D. Lemire: Fast Random Integer
/// Generation in an Interval, 2019, without the rejection: the bias is below limit / 2^64).
#[inline]
#[must_use]
pub const fn below(random: u64, limit: u64) -> u64 {
    // the product of two u64 shifted right by 64 fits again
    ((random as u128 * limit as u128) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fnv1a_gives_the_published_values() {
        // draft-eastlake-fnv, appendix C
        assert_eq!(fnv1a(FNV_OFFSET, b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(FNV_OFFSET, b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(FNV_OFFSET, b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn splitmix64_gives_the_published_sequence() {
        let mut random = SplitMix64::new(1_234_567);
        let got: Vec<u64> = (0..5).map(|_| random.next_u64()).collect();
        assert_eq!(
            got,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423,
                4_593_380_528_125_082_431,
                16_408_922_859_458_223_821,
            ]
        );
    }

    #[test]
    fn below_covers_its_range_and_nothing_else() {
        assert_eq!(below(0, 7), 0);
        assert_eq!(below(u64::MAX, 7), 6);
        assert_eq!(below(u64::MAX, 0), 0);
        assert_eq!(below(1 << 63, 10), 5);
    }

    #[test]
    fn an_ipv4_client_of_a_dual_stack_listener_is_the_same_client() {
        let v4: IpAddr = "192.0.2.1".parse().unwrap();
        let mapped: IpAddr = "::ffff:192.0.2.1".parse().unwrap();
        assert_eq!(client_hash(v4), client_hash(mapped));
    }

    #[test]
    fn these_hashes_never_change_between_versions_or_machines() {
        // computed independently with Python's integers from the definitions above
        assert_eq!(client_hash("192.0.2.1".parse().unwrap()), CLIENT_V4);
        assert_eq!(client_hash("2001:db8::1".parse().unwrap()), CLIENT_V6);
        let client = "192.0.2.1:40000".parse().unwrap();
        let listen = "198.51.100.1:80".parse().unwrap();
        assert_eq!(flow_hash(client, listen), FLOW_V4);
        assert_eq!(name_hash("web1", 1), NAME);
    }

    const CLIENT_V4: u64 = 0x1e00_e9a1_2f82_49cb;
    const CLIENT_V6: u64 = 0x216d_ba65_aa6c_0c57;
    const FLOW_V4: u64 = 0xbf3a_7335_5055_d712;
    const NAME: u64 = 0xd814_7d03_7cf1_643b;

    #[test]
    fn ports_count_in_a_flow_and_not_in_a_client() {
        let listen = "198.51.100.1:80".parse().unwrap();
        let flow = |addr: &str| flow_hash(addr.parse().unwrap(), listen);
        assert_ne!(flow("192.0.2.1:40000"), flow("192.0.2.1:40001"));
        assert_ne!(flow("192.0.2.1:40000"), flow("192.0.2.2:40000"));
    }
}
