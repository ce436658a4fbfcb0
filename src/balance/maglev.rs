//! Maglev hashing (Eisenbud et al.: Maglev: A Fast and Reliable Software Network Load Balancer, NSDI 2016, section 3.4).
//!
//! Every server has its own permutation of the table's slots and takes, in turn, the next slot of it that is free.
//! A flow's hash names a slot. Weights: in each round a server gains its weight and has a turn whenever it has
//! gained as much as the heaviest server's weight, so that the shares follow the weights to within a slot or so.

use super::{Candidate, HashKey, Pick, hash::mix64};

/// Slots of the table: a prime, more than 100 times as many as servers that shall share to within 1 %.
pub const TABLE_SLOTS: usize = 65_537;

/// What names are hashed for.
const OFFSET: u64 = 0x6d61_676c_6576_2031;
const SKIP: u64 = 0x6d61_676c_6576_2032;

/// Where a server's permutation of the slots starts and how far it steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Permutation {
    /// First slot, below the number of slots.
    offset: usize,
    /// Step, from 1 to the number of slots less 1.
    skip: usize,
}

impl Permutation {
    /// The permutation that a name gives, hashed with a key, in a table of `slots` (a prime).
    fn of_name(name: &str, key: HashKey, slots: usize) -> Self {
        let slots = slots as u64;
        // both fit again: they are remainders by the number of slots
        Self {
            offset: (key.name(name, OFFSET) % slots.max(1)) as usize,
            skip: (key.name(name, SKIP) % slots.saturating_sub(1).max(1)) as usize + 1,
        }
    }
}

/// Fills a table of `slots` (a prime): for each slot the index of its server in `servers`, which are given in the order
/// of their names. Empty if no server has a weight.
fn build_table(servers: &[(Permutation, u32)], slots: usize) -> Vec<u32> {
    struct Turn {
        server: u32,
        weight: u64,
        gained: u64,
        next_slot: usize,
        skip: usize,
    }
    let heaviest = servers.iter().map(|(_, weight)| u64::from(*weight)).max();
    let Some(heaviest) = heaviest.filter(|heaviest| *heaviest > 0) else {
        return Vec::new();
    };
    let mut turns: Vec<Turn> = (0_u32..)
        .zip(servers)
        .filter(|(_, (_, weight))| *weight > 0)
        .map(|(server, (permutation, weight))| Turn {
            server,
            weight: u64::from(*weight),
            // half a turn in advance, so that shares are rounded and not cut
            gained: heaviest / 2,
            next_slot: permutation.offset % slots,
            skip: permutation.skip,
        })
        .collect();
    let mut table = vec![FREE; slots];
    let mut filled = 0;
    loop {
        for turn in &mut turns {
            turn.gained += turn.weight;
            if turn.gained < heaviest {
                continue;
            }
            turn.gained -= heaviest;
            while table[turn.next_slot] != FREE {
                turn.next_slot = (turn.next_slot + turn.skip) % slots;
            }
            table[turn.next_slot] = turn.server;
            filled += 1;
            if filled == slots {
                return table;
            }
        }
    }
}

const FREE: u32 = u32::MAX;

/// The slot that a flow's hash names.
pub(super) fn slot(flow_hash: u64) -> usize {
    // the remainder fits
    (flow_hash % TABLE_SLOTS as u64) as usize
}

/// The table of a backend.
pub(super) struct Maglev {
    table: Box<[u32]>,
    weights: Box<[u32]>,
}

impl std::fmt::Debug for Maglev {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // not the 65,537 slots
        f.debug_struct("Maglev")
            .field("weights", &self.weights)
            .finish_non_exhaustive()
    }
}

impl Maglev {
    pub(super) fn new(candidates: &[Candidate], key: HashKey) -> Self {
        let servers: Vec<_> = candidates
            .iter()
            .map(|c| (Permutation::of_name(c.name.as_str(), key, TABLE_SLOTS), c.weight))
            .collect();
        Self {
            table: build_table(&servers, TABLE_SLOTS).into(),
            weights: candidates.iter().map(|c| c.weight).collect(),
        }
    }

    /// The server of each slot.
    pub(super) const fn slots(&self) -> &[u32] {
        &self.table
    }

    pub(super) fn pick(&self, pick: &Pick<'_>) -> Option<usize> {
        if self.table.is_empty() {
            return None;
        }
        // a server that is out is replaced by those of other slots, drawn by hashing on: neighbouring slots would not
        // do, because the steps of the permutations make some servers follow each other more often
        let mut hash = pick.flow_hash;
        // where nearly all are out, drawing could take long: some questions for each server are enough
        let draws = self.weights.len().saturating_mul(4).max(16);
        for _ in 0..draws {
            let server = self.owner(hash);
            if (pick.usable)(server) {
                return Some(server);
            }
            hash = mix64(hash.wrapping_add(1));
        }
        self.pick_by_scan(self.owner(hash), pick)
    }

    /// The server of the slot that a hash names.
    fn owner(&self, hash: u64) -> usize {
        // the table is not empty
        self.table[slot(hash)] as usize
    }

    /// The first usable server from one on.
    fn pick_by_scan(&self, start: usize, pick: &Pick<'_>) -> Option<usize> {
        (start..self.weights.len())
            .chain(0..start)
            .find(|&server| self.weights[server] > 0 && (pick.usable)(server))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Chooser, assert_follows, candidates, names};
    use super::*;
    use crate::config::Algorithm;
    use crate::config::HashSeed;
    use proptest::prelude::*;

