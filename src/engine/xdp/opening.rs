//! Making a passthrough flow in the program's maps: with a place and a NAT port, free ones or those of a flow that gives way.

use std::{io, net::SocketAddr, sync::Arc};

use super::{
    batch::FlowBatch,
    flow_map::{complain, life},
    keys::{flow_key, origin_key, path_key},
    layout::{EndpointKey, ForwardValue, HalfValue, ReverseValue, StateCode, WatchCode},
    nat_map::{FoundFlow, NatMap},
};
use crate::{
    balance::hash::below,
    base::PacketReason,
    flow::{
        FlowTarget,
        stored::{
            Beginning, Claims, Held, Key, NewFlow, Numbers, ReturnOrigin, SegmentKind, Yield, claim, rank,
        },
    },
    sys::bpf::{BatchCursor, Insert},
};

/// Where there is no place: flows that are looked at for one that gives its own up, and how many of them at once.
const TRIED: u32 = 4_096;
const AT_ONCE: u32 = 64;

/// A flow that is being made.
struct Opening<'a> {
    nat: &'a NatMap,
    /// What its entry of the server's packets is to be.
    reverse: ReverseValue,
}

impl NatMap {
    /// Makes a flow with one of the NAT addresses that nobody holds towards its server, or whose holder gives way, and gives
    /// that. `None`: somebody else has just made one of this key.
    ///
    /// # Errors
    /// Why there can be none.
    pub fn open(
        &self,
        new: &Beginning,
        flow: &NewFlow,
        origin: ReturnOrigin,
        reverse_keys: &(impl Iterator<Item = Key> + Clone),
    ) -> Result<Option<SocketAddr>, PacketReason> {
        // a server that has just been configured is known to the program in a moment, as one whose link address is asked for
        let (number, incarnation, server) = self.known(&flow.target).ok_or(PacketReason::Unresolved)?;
        let now = self.map.clock.nanoseconds(new.now);
        let reverse = ReverseValue {
            seen: now,
            begun: now,
            client: flow_key(&new.key),
            target: number.into(),
            incarnation,
            half: HalfValue::default(),
            peer_fin: None,
            origin: origin_key(&origin),
            state: first_state(new),
            is_followed: false,
        };
        let opening = Opening { nat: self, reverse };
        let reverse = claim(&opening, new, reverse_keys)?;
        // before the flow can be seen: who ends it releases the port
        self.counts().claim_port(server);
        let forward = opening.forward(new, &reverse);
        let key = flow_key(&new.key).to_bytes();
        let Err(error) = (self.map.maps.forwards).update(&key, &forward.to_bytes(), Insert::New) else {
            flow.target.count_opened(new.worker);
            self.map.numbers().opened(number);
            return Ok(Some(reverse.to()));
        };
        self.counts().release_port(server);
        opening.unclaim(&reverse);
        self.counts().give_place();
        if error.kind() == io::ErrorKind::AlreadyExists {
            return Ok(None);
        }
        complain("make a flow", &error);
        Err(PacketReason::TableFull)
    }

    /// Number, incarnation and server of a target that the program knows.
    fn known(&self, target: &Arc<FlowTarget>) -> Option<(u16, u32, u16)> {
        let numbers = self.map.numbers();
        let number = numbers.number(target, false)?;
        let numbered = numbers.get(number).filter(|numbered| numbered.is_written)?;
        Some((number, numbered.incarnation, numbered.server))
    }
}

const fn first_state(new: &Beginning) -> StateCode {
    match new.segment.kind {
        SegmentKind::Datagram => StateCode::Asked,
        _ => StateCode::Syn,
    }
}

