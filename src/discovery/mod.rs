//! Servers that come by themselves: sources are asked, answers go to the daemon.
//!
//! ```text
//! Sources (control loop) ── a task a source ── asks ──► client of its kind ── bytes ──► answer ─► Found ─► control loop
//!          ▲ told of changes                                                                        judge ─► pools
//! ```
//! What an answer says is read by [`answer`] and judged by [`judge`], both pure; a kind of source is a client that brings the
//! bytes ([`Asker`]) and a pace ([`Pace`]). A source that fails is asked again, and nothing else depends on it.

pub mod answer;
mod ask;
mod caller;
mod consul;
#[cfg(feature = "docker")]
mod docker;
pub mod judge;
#[cfg(feature = "kubernetes")]
mod kubernetes;
#[cfg(any(feature = "docker", feature = "kubernetes"))]
mod lines;
#[cfg(feature = "lxd")]
mod lxd;
mod names;
mod service;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    future::Future,
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{Notify, mpsc},
    task::{AbortHandle, JoinSet},
    time::timeout_at,
};

use crate::{
    balance::hash::{SplitMix64, below},
    base::{BackendName, SocketPath},
    config::{Command, Config, Discovery},
    sys::interfaces,
};
use answer::{Answer, Malformed};
use ask::Asker;

/// How long a start or a reload waits for the first answers.
pub const FIRST_ANSWERS: Duration = Duration::from_secs(5);

/// Answers that may wait for the control loop; a source that has another waits with it.
pub const INBOX: usize = 64;

/// Resolves to the bytes of a file or of a command's output, or why there are none.
pub type Reading = Pin<Box<dyn Future<Output = Result<Vec<u8>, String>> + Send>>;

/// Resolves to a connection that does not block, or why there is none.
pub type Connecting = Pin<Box<dyn Future<Output = Result<OwnedFd, String>> + Send>>;

/// Reads what sources say, where this process may not itself.
pub trait Reader: Send + Sync {
    /// Connects to a unix socket that the configuration names.
    fn connect(&self, path: SocketPath) -> Connecting;

    /// Reads a file that the configuration names.
    fn read(&self, path: PathBuf) -> Reading;

    /// Runs a command that the configuration names: what it prints.
    fn run(&self, command: Command) -> Reading;
}

/// A source has answered, or has failed.
#[derive(Debug)]
pub struct Found {
    /// Whose servers they are.
    pub backend: BackendName,
    /// What it came to.
    pub reply: Reply,
    /// The task that asked: one that has been replaced since is stale.
    task: u64,
}

/// What came of asking a source.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The servers, or why there are none.
    pub result: Result<Answer, Failure>,
    /// How long it may be believed, if it says so.
    pub ttl: Option<Duration>,
    /// The addresses of this host then.
    pub host: Arc<BTreeSet<IpAddr>>,
    /// When that was.
    pub at: Instant,
}

/// What a source has answered.
#[derive(Debug)]
struct Answered {
    /// The servers.
    answer: Answer,
    /// How long it says that this may be believed.
    ttl: Option<Duration>,
}

/// Why a source has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It cannot be reached or read.
    #[error("{0}")]
    Unreadable(String),
    /// Its answer is none.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// It has not answered in time.
    #[error("it has not answered within {} s", .0.as_secs())]
    Silent(Duration),
    /// Its servers could not be put in effect.
    #[error("{0}")]
    Refused(String),
}

impl Failure {
    /// The reason in one word.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Unreadable(_) => "unreadable",
            Self::Malformed(_) => "malformed",
            Self::Silent(_) => "silent",
            Self::Refused(_) => "refused",
        }
    }
}

/// What came of asking a source, as far as the next time depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// Whether it failed.
    pub failed: bool,
    /// How long the answer may be believed, if it says so.
    pub ttl: Option<Duration>,
}

/// When a source is asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// When it is told to have changed.
    OnChange,
    /// After a time, or before if it is told to have changed.
    After(Duration),
}

impl Pace {
    /// Of a source that has been asked.
    fn of(settings: &Discovery, asked: Asked) -> Self {
        match asked {
            Asked { failed: true, .. } => Self::After(settings.interval),
            Asked { ttl: Some(ttl), .. } => Self::After(ttl),
            _ if settings.source.file().is_some() => Self::OnChange,
            _ => Self::After(settings.interval),
        }
    }
}

async fn reply(settings: &Discovery, asker: &mut Asker) -> Reply {
    let (result, ttl) = match asker.ask(settings).await {
        Ok(answered) => (Ok(answered.answer), answered.ttl),
        Err(failure) => (Err(failure), None),
    };
    Reply {
        result,
        ttl,
        host: Arc::new(interfaces::own_addresses()),
        at: Instant::now(),
    }
}

/// Asks sources, each once, all at the same time: what has come of it within a time.
pub async fn ask_all(
    sources: Vec<(BackendName, Discovery)>,
    reader: Arc<dyn Reader>,
    within: Duration,
) -> BTreeMap<BackendName, Reply> {
    let until = Instant::now() + within;
    let mut asking = JoinSet::new();
    let mut replies = BTreeMap::new();
    for (backend, settings) in sources {
        let silent = Reply {
            result: Err(Failure::Silent(within)),
            ttl: None,
            host: Arc::default(),
            at: until,
        };
        replies.insert(backend.clone(), silent);
        let mut asker = Asker::new(Arc::clone(&reader));
        asking.spawn(async move { (backend, reply(&settings, &mut asker).await) });
    }
    while let Ok(Some(asked)) = timeout_at(until.into(), asking.join_next()).await {
        if let Ok((backend, reply)) = asked {
            replies.insert(backend, reply);
        }
    }
    replies
}

