//! The files that the broker reads for the daemon, and whether they have changed since.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{What, message::Outcome};
use crate::{
    config::Config,
    sys::{
        config_file::{self, FileIdentity, Vetted},
        controllers::Controllers,
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
    /// Who chooses what is in the configuration, and so which other files are read.
    authors: Controllers,
}

#[derive(Debug)]
struct Watched {
    /// Absolute.
    path: PathBuf,
    /// What was there when it was last read, or last said to have changed.
    seen: Option<FileIdentity>,
}

impl Files {
    /// The configuration file at a path, and those that it names.
    #[must_use]
    pub fn new(path: PathBuf, config: &Config) -> Self {
        let mut files = Self {
            authors: Controllers::of(&path),
            files: BTreeMap::from([(What::Config, Watched::at(path))]),
            looked: Instant::now(),
        };
        files.adopt(config);
        files
    }

    /// Goes on with the files that another configuration names.
    pub fn adopt(&mut self, config: &Config) {
        let tls: BTreeSet<&Path> = config.tls_files().collect();
        // one at another path is another file
        self.files.retain(|what, file| match what {
            What::Config => true,
            What::NetworkList(name) => {
                let list = config.network_lists.get(name);
                list.is_some_and(|list| list.path == file.path)
            }
            What::TlsFile(path) => tls.contains(path.as_path()),
        });
        for path in tls {
            self.files
                .entry(What::TlsFile(path.to_owned()))
                .or_insert_with(|| Watched::at(path.to_owned()));
        }
        for (name, list) in &config.network_lists {
            self.files
                .entry(What::NetworkList(name.clone()))
                .or_insert_with(|| Watched::at(list.path.clone()));
        }
    }

    /// When to look next.
    #[must_use]
    pub fn next_look(&self) -> Instant {
        self.looked + LOOK
    }

    /// Reads a file: its bytes, its identity and a copy to pass; or the answer that it cannot be read.
    pub fn read(&mut self, what: &What) -> Result<(Vec<u8>, FileIdentity, OwnedFd), Outcome> {
        let Some(file) = self.files.get_mut(what) else {
            return Err(Outcome::refused("the configuration does not name this file"));
        };
        let nobody = Controllers::default();
        let named_by = match what {
            What::Config => &nobody,
            What::NetworkList(_) | What::TlsFile(_) => &self.authors,
        };
        let Vetted {
            content: bytes,
            identity,
            controllers,
        } = match config_file::read_vetted(&file.path, what.limit(), named_by) {
            Ok(read) => read,
            Err(error) => {
                if let Some(errno) = error.system_errno() {
                    let step = format!("open {}", file.path.display());
                    return Err(Outcome::failed(&step, errno));
                }
                file.seen = FileIdentity::at(&file.path);
                let text = match what {
                    What::Config => error.to_string(),
                    What::NetworkList(_) => error.of_file_named_in("[network_lists]"),
                    What::TlsFile(_) => error.of_file_named_in("a tls section"),
                };
                return Err(Outcome::unreadable(&text));
            }
        };
        let copy = memfd::sealed(&bytes).map_err(|error| {
            Outcome::failed(
                "copy a file into memory",
                error.raw_os_error().unwrap_or(libc::EIO),
            )
        })?;
        file.seen = Some(identity);
        if *what == What::Config {
            self.authors = controllers;
        }
        Ok((bytes, identity, copy))
    }

    /// Looks at all of them: those that are others than they were last seen to be, each told of by `tell` until it could be.
    pub fn look(&mut self, now: Instant, mut tell: impl FnMut(&What) -> bool) {
        self.looked = now;
        for (what, file) in &mut self.files {
            let there = FileIdentity::at(&file.path);
            if there != file.seen && tell(what) {
                file.seen = there;
            }
        }
    }
}

impl Watched {
    /// What is there now.
    fn at(path: PathBuf) -> Self {
        let seen = FileIdentity::at(&path);
        Self { path, seen }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::NetworkListName,
        config::{self, Options, Source},
    };

    fn config(text: &str) -> Config {
        let source = Source {
            name: "convey.toml".into(),
            bytes: text.as_bytes().to_vec(),
        };
        config::load(&source, Options::default()).unwrap().config
    }

    #[test]
    fn only_files_that_the_configuration_names_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        std::fs::write(&one, "10.0.0.0/8").unwrap();
        std::fs::write(&two, "192.0.2.1").unwrap();
        let named = |path: &Path| config(&format!("network_lists.office = {path:?}"));
        let office = What::NetworkList(NetworkListName::new("office").unwrap());
        let mut files = Files::new(dir.path().join("convey.toml"), &config("[global]"));
        assert!(files.read(&office).is_err());
        files.adopt(&named(&one));
        assert_eq!(files.read(&office).unwrap().0, b"10.0.0.0/8");
        files.adopt(&named(&two));
        assert_eq!(files.read(&office).unwrap().0, b"192.0.2.1");
        std::fs::write(&two, "192.0.2.1 # changed").unwrap();
        let mut told = Vec::new();
        files.look(Instant::now(), |what| {
            told.push(what.clone());
            true
        });
        assert_eq!(told, std::slice::from_ref(&office));
        files.adopt(&config("[global]"));
        assert!(files.read(&office).is_err());
    }

    #[test]
    fn a_file_that_has_changed_is_told_of_once_and_one_that_was_read_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("convey.toml");
        std::fs::write(&path, "a").unwrap();
        let mut files = Files::new(path.clone(), &config("[global]"));
        let look = |files: &mut Files, has_room: bool| {
            let mut told = Vec::new();
            files.look(Instant::now(), |what| {
                told.push(what.clone());
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
        let (bytes, ..) = files.read(&What::Config).unwrap();
        assert_eq!(bytes, b"b");
        assert_eq!(look(&mut files, true), []);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(look(&mut files, true), [What::Config]);
        assert!(matches!(
            files.read(&What::Config),
            Err(Outcome::Unreadable { .. })
        ));
        assert_eq!(look(&mut files, true), []);
        save("b");
        assert_eq!(look(&mut files, true), [What::Config]);
    }
}
