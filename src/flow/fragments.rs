//! Fragments: the first one of a datagram has ports and decides, the others follow it, early ones wait for it.
//!
//! ```text
//! first ──────► Decided: where the datagram goes ──► later ones follow, until all its bytes have passed
//! later, early ─► Waiting: copies, for a second ──── first comes ──► sent after it
//! ```
//!
//! Shared by the workers, because the fragments of a datagram may come by different ones. Every list has a bound.

use std::{
    collections::HashMap,
    hash::{Hash, Hasher},
    net::IpAddr,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use super::{Moment, key::Seeded, plan::Plan};
use crate::{base::PacketReason, packet::Fragment};

/// How long an early fragment waits for the first one.
const WAIT: Duration = Duration::from_secs(1);
/// How long later fragments may follow the first one.
const FOLLOW: Duration = Duration::from_secs(5);
const SHARDS: usize = 16;
/// Datagrams of a shard.
const DATAGRAMS: usize = 256;
/// Bytes of a shard that wait.
const WAITING_BYTES: usize = 512 * 1_024;
/// Fragments of a datagram that wait: 65,535 bytes in fragments of 1,280 are 54.
const WAITING_FRAMES: usize = 64;
/// Gaps that a datagram may have for a time.
const GAPS: usize = 32;

/// What the fragments of one datagram have in common (RFC 791, RFC 8200 section 4.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Datagram {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub id: u32,
    pub protocol: u8,
}

impl Hash for Datagram {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.source.hash(state);
        self.destination.hash(state);
        state.write_u64(u64::from(self.id) | u64::from(self.protocol) << 32);
    }
}

/// Where a datagram goes, or why nowhere.
pub(super) type Decision = Result<Plan, PacketReason>;

/// A fragment that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    /// Its place in the datagram.
    pub fragment: Fragment,
    /// The frame, behind [`HEADROOM`](crate::packet::HEADROOM) free bytes.
    pub buffer: Vec<u8>,
    /// By which interface it came.
    pub ifindex: u32,
}

/// What has waited for a first fragment.
#[derive(Debug, Default)]
pub(super) struct Early {
    /// What is to follow it.
    pub followers: Vec<Waiting>,
    /// Fragments dropped because they cannot belong to it.
    pub strangers: usize,
    /// Fragments of another datagram that gave way to it.
    pub displaced: usize,
}

/// What to do with a later fragment.
#[derive(Debug)]
pub(super) enum Follow {
    /// As with the first.
    Decided(Decision),
    /// It has been kept.
    Kept,
    /// It is dropped.
    Refused(PacketReason),
}

#[derive(Debug)]
enum State {
    Waiting(Vec<Waiting>),
    Decided(Decision),
}

#[derive(Debug)]
struct DatagramRecord {
    state: State,
    until: Moment,
    passed: Passed,
}

#[derive(Debug, Default)]
struct FragmentShard {
    datagrams: HashMap<Datagram, DatagramRecord, Seeded>,
    bytes: usize,
}

/// The table.
#[derive(Debug)]
pub(super) struct FragmentTable {
    seeded: Seeded,
    shards: [Mutex<FragmentShard>; SHARDS],
    waiting: AtomicU32,
}

/// Which bytes of a datagram have been seen.
#[derive(Debug, Default)]
struct Passed {
    /// Disjoint, sorted, none touching the next.
    ranges: Vec<(u16, u16)>,
    total: Option<u16>,
}

impl Passed {
    /// Adds a fragment, if it neither overlaps another nor contradicts the end (RFC 5722), and gaps do not become too
    /// many.
    fn add(&mut self, fragment: &Fragment) -> bool {
        let (start, end) = (fragment.offset, fragment.offset.saturating_add(fragment.len));
        let last = self.ranges.last().map_or(0, |(_, end)| *end);
        let fits = match (self.total, fragment.more) {
            (Some(total), true) => end < total,
            (Some(_), false) => false,
            (None, true) => true,
            (None, false) => last <= start,
        };
        let at = self.ranges.partition_point(|range| range.0 < start);
        let before = at
            .checked_sub(1)
            .and_then(|index| self.ranges.get(index))
            .copied();
        let after = self.ranges.get(at).copied();
        let overlaps =
            before.is_some_and(|range| start < range.1) || after.is_some_and(|range| range.0 < end);
        if !fits || overlaps {
            return false;
        }
        let joins_before = before.is_some_and(|range| range.1 == start);
        let joins_after = after.is_some_and(|range| range.0 == end);
        if !joins_before && !joins_after && self.ranges.len() >= GAPS {
            return false;
        }
        let new = (
            before.filter(|_| joins_before).map_or(start, |range| range.0),
            after.filter(|_| joins_after).map_or(end, |range| range.1),
        );
        let replaced = at - usize::from(joins_before)..at + usize::from(joins_after);
        self.ranges.splice(replaced, [new]);
        if !fragment.more {
            self.total = Some(end);
        }
        true
    }

