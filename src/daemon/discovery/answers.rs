//! The file that keeps the last good answers over a restart, where `on_failure` is "keep": a small JSON document in the state
//! directory, written beside the control loop. Of several only the last is written.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read as _, Write as _},
    num::NonZeroU32,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use serde::{Deserialize, Serialize};

use crate::{
    base::{BackendName, ServerAddr, ServerName},
    config::{Config, MAX_DISCOVERED, OnFailure, Server},
    daemon::state_dir::StateDir,
    pools::{Discovered, Pools},
    sys::own_file,
};

/// The file's name in the state directory.
const NAME: &str = "discovered.json";

/// The new file before it takes the place of the old one.
const NEW: &str = "discovered.json.new";

/// Nobody else needs it.
const MODE: u32 = 0o600;

/// Largest file that is read, in bytes; what would be larger is not written.
const MAX_BYTES: usize = 64 << 20;

/// The version of the document that is written, and the only one that is read.
const VERSION: u64 = 1;

/// See the [module](self).
pub struct SavedAnswers {
    /// `None` if nothing can be written.
    directory: Option<PathBuf>,
    /// What the file said at the start, by backend.
    said: BTreeMap<BackendName, Saved>,
    /// What the file has.
    written: Vec<Saved>,
    turn: Arc<Turn>,
}

/// Has only the last of what is announced written, one at a time.
#[derive(Default)]
struct Turn {
    announced: AtomicU64,
    busy: Mutex<()>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u64,
    backends: Vec<Saved>,
}

/// The last good answer for a backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    backend: BackendName,
    /// Whose answer it is.
    source: String,
    servers: Vec<SavedServer>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedServer {
    name: ServerName,
    addr: ServerAddr,
    weight: u16,
    priority: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_connections: Option<NonZeroU32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    sni: Vec<String>,
}

impl SavedAnswers {
    /// Reads the file of a state directory. What cannot be used is said, and stops nothing. To be called when the privileges
    /// are gone.
    pub fn open(state: &StateDir) -> Self {
        let directory = state.path().map(Path::to_owned);
        let said = match directory.as_deref().map(read) {
            None => Vec::new(),
            Some(Ok(said)) => said,
            Some(Err(why)) => {
                tracing::warn!(
                    event = "answers_unreadable",
                    "ignored what sources had answered before the start: {}: {why}",
                    state.place().join(NAME).display()
                );
                Vec::new()
            }
        };
        Self {
            directory,
            written: said.clone(),
            said: said
                .into_iter()
                .map(|saved| (saved.backend.clone(), saved))
                .collect(),
            turn: Arc::default(),
        }
    }

    /// The servers of backends whose sources had answered before the start, and are the same still. They count once.
    pub fn of(&mut self, config: &Config) -> Discovered {
        let said = std::mem::take(&mut self.said);
        let usable = said.into_iter().filter_map(|(backend, saved)| {
            let settings = config.backends.get(&backend)?.discovery.as_ref()?;
            let is_same =
                settings.on_failure == OnFailure::Keep && settings.source.to_string() == saved.source;
            is_same.then(|| Some((backend, saved.servers()?)))?
        });
        usable.collect()
    }

    /// Has the file follow what is discovered; never waits.
    pub fn follow(&mut self, config: &Config, pools: &Pools) {
        let Some(directory) = self.directory.clone() else {
            return;
        };
        let now: Vec<_> = (config.backends.iter())
            .filter_map(|(name, backend)| {
                let settings = backend.discovery.as_ref()?;
                let servers = pools.discovered(name.as_str())?;
                (settings.on_failure == OnFailure::Keep).then(|| Saved {
                    backend: name.clone(),
                    source: settings.source.to_string(),
                    servers: servers.iter().map(SavedServer::of).collect(),
                })
            })
            .collect();
        if now == self.written {
            return;
        }
        self.written.clone_from(&now);
        let (turn, number) = (Arc::clone(&self.turn), self.turn.announce());
        let write = move || turn.take(number, || write(&directory, now));
        // nobody waits for the disk
        drop(tokio::task::spawn_blocking(write));
    }
}

impl Turn {
    fn announce(&self) -> u64 {
        self.announced.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn take(&self, number: u64, work: impl FnOnce()) {
        let _one_at_a_time = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        if self.announced.load(Ordering::Relaxed) == number {
            work();
        }
    }
}

impl Saved {
    /// Sorted by name; `None` if they cannot be such as were written.
    fn servers(self) -> Option<Arc<[Server]>> {
        if self.servers.len() > usize::try_from(MAX_DISCOVERED).unwrap_or(usize::MAX) {
            return None;
        }
        let servers: Option<BTreeMap<ServerName, Server>> = (self.servers.into_iter())
            .map(|saved| Some((saved.name.clone(), saved.server()?)))
            .collect();
        Some(servers?.into_values().collect())
    }
}

impl SavedServer {
    fn of(server: &Server) -> Self {
        Self {
            name: server.name.clone(),
            addr: server.addr,
            weight: server.weight,
            priority: server.priority,
            max_connections: server.max_connections,
            sni: server.sni.iter().map(|name| name.as_str().to_owned()).collect(),
        }
    }

