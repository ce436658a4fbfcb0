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
        let is_new = kept.is_none();
        let keys = match kept {
            Some(keys) => keys,
            None => TicketKeys::new(now, random()?),
        };
        let mut file = Self { keys, directory };
        if file.turn(now) || is_new {
            file.keep()();
        }
        Ok(file)
    }

    /// The keys.
    #[must_use]
    pub const fn keys(&self) -> &TicketKeys {
        &self.keys
    }

    /// Changes the keys if it is time. Whether it was.
    pub fn turn(&mut self, now: SystemTime) -> bool {
        if self.keys.next_rotation().is_none_or(|at| at > now) {
            return false;
        }
        // without randomness the old ones are better than none
        let turned = random().ok().and_then(|random| self.keys.rotated(now, random));
        let is_turned = turned.is_some();
        self.keys = turned.unwrap_or_else(|| self.keys.clone());
        is_turned
    }

    /// What keeps the keys as they are now: it waits for the disk.
    pub fn keep(&self) -> impl FnOnce() + Send + use<> {
        let (directory, keys) = (self.directory.clone(), self.keys.clone());
        move || {
            let Some(directory) = directory else { return };
            if let Err(error) = write(&directory, &keys) {
                tracing::warn!(
                    event = "ticket_keys",
                    "cannot keep the keys of TLS tickets in {}: {error}; after a restart clients shake hands in full",
                    directory.display()
                );
            }
        }
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
