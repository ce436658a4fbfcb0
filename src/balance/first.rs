//! First: the first server by name that has room, so that the others can be switched off.
//!
//! The idea is HAProxy's `balance first` (configuration manual, section 4.2).

use super::Pick;

#[derive(Debug)]
pub(super) struct First {
    weights: Box<[u32]>,
}

impl First {
    pub(super) fn new(weights: Box<[u32]>) -> Self {
        Self { weights }
    }

    pub(super) fn pick(&self, pick: &Pick<'_>) -> Option<usize> {
        (0..self.weights.len()).find(|&index| self.weights[index] > 0 && (pick.usable)(index))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Chooser;
    use crate::config::Algorithm;

    #[test]
    fn the_next_server_is_used_only_while_the_one_before_has_no_room() {
        let mut chooser = Chooser::new(Algorithm::First, &[1, 1, 5]);
        assert_eq!(chooser.pick(), Some(0));
        chooser.unusable(0);
        assert_eq!(chooser.pick(), Some(1));
        chooser.unusable(1);
        assert_eq!(chooser.pick(), Some(2));
        chooser.usable(0);
        assert_eq!(chooser.pick(), Some(0));
    }
}