/// The sources of a configuration that are asked. Lives on the control thread's runtime; dropping it ends them.
pub struct Sources {
    running: HashMap<BackendName, Running>,
    reader: Arc<dyn Reader>,
    found: mpsc::Sender<Found>,
    random: SplitMix64,
    last_task: u64,
}

/// A source, whose task ends when this is dropped.
struct Running {
    settings: Discovery,
    task: u64,
    changed: Arc<Notify>,
    handle: AbortHandle,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

impl Sources {
    /// None yet; answers will go to `found`.
    #[must_use]
    pub fn new(reader: Arc<dyn Reader>, found: mpsc::Sender<Found>) -> Self {
        Self {
            running: HashMap::new(),
            reader,
            found,
            // jitter need not be secret, only different in each process
            random: SplitMix64::new(RandomState::new().hash_one(0_u8)),
            last_task: 0,
        }
    }

    /// What reads what they say.
    #[must_use]
    pub fn reader(&self) -> Arc<dyn Reader> {
        Arc::clone(&self.reader)
    }

    /// Has exactly the sources of a configuration asked from now on. Those in `asked` have just been asked; others whose settings are as before go on as before.
    ///
    /// To be called within the runtime.
    pub fn follow(&mut self, config: &Config, asked: &BTreeMap<BackendName, Asked>) {
        let settings = |name: &BackendName| config.backends.get(name)?.discovery.as_ref();
        self.running
            .retain(|name, running| settings(name) == Some(&running.settings) && !asked.contains_key(name));
        for (name, backend) in &config.backends {
            let Some(settings) = backend
                .discovery
                .as_ref()
                .filter(|settings| settings.source.is_asked())
            else {
                continue;
            };
            if self.running.contains_key(name) {
                continue;
            }
            self.last_task += 1;
            let changed = Arc::new(Notify::new());
            let task = Task {
                backend: name.clone(),
                settings: settings.clone(),
                number: self.last_task,
                changed: Arc::clone(&changed),
                reader: Arc::clone(&self.reader),
                found: self.found.clone(),
                random: SplitMix64::new(self.random.next_u64()),
            };
            let handle = tokio::spawn(task.run(asked.get(name).copied())).abort_handle();
            let running = Running {
                settings: settings.clone(),
                task: self.last_task,
                changed,
                handle,
            };
            self.running.insert(name.clone(), running);
        }
    }

    /// A file has changed: those that are it, or need it, are asked.
    pub fn file_changed(&self, path: &Path) {
        let concerned = (self.running.values())
            .filter(|running| running.settings.source.files().any(|file| file == path));
        for running in concerned {
            running.changed.notify_one();
        }
    }

    /// Asks a source now.
    pub fn ask_again(&self, backend: &BackendName) {
        if let Some(running) = self.running.get(backend) {
            running.changed.notify_one();
        }
    }

    /// Whether this is about a source as it is asked now. Others are stale: the source was removed or changed since.
    #[must_use]
    pub fn is_current(&self, found: &Found) -> bool {
        let running = self.running.get(&found.backend);
        running.is_some_and(|running| running.task == found.task)
    }
}

struct Task {
    backend: BackendName,
    settings: Discovery,
    number: u64,
    changed: Arc<Notify>,
    reader: Arc<dyn Reader>,
    found: mpsc::Sender<Found>,
    random: SplitMix64,
}

impl Task {
    /// Asks until nobody wants to know; at once, unless it has been asked.
    async fn run(mut self, mut asked: Option<Asked>) {
        let mut asker = Asker::new(Arc::clone(&self.reader));
        loop {
            if let Some(asked) = asked
                && self.wait(Pace::of(&self.settings, asked)).await == Woken::Told
            {
                asker.forget();
            }
            let reply = reply(&self.settings, &mut asker).await;
            asked = Some(Asked {
                failed: reply.result.is_err(),
                ttl: reply.ttl,
            });
            let found = Found {
                backend: self.backend.clone(),
                reply,
                task: self.number,
            };
            if self.found.send(found).await.is_err() {
                return;
            }
        }
    }

    async fn wait(&mut self, pace: Pace) -> Woken {
        let told = self.changed.notified();
        match pace {
            Pace::OnChange => told.await,
            Pace::After(interval) => {
                let until = Instant::now() + jittered(interval, self.random.next_u64());
                if timeout_at(until.into(), told).await.is_err() {
                    return Woken::Due;
                }
            }
        }
        Woken::Told
    }
}

/// Why a source is asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Woken {
    /// Its time has come.
    Due,
    /// It has changed, or something that it is asked with.
    Told,
}

/// A time that is up to ten percent longer or shorter, by a random number: many sources are not asked at once.
fn jittered(interval: Duration, random: u64) -> Duration {
    let tenth = u64::try_from(interval.as_nanos() / 10).unwrap_or(u64::MAX / 4);
    let off = below(random, tenth.saturating_mul(2).max(1));
    (interval + Duration::from_nanos(off)).saturating_sub(Duration::from_nanos(tenth))
}
