//! Listing a directory without trusting what stands at its path.

use std::{
    fs::{self, File},
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use super::controllers::{self, Controller, Controllers, OpenError};

/// Why a directory could not be listed.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// It cannot be opened or read.
    #[error("cannot list {}: {source}{}", path.display(), help(source))]
    Io {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It has more entries than are looked at.
    #[error("cannot list {}: it has more than {limit} entries, the most that is read", path.display())]
    TooMany {
        /// The directory.
        path: PathBuf,
        /// The limit.
        limit: usize,
    },
    /// Somebody could have put it there who could not list it.
    #[error(
        "cannot list {}: {who} can put another directory in its place and may not read it; have them own or read it, or keep \
         it where only root writes",
        path.display()
    )]
    Exposed {
        /// The directory.
        path: PathBuf,
        /// Who.
        who: Controller,
    },
}

impl ListError {
    /// The error number if this process or the system lacks what listing takes, and the directory may be as it should be.
    #[must_use]
    pub fn system_errno(&self) -> Option<i32> {
        let Self::Io { source, .. } = self else {
            return None;
        };
        let errno = source.raw_os_error()?;
        [libc::EMFILE, libc::ENFILE, libc::ENOMEM]
            .contains(&errno)
            .then_some(errno)
    }
}

fn help(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "; create it, or name another directory",
        io::ErrorKind::NotADirectory => "; name the directory, not a file",
        io::ErrorKind::PermissionDenied => {
            "; the user that convey runs as must be able to read it (see `ls -ld`)"
        }
        _ => "",
    }
}

/// The names of the files in a directory, sorted; without those of directories in it. A name that is not UTF-8 or has control
/// characters is given in quotes and escaped: it can be shown, and no file is found by it.
///
/// # Errors
/// It cannot be listed, or has more than `limit` entries of whatever kind.
pub fn names(path: &Path, limit: usize) -> Result<Vec<String>, ListError> {
    read(path, path, limit)
}

/// As [`names`], for a process that shows what it reads: if it may read everything, it lists only what those may list who
/// chose the directory. `named_by` have named the path.
///
/// # Errors
/// As [`names`], or [`ListError::Exposed`].
pub fn names_vetted(path: &Path, limit: usize, named_by: &Controllers) -> Result<Vec<String>, ListError> {
    if !controllers::may_read_everything() {
        return names(path, limit);
    }
    let directory: File = controllers::open_directory(path, named_by).map_err(|error| match error {
        OpenError::Io(source) => ListError::Io {
            path: path.into(),
            source,
        },
        OpenError::Exposed(who) => ListError::Exposed {
            path: path.into(),
            who,
        },
    })?;
    // the very one that was judged, whatever stands at the path by now
    let opened = OwnedFd::from(directory);
    let link = PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd()));
    read(&link, path, limit)
}

/// Lists what is at `from`, which messages call `path`.
fn read(from: &Path, path: &Path, limit: usize) -> Result<Vec<String>, ListError> {
    let failed = |source| ListError::Io {
        path: path.into(),
        source,
    };
    let mut names = Vec::new();
    for (index, entry) in fs::read_dir(from).map_err(failed)?.enumerate() {
        if index >= limit {
            return Err(ListError::TooMany {
                path: path.into(),
                limit,
            });
        }
        let entry = entry.map_err(failed)?;
        let is_directory = match entry.file_type() {
            // certbot's files are links; a link to a directory is one
            Ok(kind) if kind.is_symlink() => fs::metadata(entry.path()).is_ok_and(|found| found.is_dir()),
            Ok(kind) => kind.is_dir(),
            Err(_) => false,
        };
        if !is_directory {
            let name = entry.file_name();
            names.push(match name.to_str() {
                Some(text) if !text.chars().any(char::is_control) => text.to_owned(),
                _ => format!("{name:?}"),
            });
        }
    }
    names.sort_unstable();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_listed_by_name_and_directories_are_left_out() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.pem", "a.pem", ".hidden"] {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        fs::create_dir(dir.path().join("sub.pem")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("sub.pem"), dir.path().join("link.pem")).unwrap();
        std::os::unix::fs::symlink("/nonexistent", dir.path().join("dangling.pem")).unwrap();
        let expected = [".hidden", "a.pem", "b.pem", "dangling.pem"];
        assert_eq!(names(dir.path(), 6).unwrap(), expected);
        assert_eq!(
            names_vetted(dir.path(), 6, &Controllers::default()).unwrap(),
            expected
        );
        let text = names(dir.path(), 5).unwrap_err().to_string();
        assert!(text.contains("more than 5 entries"), "{text}");
    }

    #[test]
    fn names_that_no_terminal_should_be_shown_are_given_escaped() {
        use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
        let dir = tempfile::tempdir().unwrap();
        for name in [b"\xff.pem".as_slice(), b"line\nERROR fake.pem"] {
            fs::write(dir.path().join(OsStr::from_bytes(name)), "x").unwrap();
        }
        let expected = [r#""\xFF.pem""#, r#""line\nERROR fake.pem""#];
        assert_eq!(names(dir.path(), 6).unwrap(), expected);
    }

    #[test]
    fn what_is_no_directory_is_said_to_be_none() {
        let text = |path: &str| names(Path::new(path), 5).unwrap_err().to_string();
        assert!(
            text("/nonexistent").contains("create it"),
            "{}",
            text("/nonexistent")
        );
        assert!(
            text("/dev/null").contains("name the directory"),
            "{}",
            text("/dev/null")
        );
    }
}
