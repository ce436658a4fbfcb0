//! Crowds: tens of thousands of connections at a time, which need several processes of at most 20,000 descriptors.
//!
//! A test program that uses them calls [`run_if_asked`] first thing in `main`: members of a crowd are copies of it.
//! Every answer names the server and repeats what was asked, so that not one delivery to a wrong place stays unseen.

use std::{
    env, fs, io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    process::{Command, ExitCode},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::Semaphore,
};

use super::{Host, PATIENCE, Process, wait_until};

/// Tells a copy of the test program what to be.
const ROLE: &str = "CONVEY_LAB_CROWD";
/// What a client sends: its number and the number of the connection and of the question.
const QUESTION: usize = 16;
/// What comes back: the server's number, the question.
const ANSWER: usize = 8 + QUESTION;
/// Connections under way at a time.
const CONNECTING: usize = 64;
/// Questions under way at a time.
const ASKING: usize = 256;

/// Becomes a member of a crowd if this process was started as one.
pub fn run_if_asked() -> Option<ExitCode> {
    let role = env::var(ROLE).ok()?;
    let words: Vec<&str> = role.split(' ').collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    match words[..] {
        ["serve", addr, number] => {
            let addr = addr.parse().expect("an address");
            runtime.block_on(serve(addr, number.parse().expect("a number")));
        }
        ["hold", own, to, number, connections, go] => {
            let (own, to) = (own.parse().expect("an address"), to.parse().expect("an address"));
            let (number, connections) = (
                number.parse().expect("a number"),
                connections.parse().expect("a count"),
            );
            runtime.block_on(hold(own, to, number, connections, PathBuf::from(go)));
        }
        _ => panic!("{ROLE}={role}"),
    }
    Some(ExitCode::SUCCESS)
}

fn start(host: &Host, role: &str) -> Process {
    let mut command = Command::new(env::current_exe().expect("this program"));
    command.env(ROLE, role);
    host.spawn(command)
}

/// Starts `processes` that share one address of a server; they end when dropped.
#[track_caller]
pub fn servers(host: &Host, addr: SocketAddr, number: u64, processes: usize) -> Vec<Process> {
    let started: Vec<Process> = (0..processes)
        .map(|_| start(host, &format!("serve {addr} {number}")))
        .collect();
    wait_until("the servers listen", PATIENCE, || {
        started
            .iter()
            .all(|process| process.stdout().contains("listening"))
    });
    started
}

/// A process that holds connections.
pub struct Holder {
    process: Process,
    go: PathBuf,
    questions: u32,
}

/// What a holder found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// Connections that got the right answer from the same server as before.
    pub right: u64,
    /// Connections that did not come about, broke, or were silent for a minute.
    pub failed: u64,
    /// Connections that got anything else. Not one may.
    pub wrong: u64,
}

impl Holder {
    /// Connects so many times from `own`, an address of `host`, and asks once on each. `number` tells the holders of a
    /// test apart.
    #[track_caller]
    pub fn start(host: &Host, own: IpAddr, to: SocketAddr, number: u64, connections: usize) -> Self {
        let go = host.path(&format!("holder-{number}"));
        let role = format!("hold {own} {to} {number} {connections} {}", go.display());
        Self {
            process: start(host, &role),
            go,
            questions: 0,
        }
    }

    /// Waits for the answers to the last question.
    #[track_caller]
    pub fn report(&mut self, limit: Duration) -> Report {
        let key = format!("answers {} ", self.questions);
        let mut found = None;
        wait_until("the holder reports", limit, || {
            if let Some(status) = self.process.ended() {
                panic!("the holder ended with {status}\n{}", self.process.stderr());
            }
            found = self
                .process
                .stdout()
                .lines()
                .find_map(|line| line.strip_prefix(&key).map(str::to_owned));
            found.is_some()
        });
        let numbers: Vec<u64> = found
            .unwrap_or_default()
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
        match numbers[..] {
            [right, failed, wrong] => Report { right, failed, wrong },
            _ => panic!("a report: {numbers:?}"),
        }
    }

    /// What it said so far, troubles among it.
    pub fn said(&self) -> String {
        self.process.stdout()
    }

    /// Asks again on every connection. [`report`](Self::report) tells what came back.
    pub fn ask(&mut self) {
        self.questions += 1;
        fs::write(&self.go, self.questions.to_string()).expect("the sign to go on");
    }
}

