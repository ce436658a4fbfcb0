//! Our own keys of TLS tickets: made, changed with time, and kept in the state directory, so that tickets outlive a restart.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

use aws_lc_rs::rand;

use super::state_dir::StateDir;
use crate::{
    sys::own_file,
    tls::{KEY_BYTES, TicketKeys},
};

/// The file's name in the state directory, and the name that it is written under.
const NAME: &str = "ticket-keys";
const NEW: &str = "ticket-keys.new";

/// As secret as a private key.
const MODE: u32 = 0o600;

/// Longest file that is read, in bytes: some keys of a line each.
const MAX_BYTES: u64 = 64 << 10;

/// The kernel gives none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no randomness for the keys of TLS tickets")]
pub struct NoRandomness;

/// Keys, and where they are kept.
#[derive(Debug)]
pub struct TicketKeyFile {
    keys: TicketKeys,
    directory: Option<PathBuf>,
    /// Whether the file has them as they are now.
    is_kept: bool,
}

impl TicketKeyFile {
    /// Those of before the start if there are any, else new ones. What cannot be read or written is said, and stops nothing:
    /// then clients shake hands in full after a restart.
    ///
    /// # Errors
    /// There is no randomness for new ones.
    pub fn open(state: &StateDir, now: SystemTime) -> Result<Self, NoRandomness> {
        let directory = state.path().map(Path::to_owned);
        let found = directory.as_deref().map(|directory| read(directory, now));
        let kept = match found {
            Some(Ok(keys)) => keys,
            Some(Err(error)) => {
                tracing::warn!(
                    event = "ticket_keys",
                    "cannot use the keys of TLS tickets in {}: {error}; new ones are made, and clients shake hands in full",
                    state.place().display()
                );
                None
            }
            None => None,
        };
        let is_kept = kept.is_some();
        let keys = match kept {
            Some(keys) => keys,
            None => TicketKeys::new(now, random()?),
        };
        let mut file = Self {
            keys,
            directory,
            is_kept,
        };
        file.turn(now);
        Ok(file)
    }

    /// The keys.
    #[must_use]
    pub const fn keys(&self) -> &TicketKeys {
        &self.keys
    }

    /// Changes the keys if it is time. Whether it was; then they are to be [kept](Self::keep).
    pub fn turn(&mut self, now: SystemTime) -> bool {
        if self.keys.next_rotation().is_none_or(|at| at > now) {
            return false;
        }
        // without randomness the old ones are better than none
        let turned = random().ok().and_then(|random| self.keys.rotated(now, random));
        let Some(turned) = turned else { return false };
        (self.keys, self.is_kept) = (turned, false);
        true
    }

    /// What keeps the keys as they are now, if the file has others: it waits for the disk.
    pub fn keep(&mut self) -> Option<impl FnOnce() + Send + use<>> {
        if std::mem::replace(&mut self.is_kept, true) {
            return None;
        }
        let (directory, keys) = (self.directory.clone()?, self.keys.clone());
        Some(move || {
            if let Err(error) = write(&directory, &keys) {
                tracing::warn!(
                    event = "ticket_keys",
                    "cannot keep the keys of TLS tickets in {}: {error}; after a restart clients shake hands in full",
                    directory.display()
                );
            }
        })
    }
}

fn random() -> Result<[u8; KEY_BYTES], NoRandomness> {
    let mut bytes = [0; KEY_BYTES];
    rand::fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(bytes)
}

fn read(directory: &Path, now: SystemTime) -> Result<Option<TicketKeys>, Box<dyn std::error::Error>> {
    let file = match own_file::open(&directory.join(NAME)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!("larger than {MAX_BYTES} bytes").into());
    }
    Ok(TicketKeys::from_state(&bytes, now)?)
}

fn write(directory: &Path, keys: &TicketKeys) -> io::Result<()> {
    let new = directory.join(NEW);
    let mut file = own_file::create(&new, MODE)?;
    file.write_all(&keys.to_state())?;
    file.sync_all()?;
    fs::rename(new, directory.join(NAME))
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt as _, time::Duration};

    use super::*;
    use crate::{
        config::{self, Options, Source},
        tls::ROTATION,
    };

    fn open(directory: &Path, now: SystemTime) -> TicketKeyFile {
        let source = Source {
            name: "c.toml".to_owned(),
            bytes: format!("global.state_dir = \"{}\"", directory.display()).into(),
        };
        let config = config::load(&source, Options::default()).unwrap().config;
        TicketKeyFile::open(&StateDir::prepare(&config, None), now).unwrap()
    }

    /// The file has whole seconds.
    fn now() -> SystemTime {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs())
    }

    fn keep(file: &mut TicketKeyFile) {
        file.keep().expect("something to keep")();
    }

    #[test]
    fn keys_outlive_the_process_once_they_are_used() {
        let (directory, now) = (tempfile::tempdir().unwrap(), now());
        let path = directory.path().join(NAME);
        let mut first = open(directory.path(), now);
        assert!(!path.exists(), "nobody uses them yet");
        keep(&mut first);
        assert!(first.keep().is_none(), "the file has them");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        let mut second = open(directory.path(), now);
        assert!(second.keys() == first.keys() && second.keep().is_none());
    }

    #[test]
    fn they_change_when_it_is_time_and_the_old_ones_still_read() {
        let (directory, now) = (tempfile::tempdir().unwrap(), now());
        let mut file = open(directory.path(), now);
        keep(&mut file);
        let before = file.keys().clone();
        assert!(!file.turn(now + ROTATION - Duration::from_secs(1)));
        assert!(file.turn(now + ROTATION) && *file.keys() != before);
        assert_eq!(file.keys().count(), 2);
        keep(&mut file);
        let later = open(directory.path(), now + ROTATION);
        assert!(later.keys() == file.keys());
    }

    #[test]
    fn what_is_no_file_of_keys_is_replaced_and_not_followed() {
        let (directory, now) = (tempfile::tempdir().unwrap(), now());
        let path = directory.path().join(NAME);
        fs::write(&path, "something else\n").unwrap();
        keep(&mut open(directory.path(), now));
        assert!(open(directory.path(), now).keep().is_none(), "it is ours now");
        fs::remove_file(&path).unwrap();
        let elsewhere = directory.path().join("elsewhere");
        fs::write(&elsewhere, "secret\n").unwrap();
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        keep(&mut open(directory.path(), now));
        assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "secret\n");
    }
}
