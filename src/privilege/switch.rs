//! Becoming another user, as far as there is anything to give up.

use std::io;

use super::Target;
use crate::sys::ids;

/// The step that failed.
#[derive(Debug, thiserror::Error)]
pub enum SwitchError {
    /// A container without the capabilities that root has elsewhere.
    #[error(
        "cannot become user `{user}` ({step}: {source}): root has no CAP_SETUID and CAP_SETGID here. Start convey as that user \
         (`docker run --user {uid}:{gid}`, `User=` of a unit), or let root have both (`--cap-add SETUID --cap-add SETGID`)"
    )]
    NotPermitted {
        /// The user to become.
        user: String,
        /// Its id.
        uid: u32,
        /// Its group's.
        gid: u32,
        /// The system call.
        step: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// A user namespace without that user.
    #[error(
        "cannot become user `{user}` ({step}: {source}): this user namespace has no id {uid} or {gid}. Name a user that it \
         has in [global] user, or map more ids into it"
    )]
    NotMapped {
        /// The user to become.
        user: String,
        /// Its id.
        uid: u32,
        /// Its group's.
        gid: u32,
        /// The system call.
        step: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// Anything else.
    #[error("{0}: {1}")]
    Step(&'static str, io::Error),
}

/// Gives up the supplementary groups but these, and takes the ids of `target`. What is so already needs no permission.
///
/// # Errors
/// The step that the kernel refused, and what to do.
pub fn switch_to(target: &Target, groups: &[u32]) -> Result<(), SwitchError> {
    let now = ids::current().map_err(|error| SwitchError::Step("read the ids", error))?;
    if now.groups != groups {
        ids::set_groups(groups).map_err(|error| refused(target, "setgroups", error))?;
    }
    if now.gids != [target.gid; 3] {
        ids::set_gid(target.gid).map_err(|error| refused(target, "setresgid", error))?;
    }
    if now.uids != [target.uid; 3] {
        ids::set_uid(target.uid).map_err(|error| refused(target, "setresuid", error))?;
    }
    Ok(())
}

fn refused(target: &Target, step: &'static str, source: io::Error) -> SwitchError {
    let (user, uid, gid) = (target.name.clone(), target.uid, target.gid);
    match source.raw_os_error() {
        Some(libc::EPERM) => SwitchError::NotPermitted {
            user,
            uid,
            gid,
            step,
            source,
        },
        Some(libc::EINVAL) => SwitchError::NotMapped {
            user,
            uid,
            gid,
            step,
            source,
        },
        _ => SwitchError::Step(step, source),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_remedy() {
        let target = Target {
            uid: 65534,
            gid: 65533,
            name: "nobody".into(),
        };
        let text = |errno| refused(&target, "setgroups", io::Error::from_raw_os_error(errno)).to_string();
        let not_permitted = text(libc::EPERM);
        for part in [
            "`nobody`",
            "setgroups",
            "CAP_SETGID",
            "--user 65534:65533",
            "--cap-add SETGID",
        ] {
            assert!(not_permitted.contains(part), "{part}: {not_permitted}");
        }
        assert!(text(libc::EINVAL).contains("has no id 65534"));
        assert!(text(libc::ENOSYS).starts_with("setgroups: "));
    }
}