async fn serve(addr: SocketAddr, number: u64) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseport(true).expect("SO_REUSEPORT");
    socket.bind(addr).expect("bind");
    let listener: TcpListener = socket.listen(4096).expect("listen");
    println!("listening");
    loop {
        let Ok((mut stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        tokio::spawn(async move {
            let mut answer = [0; ANSWER];
            answer[..8].copy_from_slice(&number.to_le_bytes());
            while stream.read_exact(&mut answer[8..]).await.is_ok() {
                if stream.write_all(&answer).await.is_err() {
                    return;
                }
            }
        });
    }
}

/// Totals of one question.
#[derive(Default)]
struct Totals {
    right: u64,
    failed: u64,
    wrong: u64,
}

async fn hold(own: IpAddr, to: SocketAddr, number: u64, connections: usize, go: PathBuf) {
    let limit = Arc::new(Semaphore::new(CONNECTING));
    let tasks: Vec<_> = (0..connections as u64)
        .map(|index| {
            let limit = Arc::clone(&limit);
            tokio::spawn(async move {
                let _permit = limit.acquire().await;
                let within = PATIENCE / 2;
                tokio::time::timeout(within, open(own, to, number, index))
                    .await
                    .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            })
        })
        .collect();
    let mut totals = Totals::default();
    let mut held = Vec::with_capacity(connections);
    for task in tasks {
        match task.await.expect("a task") {
            Ok(connection) => {
                totals.right += 1;
                held.push(connection);
            }
            Err(error) => totals.count(&error),
        }
    }
    totals.print(0);
    for question in 1.. {
        while fs::read_to_string(&go).ok().and_then(|text| text.parse().ok()) != Some(question) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        held = again(held, number, question).await;
    }
}

async fn again(held: Vec<(u64, u64, TcpStream)>, number: u64, question: u32) -> Vec<(u64, u64, TcpStream)> {
    let mut totals = Totals::default();
    // many at the same time: that is when mistakes would show
    let limit = Arc::new(Semaphore::new(ASKING));
    let tasks: Vec<_> = held
        .into_iter()
        .map(|(index, server, mut stream)| {
            let limit = Arc::clone(&limit);
            tokio::spawn(async move {
                let _permit = limit.acquire().await;
                let within = PATIENCE / 2;
                let answer = tokio::time::timeout(within, ask(&mut stream, number, index, question))
                    .await
                    .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
                match answer {
                    Ok(same) if same == server => Ok((index, server, stream)),
                    Ok(_) => Err(io::ErrorKind::InvalidData.into()),
                    Err(error) => Err(error),
                }
            })
        })
        .collect();
    let mut held = Vec::with_capacity(tasks.len());
    for task in tasks {
        match task.await.expect("a task") {
            Ok(connection) => {
                totals.right += 1;
                held.push(connection);
            }
            Err(error) => totals.count(&error),
        }
    }
    totals.print(question);
    held
}

async fn open(own: IpAddr, to: SocketAddr, number: u64, index: u64) -> io::Result<(u64, u64, TcpStream)> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(own, 0))?;
    let mut stream = socket.connect(to).await?;
    let server = ask(&mut stream, number, index, 0).await?;
    Ok((index, server, stream))
}

/// Asks and returns the server's number.
async fn ask(stream: &mut TcpStream, number: u64, index: u64, question: u32) -> io::Result<u64> {
    let mut asked = [0; QUESTION];
    asked[..8].copy_from_slice(&((number << 32) | u64::from(question)).to_le_bytes());
    asked[8..].copy_from_slice(&index.to_le_bytes());
    stream.write_all(&asked).await?;
    let mut answer = [0; ANSWER];
    stream.read_exact(&mut answer).await?;
    let (server, repeated) = answer.split_at(8);
    if repeated != asked {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(u64::from_le_bytes(server.try_into().expect("eight bytes")))
}

impl Totals {
    fn count(&mut self, error: &io::Error) {
        if error.kind() == io::ErrorKind::InvalidData {
            self.wrong += 1;
        } else {
            self.failed += 1;
        }
        // the first few tell enough
        if self.wrong + self.failed <= 5 {
            println!("trouble: {error}");
        }
    }

    fn print(&self, question: u32) {
        println!("answers {question} {} {} {}", self.right, self.failed, self.wrong);
    }
}
