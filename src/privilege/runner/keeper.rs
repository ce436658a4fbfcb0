//! The process that watches over one command, from its start until nothing of it is left.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Read, Seek as _, SeekFrom},
    net::SocketAddr,
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::{CommandExt as _, ExitStatusExt as _},
    },
    path::PathBuf,
    process::{Child, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use crate::{
    base::DnsProof,
    client::runner::message::{Ended, MAX_OUTPUT_BYTES, Outcome},
    config::{Command, at_server},
    privilege::{sandbox, seccomp},
    sys::{memfd, process, processes, readiness, signals},
};

/// How the process shows up in `ps`.
const NAME: &str = "convey-command";

/// Where programs are looked for that are named without a path.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Bytes of what a command says on standard error that are kept, from its end.
const MAX_ERRORS_BYTES: usize = 2_048;

/// Between being asked to end (SIGTERM) and being ended (SIGKILL).
const GRACE: Duration = Duration::from_secs(1);

/// How often is looked where the kernel does not tell of a process's end.
const LOOK: Duration = Duration::from_millis(20);

/// Bytes of memory that a process of a command may have to itself.
const MEMORY: u64 = 1 << 30;

/// Descriptors that a process of a command may have open.
const OPEN_FILES: u64 = 1_024;

/// Processes and threads that commands may have, beside those that Convey's user has when one starts.
const PROCESSES: u64 = 64;

/// What a keeper is made for.
pub struct Keeper {
    /// The command.
    pub command: Command,
    /// What it is run for.
    pub subject: Subject,
    /// Files that it may not open.
    pub hidden: Vec<PathBuf>,
    /// Processes that it may not signal.
    pub others: Vec<u32>,
}

/// What a command is run for.
#[derive(Debug, Clone)]
pub enum Subject {
    /// Nothing that it has to be told.
    None,
    /// A server: its words may have it in them.
    Server(SocketAddr),
    /// A record of the DNS: its last words.
    Dns(DnsProof),
}

/// What a command has said so far.
#[derive(Default)]
struct Said {
    printed: Vec<u8>,
    errors: VecDeque<u8>,
}

/// Where what it says comes from; `None` at its end.
struct Outlets {
    printed: Option<File>,
    errors: Option<File>,
}

/// How the wait for a command has ended.
enum Over {
    /// Like this.
    Ended(Ended),
    /// Nobody wants to know.
    Abandoned,
}

impl Keeper {
    /// Runs the command, with this to read, until it has ended; `alive` is at its end when nobody waits any more. What came of it
    /// goes to `answer`. Returns the exit status: 0 if it was answered.
    pub fn run(
        self,
        input: OwnedFd,
        alive: &OwnedFd,
        answer: impl FnOnce(Outcome, Option<OwnedFd>) -> bool,
    ) -> i32 {
        let (outcome, printed) = match self.run_confined(input, alive) {
            Ok(Some((how, said))) => {
                let errors: Vec<u8> = said.errors.into();
                match memfd::sealed(&said.printed) {
                    Ok(printed) => (Outcome::ended(how, &errors), Some(printed)),
                    Err(error) => (Outcome::not_run(&format!("keep what it printed: {error}")), None),
                }
            }
            Ok(None) => return 0,
            Err(why) => (Outcome::not_run(&why), None),
        };
        i32::from(!answer(outcome, printed))
    }

    /// `None` if nobody wants to know what came of it.
    fn run_confined(&self, input: OwnedFd, alive: &OwnedFd) -> Result<Option<(Ended, Said)>, String> {
        self.confine()?;
        let mut child = self.start(input)?;
        let mut said = Said::default();
        let over = Outlets::of(&mut child)
            .and_then(|mut outlets| self.watch(&mut child, &mut outlets, alive, &mut said));
        // whatever it has started ends with it
        let is_clear = processes::end_descendants();
        match over {
            Ok(Over::Abandoned) => Ok(None),
            Ok(Over::Ended(_)) if !is_clear => {
                Err("a process of it cannot be ended: it waits in the kernel (state D of `ps`)".to_owned())
            }
            Ok(Over::Ended(how)) => Ok(Some((how, said))),
            Err(error) => Err(format!("watch over it: {error}")),
        }
    }

    /// What the command has from its parent.
    fn confine(&self) -> Result<(), String> {
        let step = |name: &'static str| move |error: io::Error| format!("{name}: {error}");
        process::set_name(NAME).map_err(step("set the process name"))?;
        processes::adopt_orphans().map_err(step("adopt orphans"))?;
        // the command hears them, and we do not: a service manager tells all that it knows of to end
        signals::stop_ignoring().map_err(step("reset signals"))?;
        signals::block_termination().map_err(step("block signals"))?;
        let others: Vec<u32> = self.others.iter().copied().chain([std::process::id()]).collect();
        sandbox::hide_files(&self.hidden).map_err(|error| format!("hide files: {error}"))?;
        seccomp::keep_from(&others).map_err(step("filter system calls (seccomp)"))?;
        let seconds = self.command.timeout.as_secs() + GRACE.as_secs();
        let limits = processes::Limits {
            cpu_seconds: seconds.max(1),
            memory: MEMORY,
            open_files: OPEN_FILES,
            more_processes: PROCESSES,
        };
        processes::limit(limits).map_err(step("limit it"))
    }

    fn start(&self, input: OwnedFd) -> Result<Child, String> {
        let mut input = File::from(input);
        // who has made it is at its end
        input
            .seek(SeekFrom::Start(0))
            .map_err(|error| format!("rewind its input: {error}"))?;
        let program = self.command.program();
        let words = (self.command.line.iter().skip(1)).map(|word| match self.subject {
            Subject::Server(server) => at_server(word, server),
            Subject::None | Subject::Dns(_) => word.clone(),
        });
        let (more, variables) = self.subject.told();
        std::process::Command::new(program)
            .args(words)
            .args(more)
            .env_clear()
            .envs([("PATH", PATH), ("LANG", "C.UTF-8"), ("HOME", "/")])
            .envs(variables)
            .process_group(0)
            .stdin(input)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| not_started(program, &error))
    }

    /// Takes what the command says until it has ended, is too slow or says too much.
    fn watch(
        &self,
        child: &mut Child,
        outlets: &mut Outlets,
        alive: &OwnedFd,
        said: &mut Said,
    ) -> io::Result<Over> {
        let end = process::pidfd(child.id())?;
        let start = Instant::now();
        let mut until = start + self.command.timeout;
        let mut is_late = false;
        loop {
            let now = Instant::now();
            let look = if end.is_none() {
                until.min(now + LOOK)
            } else {
                until
            };
            let is_abandoned = outlets.wait(alive, end.as_ref(), look);
            outlets.read(said)?;
            if is_abandoned {
                return Ok(Over::Abandoned);
            }
            if said.printed.len() > MAX_OUTPUT_BYTES {
                said.printed.clear();
                return Ok(Over::Ended(Ended::TooMuchOutput));
            }
            if let Some(status) = child.try_wait()? {
                // what it said last
                outlets.read(said)?;
                return Ok(Over::Ended(if is_late { Ended::Timeout } else { how(status) }));
            }
            if Instant::now() >= until {
                if is_late {
                    return Ok(Over::Ended(Ended::Timeout));
                }
                is_late = true;
                until = Instant::now() + GRACE;
                processes::ask_to_end(child.id());
            }
        }
    }
}

