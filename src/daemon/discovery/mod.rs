//! Servers that come by themselves: what sources answer, put in effect.
//!
//! ```text
//! Found ─► waiting ─ judge ─┬─► pools, checks, snapshot                 where only connections are concerned
//!                           └─► arm (rules, filters) ─► the same ─► commit    where packets are
//!            └─ held, failed ─► said once; the servers stay
//! ```
//! One thing at a time: while a reload or an earlier answer is under way, the last answer of each source waits, and is judged
//! by what is in effect then. A reload that gets to its own rules first takes precedence; what was being armed waits again.

mod answers;
mod first;
mod operators;
mod state;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Instant,
};

use tokio::{sync::mpsc, task::JoinSet};

use super::{
    Control,
    plane::packets::{Armed, PacketsError},
    state_dir::StateDir,
};
use crate::{
    admin::status::SourceStatus,
    base::{BackendName, SocketPath},
    client::runner::Runner,
    config::{Command, Config, OnFailure, Server},
    discovery::{Asked, Connecting, Failure, Found, Reader, Reading, Reply, Sources},
    pools::{Discovered, Pools},
    privilege::{Client, What},
};
use answers::SavedAnswers;
pub use first::{First, first_answers};
use state::{Judgement, Problem, States, judge};

/// What the control loop has to do with sources.
pub struct Discovery {
    sources: Sources,
    states: States,
    /// The last answer of each source that has not been judged yet.
    waiting: BTreeMap<BackendName, Reply>,
    /// Files that have changed while a reload was under way, which may have read them before.
    changed_meanwhile: BTreeSet<PathBuf>,
    /// What is being armed; it can be put back among those that wait.
    arming: Option<Change>,
    jobs: JoinSet<Result<Armed, PacketsError>>,
    answers: SavedAnswers,
}

/// What answers come to.
#[derive(Debug, Default)]
struct Change {
    /// The servers of backends.
    discovered: Discovered,
    /// The answers that say so.
    replies: BTreeMap<BackendName, Reply>,
}

/// The end of a job, to be handed to [`Control::discovery_armed`].
#[derive(Debug)]
pub struct DiscoveryArmed(Result<Armed, PacketsError>);

/// The broker, as sources ask it for files, and the runner.
struct Readers {
    broker: Client,
    runner: Runner,
}

impl Reader for Readers {
    fn read(&self, path: PathBuf) -> Reading {
        let broker = self.broker.clone();
        Box::pin(async move {
            let read = broker.read(What::DiscoveryFile(path)).await;
            read.map(|file| file.source.bytes)
                .map_err(|error| error.to_string())
        })
    }

    fn connect(&self, path: SocketPath) -> Connecting {
        let broker = self.broker.clone();
        Box::pin(async move {
            let connected = broker.connect(path).await;
            connected.map_err(|error| error.to_string())
        })
    }

    fn run(&self, command: Command) -> Reading {
        let runner = self.runner.clone();
        Box::pin(async move {
            let printed = runner.run(&command, b"").await;
            printed.map_err(|error| error.to_string())
        })
    }
}

impl Discovery {
    /// No source yet; what was saved in the state directory is there for [`Control::first_servers`].
    pub fn new(broker: Client, runner: Runner, found: mpsc::Sender<Found>, state_dir: &StateDir) -> Self {
        Self {
            sources: Sources::new(Arc::new(Readers { broker, runner }), found),
            states: States::default(),
            waiting: BTreeMap::new(),
            changed_meanwhile: BTreeSet::new(),
            arming: None,
            jobs: JoinSet::new(),
            answers: SavedAnswers::open(state_dir),
        }
    }

    /// How the sources are.
    pub const fn statuses(&self) -> &Arc<BTreeMap<BackendName, SourceStatus>> {
        self.states.statuses()
    }

    /// What reads what sources say.
    pub fn reader(&self) -> Arc<dyn Reader> {
        self.sources.reader()
    }

