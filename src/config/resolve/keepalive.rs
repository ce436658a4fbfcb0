//! TCP keep-alive of both sides.

use std::{num::NonZeroU32, time::Duration};

use super::{int, merged, time, value};
use crate::{
    base::KeepAlive,
    config::raw::{self, Located},
};

/// Probes keep the state of NATs and firewalls on the way, of which Azure's load balancer forgets a connection after 4
/// minutes and AWS's after 350 s without a packet; a peer that has vanished is found after 4 minutes. Off in the kernel,
/// whose 2 hours are RFC 9293's least default.
pub const DEFAULT: KeepAlive = KeepAlive {
    idle: Duration::from_secs(120),
    interval: Duration::from_secs(20),
    count: NonZeroU32::MIN.saturating_add(5),
};

/// What a section says, with what `[defaults]` says for the rest.
pub fn keepalive(
    own: Option<&Located<raw::KeepAlive>>,
    defaults: Option<&Located<raw::KeepAlive>>,
) -> Option<KeepAlive> {
    says(&merged(own, defaults))
}

/// What one section says by itself.
pub fn says(raw: &raw::KeepAlive) -> Option<KeepAlive> {
    if !value(raw.enabled.as_ref(), true, |v| v) {
        return None;
    }
    let count = int(raw.count.as_ref(), DEFAULT.count.get());
    Some(KeepAlive {
        idle: whole_seconds(time(raw.idle.as_ref(), DEFAULT.idle)),
        interval: whole_seconds(time(raw.interval.as_ref(), DEFAULT.interval)),
        count: NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN),
    })
}

/// As the kernel counts, rounded up.
fn whole_seconds(time: Duration) -> Duration {
    Duration::from_secs(time.as_secs() + u64::from(time.subsec_nanos() > 0))
}
