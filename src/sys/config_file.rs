//! Reading the configuration file without trusting what stands at its path.

use std::{
    fs::{self, File, Metadata},
    io::{self, Read},
    os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::controllers::{self, Controller, Controllers, OpenError};

/// What changes when a file is saved, even with the same content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileIdentity {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileIdentity {
    /// That of what stands at a path now, links followed; `None` if nothing can be found there.
    #[must_use]
    pub fn at(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().as_ref().map(Self::of)
    }

    /// One of a file that was saved so many times.
    #[cfg(test)]
    pub(crate) const fn of_test(saves: i64) -> Self {
        Self {
            device: 1,
            inode: 1,
            size: 1,
            modified: (saves, 0),
            changed: (saves, 0),
        }
    }

    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// Why a configuration file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It cannot be opened.
    #[error("cannot open {}: {source}{}", path.display(), open_help(source))]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something else than a file stands there. It was not read, and never waited for.
    #[error("cannot read {}: it is {kind}, not a regular file; give the path of the configuration file", path.display())]
    NotRegular {
        /// The file.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// It is larger than any real configuration.
    #[error("cannot read {}: it is larger than {limit} bytes, which no real configuration is; is this the right file?", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit in bytes.
        limit: usize,
    },
    /// Somebody could have put it there who could not read it.
    #[error(
        "cannot read {}: {who} can put another file in its place and may not read what is there, which convey would show in \
         its log; have them own or read it, or keep it where only root writes",
        path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Who.
        who: Controller,
    },
    /// Reading failed half-way.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl ReadError {
    /// The same about a file that the configuration names in a section, instead of the configuration itself.
    #[must_use]
    pub fn of_file_named_in(&self, section: &str) -> String {
        match self {
            Self::Open { path, source } if source.kind() == io::ErrorKind::NotFound => format!(
                "cannot open {}: {source}; create it, or name another file in {section}",
                path.display()
            ),
            Self::NotRegular { path, kind } => format!(
                "cannot read {}: it is {kind}, not a regular file; name a regular file in {section}",
                path.display()
            ),
            Self::TooLarge { path, limit } => format!(
                "cannot read {}: it is larger than {limit} bytes, the most that is read; name a smaller file in {section}",
                path.display()
            ),
            Self::Open { .. } | Self::Read { .. } | Self::Exposed { .. } => self.to_string(),
        }
    }

    /// The error number if this process or the system lacks what reading takes, and the file may be as it should be.
    #[must_use]
    pub fn system_errno(&self) -> Option<i32> {
        let (Self::Open { source, .. } | Self::Read { source, .. }) = self else {
            return None;
        };
        let errno = source.raw_os_error()?;
        [libc::EMFILE, libc::ENFILE, libc::ENOMEM]
            .contains(&errno)
            .then_some(errno)
    }
}

fn open_help(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "; create it, or name another one with --config",
        io::ErrorKind::PermissionDenied => {
            "; the user that convey runs as must be able to read it (see `ls -l`)"
        }
        _ => "",
    }
}

/// Reads a regular file of at most `limit` bytes. Never blocks on a FIFO or a device.
///
/// # Errors
/// It cannot be opened or read, is not a regular file, or is too large.
pub fn read(path: &Path, limit: usize) -> Result<Vec<u8>, ReadError> {
    read_identified(path, limit).map(|(content, _)| content)
}

/// As [`read`], with the identity of what was read.
///
/// # Errors
/// As [`read`].
pub fn read_identified(path: &Path, limit: usize) -> Result<(Vec<u8>, FileIdentity), ReadError> {
    // O_NONBLOCK: opening a FIFO that nobody writes would wait for ever; O_NOCTTY: a terminal must not become ours
    let opened = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC | libc::O_NOCTTY)
        .open(path);
    take(path, limit, opened)
}

/// A file that was read for those who named it.
#[derive(Debug)]
pub struct Vetted {
    /// Its bytes.
    pub content: Vec<u8>,
    /// What was read.
    pub identity: FileIdentity,
    /// Who chooses what is in it.
    pub controllers: Controllers,
}

