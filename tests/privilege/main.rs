//! The broker and the drop of privileges, with real processes.
//!
//! fork needs a process with a single thread, so each test runs its [`scenario`] in a fresh copy of this program.
//! A scenario that must be watched from outside prints a line and waits for the end of its standard input.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod attempts;
mod config;
mod containers;
mod journal;
mod packets;
mod runner;
mod sandbox;
mod scenario;
mod takeover;
mod transparent;
mod xdp;

use std::{
    env, fs,
    io::{BufRead, BufReader},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Child, ChildStdin, Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use convey::sys::{ids, task_status};
use landlock::{ABI, Access, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr};
use libtest_mimic::{Arguments, Failed, Trial};
use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};

/// Names the scenario that a copy of this program runs instead of tests.
const SCENARIO: &str = "CONVEY_TEST_SCENARIO";
/// Names a directory that the scenario may use.
const DIRECTORY: &str = "CONVEY_TEST_DIRECTORY";
/// Bits of the capabilities that the broker may keep (include/uapi/linux/capability.h).
const CAP_DAC_READ_SEARCH: u64 = 1 << 2;
/// CAP_NET_BIND_SERVICE, CAP_NET_ADMIN, CAP_NET_RAW.
const NET_CAPABILITIES: u64 = 1 << 10 | 1 << 12 | 1 << 13;
/// Those of them that iptables is lent.
const LENT_CAPABILITIES: u64 = 1 << 12 | 1 << 13;
/// How long anything may take before it counts as hung.
const PATIENCE: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    if let Ok(name) = env::var(SCENARIO) {
        if name == "journal" {
            journal::scenario();
        } else {
            scenario::run(&name);
        }
        return ExitCode::SUCCESS;
    }
    let root = ids::is_root();
    let privileged_ports =
        fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").is_ok_and(|start| {
            start
                .trim()
                .parse::<u32>()
                .is_ok_and(|start| start > u32::from(config::LOW_PORT))
        });
    if !root || !privileged_ports {
        eprintln!("SKIPPED (counted as ignored): tests that need root, or ports that only root may bind");
    }
    let iptables = Path::new("/usr/sbin/iptables").exists();
    let landlock = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V3))
        .is_ok();
    if !iptables || !landlock {
        eprintln!("SKIPPED (counted as ignored): what needs iptables, or landlock of Linux 6.2");
    }
    // a host may forbid them (sysctl user.max_user_namespaces)
    let namespaces = Command::new("unshare")
        .args(["--user", "--map-root-user", "true"])
        .status()
        .is_ok_and(|status| status.success());
    if !namespaces {
        eprintln!("SKIPPED (counted as ignored): what needs user namespaces");
    }
    let mut trials = vec![
        passing("an_ordinary_user_gets_high_ports_only", "ordinary_user")
            .with_ignored_flag(!root || !privileged_ports),
        passing("a_process_with_threads_refuses_to_fork_and_to_drop", "threads"),
        passing(
            "the_dropped_daemon_gets_a_port_below_1024_by_name",
            "privileged_port",
        )
        .with_ignored_flag(!root),
        passing(
            "the_packaged_unit_binds_low_ports_and_ends_with_nothing",
            "packaged_unit",
        )
        .with_ignored_flag(!root),
        passing(
            "an_address_that_the_configuration_does_not_name_is_refused",
            "unlisted",
        )
        .with_ignored_flag(!root),
        passing("a_second_load_balancer_on_the_same_address_is_told_so", "taken").with_ignored_flag(!root),
        passing(
            "a_file_that_only_root_reads_is_read_again_after_the_drop",
            "reload",
        )
        .with_ignored_flag(!root),
        passing(
            "a_configuration_that_became_a_fifo_is_reported_not_waited_for",
            "fifo",
        )
        .with_ignored_flag(!root),
        passing(
            "no_transparent_socket_is_made_unless_a_frontend_needs_it",
            "transparent_refused",
        )
        .with_ignored_flag(!root),
        passing(
            "the_dropped_daemon_speaks_for_clients_by_sockets_of_the_brokers",
            "transparent_supplied",
        )
        .with_ignored_flag(!root),
        passing(
            "a_mark_is_to_be_had_as_the_configuration_has_it_and_no_other",
            "marked",
        )
        .with_ignored_flag(!root),
        passing(
            "a_daemon_without_room_for_server_sockets_hears_so",
            "transparent_without_room",
        )
        .with_ignored_flag(!root),
        passing("a_malformed_message_ends_the_broker", "malformed").with_ignored_flag(!root),
        passing(
            "root_without_the_capability_to_switch_names_the_remedy",
            "no_capability_to_switch",
        )
        .with_ignored_flag(!root),
        passing(
            "what_there_is_not_to_give_up_needs_no_capability",
            "nothing_to_give_up",
        )
        .with_ignored_flag(!root),
        passing(
            "root_of_a_namespace_who_is_one_ordinary_user_outside_stays",
            "alone_in_a_namespace",
        )
        .with_ignored_flag(!root || !namespaces),
        passing(
            "services_that_are_a_lingering_socket_end_the_broker_at_once",
            "lingering_services",
        )
        .with_ignored_flag(!root),
        passing(
            "a_lingering_socket_beside_a_request_ends_the_broker_at_once",
            "lingering_beside",
        )
        .with_ignored_flag(!root),
        passing(
            "a_lingering_socket_beside_junk_ends_the_broker_at_once",
            "lingering_junk",
        )
        .with_ignored_flag(!root),
        Trial::test(
            "the_broker_ends_with_the_daemon_whoever_holds_its_channel",
            || Idle::of(&mut command("handed_on")?)?.kill(),
        )
        .with_ignored_flag(!root),
        passing("root_without_a_user_to_become_is_refused", "no_target").with_ignored_flag(!root),
        passing(
            "the_proof_fails_for_a_process_that_kept_its_privileges",
            "still_root",
        )
        .with_ignored_flag(!root),
        passing(
            "a_daemon_without_free_descriptors_keeps_its_broker",
            "descriptors",
        )
        .with_ignored_flag(!root),
        passing(
            "every_thread_of_the_daemon_has_nothing_also_later_ones",
            "threads_later",
        )
        .with_ignored_flag(!root),
        Trial::test(
            "the_broker_holds_four_capabilities_and_two_sockets",
            the_broker_holds_little,
        )
        .with_ignored_flag(!root),
        Trial::test(
            "the_runner_holds_no_capability_and_nothing_but_its_sockets",
            the_runner_holds_nothing,
        )
        .with_ignored_flag(!root),
        passing(
            "a_packet_socket_is_opened_only_where_a_frontend_needs_one",
            "interfaces",
        )
        .with_ignored_flag(!root),
        passing("rules_come_before_filters_and_failures_are_undone", "serving").with_ignored_flag(!root),
        passing(
            "only_services_of_the_configuration_or_in_effect_are_served",
            "aliens",
        )
        .with_ignored_flag(!root),
        passing("thousands_of_servers_are_served_and_too_many_refused", "many").with_ignored_flag(!root),
        passing("malformed_services_end_the_broker", "malformed_services").with_ignored_flag(!root),
        passing("iptables_works_for_the_broker_that_is_not_root", "iptables")
            .with_ignored_flag(!root || !iptables),
        passing("iptables_works_under_the_packaged_unit", "iptables_unit")
            .with_ignored_flag(!root || !iptables),
        passing(
            "the_runner_runs_what_the_file_names_and_nothing_else",
            "runner_named",
        )
        .with_ignored_flag(!root),
        passing("only_so_many_commands_run_at_once", "runner_many").with_ignored_flag(!root),
        passing("junk_ends_the_runner", "runner_junk").with_ignored_flag(!root),
        passing("a_command_line_ends_the_runner", "runner_line").with_ignored_flag(!root),
        passing("a_request_without_input_ends_the_runner", "runner_no_input").with_ignored_flag(!root),
        passing("a_request_without_number_ends_the_runner", "runner_number").with_ignored_flag(!root),
        passing("a_descriptor_too_many_ends_the_runner", "runner_descriptor").with_ignored_flag(!root),
        passing("what_is_not_listed_cannot_be_called", "every_call").with_ignored_flag(!root),
        passing("the_daemon_signals_and_limits_nobody_else", "others").with_ignored_flag(!root),
        passing("the_daemon_opens_ip_local_and_route_sockets_only", "sockets").with_ignored_flag(!root),
        passing("the_daemon_sets_no_filter_nor_packet_option", "options").with_ignored_flag(!root),
        passing("a_packet_thread_makes_no_sockets", "packet_thread").with_ignored_flag(!root),
        passing("the_daemon_reaches_its_own_files_only", "files").with_ignored_flag(!root || !landlock),
        Trial::test("a_panic_still_says_why", a_panic_still_says_why).with_ignored_flag(!root),
        Trial::test(
            "foreign_system_calls_end_the_daemon",
            foreign_calls_end_the_daemon,
        )
        .with_ignored_flag(!root || cfg!(not(target_arch = "x86_64"))),
        Trial::test(
            "rules_go_when_the_daemon_is_killed",
            rules_go_when_the_daemon_is_killed,
        )
        .with_ignored_flag(!root),
        Trial::test(
            "rules_stay_for_a_restart_by_systemd",
            rules_stay_for_a_restart_by_systemd,
        )
        .with_ignored_flag(!root),
        Trial::test(
            "the_broker_survives_signals_and_ends_with_the_daemon",
            the_broker_ends_with_the_daemon,
        )
        .with_ignored_flag(!root),
        Trial::test(
            "under_systemd_events_reach_the_journal_with_their_fields",
            journal::reaches_the_journal,
        )
        .with_ignored_flag(!root),
    ];
    trials.extend(xdp::trials(root));
    trials.extend(takeover::trials(root));
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// A test that is its scenario: passes if the scenario ends without a panic.
fn passing(name: &str, scenario: &'static str) -> Trial {
    Trial::test(name, move || {
        let dir = tempfile::tempdir()?;
        let output = command(scenario)?
            .env(DIRECTORY, dir.path())
            .stdin(Stdio::null())
            .output()?;
        if output.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(format!("{}: {text}", output.status).into())
    })
}

