//! What Convey says of the packet modes: the one place that knows how the status spells it.

use std::time::Duration;

use serde_json::Value;

use crate::lab::{Convey, wait_until};

/// How often packets came to this end (a label of [`convey::base::PacketReason`]), over all workers.
#[track_caller]
pub fn packets(convey: &Convey, reason: convey::base::PacketReason) -> u64 {
    let status = convey.status_json();
    let packets = &status["packets"];
    assert!(packets.is_object(), "no counters of packets in {status}");
    // what has not occurred need not be listed
    packets[reason.label()].as_u64().unwrap_or(0)
}

/// Flows in the table now.
#[track_caller]
pub fn flows(convey: &Convey) -> u64 {
    let status = convey.status_json();
    status["flows"]["current"]
        .as_u64()
        .unwrap_or_else(|| panic!("no number of flows in {status}"))
}

/// `live` or `waiting`.
#[track_caller]
pub fn state(convey: &Convey, frontend: &str) -> String {
    let status = convey.status_json();
    match &status["frontends"][frontend]["state"] {
        Value::String(state) => state.clone(),
        _ => panic!("no state of frontend {frontend} in {status}"),
    }
}

/// Waits for a frontend's state.
#[track_caller]
pub fn wait_state(convey: &Convey, frontend: &str, expected: &str) {
    wait_until(
        &format!("{frontend} is {expected}"),
        Duration::from_secs(10),
        || state(convey, frontend) == expected,
    );
}
