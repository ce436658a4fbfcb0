//! The first ten minutes: what somebody types who has not read the manual.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
};

use super::{BAD, Ended, GOOD, convey, daemon::FakeDaemon, directory, file, run, text};

/// Runs it in a directory, with this on standard input.
fn run_in(directory: &tempfile::TempDir, arguments: &[&str], input: &str) -> Ended {
    let mut child = convey()
        .args(arguments)
        .current_dir(directory.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("convey runs");
    let mut stdin = child.stdin.take().expect("a pipe");
    // it may have ended without reading
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    child.wait_with_output().expect("it ends").into()
}

#[test]
fn six_lines_of_what_init_writes_are_a_load_balancer_once_uncommented() {
    let directory = directory();
    let ended = run_in(&directory, &["init"], "");
    assert_eq!((ended.status, ended.err.as_str()), (Some(0), ""), "{ended:?}");
    assert!(ended.out.contains("convey check config.toml"), "{ended:?}");
    let starter = fs::read_to_string(directory.path().join("config.toml")).expect("the file");
    assert_eq!(run(&["init", "-"]).out, starter);
    // as it is it is valid and idle
    assert_eq!(run_in(&directory, &["check"], "").out, "config.toml: OK\n");

    let is_setting = |line: &&str| line.starts_with('#') && !line.starts_with("# ") && *line != "#";
    let lines: Vec<&str> = (starter.lines().skip_while(|line| !is_setting(line)))
        .take_while(is_setting)
        .collect();
    assert_eq!(lines.len(), 6, "{lines:?}");
    let block = lines.join("\n");
    let uncommented: Vec<&str> = lines.iter().map(|line| &line[1..]).collect();
    let balancer = starter.replacen(&block, &uncommented.join("\n"), 1);
    let checked = run_in(&directory, &["check", "-"], &balancer);
    assert_eq!(
        (checked.status, checked.out.as_str(), checked.err.as_str()),
        (Some(0), "standard input: OK\n", "")
    );
    let printed = run_in(&directory, &["check", "--print", "-"], &balancer).out;
    assert!(
        printed.contains("listen_addr") && printed.contains("192.0.2.12:8080"),
        "{printed}"
    );
}

#[test]
fn init_overwrites_nothing() {
    let directory = directory();
    let path = file(&directory, "mine.toml", GOOD);
    let ended = run(&["init", text(&path)]);
    assert_eq!((ended.status, ended.out.as_str()), (Some(73), ""), "{ended:?}");
    assert!(ended.err.contains("exists already"), "{ended:?}");
    assert_eq!(fs::read_to_string(&path).expect("the file"), GOOD);
    let nowhere = run(&["init", "/nonexistent/c.toml"]);
    assert_eq!(nowhere.status, Some(73), "{nowhere:?}");
    assert!(
        nowhere.err.contains("cannot create /nonexistent/c.toml"),
        "{nowhere:?}"
    );
}

#[test]
fn a_configuration_may_come_by_a_pipe() {
    let directory = directory();
    for arguments in [
        &["check", "-"][..],
        &["check", "-c", "-"],
        &["-c", "-", "check"],
        &["check", "/dev/stdin"],
    ] {
        let good = run_in(&directory, arguments, GOOD);
        assert_eq!(good.status, Some(0), "{arguments:?}: {good:?}");
        let bad = run_in(&directory, arguments, BAD);
        assert_eq!(bad.status, Some(78), "{arguments:?}: {bad:?}");
        assert!(bad.err.contains(":2:1"), "{arguments:?}: {bad:?}");
    }
    let script = format!(
        "exec '{}' check <(printf '%s' \"$0\")",
        env!("CARGO_BIN_EXE_convey")
    );
    let substituted: Ended = Command::new("bash")
        .args(["-c", &script, GOOD])
        .output()
        .expect("bash runs")
        .into();
    assert_eq!(substituted.status, Some(0), "{substituted:?}");
    let endless = Command::new("bash")
        .args(["-c", &format!("yes | '{}' check -", env!("CARGO_BIN_EXE_convey"))])
        .output()
        .expect("bash runs");
    assert_eq!(endless.status.code(), Some(78), "{endless:?}");
    // it would be read again at each change
    let ended = run_in(&directory, &["-c", "-"], GOOD);
    assert_eq!(ended.status, Some(64), "{ended:?}");
    assert!(ended.err.contains("name a file"), "{ended:?}");
}

#[test]
fn help_is_a_command_too() {
    let ended = run(&["help"]);
    assert_eq!(ended.status, Some(0), "{ended:?}");
    assert_eq!(ended.out, run(&["--help"]).out);
    let ended = run(&["help", "server", "drain"]);
    assert_eq!(ended.status, Some(0), "{ended:?}");
    assert!(ended.out.contains("convey server drain"), "{ended:?}");
    assert_eq!(run(&["help", "frobnicate"]).status, Some(64));
}

#[test]
fn without_any_configuration_it_says_what_to_do() {
    if fs::exists("/etc/convey/convey.toml").unwrap_or(true) {
        // where convey is installed there is one
        return;
    }
    let directory = directory();
    let ended = run_in(&directory, &[], "");
    assert_eq!((ended.status, ended.out.as_str()), (Some(66), ""), "{ended:?}");
    for part in [
        "config.toml",
        "/etc/convey/convey.toml",
        "convey init",
        "convey -c FILE",
    ] {
        assert!(ended.err.contains(part), "{part}: {ended:?}");
    }
}

#[test]
fn words_of_other_tools_work_and_teach_ours() {
    let directory = directory();
    let good = file(&directory, "good.toml", GOOD);
    for word in ["test", "validate"] {
        let ended = run(&[word, text(&good)]);
        assert_eq!(ended.status, Some(0), "{ended:?}");
        assert_eq!(ended.out, format!("{}: OK\n", good.display()));
        assert_eq!(ended.err, format!("tip: `convey {word}` is `convey check`\n"));
    }
    let daemon = FakeDaemon::start();
    for word in ["list", "show"] {
        let ended = run(&[word, "--socket", daemon.socket()]);
        assert!(ended.out.starts_with("convey 1.0.0-dev  pid 4242"), "{ended:?}");
        assert_eq!(ended.err, format!("tip: `convey {word}` is `convey status`\n"));
    }
    run(&["disable", "server", "web/a", "--socket", daemon.socket()]);
    assert_eq!(
        daemon.last_request(),
        "POST /v1/backends/web/servers/a {\"action\":\"maintenance\"}"
    );
    run(&["enable", "web/a", "--socket", daemon.socket()]);
    assert_eq!(
        daemon.last_request(),
        "POST /v1/backends/web/servers/a {\"action\":\"ready\"}"
    );
    for word in ["run", "start"] {
        let ended = run(&[word, "-c", "/nonexistent.toml"]);
        assert_eq!(ended.status, Some(66), "{ended:?}");
        assert!(ended.err.contains("is plain `convey`"), "{ended:?}");
    }
    let help = run(&["help"]).out;
    assert!(!help.contains("validate"), "not offered: {help}");
}

#[test]
fn a_user_finds_the_own_convey_in_the_session() {
    let session = directory();
    fs::create_dir(session.path().join("convey")).expect("a directory");
    let daemon = FakeDaemon::start_at(&session.path().join("convey/admin.sock"));
    let empty = file(&session, "c.toml", "[global]\n");
    let ended: Ended = super::somebody_else(&session)
        .env("XDG_RUNTIME_DIR", session.path())
        .env_remove("RUNTIME_DIRECTORY")
        .args(["status", "--json", "-c", text(&empty)])
        .output()
        .expect("convey runs")
        .into();
    assert_eq!(ended.status, Some(0), "{ended:?}");
    assert!(ended.out.contains("\"pid\": 4242"), "{ended:?}");
    drop(daemon);
}

#[test]
fn without_root_daemon_and_commands_meet_in_the_session() {
    let session = directory();
    let state = session.path().join("state");
    let config = file(
        &session,
        "c.toml",
        format!("[global]\nstate_dir = '{}'\n", state.display()),
    );
    let in_session = |arguments: &[&str]| {
        let mut command = super::somebody_else(&session);
        command
            .env("XDG_RUNTIME_DIR", session.path())
            .env_remove("RUNTIME_DIRECTORY")
            .args(arguments)
            .args(["-c", text(&config)]);
        command
    };
    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::chown(session.path(), Some(65534), Some(65534)).expect("chown");
    }
    let mut daemon = in_session(&[])
        .stderr(Stdio::piped())
        .spawn()
        .expect("convey runs");
    let log = BufReader::new(daemon.stderr.take().expect("a pipe"));
    let is_ready = log
        .lines()
        .map_while(Result::ok)
        .any(|line| line.contains("ready: "));
    let shown: Ended = in_session(&["status", "--json"])
        .output()
        .expect("convey runs")
        .into();
    daemon.kill().expect("kill");
    let pid = daemon.id();
    daemon.wait().expect("wait");
    assert!(is_ready, "it ended before");
    assert_eq!(shown.status, Some(0), "{shown:?}");
    assert!(
        shown.out.contains(&format!("\"pid\": {pid},")),
        "{pid}: {shown:?}"
    );
}

