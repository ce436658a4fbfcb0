//! The files that the broker reads for the daemon, and whether they have changed since.

use std::{
    collections::BTreeMap,
    os::fd::OwnedFd,
    path::PathBuf,
    time::{Duration, Instant},
};

use super::{What, message::Outcome};
use crate::{
    config::MAX_CONFIG_BYTES,
    sys::{
        config_file::{self, FileIdentity},
        memfd,
    },
};

/// How often is looked whether a file has changed.
pub const LOOK: Duration = Duration::from_secs(5);

/// What may be read, and where it is.
#[derive(Debug)]
pub struct Files {
    files: BTreeMap<What, Watched>,
    looked: Instant,
}

#[derive(Debug)]
struct Watched {
    /// Absolute.
    path: PathBuf,
    /// What was there when it was last read, or last said to have changed.
    seen: Option<FileIdentity>,
}

impl Files {
    /// The configuration file at a path.
    #[must_use]
    pub fn new(config: PathBuf) -> Self {
        let seen = FileIdentity::at(&config);
        Self {
            files: BTreeMap::from([(What::Config, Watched { path: config, seen })]),
            looked: Instant::now(),
        }
    }

    /// When to look next.
    #[must_use]
    pub fn next_look(&self) -> Instant {
        self.looked + LOOK
    }

    /// Reads a file: its bytes, and what to answer with a copy of them; or the answer that it cannot be read.
    pub fn read(&mut self, what: What) -> Result<(Vec<u8>, Outcome, OwnedFd), Outcome> {
        let Some(file) = self.files.get_mut(&what) else {
            return Err(Outcome::refused("the configuration does not name this file"));
        };
        let limit = match what {
            What::Config => MAX_CONFIG_BYTES,
        };
        let read = config_file::read_identified(&file.path, limit);
        let (bytes, identity) = match read {
            Ok(read) => read,
            Err(error) => {
                if let Some(errno) = error.system_errno() {
                    let step = format!("open {}", file.path.display());
                    return Err(Outcome::failed(&step, errno));
                }
                file.seen = FileIdentity::at(&file.path);
                return Err(Outcome::unreadable(&error.to_string()));
            }
        };
        let copy = memfd::sealed(&bytes).map_err(|error| {
            Outcome::failed(
                "copy a file into memory",
                error.raw_os_error().unwrap_or(libc::EIO),
            )
        })?;
        file.seen = Some(identity);
        Ok((bytes, Outcome::Contents(identity), copy))
    }

    /// Looks at all of them: those that are others than they were last seen to be, each told of by `tell` until it could be.
    pub fn look(&mut self, now: Instant, mut tell: impl FnMut(What) -> bool) {
        self.looked = now;
        for (what, file) in &mut self.files {
            let there = FileIdentity::at(&file.path);
            if there != file.seen && tell(*what) {
                file.seen = there;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_has_changed_is_told_of_once_and_one_that_was_read_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("convey.toml");
        std::fs::write(&path, "a").unwrap();
        let mut files = Files::new(path.clone());
        let look = |files: &mut Files, has_room: bool| {
            let mut told = Vec::new();
            files.look(Instant::now(), |what| {
                told.push(what);
                has_room
            });
            told
        };
        assert_eq!(look(&mut files, true), []);
        let save = |text: &str| {
            let new = dir.path().join("new");
            std::fs::write(&new, text).unwrap();
            std::fs::rename(&new, &path).unwrap();
        };
        save("a");
        assert_eq!(look(&mut files, false), [What::Config]);
        assert_eq!(look(&mut files, true), [What::Config], "there was no room");
        assert_eq!(look(&mut files, true), []);
        save("b");
        let (bytes, ..) = files.read(What::Config).unwrap();
        assert_eq!(bytes, b"b");
        assert_eq!(look(&mut files, true), []);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(look(&mut files, true), [What::Config]);
        assert!(matches!(
            files.read(What::Config),
            Err(Outcome::Unreadable { .. })
        ));
        assert_eq!(look(&mut files, true), []);
        save("b");
        assert_eq!(look(&mut files, true), [What::Config]);
    }
}
