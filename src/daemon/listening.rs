//! What is told of new listeners.

use crate::{
    base::{ListenerId, Protocol},
    snapshot::Snapshot,
};

/// Listeners that get a line of their own when many are made at once; the rest is counted.
const LINES: usize = 20;

/// Says which addresses connections are accepted on from now on, and where they go.
pub fn say(snapshot: &Snapshot, added: impl ExactSizeIterator<Item = ListenerId>) {
    let more = added.len().saturating_sub(LINES);
    for id in added.take(LINES) {
        let Some(frontend) = snapshot.frontend_at(id) else {
            continue;
        };
        let (name, backend) = (&frontend.config.name, &frontend.backend);
        tracing::info!(
            event = "listening",
            frontend = %name,
            backend = %backend.config.name,
            listen = %id.place(),
            "listening on {}{} (frontend {name} → backend {}, {} of {} servers up)",
            id.place(),
            match id.protocol() {
                Protocol::Tcp => "",
                Protocol::Udp => " (udp)",
            },
            backend.config.name,
            backend.counts.up,
            backend.counts.servers
        );
    }
    if more > 0 {
        tracing::info!(
            event = "listening",
            "listening on {more} more addresses: see `convey status`"
        );
    }
}
