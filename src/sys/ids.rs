//! User and group ids of the process. glibc applies a change to every thread.

use std::io;

use nix::unistd::{Gid, Uid, getgroups, getresgid, getresuid, setgroups, setresgid, setresuid};

/// Whether the effective user is root.
#[must_use]
pub fn is_root() -> bool {
    Uid::effective().is_root()
}

/// Real, effective and saved user and group ids and the supplementary groups of the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ids {
    /// Real, effective, saved user id.
    pub uids: [u32; 3],
    /// Real, effective, saved group id.
    pub gids: [u32; 3],
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// The ids of the process now.
///
/// # Errors
/// The kernel refused, which it never does.
pub fn current() -> io::Result<Ids> {
    let (uid, gid) = (getresuid()?, getresgid()?);
    Ok(Ids {
        uids: [uid.real, uid.effective, uid.saved].map(Uid::as_raw),
        gids: [gid.real, gid.effective, gid.saved].map(Gid::as_raw),
        groups: getgroups()?.into_iter().map(Gid::as_raw).collect(),
    })
}

/// Gives up all supplementary groups.
///
/// # Errors
/// The process has no CAP_SETGID.
pub fn clear_groups() -> io::Result<()> {
    setgroups(&[]).map_err(Into::into)
}

/// Sets the real, effective and saved group id.
///
/// # Errors
/// The process may not take that id.
pub fn set_gid(gid: u32) -> io::Result<()> {
    let gid = Gid::from_raw(gid);
    setresgid(gid, gid, gid).map_err(Into::into)
}

/// Sets the real, effective and saved user id.
///
/// # Errors
/// The process may not take that id.
pub fn set_uid(uid: u32) -> io::Result<()> {
    let uid = Uid::from_raw(uid);
    setresuid(uid, uid, uid).map_err(Into::into)
}
