//! Capability sets of the calling thread (crate `caps`). Sets are per thread: change them before starting any.

use caps::{CapSet, Capability, CapsHashSet, errors::CapsError};

/// Empties the bounding set, if the thread has the CAP_SETPCAP that this needs. Returns whether it did.
///
/// # Errors
/// The kernel refused although it should not.
pub fn try_clear_bounding() -> Result<bool, CapsError> {
    if !caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        return Ok(false);
    }
    caps::clear(None, CapSet::Bounding)?;
    Ok(true)
}

/// Makes those of `wanted` that are permitted inheritable too. Must come before [`try_clear_bounding`]: the kernel lets the
/// inheritable set grow only within the bounding set.
///
/// # Errors
/// The kernel refused, which it never does for capabilities that the thread has.
pub fn make_inheritable(wanted: &[Capability]) -> Result<(), CapsError> {
    let permitted = caps::read(None, CapSet::Permitted)?;
    let bounding = caps::read(None, CapSet::Bounding)?;
    let mut inheritable = caps::read(None, CapSet::Inheritable)?;
    let possible = |cap: &Capability| permitted.contains(cap) && bounding.contains(cap);
    inheritable.extend(wanted.iter().copied().filter(possible));
    caps::set(None, CapSet::Inheritable, &inheritable)
}

/// Keeps those of `wanted` that are permitted, effective too, and of these inheritable those of `inheritable` that
/// already are; gives up all others and all ambient ones. The bounding set stays. Returns what is kept.
///
/// # Errors
/// The kernel refused, which it never does when capabilities are given up.
pub fn keep_only(wanted: &[Capability], inheritable: &[Capability]) -> Result<Kept, CapsError> {
    let permitted = caps::read(None, CapSet::Permitted)?;
    let effective = caps::read(None, CapSet::Effective)?;
    let inherited = caps::read(None, CapSet::Inheritable)?;
    let kept: CapsHashSet = only(wanted, &permitted);
    let heritage: CapsHashSet = only(inheritable, &kept.intersection(&inherited).copied().collect());
    caps::clear(None, CapSet::Ambient)?;
    caps::set(None, CapSet::Inheritable, &heritage)?;
    // effective must stay within permitted at every step
    caps::set(
        None,
        CapSet::Effective,
        &kept.intersection(&effective).copied().collect(),
    )?;
    caps::set(None, CapSet::Permitted, &kept)?;
    caps::set(None, CapSet::Effective, &kept)?;
    Ok(Kept {
        held: mask(&kept),
        inheritable: mask(&heritage),
    })
}

/// Gives up a capability, whether it is there or not. The bounding set stays.
///
/// # Errors
/// The kernel refused, which it never does when capabilities are given up.
pub fn give_up(cap: Capability) -> Result<(), CapsError> {
    caps::drop(None, CapSet::Ambient, cap)?;
    caps::drop(None, CapSet::Inheritable, cap)?;
    caps::drop(None, CapSet::Effective, cap)?;
    caps::drop(None, CapSet::Permitted, cap)
}

/// What [`keep_only`] left, a bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// Permitted and effective.
    pub held: u64,
    /// Inheritable, of these.
    pub inheritable: u64,
}

fn only(wanted: &[Capability], among: &CapsHashSet) -> CapsHashSet {
    let wanted = wanted.iter().copied();
    wanted.filter(|cap| among.contains(cap)).collect()
}

fn mask(set: &CapsHashSet) -> u64 {
    set.iter().map(Capability::bitmask).sum()
}

/// Runs `work` while the inheritable capabilities are ambient: programs that it executes have them, although this
/// process is not root's and may gain no privileges. A process without such capabilities runs it all the same.
///
/// # Errors
/// The kernel refused to raise or to lower them.
pub fn with_ambient<T>(work: impl FnOnce() -> T) -> Result<T, CapsError> {
    for cap in caps::read(None, CapSet::Inheritable)? {
        caps::raise(None, CapSet::Ambient, cap)?;
    }
    let outcome = work();
    caps::clear(None, CapSet::Ambient)?;
    Ok(outcome)
}

/// Tries to make every capability permitted and effective. Returns whether the kernel let it: a bad sign.
#[must_use]
pub fn try_regain_all() -> bool {
    let all = caps::all();
    caps::set(None, CapSet::Permitted, &all).is_ok()
        || caps::set(None, CapSet::Inheritable, &all).is_ok()
        || all.iter().any(|cap| {
            caps::raise(None, CapSet::Permitted, *cap).is_ok()
                || caps::raise(None, CapSet::Ambient, *cap).is_ok()
        })
}
