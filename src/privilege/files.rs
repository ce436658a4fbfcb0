//! The files that the broker reads for the daemon, and whether they have changed since.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{DIRECTORY_BYTES, DIRECTORY_FILE_BYTES, What, archive::Archive, message::Outcome};
use crate::{
    config::{Config, DirectoryFile, MAX_DIRECTORY_ENTRIES},
    sys::{
        config_file::{self, FileIdentity, Vetted},
        controllers::Controllers,
        directory::{self, ListError},
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
    seen: Seen,
}

/// What was at a path.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    /// A file; `None` if nothing could be found there.
    File(Option<FileIdentity>),
    /// The files of a directory by name; none if it could not be listed.
    Directory(Vec<(String, Option<FileIdentity>)>),
}

impl Files {
    /// The configuration file at a path, and those that it names.
    #[must_use]
    pub fn new(path: PathBuf, config: &Config) -> Self {
        let mut files = Self {
            authors: Controllers::of(&path),
            files: BTreeMap::from([(What::Config, Watched::at(path, &What::Config))]),
            looked: Instant::now(),
        };
        files.adopt(config);
        files
    }

    /// Goes on with the files that another configuration names.
    pub fn adopt(&mut self, config: &Config) {
        let tls: BTreeSet<&Path> = config.tls_files().collect();
        let directories: BTreeSet<&Path> = config.certificate_dirs().collect();
        let sources: BTreeSet<&Path> = config.discovery_files().collect();
        let of_acme: BTreeSet<&Path> = config.acme_files().collect();
        let of_telemetry: BTreeSet<&Path> = config.telemetry_files().collect();
        // one at another path is another file
        self.files.retain(|what, file| match what {
            What::Config => true,
            What::NetworkList(name) => {
                let list = config.network_lists.get(name);
                list.is_some_and(|list| list.path == file.path)
            }
            What::TlsFile(path) => tls.contains(path.as_path()),
            What::CertificateDir(path) => directories.contains(path.as_path()),
            What::DiscoveryFile(path) => sources.contains(path.as_path()),
            What::TokensFile(path) => config.admin.tokens_file() == Some(path),
            What::AcmeFile(path) => of_acme.contains(path.as_path()),
            What::TelemetryFile(path) => of_telemetry.contains(path.as_path()),
        });
        let files = tls.into_iter().map(|path| (path, What::TlsFile(path.to_owned())));
        let directories = (directories.into_iter()).map(|path| (path, What::CertificateDir(path.to_owned())));
        let sources = (sources.into_iter()).map(|path| (path, What::DiscoveryFile(path.to_owned())));
        let of_acme = (of_acme.into_iter()).map(|path| (path, What::AcmeFile(path.to_owned())));
        let of_telemetry =
            (of_telemetry.into_iter()).map(|path| (path, What::TelemetryFile(path.to_owned())));
        let tokens =
            (config.admin.tokens_file().into_iter()).map(|path| (path, What::TokensFile(path.to_owned())));
        let all = files
            .chain(directories)
            .chain(sources)
            .chain(tokens)
            .chain(of_acme)
            .chain(of_telemetry);
        for (path, what) in all {
            let watched = || Watched::at(path.to_owned(), &what);
            self.files.entry(what.clone()).or_insert_with(watched);
        }
        for (name, list) in &config.network_lists {
            let what = What::NetworkList(name.clone());
            let watched = || Watched::at(list.path.clone(), &What::NetworkList(name.clone()));
            self.files.entry(what).or_insert_with(watched);
        }
    }

    /// Where the configuration is.
    pub fn config_path(&self) -> &Path {
        let config = self.files.get(&What::Config);
        config.map_or_else(|| Path::new(""), |file| &file.path)
    }

    /// When to look next.
    #[must_use]
    pub fn next_look(&self) -> Instant {
        self.looked + LOOK
    }

