//! The steps of a reload. Pure: it is told what has happened and says what is to be done.
//!
//! ```text
//!         asked           differs           changed        sockets         servers known       none, or it may       rules, hops
//!  idle ────────► read ──────────► load ────────────► bind ─────────► try out ─────────────► count ─────────► arm ──► commit ──► served
//!   ▲               │ nothing new    │ broken, same     │ failed        │ (all time-outs end)  │ would cut       │ failed
//!   └───────────────┴────────────────┴──────────────────┴── put back ◄──┴──────────────────────┴─────────────────┘
//! ```
//! A file that says what runs already ends with a look at the firewall rules instead, for somebody may have flushed them.
//! Whoever asks while a reload is under way has another one, for it may have read the file before it was saved; all who do
//! share it. What the daemon does with the running state is its own affair meanwhile: nothing is touched before the commit,
//! and the commit is one step.

use crate::{admin::views::ReloadFailed, config::Source, privilege::FileRead};

/// What asked for a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trigger {
    /// The file, or something near it, has changed.
    FileChange,
    /// A network list has changed.
    BesideChange,
    /// SIGHUP.
    Signal,
    /// `convey reload`.
    Request,
    /// `convey reload --cut`: connections that cannot outlive the change are cut.
    CutRequest,
}

impl Trigger {
    /// As it stands in the log.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Signal => "SIGHUP",
            Self::FileChange => "file change",
            Self::BesideChange => "change of a named file",
            Self::Request => "request",
            Self::CutRequest => "request to cut",
        }
    }
}

/// Somebody who waits for the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// Who has asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// The strongest reason.
    pub trigger: Trigger,
    /// Those who wait for the answer.
    pub tickets: Vec<Ticket>,
}

/// What has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReloadEvent {
    /// Somebody asks.
    Asked(Trigger, Option<Ticket>),
    /// The file has been read, or could not be.
    Read(Result<FileRead, NotRead>),
    /// It has been parsed, resolved and compared: whether it changes anything.
    Loaded(Result<bool, ReloadFailed>),
    /// The firewall rules have been looked after.
    Checked,
    /// New sockets are there.
    Bound(Result<(), ReloadFailed>),
    /// Every backend has a server to use, or there is no time left to find one.
    Settled,
    /// It is known which connections cannot outlive the change: none, or they may be cut.
    Counted(Result<(), ReloadFailed>),
    /// Rules and packet sockets are there.
    Armed(Result<(), ReloadFailed>),
    /// Packets too are served by the new configuration.
    Served,
    /// What is under way has failed by a defect of ours.
    Broken(ReloadFailed),
    /// The daemon is ending.
    Stop,
}

/// Why a file could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotRead {
    /// The file is at fault: missing, forbidden, no file.
    File(ReloadFailed),
    /// The system is: nothing is known of the file.
    System(ReloadFailed),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Read the file; [`ReloadEvent::Read`] follows.
    Read,
    /// Say that a reload has begun.
    Announce,
    /// Parse, resolve and compare; [`ReloadEvent::Loaded`] follows.
    Load(Source),
    /// Look after the firewall rules; [`ReloadEvent::Checked`] follows.
    Check,
    /// Make new sockets; [`ReloadEvent::Bound`] follows.
    Bind,
    /// Check new servers; [`ReloadEvent::Settled`] follows.
    TryOut,
    /// Look whether established connections would be cut, and whether they may be; [`ReloadEvent::Counted`] follows.
    Count {
        /// They may.
        may_cut: bool,
    },
    /// Prepare rules, next hops and packet sockets; [`ReloadEvent::Armed`] follows.
    Arm,
    /// Put everything in effect: at once, and without fail. [`ReloadEvent::Served`] follows.
    Commit,
    /// End what is under way, and put back what was prepared.
    PutBack,
    /// It is over: answer, and say so.
    Finish(Ask, ReloadOutcome),
}

/// How a reload ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReloadOutcome {
    /// Nothing new to look at: not a word.
    Nothing,
    /// The file says what runs; whether the reload before had failed.
    Unchanged {
        /// It had, and what it complained of is gone.
        had_failed: bool,
    },
    /// The new configuration is in effect.
    Committed,
    /// It failed, and nothing has changed.
    Failed(ReloadFailed),
    /// It was not begun, for the daemon is ending.
    Refused(ReloadFailed),
    /// Nobody asked but the clock or a neighbour of the file, and the file could not be looked at.
    NotLooked(ReloadFailed),
}

