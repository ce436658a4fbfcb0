//! Making a flow: a place in the table and a NAT port, free ones or those of a flow that gives way.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use super::{
    NatFlow, NatTable,
    yielding::{Yield, rank},
};
use crate::{
    balance::hash::below,
    base::PacketReason,
    flow::{key::Key, quota::Quota, store::Beginning},
};

/// NAT ports that are tried although a flow has been found whose end nobody would notice: one of them may be free.
const ENOUGH: usize = 8;
/// The same where only half-open ones have been found, which may be honest: at nine tenths claimed, 48 tries find a free
/// port 99 times in 100. In a flood that holds them all, 48 cost a few microseconds.
const ENOUGH_HALF_OPEN: usize = 48;
/// Where the table is full: shards that are searched for one with a flow that gives way, and flows looked at in each.
const SHARDS_TRIED: usize = 64;
const FLOWS_TRIED: usize = 64;

/// How often another worker may be faster before a new flow is refused.
const TURNS: usize = 4;

/// What came of a look for a NAT port.
enum Claim {
    Port(Key),
    /// Another worker was faster.
    Lost,
    /// None is free, and nobody gives one up.
    Nothing,
}

impl NatTable {
    /// Makes a flow with one of the NAT addresses that nobody holds towards its server, or whose holder gives way, and
    /// gives that. `flow` makes it of its reverse key. `None`: another worker has just made one of this key.
    ///
    /// # Errors
    /// Why there can be none.
    pub fn open(
        &self,
        room: &Quota,
        new: &Beginning,
        reverse_keys: &(impl Iterator<Item = Key> + Clone),
        flow: impl FnOnce(Key) -> NatFlow,
    ) -> Result<Option<SocketAddr>, PacketReason> {
        let full = room.take_nat().err();
        let mut claim = Claim::Lost;
        for _ in 0..TURNS {
            if !matches!(claim, Claim::Lost) {
                break;
            }
            claim = self.claim_one(room, new, reverse_keys.clone(), full);
        }
        let Claim::Port(reverse) = claim else {
            if full.is_none() {
                room.give_nat(true);
            }
            return Err(full.unwrap_or(PacketReason::PortsExhausted));
        };
        let flow = flow(reverse);
        debug_assert!(flow.life.is_half_open() && flow.reverse == reverse);
        let target = Arc::clone(&flow.target);
        // before the flow can be seen: who ends it releases the port
        target.claim_port();
        if self.insert(new.key, flow) {
            target.count_opened(new.worker);
            return Ok(Some(reverse.to()));
        }
        target.release_port();
        if let Some(mut shard) = self.reverse(&reverse) {
            shard.remove(&reverse);
        }
        room.give_nat(true);
        Ok(None)
    }

    /// Claims one of the NAT addresses. `full`: why there is no place for a flow unless another gives its own up; then a
    /// port comes with that place.
    fn claim_one(
        &self,
        room: &Quota,
        new: &Beginning,
        reverse_keys: impl Iterator<Item = Key>,
        full: Option<PacketReason>,
    ) -> Claim {
        let has_place = full.is_none();
        let (mut free, mut best) = (None, None::<(Yield, Key, Key)>);
        for (tried, reverse) in reverse_keys.enumerate() {
            match self.holder(&reverse) {
                None if has_place => {
                    if self.claim(&reverse, new.key) {
                        return Claim::Port(reverse);
                    }
                }
                None => {
                    free.get_or_insert(reverse);
                }
                Some(holder) => {
                    let found = self.forward(&holder).and_then(|shard| {
                        let flow = shard.flows.get(&holder).filter(|flow| flow.reverse == reverse)?;
                        rank(flow, new).filter(|rank| full.is_none_or(|why| rank.helps(why)))
                    });
                    if let Some(rank) = found
                        && best.is_none_or(|(best, ..)| rank < best)
                    {
                        best = Some((rank, holder, reverse));
                    }
                }
            }
            let enough = best.map(|(best, ..)| if best.is_over() { ENOUGH } else { ENOUGH_HALF_OPEN });
            if enough.is_some_and(|enough| tried + 1 >= enough) {
                break;
            }
        }
        // a place elsewhere is of use only with a free port here: that of another server's flow is none
        if best.is_none() && free.is_some() {
            best = self.somebody(new, full);
        }
        let Some((_, holder, reverse)) = best else {
            return Claim::Nothing;
        };
        if !self.take_away(room, &holder, &reverse, new) || (full.is_some() && room.take_nat().is_err()) {
            return Claim::Lost;
        }
        let wanted = free.unwrap_or(reverse);
        if self.claim(&wanted, new.key) {
            return Claim::Port(wanted);
        }
        if full.is_some() {
            room.give_nat(true);
        }
        Claim::Lost
    }

    /// A flow of any server that gives its place up: where the table is full, not the ports.
    fn somebody(&self, new: &Beginning, full: Option<PacketReason>) -> Option<(Yield, Key, Key)> {
        let shards = self.forward.len();
        let start = usize::try_from(below(new.random, shards as u64)).unwrap_or_default();
        let some = self.forward.iter().cycle().skip(start);
        some.take(shards.min(SHARDS_TRIED)).find_map(|line| {
            let shard = line.lock();
            (shard.flows.iter().take(FLOWS_TRIED))
                .filter_map(|(key, flow)| {
                    let rank = rank(flow, new).filter(|rank| full.is_none_or(|why| rank.helps(why)))?;
                    Some((rank, *key, flow.reverse))
                })
                .min_by_key(|(rank, ..)| *rank)
        })
    }

    /// Ends a flow that gives way, unless it has become another since it was looked at.
    fn take_away(&self, room: &Quota, holder: &Key, reverse: &Key, new: &Beginning) -> bool {
        let Some(mut shard) = self.forward(holder) else {
            return false;
        };
        let still = (shard.flows.get(holder))
            .is_some_and(|flow| flow.reverse == *reverse && rank(flow, new).is_some());
        let ended = still.then(|| shard.remove(holder)).flatten();
        shard.check();
        drop(shard);
        let Some(flow) = ended else { return false };
        self.forget(room, flow, new.worker);
        self.gave_way.fetch_add(1, Relaxed);
        true
    }
}