fn command(scenario: &str) -> Result<Command, Failed> {
    let mut command = Command::new(env::current_exe()?);
    command.env(SCENARIO, scenario);
    Ok(command)
}

/// The scenario `idle`: a dropped daemon with its broker, both waiting.
struct Idle {
    daemon: Child,
    stdin: Option<ChildStdin>,
    broker: u32,
}

impl Idle {
    fn start() -> Result<Self, Failed> {
        Self::of(&mut command("idle")?)
    }

    fn of(command: &mut Command) -> Result<Self, Failed> {
        let mut daemon = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        let stdout = daemon.stdout.take().ok_or("no standard output")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let stdin = daemon.stdin.take();
        let broker = line
            .trim()
            .parse()
            .map_err(|_| format!("the scenario said {line:?}"))?;
        Ok(Self {
            daemon,
            stdin,
            broker,
        })
    }
}

impl Idle {
    /// SIGKILL: the daemon has no moment to say anything. Waits for the end of both.
    fn kill(&mut self) -> Result<(), Failed> {
        self.daemon.kill()?;
        self.daemon.wait()?;
        // a zombie has ended; whoever adopted it has not reaped it yet
        self.wait_for_broker("end", |state| matches!(state, None | Some('Z')))
    }

    /// Waits for a state of the broker's process; there is none if there is no process.
    fn wait_for_broker(&self, what: &str, is_right: fn(Option<char>) -> bool) -> Result<(), Failed> {
        let start = Instant::now();
        loop {
            let stat = fs::read_to_string(format!("/proc/{}/stat", self.broker)).unwrap_or_default();
            let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
            if is_right(state) {
                return Ok(());
            }
            if start.elapsed() > PATIENCE {
                return Err(format!("the broker does not {what}: {stat}").into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

fn the_broker_holds_little() -> Result<(), Failed> {
    let idle = Idle::start()?;
    let proc = format!("/proc/{}", idle.broker);
    assert_eq!(
        fs::read_to_string(format!("{proc}/comm"))?.trim(),
        "convey-broker"
    );
    let tasks = task_status::read_process(idle.broker)?;
    assert_eq!(tasks.len(), 1);
    for task in tasks {
        let kept = NET_CAPABILITIES | CAP_DAC_READ_SEARCH;
        assert_eq!(
            (task.permitted, task.effective, task.bounding),
            (kept, kept, 0),
            "{task:?}"
        );
        assert_eq!(
            (task.inheritable, task.ambient),
            (LENT_CAPABILITIES, 0),
            "{task:?}"
        );
        assert_eq!((task.uids, task.gids), ([config::NOBODY; 4], [config::NOBODY; 4]));
        assert!(task.groups.is_empty() && task.no_new_privs, "{task:?}");
    }
    // the daemon's, by which the broker sees its end, is a pidfd; one socket is the daemon's, one the runner's
    assert_eq!(open_descriptors(idle.broker)?, ["pidfd", "socket", "socket"]);
    Ok(())
}

/// The daemon's child of that name.
fn runner_of(idle: &Idle) -> Result<u32, Failed> {
    let daemon = idle.daemon.id();
    let children = fs::read_to_string(format!("/proc/{daemon}/task/{daemon}/children"))?;
    let is_runner = |pid: &&str| {
        let comm = fs::read_to_string(format!("/proc/{pid}/comm"));
        comm.is_ok_and(|comm| comm.trim() == "convey-runner")
    };
    let runners: Vec<&str> = children.split_whitespace().filter(is_runner).collect();
    let [runner] = runners[..] else {
        return Err(format!("one runner, not {runners:?} of {children}").into());
    };
    Ok(runner.parse()?)
}

fn the_runner_holds_nothing() -> Result<(), Failed> {
    let idle = Idle::start()?;
    let runner = runner_of(&idle)?;
    let tasks = task_status::read_process(runner)?;
    assert_eq!(tasks.len(), 1);
    for task in tasks {
        assert!(!task.has_capabilities() && task.bounding == 0, "{task:?}");
        assert_eq!((task.uids, task.gids), ([config::NOBODY; 4], [config::NOBODY; 4]));
        assert!(
            task.groups.is_empty() && task.no_new_privs && task.seccomp == 2,
            "{task:?}"
        );
    }
    // the daemon's socket and the broker's; the pipe by whose end keepers see the runner's
    assert_eq!(open_descriptors(runner)?, ["pipe", "pipe", "socket", "socket"]);
    Ok(())
}

/// The kinds of what a process has open besides /dev/null, sorted.
fn open_descriptors(process: u32) -> Result<Vec<String>, Failed> {
    let mut kinds = Vec::new();
    for entry in fs::read_dir(format!("/proc/{process}/fd"))? {
        let link = fs::read_link(entry?.path())?.to_string_lossy().into_owned();
        match link.split(':').next() {
            _ if link == "/dev/null" => {}
            _ if link.contains("pidfd") => kinds.push("pidfd".to_owned()),
            Some(kind) => kinds.push(kind.to_owned()),
            None => {}
        }
    }
    kinds.sort();
    Ok(kinds)
}

fn the_broker_ends_with_the_daemon() -> Result<(), Failed> {
    let mut idle = Idle::start()?;
    let comm = format!("/proc/{}/comm", idle.broker);
    let broker = Pid::from_raw(i32::try_from(idle.broker)?);
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        signal::kill(broker, signal)?;
    }
    // one that nobody can ignore comes after them: it stops only if they have not ended it
    signal::kill(broker, Signal::SIGSTOP)?;
    idle.wait_for_broker("survive signals", |state| state == Some('T'))?;
    signal::kill(broker, Signal::SIGCONT)?;
    assert_eq!(fs::read_to_string(&comm)?.trim(), "convey-broker");
    idle.kill()
}

/// What the executor was asked to do, before and after SIGKILL to the daemon.
fn log_of_a_killed_daemon(environment: &[(&str, &str)]) -> Result<String, Failed> {
    let dir = tempfile::tempdir()?;
    let mut command = command("serving_idle")?;
    for name in ["INVOCATION_ID", "NOTIFY_SOCKET", "SYSTEMD_EXEC_PID"] {
        command.env_remove(name);
    }
    command
        .env(DIRECTORY, dir.path())
        .envs(environment.iter().copied());
    let mut idle = Idle::of(&mut command)?;
    idle.kill()?;
    Ok(fs::read_to_string(dir.path().join("log"))?)
}

fn rules_go_when_the_daemon_is_killed() -> Result<(), Failed> {
    for environment in [&[][..], &[("INVOCATION_ID", "of the shell")]] {
        let log = log_of_a_killed_daemon(environment)?;
        assert_eq!(log, "apply 10.9.0.1:80 10.9.3.1:53\nclear\n", "{environment:?}");
    }
    Ok(())
}

fn rules_stay_for_a_restart_by_systemd() -> Result<(), Failed> {
    let unit = [("INVOCATION_ID", "x"), ("NOTIFY_SOCKET", "/nonexistent")];
    assert_eq!(log_of_a_killed_daemon(&unit)?, "apply 10.9.0.1:80 10.9.3.1:53\n");
    Ok(())
}

fn a_panic_still_says_why() -> Result<(), Failed> {
    for backtrace in ["0", "1"] {
        let output = command("panics")?.env("RUST_BACKTRACE", backtrace).output()?;
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(101), "{text}");
        assert!(text.contains("the handler's last words"), "{text}");
    }
    Ok(())
}

fn foreign_calls_end_the_daemon() -> Result<(), Failed> {
    for scenario in ["x32", "i386"] {
        let output = command(scenario)?.output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        // a kernel without the 32-bit table ends the process itself
        let signals = [Some(libc::SIGSYS), Some(libc::SIGSEGV)];
        assert!(
            signals.contains(&output.status.signal()),
            "{scenario}: {} {text}",
            output.status
        );
    }
    Ok(())
}
