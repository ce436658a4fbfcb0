//! Child processes whose output is kept and which never outlive their handle.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        PoisonError, RwLock, RwLockWriteGuard,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};

static NEXT_FILE: AtomicU32 = AtomicU32::new(1);

/// Held for writing while there are descriptors that one program alone is to inherit.
static STARTS: RwLock<()> = RwLock::new(());

/// Nobody else starts a program while this lives.
pub struct Alone {
    _starts: RwLockWriteGuard<'static, ()>,
}

impl Alone {
    /// Waits until those that are being started are.
    pub fn wait() -> Self {
        Self {
            _starts: STARTS.write().unwrap_or_else(PoisonError::into_inner),
        }
    }
}

/// A program that ran to its end.
#[derive(Debug, Clone)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

impl Output {
    /// What a command printed that must succeed.
    #[track_caller]
    pub fn succeeded(self, command: &str, host: &str) -> String {
        assert!(
            self.status.success(),
            "`{command}` on {host} ended with {}\n{}{}",
            self.status,
            self.stdout,
            self.stderr
        );
        self.stdout
    }
}

/// A running program. Dropping it kills its whole process group.
pub struct Process {
    child: Child,
    label: String,
    stdout: PathBuf,
    stderr: PathBuf,
    status: Option<ExitStatus>,
}

impl Process {
    /// Starts a program in a process group of its own, its output in files under `dir`.
    #[track_caller]
    pub fn spawn(command: Command, dir: &Path) -> Self {
        let _others = STARTS.read().unwrap_or_else(PoisonError::into_inner);
        Self::start(command, dir)
    }

    /// As [`spawn`](Self::spawn), while nobody else does.
    #[track_caller]
    pub fn spawn_alone(_: &Alone, command: Command, dir: &Path) -> Self {
        Self::start(command, dir)
    }

    #[track_caller]
    fn start(mut command: Command, dir: &Path) -> Self {
        let label = format!("{command:?}");
        let number = NEXT_FILE.fetch_add(1, Ordering::Relaxed);
        let file = |kind: &str| dir.join(format!("process-{number}.{kind}"));
        let (stdout, stderr) = (file("out"), file("err"));
        let create = |path: &Path| File::create(path).expect("a file for the program's output");
        let child = command
            .stdin(Stdio::null())
            .stdout(create(&stdout))
            .stderr(create(&stderr))
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {label}: {error}"));
        Self {
            child,
            label,
            stdout,
            stderr,
            status: None,
        }
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"))
    }

    /// Sends it a signal. When SIGSTOP returns, it stands.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("signal the program");
        if signal == Signal::SIGSTOP {
            // one thread takes the signal, and until that one has had a CPU the others go on
            super::wait_until("the program stands", super::PATIENCE, || stands(self.pid()));
        }
    }

    /// Kills it and its group with SIGKILL and takes it in.
    pub fn kill(&mut self) {
        if self.status.is_none() {
            killpg(self.pid(), Signal::SIGKILL).ok();
            self.status = self.child.wait().ok();
        }
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().expect("wait for the program");
        }
        self.status
    }

    /// Waits for its end; panics when it takes longer than `limit`.
    #[track_caller]
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let start = Instant::now();
        let mut pause = Duration::from_millis(1);
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            if start.elapsed() > limit {
                self.kill();
                panic!(
                    "hung for {limit:?}: {}\n{}{}",
                    self.label,
                    self.stdout(),
                    self.stderr()
                );
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(10));
        }
    }

    /// Waits for its end and takes its output.
    #[track_caller]
    pub fn finish(mut self, limit: Duration) -> Output {
        Output {
            status: self.wait(limit),
            stdout: self.stdout(),
            stderr: self.stderr(),
        }
    }

    /// What it has printed so far.
    pub fn stdout(&self) -> String {
        read(&self.stdout)
    }

    /// What it has complained about so far.
    pub fn stderr(&self) -> String {
        read(&self.stderr)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Whether all threads of a process are stopped.
fn stands(pid: Pid) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("the program's threads");
    threads.flatten().all(|thread| {
        // none: it has just ended
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        // the number, the name in parentheses, the state
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        matches!(state, None | Some('T' | 'Z' | 'X'))
    })
}

/// Memory that belongs to a process alone (RssAnon), in bytes.
pub fn private_memory(pid: Pid) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process's status");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok());
    kib.expect("RssAnon") * 1024
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}
