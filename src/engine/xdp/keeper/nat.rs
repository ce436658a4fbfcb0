//! What a scan does about passthrough flows: the program ends those that have expired; ways back, permits, shares and counters are
//! compared with those that live.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::IpAddr,
};

use super::{AT_ONCE, Keeper, live::LiveFlows};
use crate::{
    engine::xdp::{
        audit::Reading,
        batch::FlowBatch,
        claims::{FLOWS, HALF_OPEN},
        flow_map::life,
        keys::path_key,
        layout::{FlowKey, ForwardValue, ReverseValue, ShareKey},
        nat_map::{Glimpse, note_origin},
        numbers::Numbered,
    },
    flow::{
        FlowTarget, Moment,
        stored::{Key, ReturnOrigin},
    },
    sys::bpf::BatchCursor,
};

/// Scans after which NAT ports are looked for that are claimed for no flow: whoever makes one may have died between its two
/// entries.
const ORPHANS_EVERY: u32 = 30;
/// Such ports that are remembered until they are seen again.
const SUSPECTS: usize = 4_096;

/// What a scan has found.
#[derive(Debug, Default)]
pub(super) struct NatScan {
    /// What is counted of them, by its place among the counters.
    found: HashMap<usize, i64>,
    /// What the counters stood at when it began.
    began: BTreeMap<usize, i64>,
    /// Where replies of flows go back to whose clients are proven, each with one client there.
    origins: HashMap<ReturnOrigin, IpAddr>,
}

/// NAT ports that are claimed for no flow. They are given back when two walks have found them so.
#[derive(Debug, Default)]
pub(super) struct Orphans {
    scans: u32,
    /// When each flow that is missing began, by the key of its server's packets.
    suspects: HashMap<FlowKey, u64>,
    found: HashMap<FlowKey, u64>,
}

impl Orphans {
    /// Whether this scan is to walk through the servers' entries, too.
    pub fn are_looked_for(&mut self) -> bool {
        self.scans = self.scans.wrapping_add(1);
        self.scans.is_multiple_of(ORPHANS_EVERY) || !self.suspects.is_empty()
    }

    /// Has the next scan do so: there may be ones of an engine before this one.
    pub const fn look_now(&mut self) {
        self.scans = ORPHANS_EVERY - 1;
    }

    /// Takes in one that was found. Whether it was found before.
    fn is_one(&mut self, key: FlowKey, begun: u64) -> bool {
        if self.suspects.get(&key) == Some(&begun) {
            return true;
        }
        if self.found.len() < SUSPECTS {
            self.found.insert(key, begun);
        }
        false
    }
}

impl NatScan {
    fn note(&mut self, key: &Key, forward: &ForwardValue, glimpse: &Glimpse) {
        let life = life(forward.state);
        let mut count = |place: usize, is_one: bool| {
            *self.found.entry(place).or_default() += i64::from(is_one);
        };
        count(FLOWS, true);
        count(HALF_OPEN, life.is_half_open());
        count(glimpse.server.into(), !life.can_reopen());
        note_origin(&mut self.origins, key, forward);
    }
}

impl Keeper {
    pub(super) fn begin_nat(&mut self) -> NatScan {
        self.has_shares |= self.nat.has_flows();
        self.nat.aside.scan_begins();
        let numbers = self.map.numbers();
        let servers = numbers.iter().filter(|(_, numbered)| !numbered.is_dsr);
        let places = servers.map(|(_, numbered)| usize::from(numbered.server));
        let claims = &self.map.maps.claims;
        NatScan {
            began: places
                .chain([FLOWS, HALF_OPEN])
                .map(|place| (place, claims.get(place)))
                .collect(),
            ..NatScan::default()
        }
    }

    /// Ends expired flows, and counts the others.
    pub(super) fn sort_forwards(
        &self,
        some: &FlowBatch,
        live: &mut LiveFlows,
        scan: &mut NatScan,
        now: Moment,
    ) -> io::Result<()> {
        let mut foreign: Vec<u8> = Vec::new();
        for (bytes, flow) in some.forwards() {
            let Some((key, forward)) = flow else {
                foreign.extend_from_slice(bytes);
                continue;
            };
            let key = path_key(&key);
            let Some(glimpse) = self.nat.glimpse(&key, &forward) else {
                // of nothing that has a number
                if !self.nat.end(&key, forward.begun) {
                    foreign.extend_from_slice(bytes);
                }
                continue;
            };
            let lives = glimpse.expires > now
                || (self.nat.join(&key, &forward)).is_some_and(|found| found.flow.expires() > now);
            if !lives {
                self.nat.end(&key, forward.begun);
                continue;
            }
            live.note(forward.target, forward.begun);
            scan.note(&key, &forward, &glimpse);
            self.count_for_client(&key, &forward, &glimpse.target, now);
        }
        if !foreign.is_empty() {
            self.map.maps.forwards.delete_batch(&foreign)?;
        }
        Ok(())
    }

