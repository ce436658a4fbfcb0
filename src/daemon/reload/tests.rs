//! The machine alone, with a world of plain data around it.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::machine::{Action, Ask, NotRead, ReloadEvent, ReloadMachine, ReloadOutcome, Ticket, Trigger};
use crate::{
    admin::views::ReloadFailed, config::Source, privilege::FileRead, sys::config_file::FileIdentity,
};

fn source(text: &str) -> Source {
    Source {
        name: "convey.toml".to_owned(),
        bytes: text.into(),
    }
}

fn saved(text: &str, save: i64) -> FileRead {
    FileRead {
        source: source(text),
        identity: FileIdentity::of_test(save),
        default_nat_ports: None,
    }
}

fn failed(message: &str) -> ReloadFailed {
    ReloadFailed {
        message: message.to_owned(),
        config_error: false,
    }
}

fn asked(trigger: Trigger) -> ReloadEvent {
    ReloadEvent::Asked(trigger, None)
}

fn finished(trigger: Trigger, outcome: ReloadOutcome) -> Action {
    let tickets = Vec::new();
    Action::Finish(Ask { trigger, tickets }, outcome)
}

/// A machine that runs `a`, and has seen these events.
fn after(events: impl IntoIterator<Item = ReloadEvent>) -> (ReloadMachine, Vec<Action>) {
    let mut machine = ReloadMachine::new(source("a"));
    let actions = events.into_iter().map(|event| machine.step(event)).last();
    (machine, actions.unwrap_or_default())
}

fn taken(port: &str) -> Vec<ReloadEvent> {
    vec![
        asked(Trigger::FileChange),
        ReloadEvent::Read(Ok(saved("b", 1))),
        ReloadEvent::Loaded(Ok(true)),
        ReloadEvent::Bound(Err(failed(port))),
    ]
}

#[test]
fn a_reload_goes_step_by_step_and_commits_at_the_end() {
    let (mut machine, actions) = after([asked(Trigger::Signal)]);
    assert_eq!(actions, [Action::Read]);
    let new = saved("b", 1);
    let actions = machine.step(ReloadEvent::Read(Ok(new.clone())));
    assert_eq!(actions, [Action::Announce, Action::Load(new.source)]);
    assert_eq!(machine.step(ReloadEvent::Loaded(Ok(true))), [Action::Bind]);
    assert_eq!(machine.step(ReloadEvent::Bound(Ok(()))), [Action::TryOut]);
    let count = Action::Count { may_cut: false };
    assert_eq!(machine.step(ReloadEvent::Settled), [count]);
    assert_eq!(machine.step(ReloadEvent::Counted(Ok(()))), [Action::Arm]);
    assert_eq!(machine.step(ReloadEvent::Armed(Ok(()))), [Action::Commit]);
    let end = [finished(Trigger::Signal, ReloadOutcome::Committed)];
    assert_eq!(machine.step(ReloadEvent::Served), end);
    assert_eq!(machine.step(ReloadEvent::Settled), []);
}

#[test]
fn what_would_cut_connections_is_put_back_unless_somebody_who_shares_the_reload_wants_it_cut() {
    for (asker, may_cut) in [(Trigger::Request, false), (Trigger::CutRequest, true)] {
        let (mut machine, _) = after([asked(Trigger::Signal)]);
        let _ = machine.step(asked(asker));
        let _ = machine.step(asked(Trigger::Request));
        let _ = machine.step(ReloadEvent::Read(Err(NotRead::File(failed("not yet")))));
        for event in [
            ReloadEvent::Read(Ok(saved("b", 1))),
            ReloadEvent::Loaded(Ok(true)),
            ReloadEvent::Bound(Ok(())),
        ] {
            let _ = machine.step(event);
        }
        assert_eq!(machine.step(ReloadEvent::Settled), [Action::Count { may_cut }]);
        let actions = machine.step(ReloadEvent::Counted(Err(failed("1 connection would be cut"))));
        let outcome = ReloadOutcome::Failed(failed("1 connection would be cut"));
        assert_eq!(actions, [Action::PutBack, finished(asker, outcome)]);
    }
}

