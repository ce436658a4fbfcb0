//! The command line as operators and scripts see it: the real binary, its output and its exit status.

mod daemon;
mod first;
#[cfg(feature = "import")]
mod import;
#[cfg(feature = "import")]
mod imported;
mod live;
mod operator;
mod terminal;

use std::{
    fs,
    io::Read,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use daemon::FakeDaemon;

/// A good configuration.
const GOOD: &str = "[frontends.http]\nlisten_addr = '127.0.0.1:8080'\nbackend = 'web'\n\
                    [backends.web.servers.a]\naddr = '127.0.0.1:9001'\n";

/// One with a mistake in line 2.
const BAD: &str = "[frontends.http]\nlisen_addr = '127.0.0.1:8080'\nbackend = 'web'\n\
                   [backends.web.servers.a]\naddr = '127.0.0.1:9001'\n";

fn convey() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_convey"));
    command
        .stdin(Stdio::null())
        .env_remove("NO_COLOR")
        .env_remove("CLICOLOR_FORCE");
    command
}

/// Convey run by a user who is not root, who may have no way to the build directory.
fn somebody_else(directory: &tempfile::TempDir) -> Command {
    if !nix::unistd::geteuid().is_root() {
        return convey();
    }
    let copy = directory.path().join("convey-copy");
    // one that runs cannot be written, and none runs that is being written: another test's child would hold it open so
    if !copy.exists() {
        let copied = Command::new("cp")
            .arg(env!("CARGO_BIN_EXE_convey"))
            .arg(&copy)
            .status();
        assert!(copied.expect("cp").success());
    }
    let open = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
    fs::set_permissions(directory.path(), open).expect("chmod");
    let mut command = Command::new(copy);
    command.uid(65534).gid(65534);
    command
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// What a command said and how it ended.
#[derive(Debug)]
struct Ended {
    status: Option<i32>,
    out: String,
    err: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        Self {
            status: output.status.code(),
            out: text(output.stdout),
            err: text(output.stderr),
        }
    }
}

fn run(arguments: &[&str]) -> Ended {
    convey().args(arguments).output().expect("convey runs").into()
}

