//! How many access records a second are logged, whichever threads they come from.

use std::{
    num::NonZeroU32,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

/// See the [module](self).
#[derive(Debug)]
pub struct Rate {
    most: AtomicU32,
    /// The second, in the upper half, and how many it has had.
    window: AtomicU64,
}

impl Default for Rate {
    fn default() -> Self {
        Self {
            most: AtomicU32::new(u32::MAX),
            window: AtomicU64::new(0),
        }
    }
}

impl Rate {
    /// How many a second.
    pub fn most(&self) -> u32 {
        self.most.load(Ordering::Relaxed)
    }

    /// Changes that.
    pub fn set(&self, most: NonZeroU32) {
        self.most.store(most.get(), Ordering::Relaxed);
    }

    /// Whether one more of this moment is admitted. What comes late counts for the second that is under way; a clock that is
    /// set back begins anew.
    pub fn admits(&self, at: SystemTime) -> bool {
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        // seconds fit 32 bits until 2106, and wrap around then
        let second = since.as_secs() & u64::from(u32::MAX);
        let most = u64::from(self.most());
        let next = |window: u64| {
            let (current, count) = (window >> 32, window & u64::from(u32::MAX));
            let is_current = second == current || second + 1 == current;
            match count {
                _ if !is_current => Some(second << 32 | 1),
                count if count < most => Some(window + 1),
                _ => None,
            }
        };
        self.window
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next)
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn each_second_admits_so_many_whatever_order_they_come_in() {
        let rate = Rate::default();
        let at = |millis| UNIX_EPOCH + Duration::from_millis(1_800_000_000_000 + millis);
        assert!((0..10_000).all(|_| rate.admits(at(0))), "no limit is set");
        rate.set(NonZeroU32::new(3).unwrap());
        let admitted = |millis: &[u64]| millis.iter().filter(|millis| rate.admits(at(**millis))).count();
        assert_eq!(admitted(&[5_000, 5_100, 5_200, 5_300, 5_999]), 3);
        assert_eq!(admitted(&[6_000]), 1);
        assert_eq!(
            admitted(&[5_999, 6_000, 5_999, 6_500]),
            2,
            "the last second counts for this one"
        );
        assert_eq!(admitted(&[9_000; 9]), 3);
        assert_eq!(admitted(&[2_000; 9]), 3, "the clock was set back");
    }
}