    /// Has all flows that were taken over count for their clients where there are limits: before others can begin there, which the
    /// slow path lets in.
    pub(super) fn count_for_clients(&self, now: Moment) {
        let has_limits = |(_, numbered): (u16, &Numbered)| numbered.target.access().is_some();
        if self.taken_over == 0 || !self.map.numbers().iter().any(has_limits) {
            return;
        }
        self.nat.for_each_live(now, &mut |key, forward, glimpse| {
            self.count_for_client(key, forward, &glimpse.target, now);
        });
    }

    /// Has a flow of a frontend with limits go on to count for its client, as it did for an engine before this one.
    fn count_for_client(&self, key: &Key, forward: &ForwardValue, target: &FlowTarget, now: Moment) {
        let Some(access) = target.access() else { return };
        let life = life(forward.state);
        let is_counted = self.nat.aside.found(key, forward.begun);
        if is_counted || forward.begun > self.taken_over || life.is_unproven() || life.can_reopen() {
            return;
        }
        let take = || access.count(key.from().ip(), now.0);
        // a connection is not ended for limits that are lower than they were: it is tried again as long as it lives
        let _ = self.nat.aside.count(*key, forward.begun, take);
    }

    /// Looks for entries of servers' packets whose flows are not there.
    pub(super) fn sort_reverses(&mut self, some: &FlowBatch) -> io::Result<()> {
        let mut over: Vec<u8> = Vec::new();
        for (bytes, flow) in some.reverses() {
            let Some((key, reverse)) = flow else {
                over.extend_from_slice(bytes);
                continue;
            };
            if !self.is_whole(&key, &reverse)? && self.orphans.is_one(key, reverse.begun) {
                over.extend_from_slice(bytes);
            }
        }
        if !over.is_empty() {
            self.map.maps.reverses.delete_batch(&over)?;
        }
        Ok(())
    }

    /// Whether the flow of an entry of a server's packets has the other entry.
    fn is_whole(&self, key: &FlowKey, reverse: &ReverseValue) -> io::Result<bool> {
        let mut value = [0; ForwardValue::SIZE];
        let client = reverse.client.to_bytes();
        let is_there = self.map.maps.forwards.lookup(&client, &mut value)?;
        let forward = ForwardValue::from_bytes(&value).filter(|_| is_there);
        Ok(forward.is_some_and(|forward| forward.begun == reverse.begun && forward.nat == key.to))
    }

    pub(super) fn end_nat(&mut self, scan: &NatScan) -> io::Result<()> {
        self.orphans.suspects = std::mem::take(&mut self.orphans.found);
        self.nat.returns.retain(&scan.origins);
        self.nat.returns.take_over(&self.moved_before);
        self.moved_before
            .retain(|origin, _| scan.origins.contains_key(origin));
        self.nat.aside.scan_ended();
        self.correct(scan);
        if self.has_shares {
            self.has_shares = self.drop_empty_shares()?;
        }
        Ok(())
    }

    /// Puts counters right that are wrong.
    fn correct(&mut self, scan: &NatScan) {
        let claims = &self.map.maps.claims;
        let reading = |(place, began): (&usize, &i64)| {
            let reading = Reading {
                began: *began,
                ended: claims.get(*place),
                found: scan.found.get(place).copied().unwrap_or(0),
            };
            (*place, reading)
        };
        let readings = scan.began.iter().map(reading).collect();
        for (place, more) in self.audit.take(readings) {
            tracing::warn!(
                event = "xdp_count_corrected",
                place,
                more,
                "the program counts {more} flows or NAT ports less than there are: put right"
            );
            claims.add(place, more);
        }
    }

    /// Clients that hold no NAT port have no entry. Whether others do.
    fn drop_empty_shares(&self) -> io::Result<bool> {
        let shares = &self.map.maps.shares;
        let (mut cursor, mut keys, mut values) = (BatchCursor::default(), Vec::new(), Vec::new());
        let is_empty = |held: &[u8; 8]| i64::from_ne_bytes(*held) <= 0;
        let mut is_held = false;
        while !cursor.is_at_end() {
            shares.lookup_batch(&mut cursor, AT_ONCE, &mut keys, &mut values)?;
            for (key, held) in keys.chunks_exact(ShareKey::SIZE).zip(values.as_chunks().0) {
                // it may have come to hold one meanwhile
                let mut now = [0; 8];
                if is_empty(held) && shares.lookup(key, &mut now)? && is_empty(&now) {
                    shares.delete(key)?;
                } else {
                    is_held = true;
                }
            }
        }
        Ok(is_held)
    }
}
