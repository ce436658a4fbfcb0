//! Source hash: weighted rendezvous hashing of the client's IP address (Thaler and Ravishankar: Using Name-Based
//! Mappings to Increase Hit Rates, 1998; weights as Schindelhauer and Schomaker: Weighted Distributed Hash Tables,
//! 2005). Client and server are hashed together to u in (0, 1); the server with the least -log(u) / weight wins. A
//! server's draw depends on no other server, so removing one moves its clients only, and changing a weight moves
//! clients only to or from that server.
//!
//! All in integers, so that every machine chooses alike; logarithms of floating-point numbers are not the same in
//! every libm.

use super::{Candidate, HashKey, Pick, hash::mix64};

/// Keeps these hashes apart from Maglev's of the same names.
const PURPOSE: u64 = 0x736f_7572_6365_2031;

#[derive(Debug)]
pub(super) struct SourceHash {
    /// Each server's weight and the hash of its name.
    servers: Box<[(u32, u64)]>,
}

impl SourceHash {
    pub(super) fn new(candidates: &[Candidate], key: HashKey) -> Self {
        Self {
            servers: candidates
                .iter()
                .map(|c| (c.weight, key.name(c.name.as_str(), PURPOSE)))
                .collect(),
        }
    }

    pub(super) fn pick(&self, pick: &Pick<'_>) -> Option<usize> {
        let mut best: Option<(usize, u64, u64)> = None;
        for (index, &(weight, hash)) in self.servers.iter().enumerate() {
            if weight == 0 || !(pick.usable)(index) {
                continue;
            }
            let draw = neg_log2(mix64(pick.client_hash ^ hash));
            let weight = u64::from(weight);
            // draw / weight < best draw / best weight; 38 bits by 26 fit (weights are at most 65,535 units)
            if best.is_none_or(|(_, best_draw, best_weight)| {
                u128::from(draw) * u128::from(best_weight) < u128::from(best_draw) * u128::from(weight)
            }) {
                best = Some((index, draw, weight));
            }
        }
        best.map(|(index, _, _)| index)
    }
}

/// Fraction bits of the logarithms.
const FRACTION: u32 = 32;
/// The mantissa's leading bits that index the table.
const INDEX: u32 = 8;

/// log2(1 + i / 256) for i in 0..=256, in units of 2^-32.
const LOG2: [u64; (1 << INDEX) + 1] = {
    let mut table = [0; (1 << INDEX) + 1];
    let mut i = 0;
    while i < table.len() - 1 {
        // squaring doubles the logarithm: each time the square passes 2, the next binary digit is 1
        let mut x: u128 = ((1 << INDEX) + i as u128) << (63 - INDEX);
        let mut digit = 0;
        while digit < FRACTION {
            x = (x * x) >> 63;
            if x >= 1 << 64 {
                table[i] |= 1 << (FRACTION - 1 - digit);
                x >>= 1;
            }
            digit += 1;
        }
        i += 1;
    }
    table[i] = 1 << FRACTION;
    table
};

/// -log2(h / 2^64) in units of 2^-32, never increasing with h; straight lines between the table's points (off by less
/// than 3e-6, and by less than 0.1 % of small values).
fn neg_log2(h: u64) -> u64 {
    let h = h.max(1);
    let zeros = h.leading_zeros();
    let mantissa = h << zeros;
    let index = (mantissa >> (63 - INDEX)) as usize - (1 << INDEX);
    let between = (mantissa << (INDEX + 1)) >> 32;
    let (low, high) = (LOG2[index], LOG2[index + 1]);
    let fraction = low + (((high - low) * between) >> 32);
    (u64::from(zeros + 1) << FRACTION) - fraction
}

#[cfg(test)]
mod tests {
    use super::super::{
        hash::{SplitMix64, client_hash},
        testing::{Chooser, assert_follows},
    };
    use super::*;
    use crate::config::Algorithm;
    use proptest::prelude::*;
    use std::net::{IpAddr, Ipv4Addr};

    #[test]
    fn the_integer_logarithm_is_close_to_the_real_one() {
        let mut random = SplitMix64::new(1);
        for shift in (0..64).chain([0; 200]) {
            let h = (random.next_u64() >> shift).max(1);
            let real = 64.0 - (h as f64).log2();
            let ours = neg_log2(h) as f64 / f64::from(FRACTION).exp2();
            assert!((ours - real).abs() < 3e-6, "{h}: {ours} for {real}");
        }
        assert_eq!(neg_log2(1 << 63), 1 << FRACTION);
        assert_eq!(neg_log2(0), 64 << FRACTION);
        assert!(neg_log2(u64::MAX) <= 1);
    }

    #[test]
    fn one_client_always_gets_the_same_server() {
        let mut chooser = Chooser::new(Algorithm::SourceHash, &[1, 1, 1]);
        let first = chooser.pick_client(client_hash("192.0.2.7".parse().unwrap()));
        for _ in 0..10 {
            assert_eq!(
                chooser.pick_client(client_hash("192.0.2.7".parse().unwrap())),
                first
            );
        }
    }

    #[test]
    fn neighbouring_clients_spread_by_weight() {
        let mut chooser = Chooser::new(Algorithm::SourceHash, &[1, 2, 3, 4]);
        let mut counts = [0; 4];
        for host in 0..40_000 {
            let ip = IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + host));
            counts[chooser.pick_client(client_hash(ip)).unwrap()] += 1;
        }
        assert_follows(&counts, &[1.0, 2.0, 3.0, 4.0]);
    }

    proptest! {
        #[test]
        fn a_removed_server_moves_only_its_clients(
            weights in prop::collection::vec(1_u32..10, 2..10),
            removed: prop::sample::Index,
            clients in prop::collection::vec(any::<u64>(), 200),
        ) {
            let removed = removed.index(weights.len());
            let mut before = Chooser::new(Algorithm::SourceHash, &weights);
            let mut after = before.without(removed);
            let mut out = Chooser::new(Algorithm::SourceHash, &weights);
            out.unusable(removed);
            for client in clients {
                let old = before.pick_client(client).unwrap();
                // the indexes behind the removed server have moved down by one
                let new = after.pick_client(client).map(|i| if i >= removed { i + 1 } else { i });
                if old != removed {
                    prop_assert_eq!(new, Some(old));
                }
                prop_assert_eq!(out.pick_client(client), new, "unusable or removed is the same to the others");
            }
        }

        #[test]
        fn a_greater_weight_only_draws_clients_towards_its_server(
            weights in prop::collection::vec(1_u32..10, 2..10),
            raised: prop::sample::Index,
            clients in prop::collection::vec(any::<u64>(), 200),
        ) {
            let raised = raised.index(weights.len());
            let mut more = weights.clone();
            more[raised] += 3;
            let mut before = Chooser::new(Algorithm::SourceHash, &weights);
            let mut after = Chooser::new(Algorithm::SourceHash, &more);
            for client in clients {
                let (old, new) = (before.pick_client(client), after.pick_client(client));
                prop_assert!(new == old || new == Some(raised));
            }
        }
    }
}