    /// Table 1 of the paper: 7 slots, three servers.
    const PAPER: [(Permutation, u32); 3] = [
        (Permutation { offset: 3, skip: 4 }, 1),
        (Permutation { offset: 0, skip: 2 }, 1),
        (Permutation { offset: 3, skip: 1 }, 1),
    ];

    #[test]
    fn the_papers_example_comes_out_as_printed() {
        assert_eq!(build_table(&PAPER, 7), [1, 0, 1, 0, 2, 2, 0]);
    }

    #[test]
    fn the_papers_example_comes_out_as_printed_without_b1() {
        let mut without = PAPER;
        without[1].1 = 0;
        assert_eq!(build_table(&without, 7), [0, 0, 0, 0, 2, 2, 2]);
    }

    fn table(names: &[String], weight: impl Fn(usize) -> u32) -> Vec<u32> {
        let servers: Vec<_> = (names.iter().enumerate())
            .map(|(i, name)| {
                (
                    Permutation::of_name(name, HashKey::default(), TABLE_SLOTS),
                    weight(i),
                )
            })
            .collect();
        build_table(&servers, TABLE_SLOTS)
    }

    fn slots_of_each(table: &[u32], servers: usize) -> Vec<usize> {
        let mut counts = vec![0; servers];
        for owner in table {
            counts[*owner as usize] += 1;
        }
        counts
    }

    #[test]
    fn weights_1_and_2_split_the_slots_21846_to_43691() {
        let table = table(&names(2), |i| [1, 2][i]);
        assert_eq!(slots_of_each(&table, 2), [21_846, 43_691]);
    }

    #[test]
    fn a_hundred_servers_share_to_within_1_percent() {
        let counts = slots_of_each(&table(&names(100), |_| 256), 100);
        let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
        assert!(
            (most - least) * 100 * 100 <= TABLE_SLOTS,
            "from {least} to {most}"
        );
    }

    #[test]
    fn removing_one_of_a_hundred_servers_moves_at_most_1_percent_of_the_others_slots() {
        let before = table(&names(100), |_| 1);
        for removed in [0, 42, 99] {
            let after = table(&names(100), |i| u32::from(i != removed));
            let kept = before.iter().zip(&after).filter(|(b, _)| **b as usize != removed);
            let (others, moved) =
                kept.fold((0, 0), |(n, moved), (b, a)| (n + 1, moved + usize::from(a != b)));
            assert!(moved * 100 <= others, "{moved} of {others} moved");
        }
    }

    #[test]
    fn clients_of_a_server_that_is_out_spread_over_the_others() {
        let mut chooser = Chooser::new(Algorithm::Maglev, &[1, 1, 1, 1]);
        chooser.unusable(2);
        assert_follows(&chooser.counts(40_000), &[1.0, 1.0, 0.0, 1.0]);
    }

    #[test]
    fn the_only_usable_server_among_many_is_found() {
        let mut chooser = Chooser::new(Algorithm::Maglev, &[1; 200]);
        for index in (0..200).filter(|i| *i != 137) {
            chooser.unusable(index);
        }
        assert_eq!(chooser.counts(100)[137], 100);
    }

    #[test]
    fn a_table_does_not_change_between_versions_or_machines() {
        let candidates = candidates(&[1, 2, 3]);
        let maglev = Maglev::new(&candidates, HashKey::default());
        let sum = maglev.table.iter().fold(0_u64, |sum, server| {
            sum.wrapping_mul(0x0100_0000_01b3)
                .wrapping_add(u64::from(*server))
        });
        assert_eq!(
            sum, 0x9fa5_11cd_09ab_02d0,
            "two versions in one cluster would send a flow to different servers"
        );
    }

    fn seeded(seed: &str, servers: usize) -> Box<[u32]> {
        let key = HashKey::of(Some(&HashSeed(seed.to_owned())));
        Maglev::new(&candidates(&vec![1; servers]), key).table
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn equal_seeds_make_equal_tables_and_with_another_a_slot_keeps_its_server_by_chance_alone(
            seed in ".{1,64}",
            other in ".{1,64}",
            servers in 2_usize..20,
        ) {
            prop_assume!(seed != other);
            let table = seeded(&seed, servers);
            prop_assert_eq!(&table, &seeded(&seed, servers));
            let published = Maglev::new(&candidates(&vec![1; servers]), HashKey::default()).table;
            for another in [seeded(&other, servers), published] {
                let differ = table.iter().zip(&another).filter(|(one, other)| one != other).count();
                let due = TABLE_SLOTS as f64 * (1.0 - 1.0 / servers as f64);
                prop_assert!((differ as f64 - due).abs() <= due * 0.05, "{differ} for {due} of {servers} servers");
            }
        }
    }

    proptest! {
        #[test]
        fn every_slot_has_a_server_and_shares_follow_weights(
            weights in prop::collection::vec(0_u32..50, 1..6),
        ) {
            prop_assume!(weights.iter().any(|w| *w > 0));
            let table = table(&names(weights.len()), |i| weights[i]);
            prop_assert_eq!(table.len(), TABLE_SLOTS);
            let total: u32 = weights.iter().sum();
            for (count, weight) in slots_of_each(&table, weights.len()).iter().zip(&weights) {
                let due = TABLE_SLOTS as f64 * f64::from(*weight) / f64::from(total);
                prop_assert!((*count as f64 - due).abs() <= weights.len() as f64 / 2.0 + 0.5, "{count} for {due}");
            }
        }
    }
}
