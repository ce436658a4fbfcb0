//! The hash that maps clients to servers: the published one, or one of a secret seed that nobody outside can aim at.
//!
//! Whoever knows the hash finds addresses and ports whose connections all fall to one server. With a seed it is
//! SipHash-2-4 (Aumasson and Bernstein: SipHash: A Fast Short-Input PRF, INDOCRYPT 2012) under a key made of the seed;
//! the published hash with a seed mixed in would not do, for inputs that collide in FNV-1a can be found for all of its
//! initial states that agree in their low byte.

use std::net::{IpAddr, SocketAddr};

use super::hash::{client_hash, flow_hash, name_hash};
use crate::config::HashSeed;

/// What makes the hash of clients and servers one's own. Load balancers with equal keys choose alike.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct HashKey(Option<[u64; 2]>);

impl std::fmt::Debug for HashKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // not the key
        f.write_str(if self.0.is_some() { "secret" } else { "published" })
    }
}

/// Longest input of a hash in bytes, besides names: two IPv6 addresses with ports.
const MAX_FLOW_BYTES: usize = 2 * (16 + 2);

/// Keeps the two halves of a key apart.
const HALVES: [[u64; 2]; 2] = [
    [0x636f_6e76_6579_2031, 0x6861_7368_5f73_6565],
    [0x636f_6e76_6579_2032, 0x6861_7368_5f73_6565],
];

impl HashKey {
    /// The key of a seed; without one the published hash, which is the same on every load balancer.
    #[must_use]
    pub fn of(seed: Option<&HashSeed>) -> Self {
        Self(seed.map(|seed| HALVES.map(|half| siphash(half, seed.0.as_bytes()))))
    }

    /// The two halves of the SipHash key; `None`: the hash is the published one.
    #[must_use]
    pub const fn secret(self) -> Option<[u64; 2]> {
        self.0
    }

    /// Hash of a server's name; other purposes give independent hashes.
    pub(super) fn name(self, name: &str, purpose: u64) -> u64 {
        match self.0 {
            None => name_hash(name, purpose),
            Some([first, second]) => siphash([first ^ purpose, second], name.as_bytes()),
        }
    }

    /// Hash of a client: its IP address without the port, for [`Pick::client_hash`](super::Pick).
    pub(super) fn client(self, ip: IpAddr) -> u64 {
        match self.0 {
            None => client_hash(ip),
            Some(key) => Bytes::default().ip(ip).hash(key),
        }
    }

    /// Hash of a flow: both addresses and ports, for [`Pick::flow_hash`](super::Pick).
    pub(super) fn flow(self, client: SocketAddr, listen: SocketAddr) -> u64 {
        match self.0 {
            None => flow_hash(client, listen),
            Some(key) => Bytes::default().socket(client).socket(listen).hash(key),
        }
    }
}

/// Bytes to be hashed.
#[derive(Default)]
struct Bytes {
    // an array of 36 has no default
    of: [[u8; 18]; MAX_FLOW_BYTES / 18],
    len: usize,
}

impl Bytes {
    fn add(mut self, bytes: &[u8]) -> Self {
        let free = self.of.as_flattened_mut().iter_mut().skip(self.len);
        free.zip(bytes).for_each(|(to, from)| *to = *from);
        self.len += bytes.len();
        self
    }

    fn ip(self, ip: IpAddr) -> Self {
        // an IPv4 client of a dual-stack listener is the same client
        match ip.to_canonical() {
            IpAddr::V4(ip) => self.add(&ip.octets()),
            IpAddr::V6(ip) => self.add(&ip.octets()),
        }
    }

    fn socket(self, addr: SocketAddr) -> Self {
        self.ip(addr.ip()).add(&addr.port().to_be_bytes())
    }

    fn hash(&self, key: [u64; 2]) -> u64 {
        let all = self.of.as_flattened();
        siphash(key, all.get(..self.len).unwrap_or(all))
    }
}

/// SipHash-2-4 of bytes.
fn siphash([k0, k1]: [u64; 2], bytes: &[u8]) -> u64 {
    let mut state = [
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ];
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        take_in(&mut state, u64::from_le_bytes(*word));
    }
    let mut last = [0; 8];
    last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    // the length modulo 256 is what the algorithm wants
    last[7] = bytes.len() as u8;
    take_in(&mut state, u64::from_le_bytes(last));
    state[2] ^= 0xff;
    (0..4).for_each(|_| round(&mut state));
    state[0] ^ state[1] ^ state[2] ^ state[3]
}