    fn is_whole(&self) -> bool {
        matches!((self.ranges.as_slice(), self.total), ([(0, end)], Some(total)) if *end == total)
    }
}

impl DatagramRecord {
    fn waiting(&self) -> &[Waiting] {
        match &self.state {
            State::Waiting(frames) => frames,
            State::Decided(_) => &[],
        }
    }
}

impl FragmentShard {
    /// Removes a record; what waits in it is given to be counted.
    fn remove(&mut self, datagram: &Datagram) -> Vec<Waiting> {
        let frames = match self.datagrams.remove(datagram).map(|record| record.state) {
            Some(State::Waiting(frames)) => frames,
            Some(State::Decided(_)) | None => Vec::new(),
        };
        self.bytes -= frames.iter().map(|frame| frame.buffer.len()).sum::<usize>();
        frames
    }

    /// Whether there is room for another record.
    fn has_room(&self) -> bool {
        self.datagrams.len() < DATAGRAMS
    }

    fn oldest(&self) -> Option<Datagram> {
        let oldest = self.datagrams.iter().min_by_key(|(_, record)| record.until);
        oldest.map(|(datagram, _)| *datagram)
    }
}

impl FragmentTable {
    pub fn new(seed: u64) -> Self {
        let seeded = Seeded::new(seed);
        Self {
            seeded,
            shards: std::array::from_fn(|_| {
                Mutex::new(FragmentShard {
                    datagrams: HashMap::with_hasher(seeded),
                    bytes: 0,
                })
            }),
            waiting: AtomicU32::new(0),
        }
    }

