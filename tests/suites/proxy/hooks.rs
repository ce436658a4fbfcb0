//! Commands of the operator: what they are told, what they may, and how they end.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    sync::{PoisonError, RwLock},
};

use nix::sys::signal::Signal;

use crate::{
    Test,
    lab::{Convey, Host, Lab, PATIENCE, servers::TcpServer, wait_until},
    site::{FAST_CHECK, backend, frontend},
    tests,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    a_command_is_told_what_happens_to_servers_and_backends,
    what_happens_while_the_command_runs_is_told_together_afterwards,
    a_command_that_hangs_is_ended_with_all_that_it_has_started,
    a_command_that_prints_or_forks_without_end_is_ended,
    a_command_reaches_neither_keys_nor_state_nor_socket_nor_daemon,
    a_reload_adds_a_command_and_takes_one_away,
    nothing_of_a_command_outlives_the_daemon,
    what_an_ended_keeper_leaves_is_ended_and_told,
    the_daemon_outlives_its_runner_and_says_so,
];

/// Processes of one user count together, whoever has started them: one that forks without end leaves the others none.
pub static PROCESSES: RwLock<()> = RwLock::new(());

/// Two servers behind Convey, and a directory in which its commands may write.
struct Stage {
    convey: Convey,
    notes: PathBuf,
    servers: [TcpServer; 2],
    _lab: Lab,
}

impl Stage {
    /// `script` is the command, after `#!/bin/sh`; `$notes` is the directory.
    fn new(name: &str, script: &str, hooks: &str) -> Self {
        let lab = Lab::new(name);
        let (lb, host) = (lab.host("lb"), lab.host("server"));
        let servers = [("a", 10), ("b", 11)].map(|(name, port)| TcpServer::named(&host, port, name));
        let notes = lb.path("notes");
        fs::create_dir(&notes).expect("a directory");
        fs::set_permissions(&notes, fs::Permissions::from_mode(0o777)).expect("open to all");
        let command = write_script(&lb, "hook", script, &notes);
        let config = config(&lb, &servers) + &hook(&command, hooks);
        Self {
            convey: Convey::start(&lb, &config),
            notes,
            servers,
            _lab: lab,
        }
    }

    /// What the commands have written there; empty if nothing.
    fn note(&self, file: &str) -> String {
        fs::read_to_string(self.notes.join(file)).unwrap_or_default()
    }

    fn wait_note(&self, file: &str, has: &str) {
        wait_until(&format!("{file} has {has:?}"), PATIENCE, || {
            self.note(file).contains(has)
        });
    }

    fn wait_log(&self, has: &str) {
        wait_until(&format!("the log has {has:?}"), PATIENCE, || {
            self.convey.stderr().contains(has)
        });
    }

    /// Makes something happen.
    fn drain(&self, server: &str) {
        self.convey.order(&format!("server drain web/{server} --force"));
    }
}

fn config(lb: &Host, servers: &[TcpServer; 2]) -> String {
    let servers = [("a", servers[0].addr(), ""), ("b", servers[1].addr(), "")];
    frontend("web", lb.addr(80), "web", "") + &backend("web", FAST_CHECK, &servers)
}

fn hook(command: &std::path::Path, more: &str) -> String {
    format!(
        "[hooks]\non_change = [{:?}, \"one\", \"two words\"]\n{more}\n",
        command.display().to_string()
    )
}

pub fn write_script(lb: &Host, name: &str, script: &str, notes: &std::path::Path) -> PathBuf {
    let path = lb.path(name);
    fs::write(&path, format!("#!/bin/sh\nnotes={}\n{script}\n", notes.display())).expect("a script");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
    path
}

/// Whether the process whose number a command has written there is still alive.
fn is_alive(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    !pid.trim().is_empty() && !stat.is_empty() && !stat.contains(") Z ")
}

