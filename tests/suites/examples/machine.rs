//! A host as its operator knows it: files of its own under /etc, /run and /var/lib, and Convey in /usr/bin.

use std::{fs, path::PathBuf, process::Command};

use convey::admin::views::Status;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::lab::{self, Host, Output, PATIENCE, Process, notify::Notify, wait_until};

/// Where the packages put the two programs' files.
const CONFIG: &str = "/etc/convey/convey.toml";

/// Gives the mount namespace that it runs in a face of its own and keeps it. `/etc` and the directories of programs are
/// laid over the machine's, so that what is written there is seen by nobody else.
const FURNISH: &str = r#"
mount -t tmpfs -o mode=755 run /run
mkdir -p /run/layers/etc /run/layers/work /run/layers/bin /run/layers/sbin
mount -t tmpfs -o mode=755 lib /var/lib
mount -t overlay -o lowerdir=/etc,upperdir=/run/layers/etc,workdir=/run/layers/work etc /etc
touch /run/layers/bin/convey /run/layers/sbin/convey-backend-setup
mount -t overlay -o lowerdir=/run/layers/bin:/usr/bin bin /usr/bin
mount -t overlay -o lowerdir=/run/layers/sbin:/usr/sbin sbin /usr/sbin
mount --bind "$1" /usr/bin/convey
mount --bind "$2" /usr/sbin/convey-backend-setup
getent passwd convey >/dev/null || {
    echo 'convey:x:64990:64990::/nonexistent:/usr/sbin/nologin' >>/etc/passwd
    echo 'convey:x:64990:' >>/etc/group
}
mkdir -p /etc/convey /var/lib/convey /etc/keepalived /etc/bird /run/bird
touch /run/furnished
exec sleep infinity
"#;

/// A host with files of its own.
pub struct Machine {
    host: Host,
    /// Holds the mount namespace.
    keeper: Process,
}

impl Machine {
    /// Makes a host of the lab one.
    #[track_caller]
    pub fn new(host: &Host) -> Self {
        let setup = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/packaging/backend/convey-backend-setup"
        );
        let mut command = Command::new("unshare");
        command
            .args([
                "--mount",
                "sh",
                "-euc",
                FURNISH,
                "sh",
                lab::convey::binary(),
                setup,
            ])
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        let mut machine = Self {
            keeper: host.spawn(command),
            host: host.clone(),
        };
        wait_until("the machine has its files", PATIENCE, || {
            assert!(
                machine.keeper.ended().is_none(),
                "{}: {}",
                machine.host.name(),
                machine.keeper.stderr()
            );
            machine.path("/run/furnished").exists()
        });
        machine
    }

    /// Its place in the network.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// A file of this machine, as the tests reach it.
    pub fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.keeper.pid()))
    }

    /// Writes a file, as an editor of root's would.
    #[track_caller]
    pub fn write(&self, path: &str, text: &str) {
        fs::write(self.path(path), text).unwrap_or_else(|error| panic!("{path}: {error}"));
    }

    /// Runs a shell command, which must succeed; returns what it printed.
    #[track_caller]
    pub fn run(&self, command: &str) -> String {
        self.try_run(command).succeeded(command, self.host.name())
    }

    /// Runs a shell command to its end, whatever it is.
    #[track_caller]
    pub fn try_run(&self, command: &str) -> Output {
        self.start(command).finish(PATIENCE)
    }

    /// Starts a shell command and leaves it running; `exec` makes it the program itself.
    #[track_caller]
    pub fn start(&self, command: &str) -> Process {
        self.host.spawn(self.command(command))
    }

    fn command(&self, command: &str) -> Command {
        let mut nsenter = Command::new("nsenter");
        nsenter
            // with its root: the tests may run in a chroot
            .args(["--mount", "--root", "--target", &self.keeper.pid().to_string()])
            .args(["--wdns=/", "sh", "-c", command])
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env_remove("INVOCATION_ID");
        nsenter
    }

    /// Installs a configuration.
    #[track_caller]
    pub fn configure(&self, config: &str) {
        self.write(CONFIG, config);
    }

    /// Starts Convey with its configuration, as the service does, and waits until it is ready. `options` are for it.
    #[track_caller]
    pub fn convey(&self, options: &str) -> Service {
        let notify = Notify::bind(&self.host.path("notify.sock"));
        let mut command = self.command(&format!("exec convey --config {CONFIG} {options}"));
        command
            .env("NOTIFY_SOCKET", notify.path())
            // as under systemd: firewall rules outlive a crash
            .env("INVOCATION_ID", "0123456789abcdef0123456789abcdef");
        let mut service = Service {
            process: self.host.spawn(command),
            notify,
        };
        service.wait_ready();
        service
    }

    /// Stops it as the service does: the rules go last.
    #[track_caller]
    pub fn stop(&self, convey: Service) {
        convey.terminate();
        convey.wait_gone();
        self.run("convey firewall clear");
    }

    /// `convey status --json`.
    #[track_caller]
    pub fn status(&self) -> Status {
        let json = self.run("convey status --json");
        serde_json::from_str(&json).unwrap_or_else(|error| panic!("{error} in the status {json}"))
    }

    /// Waits until `done` says so of the status.
    #[track_caller]
    pub fn wait_status(&self, what: &str, done: impl Fn(&Status) -> bool) {
        wait_until(what, PATIENCE, || done(&self.status()));
    }

    /// Whether an interface has an address.
    pub fn has_address(&self, address: &str) -> bool {
        self.host
            .run("ip -o address show")
            .contains(&format!(" {address}/"))
    }
}

/// A running Convey.
pub struct Service {
    process: Process,
    notify: Notify,
}

impl Service {
    #[track_caller]
    fn wait_ready(&mut self) {
        let Self { process, notify } = self;
        let ready = notify.wait_for("READY=1", 0, PATIENCE, || process.ended().is_some());
        assert!(ready, "convey is not ready; it said:\n{}", self.process.stderr());
    }

    /// Its process group: the daemon's and the broker's.
    pub fn group(&self) -> Pid {
        self.process.pid()
    }

    /// What it logged.
    pub fn log(&self) -> String {
        self.process.stderr()
    }

    /// Asks it to end.
    #[track_caller]
    pub fn terminate(&self) {
        self.process.signal(Signal::SIGTERM);
    }

    /// Ends it from one moment to the next, as a crash would; the broker ends by itself.
    #[track_caller]
    pub fn crash(self) {
        self.process.signal(Signal::SIGKILL);
        self.wait_gone();
    }

    #[track_caller]
    fn wait_gone(mut self) {
        let group = self.group();
        self.process.wait(PATIENCE);
        wait_until("the broker ends", PATIENCE, || {
            // signal 0 asks only
            kill(Pid::from_raw(-group.as_raw()), None).is_err()
        });
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let last: Vec<&str> = log.lines().rev().take(30).collect();
            let last: Vec<&str> = last.into_iter().rev().collect();
            eprintln!("--- the last lines of convey's log:\n{}\n---", last.join("\n"));
        }
    }
}
