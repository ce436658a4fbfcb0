//! User and group ids of the process. glibc applies a change to every thread.

use std::{ffi::CString, fs, io};

use nix::unistd::{Gid, Uid, getgrouplist, getgroups, getresgid, getresuid, setgroups, setresgid, setresuid};

/// The user that the calling process acts as.
#[must_use]
pub fn user() -> u32 {
    Uid::effective().as_raw()
}

/// Whether the effective user is root.
#[must_use]
pub fn is_root() -> bool {
    Uid::effective().is_root()
}

/// Whether this process is root and must become somebody else. It need not where its user namespace has no other id and root
/// is an ordinary user outside: there is nothing to give up by it.
#[must_use]
pub fn must_switch() -> bool {
    is_root() && !is_ordinary_root()
}

/// Whether root of this user namespace is an ordinary user outside and the only id in it.
#[must_use]
pub fn is_ordinary_root() -> bool {
    fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| maps_one_ordinary_user(&map))
}

/// user_namespaces(7): first id inside, first id outside, how many.
fn maps_one_ordinary_user(map: &str) -> bool {
    let numbers: Vec<&str> = map.split_whitespace().collect();
    matches!(numbers.as_slice(), ["0", outside, "1"] if *outside != "0")
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
pub fn set_groups(groups: &[u32]) -> io::Result<()> {
    let groups: Vec<Gid> = groups.iter().copied().map(Gid::from_raw).collect();
    setgroups(&groups).map_err(Into::into)
}

/// The groups that a user is put in besides its own by the host's user database, sorted; none if it does not know the user.
#[must_use]
pub fn groups_of(user: &str, own: u32) -> Vec<u32> {
    let Ok(name) = CString::new(user) else {
        return Vec::new();
    };
    let groups = getgrouplist(&name, Gid::from_raw(own)).unwrap_or_default();
    let mut groups: Vec<u32> = groups.into_iter().map(Gid::as_raw).collect();
    groups.retain(|group| *group != own);
    groups.sort_unstable();
    groups.dedup();
    groups
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_that_is_one_ordinary_user_outside_may_stay() {
        assert!(maps_one_ordinary_user("         0       1000          1\n"));
        for map in [
            "         0          0 4294967295\n",
            "         0          0          1\n",
            "         0       1000      65536\n",
            "         0       1000          1\n         1     100000      65536\n",
            "",
        ] {
            assert!(!maps_one_ordinary_user(map), "{map}");
        }
    }
}