#[test]
fn a_reload_that_failed_for_an_outside_reason_is_tried_again_when_the_file_is_saved_again() {
    let (mut machine, actions) = after(taken("port 80 is taken"));
    let end = finished(
        Trigger::FileChange,
        ReloadOutcome::Failed(failed("port 80 is taken")),
    );
    assert_eq!(actions, [Action::PutBack, end]);
    // something else in the directory has changed, such as our own log
    let _ = machine.step(asked(Trigger::FileChange));
    let same = machine.step(ReloadEvent::Read(Ok(saved("b", 1))));
    assert_eq!(same, [finished(Trigger::FileChange, ReloadOutcome::Nothing)]);
    assert!(machine.last_error().is_some());
    let _ = machine.step(asked(Trigger::FileChange));
    let again = machine.step(ReloadEvent::Read(Ok(saved("b", 2))));
    assert_eq!(again, [Action::Announce, Action::Load(source("b"))]);
}

#[test]
fn a_file_that_says_again_what_runs_ends_the_failure_and_changes_nothing() {
    let (mut machine, _) = after(taken("port 80 is taken"));
    let _ = machine.step(asked(Trigger::FileChange));
    let back = machine.step(ReloadEvent::Read(Ok(saved("a", 2))));
    let outcome = ReloadOutcome::Unchanged { had_failed: true };
    assert_eq!(back, [finished(Trigger::FileChange, outcome)]);
    assert_eq!(machine.last_error(), None);
}

#[test]
fn a_network_list_that_cannot_be_read_stays_a_failure_until_it_can() {
    let load = |machine: &mut ReloadMachine, loaded| {
        let _ = machine.step(asked(Trigger::BesideChange));
        let read = machine.step(ReloadEvent::Read(Ok(saved("a", 1))));
        assert_eq!(
            read,
            [Action::Announce, Action::Load(source("a"))],
            "its text is no news"
        );
        machine.step(ReloadEvent::Loaded(loaded))
    };
    let mut machine = ReloadMachine::new(source("a"));
    let end = finished(Trigger::BesideChange, ReloadOutcome::Failed(failed("line 2")));
    assert_eq!(load(&mut machine, Err(failed("line 2"))), [end]);
    let _ = machine.step(asked(Trigger::FileChange));
    let look = machine.step(ReloadEvent::Read(Ok(saved("a", 2))));
    assert_eq!(look, [finished(Trigger::FileChange, ReloadOutcome::Nothing)]);
    assert!(
        machine.last_error().is_some(),
        "a look at the configuration mends no list"
    );
    assert_eq!(load(&mut machine, Ok(true)), [Action::Bind]);
}

#[test]
fn a_look_that_fails_for_want_of_descriptors_is_no_failed_reload_but_a_request_is_told() {
    let read = || ReloadEvent::Read(Err(NotRead::System(failed("too many open files"))));
    let (machine, actions) = after([asked(Trigger::FileChange), read()]);
    let end = ReloadOutcome::NotLooked(failed("too many open files"));
    assert_eq!(actions, [finished(Trigger::FileChange, end)]);
    assert_eq!(machine.last_error(), None);
    let (machine, actions) = after([asked(Trigger::Request), read()]);
    let end = ReloadOutcome::Failed(failed("too many open files"));
    assert_eq!(actions, [finished(Trigger::Request, end)]);
    assert!(machine.last_error().is_some());
}

#[test]
fn a_file_that_is_missing_is_said_once() {
    let read = || ReloadEvent::Read(Err(NotRead::File(failed("no such file"))));
    let (mut machine, actions) = after([asked(Trigger::FileChange), read()]);
    let end = ReloadOutcome::Failed(failed("no such file"));
    assert_eq!(actions, [finished(Trigger::FileChange, end)]);
    let _ = machine.step(asked(Trigger::FileChange));
    let again = machine.step(read());
    assert_eq!(again, [finished(Trigger::FileChange, ReloadOutcome::Nothing)]);
}

#[test]
fn all_who_ask_meanwhile_share_the_next_reload() {
    let (mut machine, _) = after([asked(Trigger::Request)]);
    for ticket in 1..=3 {
        let actions = machine.step(ReloadEvent::Asked(Trigger::Request, Some(Ticket(ticket))));
        assert_eq!(actions, []);
    }
    let _ = machine.step(asked(Trigger::FileChange));
    let _ = machine.step(ReloadEvent::Read(Ok(saved("a", 1))));
    assert_eq!(machine.step(ReloadEvent::Loaded(Ok(false))), [Action::Check]);
    let actions = machine.step(ReloadEvent::Checked);
    let outcome = ReloadOutcome::Unchanged { had_failed: false };
    assert_eq!(actions, [finished(Trigger::Request, outcome), Action::Read]);
    let _ = machine.step(ReloadEvent::Read(Ok(saved("b", 2))));
    let actions = machine.step(ReloadEvent::Loaded(Err(failed("not TOML"))));
    let ask = Ask {
        trigger: Trigger::Request,
        tickets: vec![Ticket(1), Ticket(2), Ticket(3)],
    };
    assert_eq!(
        actions,
        [Action::Finish(ask, ReloadOutcome::Failed(failed("not TOML")))]
    );
}

