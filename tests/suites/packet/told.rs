//! What Convey says of the packet modes: the one place that knows how the status spells it.

use std::net::SocketAddr;

use serde_json::Value;

use crate::lab::{Convey, PATIENCE, wait_until};

/// How often packets came to this end (a label of [`convey::base::PacketReason`]), over all workers.
#[track_caller]
pub fn packets(convey: &Convey, reason: convey::base::PacketReason) -> u64 {
    let status = convey.status_json();
    let packets = &status["packet"]["packets"];
    assert!(packets.is_object(), "no counters of packets in {status}");
    // what has not occurred need not be listed
    packets[reason.label()].as_u64().unwrap_or(0)
}

/// Flows in the tables now, of both modes.
#[track_caller]
pub fn flows(convey: &Convey) -> u64 {
    let status = convey.status_json();
    let flows = &status["packet"]["flows"];
    let count = |kind: &str| flows[kind].as_u64();
    match (count("nat"), count("dsr")) {
        (Some(nat), Some(dsr)) => nat + dsr,
        _ => panic!("no number of flows in {status}"),
    }
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
    wait_until(&format!("{frontend} is {expected}"), PATIENCE, || {
        state(convey, frontend) == expected
    });
}

/// What `convey explain` says of a flow: the server's name if it has one, and the whole answer.
#[track_caller]
pub fn explain(
    convey: &Convey,
    protocol: &str,
    client: SocketAddr,
    to: SocketAddr,
) -> (Option<String>, Value) {
    let output = convey.cli(&format!("explain --json {protocol} {client} {to}"));
    assert!(
        matches!(output.status.code(), Some(0 | 69)),
        "convey explain: {output:?}"
    );
    let answer: Value = serde_json::from_str(&output.stdout)
        .unwrap_or_else(|error| panic!("{error} in the explanation {output:?}"));
    let server = answer["server"].as_str().map(str::to_owned);
    assert_eq!(server.is_some(), output.status.success(), "{answer}");
    (server, answer)
}
