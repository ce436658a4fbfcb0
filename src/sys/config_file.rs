//! Reading the configuration file without trusting what stands at its path.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::{FileTypeExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

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
    /// Reading failed half-way.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
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
    // O_NONBLOCK: opening a FIFO that nobody writes would wait for ever; O_NOCTTY: a terminal must not become ours
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC | libc::O_NOCTTY)
        .open(path)
        .map_err(|source| ReadError::Open {
            path: path.into(),
            source,
        })?;
    let read_error = |source| ReadError::Read {
        path: path.into(),
        source,
    };
    let kind = file.metadata().map_err(read_error)?.file_type();
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
    Ok(content)
}

fn kind_name(kind: std::fs::FileType) -> &'static str {
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
        std::fs::write(&path, "1234").unwrap();
        assert_eq!(text(read(&path, 4)), "1234");
        assert!(text(read(&path, 3)).contains("larger than 3 bytes"));
    }

    #[test]
    fn a_fifo_is_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("convey.toml");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert!(text(read(&path, 10)).contains("it is a FIFO, not a regular file"));
    }

    #[test]
    fn directories_devices_and_missing_files_are_named() {
        assert!(text(read(Path::new("/"), 10)).contains("cannot read /: it is a directory"));
        assert!(text(read(Path::new("/dev/zero"), 10)).contains("it is a device"));
        assert!(text(read(Path::new("/nonexistent/c.toml"), 10)).contains("--config"));
    }
}
