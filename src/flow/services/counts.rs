//! What is counted of a server behind a VIP.

use super::FlowTarget;
use crate::{
    base::{Handshake, PacketReason, ServerDrop, WorkerId},
    snapshot::live::StatsShard,
};

/// What somebody else has seen of the flows to a server, to be counted with what the workers see.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SeenElsewhere {
    /// Flows of either mode that have begun.
    pub opened: u64,
    /// Flows of either mode that have ended.
    pub closed: u64,
    /// Bytes of IP packets towards the server.
    pub bytes: u64,
    /// Bytes of IP packets towards clients: passthrough's.
    pub bytes_out: u64,
    /// Handshakes of passthrough that have completed.
    pub completed: u64,
    /// Those whose SYN the server has not answered.
    pub unanswered: u64,
    /// Those whose client has not acknowledged the server's answer.
    pub unacknowledged: u64,
    /// Handshakes of DSR that have completed.
    pub dsr_completed: u64,
    /// Handshakes of DSR that have not.
    pub dsr_incomplete: u64,
}

impl FlowTarget {
    fn shards(&self, worker: WorkerId) -> [&StatsShard; 3] {
        [
            self.frontend_live.counters.shard(worker),
            self.backend_live.counters.shard(worker),
            self.server_live.counters.shard(worker),
        ]
    }

    /// Counts a new flow. Each worker counts in shards of its own.
    pub fn count_opened(&self, worker: WorkerId) {
        for shard in self.shards(worker) {
            shard.opened.add(1);
        }
    }

    /// Counts a flow that has ended, whichever worker has counted it as opened.
    pub fn count_closed(&self, worker: WorkerId) {
        for shard in self.shards(worker) {
            shard.closed.add(1);
        }
    }

    /// Counts how a handshake with the server goes.
    pub fn count_handshake(&self, worker: WorkerId, handshake: Handshake) {
        let shard = self.server_live.counters.shard(worker);
        if let Some(counter) = shard.handshakes.get(handshake as usize) {
            counter.add(1);
        }
    }

    /// Counts a packet that cannot leave for the server, where that depends on the server.
    pub fn count_drop(&self, worker: WorkerId, reason: PacketReason) {
        let shard = self.server_live.counters.shard(worker);
        if let Some(counter) = ServerDrop::of(reason).and_then(|drop| shard.dropped.get(drop as usize)) {
            counter.add(1);
        }
    }

    /// Counts what somebody else has seen of its flows, such as a program in the kernel.
    pub fn count_seen(&self, worker: WorkerId, seen: &SeenElsewhere) {
        for shard in self.shards(worker) {
            shard.opened.add(seen.opened);
            shard.closed.add(seen.closed);
            shard.bytes_in.add(seen.bytes);
            shard.bytes_out.add(seen.bytes_out);
        }
        let shard = self.server_live.counters.shard(worker);
        let handshakes = [
            (Handshake::Completed, seen.completed),
            (Handshake::Unanswered, seen.unanswered),
            (Handshake::Unacknowledged, seen.unacknowledged),
            (Handshake::DsrCompleted, seen.dsr_completed),
            (Handshake::DsrIncomplete, seen.dsr_incomplete),
        ];
        for (handshake, count) in handshakes {
            if let Some(counter) = shard.handshakes.get(handshake as usize) {
                counter.add(count);
            }
        }
    }

    /// Counts bytes of IP packets towards the server.
    pub fn count_in(&self, worker: WorkerId, bytes: usize) {
        for shard in self.shards(worker) {
            shard.bytes_in.add(bytes as u64);
        }
    }

    /// Counts bytes of IP packets towards the client.
    pub fn count_out(&self, worker: WorkerId, bytes: usize) {
        for shard in self.shards(worker) {
            shard.bytes_out.add(bytes as u64);
        }
    }
}