/// See the [module](self).
#[derive(Debug)]
pub struct ReloadMachine {
    phase: Phase,
    /// Who has asked since the reload under way began.
    next: Option<Ask>,
    /// The text of the configuration in effect.
    in_effect: Source,
    /// What the last reload failed on, until one succeeds.
    failed: Option<Failed>,
    is_stopping: bool,
}

#[derive(Debug)]
struct Failed {
    on: Result<FileRead, String>,
    why: ReloadFailed,
}

#[derive(Debug)]
enum Phase {
    Idle,
    Waiting { ask: Ask, step: Step },
}

/// What is waited for.
#[derive(Debug)]
enum Step {
    Read,
    Load(FileRead),
    Check {
        had_failed: bool,
    },
    Bind(FileRead),
    Settle(FileRead),
    Count(FileRead),
    Arm(FileRead),
    /// What is committed is committed, whatever comes.
    Serve,
}

impl ReloadMachine {
    /// Nothing is under way; `in_effect` runs.
    #[must_use]
    pub const fn new(in_effect: Source) -> Self {
        Self {
            phase: Phase::Idle,
            next: None,
            in_effect,
            failed: None,
            is_stopping: false,
        }
    }

    /// The text that runs.
    #[must_use]
    pub const fn in_effect(&self) -> &Source {
        &self.in_effect
    }

