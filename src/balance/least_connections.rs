//! Weighted least connections: the usable server with the fewest connections for its weight (Zhang: Linux Virtual
//! Server, 2000, "weighted least-connection scheduling"). Among equals one is drawn in proportion to the weights, so
//! that idle servers share short connections as their weights say instead of the first one taking them all.

use super::{
    Pick,
    hash::{below, mix64},
};

#[derive(Debug)]
pub(super) struct LeastConnections {
    weights: Box<[u32]>,
}

/// A load and the weight that carries it; compared by cross multiplication, without division or rounding.
#[derive(Debug, Clone, Copy)]
pub(super) struct Burden {
    pub(super) load: u64,
    pub(super) weight: u32,
}

impl Burden {
    fn cross(self, other: Self) -> (u128, u128) {
        (
            u128::from(self.load) * u128::from(other.weight),
            u128::from(other.load) * u128::from(self.weight),
        )
    }

    /// Whether it has strictly fewer connections for its weight.
    pub(super) fn is_lighter_than(self, other: Self) -> bool {
        let (mine, others) = self.cross(other);
        mine < others
    }

    fn equals(self, other: Self) -> bool {
        let (mine, others) = self.cross(other);
        mine == others
    }
}

impl LeastConnections {
    pub(super) fn new(weights: Box<[u32]>) -> Self {
        Self { weights }
    }

    pub(super) fn pick(&self, pick: &Pick<'_>) -> Option<usize> {
        let mut random = pick.random;
        let mut best: Option<(usize, Burden)> = None;
        let mut equals_sum = 0;
        for (index, &weight) in self.weights.iter().enumerate() {
            if weight == 0 || !(pick.usable)(index) {
                continue;
            }
            let burden = Burden {
                load: (pick.load)(index),
                weight,
            };
            match best {
                Some((_, lightest)) if burden.equals(lightest) => {
                    equals_sum += u64::from(weight);
                    random = mix64(random.wrapping_add(1));
                    if below(random, equals_sum) < u64::from(weight) {
                        best = Some((index, burden));
                    }
                }
                Some((_, lightest)) if !burden.is_lighter_than(lightest) => {}
                _ => {
                    equals_sum = u64::from(weight);
                    best = Some((index, burden));
                }
            }
        }
        best.map(|(index, _)| index)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Chooser, assert_follows};
    use crate::config::Algorithm;

    #[test]
    fn the_server_with_fewest_connections_is_chosen() {
        let mut chooser = Chooser::new(Algorithm::LeastConnections, &[1, 1, 1]);
        chooser.loads = vec![3, 2, 5];
        assert_eq!(chooser.counts(100), [0, 100, 0]);
    }

    #[test]
    fn connections_are_judged_by_weight() {
        let mut chooser = Chooser::new(Algorithm::LeastConnections, &[1, 4]);
        chooser.loads = vec![2, 7];
        assert_eq!(
            chooser.pick(),
            Some(1),
            "7 of weight 4 is less than 2 of weight 1"
        );
    }

    #[test]
    fn long_connections_end_up_in_proportion_to_the_weights() {
        let mut chooser = Chooser::new(Algorithm::LeastConnections, &[1, 2, 5]);
        for _ in 0..800 {
            let index = chooser.pick().unwrap();
            chooser.loads[index] += 1;
        }
        assert_eq!(chooser.loads, [100, 200, 500]);
    }

    #[test]
    fn equally_loaded_servers_share_by_weight_instead_of_the_first_taking_all() {
        let mut chooser = Chooser::new(Algorithm::LeastConnections, &[1, 2, 5]);
        assert_follows(&chooser.counts(50_000), &[1.0, 2.0, 5.0]);
    }

    #[test]
    fn a_full_server_is_passed_over_even_if_it_is_the_least_loaded() {
        let mut chooser = Chooser::new(Algorithm::LeastConnections, &[1, 1]);
        chooser.loads = vec![0, 9];
        chooser.unusable(0);
        assert_eq!(chooser.pick(), Some(1));
    }
}
