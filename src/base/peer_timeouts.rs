//! When the kernel gives up a TCP connection by itself.

use std::{num::NonZeroU32, time::Duration};

/// What a TCP socket does about a peer that has vanished without a word.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PeerTimeouts {
    /// TCP_USER_TIMEOUT: how long sent data may be unacknowledged; `None` leaves the kernel's retransmission limit.
    pub user_timeout: Option<Duration>,
    /// Probes of an idle connection; `None`: none.
    pub keepalive: Option<KeepAlive>,
}

/// TCP keep-alive (RFC 9293 section 3.8.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepAlive {
    /// How long nothing comes before the first probe, in whole seconds.
    pub idle: Duration,
    /// Time between two probes, in whole seconds.
    pub interval: Duration,
    /// Unanswered probes after which the connection is broken.
    pub count: NonZeroU32,
}
