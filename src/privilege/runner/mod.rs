//! The child process that runs commands: those that the broker's reading of the configuration names, and no others.
//!
//! ```text
//! daemon  ── run 7f3a… (a number, and what it reads) ──►┐
//! daemon  ◄── how it ended, what it printed ────────────┤ runner ── fork ── keeper ── the command ── whatever that starts
//! broker  ── the commands of the configuration ────────►┘
//! ```
//! It has no capability, and what it starts can get none. The daemon names a command by a number that both compute from its
//! line; what is not in the broker's list is refused. A keeper is a fork of the runner for one command: the parent of all that
//! the command leaves behind, so that nothing outlives its end or time-out, whether it calls setsid or not. The runner itself
//! waits for nothing but messages and the ends of keepers. When daemon or runner are gone, however that came, the keepers end
//! what they have started.

mod keeper;
mod link;
mod table;

use std::{
    fs::File,
    io::{self, Write as _},
    mem::ManuallyDrop,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use super::{Target, drop::drop_to_run};
use crate::{
    client::runner::message::{MAX_RUNNING, Outcome, Reply, Request, Verb, decode, encode},
    config::Config,
    sys::{fdpass, memfd, process, processes, readiness, signals},
};
use keeper::{Keeper, Subject};
pub use link::Link;
pub use table::Commands;

/// How the process shows up in `ps`.
const NAME: &str = "convey-runner";

/// How long an answer waits for a daemon that takes none.
const TIMEOUT: Duration = Duration::from_secs(20);

/// How long is waited for something to happen.
const WAIT: Duration = Duration::from_secs(60);

/// Generations of processes that an ended keeper may have left behind.
const MAX_GENERATIONS: usize = 1_024;

/// Why there is no runner.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// A system call failed.
    #[error("start the runner of commands: {0}: {1}")]
    Step(&'static str, io::Error),
    /// No child was made.
    #[error("start the runner of commands: {0}")]
    Fork(#[from] process::ForkError),
    /// The child could not confine itself.
    #[error("start the runner of commands: {0}")]
    Unconfined(String),
}

/// What the runner knows and holds.
struct Runner {
    commands: Commands,
    daemon: OwnedFd,
    broker: OwnedFd,
    /// The processes that no command may signal.
    others: Vec<u32>,
    running: Vec<Running>,
    /// Keepers see the end of this pipe when the runner is gone.
    alive: (io::PipeReader, io::PipeWriter),
}

/// A keeper that has not ended.
struct Running {
    /// The request that it carries out.
    number: u64,
    process: u32,
    /// Its end is the keeper's.
    end: OwnedFd,
}

/// Forks the runner; returns in the daemon only, when the runner has confined itself: the daemon's end of the socketpair. Must be
/// called before any thread exists. `broker` is the socket on which the broker, which is the process `broker_id`, says what the commands are.
///
/// # Errors
/// The process already has threads, or a step of the start failed.
pub fn fork(
    target: Option<&Target>,
    config: &Config,
    hidden: Vec<std::path::PathBuf>,
    broker: OwnedFd,
    broker_id: u32,
) -> Result<OwnedFd, RunnerError> {
    let step = |name| move |error| RunnerError::Step(name, error);
    let (ours, theirs) = fdpass::pair().map_err(step("make a socketpair"))?;
    fdpass::set_timeout(theirs.as_fd(), TIMEOUT).map_err(step("SO_SNDTIMEO"))?;
    let daemon_id = std::process::id();
    let commands = Commands::of(config, hidden);
    process::fork_child([theirs, broker], |[daemon, broker]| {
        run(commands, daemon, broker, target, [daemon_id, broker_id])
    })?;
    match fdpass::receive(ours.as_fd()) {
        Ok((bytes, _)) => match decode::<Reply>(&bytes).map(|reply| reply.outcome) {
            Some(Outcome::Ready) => Ok(ours),
            Some(Outcome::NotRun { why }) => Err(RunnerError::Unconfined(why)),
            _ => Err(RunnerError::Unconfined("it said what is no answer".to_owned())),
        },
        Err(error) => Err(RunnerError::Unconfined(error.to_string())),
    }
}

/// The child. Returns the exit status (sysexits).
fn run(
    commands: Commands,
    daemon: OwnedFd,
    broker: OwnedFd,
    target: Option<&Target>,
    [daemon_id, broker_id]: [u32; 2],
) -> i32 {
    let started = confine(target).and_then(|()| {
        if process::parent() != daemon_id {
            return Err("the daemon is gone".to_owned());
        }
        io::pipe().map_err(|error| format!("make a pipe: {error}"))
    });
    let (outcome, alive) = match started {
        Ok(alive) => (Outcome::Ready, Some(alive)),
        Err(why) => (Outcome::not_run(&format!("confine it: {why}")), None),
    };
    let said = reply(daemon.as_fd(), 0, outcome, &[]);
    let Some(alive) = alive.filter(|_| said) else {
        return 71;
    };
    let runner = Runner {
        commands,
        daemon,
        broker,
        others: vec![daemon_id, broker_id, std::process::id()],
        running: Vec::new(),
        alive,
    };
    runner.serve()
}

/// Gives up everything, and checks that it is gone.
fn confine(target: Option<&Target>) -> Result<(), String> {
    let step = |name: &'static str| move |error: io::Error| format!("{name}: {error}");
    process::set_name(NAME).map_err(step("set the process name"))?;
    signals::ignore_termination().map_err(step("ignore signals"))?;
    std::env::set_current_dir("/").map_err(step("change to /"))?;
    // no terminal's signals, and none to say something on
    process::leave_terminal().map_err(step("setsid"))?;
    // what runs here gives way before the balancer does; what cannot be written stays as it is
    if let Ok(mut score) = File::options().write(true).open("/proc/self/oom_score_adj") {
        let _ = score.write_all(b"0");
    }
    processes::adopt_orphans().map_err(step("adopt orphans"))?;
    drop_to_run(target).map_err(|error| error.to_string())?;
    process::set_undumpable().map_err(step("forbid core dumps"))
}

impl Runner {
    /// Serves until the daemon is gone, or sends what it never would. Returns the exit status.
    fn serve(mut self) -> i32 {
        let status = loop {
            let mut all: Vec<BorrowedFd<'_>> = self.running.iter().map(|one| one.end.as_fd()).collect();
            all.extend([self.daemon.as_fd(), self.broker.as_fd()]);
            let readable = readiness::readable_until(&all, Instant::now() + WAIT);
            let keepers = self.running.len();
            let is_readable = |at: usize| readable.get(at).copied().unwrap_or(false);
            let (asks, is_told) = (is_readable(keepers), is_readable(keepers + 1));
            for at in (0..keepers).rev().filter(|at| is_readable(*at)) {
                let over = self.running.swap_remove(at);
                self.ended(&over);
            }
            // without a broker the daemon ends too
            if is_told && !self.commands.take_news(self.broker.as_fd()) {
                break 0;
            }
            if asks {
                match self.answer() {
                    Ok(()) => {}
                    Err(status) => break status,
                }
            }
        };
        // closed pipes have the keepers end what they have started
        drop(self.alive);
        for running in self.running {
            processes::wait_for(running.process);
        }
        status
    }

    /// Takes a request. The exit status when there are no more, or it is none.
    fn answer(&mut self) -> Result<(), i32> {
        let (bytes, mut fds) = match fdpass::receive_untrusted(self.daemon.as_fd()) {
            Ok(message) => message,
            Err(fdpass::RecvError::Closed) => return Err(0),
            Err(_) => return Err(71),
        };
        // The daemon sends only this form: anything else is an attack or a defect.
        let request: Request = decode(&bytes).ok_or(70)?;
        if fds.len() != request.verb.descriptors() || request.number == 0 {
            return Err(70);
        }
        let outcome = match request.verb {
            Verb::IsCommand(process) => Some(Outcome::IsCommand(processes::is_descendant(process))),
            Verb::Run(_) | Verb::RunFor(..) | Verb::RunDns(..)
                if !fds.iter().all(|input| memfd::is_sealed(input.as_fd())) =>
            {
                return Err(70);
            }
            Verb::Run(id) | Verb::RunFor(id, _) | Verb::RunDns(id, _) => {
                let subject = match request.verb {
                    Verb::RunFor(_, server) => Subject::Server(server),
                    Verb::RunDns(_, proof) => Subject::Dns(proof),
                    _ => Subject::None,
                };
                // what the daemon has heard of from the broker, the broker has said here before
                let is_fresh = self.commands.take_news(self.broker.as_fd());
                let input = fds.pop().map(ManuallyDrop::into_inner);
                match (self.commands.get(id).cloned(), input) {
                    (Some(command), Some(input)) if is_fresh => {
                        self.start(request.number, command, subject, input)
                    }
                    _ => Some(Outcome::not_run(
                        "the runner refused: the configuration that the broker has read has no such command",
                    )),
                }
            }
        };
        let is_said = outcome.is_none_or(|outcome| reply(self.daemon.as_fd(), request.number, outcome, &[]));
        if is_said { Ok(()) } else { Err(71) }
    }

    /// Starts a command; the answer if that fails.
    fn start(
        &mut self,
        number: u64,
        command: crate::config::Command,
        subject: Subject,
        input: OwnedFd,
    ) -> Option<Outcome> {
        if self.running.len() >= MAX_RUNNING {
            return Some(Outcome::not_run(&format!(
                "the runner refused: {MAX_RUNNING} commands run already"
            )));
        }
        let failed = |error: io::Error| Some(Outcome::not_run(&format!("start a keeper: {error}")));
        let handles = || -> io::Result<_> {
            let (end, mark) = io::pipe()?;
            let alive = self.alive.0.try_clone()?;
            Ok((end, [input, self.daemon.try_clone()?, alive.into(), mark.into()]))
        };
        let (end, handles) = match handles() {
            Ok(handles) => handles,
            Err(error) => return failed(error),
        };
        let keeper = Keeper {
            command,
            subject,
            hidden: self.commands.hidden().to_vec(),
            others: self.others.clone(),
        };
        let forked = process::fork_child(handles, |[input, daemon, alive, _mark]| {
            keeper.run(input, &alive, |outcome, printed| {
                let printed: Vec<BorrowedFd<'_>> = printed.iter().map(AsFd::as_fd).collect();
                reply(daemon.as_fd(), number, outcome, &printed)
            })
        });
        match forked {
            Ok(process) => {
                self.running.push(Running {
                    number,
                    process: process.as_raw().unsigned_abs(),
                    end: end.into(),
                });
                None
            }
            Err(error) => failed(io::Error::other(error)),
        }
    }

    /// A keeper has ended. One that was ended has answered nothing, and left what it kept.
    fn ended(&self, over: &Running) {
        if processes::wait_for(over.process) == Some(0) {
            return;
        }
        // what each of them has started comes to us when it ends
        for _ in 0..MAX_GENERATIONS {
            let strays: Vec<u32> = (processes::children().into_iter())
                .filter(|child| !self.running.iter().any(|one| one.process == *child))
                .collect();
            if strays.is_empty() {
                break;
            }
            strays.into_iter().for_each(processes::end_child);
        }
        let why = Outcome::not_run("what watched over the command was ended from outside");
        let _ = reply(self.daemon.as_fd(), over.number, why, &[]);
    }
}

fn reply(daemon: BorrowedFd<'_>, number: u64, outcome: Outcome, fds: &[BorrowedFd<'_>]) -> bool {
    encode(&Reply { number, outcome }).is_some_and(|bytes| fdpass::send(daemon, &bytes, fds).is_ok())
}