impl Opening<'_> {
    /// What its entry of the client's packets is to be.
    fn forward(&self, new: &Beginning, reverse: &Key) -> ForwardValue {
        let client = Numbers::new(&new.segment).client;
        ForwardValue {
            seen: self.reverse.seen,
            begun: self.reverse.begun,
            nat: EndpointKey {
                addr: reverse.to(),
                protocol: reverse.protocol(),
            },
            target: self.reverse.target,
            incarnation: self.reverse.incarnation,
            half: HalfValue {
                end: client.end,
                acknowledged: client.acknowledged,
                fin: None,
            },
            peer_fin: None,
            other_syn: None,
            clock: None,
            origin: self.reverse.origin,
            state: self.reverse.state,
            watch: match new.segment.kind {
                SegmentKind::Open => WatchCode::Awaited,
                _ => WatchCode::Over,
            },
            first_fin: None,
            is_followed: false,
            shared: None,
        }
    }

    fn unclaim(&self, reverse: &Key) {
        if let Err(error) = (self.nat.map.maps.reverses).delete(&flow_key(reverse).to_bytes()) {
            complain("give a NAT port back", &error);
        }
    }

    /// Whether a flow may give way, as far as its client's entry shows.
    fn may_yield(&self, key: &Key, forward: &ForwardValue, new: &Beginning) -> bool {
        let life = life(forward.state);
        let is_open = !life.is_unproven() && !life.can_reopen();
        !is_open || (self.nat.glimpse(key, forward)).is_some_and(|glimpse| glimpse.expires <= new.now)
    }

    /// The most willing of some flows.
    fn most_willing(
        &self,
        some: &FlowBatch,
        new: &Beginning,
        full: PacketReason,
    ) -> Option<(Yield, Key, Key)> {
        let flows = some.forwards().filter_map(|(_, flow)| flow);
        let ranked = flows.filter_map(|(key, forward)| {
            let key = path_key(&key);
            if !self.may_yield(&key, &forward, new) {
                return None;
            }
            let FoundFlow { flow, .. } = self.nat.join(&key, &forward)?;
            let rank = rank(&flow, new).filter(|rank| rank.helps(full))?;
            Some((rank, key, flow.reverse))
        });
        ranked.min_by_key(|(rank, ..)| *rank)
    }
}

impl Claims for Opening<'_> {
    fn held(&self, reverse: &Key, new: &Beginning) -> Held {
        let Some(value) = self.nat.reverse(reverse) else {
            return Held::Nobody;
        };
        let holder = path_key(&value.client);
        let found = self
            .nat
            .forward(&holder)
            .filter(|forward| forward.begun == value.begun);
        let found = found.and_then(|forward| self.nat.join(&holder, &forward));
        let rank = found
            .filter(|found| found.flow.reverse == *reverse)
            .and_then(|found| rank(&found.flow, new));
        Held::By { holder, rank }
    }

    fn claim(&self, reverse: &Key, _: &Key) -> bool {
        let key = flow_key(reverse).to_bytes();
        match (self.nat.map.maps.reverses).update(&key, &self.reverse.to_bytes(), Insert::New) {
            Ok(()) => true,
            Err(error) => {
                if error.kind() != io::ErrorKind::AlreadyExists {
                    complain("claim a NAT port", &error);
                }
                false
            }
        }
    }

    fn somebody(&self, new: &Beginning, full: PacketReason) -> Option<(Yield, Key, Key)> {
        let forwards = &self.nat.map.maps.forwards;
        let buckets = forwards.info().max_entries.next_power_of_two();
        let first = u32::try_from(below(new.random, buckets.into())).unwrap_or(0);
        let (mut cursor, mut batch) = (BatchCursor::at_bucket(first), FlowBatch::default());
        for _ in 0..TRIED / AT_ONCE {
            if cursor.is_at_end() {
                cursor = BatchCursor::default();
            }
            if let Err(error) = batch.read(forwards, &mut cursor, AT_ONCE) {
                complain("look for a flow that gives way", &error);
                return None;
            }
            let found = self.most_willing(&batch, new, full);
            if found.is_some() {
                return found;
            }
        }
        None
    }

    fn take_away(&self, holder: &Key, reverse: &Key, new: &Beginning) -> bool {
        let found = self
            .nat
            .find(holder)
            .filter(|found| found.flow.reverse == *reverse);
        let yields = found.filter(|found| rank(&found.flow, new).is_some());
        let has_ended = yields.is_some_and(|found| self.nat.end(holder, found.begun));
        if has_ended {
            self.nat.counts().give_way();
        }
        has_ended
    }

    fn take_place(&self) -> Result<(), PacketReason> {
        self.nat.counts().take_place()
    }

    fn give_place(&self) {
        self.nat.counts().give_place();
    }
}
