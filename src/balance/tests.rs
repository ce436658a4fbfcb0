//! What holds for every algorithm.

use super::testing::Chooser;
use super::*;
use crate::config::HashSeed;
use proptest::prelude::*;

const ALL: [Algorithm; 8] = [
    Algorithm::RoundRobin,
    Algorithm::Random,
    Algorithm::LeastConnections,
    Algorithm::LeastBandwidth,
    Algorithm::PowerOfTwo,
    Algorithm::SourceHash,
    Algorithm::Maglev,
    Algorithm::First,
];

#[test]
fn a_backend_without_servers_gives_none() {
    for algorithm in ALL {
        assert_eq!(Chooser::new(algorithm, &[]).pick(), None, "{algorithm:?}");
    }
}

#[test]
fn with_another_seed_only_what_hashes_is_another_balancer() {
    let key = HashKey::of(Some(&HashSeed("secret".into())));
    let candidates = testing::candidates(&[1, 2]);
    for algorithm in ALL {
        let published = Balancer::new(algorithm, &candidates, HashKey::default());
        assert!(published.is_of(algorithm, &candidates, HashKey::default()));
        let hashes = matches!(algorithm, Algorithm::Maglev | Algorithm::SourceHash);
        assert_eq!(
            published.is_of(algorithm, &candidates, key),
            !hashes,
            "{algorithm:?}"
        );
    }
}

#[test]
fn a_client_that_knows_no_seed_cannot_aim_its_connections() {
    // what it computes with the published hash, and what another seed makes of that
    let servers = testing::candidates(&[1; 4]);
    let seeded = HashKey::of(Some(&HashSeed("secret".into())));
    let listen = "198.51.100.1:80".parse().unwrap();
    for algorithm in [Algorithm::Maglev, Algorithm::SourceHash] {
        let choose = |key: HashKey, client: SocketAddr| {
            let balancer = Balancer::new(algorithm, &servers, key);
            let pick = Pick {
                client_hash: balancer.client_hash(client.ip()),
                flow_hash: balancer.flow_hash(client, listen),
                random: 0,
                load: &|_| 0,
                usable: &|_| true,
            };
            balancer.pick(&mut PickState::default(), &pick).unwrap()
        };
        let clients = (0..400_u16).map(|n| SocketAddr::from(([10, 0, (n >> 8) as u8, n as u8], 1_024 + n)));
        let aimed: Vec<_> = clients
            .filter(|client| choose(HashKey::default(), *client) == 0)
            .collect();
        let mut counts = [0; 4];
        aimed
            .iter()
            .for_each(|client| counts[choose(seeded, *client)] += 1);
        testing::assert_follows(&counts, &[1.0; 4]);
    }
}

#[test]
fn a_single_server_is_always_chosen() {
    for algorithm in ALL {
        let mut chooser = Chooser::new(algorithm, &[3]);
        assert!(chooser.picks(20).iter().all(|p| *p == Some(0)), "{algorithm:?}");
        chooser.unusable(0);
        assert_eq!(chooser.pick(), None, "{algorithm:?}");
    }
}

#[test]
fn servers_of_weight_0_are_never_chosen_even_if_there_are_no_others() {
    for algorithm in ALL {
        assert_eq!(Chooser::new(algorithm, &[0, 0]).pick(), None, "{algorithm:?}");
        assert_eq!(
            Chooser::new(algorithm, &[0, 7, 0]).counts(50),
            [0, 50, 0],
            "{algorithm:?}"
        );
    }
}

#[test]
fn the_greatest_weights_a_configuration_can_have_do_not_overflow() {
    let greatest = u32::from(u16::MAX) * WEIGHT_UNIT;
    for algorithm in ALL {
        let mut chooser = Chooser::with_seed(algorithm, &[greatest; 3], u64::MAX);
        chooser.loads = vec![u64::MAX, u64::MAX, u64::MAX - 1];
        assert!(chooser.picks(100).iter().all(Option::is_some), "{algorithm:?}");
    }
}

#[test]
fn a_state_that_was_made_for_another_pool_does_no_harm() {
    for algorithm in ALL {
        let mut state = PickState::seeded(5);
        for servers in [4, 2, 9] {
            let balancer = Balancer::new(
                algorithm,
                &testing::candidates(&vec![1; servers]),
                HashKey::default(),
            );
            let pick = Pick {
                client_hash: 1,
                flow_hash: 2,
                random: 3,
                load: &|_| 0,
                usable: &|_| true,
            };
            assert!(
                balancer.pick(&mut state, &pick).is_some_and(|i| i < servers),
                "{algorithm:?}"
            );
        }
    }
}

proptest! {
    #[test]
    fn a_choice_is_usable_and_there_is_one_whenever_any_server_is(
        servers in prop::collection::vec((0_u32..5, any::<bool>(), 0_u32..4), 0..40),
        clients in prop::collection::vec(any::<u64>(), 10),
    ) {
        let weights: Vec<u32> = servers.iter().map(|(weight, ..)| *weight).collect();
        let any = servers.iter().any(|(weight, usable, _)| *weight > 0 && *usable);
        for algorithm in ALL {
            let mut chooser = Chooser::new(algorithm, &weights);
            for (index, (_, usable, load)) in servers.iter().enumerate() {
                chooser.loads[index] = u64::from(*load);
                if !usable {
                    chooser.unusable(index);
                }
            }
            for client in &clients {
                let (choice, asked) = chooser.pick_and_count(*client);
                prop_assert_eq!(choice.is_some(), any, "{:?}", algorithm);
                if let Some(index) = choice {
                    prop_assert!(servers[index].0 > 0 && servers[index].1, "{:?}", algorithm);
                }
                prop_assert!(asked <= 5 * servers.len() + 16, "{:?}: asked {} times", algorithm, asked);
            }
        }
    }
}