    /// Whether no reload is under way.
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Idle)
    }

    /// Why the last reload failed, until one succeeds or the file says again what runs.
    #[must_use]
    pub fn last_error(&self) -> Option<&ReloadFailed> {
        self.failed.as_ref().map(|failed| &failed.why)
    }

    /// Takes an event. An event that nothing waits for does nothing.
    #[must_use]
    pub fn step(&mut self, event: ReloadEvent) -> Vec<Action> {
        match event {
            ReloadEvent::Asked(trigger, ticket) => return self.asked(trigger, ticket),
            ReloadEvent::Stop => return self.stop(),
            _ => {}
        }
        let Phase::Waiting { ask, step } = std::mem::replace(&mut self.phase, Phase::Idle) else {
            return Vec::new();
        };
        match (step, event) {
            (Step::Read, ReloadEvent::Read(read)) => self.read(ask, read),
            (Step::Load(file), ReloadEvent::Loaded(loaded)) => self.loaded(ask, file, loaded),
            (Step::Check { had_failed }, ReloadEvent::Checked) => {
                self.finish(ask, ReloadOutcome::Unchanged { had_failed }, Vec::new())
            }
            (Step::Bind(file), ReloadEvent::Bound(Ok(()))) => {
                self.wait(ask, Step::Settle(file), vec![Action::TryOut])
            }
            (Step::Settle(file), ReloadEvent::Settled) => {
                let may_cut = ask.trigger == Trigger::CutRequest;
                self.wait(ask, Step::Count(file), vec![Action::Count { may_cut }])
            }
            (Step::Count(file), ReloadEvent::Counted(Ok(()))) => {
                self.wait(ask, Step::Arm(file), vec![Action::Arm])
            }
            (Step::Arm(file), ReloadEvent::Armed(Ok(()))) => {
                self.in_effect = file.source;
                self.failed = None;
                self.wait(ask, Step::Serve, vec![Action::Commit])
            }
            (Step::Serve, ReloadEvent::Served | ReloadEvent::Broken(_)) => {
                self.finish(ask, ReloadOutcome::Committed, Vec::new())
            }
            (Step::Bind(file), ReloadEvent::Bound(Err(why)))
            | (Step::Count(file), ReloadEvent::Counted(Err(why)))
            | (Step::Arm(file), ReloadEvent::Armed(Err(why))) => {
                self.fail(ask, Ok(file), why, vec![Action::PutBack])
            }
            (_, ReloadEvent::Broken(why)) => {
                self.fail(ask, Err(why.message.clone()), why, vec![Action::PutBack])
            }
            (step, _) => self.wait(ask, step, Vec::new()),
        }
    }

    fn asked(&mut self, trigger: Trigger, ticket: Option<Ticket>) -> Vec<Action> {
        let tickets = ticket.into_iter().collect();
        let ask = Ask { trigger, tickets };
        if self.is_stopping {
            return vec![Action::Finish(ask, ReloadOutcome::Refused(stopping()))];
        }
        match &mut self.phase {
            Phase::Idle => self.wait(ask, Step::Read, vec![Action::Read]),
            Phase::Waiting { .. } => {
                match &mut self.next {
                    Some(next) => {
                        next.trigger = next.trigger.max(ask.trigger);
                        next.tickets.extend(ask.tickets);
                    }
                    None => self.next = Some(ask),
                }
                Vec::new()
            }
        }
    }

    fn stop(&mut self) -> Vec<Action> {
        self.is_stopping = true;
        let mut actions = Vec::new();
        if let Phase::Waiting { ask, step } = std::mem::replace(&mut self.phase, Phase::Idle) {
            // of what is committed nothing is left to be put back
            let outcome = match step {
                Step::Serve => ReloadOutcome::Committed,
                _ => ReloadOutcome::Failed(stopping()),
            };
            actions.push(Action::PutBack);
            actions.push(Action::Finish(ask, outcome));
        }
        if let Some(ask) = self.next.take() {
            actions.push(Action::Finish(ask, ReloadOutcome::Failed(stopping())));
        }
        actions
    }

    fn read(&mut self, ask: Ask, read: Result<FileRead, NotRead>) -> Vec<Action> {
        let is_look = ask.trigger == Trigger::FileChange;
        match read {
            // what runs was refused for something else than its text: a network list
            Ok(file) if is_look && file.source == self.in_effect && self.has_failed_beside(&file) => {
                self.finish(ask, ReloadOutcome::Nothing, Vec::new())
            }
            Ok(file) if is_look && file.source == self.in_effect => {
                let outcome = match self.failed.take() {
                    Some(_) => ReloadOutcome::Unchanged { had_failed: true },
                    None => ReloadOutcome::Nothing,
                };
                self.finish(ask, outcome, Vec::new())
            }
            Ok(file) if is_look && self.failed.as_ref().is_some_and(|f| f.on.as_ref() == Ok(&file)) => {
                self.finish(ask, ReloadOutcome::Nothing, Vec::new())
            }
            Ok(file) => {
                let actions = vec![Action::Announce, Action::Load(file.source.clone())];
                self.wait(ask, Step::Load(file), actions)
            }
            Err(NotRead::System(why)) if is_look => {
                self.finish(ask, ReloadOutcome::NotLooked(why), Vec::new())
            }
            Err(NotRead::File(why)) if is_look && self.has_failed_with(&why) => {
                self.finish(ask, ReloadOutcome::Nothing, Vec::new())
            }
            Err(NotRead::File(why) | NotRead::System(why)) => {
                self.fail(ask, Err(why.message.clone()), why, Vec::new())
            }
        }
    }

    /// Whether the last reload failed on the same text.
    fn has_failed_beside(&self, file: &FileRead) -> bool {
        let on = self.failed.as_ref().map(|failed| &failed.on);
        on.is_some_and(|on| on.as_ref().is_ok_and(|on| on.source == file.source))
    }

    fn has_failed_with(&self, why: &ReloadFailed) -> bool {
        let failed = self.failed.as_ref();
        failed.is_some_and(|failed| failed.on.as_ref() == Err(&why.message))
    }

    fn loaded(&mut self, ask: Ask, file: FileRead, loaded: Result<bool, ReloadFailed>) -> Vec<Action> {
        match loaded {
            Ok(true) => self.wait(ask, Step::Bind(file), vec![Action::Bind]),
            Ok(false) => {
                self.in_effect = file.source;
                let had_failed = self.failed.take().is_some();
                self.wait(ask, Step::Check { had_failed }, vec![Action::Check])
            }
            Err(why) => self.fail(ask, Ok(file), why, Vec::new()),
        }
    }

    fn wait(&mut self, ask: Ask, step: Step, actions: Vec<Action>) -> Vec<Action> {
        self.phase = Phase::Waiting { ask, step };
        actions
    }

    fn fail(
        &mut self,
        ask: Ask,
        on: Result<FileRead, String>,
        why: ReloadFailed,
        actions: Vec<Action>,
    ) -> Vec<Action> {
        self.failed = Some(Failed { on, why: why.clone() });
        self.finish(ask, ReloadOutcome::Failed(why), actions)
    }

    /// Ends the reload, and begins the one that has been asked for meanwhile.
    fn finish(&mut self, ask: Ask, outcome: ReloadOutcome, mut actions: Vec<Action>) -> Vec<Action> {
        self.phase = Phase::Idle;
        actions.push(Action::Finish(ask, outcome));
        if let Some(next) = self.next.take() {
            actions.extend(self.wait(next, Step::Read, vec![Action::Read]));
        }
        actions
    }
}

fn stopping() -> ReloadFailed {
    ReloadFailed {
        message: "convey is stopping: no reload is possible".to_owned(),
        config_error: false,
    }
}
