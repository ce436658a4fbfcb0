//! The file that keeps overrides over a restart, written by a thread of its own.
//!
//! The control loop hands over what is in effect and goes on. Of several states only the last is written; a write that
//! fails is said once, and the next change tries again.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{logging::time::Utc, state_dir::StateDir};
use crate::{
    base::ServerKey,
    pools::{MAX_FILE_BYTES, MAX_OVERRIDES, Pools, Saved, SavedOverride},
    sys::own_file,
};

/// The file's name in the state directory.
const NAME: &str = "overrides.json";

/// The new file before it takes the place of the old one.
const NEW: &str = "overrides.json.new";

/// What could not be read is kept under this name.
const ASIDE: &str = "overrides.json.unreadable";

/// Overrides say which servers there are: for the daemon's group, as the configuration is.
const MODE: u32 = 0o640;

/// What the last write gets when the process ends.
const LAST_WRITE: Duration = Duration::from_secs(5);

/// Servers that one log line names.
const NAMED: usize = 20;

/// The overrides that outlive the process.
pub struct SavedOverrides {
    /// What is in effect, or at the start what the file says.
    saved: Saved,
    /// None if the file cannot be written.
    writer: Option<Arc<Writer>>,
}

/// Why the file is not written.
#[derive(Debug, thiserror::Error)]
#[error("{step} {}: {source}", path.display())]
struct WriteError {
    step: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl SavedOverrides {
    /// Reads the file of a state directory. What cannot be used is said, and stops nothing. To be called when the privileges
    /// are gone.
    pub fn open(state: &StateDir) -> Self {
        let path = state.place().join(NAME);
        let (saved, is_foreign) = match read(&path) {
            Ok(saved) => (saved, false),
            Err(why) => {
                tracing::warn!(
                    event = "overrides_unreadable",
                    "cannot restore overrides from {}: {why}. The next override moves the file to {ASIDE}",
                    path.display()
                );
                (Saved::default(), true)
            }
        };
        let writer = state
            .is_writable()
            .then(|| Writer::start(state.place(), is_foreign))
            .flatten();
        Self { saved, writer }
    }

    /// What the file said.
    pub const fn saved(&self) -> &Saved {
        &self.saved
    }

    /// Takes and says what of it is in effect. The file is left as it is.
    pub fn restored(&mut self, pools: &Pools) {
        let said = std::mem::take(&mut self.saved);
        self.saved = said.follow(pools, now());
        if !self.saved.is_empty() {
            tracing::info!(
                event = "overrides_restored",
                "{} saved override(s) are in effect: {}",
                self.saved.len(),
                list(self.saved.iter())
            );
        }
        let gone = || said.iter().filter(|(key, _)| !self.saved.has(key));
        if gone().next().is_some() {
            tracing::info!(
                event = "overrides_ignored",
                "ignored {} saved override(s) of servers that are not in the configuration: {}",
                gone().count(),
                list(gone())
            );
        }
    }

    /// Has the file follow the overrides in effect; never waits.
    pub fn follow(&mut self, pools: &Pools) {
        let next = self.saved.follow(pools, now());
        if next == self.saved {
            return;
        }
        if next.len() > MAX_OVERRIDES && self.saved.len() <= MAX_OVERRIDES {
            tracing::warn!(
                event = "overrides_not_saved",
                "more than {MAX_OVERRIDES} overrides: the rest are lost when this process exits"
            );
        }
        self.saved = next;
        if let Some(writer) = &self.writer {
            writer.slot().next = Some(self.saved.clone());
            writer.changed.notify_all();
        }
    }
}

impl Drop for SavedOverrides {
    fn drop(&mut self) {
        if let Some(writer) = &self.writer {
            let mut slot = writer.slot();
            slot.is_closed = true;
            writer.changed.notify_all();
            let pending = |slot: &mut Slot| slot.is_writing || slot.next.is_some();
            let waited = writer.changed.wait_timeout_while(slot, LAST_WRITE, pending);
            drop(waited);
        }
    }
}

/// What the thread and its client share.
struct Writer {
    slot: Mutex<Slot>,
    /// The slot has changed.
    changed: Condvar,
}

#[derive(Default)]
struct Slot {
    /// What is to be written.
    next: Option<Saved>,
    is_writing: bool,
    is_closed: bool,
}

impl Writer {
    fn start(directory: &Path, is_foreign: bool) -> Option<Arc<Self>> {
        let writer = Arc::new(Self {
            slot: Mutex::default(),
            changed: Condvar::new(),
        });
        let (own, directory) = (Arc::clone(&writer), directory.to_owned());
        let started = thread::Builder::new()
            .name("convey-state".to_owned())
            .spawn(move || own.run(&directory, is_foreign));
        if let Err(error) = &started {
            tracing::warn!(
                event = "overrides_not_saved",
                "overrides will be lost when this process exits: start the thread that writes them: {error}"
            );
        }
        started.is_ok().then_some(writer)
    }

    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, directory: &Path, mut is_foreign: bool) {
        let mut has_failed = false;
        while let Some(saved) = self.next() {
            match write(directory, &saved, is_foreign) {
                Ok(()) => {
                    if std::mem::take(&mut has_failed) {
                        tracing::info!(event = "overrides_saved", "overrides are being saved again");
                    }
                    is_foreign = false;
                }
                Err(error) if has_failed => tracing::debug!(event = "overrides_not_saved", "{error}"),
                Err(error) => {
                    has_failed = true;
                    tracing::warn!(
                        event = "overrides_not_saved",
                        "overrides not saved, a restart would lose them: {error}. Trying again at the next change"
                    );
                }
            }
            self.slot().is_writing = false;
            self.changed.notify_all();
        }
    }