    /// Resolves when rules and filters for discovered servers are in place, or could not be; never while none are wanted.
    pub async fn armed(&mut self) -> DiscoveryArmed {
        match self.jobs.join_next().await {
            Some(Ok(armed)) => DiscoveryArmed(armed),
            // it has panicked
            Some(Err(_)) => DiscoveryArmed(Err(PacketsError::Ended)),
            None => std::future::pending().await,
        }
    }

    /// Gives up what is being armed: a reload arms now. It is judged again afterwards.
    pub fn give_way(&mut self) {
        // what an ended job had is put back with it
        self.jobs = JoinSet::new();
        if let Some(change) = self.arming.take() {
            for (backend, reply) in change.replies {
                // a newer one is there
                self.waiting.entry(backend).or_insert(reply);
            }
        }
    }

    /// Has the sources of a configuration asked; those of `first` have been.
    pub fn follow(&mut self, config: &Config, first: First) {
        let asked_of = |judged: &Judgement| Asked {
            failed: matches!(judged.outcome, Err(Problem::Failed(_))),
            ttl: judged.ttl,
        };
        let asked = (first.judged.iter())
            .map(|(backend, judged)| (backend.clone(), asked_of(judged)))
            .collect();
        let is_source = |name: &BackendName| config.backends.get(name).is_some_and(|b| b.discovery.is_some());
        // what another source, or this one by other settings, has answered counts no more
        (self.waiting).retain(|backend, _| is_source(backend) && !first.judged.contains_key(backend));
        self.sources.follow(config, &asked);
        for path in std::mem::take(&mut self.changed_meanwhile) {
            self.sources.file_changed(&path);
        }
        self.states.follow(config);
        for (backend, judged) in first.judged {
            self.states.judged(config, &backend, &judged);
        }
    }
}

impl Control {
    /// At the start: the servers that sources name, or named before it.
    pub(super) async fn first_servers(&mut self) {
        let config = self.state.config().clone();
        for (backend, servers) in self.discovery.answers.of(&config) {
            self.state.discovered(&backend, servers, Instant::now());
        }
        let first = first_answers(&config, None, self.state.pools(), self.discovery.reader()).await;
        for (backend, servers) in &first.discovered {
            self.state
                .discovered(backend, Arc::clone(servers), Instant::now());
        }
        self.discovery.follow(&config, first);
        self.servers_changed();
    }

    /// A source has answered or failed.
    pub(super) fn found(&mut self, found: Found) {
        if self.stopping.is_some() || !self.discovery.sources.is_current(&found) {
            return;
        }
        self.discovery.waiting.insert(found.backend, found.reply);
        self.take_answers();
    }

