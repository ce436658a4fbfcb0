//! The directory of what outlives the process.

use std::{
    env, fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use crate::{config::Config, privilege::Target, sys::own_file};

/// Where it is unless the configuration or the service manager says otherwise: the package's directory.
const DEFAULT: &str = "/var/lib/convey";

/// Anybody may list it, as systemd makes it (StateDirectoryMode=); what is secret says so itself.
const MODE: u32 = 0o755;

/// The directory, which may be missing or out of reach: traffic does not depend on it.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    made: io::Result<()>,
}

impl StateDir {
    /// Finds the directory, and makes it for the user that the daemon becomes if it is missing. Must run before the
    /// privileges are dropped: the daemon could neither make it nor own it afterwards. One that exists keeps its owner.
    pub fn prepare(config: &Config, target: Option<&Target>) -> Self {
        let path = config.global.state_dir.clone().unwrap_or_else(|| {
            env::var_os("STATE_DIRECTORY")
                // systemd separates several with colons; ours is the first
                .and_then(|all| env::split_paths(&all).next())
                .filter(|path| path.is_absolute())
                .unwrap_or_else(|| PathBuf::from(DEFAULT))
        });
        let made = make(&path, target);
        Self { path, made }
    }

    /// Its path, if there is such a directory.
    pub fn path(&self) -> Option<&Path> {
        self.made.is_ok().then_some(&self.path)
    }

    /// Where it is or would be.
    pub fn place(&self) -> &Path {
        &self.path
    }

    /// Whether files can be written there, which is tried; if not, that is said. To be called when the privileges are gone.
    pub fn is_writable(&self) -> bool {
        let tried = match &self.made {
            Ok(()) => self.try_to_write(),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        };
        if let Err(error) = &tried {
            tracing::warn!(
                event = "state_dir",
                "cannot write in {}: {error}. Overrides of servers (`convey server`) last until this process ends. Let the \
                 user that Convey runs as write there, or name another directory: [global] state_dir",
                self.path.display()
            );
        }
        tried.is_ok()
    }

    fn try_to_write(&self) -> io::Result<()> {
        let path = self.path.join(".writable");
        own_file::create(&path, 0o600)?;
        fs::remove_file(path)
    }

    /// Makes a directory in it that belongs to the daemon, and returns its path. Must run before the privileges are dropped
    /// too.
    pub fn subdirectory(&self, name: &str, target: Option<&Target>) -> Option<PathBuf> {
        let path = self.path()?.join(name);
        make(&path, target).ok()?;
        if let Some(target) = target {
            // One that was there is the daemon's already; writing says it if this has failed.
            let _ = give(&path, target);
        }
        Some(path)
    }
}

fn give(directory: &Path, target: &Target) -> io::Result<()> {
    let made = own_file::pin(directory)?;
    own_file::give(&made, fs::Metadata::is_dir, target.uid, target.gid)
}

/// Makes a directory that is missing, for the daemon.
fn make(path: &Path, target: Option<&Target>) -> io::Result<()> {
    match fs::DirBuilder::new().mode(MODE).create(path) {
        Ok(()) => target.map_or(Ok(()), |target| give(path, target)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Options, Source};

    fn config(path: &Path) -> Config {
        let text = format!("[global]\nstate_dir = \"{}\"\n", path.display());
        let source = Source {
            name: "c.toml".to_owned(),
            bytes: text.into(),
        };
        config::load(&source, Options::default()).unwrap().config
    }

    #[test]
    fn a_directory_that_is_missing_is_made_and_one_below_a_missing_one_is_not() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("state");
        for _ in ["made", "found"] {
            let state = StateDir::prepare(&config(&path), None);
            assert_eq!((state.path(), state.place()), (Some(&*path), &*path));
            assert!(state.is_writable());
            assert_eq!(state.subdirectory("inside", None), Some(path.join("inside")));
            assert!(path.join("inside").is_dir());
        }
        let state = StateDir::prepare(&config(&top.path().join("missing/state")), None);
        assert_eq!(state.path(), None);
        assert_eq!(state.made.as_ref().unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(!state.is_writable());
        assert_eq!(state.subdirectory("inside", None), None);
    }

    #[test]
    fn a_file_of_that_name_is_no_directory() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("state");
        fs::write(&path, "").unwrap();
        let state = StateDir::prepare(&config(&path), None);
        assert_eq!(
            state.made.as_ref().unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
        assert!(!state.is_writable());
    }
}