fn a_command_is_told_what_happens_to_servers_and_backends() {
    let _turn = PROCESSES.read().unwrap_or_else(PoisonError::into_inner);
    let stage = Stage::new(
        "hook-told",
        "cat >>$notes/told; echo \"$# $2 $PATH $HOME $(env | wc -l)\" >>$notes/how",
        "",
    );
    stage.drain("a");
    stage.wait_note(
        "told",
        &format!("\tserver_draining\tweb\ta\t{}\t-\n", stage.servers[0].addr()),
    );
    stage.drain("b");
    stage.wait_note("told", "\tserver_draining\tweb\tb\t");
    stage.wait_note("told", "\tbackend_down\tweb\t-\t-\t-\n");
    stage.convey.order("server ready web/a web/b");
    stage.wait_note("told", "\tserver_up\tweb\tb\t");
    stage.wait_note("told", "\tbackend_up\tweb\t");
    let told = stage.note("told");
    assert!(told.lines().all(|line| line.split('\t').count() == 6), "{told}");
    assert!(
        !told.contains("server_added"),
        "what was there at the start is no news: {told}"
    );
    // its arguments as they are written, and an environment of its own: PATH, LANG, HOME, and what the shell adds
    let how = stage.note("how");
    assert!(how.starts_with("2 two words /usr/local/sbin:"), "{how}");
    assert!(
        how.lines()
            .all(|line| line.ends_with(" / 5") || line.ends_with(" / 4")),
        "{how}"
    );
    // a server that fails, with the words of its check
    let Stage {
        convey,
        notes,
        servers: [_, b],
        _lab,
    } = stage;
    drop(b);
    wait_until("its failure is told", PATIENCE, || {
        let told = fs::read_to_string(notes.join("told")).unwrap_or_default();
        told.lines()
            .any(|line| line.contains("\tserver_down\tweb\tb\t") && line.ends_with("connection refused"))
    });
    assert!(!convey.stderr().contains("hook_failed"), "{}", convey.stderr());
}

fn what_happens_while_the_command_runs_is_told_together_afterwards() {
    let _turn = PROCESSES.read().unwrap_or_else(PoisonError::into_inner);
    let script = "echo run >>$notes/runs; cat >>$notes/told; while ! [ -e $notes/go ]; do sleep 0.05; done";
    let stage = Stage::new("hook-together", script, "timeout = \"1m\"");
    stage.drain("a");
    stage.wait_note("runs", "run");
    for _ in 0..3 {
        stage.convey.order("server ready web/a");
        stage.drain("a");
    }
    stage.drain("b");
    assert_eq!(stage.note("runs").lines().count(), 1, "one at a time");
    fs::write(stage.notes.join("go"), "").expect("a file");
    stage.wait_note("told", "\tserver_draining\tweb\tb\t");
    assert_eq!(
        stage.note("runs").lines().count(),
        2,
        "all that came meanwhile at once"
    );
    let drained = stage.note("told").matches("\tserver_draining\tweb\ta\t").count();
    assert_eq!(drained, 4, "{}", stage.note("told"));
}

fn a_command_that_hangs_is_ended_with_all_that_it_has_started() {
    let _turn = PROCESSES.read().unwrap_or_else(PoisonError::into_inner);
    // deaf to SIGTERM; one in a session of its own whose parent has gone, one in the background
    let script = "trap '' TERM INT HUP
        setsid sh -c 'trap \"\" TERM; (echo $$ >>$notes/pids; while :; do sleep 1; done) & exec sleep 1000' &
        (trap '' TERM; sleep 1000) & echo $! >>$notes/pids
        echo $$ >>$notes/pids
        echo deaf >&2
        while :; do sleep 1; done"
        .replace("$notes/pids; while", "'$notes'/pids; while");
    // in which it starts all of them, on a slow machine too
    let stage = Stage::new("hook-hangs", &script, "timeout = \"5s\"");
    stage.drain("a");
    stage.wait_log("not done within its timeout: deaf");
    let pids = stage.note("pids");
    assert_eq!(pids.lines().count(), 3, "{pids}");
    for pid in pids.lines() {
        assert!(!is_alive(pid), "process {pid} of the command is still there");
    }
    assert_eq!(stage.convey.server("web", "b").state.to_string(), "up");
}