    /// Files that sources are have changed.
    pub(super) fn discovery_files_changed<'a>(&mut self, files: impl Iterator<Item = &'a What>) {
        for what in files {
            let What::DiscoveryFile(path) = what else { continue };
            self.discovery.sources.file_changed(path);
            if !self.reload.is_idle() {
                self.discovery.changed_meanwhile.insert(path.clone());
            }
        }
    }

    /// Puts in effect what sources have answered, unless something else is under way.
    pub(super) fn take_answers(&mut self) {
        if !self.reload.is_idle() {
            return;
        }
        self.discovery.changed_meanwhile.clear();
        if self.discovery.waiting.is_empty() || self.discovery.arming.is_some() {
            return;
        }
        let config = self.state.config().clone();
        let (mut at_once, mut by_packets) = (Change::default(), Change::default());
        for (backend, reply) in std::mem::take(&mut self.discovery.waiting) {
            let before = self.state.pools().discovered(backend.as_str()).cloned();
            let before = before.as_deref().unwrap_or_default();
            let is_same = !self.discovery.states.is_foreign(&backend);
            let Some(judged) = judge(&config, &backend, &reply, is_same.then_some(before)) else {
                continue;
            };
            self.discovery.states.judged(&config, &backend, &judged);
            let Some(servers) = judged.servers(&config, &backend) else {
                continue;
            };
            let change = match needs_arming(&config, self.state.pools(), &backend, &servers) {
                true => &mut by_packets,
                false => &mut at_once,
            };
            change.discovered.insert(backend.clone(), servers);
            change.replies.insert(backend, reply);
        }
        self.put_in_effect(at_once);
        if !by_packets.discovered.is_empty() {
            let mut pools = self.state.pools().clone();
            for (backend, servers) in &by_packets.discovered {
                pools.discover(&config, backend, Arc::clone(servers));
            }
            let armed = self.packets.arm(Arc::new(config), Arc::new(pools));
            self.discovery.jobs.spawn(armed);
            self.discovery.arming = Some(by_packets);
        }
        self.publish_status();
    }

    /// Rules and filters for discovered servers are in place, or could not be.
    pub(super) fn discovery_armed(&mut self, armed: DiscoveryArmed) {
        let Some(change) = self.discovery.arming.take() else {
            return;
        };
        let config = self.state.config().clone();
        match armed.0 {
            Ok(armed) => {
                self.put_in_effect(change);
                // before packets are served so: the engine's servers are those of the snapshot
                self.publish();
                // nobody waits for the end of it
                tokio::spawn(self.packets.commit(armed, Arc::new(config)));
            }
            Err(error) => {
                for (backend, reply) in change.replies {
                    let refused = Reply {
                        result: Err(Failure::Refused(error.to_string())),
                        ..reply
                    };
                    // the servers in effect stay, whatever on_failure says: the source has not failed
                    if let Some(judged) = judge(&config, &backend, &refused, None) {
                        self.discovery.states.judged(&config, &backend, &judged);
                    }
                    self.discovery.states.retry(&backend);
                }
            }
        }
        self.publish_status();
        self.take_answers();
    }

    /// Asks sources again whose servers could not be put in effect.
    pub(super) fn retry_discovery(&mut self) {
        for backend in self.discovery.states.retries() {
            self.discovery.sources.ask_again(&backend);
        }
    }

    fn put_in_effect(&mut self, change: Change) {
        let mut is_changed = false;
        for (backend, servers) in change.discovered {
            is_changed |= self.state.discovered(&backend, servers, Instant::now());
        }
        if is_changed {
            self.servers_changed();
        }
    }

    /// What follows from other servers than before, besides snapshot and checks.
    pub(super) fn servers_changed(&mut self) {
        self.saved.follow(self.state.pools());
        let (config, pools) = (self.state.config(), self.state.pools());
        self.discovery.states.count(pools);
        self.discovery.answers.follow(config, pools);
        if self.ready {
            self.scripts.write(config, pools);
        }
    }
}

impl Judgement {
    /// The servers that a backend has from now on; `None`: those that it has.
    fn servers(&self, config: &Config, backend: &BackendName) -> Option<Arc<[Server]>> {
        match &self.outcome {
            Ok(servers) => Some(Arc::clone(servers)),
            Err(Problem::Held(_)) => None,
            Err(Problem::Failed(_)) => {
                let settings = config.backends.get(backend)?.discovery.as_ref()?;
                (settings.on_failure == OnFailure::Empty).then(Arc::default)
            }
        }
    }
}

/// Whether other services are needed of the kernel with these servers.
fn needs_arming(config: &Config, before: &Pools, backend: &BackendName, servers: &Arc<[Server]>) -> bool {
    let by_packets = |name: &BackendName| {
        let mut frontends = config.frontends.values();
        frontends.any(|frontend| frontend.mode.is_packet() && frontend.backend == *name)
    };
    let addresses = |servers: &[Server]| servers.iter().map(|server| server.addr).collect::<BTreeSet<_>>();
    let now = before
        .discovered(backend.as_str())
        .map(|servers| addresses(servers));
    by_packets(backend) && now.unwrap_or_default() != addresses(servers)
}
