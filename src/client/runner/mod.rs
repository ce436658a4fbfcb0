//! Asking the runner: the process that runs the commands of the configuration.

pub mod message;

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::unix::AsyncFd,
    select,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::timeout,
};

use crate::{
    base::DnsProof,
    config::Command,
    sys::{
        fdpass::{self, RecvError},
        memfd, readiness,
    },
};
use message::{Ended, MAX_INPUT_BYTES, MAX_OUTPUT_BYTES, MAX_RUNNING, Outcome, Reply, Request, Verb};

/// Requests that may wait; who asks then waits for room.
const QUEUE: usize = 64;

/// How much later than a command's own time-out its end may be told: what it has started is ended first.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long is waited for what the runner answers at once.
const ANSWER: Duration = Duration::from_secs(2);

/// Asks the runner. Cheap to clone. Of many commands that are asked for, some run and the others wait for their turn.
#[derive(Debug, Clone)]
pub struct Runner {
    requests: mpsc::Sender<Ask>,
    turns: Arc<Semaphore>,
}

/// What a command has printed, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// How it has ended.
    pub how: Ended,
    /// What it printed on standard output.
    pub printed: Vec<u8>,
    /// The end of what it said on standard error.
    pub errors: String,
}

/// Why there is no output.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// The command could not be started.
    #[error("{0}")]
    NotRun(String),
    /// The command did not end well.
    #[error("{0}")]
    Failed(String),
    /// The runner is gone.
    #[error("the runner of commands is gone: restart convey")]
    Lost,
}

#[derive(Debug)]
struct Ask {
    verb: Verb,
    input: Option<OwnedFd>,
    answer: oneshot::Sender<(Outcome, Option<OwnedFd>)>,
}

impl Runner {
    /// Takes the daemon's end of the socketpair over; must be called within the runtime on which the answers are received.
    ///
    /// # Errors
    /// The reactor does not take it.
    pub fn start(socket: OwnedFd) -> io::Result<Self> {
        let socket = readiness::readable(socket)?;
        let (requests, inbox) = mpsc::channel(QUEUE);
        tokio::spawn(async move {
            let why = serve(&socket, inbox).await;
            tracing::error!(
                event = "runner_lost",
                "the runner of commands is gone ({why}): no command runs until convey is restarted"
            );
        });
        Ok(Self {
            requests,
            turns: Arc::new(Semaphore::new(MAX_RUNNING)),
        })
    }

    /// Runs a command, with this on its standard input: what it printed, if it exits with 0.
    ///
    /// # Errors
    /// It could not be started, or ended otherwise.
    pub async fn run(&self, command: &Command, input: &[u8]) -> Result<Vec<u8>, RunError> {
        let output = self.run_to_end(command, input).await?;
        match output.failure() {
            None => Ok(output.printed),
            Some(why) => Err(RunError::Failed(why)),
        }
    }

    /// As [`run`](Self::run), however it ends.
    ///
    /// # Errors
    /// It could not be started.
    pub async fn run_to_end(&self, command: &Command, input: &[u8]) -> Result<Output, RunError> {
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        self.run_now(command, Verb::Run(command.id()), input, turn.ok())
            .await
    }

    /// Runs a command for a server, however it ends; its turn has to come within the command's own time-out.
    ///
    /// # Errors
    /// It could not be started.
    pub async fn run_for(&self, command: &Command, server: SocketAddr) -> Result<Output, RunError> {
        let turn = timeout(command.timeout, Arc::clone(&self.turns).acquire_owned()).await;
        let turn = turn.map_err(|_| {
            RunError::NotRun(format!(
                "{MAX_RUNNING} commands run already; no turn came within {:?}",
                command.timeout
            ))
        })?;
        let verb = Verb::RunFor(command.id(), server);
        self.run_now(command, verb, b"", turn.ok()).await
    }

    /// Runs a command that changes a record of the DNS.
    ///
    /// # Errors
    /// It could not be started, or did not end well.
    pub async fn run_dns(&self, command: &Command, proof: DnsProof) -> Result<(), RunError> {
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let verb = Verb::RunDns(command.id(), proof);
        let output = self.run_now(command, verb, b"", turn.ok()).await?;
        output.failure().map_or(Ok(()), |why| Err(RunError::Failed(why)))
    }

