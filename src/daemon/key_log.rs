//! The secrets of TLS connections in a file of the state directory (`key_log`), for who looks into captured traffic, as
//! SSLKEYLOGFILE has it elsewhere. Whoever has the file reads the connections.

use std::{
    fmt::Write as _,
    fs::File,
    io::{self, Write as _},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use rustls::KeyLog;

use super::state_dir::StateDir;
use crate::sys::own_file;

/// The file's name in the state directory.
const NAME: &str = "tls-keys.log";

/// As secret as a private key.
const MODE: u32 = 0o600;

/// Largest size of the file, in bytes: some 80,000 handshakes.
const MAX_BYTES: u64 = 64 << 20;

/// The file, as long as a frontend writes to it. All threads use it at once.
#[derive(Debug)]
pub struct KeyLogFile {
    /// Where it is or would be.
    path: PathBuf,
    file: Mutex<Option<Open>>,
    /// Secrets that were not written: the file is full, or the disk.
    left_out: AtomicU64,
}

#[derive(Debug)]
struct Open {
    file: File,
    size: u64,
}

impl KeyLogFile {
    /// The one in a state directory. It is not opened yet.
    #[must_use]
    pub fn new(state: &StateDir) -> Arc<Self> {
        Arc::new(Self {
            path: state.place().join(NAME),
            file: Mutex::default(),
            left_out: AtomicU64::new(0),
        })
    }

    /// Opens the file, anew if somebody has moved or removed it.
    ///
    /// # Errors
    /// What an operator should know of it: it cannot be written, or is full.
    pub fn open(&self) -> Result<(), String> {
        let path = self.path.display();
        let opened = own_file::append(&self.path, MODE).and_then(|file| {
            let size = file.metadata()?.len();
            Ok(Open { file, size })
        });
        let opened = match opened {
            Ok(opened) => opened,
            Err(error) => {
                *self.lock() = None;
                return Err(format!(
                    "key_log: cannot write {path}: {error}; no secrets are written"
                ));
            }
        };
        let is_full = opened.size >= MAX_BYTES;
        *self.lock() = Some(opened);
        match (self.left_out.swap(0, Ordering::Relaxed), is_full) {
            (0, false) => Ok(()),
            (left_out, true) => Err(format!(
                "key_log: {path} has its {MAX_BYTES} bytes, and {left_out} secrets were left out: remove it and reload"
            )),
            (left_out, false) => Err(format!(
                "key_log: {left_out} secrets could not be written to {path}"
            )),
        }
    }

    /// Writes nothing from now on.
    pub fn close(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> MutexGuard<'_, Option<Open>> {
        // what is guarded is whole after every statement
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn write(&mut self, line: &str) -> io::Result<()> {
        let size = self.size.saturating_add(line.len() as u64);
        if size > MAX_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        // one call a line: whoever reads along sees whole ones
        self.file.write_all(line.as_bytes())?;
        self.size = size;
        Ok(())
    }
}

impl KeyLog for KeyLogFile {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let mut line = format!("{label} ");
        for (bytes, after) in [(client_random, ' '), (secret, '\n')] {
            for byte in bytes {
                // a String takes everything
                let _ = write!(line, "{byte:02x}");
            }
            line.push(after);
        }
        let written = self.lock().as_mut().map(|open| open.write(&line));
        if let Some(Err(error)) = written
            && self.left_out.fetch_add(1, Ordering::Relaxed) == 0
        {
            tracing::warn!(
                event = "key_log",
                "cannot write the secrets of TLS connections to {}: {error}; the others are counted",
                self.path.display()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    fn in_directory(path: PathBuf) -> KeyLogFile {
        KeyLogFile {
            path,
            file: Mutex::default(),
            left_out: AtomicU64::new(0),
        }
    }

    #[test]
    fn secrets_are_appended_as_other_programs_have_them_for_the_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(NAME);
        let log = in_directory(path.clone());
        log.log("CLIENT_RANDOM", &[1], &[2]);
        assert!(!path.exists(), "it is not open");
        assert_eq!(log.open(), Ok(()));
        log.log("CLIENT_RANDOM", &[0, 0xab], &[0xff]);
        assert_eq!(log.open(), Ok(()));
        log.log("EXPORTER_SECRET", &[1], &[2]);
        log.close();
        log.log("CLIENT_RANDOM", &[3], &[4]);
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            "CLIENT_RANDOM 00ab ff\nEXPORTER_SECRET 01 02\n"
        );
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
    }

    #[test]
    fn a_full_file_gets_no_more_and_what_was_left_out_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(NAME);
        let log = in_directory(path.clone());
        assert_eq!(log.open(), Ok(()));
        // sparse
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(MAX_BYTES)
            .unwrap();
        assert!(
            log.open()
                .is_err_and(|why| why.contains("0 secrets were left out"))
        );
        log.log("CLIENT_RANDOM", &[1], &[2]);
        log.log("CLIENT_RANDOM", &[1], &[2]);
        assert_eq!(fs::metadata(&path).unwrap().len(), MAX_BYTES);
        assert!(
            log.open()
                .is_err_and(|why| why.contains("2 secrets were left out: remove it"))
        );
        fs::remove_file(&path).unwrap();
        assert_eq!(log.open(), Ok(()));
        log.log("CLIENT_RANDOM", &[1], &[2]);
        assert_eq!(fs::read_to_string(&path).unwrap(), "CLIENT_RANDOM 01 02\n");
        let nowhere = in_directory(dir.path().join("missing").join(NAME));
        assert!(
            nowhere
                .open()
                .is_err_and(|why| why.contains("no secrets are written"))
        );
    }
}
