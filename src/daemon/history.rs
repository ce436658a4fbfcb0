//! The texts of the configuration that were in effect, kept in the state directory: who put them there, when, and what they
//! changed.
//!
//! A file a revision: a line of JSON that says so, and then the text byte for byte. The oldest give way.

use std::{
    collections::VecDeque,
    fs, io,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use super::state_dir::StateDir;
use crate::{admin::views::Revision, config::MAX_CONFIG_BYTES, sys::own_file};

/// The directory's name in the state directory.
const NAME: &str = "config-history";

/// A text may name what others need not know: for the daemon's group, as the configuration is.
const DIRECTORY_MODE: u32 = 0o750;
const MODE: u32 = 0o640;

/// Revisions that are kept.
const KEPT: usize = 100;

/// Bytes of text that are kept of all revisions together, but for the last two.
const KEPT_BYTES: u64 = 32 << 20;

/// Longest first line that is read, in bytes.
const MAX_HEADER: u64 = 64 << 10;

/// Changes that are kept of a revision, a line each.
const MAX_CHANGES: usize = 100;

/// The kept revisions.
#[derive(Debug)]
pub struct History {
    /// None if nothing can be kept.
    directory: Option<PathBuf>,
    revisions: Mutex<VecDeque<Kept>>,
    turn: Turn,
}

/// Whose turn it is to keep something: first come, first served.
type Turn = tokio::sync::Mutex<()>;

/// A revision, in its file's first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    revision: u64,
    /// Seconds since 1970.
    at: u64,
    by: String,
    generation: u64,
    changes: Vec<String>,
    bytes: u64,
}

impl History {
    /// What the state directory has; what cannot be read of it is said. To be called when the privileges are gone.
    pub fn open(state: &StateDir) -> Self {
        let directory = state.path().map(|path| path.join(NAME));
        let directory = directory.filter(|directory| {
            let made = fs::DirBuilder::new().mode(DIRECTORY_MODE).create(directory);
            made.is_ok() || directory.is_dir()
        });
        let revisions = directory.as_deref().map(read_all).unwrap_or_default();
        Self {
            directory,
            revisions: Mutex::new(revisions),
            turn: Turn::default(),
        }
    }

    /// Held by who keeps something.
    pub const fn turn(&self) -> &Turn {
        &self.turn
    }

    /// Keeps a text that is in effect, unless it is the last one's. What fails is a warning, for traffic does not depend on it.
    pub fn keep(&self, text: &[u8], by: &str, generation: u64, changes: &[String]) {
        let Some(directory) = &self.directory else {
            return;
        };
        let mut revisions = self.lock();
        let last = revisions.back();
        if last.is_some_and(|last| read(directory, last).is_ok_and(|kept| kept == text)) {
            return;
        }
        let kept = Kept {
            revision: last.map_or(1, |last| last.revision.saturating_add(1)),
            at: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default()
                .as_secs(),
            by: by.to_owned(),
            generation,
            changes: changes.iter().take(MAX_CHANGES).cloned().collect(),
            bytes: text.len() as u64,
        };
        match write(directory, &kept, text) {
            Ok(()) => revisions.push_back(kept),
            Err(error) => {
                tracing::warn!(
                    event = "history",
                    "cannot keep the configuration in {}: {error}",
                    directory.display()
                );
                return;
            }
        }
        while is_too_much(&revisions) {
            if let Some(oldest) = revisions.pop_front() {
                // one that stays is found again at the next start
                let _ = fs::remove_file(place(directory, oldest.revision));
            }
        }
    }

    /// The revisions, the latest first.
    pub fn list(&self) -> Vec<Revision> {
        self.lock().iter().rev().map(Kept::view).collect()
    }