    async fn run_now(
        &self,
        command: &Command,
        verb: Verb,
        input: &[u8],
        turn: Option<OwnedSemaphorePermit>,
    ) -> Result<Output, RunError> {
        let not_run = |why: String| RunError::NotRun(why);
        if input.len() > MAX_INPUT_BYTES {
            return Err(not_run(format!(
                "its input has more than {MAX_INPUT_BYTES} bytes"
            )));
        }
        let input = memfd::sealed(input).map_err(|error| not_run(format!("make its input: {error}")))?;
        let asked = self.ask(verb, Some(input));
        let (outcome, printed) = timeout(command.timeout + PATIENCE, asked)
            .await
            .map_err(|_| not_run("the runner of commands does not answer".to_owned()))??;
        drop(turn);
        match (outcome, printed) {
            (Outcome::Ended { how, errors }, Some(printed)) => {
                let printed = memfd::read_sealed(printed, MAX_OUTPUT_BYTES)
                    .map_err(|error| not_run(format!("read what it printed: {error}")))?;
                Ok(Output { how, printed, errors })
            }
            (Outcome::NotRun { why }, _) => Err(RunError::NotRun(why)),
            _ => Err(RunError::Lost),
        }
    }

    /// Whether a process is a command, or was started by one. Without a runner that answers there is none.
    pub async fn is_command(&self, process: u32) -> bool {
        let answer = timeout(ANSWER, self.ask(Verb::IsCommand(process), None)).await;
        matches!(answer, Ok(Ok((Outcome::IsCommand(true), _))))
    }

    async fn ask(&self, verb: Verb, input: Option<OwnedFd>) -> Result<(Outcome, Option<OwnedFd>), RunError> {
        let (answer, answered) = oneshot::channel();
        let ask = Ask { verb, input, answer };
        self.requests.send(ask).await.map_err(|_| RunError::Lost)?;
        answered.await.map_err(|_| RunError::Lost)
    }
}

impl Output {
    /// Why it is a failure, if it is one: with the last line that it said on standard error.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        let why = match self.how {
            Ended::Exit(0) => return None,
            Ended::Exit(status) => format!("exit status {status}"),
            Ended::Signal(signal) => format!("ended by signal {signal}"),
            Ended::Timeout => "not done within its timeout".to_owned(),
            Ended::TooMuchOutput => format!("printed more than {MAX_OUTPUT_BYTES} bytes"),
        };
        let last = self.errors.lines().rev().find(|line| !line.trim().is_empty());
        Some(match last {
            Some(line) => {
                let plain: String = line.chars().filter(|c| !c.is_control()).take(300).collect();
                format!("{why}: {}", plain.trim())
            }
            None => why,
        })
    }
}

/// Hands on requests and answers until the runner is gone: why.
async fn serve(socket: &AsyncFd<OwnedFd>, mut inbox: mpsc::Receiver<Ask>) -> String {
    let mut waiting: HashMap<u64, oneshot::Sender<(Outcome, Option<OwnedFd>)>> = HashMap::new();
    let mut last = 0;
    loop {
        select! {
            ask = inbox.recv() => {
                let Some(ask) = ask else {
                    return "nobody asks it any more".to_owned();
                };
                last += 1;
                match send(socket.get_ref(), last, &ask) {
                    Ok(()) => { waiting.insert(last, ask.answer); }
                    Err(error) => {
                        let why = Outcome::not_run(&format!("ask the runner: {error}"));
                        let _ = ask.answer.send((why, None));
                    }
                }
            }
            ready = socket.readable() => match ready {
                Ok(mut ready) => ready.clear_ready(),
                Err(error) => return error.to_string(),
            },
        }
        loop {
            match receive(socket.get_ref().as_fd()) {
                Ok(Some((number, outcome, fd))) => {
                    if let Some(answer) = waiting.remove(&number) {
                        // who has asked may have given up
                        let _ = answer.send((outcome, fd));
                    }
                }
                Ok(None) => break,
                Err(why) => return why,
            }
        }
    }
}

fn send(socket: &OwnedFd, number: u64, ask: &Ask) -> io::Result<()> {
    let request = Request {
        number,
        verb: ask.verb.clone(),
    };
    let bytes = message::encode(&request).ok_or(io::ErrorKind::InvalidInput)?;
    let fds: Vec<BorrowedFd<'_>> = ask.input.iter().map(|fd| fd.as_fd()).collect();
    fdpass::try_send(socket.as_fd(), &bytes, &fds)
}

type Answer = (u64, Outcome, Option<OwnedFd>);

/// Takes an answer, if there is one.
fn receive(socket: BorrowedFd<'_>) -> Result<Option<Answer>, String> {
    let (bytes, fds) = match fdpass::try_receive(socket) {
        Ok(message) => message,
        Err(RecvError::TimedOut) => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let reply: Reply = message::decode(&bytes).ok_or("it sent what is no answer")?;
    if fds.len() != reply.outcome.descriptors() {
        return Err(format!("{} descriptors came with an answer", fds.len()));
    }
    Ok(Some((reply.number, reply.outcome, fds.into_iter().next())))
}
