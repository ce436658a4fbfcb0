//! The search for a NAT port and a place for a new flow: free ones, or those of a flow that gives way. Pure; whoever keeps
//! the flows says what is claimed.

use super::yielding::Yield;
use crate::{
    base::PacketReason,
    flow::{key::Key, store::Beginning},
};

/// NAT ports that are tried although a flow has been found whose end nobody would notice: one of them may be free.
const ENOUGH: usize = 8;
/// The same where only half-open ones have been found, which may be honest: at nine tenths claimed, 48 tries find a free
/// port 99 times in 100. In a flood that holds them all, 48 cost a few microseconds.
const ENOUGH_HALF_OPEN: usize = 48;
/// How often somebody else may be faster before a new flow is refused.
const TURNS: usize = 8;

/// Who has claimed a NAT address towards a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// Nobody has.
    Nobody,
    /// A flow has.
    By {
        /// The flow's forward key.
        holder: Key,
        /// How gladly it gives way to the new one; `None`: not at all, or it is not known.
        rank: Option<Yield>,
    },
}

/// Claims of NAT addresses, and places for flows, while others claim and take them too.
pub trait Claims {
    /// Who has claimed the NAT address of a reverse key. A holder is ranked only if it has that reverse key still.
    fn held(&self, reverse: &Key, new: &Beginning) -> Held;

    /// Claims it for the flow of a forward key; false: somebody has it.
    fn claim(&self, reverse: &Key, forward: &Key) -> bool;

    /// Some flow of any server that gives its place up and [helps](Yield::helps), where there is no place because of
    /// `full`: its rank, forward key and reverse key.
    fn somebody(&self, new: &Beginning, full: PacketReason) -> Option<(Yield, Key, Key)>;

    /// Ends a flow that gives way, its claim and its place too, unless it has become another since it was looked at; false:
    /// it has, or is gone.
    fn take_away(&self, holder: &Key, reverse: &Key, new: &Beginning) -> bool;

    /// Takes a place for a half-open flow.
    ///
    /// # Errors
    /// Why there is none.
    fn take_place(&self) -> Result<(), PacketReason>;

    /// Gives a place that was taken back.
    fn give_place(&self);
}

/// What came of one look.
enum Claim {
    Port(Key),
    /// Somebody else was faster.
    Lost,
    /// None is free, and nobody gives one up.
    Nothing,
}

/// Claims the first of the reverse keys that is free, or that whose holder gives way most gladly, and a place for the new
/// flow: both are the caller's then.
///
/// # Errors
/// Why there is no place, or no port.
pub fn claim(
    claims: &impl Claims,
    new: &Beginning,
    reverse_keys: &(impl Iterator<Item = Key> + Clone),
) -> Result<Key, PacketReason> {
    let full = claims.take_place().err();
    for _ in 0..TURNS {
        match claim_one(claims, new, reverse_keys.clone(), full) {
            Claim::Port(reverse) => return Ok(reverse),
            Claim::Lost => {}
            Claim::Nothing => break,
        }
    }
    if full.is_none() {
        claims.give_place();
    }
    Err(full.unwrap_or(PacketReason::PortsExhausted))
}

/// `full`: why there is no place for a flow unless another gives its own up; then a port comes with that place.
fn claim_one(
    claims: &impl Claims,
    new: &Beginning,
    reverse_keys: impl Iterator<Item = Key>,
    full: Option<PacketReason>,
) -> Claim {
    let (mut free, mut best) = (None, None::<(Yield, Key, Key)>);
    for (tried, reverse) in reverse_keys.enumerate() {
        match claims.held(&reverse, new) {
            Held::Nobody if full.is_none() => {
                if claims.claim(&reverse, &new.key) {
                    return Claim::Port(reverse);
                }
            }
            Held::Nobody => {
                free.get_or_insert(reverse);
            }
            Held::By { holder, rank } => {
                if let Some(rank) = rank.filter(|rank| full.is_none_or(|why| rank.helps(why)))
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
    if let (None, Some(_), Some(why)) = (best, free, full) {
        best = claims.somebody(new, why);
    }
    match best {
        Some((_, holder, reverse)) => take_over(claims, new, (&holder, &reverse), free, full.is_some()),
        None => Claim::Nothing,
    }
}

/// Ends a flow, and claims a free NAT address, or else the one that it had.
fn take_over(
    claims: &impl Claims,
    new: &Beginning,
    (holder, reverse): (&Key, &Key),
    free: Option<Key>,
    needs_place: bool,
) -> Claim {
    if !claims.take_away(holder, reverse, new) || (needs_place && claims.take_place().is_err()) {
        return Claim::Lost;
    }
    let wanted = free.unwrap_or(*reverse);
    if claims.claim(&wanted, &new.key) {
        return Claim::Port(wanted);
    }
    if needs_place {
        claims.give_place();
    }
    Claim::Lost
}

#[cfg(test)]
mod tests;