    /// Waits for what is to be written; `None` at the end.
    fn next(&self) -> Option<Saved> {
        let idle = |slot: &mut Slot| slot.next.is_none() && !slot.is_closed;
        let waited = self.changed.wait_while(self.slot(), idle);
        let mut slot = waited.unwrap_or_else(PoisonError::into_inner);
        let next = slot.next.take();
        slot.is_writing = next.is_some();
        next
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

fn describe((key, saved): (&ServerKey, &SavedOverride)) -> String {
    let since = UNIX_EPOCH.checked_add(Duration::from_secs(saved.since));
    let since = since.map_or_else(String::new, |since| format!(" since {}", Utc::from(since)));
    format!("{key} {}{since}", saved.overridden)
}

/// The first of many, and how many more.
fn list<'a>(mut all: impl Iterator<Item = (&'a ServerKey, &'a SavedOverride)>) -> String {
    let first: Vec<_> = all.by_ref().take(NAMED).map(describe).collect();
    let (mut text, more) = (first.join("; "), all.count());
    if more > 0 {
        let _infallible = write!(text, "; and {more} more");
    }
    text
}

/// Reads the file; none is one without overrides.
fn read(path: &Path) -> Result<Saved, Box<dyn std::error::Error>> {
    let file = match own_file::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Saved::default()),
        other => other?,
    };
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > MAX_FILE_BYTES {
        return Err(format!("larger than {MAX_FILE_BYTES} bytes").into());
    }
    Ok(Saved::decode(&bytes)?)
}

/// Replaces the file by a whole new one, or leaves it as it is. What is not ours is kept under another name.
fn write(directory: &Path, saved: &Saved, is_foreign: bool) -> Result<(), WriteError> {
    let (path, new) = (directory.join(NAME), directory.join(NEW));
    let at = |step, path: &Path| {
        let path = path.to_owned();
        move |source| WriteError { step, path, source }
    };
    write_new(&new, saved).map_err(at("write", &new))?;
    if is_foreign {
        let aside = directory.join(ASIDE);
        match fs::rename(&path, &aside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(at("move away", &path)(error));
            }
            _ => {}
        }
    }
    fs::rename(&new, &path).map_err(at("replace", &path))?;
    // the name too must be on the disk
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(at("sync", directory))
}