fn a_command_that_prints_or_forks_without_end_is_ended() {
    let _turn = PROCESSES.write().unwrap_or_else(PoisonError::into_inner);
    let script = "read -r line
        case $line in
        *server_draining*a*) exec yes ;;
        *) bomb() { bomb | bomb & }; bomb; exec sleep 1000 ;;
        esac";
    let stage = Stage::new("hook-endless", script, "timeout = \"3s\"");
    stage.drain("a");
    stage.wait_log("printed more than 1048576 bytes");
    stage.drain("b");
    stage.wait_log("not done within its timeout");
    // nothing of it is left, and the next one runs
    let runner = stage.convey.runner();
    let keepers = || fs::read_to_string(format!("/proc/{runner}/task/{runner}/children")).unwrap_or_default();
    wait_until("no keeper is left", PATIENCE, || keepers().is_empty());
    assert!(stage.convey.order("status").contains("web"), "the daemon answers");
}

fn a_command_reaches_neither_keys_nor_state_nor_socket_nor_daemon() {
    let _turn = PROCESSES.read().unwrap_or_else(PoisonError::into_inner);
    let lab = Lab::new("hook-confined");
    let (lb, host) = (lab.host("lb"), lab.host("server"));
    let servers = [("a", 10), ("b", 11)].map(|(name, port)| TcpServer::named(&host, port, name));
    let notes = lb.path("notes");
    fs::create_dir(&notes).expect("a directory");
    fs::set_permissions(&notes, fs::Permissions::from_mode(0o777)).expect("open to all");
    let script = "
        daemon=$(cat $notes/daemon) broker=$(cat $notes/broker) runner=$(cat $notes/runner)
        try() { if \"$@\" >/dev/null 2>&1; then echo \"could: $*\"; else echo \"could not: $*\"; fi; }
        {
            try cat $notes/readable
            try kill -9 $daemon
            try kill -9 $broker
            try kill -9 $runner
            try kill -9 $PPID
            try kill -9 -1
            try ls $notes/../lb-convey/state_directory/.
            try cat $notes/../lb-convey/state_directory/overrides.json
            try touch $notes/../lb-convey/state_directory/x
            try cat $notes/../lb-convey/convey.toml
            ln -sf $notes/../lb-convey/convey.toml $notes/link
            try cat $notes/link
            try unshare -U true
            try mount -t tmpfs none /mnt
            grep -E '^(Uid|Cap|NoNewPrivs|Seccomp:|SigBlk|SigIgn)' /proc/self/status
            ls -l /proc/self/fd | wc -l
            curl -sS -m 20 --unix-socket $notes/../lb-convey/admin.sock http://localhost/v1/status 2>&1
        } >$notes/tried.new
        mv $notes/tried.new $notes/tried";
    let command = write_script(&lb, "hook", script, &notes);
    fs::write(notes.join("readable"), "x").expect("a file");
    let text = config(&lb, &servers) + &hook(&command, "");
    let convey = Convey::start(&lb, &text);
    for (file, pid) in [
        ("daemon", convey.pid()),
        ("broker", convey.broker()),
        ("runner", convey.runner()),
    ] {
        fs::write(notes.join(file), pid.to_string()).expect("a file");
    }
    convey.order("server drain web/a");
    let tried = || fs::read_to_string(notes.join("tried")).unwrap_or_default();
    wait_until("the command has tried", PATIENCE, || !tried().is_empty());
    let tried = tried();
    assert_eq!(
        tried.matches("could: ").count(),
        1,
        "only what is nobody's secret: {tried}"
    );
    assert!(
        tried.contains(&format!("could: cat {}/readable", notes.display())),
        "{tried}"
    );
    assert_eq!(tried.matches("could not: ").count(), 12, "{tried}");
    assert!(!tried.contains("Uid:\t0"), "{tried}");
    for none in ["CapPrm", "CapEff", "CapAmb", "CapInh", "SigBlk"] {
        assert!(
            tried.contains(&format!("{none}:\t0000000000000000")),
            "{none}: {tried}"
        );
    }
    assert!(
        tried.contains("NoNewPrivs:\t1") && tried.contains("Seccomp:\t2"),
        "{tried}"
    );
    let ignored = tried
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:\t"))
        .expect("a mask");
    let ignored = u64::from_str_radix(ignored, 16).expect("a number");
    let ends = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGPIPE];
    let heard = ends
        .iter()
        .all(|signal| ignored & (1 << (*signal as u64 - 1)) == 0);
    assert!(heard, "what ends others ends it: {ignored:x}");
    // 0, 1, 2, and the directory that ls reads; and a line of its own
    assert!(tried.contains("\n5\n"), "{tried}");
    assert!(tried.contains("may not use its control socket"), "{tried}");
    assert!(convey.order("status").contains("web"));
}

