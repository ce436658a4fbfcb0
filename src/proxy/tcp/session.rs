//! One connection from accept to the access log.
//!
//! ```text
//! accept ─ identify ─ route ─ choose ─ connect ─ relay ─ account and log
//!                       ▲ queue │         │ retry on another server
//!                       └───────┴─────────┘
//! ```

use std::{pin::pin, time::Instant};

use tokio::time::sleep_until;

use super::stages::{Accepted, AcceptedSocket, Connected, Identified, Routed};
use crate::{base::TerminationReason, sys::tcp};

/// Serves one connection to its end.
pub async fn serve(arrival: AcceptedSocket) {
    let Some(accepted) = Accepted::new(arrival) else {
        return;
    };
    let Some(identified) = Identified::of(accepted).await else {
        return;
    };
    let Some(mut routed) = Routed::new(identified) else {
        return;
    };
    let first_deadline = Instant::now() + routed.backend().config.connect_timeout;
    // the connection's only timer
    let mut timer = pin!(sleep_until(first_deadline.into()));
    let reason = match Connected::establish(&mut routed, timer.as_mut()).await {
        Ok(connected) => connected.relay(timer).await,
        Err(reason) => reason,
    };
    let accepted = &routed.identified.accepted;
    let reason = accepted.registration.ended_by().unwrap_or(reason);
    if reason != TerminationReason::Normal {
        tcp::reset_on_close(&accepted.socket);
    }
    routed.end(reason);
}

#[cfg(test)]
mod tests {
    use super::serve;

    #[test]
    fn what_a_connection_keeps_in_memory_stays_small() {
        fn size<A, F: Future>(_: fn(A) -> F) -> usize {
            size_of::<F>()
        }
        // bytes; 1,304 when this was written
        assert!(size(serve) <= 1_400, "{}", size(serve));
    }
}