fn take_in(state: &mut [u64; 4], word: u64) {
    state[3] ^= word;
    round(state);
    round(state);
    state[0] ^= word;
}

fn round([v0, v1, v2, v3]: &mut [u64; 4]) {
    *v0 = v0.wrapping_add(*v1);
    *v1 = v1.rotate_left(13) ^ *v0;
    *v0 = v0.rotate_left(32);
    *v2 = v2.wrapping_add(*v3);
    *v3 = v3.rotate_left(16) ^ *v2;
    *v0 = v0.wrapping_add(*v3);
    *v3 = v3.rotate_left(21) ^ *v0;
    *v2 = v2.wrapping_add(*v1);
    *v1 = v1.rotate_left(17) ^ *v2;
    *v2 = v2.rotate_left(32);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The key of the paper's test vectors, 00 01 … 0f.
    const KEY: [u64; 2] = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];

    fn key(seed: &str) -> HashKey {
        HashKey::of(Some(&HashSeed(seed.to_owned())))
    }

    #[test]
    fn siphash_gives_the_published_values() {
        let bytes: Vec<u8> = (0..15).collect();
        // appendix A of the paper, and the first of the vectors of its reference implementation
        assert_eq!(siphash(KEY, &bytes), 0xa129_ca61_49be_45e5);
        assert_eq!(siphash(KEY, &[]), 0x726f_db47_dd0e_0e31);
    }

    #[test]
    fn without_a_seed_the_hashes_are_the_published_ones() {
        let (client, listen) = (addr("192.0.2.1:40000"), addr("198.51.100.1:80"));
        let none = HashKey::of(None);
        assert_eq!(none.client(client.ip()), client_hash(client.ip()));
        assert_eq!(none.flow(client, listen), flow_hash(client, listen));
        assert_eq!(none.name("web1", 7), name_hash("web1", 7));
        assert_eq!(none, HashKey::default());
    }

    #[test]
    fn hashes_of_a_seed_never_change_between_versions_or_machines() {
        let key = key("correct horse battery staple");
        let (client, listen) = (addr("192.0.2.1:40000"), addr("198.51.100.1:80"));
        let got = [
            key.client(client.ip()),
            key.flow(client, listen),
            key.name("web1", 1),
        ];
        assert_eq!(
            got, PINNED,
            "two versions in one cluster would choose differently: {got:x?}"
        );
    }

    // computed independently with Python's integers from the definitions above
    const PINNED: [u64; 3] = [
        0xbc02_7c88_fdbe_9aeb,
        0xeda9_7065_21b8_4c2d,
        0x9515_bb0a_9a52_20a2,
    ];

    #[test]
    fn an_ipv4_client_of_a_dual_stack_listener_is_the_same_client() {
        let key = key("seed");
        let (v4, mapped) = (addr("192.0.2.1:7"), addr("[::ffff:192.0.2.1]:7"));
        assert_eq!(key.client(v4.ip()), key.client(mapped.ip()));
        assert_eq!(key.flow(v4, v4), key.flow(mapped, mapped));
    }

    #[test]
    fn a_key_is_not_shown() {
        assert_eq!(
            format!("{:?} {:?}", key("hunter2"), HashKey::default()),
            "secret published"
        );
    }

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn any_addr() -> impl Strategy<Value = SocketAddr> {
        (any::<IpAddr>(), any::<u16>()).prop_map(SocketAddr::from)
    }

    proptest! {
        #[test]
        fn equal_seeds_hash_alike_and_different_ones_do_not(
            seed in ".{1,64}",
            other in ".{1,64}",
            client in any_addr(),
            listen in any_addr(),
        ) {
            let hashes = |key: HashKey| {
                [key.client(client.ip()), key.flow(client, listen), key.name("web1", 1), key.name("web1", 2)]
            };
            let all = hashes(key(&seed));
            prop_assert_eq!(all, hashes(key(&seed)));
            prop_assert_ne!(all[2], all[3]);
            if seed != other {
                for (one, another) in all.iter().zip(hashes(key(&other))) {
                    prop_assert_ne!(*one, another);
                }
            }
            for (one, published) in all.iter().zip(hashes(HashKey::default())) {
                prop_assert_ne!(*one, published);
            }
        }
    }
}
