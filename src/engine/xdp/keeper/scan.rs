//! A walk through all flows, some at a time: those that have expired are forgotten, those that have ended are found out.

use std::{io, sync::Arc};

use super::{Keeper, live::LiveFlows, nat::NatScan};
use crate::{
    base::WorkerId,
    engine::xdp::{
        batch::FlowBatch,
        flow_map::{self, BATCH},
        layout::FlowValue,
    },
    flow::{FlowTarget, Moment, SeenElsewhere},
    sys::bpf::BatchCursor,
};

/// Flows that are looked at while the numbers are locked.
const AT_ONCE: usize = 256;

/// A walk that is under way.
#[derive(Debug)]
pub(super) struct Scan {
    stage: Stage,
    cursor: BatchCursor,
    batch: FlowBatch,
    live: LiveFlows,
    nat: NatScan,
}

/// Through which map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// DSR flows.
    Direct,
    /// Passthrough flows, by their clients' packets.
    Forwards,
    /// The same by their servers' packets.
    Reverses,
}

/// What a scan does with a DSR flow.
enum Fate {
    Lives,
    Expired(Arc<FlowTarget>),
    /// It is of nothing that has a number.
    Unknown,
}

impl Keeper {
    /// Looks at all flows: forgets those that have expired, and finds out which have ended.
    ///
    /// # Errors
    /// The kernel refused; then the scan is given up.
    pub fn scan(&mut self, now: Moment) -> io::Result<()> {
        self.scan = None;
        while !self.scan_some(now, 1)? {}
        Ok(())
    }

    /// Looks at the next flows, so many batches of [`BATCH`]; at the first ones after the last. Whether these were the last ones.
    /// Nothing is looked at as long as nothing has ever been [applied](Self::apply).
    ///
    /// # Errors
    /// The kernel refused; then the scan is given up.
    pub fn scan_some(&mut self, now: Moment, batches: usize) -> io::Result<bool> {
        if !self.has_applied {
            return Ok(true);
        }
        let mut scan = match self.scan.take() {
            Some(scan) => scan,
            None => self.begin_scan(now)?,
        };
        for _ in 0..batches {
            let maps = &self.map.maps;
            let map = match scan.stage {
                Stage::Direct => &maps.flows,
                Stage::Forwards => &maps.forwards,
                Stage::Reverses => &maps.reverses,
            };
            let is_over = scan.batch.read(map, &mut scan.cursor, BATCH)?;
            match scan.stage {
                Stage::Direct => self.sort_direct(&mut scan, now)?,
                Stage::Forwards => {
                    self.sort_forwards(&scan.batch, &mut scan.live, &mut scan.nat, now)?;
                }
                Stage::Reverses => self.sort_reverses(&scan.batch)?,
            }
            if is_over {
                let Some(stage) = self.after(scan.stage) else {
                    self.end_scan(&scan)?;
                    return Ok(true);
                };
                scan.stage = stage;
                scan.cursor = BatchCursor::default();
            }
        }
        self.scan = Some(scan);
        Ok(false)
    }

    /// What is to be walked through next.
    fn after(&mut self, stage: Stage) -> Option<Stage> {
        match stage {
            Stage::Direct => self.nat.has_flows().then_some(Stage::Forwards),
            Stage::Forwards => self.orphans.are_looked_for().then_some(Stage::Reverses),
            Stage::Reverses => None,
        }
    }

    fn begin_scan(&mut self, now: Moment) -> io::Result<Scan> {
        self.collect()?;
        self.accounts.scan_begins();
        self.map.numbers().scan_begins();
        let clock = &self.map.clock;
        let live = LiveFlows::new(clock.nanoseconds(now), clock.nanoseconds(clock.now()?));
        Ok(Scan {
            stage: Stage::Direct,
            cursor: BatchCursor::default(),
            batch: FlowBatch::default(),
            live,
            nat: self.begin_nat(),
        })
    }

    /// Takes expired DSR flows out of the map, and counts the others.
    fn sort_direct(&self, scan: &mut Scan, now: Moment) -> io::Result<()> {
        let flows: Vec<_> = scan.batch.direct().collect();
        let mut over: Vec<u8> = Vec::new();
        for some in flows.chunks(AT_ONCE) {
            let fates = self.fates(
                some.iter().map(|(_, flow)| flow.as_ref().map(|(_, value)| value)),
                now,
            );
            for ((key, flow), fate) in some.iter().zip(fates) {
                match (fate, flow) {
                    (Fate::Lives, Some((_, value))) => scan.live.note(value.target, value.begun),
                    (Fate::Expired(target), Some((_, value))) => {
                        if let Some(handshake) = flow_map::forgotten(value) {
                            target.count_handshake(self.worker, handshake);
                        }
                        over.extend_from_slice(key);
                    }
                    _ => over.extend_from_slice(key),
                }
            }
        }
        if !over.is_empty() {
            self.map.maps.flows.delete_batch(&over)?;
        }
        Ok(())
    }

    fn fates<'a>(&self, flows: impl Iterator<Item = Option<&'a FlowValue>>, now: Moment) -> Vec<Fate> {
        let numbers = self.map.numbers();
        let fate = |flow: Option<&FlowValue>| {
            let Some(flow) = flow else { return Fate::Unknown };
            let Some(numbered) = numbers.of_flow(flow.target, flow.incarnation) else {
                return Fate::Unknown;
            };
            let target = &numbered.target;
            let expires = self
                .map
                .clock
                .moment(flow.seen)
                .after(target.direct_lifetime(flow_map::life(flow.state)));
            if expires <= now {
                Fate::Expired(Arc::clone(target))
            } else {
                Fate::Lives
            }
        };
        flows.map(fate).collect()
    }

    fn end_scan(&mut self, scan: &Scan) -> io::Result<()> {
        self.end_nat(&scan.nat)?;
        // ends of flows of targets whose numbers are given back now
        self.read_traffic()?;
        let mut numbers = self.map.numbers();
        for (number, numbered) in numbers.iter() {
            let seen = self.accounts.scan_ended(number, scan.live.of(number).before);
            count(self.worker, &numbered.target, seen);
        }
        // where something could not be written, it may name a number still
        let free = match self.is_in_force {
            true => numbers.scan_ended(|number| scan.live.of(number).all > 0),
            false => Vec::new(),
        };
        for (_, numbered) in &free {
            // whoever has the number of the server next begins at nothing
            if !numbers.has_server(numbered.server) {
                self.map.maps.claims.set(numbered.server.into(), 0);
            }
        }
        drop(numbers);
        for (number, numbered) in &free {
            let seen = self.accounts.forget(*number);
            count(self.worker, &numbered.target, seen);
        }
        self.count_live();
        self.is_to_be_scanned = false;
        Ok(())
    }
}

/// Counts flows that the scan shows to have begun or ended.
fn count(worker: WorkerId, target: &FlowTarget, seen: SeenElsewhere) {
    if seen != SeenElsewhere::default() {
        target.count_seen(worker, &seen);
    }
}