fn file(directory: &tempfile::TempDir, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = directory.path().join(name);
    fs::write(&path, content).expect("write");
    path
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[test]
fn version_and_help_go_to_stdout_with_status_0() {
    for flag in ["-v", "--version"] {
        let ended = run(&[flag]);
        assert_eq!(
            (ended.status, ended.out.as_str()),
            (Some(0), "convey 1.0.0-dev\n")
        );
    }
    for arguments in [&["-h"][..], &["--help"], &["server", "drain", "-h"]] {
        let ended = run(arguments);
        assert_eq!(ended.status, Some(0), "{arguments:?}");
        assert!(ended.out.contains("Usage: convey"), "{arguments:?}: {ended:?}");
    }
}

#[test]
fn a_wrong_command_line_is_64_and_told_on_stderr() {
    for arguments in [
        &["--nonsense"][..],
        &["-p", "-d"],
        &["frobnicate"],
        &["-p", "status"],
        &["server"],
        &["server", "drain"],
        &["server", "weight", "web/a", "heavy", "--socket", "/nowhere"],
        &["connections", "--limit", "0"],
        &["explain", "tcp", "192.0.2.1:40000"],
        &["explain", "sctp", "192.0.2.1:40000", "10.0.0.1:80"],
        &["explain", "tcp", "192.0.2.1", "10.0.0.1:80"],
        &["explain", "tcp", "192.0.2.1:0", "10.0.0.1:80"],
        &["explain", "tcp", "[::1]:1", "10.0.0.1:80", "--socket", "/nowhere"],
        &["backend-script", "web"],
        &["-p", "explain", "tcp", "192.0.2.1:1", "10.0.0.1:80"],
        &["check", "--format", "xml"],
    ] {
        let ended = run(arguments);
        assert_eq!(ended.status, Some(64), "{arguments:?}: {ended:?}");
        assert!(
            ended.out.is_empty() && !ended.err.is_empty(),
            "{arguments:?}: {ended:?}"
        );
    }
}

#[test]
fn a_good_configuration_is_0_and_a_bad_one_78_with_its_place() {
    let directory = directory();
    let good = file(&directory, "good.toml", GOOD);
    for arguments in [
        &["check", text(&good)][..],
        &["check", "-c", text(&good)],
        &["--config", text(&good), "check"],
    ] {
        let ended = run(arguments);
        assert_eq!(ended.status, Some(0), "{arguments:?}: {ended:?}");
        assert_eq!(ended.out, format!("{}: OK\n", good.display()));
    }
    let bad = file(&directory, "bad.toml", BAD);
    let ended = run(&["check", text(&bad)]);
    assert_eq!((ended.status, ended.out.as_str()), (Some(78), ""));
    assert!(
        ended.err.contains(&format!("{}:2:1", bad.display())),
        "{}",
        ended.err
    );
    assert!(ended.err.contains("listen_addr"), "{}", ended.err);
    assert!(!ended.err.contains('\x1b'), "no colour in a pipe: {}", ended.err);
}

#[test]
fn the_default_mode_given_on_the_command_line_counts_in_a_check() {
    let directory = directory();
    let good = file(&directory, "good.toml", GOOD);
    let plain = run(&["check", "--print", text(&good)]);
    let dsr = run(&["check", "--print", "-d", text(&good)]);
    assert_eq!(plain.status, Some(0));
    assert_ne!(
        (dsr.status, &dsr.out),
        (Some(0), &plain.out),
        "-d changed nothing"
    );
    let before = run(&["-d", "check", "--print", text(&good)]);
    assert_eq!((before.status, before.out), (dsr.status, dsr.out));
}

#[test]
fn findings_as_json_are_one_object_for_programs() {
    let directory = directory();
    let bad = file(&directory, "bad.toml", BAD);
    let ended = run(&["check", "--format", "json", text(&bad)]);
    assert_eq!(ended.status, Some(78), "{ended:?}");
    let report: serde_json::Value = serde_json::from_str(&ended.out).expect("JSON");
    assert_eq!(report["valid"], false);
    let findings = report["findings"].as_array().expect("a list");
    assert!(
        findings.iter().any(|finding| finding["line"] == 2),
        "{findings:?}"
    );
    let good = file(&directory, "good.toml", GOOD);
    let ended = run(&["check", "--format=json", text(&good)]);
    let report: serde_json::Value = serde_json::from_str(&ended.out).expect("JSON");
    assert_eq!((ended.status, &report["valid"]), (Some(0), &true.into()));
}

#[test]
fn what_is_printed_in_full_is_a_configuration_again() {
    let directory = directory();
    let good = file(&directory, "good.toml", GOOD);
    let printed = run(&["check", "--print", text(&good)]);
    assert_eq!(printed.status, Some(0), "{printed:?}");
    let again = file(&directory, "again.toml", &printed.out);
    let second = run(&["check", "--print", text(&again)]);
    assert_eq!((second.status, second.out), (Some(0), printed.out));
}

#[test]
fn the_schema_is_json() {
    let ended = run(&["check", "--schema"]);
    assert_eq!(ended.status, Some(0));
    let schema: serde_json::Value = serde_json::from_str(&ended.out).expect("JSON");
    assert!(schema["properties"]["frontends"].is_object(), "{schema}");
}

#[test]
fn what_cannot_be_read_as_a_configuration_is_said_at_once() {
    let directory = directory();
    let fifo = directory.path().join("fifo");
    let made = Command::new("mkfifo").arg(&fifo).status().expect("mkfifo runs");
    assert!(made.success());
    let huge = directory.path().join("huge.toml");
    fs::File::create(&huge)
        .and_then(|file| file.set_len(100 << 20))
        .expect("a sparse file of 100 MB");
    let missing = directory.path().join("missing.toml");
    for (path, words) in [
        (fifo.as_path(), "FIFO"),
        (huge.as_path(), "larger than"),
        (missing.as_path(), "No such file"),
        (directory.path(), "directory"),
    ] {
        // a FIFO that nobody writes to would be waited for for ever
        let ended = run(&["check", text(path)]);
        assert_eq!(ended.status, Some(66), "{ended:?}");
        assert!(
            ended.err.starts_with("convey: ") && ended.err.contains(words),
            "{ended:?}"
        );
        assert!(ended.err.contains(text(path)), "{ended:?}");
    }
    let junk = file(&directory, "junk.toml", [0, 159, 146, 150, 255, 10, 0]);
    assert_eq!(run(&["check", text(&junk)]).status, Some(78), "binary junk");
    let empty = file(&directory, "empty.toml", " \n");
    assert_eq!(run(&["check", text(&empty)]).status, Some(78), "white space");
}

#[test]
fn without_a_running_convey_it_is_69_with_advice() {
    let directory = directory();
    let socket = directory.path().join("admin.sock");
    for arguments in [
        &["status"][..],
        &["status", "--watch"],
        &["reload"],
        &["server", "drain", "web/a"],
        &["connections"],
        &["explain", "tcp", "192.0.2.1:40000", "10.0.0.1:80"],
    ] {
        let ended: Ended = convey()
            .args(arguments)
            .args(["--socket", text(&socket)])
            .output()
            .expect("convey runs")
            .into();
        assert_eq!(ended.status, Some(69), "{arguments:?}: {ended:?}");
        assert!(ended.err.contains("no running convey found at "), "{ended:?}");
        assert!(ended.err.contains(text(&socket)), "{ended:?}");
    }
}

#[test]
fn without_permission_it_is_77_with_advice() {
    let directory = directory();
    let daemon = FakeDaemon::start();
    let mut command = somebody_else(&directory);
    daemon.forbid();
    let ended: Ended = command
        .args(["status", "--socket", daemon.socket()])
        .output()
        .expect("convey runs")
        .into();
    assert_eq!(ended.status, Some(77), "{ended:?}");
    assert!(ended.err.contains("use sudo, or join the group"), "{ended:?}");
}

#[test]
fn the_socket_is_the_configurations_even_if_that_has_errors() {
    let directory = directory();
    let daemon = FakeDaemon::start();
    let content = format!("[admin]\nsocket = '{}'\n[frontends.http\n", daemon.socket());
    let config = file(&directory, "broken.toml", content);
    let ended = run(&["-c", text(&config), "status", "--json"]);
    assert_eq!(ended.status, Some(0), "{ended:?}");
    let status: serde_json::Value = serde_json::from_str(&ended.out).expect("JSON");
    assert_eq!(status["pid"], 4242);
}

#[test]
fn status_is_a_picture_without_colour_in_a_pipe() {
    let daemon = FakeDaemon::start();
    let ended = run(&["status", "--socket", daemon.socket()]);
    assert_eq!(ended.status, Some(0), "{ended:?}");
    assert!(
        ended.out.starts_with("convey 1.0.0-dev  pid 4242, running"),
        "{}",
        ended.out
    );
    assert!(ended.out.contains("No frontend is configured"), "{}", ended.out);
    assert!(!ended.out.contains('\x1b'), "{}", ended.out);
}

#[test]
fn watch_goes_on_until_it_is_interrupted() {
    let daemon = FakeDaemon::start();
    let mut child = convey()
        .args(["status", "--watch=0.1", "--json", "--socket", daemon.socket()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("convey runs");
    daemon.wait_for_requests(3);
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("a process id"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("kill");
    assert_eq!(child.wait().expect("wait").code(), Some(0));
    let mut out = String::new();
    let mut pipe = child.stdout.take().expect("a pipe");
    pipe.read_to_string(&mut out).expect("read");
    assert!(out.lines().count() >= 2, "one object a line: {out}");
    for line in out.lines() {
        serde_json::from_str::<serde_json::Value>(line).expect("JSON");
    }
}

#[test]
fn a_reload_prints_what_changed_or_why_nothing_did() {
    let daemon = FakeDaemon::start();
    let ended = run(&["reload", "--socket", daemon.socket()]);
    assert_eq!((ended.status, ended.err.as_str()), (Some(0), ""), "{ended:?}");
    assert_eq!(ended.out, "reloaded:\n  backend web: server a: weight 1 -> 3\n");
    daemon.break_config();
    let ended = run(&["reload", "--socket", daemon.socket()]);
    assert_eq!((ended.status, ended.out.as_str()), (Some(78), ""), "{ended:?}");
    assert!(
        ended
            .err
            .contains("nothing was changed\nconvey.toml:3:1: unknown key"),
        "{ended:?}"
    );
}

#[test]
fn quiet_says_nothing_and_a_frontend_that_does_not_exist_is_an_error() {
    let daemon = FakeDaemon::start();
    let quiet = run(&["status", "--quiet", "--socket", daemon.socket()]);
    assert_eq!(
        (quiet.status, quiet.out.as_str(), quiet.err.as_str()),
        (Some(0), "", "")
    );
    let unknown = run(&[
        "status",
        "--quiet",
        "--frontend",
        "web",
        "--socket",
        daemon.socket(),
    ]);
    assert_eq!(
        (unknown.status, unknown.out.as_str()),
        (Some(64), ""),
        "{unknown:?}"
    );
    assert_eq!(unknown.err, "convey: no frontend `web`: there are no frontends\n");
    let loud = run(&["status", "--frontend", "web", "--socket", daemon.socket()]);
    assert_eq!(loud.status, Some(64), "{loud:?}");
}

#[test]
fn a_daemon_that_hangs_is_given_up() {
    let daemon = FakeDaemon::start();
    daemon.hang();
    // it hangs until the test has ended
    let ended = run(&["status", "--socket", daemon.socket()]);
    assert_eq!(ended.status, Some(69), "{ended:?}");
    assert!(ended.err.contains("did not answer within 5 s"), "{ended:?}");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    for arguments in [&["completions", "zsh"][..], &["check", "--schema"], &["--help"]] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let ended: Ended = convey()
            .args(arguments)
            .stdout(writer)
            .stderr(Stdio::piped())
            .spawn()
            .and_then(std::process::Child::wait_with_output)
            .expect("convey runs")
            .into();
        assert_eq!((ended.status, ended.err.as_str()), (Some(0), ""), "{arguments:?}");
    }
}

#[test]
fn every_shell_gets_a_completion_script_without_hidden_commands() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ended = run(&["completions", shell]);
        assert_eq!(ended.status, Some(0), "{shell}");
        assert!(ended.out.contains("maintenance"), "{shell}");
        assert!(!ended.out.contains("generate-man"), "{shell}");
    }
    let script = run(&["completions", "bash"]).out;
    let directory = directory();
    let path = file(&directory, "convey.bash", script);
    let checked = Command::new("bash")
        .arg("-n")
        .arg(&path)
        .status()
        .expect("bash runs");
    assert!(checked.success());
}

#[test]
fn man_pages_are_written_where_asked() {
    let directory = directory();
    let ended = run(&["generate-man", text(directory.path())]);
    assert_eq!(ended.status, Some(0), "{ended:?}");
    let page = fs::read_to_string(directory.path().join("convey.8")).expect("convey(8)");
    for section in ["EXIT STATUS", "FILES", "SIGNALS", "SYNOPSIS"] {
        assert!(page.contains(section), "{section}");
    }
    assert!(directory.path().join("convey-server-drain.8").exists());
    assert_eq!(run(&["generate-man", "/nonexistent"]).status, Some(74));
}

#[test]
fn the_configuration_of_a_backend_script_must_be_good() {
    let directory = directory();
    let bad = file(&directory, "bad.toml", BAD);
    let ended = run(&["backend-script", "http", "a", "-c", text(&bad)]);
    assert_eq!(ended.status, Some(78), "{ended:?}");
    assert!(
        ended.out.is_empty() && ended.err.contains("convey check"),
        "{ended:?}"
    );
    let missing = run(&["backend-script", "http", "a", "-c", "/nowhere/c.toml"]);
    assert_eq!(missing.status, Some(66), "{missing:?}");
}