    fn server(self) -> Option<Server> {
        let sni = self.sni.iter().filter(|name| !name.starts_with('~'));
        Some(Server {
            name: self.name,
            addr: self.addr,
            weight: self.weight,
            priority: self.priority,
            max_connections: self.max_connections,
            sni: sni.map(|name| name.parse().ok()).collect::<Option<_>>()?,
            check_addr: None,
        })
    }
}

fn read(directory: &Path) -> Result<Vec<Saved>, Box<dyn std::error::Error>> {
    let file = match own_file::open(&directory.join(NAME)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut bytes = Vec::new();
    file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > MAX_BYTES {
        return Err(format!("larger than {MAX_BYTES} bytes").into());
    }
    let document: Document = serde_json::from_slice(&bytes)?;
    if document.version != VERSION {
        return Err(format!(
            "it has version {}, and this Convey reads version {VERSION}",
            document.version
        )
        .into());
    }
    Ok(document.backends)
}

fn write(directory: &Path, backends: Vec<Saved>) {
    let written = try_write(
        directory,
        &Document {
            version: VERSION,
            backends,
        },
    );
    if let Err(error) = written {
        tracing::warn!(
            event = "answers_not_saved",
            "cannot keep what sources have answered in {}: {error}; after a restart servers come when their source answers",
            directory.display()
        );
    }
}

fn try_write(directory: &Path, document: &Document) -> io::Result<()> {
    let mut bytes = serde_json::to_vec(document)?;
    bytes.push(b'\n');
    if bytes.len() > MAX_BYTES {
        return Err(io::Error::other(format!("they have more than {MAX_BYTES} bytes")));
    }
    let new = directory.join(NEW);
    let mut file = own_file::create(&new, MODE)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::rename(new, directory.join(NAME))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::config::{self, Options, Source};

    fn config(directory: &Path, more: &str) -> Config {
        let text = format!(
            "global.state_dir = {directory:?}\n[backends.web.discovery]\nkind = \"file\"\npath = \"/w\"\n{more}\n"
        );
        let source = Source {
            name: "c.toml".to_owned(),
            bytes: text.into(),
        };
        config::load(&source, Options::default()).unwrap().config
    }

    fn open(config: &Config) -> SavedAnswers {
        SavedAnswers::open(&StateDir::prepare(config, None))
    }

    fn web() -> BackendName {
        BackendName::new("web").unwrap()
    }

    fn servers() -> Arc<[Server]> {
        let addr: ServerAddr = "10.0.0.1:80".parse().unwrap();
        vec![Server {
            name: ServerName::new("one").unwrap(),
            addr,
            weight: 3,
            priority: 2,
            max_connections: NonZeroU32::new(9),
            sni: vec!["*.example.com".parse().unwrap()],
            check_addr: None,
        }]
        .into()
    }

    /// A process that has heard of one server, and has ended.
    fn keep(directory: &Path) {
        let config = config(directory, "");
        let mut pools = Pools::of(&config);
        assert!(pools.discover(&config, &web(), servers()));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async { open(&config).follow(&config, &pools) });
    }

    #[test]
    fn the_last_answer_outlives_the_process_for_the_same_source() {
        let directory = tempfile::tempdir().unwrap();
        keep(directory.path());
        let path = directory.path().join(NAME);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        let same = config(directory.path(), "");
        let mut answers = open(&same);
        assert_eq!(answers.of(&same), Discovered::from([(web(), servers())]));
        assert!(answers.of(&same).is_empty(), "it counts once");
        for other in ["format = \"json\"", "on_failure = \"empty\""] {
            let other = config(directory.path(), other);
            let is_kept = !open(&other).of(&other).is_empty();
            assert_eq!(
                is_kept,
                other.backends["web"].discovery.as_ref().unwrap().on_failure == OnFailure::Keep
            );
        }
        let mut moved = config(directory.path(), "");
        let backend = Arc::make_mut(moved.backends.get_mut(&web()).unwrap());
        let Some(settings) = &mut backend.discovery else {
            panic!()
        };
        settings.source = config::DiscoverySource::File {
            path: "/other".into(),
            format: config::AnswerFormat::Text,
        };
        assert!(open(&moved).of(&moved).is_empty());
    }

    #[test]
    fn a_file_that_is_broken_or_of_somebody_else_is_ignored() {
        let directory = tempfile::tempdir().unwrap();
        let (path, same) = (directory.path().join(NAME), config(directory.path(), ""));
        for odd in [
            "",
            "{",
            r#"{"version":2,"backends":[]}"#,
            r#"{"version":1,"backends":[{"backend":"web","source":"file /w","servers":[{"name":"a","addr":"x"}]}]}"#,
        ] {
            fs::write(&path, odd).unwrap();
            assert!(open(&same).of(&same).is_empty(), "{odd}");
        }
        fs::remove_file(&path).unwrap();
        let elsewhere = directory.path().join("elsewhere");
        fs::write(&elsewhere, r#"{"version":1,"backends":[]}"#).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        assert!(open(&same).of(&same).is_empty());
        keep(directory.path());
        assert!(!open(&same).of(&same).is_empty(), "it is ours now");
        assert_eq!(
            fs::read_to_string(&elsewhere).unwrap(),
            "{\"version\":1,\"backends\":[]}"
        );
    }
}