    /// A revision's text; `None` if there is no such revision. Reads a file.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn text(&self, revision: u64) -> Option<io::Result<Vec<u8>>> {
        let kept = self.lock().iter().find(|kept| kept.revision == revision)?.clone();
        Some(read(self.directory.as_deref()?, &kept))
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Kept>> {
        self.revisions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn view(&self) -> Revision {
        Revision {
            revision: self.revision,
            at: jiff::Timestamp::try_from(UNIX_EPOCH + Duration::from_secs(self.at))
                .map(|at| at.to_string())
                .unwrap_or_default(),
            by: self.by.clone(),
            generation: self.generation,
            changes: self.changes.clone(),
            bytes: self.bytes,
        }
    }
}

fn is_too_much(revisions: &VecDeque<Kept>) -> bool {
    let bytes: u64 = revisions.iter().map(|kept| kept.bytes).sum();
    revisions.len() > KEPT || (revisions.len() > 2 && bytes > KEPT_BYTES)
}

fn place(directory: &Path, revision: u64) -> PathBuf {
    directory.join(format!("{revision:08}.toml"))
}

/// Every file that is a revision; others are left alone.
fn read_all(directory: &Path) -> VecDeque<Kept> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut found: Vec<Kept> = entries
        .filter_map(|entry| {
            let header = header(&mut BufReader::new(own_file::open(&entry.path()).ok()?)).ok()?;
            (entry.path() == place(directory, header.revision)).then_some(header)
        })
        .collect();
    found.sort_by_key(|kept| kept.revision);
    found.into()
}

fn header(file: &mut BufReader<fs::File>) -> io::Result<Kept> {
    let mut line = Vec::new();
    file.by_ref().take(MAX_HEADER).read_until(b'\n', &mut line)?;
    let line = line.strip_prefix(b"# convey ").unwrap_or_default();
    Ok(serde_json::from_slice(line)?)
}

fn read(directory: &Path, kept: &Kept) -> io::Result<Vec<u8>> {
    let mut file = BufReader::new(own_file::open(&place(directory, kept.revision))?);
    header(&mut file)?;
    let mut text = Vec::new();
    file.take(MAX_CONFIG_BYTES as u64 + 1).read_to_end(&mut text)?;
    if text.len() as u64 == kept.bytes {
        Ok(text)
    } else {
        Err(io::Error::other("the file has been changed"))
    }
}

fn write(directory: &Path, kept: &Kept, text: &[u8]) -> io::Result<()> {
    let new = directory.join("new");
    let mut file = own_file::create(&new, MODE)?;
    file.write_all(b"# convey ")?;
    file.write_all(&serde_json::to_vec(kept)?)?;
    file.write_all(b"\n")?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(new, place(directory, kept.revision))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(directory: &Path) -> History {
        History {
            directory: Some(directory.to_owned()),
            revisions: Mutex::new(read_all(directory)),
            turn: Turn::default(),
        }
    }

    #[test]
    fn texts_are_kept_byte_for_byte_and_found_again_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let first = history(directory.path());
        first.keep(b"# one\r\n\xc3\xa4", "start", 1, &[]);
        first.keep(b"# two", "uid 0, pid 7", 2, &["backend web: added".into()]);
        first.keep(b"# two", "SIGHUP", 2, &[]);
        let again = history(directory.path());
        for history in [&first, &again] {
            let list = history.list();
            assert_eq!(list.len(), 2, "the same text is no new revision");
            assert_eq!((list[0].revision, list[0].by.as_str()), (2, "uid 0, pid 7"));
            assert_eq!(list[0].changes, ["backend web: added"]);
            assert_eq!(history.text(1).unwrap().unwrap(), b"# one\r\n\xc3\xa4");
            assert!(history.text(3).is_none());
        }
        again.keep(b"# three", "start", 1, &[]);
        assert_eq!(again.list()[0].revision, 3);
    }

    #[test]
    fn the_oldest_give_way() {
        let directory = tempfile::tempdir().unwrap();
        let history = history(directory.path());
        for n in 0..KEPT + 5 {
            history.keep(format!("# {n}").as_bytes(), "start", 1, &[]);
        }
        let list = history.list();
        assert_eq!((list.len(), list[KEPT - 1].revision), (KEPT, 6));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), KEPT);
        assert!(history.text(5).is_none());
    }

    #[test]
    fn what_is_no_revision_is_left_alone_and_one_that_was_changed_is_not_handed_out() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("notes"), "mine").unwrap();
        fs::write(directory.path().join("00000009.toml"), "# convey {").unwrap();
        let history = history(directory.path());
        assert!(history.list().is_empty());
        history.keep(b"# one", "start", 1, &[]);
        let place = place(directory.path(), 1);
        let mut text = fs::read(&place).unwrap();
        text.push(b'\n');
        fs::write(&place, text).unwrap();
        assert!(history.text(1).unwrap().is_err());
        assert!(directory.path().join("notes").exists());
    }
}