#[test]
fn the_end_gives_up_what_is_under_way_and_answers_everybody() {
    let (mut machine, _) = after(taken("x").into_iter().take(3));
    let _ = machine.step(ReloadEvent::Asked(Trigger::Request, Some(Ticket(7))));
    let actions = machine.step(ReloadEvent::Stop);
    assert_eq!(actions[0], Action::PutBack);
    let answered = |action: &Action| match action {
        Action::Finish(ask, ReloadOutcome::Failed(_)) => ask.tickets.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!(actions[1..].iter().map(answered).sum::<usize>(), 1);
    assert_eq!(machine.step(ReloadEvent::Bound(Ok(()))), []);
    let late = machine.step(ReloadEvent::Asked(Trigger::Request, Some(Ticket(8))));
    assert!(matches!(
        late.as_slice(),
        [Action::Finish(_, ReloadOutcome::Refused(_))]
    ));
}

/// What a schedule does.
#[derive(Debug, Clone)]
enum Move {
    /// The file is saved with this text, or removed.
    Save(Option<u8>),
    /// Somebody asks.
    Ask(Trigger),
    /// The job under way ends, well or not.
    Job {
        fails: bool,
    },
    /// A check has found something, or the time for it is over.
    Settle,
    /// A server's health or an override changes what runs.
    Touch,
    /// The broker loses what it was asked, or a step of ours panics.
    Break,
    Stop,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        3 => prop::option::weighted(0.9, 0..5_u8).prop_map(Move::Save),
        2 => Just(Move::Ask(Trigger::FileChange)),
        1 => Just(Move::Ask(Trigger::Signal)),
        2 => Just(Move::Ask(Trigger::Request)),
        9 => prop::bool::weighted(0.15).prop_map(|fails| Move::Job { fails }),
        3 => Just(Move::Settle),
        2 => Just(Move::Touch),
        1 => Just(Move::Break),
    ];
    (prop::collection::vec(one, 0..120), prop::bool::ANY).prop_map(|(mut moves, stops)| {
        if stops {
            moves.push(Move::Stop);
        }
        moves
    })
}

/// Texts of which the first two say the same, and the last is no configuration.
fn generation_of(text: u8) -> Option<u8> {
    match text {
        0 | 1 => Some(0),
        4 => None,
        other => Some(other),
    }
}

/// A daemon of plain data: what runs, what is prepared, which job is under way.
struct World {
    machine: ReloadMachine,
    file: Option<(u8, i64)>,
    saves: i64,
    job: Option<Action>,
    /// The text that the reload under way has read.
    read: Option<u8>,
    /// What is prepared, of which text.
    bound: Option<u8>,
    tried: Option<u8>,
    armed: Option<u8>,
    /// Of listeners, rules and servers: the configuration that each runs by.
    running: [u8; 3],
    touches: u32,
    announced: bool,
    open: BTreeSet<Ticket>,
    tickets: u64,
    stopped: bool,
}

impl World {
    fn new() -> Self {
        Self {
            machine: ReloadMachine::new(source("0")),
            file: Some((0, 0)),
            saves: 0,
            job: None,
            read: None,
            bound: None,
            tried: None,
            armed: None,
            running: [0; 3],
            touches: 0,
            announced: false,
            open: BTreeSet::new(),
            tickets: 0,
            stopped: false,
        }
    }

    fn play(&mut self, step: &Move) {
        match step {
            Move::Save(text) => {
                self.saves += 1;
                self.file = text.map(|text| (text, self.saves));
            }
            Move::Ask(trigger) => {
                let ticket = (*trigger == Trigger::Request).then(|| {
                    self.tickets += 1;
                    Ticket(self.tickets)
                });
                self.open.extend(ticket);
                self.tell(ReloadEvent::Asked(*trigger, ticket));
            }
            Move::Job { fails } => {
                if let Some(event) = self.end_job(*fails) {
                    self.tell(event);
                }
            }
            Move::Settle => self.tell(ReloadEvent::Settled),
            Move::Touch => self.touches += 1,
            Move::Break => {
                if self.job.take().is_some() {
                    self.tell(ReloadEvent::Broken(failed("broken")));
                }
            }
            Move::Stop => {
                self.stopped = true;
                self.tell(ReloadEvent::Stop);
            }
        }
    }

