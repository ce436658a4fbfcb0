//! What a scrape is made of.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant, SystemTime},
};

use crate::{
    admin::status::{Live, PacketCounts, Status},
    sys::usage::Usage,
};

/// What metrics are made of, at one moment.
pub struct Scrape {
    /// What changes by events.
    pub status: Arc<Status>,
    /// What changes by traffic.
    pub live: Arc<dyn Live>,
    /// What the packet engine has counted.
    pub packets: PacketCounts,
    /// What the process takes, if /proc tells.
    pub usage: Option<Usage>,
    /// Connections to the endpoints turned away.
    pub connections_refused: u64,
    /// Failed logins at the API on TCP.
    pub logins_failed: u64,
    /// Now.
    pub now: Instant,
    /// Now, by the clock of the host.
    pub wall: SystemTime,
}

impl std::fmt::Debug for Scrape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scrape")
            .field("now", &self.now)
            .finish_non_exhaustive()
    }
}

impl Scrape {
    /// The seconds since 1970 at a moment, to a tenth: what does not change shall not seem to.
    #[must_use]
    pub fn timestamp(&self, at: Instant) -> f64 {
        (self.exactly(at) * 10.0).round() / 10.0
    }

    fn exactly(&self, at: Instant) -> f64 {
        let ago = self.now.saturating_duration_since(at);
        seconds(self.wall.checked_sub(ago).unwrap_or(self.wall))
    }

    /// When the process started, in seconds since 1970, to a tenth that is not after it: nothing is counted before.
    #[must_use]
    pub fn begun(&self) -> f64 {
        // once: the two clocks do not agree to the microsecond, and a start that moves looks like a restart
        static BEGUN: OnceLock<f64> = OnceLock::new();
        *BEGUN.get_or_init(|| (self.exactly(self.status.started) * 10.0).floor() / 10.0)
    }
}

/// The seconds since 1970.
#[must_use]
pub fn seconds(at: SystemTime) -> f64 {
    at.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_secs_f64()
}

/// Microseconds in seconds.
#[allow(
    clippy::cast_precision_loss,
    reason = "exact for three hundred years of microseconds"
)]
pub fn in_seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}