fn write_new(path: &Path, saved: &Saved) -> io::Result<()> {
    let bytes = saved.encode()?;
    let mut file = own_file::create(path, MODE)?;
    file.write_all(&bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::{
        base::{BackendName, ServerName},
        config::{self, Config, Options, Source},
        pools::{AdminState, Override},
    };

    fn config(directory: &Path, servers: &str) -> Config {
        let text = format!(
            "global.state_dir = \"{}\"\n[backends.web]\n{servers}",
            directory.display()
        );
        let source = Source {
            name: "c.toml".to_owned(),
            bytes: text.into(),
        };
        config::load(&source, Options::default()).unwrap().config
    }

    const SERVERS: &str = "servers.a.addr = \"10.0.0.1:80\"\nservers.b.addr = \"10.0.0.2:80\"\n";

    fn key(server: &str) -> ServerKey {
        ServerKey {
            backend: BackendName::new("web").unwrap(),
            server: ServerName::new(server).unwrap(),
        }
    }

    fn weight(weight: u16) -> Override {
        Override {
            admin: None,
            weight: Some(weight),
        }
    }

    /// A process with these servers, and what it finds.
    fn start(directory: &Path, servers: &str) -> (SavedOverrides, Pools) {
        let config = config(directory, servers);
        let mut pools = Pools::of(&config);
        let mut saved = SavedOverrides::open(&StateDir::prepare(&config, None));
        saved.saved().restore(&mut pools);
        saved.restored(&pools);
        (saved, pools)
    }

    fn of(pools: &Pools, server: &str) -> Override {
        pools.get("web").unwrap().server(server).unwrap().overridden
    }

    fn set(saved: &mut SavedOverrides, pools: &mut Pools, server: &str, overridden: Override) {
        assert!(pools.set_override(&key(server), overridden));
        saved.follow(pools);
    }

    #[test]
    fn the_last_of_many_changes_is_there_after_the_end_and_ready_clears_it() {
        let top = tempfile::tempdir().unwrap();
        let (mut saved, mut pools) = start(top.path(), SERVERS);
        for number in 0..500 {
            set(&mut saved, &mut pools, "a", weight(number));
        }
        let drained = Override {
            admin: Some(AdminState::Draining),
            weight: Some(3),
        };
        set(&mut saved, &mut pools, "b", drained);
        drop(saved);
        let mode = fs::metadata(top.path().join(NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, MODE);

        let (mut saved, mut pools) = start(top.path(), SERVERS);
        assert_eq!((of(&pools, "a"), of(&pools, "b")), (weight(499), drained));
        set(&mut saved, &mut pools, "b", Override::default());
        drop(saved);
        let (_, pools) = start(top.path(), SERVERS);
        assert_eq!(
            (of(&pools, "a"), of(&pools, "b")),
            (weight(499), Override::default())
        );
        assert_eq!(
            fs::read_dir(top.path()).unwrap().count(),
            1,
            "nothing is left beside it"
        );
    }

    #[test]
    fn a_server_that_is_missing_at_the_start_keeps_its_override_until_another_is_set() {
        let top = tempfile::tempdir().unwrap();
        let (mut saved, mut pools) = start(top.path(), SERVERS);
        set(&mut saved, &mut pools, "b", weight(7));
        drop(saved);
        let only_a = "servers.a.addr = \"10.0.0.1:80\"\n";
        drop(start(top.path(), only_a));
        let (saved, pools) = start(top.path(), SERVERS);
        assert_eq!(of(&pools, "b"), weight(7), "a start alone writes nothing");
        drop(saved);
        let (mut saved, mut pools) = start(top.path(), only_a);
        set(&mut saved, &mut pools, "a", weight(1));
        drop(saved);
        let (_, pools) = start(top.path(), SERVERS);
        assert_eq!(
            (of(&pools, "a"), of(&pools, "b")),
            (weight(1), Override::default())
        );
    }

    #[test]
    fn what_is_not_ours_stays_until_the_next_override_and_then_beside_it() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join(NAME);
        fs::write(&path, "{\"version\": 2}").unwrap();
        let (mut saved, mut pools) = start(top.path(), SERVERS);
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"version\": 2}");
        set(&mut saved, &mut pools, "a", weight(2));
        drop(saved);
        let aside = fs::read_to_string(top.path().join(ASIDE)).unwrap();
        assert_eq!(aside, "{\"version\": 2}");
        assert_eq!(of(&start(top.path(), SERVERS).1, "a"), weight(2));
    }

    #[test]
    fn neither_a_directory_nor_a_link_nor_a_pipe_of_that_name_is_read() {
        for make in [
            |path: &Path| fs::create_dir(path).unwrap(),
            |path: &Path| std::os::unix::fs::symlink("/dev/zero", path).unwrap(),
            |path: &Path| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap(),
        ] {
            let top = tempfile::tempdir().unwrap();
            make(&top.path().join(NAME));
            let (mut saved, mut pools) = start(top.path(), SERVERS);
            set(&mut saved, &mut pools, "a", weight(2));
            drop(saved);
            assert_eq!(of(&start(top.path(), SERVERS).1, "a"), weight(2));
        }
    }

    #[test]
    fn a_directory_that_is_not_there_costs_nothing_but_the_memory() {
        let top = tempfile::tempdir().unwrap();
        let missing = top.path().join("missing/state");
        let (mut saved, mut pools) = start(&missing, SERVERS);
        set(&mut saved, &mut pools, "a", weight(2));
        drop(saved);
        assert_eq!(of(&start(&missing, SERVERS).1, "a"), Override::default());
    }

    #[test]
    fn a_write_that_fails_is_tried_again_at_the_next_change() {
        let top = tempfile::tempdir().unwrap();
        let state = top.path().join("state");
        let (mut saved, mut pools) = start(&state, SERVERS);
        fs::remove_dir(&state).unwrap();
        set(&mut saved, &mut pools, "a", weight(1));
        let writer = saved.writer.clone().unwrap();
        let busy = |slot: &mut Slot| slot.is_writing || slot.next.is_some();
        drop(writer.changed.wait_while(writer.slot(), busy).unwrap());
        fs::create_dir(&state).unwrap();
        set(&mut saved, &mut pools, "b", weight(2));
        drop(saved);
        let (_, pools) = start(&state, SERVERS);
        assert_eq!((of(&pools, "a"), of(&pools, "b")), (weight(1), weight(2)));
    }
}