    fn end_job(&mut self, fails: bool) -> Option<ReloadEvent> {
        let fail = || failed("failed");
        Some(match self.job.take()? {
            Action::Read if fails => ReloadEvent::Read(Err(NotRead::System(fail()))),
            Action::Read => ReloadEvent::Read(match self.file {
                Some((text, save)) => {
                    self.read = Some(text);
                    Ok(saved(&text.to_string(), save))
                }
                None => Err(NotRead::File(failed("missing"))),
            }),
            Action::Load(_) => ReloadEvent::Loaded(match self.read.and_then(generation_of) {
                Some(new) => Ok(Some(new) != generation_of(self.running[0])),
                None => Err(failed("not TOML")),
            }),
            Action::Check => ReloadEvent::Checked,
            Action::Bind if fails => ReloadEvent::Bound(Err(fail())),
            Action::Bind => {
                self.bound = self.read;
                ReloadEvent::Bound(Ok(()))
            }
            Action::Count { .. } if fails => ReloadEvent::Counted(Err(fail())),
            Action::Count { .. } => ReloadEvent::Counted(Ok(())),
            Action::Arm if fails => ReloadEvent::Armed(Err(fail())),
            Action::Arm => {
                self.armed = self.read;
                ReloadEvent::Armed(Ok(()))
            }
            Action::Commit => ReloadEvent::Served,
            other => panic!("no job: {other:?}"),
        })
    }

    fn tell(&mut self, event: ReloadEvent) {
        for action in self.machine.step(event) {
            match action {
                Action::Read
                | Action::Load(_)
                | Action::Check
                | Action::Bind
                | Action::Count { .. }
                | Action::Arm => {
                    assert!(self.job.is_none(), "two jobs at a time");
                    self.job = Some(action);
                }
                Action::TryOut => self.tried = self.read,
                Action::Announce => {
                    assert!(!self.announced, "announced twice");
                    self.announced = true;
                }
                Action::Commit => {
                    let prepared = [self.bound.take(), self.tried.take(), self.armed.take()];
                    assert_eq!(prepared, [self.read; 3], "a commit of what was not prepared");
                    self.running = prepared.map(Option::unwrap);
                    assert!(self.job.is_none(), "two jobs at a time");
                    self.job = Some(Action::Commit);
                }
                Action::PutBack => {
                    self.job = None;
                    (self.bound, self.tried, self.armed) = (None, None, None);
                }
                Action::Finish(ask, _) => {
                    self.announced = false;
                    for ticket in ask.tickets {
                        assert!(self.open.remove(&ticket), "answered twice");
                    }
                }
            }
        }
    }

    /// What must hold after each step, whatever has happened.
    fn check(&self) {
        assert!(
            self.running.iter().all(|part| *part == self.running[0]),
            "the running state is of several configurations: {:?}",
            self.running
        );
        assert!(
            generation_of(self.running[0]).is_some(),
            "what is no configuration runs"
        );
        if self.job.is_none() && self.tried.is_none() {
            let left = (self.bound, self.armed, self.announced);
            assert_eq!(left, (None, None, false), "left behind");
            assert!(self.open.is_empty(), "nobody answers {:?}", self.open);
        }
        if self.stopped {
            assert!(self.job.is_none() && self.open.is_empty());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 4_000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_during_a_reload_one_configuration_runs_and_nothing_is_left_behind(moves in moves()) {
        let mut world = World::new();
        for step in &moves {
            world.play(step);
            world.check();
        }
        if world.stopped {
            return Ok(());
        }
        // when everything works again, the file as it was last saved takes effect
        while world.job.is_some() || world.tried.is_some() {
            world.play(&Move::Job { fails: false });
            world.play(&Move::Settle);
        }
        world.play(&Move::Save(Some(3)));
        world.play(&Move::Ask(Trigger::FileChange));
        while world.job.is_some() || world.tried.is_some() {
            world.play(&Move::Job { fails: false });
            world.play(&Move::Settle);
            world.check();
        }
        prop_assert_eq!(world.running, [3; 3]);
        prop_assert_eq!(world.machine.last_error(), None);
    }
}
