//! Making a flow in the tables in memory, with a place and a NAT port.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use super::{
    NatFlow, NatTable,
    claiming::{Claims, Held, claim},
    yielding::{Yield, rank},
};
use crate::{
    balance::hash::below,
    base::PacketReason,
    flow::{key::Key, quota::Quota, store::Beginning},
};

/// Where the table is full: shards that are searched for one with a flow that gives way, and flows looked at in each.
const SHARDS_TRIED: usize = 64;
const FLOWS_TRIED: usize = 64;

/// The table and the room for its flows.
struct Room<'a> {
    table: &'a NatTable,
    quota: &'a Quota,
}

impl NatTable {
    /// Makes a flow with one of the NAT addresses that nobody holds towards its server, or whose holder gives way, and
    /// gives that. `flow` makes it of its reverse key. `None`: another worker has just made one of this key.
    ///
    /// # Errors
    /// Why there can be none.
    pub fn open(
        &self,
        quota: &Quota,
        new: &Beginning,
        reverse_keys: &(impl Iterator<Item = Key> + Clone),
        flow: impl FnOnce(Key) -> NatFlow,
    ) -> Result<Option<SocketAddr>, PacketReason> {
        let room = Room { table: self, quota };
        let reverse = claim(&room, new, reverse_keys)?;
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
        room.give_place();
        Ok(None)
    }
}

impl Claims for Room<'_> {
    fn held(&self, reverse: &Key, new: &Beginning) -> Held {
        let Some(holder) = self.table.holder(reverse) else {
            return Held::Nobody;
        };
        let rank = (self.table.forward(&holder)).and_then(|shard| {
            let flow = shard.flows.get(&holder).filter(|flow| flow.reverse == *reverse)?;
            rank(flow, new)
        });
        Held::By { holder, rank }
    }

    fn claim(&self, reverse: &Key, forward: &Key) -> bool {
        self.table.claim(reverse, *forward)
    }

    fn somebody(&self, new: &Beginning, full: PacketReason) -> Option<(Yield, Key, Key)> {
        let shards = self.table.forward.len();
        let start = usize::try_from(below(new.random, shards as u64)).unwrap_or_default();
        let some = self.table.forward.iter().cycle().skip(start);
        some.take(shards.min(SHARDS_TRIED)).find_map(|line| {
            let shard = line.lock();
            (shard.flows.iter().take(FLOWS_TRIED))
                .filter_map(|(key, flow)| {
                    let rank = rank(flow, new).filter(|rank| rank.helps(full))?;
                    Some((rank, *key, flow.reverse))
                })
                .min_by_key(|(rank, ..)| *rank)
        })
    }

    fn take_away(&self, holder: &Key, reverse: &Key, new: &Beginning) -> bool {
        let Some(mut shard) = self.table.forward(holder) else {
            return false;
        };
        let still = (shard.flows.get(holder))
            .is_some_and(|flow| flow.reverse == *reverse && rank(flow, new).is_some());
        let ended = still.then(|| shard.remove(holder)).flatten();
        shard.check();
        drop(shard);
        let Some(flow) = ended else { return false };
        self.table.forget(self.quota, flow, new.worker);
        self.table.gave_way.fetch_add(1, Relaxed);
        true
    }

    fn take_place(&self) -> Result<(), PacketReason> {
        self.quota.take_nat()
    }

    fn give_place(&self) {
        self.quota.give_nat(true);
    }
}