/// What bash offers for the last of these words.
fn offered(words: &[&str]) -> Vec<String> {
    let directory = directory();
    let script = file(&directory, "convey.bash", run(&["completions", "bash"]).out);
    let config = file(
        &directory,
        "c.toml",
        GOOD.replace("servers.a]", "servers.s10]") + "[backends.web.servers.s2]\naddr = '127.0.0.1:9002'\n",
    );
    let program = format!(
        "source '{}'; COMP_WORDS=(\"$@\"); COMP_CWORD=$(( $# - 1 )); \
         _convey_with_names \"$1\" \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD-1]}}\"; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        script.display()
    );
    let convey = env!("CARGO_BIN_EXE_convey");
    let socket = directory.path().join("nobody.sock");
    let output = Command::new("bash")
        .args(["-c", &program, "bash", convey])
        .args(["--socket", text(&socket), "-c", text(&config)])
        .args(words)
        .output()
        .expect("bash runs");
    let ended: Ended = output.into();
    assert_eq!(ended.err, "");
    ended.out.lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_the_names_of_frontends_backends_and_servers() {
    for (words, expected) in [
        (&["server", "drain", ""][..], &["web/s2", "web/s10"][..]),
        (&["server", "drain", "web/s2", "web/s1"], &["web/s10"]),
        (&["status", "h"], &["http"]),
        (&["connections", "--backend", ""], &["web"]),
        (&["connections", "--server", "s1"], &["s10"]),
        (&["backend-script", ""], &["http"]),
        (&["backend-script", "http", "s2"], &["s2"]),
    ] {
        assert_eq!(offered(words), expected, "{words:?}");
    }
    // the rest is as the grammar has it
    let commands = offered(&["st"]);
    assert!(commands.contains(&"status".to_owned()), "{commands:?}");
    let options = offered(&["status", "--"]);
    assert!(options.contains(&"--watch".to_owned()), "{options:?}");
}

#[test]
fn names_are_the_running_conveys_where_one_runs() {
    let daemon = FakeDaemon::start();
    let ended = run(&["names", "pairs", "--socket", daemon.socket()]);
    assert_eq!(
        (ended.status, ended.out.as_str()),
        (Some(0), ""),
        "it has none: {ended:?}"
    );
    assert_eq!(daemon.last_request(), "GET /v1/status");
    // whoever presses a key wants no error
    let nothing = run(&["names", "any", "-c", "/nonexistent.toml"]);
    assert_eq!(
        (nothing.status, nothing.err.as_str()),
        (Some(0), ""),
        "{nothing:?}"
    );
}

#[cfg(not(feature = "import"))]
#[test]
fn a_build_without_import_says_so() {
    let ended = run(&["import", "haproxy", "-"]);
    assert_eq!(ended.status, Some(69), "{ended:?}");
    assert!(ended.err.contains("compiled without the feature"), "{ended:?}");
}