fn a_reload_adds_a_command_and_takes_one_away() {
    let _turn = PROCESSES.read().unwrap_or_else(PoisonError::into_inner);
    let stage = Stage::new("hook-reload", "cat >>$notes/first", "");
    let second = write_script(stage.convey.host(), "second", "cat >>$notes/second", &stage.notes);
    let base = config(stage.convey.host(), &stage.servers);
    stage.drain("a");
    stage.wait_note("first", "server_draining");
    // a reload that fails leaves the command as it is
    stage
        .convey
        .write_config(&(base.clone() + &hook(&second, "timeout = 7.5")));
    assert!(!stage.convey.cli("reload").status.success());
    stage.convey.order("server ready web/a");
    stage.wait_note("first", "server_up");
    stage.convey.reload(&(base.clone() + &hook(&second, "")));
    stage.drain("b");
    stage.wait_note("second", "\tserver_draining\tweb\tb\t");
    assert!(!stage.note("first").contains("\tb\t"), "{}", stage.note("first"));
    stage.convey.reload(&base);
    stage.convey.order("server ready web/b");
    // something that comes later
    stage.convey.reload(&(base + &hook(&second, "")));
    stage.drain("a");
    stage.wait_note("second", "\tserver_draining\tweb\ta\t");
    assert!(
        !stage.note("second").contains("server_up"),
        "{}",
        stage.note("second")
    );
}

fn nothing_of_a_command_outlives_the_daemon() {
    let _turn = PROCESSES.read().unwrap_or_else(PoisonError::into_inner);
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let script = "trap '' TERM; setsid sleep 1000 & echo $! >>$notes/pids; echo $$ >>$notes/pids; while :; do sleep 1; done";
        let mut stage = Stage::new("hook-end", script, "timeout = \"10m\"");
        let runner = stage.convey.runner();
        stage.drain("a");
        wait_until("it runs", PATIENCE, || stage.note("pids").lines().count() == 2);
        let pids = stage.note("pids");
        assert!(pids.lines().all(is_alive), "{pids}");
        stage.convey.signal(signal);
        stage.convey.wait_exit(PATIENCE);
        wait_until("all of it has ended", PATIENCE, || {
            !pids.lines().any(is_alive) && !is_alive(&runner.to_string())
        });
    }
}

fn the_daemon_outlives_its_runner_and_says_so() {
    let _turn = PROCESSES.read().unwrap_or_else(PoisonError::into_inner);
    let stage = Stage::new("hook-lost", "cat >>$notes/told", "");
    let runner = stage.convey.runner();
    nix::sys::signal::kill(runner, Signal::SIGKILL).expect("killed");
    stage.wait_log("the runner of commands is gone");
    stage.drain("a");
    stage.wait_log("restart convey");
    assert!(stage.convey.order("status").contains("draining"));
}

fn what_an_ended_keeper_leaves_is_ended_and_told() {
    let _turn = PROCESSES.read().unwrap_or_else(PoisonError::into_inner);
    let script = "setsid sh -c 'sleep 1000 & echo $! >>'$notes'/pids; wait' & echo $! >>$notes/pids; echo $$ >>$notes/pids; wait";
    let stage = Stage::new("hook-orphans", script, "timeout = \"10m\"");
    let runner = stage.convey.runner();
    stage.drain("a");
    wait_until("it runs", PATIENCE, || stage.note("pids").lines().count() == 3);
    let children =
        fs::read_to_string(format!("/proc/{runner}/task/{runner}/children")).expect("its children");
    let keeper: i32 = children.trim().parse().expect("one keeper");
    // a service manager tells all processes of a service to end; a keeper stays until its command has
    let keeper = nix::unistd::Pid::from_raw(keeper);
    nix::sys::signal::kill(keeper, Signal::SIGTERM).expect("told to end");
    nix::sys::signal::kill(keeper, Signal::SIGKILL).expect("killed");
    stage.wait_log("what watched over the command was ended from outside");
    let pids = stage.note("pids");
    assert!(!pids.lines().any(is_alive), "{pids}");
}