impl Subject {
    /// The words that follow those of the command, and the variables that it finds.
    fn told(&self) -> (Vec<String>, Vec<(&'static str, String)>) {
        match self {
            Self::None => (Vec::new(), Vec::new()),
            Self::Server(server) => (
                Vec::new(),
                vec![
                    ("CONVEY_SERVER_ADDR", server.ip().to_string()),
                    ("CONVEY_SERVER_PORT", server.port().to_string()),
                ],
            ),
            Self::Dns(proof) => (
                vec![
                    proof.change.label().to_owned(),
                    proof.record(),
                    proof.digest.to_string(),
                ],
                Vec::new(),
            ),
        }
    }
}

impl Outlets {
    fn of(child: &mut Child) -> io::Result<Self> {
        let printed = child.stdout.take().map(OwnedFd::from);
        let errors = child.stderr.take().map(OwnedFd::from);
        for outlet in [&printed, &errors].into_iter().flatten() {
            process::set_nonblocking(outlet.as_fd())?;
        }
        Ok(Self {
            printed: printed.map(File::from),
            errors: errors.map(File::from),
        })
    }

    /// Waits for something to read, for the end of the command or of who waits for it: whether it was the last.
    fn wait(&self, alive: &OwnedFd, end: Option<&OwnedFd>, until: Instant) -> bool {
        let mut all = vec![alive.as_fd()];
        all.extend(
            [&self.printed, &self.errors]
                .into_iter()
                .flatten()
                .map(AsFd::as_fd),
        );
        all.extend(end.map(AsFd::as_fd));
        let readable = readiness::readable_until(&all, until);
        readable.first().copied().unwrap_or(false)
    }

    /// Takes what is there.
    fn read(&mut self, said: &mut Said) -> io::Result<()> {
        take(&mut self.printed, |bytes| {
            said.printed.extend_from_slice(bytes);
            said.printed.len() <= MAX_OUTPUT_BYTES
        })?;
        let mut taken = 0;
        take(&mut self.errors, |bytes| {
            said.errors.extend(bytes);
            let excess = said.errors.len().saturating_sub(MAX_ERRORS_BYTES);
            said.errors.drain(..excess);
            taken += bytes.len();
            // one that never stops is looked at again after the rest
            taken <= MAX_OUTPUT_BYTES
        })
    }
}

/// Reads until nothing is there, or `keep` has enough.
fn take(outlet: &mut Option<File>, mut keep: impl FnMut(&[u8]) -> bool) -> io::Result<()> {
    let mut buffer = [0; 16 << 10];
    while let Some(file) = outlet {
        match file.read(&mut buffer) {
            Ok(0) => *outlet = None,
            Ok(length) => {
                if !keep(buffer.get(..length).unwrap_or_default()) {
                    break;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn how(status: ExitStatus) -> Ended {
    match (status.code(), status.signal()) {
        (Some(code), _) => Ended::Exit(code),
        (None, signal) => Ended::Signal(signal.unwrap_or_default()),
    }
}

/// Why a program was not started, and what to do.
fn not_started(program: &str, error: &io::Error) -> String {
    let help = match error.kind() {
        io::ErrorKind::NotFound => "it does not exist, or the interpreter in its first line (#!) does not".to_owned(),
        io::ErrorKind::PermissionDenied => {
            "Convey's user may not execute it: see `ls -l`, and for what the unit keeps from commands COMMANDS in convey(8)".to_owned()
        }
        _ => match error.raw_os_error() {
            Some(libc::ENOEXEC) => "it is no program: a script needs a first line such as #!/bin/sh".to_owned(),
            Some(libc::EAGAIN) => "Convey's user has too many processes".to_owned(),
            _ => error.to_string(),
        },
    };
    format!("start {program}: {help}")
}
