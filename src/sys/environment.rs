//! The environment that programs started by this process inherit.

use std::{
    ffi::{OsStr, OsString},
    io,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use super::{ids, process};

/// The control socket of a user who is not root and whose session has a directory for such things, in which a process
/// that systemd has not given one of its own finds others of the same user (XDG Base Directory Specification).
#[must_use]
pub fn user_socket() -> Option<&'static Path> {
    static SOCKET: OnceLock<Option<PathBuf>> = OnceLock::new();
    let find = || user_socket_among(ids::is_root(), |name| std::env::var_os(name));
    SOCKET.get_or_init(find).as_deref()
}

fn user_socket_among(is_root: bool, variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    if is_root || variable("RUNTIME_DIRECTORY").is_some() {
        return None;
    }
    let directory = PathBuf::from(variable("XDG_RUNTIME_DIR")?);
    directory
        .is_absolute()
        .then(|| directory.join("convey/admin.sock"))
}

/// Sets a variable for the programs that this process starts later. Returns its value before.
///
/// # Errors
/// The process has more than one thread (another might be reading the environment), or /proc cannot be read.
pub fn set_while_alone(name: &str, value: &OsStr) -> io::Result<Option<OsString>> {
    let threads = process::thread_count()?;
    if threads != 1 {
        return Err(io::Error::other(format!(
            "the environment cannot be changed while the process has {threads} threads"
        )));
    }
    let before = std::env::var_os(name);
    // SAFETY: set_var must not run beside a thread that reads the environment; this thread is the only one (checked
    // above), and only it could start another.
    unsafe { std::env::set_var(name, value) };
    Ok(before)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_users_with_a_session_have_a_socket_of_their_own() {
        let set = |names: &'static [(&str, &str)]| {
            move |name: &str| {
                let found = names.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| OsString::from(value))
            }
        };
        const SESSION: (&str, &str) = ("XDG_RUNTIME_DIR", "/run/user/7");
        let own = Some(PathBuf::from("/run/user/7/convey/admin.sock"));
        assert_eq!(user_socket_among(false, set(&[SESSION])), own);
        assert_eq!(user_socket_among(true, set(&[SESSION])), None, "root has /run");
        assert_eq!(user_socket_among(false, set(&[])), None);
        assert_eq!(
            user_socket_among(false, set(&[("XDG_RUNTIME_DIR", "user")])),
            None
        );
        // the packaged service
        let service = set(&[SESSION, ("RUNTIME_DIRECTORY", "/run/convey")]);
        assert_eq!(user_socket_among(false, service), None);
    }
}