/// As [`read_identified`], for a process that shows what it reads: if it may read everything, it reads only what those may
/// read who chose it. `named_by` have named the path.
///
/// # Errors
/// As [`read`], or [`ReadError::Exposed`].
pub fn read_vetted(path: &Path, limit: usize, named_by: &Controllers) -> Result<Vetted, ReadError> {
    if !controllers::may_read_everything() {
        let (content, identity) = read_identified(path, limit)?;
        let controllers = Controllers::default();
        return Ok(Vetted {
            content,
            identity,
            controllers,
        });
    }
    let absolute = std::path::absolute(path).map_err(|source| ReadError::Open {
        path: path.into(),
        source,
    })?;
    let (opened, controllers) = match controllers::open(&absolute, named_by) {
        Ok((file, controllers)) => (Ok(file), controllers),
        Err(OpenError::Io(error)) => (Err(error), Controllers::everybody()),
        Err(OpenError::Exposed(who)) => {
            return Err(ReadError::Exposed {
                path: path.into(),
                who,
            });
        }
    };
    let (content, identity) = take(path, limit, opened)?;
    Ok(Vetted {
        content,
        identity,
        controllers,
    })
}

/// Reads what was opened, if it is a regular file of at most `limit` bytes.
fn take(path: &Path, limit: usize, opened: io::Result<File>) -> Result<(Vec<u8>, FileIdentity), ReadError> {
    let file = opened.map_err(|source| ReadError::Open {
        path: path.into(),
        source,
    })?;
    let read_error = |source| ReadError::Read {
        path: path.into(),
        source,
    };
    let metadata = file.metadata().map_err(read_error)?;
    let kind = metadata.file_type();
    if !kind.is_file() {
        return Err(ReadError::NotRegular {
            path: path.into(),
            kind: kind_name(kind),
        });
    }
    // the size that fstat says may change, and is 0 in /proc: what counts is what comes
    let mut content = Vec::new();
    let one_more = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    file.take(one_more)
        .read_to_end(&mut content)
        .map_err(read_error)?;
    if content.len() > limit {
        return Err(ReadError::TooLarge {
            path: path.into(),
            limit,
        });
    }
    Ok((content, FileIdentity::of(&metadata)))
}

fn kind_name(kind: fs::FileType) -> &'static str {
    if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_char_device() || kind.is_block_device() {
        "a device"
    } else {
        "a special file"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(result: Result<Vec<u8>, ReadError>) -> String {
        result.map_or_else(|e| e.to_string(), |content| String::from_utf8(content).unwrap())
    }

    #[test]
    fn a_regular_file_is_read_up_to_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("convey.toml");
        fs::write(&path, "1234").unwrap();
        assert_eq!(text(read(&path, 4)), "1234");
        assert!(text(read(&path, 3)).contains("larger than 3 bytes"));
    }

    #[test]
    fn saving_a_file_again_changes_its_identity_and_reading_it_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("convey.toml");
        assert_eq!(FileIdentity::at(&path), None);
        fs::write(&path, "1234").unwrap();
        let (_, first) = read_identified(&path, 4).unwrap();
        assert_eq!(FileIdentity::at(&path), Some(first));
        fs::rename(&path, dir.path().join("old")).unwrap();
        fs::write(&path, "1234").unwrap();
        assert_ne!(FileIdentity::at(&path), Some(first));
    }

    #[test]
    fn a_fifo_is_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("convey.toml");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert!(text(read(&path, 10)).contains("it is a FIFO, not a regular file"));
    }

    #[test]
    fn of_a_file_that_the_configuration_names_it_is_said_where_to_name_another() {
        for path in ["/", "/dev/zero", "/nonexistent/a.list"] {
            let error = read(Path::new(path), 10).unwrap_err();
            let text = error.of_file_named_in("[network_lists]");
            assert!(
                text.contains(path) && text.contains("in [network_lists]"),
                "{text}"
            );
            assert!(
                !text.contains("--config") && !text.contains("configuration"),
                "{text}"
            );
        }
    }

    #[test]
    fn directories_devices_and_missing_files_are_named() {
        assert!(text(read(Path::new("/"), 10)).contains("cannot read /: it is a directory"));
        assert!(text(read(Path::new("/dev/zero"), 10)).contains("it is a device"));
        assert!(text(read(Path::new("/nonexistent/c.toml"), 10)).contains("--config"));
    }
}
