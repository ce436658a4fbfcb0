//! Which user the processes become when started as root.

use std::io;

use nix::unistd::User;

use crate::sys::ids;

/// Who the processes become when started as root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// The user's name, for messages.
    pub name: String,
}

/// Why there is nobody to become.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// `global.user` names a user that does not exist.
    #[error("global.user: user `{0}` does not exist; create it (`useradd --system {0}`) or name another one")]
    Missing(String),
    /// `global.user` is root.
    #[error(
        "global.user: `{0}` is root (uid 0); convey never runs as root, name an ordinary user or leave the key out"
    )]
    Root(String),
    /// Neither `convey` nor `nobody` exists.
    #[error("neither user `convey` nor `nobody` exists; create one (`useradd --system convey`)")]
    NoDefault,
    /// The user database could not be asked.
    #[error("look up user `{name}`: {source}")]
    Lookup {
        /// The user.
        name: String,
        /// Why.
        source: io::Error,
    },
}

/// The user to become: none unless started as root (one that is no ordinary user outside its user namespace); then `configured` (`global.user`), else `convey`, else `nobody`.
///
/// # Errors
/// The configured user does not exist or is root, or there is no user at all to become.
pub fn resolve_target(configured: Option<&str>) -> Result<Option<Target>, TargetError> {
    if ids::must_switch() {
        choose(configured, look_up).map(Some)
    } else {
        Ok(None)
    }
}

fn choose(
    configured: Option<&str>,
    look_up: impl Fn(&str) -> Result<Option<Target>, TargetError>,
) -> Result<Target, TargetError> {
    if let Some(name) = configured {
        let target = look_up(name)?.ok_or_else(|| TargetError::Missing(name.to_owned()))?;
        return if target.uid == 0 {
            Err(TargetError::Root(target.name))
        } else {
            Ok(target)
        };
    }
    for name in ["convey", "nobody"] {
        if let Some(target) = look_up(name)?.filter(|target| target.uid != 0) {
            return Ok(target);
        }
    }
    Err(TargetError::NoDefault)
}

fn look_up(name: &str) -> Result<Option<Target>, TargetError> {
    match User::from_name(name) {
        Ok(user) => Ok(user.map(|user| Target {
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
            name: user.name,
        })),
        Err(errno) => Err(TargetError::Lookup {
            name: name.to_owned(),
            source: errno.into(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users(known: &'static [(&'static str, u32)]) -> impl Fn(&str) -> Result<Option<Target>, TargetError> {
        move |name| {
            let found = known.iter().find(|(user, _)| *user == name);
            Ok(found.map(|&(user, uid)| Target {
                uid,
                gid: uid,
                name: user.to_owned(),
            }))
        }
    }

    #[test]
    fn the_configured_user_comes_first_then_convey_then_nobody() {
        let all = users(&[("www", 33), ("convey", 900), ("nobody", 65534)]);
        assert_eq!(choose(Some("www"), &all).unwrap().uid, 33);
        assert_eq!(choose(None, &all).unwrap().uid, 900);
        assert_eq!(choose(None, users(&[("nobody", 65534)])).unwrap().uid, 65534);
        assert!(matches!(choose(None, users(&[])), Err(TargetError::NoDefault)));
    }

    #[test]
    fn a_configured_user_that_is_missing_or_root_is_an_error_never_a_fallback() {
        let all = users(&[("toor", 0), ("nobody", 65534)]);
        assert!(matches!(choose(Some("www"), &all), Err(TargetError::Missing(name)) if name == "www"));
        assert!(matches!(choose(Some("toor"), &all), Err(TargetError::Root(name)) if name == "toor"));
    }
}
