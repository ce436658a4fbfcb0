//! How each source is, and what is said of it: each thing once, until it is another, and no more than one a minute.

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

/// How soon something else is said of the same source.
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

/// What the log was told of a source.
#[derive(Debug, Default)]
struct Told {
    /// When that was, of a problem or of what was left out.
    at: Option<Instant>,
    /// The problem, unless it is told that the source is read again.
    problem: Option<String>,
    /// How many were left out.
    left_out: usize,
}

impl Told {
    /// Whether something may be told now; then that is when it was.
    fn takes(&mut self, at: Instant) -> bool {
        let is_due = self.at.is_none_or(|told| at >= told + SAID_AGAIN);
        if is_due {
            self.at = Some(at);
        }
        is_due
    }
}

/// How the sources of the configuration in effect are.
#[derive(Debug, Default)]
pub struct States {
    statuses: Arc<BTreeMap<BackendName, SourceStatus>>,
    /// Which source each is.
    identities: BTreeMap<BackendName, String>,
    /// What the log was told of each.
    told: BTreeMap<BackendName, Told>,
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
            if !is_same {
                self.told.remove(name);
            }
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
        self.told.retain(|name, _| self.statuses.contains_key(name));
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
        let told = self.told.entry(backend.clone()).or_default();
        match &judged.outcome {
            Ok(_) => {
                self.foreign.remove(backend);
                if let Some(failure) = &judged.unanswered {
                    let problem = Problem::Failed(failure.clone());
                    note(status, told, backend, &problem, judged.at, OnFailure::Keep);
                } else {
                    recovered(status, told, backend);
                }
                status.left_out = judged.left_out.count + judged.passed_over.count;
                status.duplicates = judged.duplicates;
                status.answered = Some(judged.at);
                note_left_out(status, told, backend, judged);
            }
            Err(problem) => note(status, told, backend, problem, judged.at, on_failure),
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

/// Shows a problem, and says it if it is another than the log was told.
fn note(
    status: &mut SourceStatus,
    told: &mut Told,
    backend: &BackendName,
    problem: &Problem,
    at: Instant,
    on_failure: OnFailure,
) {
    let text = problem.to_string();
    // a text may have a time or a number of a request in it, and be another each time
    if told.problem.as_ref() != Some(&text) && told.takes(at) {
        say(backend, &status.source, problem, &text, on_failure);
        told.problem = Some(text.clone());
    }
    let same = status
        .problem
        .as_ref()
        .filter(|before| before.label == problem.label());
    status.problem = Some(SourceProblem {
        is_held: matches!(problem, Problem::Held(_)),
        label: problem.label(),
        since: same.map_or(at, |before| before.since),
        text: text.into(),
    });
}

/// Shows that there is no problem, and says so if the log was told of one.
fn recovered(status: &mut SourceStatus, told: &mut Told, backend: &BackendName) {
    let (Some(problem), Some(_)) = (status.problem.take(), told.problem.take()) else {
        return;
    };
    let source = &status.source;
    tracing::info!(
        event = "discovery_recovered",
        backend = %backend,
        reason = problem.label,
        "backend {backend}: {source} is read again"
    );
}

/// Says what was left out, if it is more or less than the log was told.
fn note_left_out(status: &SourceStatus, told: &mut Told, backend: &BackendName, judged: &Judgement) {
    let (source, left_out) = (&status.source, status.left_out);
    if left_out == 0 {
        told.left_out = 0;
    } else if told.left_out != left_out && told.takes(judged.at) {
        told.left_out = left_out;
        let why = judged.why_left_out();
        tracing::warn!(event = "discovery_left_out", backend = %backend, "backend {backend}: {source}: {why}");
    }
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

#[cfg(test)]
mod tests {
    use std::{io, sync::Mutex};

    use super::*;
    use crate::{
        config::{Options, Source, load},
        discovery::answer::{Answer, Limits, Malformed, parse},
    };

    /// What was logged.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A source, and the log.
    struct Stage {
        config: Config,
        states: States,
        began: Instant,
        log: Log,
        _logs: tracing::subscriber::DefaultGuard,
    }

    impl Stage {
        fn new() -> Self {
            let source = Source {
                name: "c.toml".to_owned(),
                bytes: "backends.web.discovery = { kind = \"file\", path = \"/w\" }\n".into(),
            };
            let config = load(&source, Options::default()).unwrap().config;
            let mut states = States::default();
            states.follow(&config);
            let log = Log::default();
            let writer = log.clone();
            let subscriber = tracing_subscriber::fmt()
                .with_ansi(false)
                .with_writer(move || writer.clone())
                .finish();
            Self {
                config,
                states,
                began: Instant::now(),
                log,
                _logs: tracing::subscriber::set_default(subscriber),
            }
        }

        /// What is said when this comes after so many seconds.
        fn says(&mut self, second: u64, result: Result<Answer, Failure>) -> String {
            let at = self.began + Duration::from_secs(second);
            let reply = Reply {
                ttl: None,
                result,
                host: Arc::default(),
                at,
            };
            let web = BackendName::new("web").unwrap();
            let judged = judge(&self.config, &web, &reply, None).unwrap();
            self.states.judged(&self.config, &web, &judged);
            let said = std::mem::take(&mut *self.log.0.lock().unwrap());
            String::from_utf8(said).unwrap()
        }
    }

    fn right() -> Answer {
        let limits = Limits {
            bytes: 1 << 10,
            servers: 9,
        };
        parse(&crate::config::AnswerFormat::Text, b"10.0.0.1:80\n", limits).unwrap()
    }

    /// One in which so many are no servers.
    fn with_others(count: usize) -> Answer {
        let mut answer = right();
        answer.passed_over.count = count;
        answer.passed_over.first = Some("x: it is odd".to_owned());
        answer
    }

    fn gone(why: &str) -> Result<Answer, Failure> {
        Err(Failure::Unreadable(why.to_owned()))
    }

    #[test]
    fn a_source_that_is_in_trouble_of_every_kind_is_spoken_of_once_a_minute() {
        let mut stage = Stage::new();
        let mut told: Vec<u64> = Vec::new();
        let mut again = 0;
        for second in 0..600 {
            let said = stage.says(
                second,
                match second % 6 {
                    0 => gone("gone"),
                    1 => Err(Malformed::Document(format!("request {second}")).into()),
                    2 => Ok(Answer::default()),
                    3 => Ok(right()),
                    _ => Ok(with_others(second as usize)),
                },
            );
            told.extend(said.lines().filter(|line| line.contains("WARN")).map(|_| second));
            again += said.matches("is read again").count();
        }
        assert_eq!(told.len(), 10, "{told:?}");
        assert!(told.windows(2).all(|two| two[1] >= two[0] + 60), "{told:?}");
        assert!(again <= 10, "{again}");
    }

    #[test]
    fn what_was_not_said_is_said_a_minute_later_if_it_is_so_still() {
        let mut stage = Stage::new();
        assert!(stage.says(0, gone("gone")).contains("gone; its servers stay"));
        for second in [1, 59, 61] {
            assert_eq!(stage.says(second, gone("gone")), "", "it was said");
        }
        assert!(stage.says(62, gone("other")).contains("other; "));
        assert_eq!(stage.says(63, gone("gone")), "");
        assert!(stage.says(122, gone("gone")).contains("gone; "));
        assert!(stage.says(123, Ok(with_others(2))).contains("is read again"));
        // nobody was told of it
        assert_eq!(stage.says(124, gone("gone")), "");
        assert_eq!(stage.says(125, Ok(with_others(2))), "");
        assert!(
            stage
                .says(182, Ok(with_others(2)))
                .contains("left out 2, the first of them x: it is odd")
        );
        assert_eq!(stage.says(300, Ok(with_others(2))), "");
        assert_eq!(stage.says(301, Ok(right())), "");
        assert!(stage.says(302, Ok(with_others(2))).contains("left out 2"));
        assert_eq!(stage.says(303, Ok(with_others(3))), "");
    }
}
