//! Sections that are about whether servers work.

use super::{DAY, HOUR, Int, Time, section::section};
use crate::config::model::InitialState;

section! {
    /// Active checks: a TCP connect to every server, and a TLS handshake where the backend has `tls`.
    HealthCheck {
        /// Whether servers are checked. Default: true.
        enabled: bool,
        /// Time between two checks of a server. Default: "2s".
        interval: Time<false, DAY>,
        /// Time limit of one check. Default: "1s", or the interval if that is shorter.
        timeout: Time<false, HOUR>,
        /// Consecutive successes that bring a server up. Default: 2.
        rise: Int<1, 1000>,
        /// Consecutive failures that take a server down. Default: 3.
        fall: Int<1, 1000>,
        /// Interval while the state is changing. Default: "1s", or the interval if that is shorter.
        fast_interval: Time<false, DAY>,
        /// Begin each check with a PROXY header too, which says that the connection is Convey's own; needs send_proxy. Default: false.
        send_proxy: bool,
        /// State before the first check: "up", "down", or "check" (default), which lets the first result decide.
        initial: InitialState,
    }
}

section! {
    /// Passive checks: connects of clients that fail.
    PassiveCheck {
        /// Whether failed connects count. Default: true.
        enabled: bool,
        /// Consecutive failures that eject a server. Default: 3.
        max_failures: Int<1, 1000>,
        /// Duration of the first ejection; each further one is longer by as much. Default: "10s".
        ejection_time: Time<false, DAY>,
        /// Longest duration of an ejection. Default: "5m", or ejection_time if that is longer.
        max_ejection_time: Time<false, DAY>,
    }
}
