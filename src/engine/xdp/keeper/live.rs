//! Live flows as a scan finds them. Pure.

use std::collections::HashMap;

use crate::engine::xdp::accounts::Found;

/// How long after its beginning a flow has been counted as opened, in nanoseconds: the program's clock is coarse, and the slow
/// path may wait for a CPU.
const UNSURE: u64 = 100_000_000;

/// Those of a target.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Live {
    pub all: u64,
    /// Those that had begun before the scan.
    pub before: Found,
}

/// Live flows that were found.
#[derive(Debug)]
pub(super) struct LiveFlows {
    /// Flows that had begun then have surely been counted as opened before the scan, on the program's clock.
    surely: u64,
    /// Flows that had not begun then have not.
    at_most: u64,
    /// By the number of their target.
    of: HashMap<u16, Live>,
}

impl LiveFlows {
    /// Of a scan that began then, on the program's clock; `counted`: when the counters had been read for it.
    pub fn new(began: u64, counted: u64) -> Self {
        Self {
            surely: began.saturating_sub(UNSURE),
            at_most: began.max(counted),
            of: HashMap::new(),
        }
    }

    /// Takes in a flow of a target with a number.
    pub fn note(&mut self, target: u32, begun: u64) {
        // what has a number has one of 16 bits
        let Ok(number) = u16::try_from(target) else { return };
        let live = self.of.entry(number).or_default();
        live.all += 1;
        live.before.surely += u64::from(begun <= self.surely);
        live.before.at_most += u64::from(begun <= self.at_most);
    }

    /// Those of a target.
    pub fn of(&self, number: u16) -> Live {
        self.of.get(&number).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_that_began_about_when_the_scan_did_may_have_been_counted_before() {
        let mut live = LiveFlows::new(5 * UNSURE, 5 * UNSURE + 9);
        for begun in [0, 4 * UNSURE, 4 * UNSURE + 1, 5 * UNSURE + 9, 5 * UNSURE + 10] {
            live.note(7, begun);
        }
        live.note(1 << 16, 0);
        let Live { all, before } = live.of(7);
        let Found { surely, at_most } = before;
        assert_eq!((all, surely, at_most), (5, 2, 4));
        assert_eq!(live.of(8).all, 0);
    }
}
