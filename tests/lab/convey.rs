//! The daemon under test.

use std::{
    fs,
    os::{fd::AsRawFd as _, unix::fs::PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    time::Duration,
};

use convey::admin::views::{Connections, Server, Status, Traffic};
use nix::{sys::signal::Signal, unistd::Pid};

use super::{Host, Output, PATIENCE, Process, notify::Notify, process::Alone, wait_until};

/// Runs a program with these descriptors as its own from 3 on, and no others, which systemd does so: over numbers above all of
/// them, for a source may be another's destination. (A shell keeps what it overwrites under numbers of its choice.)
const HAND_OVER: &str = "
import fcntl, os, sys
given = [int(fd) for fd in sys.argv[1].split(',') if fd]
above = max([2 + len(given), *given]) + 1
far = [fcntl.fcntl(fd, fcntl.F_DUPFD, above) for fd in given]
for to, fd in enumerate(far, 3):
    os.dup2(fd, to)
os.closerange(3 + len(given), above + len(given))
os.environ['LISTEN_PID'] = str(os.getpid())
os.execvp(sys.argv[2], sys.argv[2:])
";

/// A running `convey`. Dropping it kills the daemon; its broker then sees end-of-file and goes.
pub struct Convey {
    host: Host,
    dir: PathBuf,
    process: Process,
    notify: Notify,
    /// Assignments of earlier processes.
    said_before: usize,
    /// What of its environment a service manager makes, as `env` takes it.
    unit: &'static [&'static str],
}

impl Convey {
    /// What makes the daemon believe that its service manager keeps descriptors.
    pub const FD_STORE: &str = "FDSTORE=64";

    /// What makes it believe that systemd has started it as a service, which it starts again: then rules stay, too.
    const UNIT: &[&str] = &[
        "-u",
        "SYSTEMD_EXEC_PID",
        "INVOCATION_ID=of-the-lab",
        "FDSTORE=16384",
    ];

    /// Starts it with this configuration and waits until it says that it is ready.
    ///
    /// A control socket in the lab's directory is added when there is no `[admin]` section, and `watch_config = false`
    /// when there is no `[global]` one, both at the end: lines keep their numbers.
    #[track_caller]
    pub fn start(host: &Host, config: &str) -> Self {
        let mut convey = Self::launch(host, config);
        convey.wait_ready();
        convey
    }

    /// As [`start`](Self::start), without waiting.
    #[track_caller]
    pub fn launch(host: &Host, config: &str) -> Self {
        Self::launch_with(host, config, &["env"])
    }

    /// As [`launch`](Self::launch), by a program that becomes it: `env NAME=VALUE`, `taskset -c 1`.
    #[track_caller]
    pub fn launch_with(host: &Host, config: &str, launcher: &[&str]) -> Self {
        Self::launch_as(host, config, launcher, &[])
    }

    /// As [`launch_with`](Self::launch_with), with further options of Convey's.
    #[track_caller]
    pub fn launch_as(host: &Host, config: &str, launcher: &[&str], options: &[&str]) -> Self {
        Self::launch_in(host, "convey", config, launcher, options)
    }

    /// As [`start`](Self::start), as a service of systemd: what it has descriptors kept of outlives it, and its rules do.
    /// [`start_again`](Self::start_again) starts it so again.
    #[track_caller]
    pub fn start_as_unit(host: &Host, config: &str) -> Self {
        let launcher: Vec<_> = ["env"].iter().chain(Self::UNIT).copied().collect();
        let mut convey = Self::launch_with(host, config, &launcher);
        convey.unit = Self::UNIT;
        convey.wait_ready();
        convey
    }

    /// As [`launch`](Self::launch), beside another one of this host, in a directory of its own.
    #[track_caller]
    pub fn launch_beside(host: &Host, directory: &str, config: &str) -> Self {
        Self::launch_in(host, directory, config, &["env"], &[])
    }

    #[track_caller]
    fn launch_in(host: &Host, directory: &str, config: &str, launcher: &[&str], options: &[&str]) -> Self {
        let dir = host.path(directory);
        fs::create_dir_all(&dir).expect("the daemon's directory");
        super::open_to_all(&dir);
        write_config(&dir, config);
        let notify = Notify::bind(&dir.join("notify.sock"));
        let mut command = command(&dir, launcher, options);
        command.env("NOTIFY_SOCKET", notify.path());
        Self {
            process: host.spawn(command),
            host: host.clone(),
            dir,
            notify,
            said_before: 0,
            unit: &[Self::FD_STORE],
        }
    }

