//! A walk through all flows, some at a time: those that have expired are forgotten, those that have ended are found out.

use std::{collections::HashMap, io, sync::Arc};

use super::{Keeper, nat::NatScan};
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
    /// When it began, on the program's clock.
    start: u64,
    /// Live DSR flows by the number of their target; those of them that had begun before the scan.
    live: HashMap<u16, Live>,
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

#[derive(Debug, Default, Clone, Copy)]
struct Live {
    all: u64,
    from_before: u64,
}

/// What a scan does with a DSR flow.
enum Fate {
    Lives(u16),
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
    ///
    /// # Errors
    /// The kernel refused; then the scan is given up.
    pub fn scan_some(&mut self, now: Moment, batches: usize) -> io::Result<bool> {
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
                Stage::Forwards => self.sort_forwards(&scan.batch, &mut scan.nat, now)?,
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
        Ok(Scan {
            stage: Stage::Direct,
            cursor: BatchCursor::default(),
            batch: FlowBatch::default(),
            start: self.map.clock.nanoseconds(now),
            live: HashMap::new(),
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
                    (Fate::Lives(number), Some((_, value))) => {
                        let live = scan.live.entry(number).or_default();
                        live.all += 1;
                        live.from_before += u64::from(value.begun <= scan.start);
                    }
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
            let known = numbers.of_flow(flow.target, flow.incarnation);
            // what has a number has one of 16 bits
            let (Some(numbered), Ok(number)) = (known, u16::try_from(flow.target)) else {
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
                Fate::Lives(number)
            }
        };
        flows.map(fate).collect()
    }

    fn end_scan(&mut self, scan: &Scan) -> io::Result<()> {
        self.end_nat(&scan.nat)?;
        // ends of flows of targets whose numbers are given back now
        self.read_traffic()?;
        let live = |number: u16| scan.live.get(&number).copied().unwrap_or_default();
        let mut numbers = self.map.numbers();
        for (number, numbered) in numbers.iter() {
            let closed = self.accounts.scan_ended(number, live(number).from_before);
            close(self.worker, &numbered.target, closed);
        }
        let free = numbers.scan_ended(|number| live(number).all > 0 || scan.nat.has_flows(number));
        for (_, numbered) in &free {
            // whoever has the number of the server next begins at nothing
            if !numbers.has_server(numbered.server) {
                self.map.maps.claims.set(numbered.server.into(), 0);
            }
        }
        drop(numbers);
        for (number, numbered) in &free {
            let closed = self.accounts.forget(*number);
            close(self.worker, &numbered.target, closed);
        }
        self.count_live();
        Ok(())
    }
}

/// Counts DSR flows that have ended.
fn close(worker: WorkerId, target: &FlowTarget, closed: u64) {
    if closed > 0 {
        let seen = SeenElsewhere {
            closed,
            ..SeenElsewhere::default()
        };
        target.count_seen(worker, &seen);
    }
}