    /// Reads a file: its bytes, its identity and a copy to pass; or the answer that it cannot be read. Of a directory, the
    /// bytes are an [`archive`](super::archive).
    pub fn read(&mut self, what: &What) -> Result<(Vec<u8>, FileIdentity, OwnedFd), Outcome> {
        let Some(file) = self.files.get_mut(what) else {
            return Err(Outcome::refused("the configuration does not name this file"));
        };
        let (bytes, identity) = match what {
            What::CertificateDir(_) => file.read_directory(&self.authors)?,
            _ => {
                let nobody = Controllers::default();
                let named_by = match what {
                    What::Config => &nobody,
                    _ => &self.authors,
                };
                let read = file.read(what, named_by)?;
                if *what == What::Config {
                    self.authors = read.controllers;
                }
                (read.content, read.identity)
            }
        };
        let copy = memfd::sealed(&bytes).map_err(|error| {
            Outcome::failed(
                "copy a file into memory",
                error.raw_os_error().unwrap_or(libc::EIO),
            )
        })?;
        Ok((bytes, identity, copy))
    }

    /// Looks at all of them: those that are others than they were last seen to be, each told of by `tell` until it could be.
    pub fn look(&mut self, now: Instant, mut tell: impl FnMut(&What) -> bool) {
        self.looked = now;
        for (what, file) in &mut self.files {
            let there = Seen::at(&file.path, what);
            if there != file.seen && tell(what) {
                file.seen = there;
            }
        }
    }
}

impl Watched {
    /// What is there now.
    fn at(path: PathBuf, what: &What) -> Self {
        let seen = Seen::at(&path, what);
        Self { path, seen }
    }

    fn read(&mut self, what: &What, named_by: &Controllers) -> Result<Vetted, Outcome> {
        match config_file::read_vetted(&self.path, what.limit(), named_by) {
            Ok(read) => {
                self.seen = Seen::File(Some(read.identity));
                Ok(read)
            }
            Err(error) => {
                if let Some(errno) = error.system_errno() {
                    let step = format!("open {}", self.path.display());
                    return Err(Outcome::failed(&step, errno));
                }
                self.seen = Seen::at(&self.path, what);
                let text = match what {
                    What::Config => error.to_string(),
                    What::NetworkList(_) => error.of_file_named_in("[network_lists]"),
                    What::TlsFile(_) | What::CertificateDir(_) => error.of_file_named_in("a tls section"),
                    What::DiscoveryFile(_) => error.of_file_named_in("a discovery section"),
                    What::TokensFile(_) => error.of_file_named_in("[admin]"),
                    What::AcmeFile(_) => error.of_file_named_in("[acme]"),
                    What::TelemetryFile(_) => error.of_file_named_in("[otlp]"),
                };
                Err(Outcome::unreadable(&text))
            }
        }
    }

    /// Reads every file of a directory of certificates that its name says is one. A file that cannot be read is in the
    /// archive as the reason; a directory that cannot be read as a whole is none.
    fn read_directory(&mut self, named_by: &Controllers) -> Result<(Vec<u8>, FileIdentity), Outcome> {
        let unlisted = |error: &ListError| match error.system_errno() {
            Some(errno) => Outcome::failed(&format!("list {}", self.path.display()), errno),
            None => Outcome::unreadable(&format!("certificate_dir: {error}")),
        };
        // looked at first: what changes while it is read is told of later
        let seen = directory_names(&self.path);
        let names = directory::names_vetted(&self.path, MAX_DIRECTORY_ENTRIES, named_by);
        self.seen = Seen::of(seen, &self.path);
        let names = names.map_err(|error| unlisted(&error))?;
        let mut archive = Archive::default();
        for name in names.iter().filter(|name| DirectoryFile::of(name).is_read()) {
            let path = self.path.join(name);
            let content = match config_file::read_vetted(&path, DIRECTORY_FILE_BYTES, named_by) {
                Ok(read) => Ok(read.content),
                Err(error) => match error.system_errno() {
                    Some(errno) => return Err(Outcome::failed(&format!("open {}", path.display()), errno)),
                    None => Err(error.of_file_named_in("certificate_dir")),
                },
            };
            archive.add(name, &content);
            if archive.len() > DIRECTORY_BYTES {
                return Err(Outcome::unreadable(&format!(
                    "certificate_dir: the files of {} have more than {DIRECTORY_BYTES} bytes together, the most that is read",
                    self.path.display()
                )));
            }
        }
        let identity = FileIdentity::at(&self.path);
        let gone = || Outcome::unreadable(&format!("certificate_dir: {} is gone", self.path.display()));
        Ok((archive.into_bytes(), identity.ok_or_else(gone)?))
    }
}