    /// Starts it again as a service manager does that keeps descriptors (`FDSTORE=`), with those that it was given. What
    /// ran before must have ended.
    #[track_caller]
    pub fn start_again(&mut self, config: &str) {
        self.launch_again(config);
        self.wait_ready();
    }

    /// As [`start_again`](Self::start_again), without waiting.
    #[track_caller]
    pub fn launch_again(&mut self, config: &str) {
        write_config(&self.dir, config);
        let alone = Alone::wait();
        let handed = self.notify.hand_over();
        let names: Vec<_> = handed.iter().map(|(name, _)| name.as_str()).collect();
        let numbers: Vec<_> = handed.iter().map(|(_, fd)| fd.as_raw_fd().to_string()).collect();
        let numbers = numbers.join(",");
        let launcher = ["python3", "-ISc", HAND_OVER, &numbers, "env"];
        let launcher: Vec<_> = launcher.into_iter().chain(self.unit.iter().copied()).collect();
        let mut command = command(&self.dir, &launcher, &[]);
        command
            .env("NOTIFY_SOCKET", self.notify.path())
            .env("LISTEN_FDS", handed.len().to_string())
            .env("LISTEN_FDNAMES", names.join(":"));
        self.said_before = self.notify.assignments().len();
        self.process = self.host.spawn_alone(&alone, command);
    }

    /// Waits for `READY=1`.
    #[track_caller]
    pub fn wait_ready(&mut self) {
        let Self {
            notify,
            process,
            said_before,
            ..
        } = self;
        let ready = notify.wait_for("READY=1", *said_before, PATIENCE, || process.ended().is_some());
        assert!(
            ready,
            "convey is not ready ({:?}); it said:\n{}",
            self.process.ended(),
            self.stderr()
        );
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        self.process.pid()
    }

    /// The broker's process id.
    #[track_caller]
    pub fn broker(&self) -> Pid {
        self.child("convey-broker")
    }

    /// The process id of the runner of commands.
    #[track_caller]
    pub fn runner(&self) -> Pid {
        self.child("convey-runner")
    }

    /// The daemon's only child of that name; it has two children.
    #[track_caller]
    fn child(&self, name: &str) -> Pid {
        let children = format!("/proc/{0}/task/{0}/children", self.pid());
        let text = fs::read_to_string(&children).expect("the daemon's children");
        let pids: Vec<i32> = text
            .split_whitespace()
            .filter_map(|pid| pid.parse().ok())
            .collect();
        assert_eq!(pids.len(), 2, "broker and runner and nothing else: {text:?}");
        let named = |pid: &&i32| {
            let comm = fs::read_to_string(format!("/proc/{pid}/comm"));
            comm.is_ok_and(|comm| comm.trim_end() == name)
        };
        let found: Vec<_> = pids.iter().filter(named).collect();
        assert_eq!(found.len(), 1, "one {name} of {text:?}");
        Pid::from_raw(*found[0])
    }

    /// The host it runs on.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Its configuration file.
    pub fn config_path(&self) -> PathBuf {
        self.dir.join("convey.toml")
    }

    /// Its directory: configuration, control socket.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What it told its service manager.
    pub fn notify(&self) -> &Notify {
        &self.notify
    }

    /// What it logged.
    pub fn stderr(&self) -> String {
        self.process.stderr()
    }

