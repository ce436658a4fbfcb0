//! How each source is, and what is said of it: each thing once, until it is another.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    admin::status::{SourceProblem, SourceStatus},
    base::BackendName,
    config::{Config, OnFailure, Server},
    discovery::{
        Failure, Reply,
        answer::PassedOver,
        judge::{Hold, Judge, LeftOut},
    },
    pools::Pools,
};

/// How soon the same problem in other words is said again.
const SAID_AGAIN: Duration = Duration::from_secs(60);

/// What an answer comes to.
#[derive(Debug)]
pub struct Judgement {
    /// Its servers, or why those in effect stay or go.
    pub outcome: Result<Arc<[Server]>, Problem>,
    /// What was not taken.
    pub left_out: LeftOut,
    /// How many servers were named again.
    pub duplicates: usize,
    /// Why nothing is known of one that is named, which stays as it was.
    pub unanswered: Option<Failure>,
    /// What is named and is no server.
    pub passed_over: PassedOver,
    /// How long it may be believed, if it says so.
    pub ttl: Option<Duration>,
    /// When it came.
    pub at: Instant,
}

impl Judgement {
    /// What was left out, and why.
    fn why_left_out(&self) -> String {
        let of_servers = (self.left_out.count > 0).then(|| self.left_out.to_string());
        let passed_over = self
            .passed_over
            .first
            .as_ref()
            .map(|first| match self.passed_over.count {
                1 => format!("left out {first}"),
                count => format!("left out {count}, the first of them {first}"),
            });
        let both: Vec<_> = of_servers.into_iter().chain(passed_over).collect();
        both.join("; ")
    }
}

/// Why an answer is not obeyed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// It would take too many servers away.
    Held(Hold),
    /// There is none.
    Failed(Failure),
}

impl Problem {
    /// The reason in one word.
    const fn label(&self) -> &'static str {
        match self {
            Self::Held(hold) => hold.label(),
            Self::Failed(failure) => failure.label(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held(hold) => hold.fmt(f),
            Self::Failed(failure) => failure.fmt(f),
        }
    }
}

/// Judges what a source has answered for a backend; `before` as [`Judge::before`]. `None` if the backend has no source.
pub fn judge(
    config: &Config,
    backend: &BackendName,
    reply: &Reply,
    before: Option<&[Server]>,
) -> Option<Judgement> {
    let settings = config.backends.get(backend)?.discovery.as_ref()?;
    let rules = config.server_rules(backend.as_str())?;
    let (ttl, at) = (reply.ttl, reply.at);
    Some(match &reply.result {
        Err(failure) => Judgement {
            outcome: Err(Problem::Failed(failure.clone())),
            left_out: LeftOut::default(),
            duplicates: 0,
            unanswered: None,
            passed_over: PassedOver::default(),
            ttl,
            at,
        },
        Ok(answer) => {
            let judge = Judge {
                settings,
                rules: &rules,
                host: &reply.host,
                before,
            };
            let judged = judge.judge(answer.clone());
            Judgement {
                outcome: judged.verdict.map_err(Problem::Held),
                left_out: judged.left_out,
                duplicates: judged.duplicates,
                unanswered: judged.unanswered.map(Failure::Unreadable),
                passed_over: judged.passed_over,
                ttl,
                at,
            }
        }
    })
}

/// How the sources of the configuration in effect are.
#[derive(Debug, Default)]
pub struct States {
    statuses: Arc<BTreeMap<BackendName, SourceStatus>>,
    /// Which source each is.
    identities: BTreeMap<BackendName, String>,
    /// Sources whose servers could not be put in effect.
    retries: BTreeSet<BackendName>,
    /// Backends whose discovered servers another source has named, before a reload.
    foreign: BTreeSet<BackendName>,
}

impl States {
    /// As the endpoints show them.
    pub const fn statuses(&self) -> &Arc<BTreeMap<BackendName, SourceStatus>> {
        &self.statuses
    }

    /// Goes on with the sources of a configuration.
    pub fn follow(&mut self, config: &Config) {
        let statuses = Arc::make_mut(&mut self.statuses);
        let before = std::mem::take(statuses);
        let identities = std::mem::take(&mut self.identities);
        for (name, backend) in &config.backends {
            let Some(settings) = &backend.discovery else {
                continue;
            };
            let source: Arc<str> = settings.source.to_string().into();
            let identity = settings.source.identity();
            let is_same = identities.get(name) == Some(&identity);
            if before.contains_key(name) && !is_same {
                self.foreign.insert(name.clone());
            }
            let same = before.get(name).filter(|_| is_same).cloned();
            self.identities.insert(name.clone(), identity);
            let status = same.unwrap_or_else(|| SourceStatus {
                source,
                kind: settings.kind(),
                servers: before.get(name).map_or(0, |before| before.servers),
                answered: None,
                left_out: 0,
                duplicates: 0,
                problem: None,
            });
            statuses.insert(name.clone(), status);
        }
        self.retries.retain(|name| self.statuses.contains_key(name));
        self.foreign.retain(|name| self.statuses.contains_key(name));
    }

