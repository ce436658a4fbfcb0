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

/// Keeps those of `wanted` that are permitted, effective too, and gives up all others, inheritable and ambient ones
/// included. The bounding set stays. Returns what is kept.
///
/// # Errors
/// The kernel refused, which it never does when capabilities are given up.
pub fn keep_only(wanted: &[Capability]) -> Result<CapsHashSet, CapsError> {
    let permitted = caps::read(None, CapSet::Permitted)?;
    let effective = caps::read(None, CapSet::Effective)?;
    let kept: CapsHashSet = wanted
        .iter()
        .copied()
        .filter(|cap| permitted.contains(cap))
        .collect();
    caps::clear(None, CapSet::Ambient)?;
    caps::clear(None, CapSet::Inheritable)?;
    // effective must stay within permitted at every step
    caps::set(
        None,
        CapSet::Effective,
        &kept.intersection(&effective).copied().collect(),
    )?;
    caps::set(None, CapSet::Permitted, &kept)?;
    caps::set(None, CapSet::Effective, &kept)?;
    Ok(kept)
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
