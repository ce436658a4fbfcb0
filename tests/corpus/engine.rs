//! What plays the cases: whatever decides about frames. Cases know nothing of it.

use std::{sync::Arc, time::Duration};

use convey::{
    base::{PacketReason, WorkerId},
    config::PacketService,
    flow::{
        FlowInfo, FlowStore, Flows, Hops, Moment, PacketCounters, Path, ReasonCounters, Services,
        TableLimits, Verdict,
    },
    packet::{Frame, HEADROOM, Offload},
    snapshot::Snapshot,
};

/// What decides about frames.
pub trait Engine {
    /// Puts a newer picture in force.
    fn apply(&mut self, snapshot: &Snapshot, hops: &Hops, services: &[PacketService]);
    /// Time passes, and what has expired is forgotten.
    fn wait(&mut self, time: Duration);
    /// A frame comes in by an interface.
    fn packet(&mut self, bytes: &[u8], offload: Offload, ifindex: u32) -> Outcome;
    /// Packets counted by a reason so far.
    fn count(&self, reason: PacketReason) -> u64;
    /// Flows in the tables, and fragments that wait.
    fn usage(&self) -> (u64, u64);
}

/// What became of a frame.
#[derive(Debug)]
pub struct Outcome {
    pub verdict: Verdict,
    /// The frame as it is sent.
    pub frame: Vec<u8>,
    /// What the kernel is told about it.
    pub offload: Offload,
    /// Interface and bytes of what is sent besides.
    pub answers: Vec<(u32, Vec<u8>)>,
}

/// The pure path, as the raw engine's threads run it.
pub struct Pure {
    flows: Arc<Flows>,
    path: Path,
    counters: Arc<ReasonCounters>,
    now: Moment,
}

impl Pure {
    pub fn new(max_flows: std::num::NonZeroU32) -> Self {
        let flows = Arc::new(Flows::new(TableLimits {
            max_flows,
            workers: 1,
            hash_seed: 42,
        }));
        let path = Path::new(WorkerId(0), 0, Arc::clone(&flows), 7);
        Self {
            flows,
            counters: path.counters(),
            path,
            now: Moment(1_000),
        }
    }
}

impl Pure {
    /// It is now this moment.
    pub fn go_to(&mut self, now: Moment) {
        self.now = now;
    }

    /// NAT ports are drawn from this on.
    pub fn reseed(&mut self, seed: u64) {
        self.path.reseed(seed);
    }

    /// Live flows.
    pub fn listed(&self) -> Vec<FlowInfo> {
        self.flows.list(&|_| true, usize::MAX, self.now).1
    }

    /// Passthrough flows, and those of them that are half-open.
    pub fn nat_usage(&self) -> (u64, u64) {
        let usage = self.flows.usage();
        (usage.nat_flows, usage.half_open)
    }
}

impl Engine for Pure {
    fn apply(&mut self, snapshot: &Snapshot, hops: &Hops, _: &[PacketService]) {
        self.path
            .set_services(Arc::new(Services::build(snapshot, &Services::default())));
        self.path.set_hops(Arc::new(hops.clone()));
    }

    fn wait(&mut self, time: Duration) {
        self.now = self.now.after(time);
        // often enough to go through all shards of the tables
        for _ in 0..50 {
            self.path.expire(self.now);
        }
    }

    fn packet(&mut self, bytes: &[u8], offload: Offload, ifindex: u32) -> Outcome {
        by_path(&mut self.path, bytes, offload, ifindex, self.now)
    }

    fn count(&self, reason: PacketReason) -> u64 {
        self.counters.read(reason)
    }

    fn usage(&self) -> (u64, u64) {
        let usage = self.flows.usage();
        (usage.nat_flows + usage.dsr_flows, usage.fragments_waiting)
    }
}

/// What a path makes of a frame.
pub fn by_path<S: FlowStore>(
    path: &mut Path<S>,
    bytes: &[u8],
    offload: Offload,
    ifindex: u32,
    now: Moment,
) -> Outcome {
    let mut buffer = vec![0; HEADROOM];
    buffer.extend(bytes);
    let mut frame =
        Frame::new(&mut buffer, HEADROOM, bytes.len(), offload).expect("the frame lies in its buffer");
    let verdict = path.process(&mut frame, ifindex, now);
    let (offload, frame) = (frame.offload, frame.bytes().to_vec());
    let answers = path.answers().map(|answer| (answer.ifindex, answer.frame));
    Outcome {
        verdict,
        frame,
        offload,
        answers: answers.collect(),
    }
}