    /// Whether a backend's discovered servers are those of another source, and may all go.
    pub fn is_foreign(&self, backend: &BackendName) -> bool {
        self.foreign.contains(backend)
    }

    /// Takes and says what an answer came to.
    pub fn judged(&mut self, config: &Config, backend: &BackendName, judged: &Judgement) {
        self.retries.remove(backend);
        let on_failure = (config.backends.get(backend))
            .and_then(|backend| backend.discovery.as_ref())
            .map_or(OnFailure::Keep, |settings| settings.on_failure);
        let Some(status) = Arc::make_mut(&mut self.statuses).get_mut(backend) else {
            return;
        };
        let source = Arc::clone(&status.source);
        match &judged.outcome {
            Ok(_) => {
                self.foreign.remove(backend);
                let left_out = judged.left_out.count + judged.passed_over.count;
                if left_out > 0 && status.left_out != left_out {
                    let why = judged.why_left_out();
                    tracing::warn!(event = "discovery_left_out", backend = %backend, "backend {backend}: {source}: {why}");
                }
                if let Some(failure) = &judged.unanswered {
                    let problem = Problem::Failed(failure.clone());
                    note(status, backend, &problem, judged.at, OnFailure::Keep);
                } else if let Some(problem) = status.problem.take() {
                    tracing::info!(
                        event = "discovery_recovered",
                        backend = %backend,
                        reason = problem.label,
                        "backend {backend}: {source} is read again"
                    );
                }
                status.answered = Some(judged.at);
                (status.left_out, status.duplicates) = (left_out, judged.duplicates);
            }
            Err(problem) => {
                note(status, backend, problem, judged.at, on_failure);
            }
        }
    }

    /// Counts the servers in effect.
    pub fn count(&mut self, pools: &Pools) {
        for (name, status) in Arc::make_mut(&mut self.statuses) {
            let pool = pools.get(name.as_str());
            let servers = pool.map_or(&[][..], |pool| pool.servers());
            status.servers = servers.iter().filter(|server| server.is_discovered).count();
        }
    }

    /// A source is to be asked again, for its servers could not be put in effect.
    pub fn retry(&mut self, backend: &BackendName) {
        self.retries.insert(backend.clone());
    }

    /// Those that are.
    pub fn retries(&mut self) -> BTreeSet<BackendName> {
        std::mem::take(&mut self.retries)
    }
}

/// Shows a problem, and says it if it is another than before.
fn note(
    status: &mut SourceStatus,
    backend: &BackendName,
    problem: &Problem,
    at: Instant,
    on_failure: OnFailure,
) {
    let text = problem.to_string();
    let same = status
        .problem
        .as_ref()
        .filter(|before| before.label == problem.label());
    let (since, said) = match same {
        // a text may have a time or a number of a request in it, and be another each time
        Some(before) if *before.text == *text || at < before.said + SAID_AGAIN => (before.since, before.said),
        before => {
            say(backend, &status.source, problem, &text, on_failure);
            (before.map_or(at, |before| before.since), at)
        }
    };
    status.problem = Some(SourceProblem {
        is_held: matches!(problem, Problem::Held(_)),
        label: problem.label(),
        text: text.into(),
        since,
        said,
    });
}

fn say(backend: &BackendName, source: &str, problem: &Problem, text: &str, on_failure: OnFailure) {
    let reason = problem.label();
    match problem {
        Problem::Held(_) => tracing::warn!(
            event = "discovery_held",
            backend = %backend,
            reason,
            "backend {backend}: {source}: {text}; its servers stay as they are"
        ),
        Problem::Failed(failure) => {
            let stays = on_failure == OnFailure::Keep || matches!(failure, Failure::Refused(_));
            let what = match stays {
                true => "its servers stay as they are",
                false => "it has no discovered servers until that is right (on_failure)",
            };
            tracing::warn!(
                event = "discovery_failed",
                backend = %backend,
                reason,
                "backend {backend}: {source}: {text}; {what}"
            );
        }
    }
}