    /// Sends a signal to the daemon.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait_exit(&mut self, limit: Duration) -> ExitStatus {
        self.process.wait(limit)
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.process.ended()
    }

    /// Replaces the configuration file by a rename, as editors and configuration management do.
    pub fn write_config(&self, config: &str) {
        write_config(&self.dir, config);
    }

    /// Runs a subcommand against its control socket.
    #[track_caller]
    pub fn cli(&self, arguments: &str) -> Output {
        let mut command = Command::new(binary());
        command
            .args(arguments.split_whitespace())
            .arg("--socket")
            .arg(self.dir.join("admin.sock"));
        self.host.spawn(command).finish(PATIENCE)
    }

    /// Runs a subcommand that works without the daemon, such as `firewall show`, as the service would.
    #[track_caller]
    pub fn tool(&self, arguments: &str) -> Output {
        let mut command = Command::new(binary());
        command
            .args(arguments.split_whitespace())
            .arg("--config")
            .arg(self.config_path())
            .envs(directories(&self.dir))
            .current_dir(&self.dir);
        self.host.spawn(command).finish(PATIENCE)
    }

    /// Runs a subcommand that must succeed.
    #[track_caller]
    pub fn order(&self, arguments: &str) -> String {
        let output = self.cli(arguments);
        assert!(
            output.status.success(),
            "convey {arguments}: {}\n{}{}\ndaemon:\n{}",
            output.status,
            output.stdout,
            output.stderr,
            self.stderr()
        );
        output.stdout
    }

    /// Writes this configuration and reloads; both must succeed.
    #[track_caller]
    pub fn reload(&self, config: &str) {
        self.write_config(config);
        self.order("reload");
    }

    /// `convey status --json`.
    #[track_caller]
    pub fn status(&self) -> Status {
        let json = self.order("status --json");
        serde_json::from_str(&json).unwrap_or_else(|error| panic!("{error} in the status {json}"))
    }

    /// `convey connections --json`.
    #[track_caller]
    pub fn connections(&self) -> Connections {
        let json = self.order("connections --json");
        serde_json::from_str(&json).unwrap_or_else(|error| panic!("{error} in the connections {json}"))
    }

    /// `convey status --json`, as it is.
    #[track_caller]
    pub fn status_json(&self) -> serde_json::Value {
        let json = self.order("status --json");
        serde_json::from_str(&json).unwrap_or_else(|error| panic!("{error} in the status {json}"))
    }

    /// One server's part of the status.
    #[track_caller]
    pub fn server(&self, backend: &str, server: &str) -> Server {
        let mut status = self.status();
        status
            .backends
            .get_mut(backend)
            .and_then(|backend| backend.servers.remove(server))
            .unwrap_or_else(|| panic!("no server {backend}/{server} in the status"))
    }

    /// One frontend's counters.
    #[track_caller]
    pub fn traffic(&self, frontend: &str) -> Traffic {
        let mut status = self.status();
        match status.frontends.remove(frontend) {
            Some(frontend) => frontend.traffic,
            None => panic!("no frontend {frontend} in the status"),
        }
    }

    /// Waits until `done` says so of the status.
    #[track_caller]
    pub fn wait_status(&self, what: &str, done: impl Fn(&Status) -> bool) {
        wait_until(what, PATIENCE, || done(&self.status()));
    }

    /// Memory that belongs to the daemon alone, in bytes.
    pub fn private_memory(&self) -> u64 {
        super::process::private_memory(self.pid())
    }
}

impl Drop for Convey {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.stderr();
            // what became of packets, if it still tells; the panic that goes on here stays the first one
            let status = self.cli("status --json").stdout;
            if let Ok(status) = serde_json::from_str::<serde_json::Value>(&status) {
                eprintln!("--- its packet counters: {}", status["packet"]);
            }
            let last: Vec<&str> = log.lines().rev().take(30).collect();
            let last: Vec<&str> = last.into_iter().rev().collect();
            eprintln!(
                "--- the last lines of convey's log ({}):\n{}\n---",
                self.host.namespace(),
                last.join("\n")
            );
        }
    }
}

/// The daemon, run by hand whatever runs the tests.
fn command(dir: &Path, launcher: &[&str], options: &[&str]) -> Command {
    let mut command = Command::new(launcher[0]);
    command
        .args(&launcher[1..])
        .arg(binary())
        .args(options)
        .arg("--config")
        .arg(dir.join("convey.toml"))
        .envs(directories(dir))
        .env_remove("INVOCATION_ID")
        .current_dir(dir);
    command
}

/// Where a service manager says that files belong; hosts of a lab share /run and /var.
fn directories(dir: &Path) -> [(&'static str, PathBuf); 2] {
    ["RUNTIME_DIRECTORY", "STATE_DIRECTORY"].map(|name| {
        let path = dir.join(name.to_lowercase());
        fs::create_dir_all(&path).expect("the service's directories");
        super::open_to_all(&path);
        (name, path)
    })
}

/// The binary that Cargo built along with this test.
pub fn binary() -> &'static str {
    env!("CARGO_BIN_EXE_convey")
}

fn write_config(dir: &Path, config: &str) {
    let mut text = config.to_owned();
    if !config.contains("[admin]") {
        text += &format!("\n[admin]\nsocket = \"{}/admin.sock\"\n", dir.display());
    }
    if !config.contains("[global]") {
        text += "\n[global]\nwatch_config = false\n";
    }
    let (new, path) = (dir.join("convey.toml.new"), dir.join("convey.toml"));
    fs::write(&new, text).expect("the configuration");
    fs::set_permissions(&new, fs::Permissions::from_mode(0o644)).expect("chmod of the configuration");
    fs::rename(&new, &path).expect("the configuration in its place");
}