    fn shard(&self, datagram: &Datagram) -> Option<MutexGuard<'_, FragmentShard>> {
        let shard = self.shards.get(self.seeded.part(datagram, SHARDS))?;
        Some(shard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Fragments that wait now.
    pub fn waiting(&self) -> u32 {
        self.waiting.load(Relaxed)
    }

    fn count_gone(&self, frames: &[Waiting]) {
        let gone = u32::try_from(frames.len()).unwrap_or(u32::MAX);
        self.waiting.fetch_sub(gone, Relaxed);
    }

    /// Remembers what was decided about a datagram by its first fragment. Gives the fragments that have waited for it.
    pub fn decide(&self, datagram: Datagram, first: &Fragment, decision: Decision, now: Moment) -> Early {
        let Some(mut shard) = self.shard(&datagram) else {
            return Early::default();
        };
        let timely = shard
            .datagrams
            .get(&datagram)
            .is_none_or(|record| record.until > now);
        let early = shard.remove(&datagram);
        self.count_gone(&early);
        let mut passed = Passed::default();
        passed.add(first);
        let waited = early.len();
        // those of an older datagram with the same identification have waited for another first one
        let followers: Vec<_> = (early.into_iter())
            .filter(|waiting| timely && passed.add(&waiting.fragment))
            .collect();
        let strangers = waited - followers.len();
        let mut displaced = 0;
        if !passed.is_whole() {
            if !shard.has_room() {
                // what is nearest to its end gives way
                if let Some(oldest) = shard.oldest() {
                    let lost = shard.remove(&oldest);
                    self.count_gone(&lost);
                    displaced = lost.len();
                }
            }
            let record = DatagramRecord {
                state: State::Decided(decision),
                until: now.after(FOLLOW),
                passed,
            };
            shard.datagrams.insert(datagram, record);
        }
        Early {
            followers,
            strangers,
            displaced,
        }
    }

    /// What to do with a later fragment. `may_wait`: whether its destination is ours; `copy` makes the copy to keep.
    /// Gives too how many fragments of an older datagram with the same identification have waited in vain.
    pub fn follow(
        &self,
        datagram: Datagram,
        fragment: &Fragment,
        now: Moment,
        may_wait: bool,
        copy: impl FnOnce() -> Waiting,
    ) -> (Follow, usize) {
        let Some(mut shard) = self.shard(&datagram) else {
            return (Follow::Refused(PacketReason::FragmentTableFull), 0);
        };
        let is_over = |record: &DatagramRecord| record.until <= now;
        let late = if shard.datagrams.get(&datagram).is_some_and(is_over) {
            shard.remove(&datagram)
        } else {
            Vec::new()
        };
        self.count_gone(&late);
        (
            self.follow_in(&mut shard, datagram, fragment, now, may_wait, copy),
            late.len(),
        )
    }

    /// As [`follow`](Self::follow), in the datagram's shard, where nothing of it is over.
    fn follow_in(
        &self,
        shard: &mut FragmentShard,
        datagram: Datagram,
        fragment: &Fragment,
        now: Moment,
        may_wait: bool,
        copy: impl FnOnce() -> Waiting,
    ) -> Follow {
        let FragmentShard { datagrams, bytes } = shard;
        match datagrams.get_mut(&datagram) {
            Some(record) => {
                if let State::Waiting(frames) = &mut record.state {
                    if frames.len() >= WAITING_FRAMES || *bytes >= WAITING_BYTES {
                        return Follow::Refused(PacketReason::FragmentTableFull);
                    }
                    let waiting = copy();
                    *bytes += waiting.buffer.len();
                    frames.push(waiting);
                    self.waiting.fetch_add(1, Relaxed);
                    return Follow::Kept;
                }
                if !record.passed.add(fragment) {
                    return Follow::Refused(PacketReason::BadFragment);
                }
                let is_whole = record.passed.is_whole();
                let decision = match &record.state {
                    State::Decided(decision) => decision.clone(),
                    State::Waiting(_) => return Follow::Kept,
                };
                if is_whole {
                    shard.remove(&datagram);
                }
                Follow::Decided(decision)
            }
            None if !may_wait => Follow::Refused(PacketReason::NotOurs),
            None => {
                if !shard.has_room() || shard.bytes >= WAITING_BYTES {
                    return Follow::Refused(PacketReason::FragmentTableFull);
                }
                let waiting = copy();
                shard.bytes += waiting.buffer.len();
                self.waiting.fetch_add(1, Relaxed);
                let record = DatagramRecord {
                    state: State::Waiting(vec![waiting]),
                    until: now.after(WAIT),
                    passed: Passed::default(),
                };
                shard.datagrams.insert(datagram, record);
                Follow::Kept
            }
        }
    }

    /// Forgets what has waited or followed for too long. Returns the number of fragments that waited in vain.
    pub fn sweep(&self, now: Moment) -> usize {
        let mut lost = 0;
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            let FragmentShard { datagrams, bytes } = &mut *shard;
            for (_, record) in datagrams.extract_if(|_, record| record.until <= now) {
                *bytes -= record
                    .waiting()
                    .iter()
                    .map(|frame| frame.buffer.len())
                    .sum::<usize>();
                self.count_gone(record.waiting());
                lost += record.waiting().len();
            }
        }
        lost
    }
}

#[cfg(any(test, fuzzing))]
impl FragmentTable {
    /// Checks what must be true of the whole table while nobody changes it.
    pub fn check_invariants(&self) {
        let mut waiting = 0;
        for shard in &self.shards {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            let frames = || shard.datagrams.values().flat_map(DatagramRecord::waiting);
            assert!(shard.datagrams.len() <= DATAGRAMS);
            assert_eq!(
                shard.bytes,
                frames().map(|frame| frame.buffer.len()).sum::<usize>()
            );
            waiting += frames().count();
        }
        assert_eq!(waiting, self.waiting() as usize, "fragments that wait");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn part(offset: u16, len: u16, more: bool) -> Fragment {
        Fragment {
            id: 1,
            protocol: 17,
            offset,
            len,
            more,
        }
    }

    #[test]
    fn nothing_follows_the_last_fragment() {
        let mut passed = Passed::default();
        assert!(passed.add(&part(800, 8, false)));
        assert!(!passed.add(&part(808, 8, true)) && !passed.add(&part(1_600, 8, false)));
        let mut passed = Passed::default();
        assert!(passed.add(&part(800, 8, true)));
        assert!(!passed.add(&part(0, 100, false)), "an end before what has passed");
    }

    proptest! {
        #[test]
        fn in_any_order_the_fragments_become_whole_with_the_last_and_none_passes_twice(
            order in Just((0..20_u16).collect::<Vec<_>>()).prop_shuffle(),
        ) {
            let mut passed = Passed::default();
            for (index, place) in order.iter().enumerate() {
                let fragment = part(place * 80, 80, *place < 19);
                prop_assert!(passed.add(&fragment));
                prop_assert!(!passed.add(&fragment));
                let overlapping = part(place * 80 + 40, 80, true);
                prop_assert!(!passed.add(&overlapping));
                prop_assert_eq!(passed.is_whole(), index == 19);
            }
        }
    }
}
