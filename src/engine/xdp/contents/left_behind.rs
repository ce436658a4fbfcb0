//! What stays as another engine has written it, since nothing here knows better.

use super::Contents;
use crate::engine::xdp::{
    layout::{SourceValue, TargetValue},
    numbers::{Numbered, Numbers},
};

impl Contents {
    /// Has what was taken over, and is not configured, stay as it was written: the way to its server as long as none is known
    /// here, and what its flows are counted by. No flow begins towards it.
    pub fn keep(&mut self, written: &Self, numbers: &Numbers) {
        for (number, numbered) in numbers.iter().filter(|(_, numbered)| numbered.is_left_behind) {
            self.keep_way(number, numbered, written);
            self.keep_source(number, numbered, written);
        }
    }

    fn keep_way(&mut self, number: u16, numbered: &Numbered, written: &Self) {
        // one that was being written has another version
        let is_whole = |value: &&TargetValue| (value.version, value.incarnation) == (0, numbered.incarnation);
        let before = written.targets.get(&number).filter(is_whole);
        if let (Some(wanted), Some(before)) = (self.targets.get_mut(&number), before)
            && !wanted.flags.known
        {
            *wanted = *before;
        }
    }

    fn keep_source(&mut self, number: u16, numbered: &Numbered, written: &Self) {
        let is_its = |source: &&SourceValue| source.server == u32::from(numbered.server);
        let before = written.sources.get(&number).filter(is_its);
        if let (Some(wanted), Some(before)) = (self.sources.get_mut(&number), before) {
            *wanted = SourceValue {
                locals: Vec::new(),
                is_served: false,
                ..before.clone()
            };
        }
    }
}