impl Seen {
    fn at(path: &Path, what: &What) -> Self {
        match what {
            What::CertificateDir(_) => Self::of(directory_names(path), path),
            What::Config
            | What::NetworkList(_)
            | What::TlsFile(_)
            | What::DiscoveryFile(_)
            | What::TokensFile(_)
            | What::AcmeFile(_)
            | What::TelemetryFile(_) => Self::File(FileIdentity::at(path)),
        }
    }

    fn of(names: Vec<String>, directory: &Path) -> Self {
        let identified = |name: String| {
            let identity = FileIdentity::at(&directory.join(&name));
            (name, identity)
        };
        Self::Directory(names.into_iter().map(identified).collect())
    }
}

/// The files of a directory that are read; none if it cannot be listed.
fn directory_names(path: &Path) -> Vec<String> {
    let mut names = directory::names(path, MAX_DIRECTORY_ENTRIES).unwrap_or_default();
    names.retain(|name| DirectoryFile::of(name).is_read());
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::NetworkListName,
        config::{self, Options, Source},
        privilege::archive,
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

    #[test]
    fn a_directory_is_read_file_by_file_and_what_comes_changes_or_goes_is_told_of() {
        let dir = tempfile::tempdir().unwrap();
        let certificates = dir.path().join("certificates");
        std::fs::create_dir(&certificates).unwrap();
        let write = |name: &str, text: &str| std::fs::write(certificates.join(name), text).unwrap();
        write("a.pem", "one");
        write("README", "not read");
        write(".a.pem.new", "not read");
        write("large.pem", &"x".repeat(DIRECTORY_FILE_BYTES + 1));
        let text = format!(
            "[frontends.a]\nlisten_addr = \"127.0.0.1:443\"\nbackend = \"b\"\ntls.certificate_dir = {certificates:?}\n\
             [backends.b]\nservers.s = {{ addr = \"127.0.0.1:80\" }}\n"
        );
        let what = What::CertificateDir(certificates.clone());
        let mut files = Files::new(dir.path().join("convey.toml"), &config("[global]"));
        assert!(files.read(&what).is_err(), "it is not named");
        files.adopt(&config(&text));
        let names = |files: &mut Files| {
            let (bytes, ..) = files.read(&what).unwrap();
            let read = archive::read(&bytes).unwrap();
            (read.into_iter().map(|(name, content)| {
                (
                    name.to_owned(),
                    content.map(<[u8]>::to_vec).map_err(str::to_owned),
                )
            }))
            .collect::<Vec<_>>()
        };
        let read = names(&mut files);
        assert_eq!(read.len(), 2, "{read:?}");
        assert_eq!(read[0], ("a.pem".to_owned(), Ok(b"one".to_vec())));
        assert!(
            read[1].1.as_ref().is_err_and(|why| why.contains("larger")),
            "one file of many"
        );
        let told = |files: &mut Files| {
            let mut told = 0;
            files.look(Instant::now(), |_| {
                told += 1;
                true
            });
            told
        };
        assert_eq!(told(&mut files), 0);
        write("README", "is not looked at");
        assert_eq!(told(&mut files), 0);
        write("b.key", "added");
        assert_eq!(told(&mut files), 1);
        assert_eq!(told(&mut files), 0);
        write("a.pem", "changed");
        assert_eq!(told(&mut files), 1);
        std::fs::remove_file(certificates.join("a.pem")).unwrap();
        assert_eq!(told(&mut files), 1);
        std::fs::remove_dir_all(&certificates).unwrap();
        assert_eq!(told(&mut files), 1);
        assert!(matches!(files.read(&what), Err(Outcome::Unreadable { .. })));
        assert_eq!(told(&mut files), 0);
    }
}
