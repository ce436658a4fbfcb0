//! Servers that come by themselves, named by a file or a command.

use std::{
    collections::BTreeSet, fs, io::Write as _, net::TcpStream, os::unix::fs::PermissionsExt as _,
    path::PathBuf, time::Instant,
};

use convey::base::ServerAddr;
use nix::sys::signal::Signal;

use crate::{
    Test,
    lab::{Convey, Host, Lab, PATIENCE, servers::TcpServer, wait_until},
    site::{FAST_CHECK, frontend, read_line},
    tests,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    servers_come_and_go_with_their_file_and_connections_of_one_that_went_live_on,
    an_answer_that_cannot_be_believed_changes_nothing_and_is_said_once,
    the_last_good_answer_survives_a_restart_that_finds_no_file,
    a_reload_changes_the_source_its_limits_and_the_servers_at_once,
    check_says_what_the_file_would_give,
    a_command_is_asked_again_and_again_and_its_servers_come_and_go,
    a_command_that_fails_hangs_or_babbles_takes_no_server_away,
    a_reload_brings_the_servers_of_a_new_command,
];

/// Servers that say their names, a file that names some of them, and Convey.
pub struct Stage {
    /// Convey.
    pub convey: Convey,
    client: Host,
    /// Where it runs.
    pub lb: Host,
    /// Each greets with its name: a, b, c, d.
    pub servers: Vec<TcpServer>,
    file: PathBuf,
    /// Last, so that it ends last.
    pub lab: Lab,
}

impl Stage {
    /// With so many servers, of which the file names the first `named`.
    pub fn new(name: &str, servers: usize, named: usize) -> Self {
        let lab = Lab::new(name);
        let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("server"));
        let servers: Vec<_> = (["a", "b", "c", "d"].into_iter().zip(10..))
            .take(servers)
            .map(|(name, port)| TcpServer::named(&host, port, name))
            .collect();
        let file = lb.path("web.servers");
        let of: Vec<usize> = (0..named).collect();
        save(&file, &lines(&servers, &of));
        let config = config(&lb, &file, "");
        let mut convey = Convey::launch_with(&lb, &config, &["env", Convey::FD_STORE]);
        convey.wait_ready();
        Self {
            convey,
            client,
            lb,
            servers,
            file,
            lab,
        }
    }

    fn config(&self, settings: &str) -> String {
        config(&self.lb, &self.file, settings)
    }

    /// Has the file name these servers.
    fn name(&self, of: &[usize]) {
        save(&self.file, &lines(&self.servers, of));
    }

    /// Waits until exactly these servers are discovered and up.
    #[track_caller]
    pub fn wait_for(&self, of: &[usize]) {
        let expected: BTreeSet<_> = of.iter().map(|index| self.servers[*index].addr()).collect();
        self.convey
            .wait_status(&format!("{expected:?} are up"), |status| {
                let servers = status.backends["web"].servers.values();
                let up = servers.filter(|server| server.discovered && server.eligible);
                up.filter_map(|server| server.addr.on_network())
                    .map(|addr| addr.0)
                    .collect::<BTreeSet<_>>()
                    == expected
            });
    }

    /// What a new connection is greeted with; nothing if it is refused.
    pub fn greeted(&self) -> String {
        let stream = self.client.try_connect(self.lb.addr(9));
        let greeting = stream.and_then(|mut stream| read_line(&mut stream));
        greeting.unwrap_or_default()
    }

    fn connect(&self) -> (TcpStream, String) {
        let mut stream = self.client.connect(self.lb.addr(9));
        let name = read_line(&mut stream).expect("the greeting");
        (stream, name)
    }

    /// The servers that twelve connections come to.
    pub fn reached(&self) -> String {
        let names: BTreeSet<String> = (0..12).map(|_| self.connect().1).collect();
        names.into_iter().collect::<Vec<_>>().concat()
    }

    /// Waits until the log has it.
    #[track_caller]
    pub fn wait_said(&self, what: &str) {
        wait_until(what, PATIENCE, || self.convey.stderr().contains(what));
    }

    /// Waits until `convey status` shows it: the log has one thing a minute of a source.
    #[track_caller]
    pub fn wait_shown(&self, what: &str) {
        wait_until(what, PATIENCE, || self.convey.order("status").contains(what));
    }

    /// How often the log has it.
    pub fn said(&self, what: &str) -> usize {
        self.convey.stderr().matches(what).count()
    }

    /// What the source's problem is called.
    pub fn problem(&self) -> Option<String> {
        let status = self.convey.status();
        let source = status.backends["web"].discovery.clone().expect("a source");
        source.problem.map(|problem| problem.reason.to_string())
    }
}

fn config(lb: &Host, file: &std::path::Path, settings: &str) -> String {
    discovered(lb, &format!("kind = \"file\"\npath = {file:?}\n{settings}"))
}

/// A frontend whose servers are discovered by these settings.
pub fn discovered(lb: &Host, settings: &str) -> String {
    format!(
        "[global]\nwatch_config = false\n{}[backends.web]\n{FAST_CHECK}\n[backends.web.discovery]\n{settings}\n",
        frontend("f", lb.addr(9), "web", "")
    )
}

/// A script that prints what the file has, for a source that is asked often.
fn script(stage: &Stage, name: &str, text: &str) -> PathBuf {
    let path = stage.lb.path(name);
    fs::write(
        &path,
        format!("#!/bin/sh\nfile={}\n{text}\n", stage.file.display()),
    )
    .expect("a script");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
    path
}

/// As [`config`], with what a command prints.
fn exec(lb: &Host, command: &std::path::Path, settings: &str) -> String {
    let kind = format!("kind = \"exec\"\ncommand = [{command:?}, \"web\"]\ninterval = \"100ms\"");
    let file = format!("kind = \"file\"\npath = {:?}", std::path::Path::new("/f"));
    config(lb, std::path::Path::new("/f"), settings).replace(&file, &kind)
}

/// A line for each of these servers.
pub fn lines(servers: &[TcpServer], of: &[usize]) -> String {
    of.iter()
        .map(|index| format!("{}\n", servers[*index].addr()))
        .collect()
}

/// As deployment tools do it.
pub fn save(file: &std::path::Path, text: &str) {
    let new = file.with_extension("new");
    fs::write(&new, text).expect("write the file of servers");
    fs::rename(new, file).expect("put it in place");
}

fn servers_come_and_go_with_their_file_and_connections_of_one_that_went_live_on() {
    let stage = Stage::new("discovered", 3, 2);
    assert_eq!(
        stage.reached(),
        "ab",
        "ready means that the first answer is in effect"
    );
    let (mut kept, name) = loop {
        let (stream, name) = stage.connect();
        if name == "a" {
            break (stream, name);
        }
    };
    let a = stage.servers[0].addr().to_string();
    let before = stage.convey.server("web", &a).traffic.connections_total;
    stage.convey.order(&format!("server weight web/{a} 3"));

    stage.name(&[1, 2]);
    stage.wait_for(&[1, 2]);
    assert_eq!(stage.reached(), "bc");
    kept.write_all(b"still here\n").expect("send");
    assert_eq!(read_line(&mut kept).expect("the echo"), "still here", "{name}");
    stage.wait_said("2 server(s) discovered; 1 new: ");

    stage.name(&[0, 1, 2]);
    stage.wait_for(&[0, 1, 2]);
    let back = stage.convey.server("web", &a);
    assert!(
        back.traffic.connections_total >= before && before > 0,
        "its counters are kept"
    );
    assert_eq!(back.weight, 3, "so is its override");
    assert_eq!(stage.reached(), "abc");
    let shown = stage.convey.order("status");
    assert!(shown.contains("file: 3 servers, read "), "{shown}");
    let (from, to) = (stage.client.addr(4000), stage.lb.addr(9));
    let explained = stage.convey.order(&format!("explain tcp {from} {to}"));
    let host = stage.servers[0].addr().ip().to_string();
    assert!(explained.contains(&host), "{explained}");
}

fn an_answer_that_cannot_be_believed_changes_nothing_and_is_said_once() {
    let stage = Stage::new("liar", 4, 3);
    let began = Instant::now();
    stage.wait_for(&[0, 1, 2]);
    for (text, reason, says) in [
        ("10.77.0.9:80\n10.77.0.", "malformed", "line 2: "),
        (
            "",
            "too_few_servers",
            "the answer has 0 usable server(s), fewer than min_servers = 1",
        ),
        (
            "127.0.0.1:80\n",
            "too_few_servers",
            "the answer has 0 usable server(s), fewer than min_servers = 1",
        ),
    ] {
        save(&stage.file, text);
        wait_until(says, PATIENCE, || stage.problem().as_deref() == Some(reason));
        stage.wait_shown(says);
        assert_eq!(stage.reached(), "abc");
    }
    stage.name(&[3]);
    wait_until("it is held", PATIENCE, || {
        stage.problem().as_deref() == Some("too_many_removed")
    });
    fs::remove_file(&stage.file).expect("remove the file");
    wait_until("it is missed", PATIENCE, || {
        stage.problem().as_deref() == Some("unreadable")
    });
    assert_eq!(stage.reached(), "abc");
    let shown = stage.convey.order("status");
    assert!(shown.contains("file: 3 servers, not read for "), "{shown}");

    stage.name(&[0, 1, 2, 3]);
    stage.wait_for(&[0, 1, 2, 3]);
    assert_eq!(stage.problem(), None);
    stage.wait_said("is read again");
    // of the source one thing a minute, of which the first is what was wrong first
    for what in ["line 2: ", "is read again"] {
        assert_eq!(stage.said(what), 1, "{what}: {}", stage.convey.stderr());
    }
    let told = [
        "the answer has 0 usable server(s)",
        "the answer drops 3 of 3 servers",
        "No such file",
    ]
    .map(|what| stage.said(what));
    let minutes = usize::try_from(began.elapsed().as_secs() / 60).expect("a few");
    assert!(told.iter().sum::<usize>() <= minutes, "{}", stage.convey.stderr());
}

fn the_last_good_answer_survives_a_restart_that_finds_no_file() {
    let mut stage = Stage::new("answers", 2, 2);
    stage.wait_for(&[0, 1]);
    let saved = stage.convey.dir().join("state_directory/discovered.json");
    wait_until("it is saved", PATIENCE, || saved.exists());
    fs::remove_file(&stage.file).expect("remove the file");
    stage.convey.signal(Signal::SIGKILL);
    stage.convey.wait_exit(PATIENCE);
    let config = stage.config("");
    stage.convey.start_again(&config);
    assert_eq!(stage.reached(), "ab");
    assert_eq!(stage.problem().as_deref(), Some("unreadable"));

    stage.convey.signal(Signal::SIGTERM);
    stage.convey.wait_exit(PATIENCE);
    let config = stage.config("on_failure = \"empty\"");
    stage.convey.start_again(&config);
    let status = stage.convey.status();
    assert!(status.backends["web"].servers.is_empty(), "nothing is kept");
    stage.name(&[1]);
    stage.wait_for(&[1]);
}

fn a_reload_changes_the_source_its_limits_and_the_servers_at_once() {
    let stage = Stage::new("sources", 4, 3);
    stage.wait_for(&[0, 1, 2]);
    // a held answer is obeyed by the limits of a reload
    stage.name(&[3]);
    wait_until("it is held", PATIENCE, || {
        stage.problem().as_deref() == Some("too_many_removed")
    });
    stage.convey.reload(&stage.config("max_removal = \"100%\""));
    assert_eq!(stage.reached(), "d", "the reload has waited for its checks");
    assert_eq!(stage.problem(), None);

    // another file: its servers take the place of the others in one step
    let other = stage.file.with_file_name("other.servers");
    let json = format!(
        r#"[{{"host":"{}","port":"{}","name":"first"}}]"#,
        stage.servers[0].addr().ip(),
        stage.servers[0].addr().port()
    );
    save(&other, &json);
    stage
        .convey
        .reload(&config(&stage.lb, &other, "format = \"json\""));
    assert_eq!(stage.reached(), "a");
    assert_eq!(
        stage.convey.server("web", "first").addr,
        ServerAddr::new(stage.servers[0].addr())
    );
    // the old file is nobody's any more
    stage.name(&[0, 1, 2, 3]);

    // one that fails keeps the servers, and no reload
    let missing = config(&stage.lb, &stage.file.with_file_name("missing"), "");
    stage.convey.write_config(&missing);
    let output = stage.convey.cli("reload");
    assert!(output.status.success(), "{output:?}");
    assert!(
        (output.stdout.clone() + &output.stderr).contains("backend web: discovery: "),
        "{output:?}"
    );
    assert_eq!(stage.reached(), "a");

    // back to the first file while it changes: whatever is read when, the last content is in effect
    for of in [vec![0, 1], vec![2, 3], vec![1, 2]] {
        stage.name(&of);
        stage
            .convey
            .reload(&stage.config(&format!("max_removal = \"100%\"\nmax_servers = {}", 10 + of[0])));
        stage.wait_for(&of);
    }
    let without = format!(
        "[global]\nwatch_config = false\n{}[backends.web]\n{FAST_CHECK}\nservers.d.addr = \"{}\"\n",
        frontend("f", stage.lb.addr(9), "web", ""),
        stage.servers[3].addr()
    );
    stage.convey.reload(&without);
    assert_eq!(stage.reached(), "d");
    let status = stage.convey.status();
    assert_eq!(status.backends["web"].discovery, None);
}

fn check_says_what_the_file_would_give() {
    let stage = Stage::new("checked", 2, 2);
    let output = stage.convey.tool("check");
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.contains("gives 2 server(s)"), "{output:?}");
    save(&stage.file, "10.77.0.5:80\nweb1:80\n");
    let output = stage.convey.tool("check");
    assert!(output.status.success(), "{output:?}");
    assert!(
        output.stderr.contains("line 2: `web1` is a host name"),
        "{output:?}"
    );
    fs::remove_file(&stage.file).expect("remove the file");
    let output = stage.convey.tool("check");
    assert!(
        output.status.success(),
        "a source that fails keeps nobody from starting: {output:?}"
    );
    assert!(output.stderr.contains("cannot open"), "{output:?}");
    for (token, says) in [
        ("file:/nowhere/inventory.token", "--> /nowhere/inventory.token"),
        ("${NOBODYS_TOKEN}", "token: it is not set here"),
    ] {
        let asked = format!("kind = \"http\"\nurl = \"http://10.77.0.9/?key=hunter2\"\ntoken = \"{token}\"");
        save(
            &stage.convey.dir().join("convey.toml"),
            &discovered(&stage.lb, &asked),
        );
        let output = stage.convey.tool("check");
        assert!(
            output.status.success() && output.stderr.contains(says),
            "{output:?}"
        );
        assert!(!output.stderr.contains("hunter2"), "{output:?}");
    }
}

fn a_command_is_asked_again_and_again_and_its_servers_come_and_go() {
    let stage = Stage::new("exec", 3, 2);
    let command = script(&stage, "servers.sh", "[ \"$1\" = web ] && cat $file");
    stage.convey.reload(&exec(&stage.lb, &command, ""));
    stage.wait_for(&[0, 1]);
    assert_eq!(
        stage.reached(),
        "ab",
        "the reload is done when the command has answered"
    );
    stage.name(&[1, 2]);
    stage.wait_for(&[1, 2]);
    stage.name(&[0, 1, 2]);
    stage.wait_for(&[0, 1, 2]);
    let shown = stage.convey.order("status");
    assert!(shown.contains("exec: 3 servers, read "), "{shown}");
    assert_eq!(
        stage.convey.status().backends["web"]
            .discovery
            .as_ref()
            .map(|s| s.kind.to_string()),
        Some("exec".to_owned())
    );
}

fn a_command_that_fails_hangs_or_babbles_takes_no_server_away() {
    let stage = Stage::new("exec-liar", 2, 2);
    let good = script(&stage, "servers.sh", "cat $file");
    stage.convey.reload(&exec(&stage.lb, &good, ""));
    stage.wait_for(&[0, 1]);
    for (number, (text, says)) in [
        ("echo no database >&2; exit 3", "exit status 3: no database"),
        ("cat $file; kill -KILL $$", "ended by signal 9"),
        (
            "cat $file; trap '' TERM; sleep 1000",
            "not done within its timeout",
        ),
        ("exec yes 10.77.0.9:80", "printed more than 1048576 bytes"),
        ("cat $file; echo 10.77.", "line 3: "),
        ("exec /nonexistent", "exit status 127: "),
    ]
    .into_iter()
    .enumerate()
    {
        let bad = script(&stage, &format!("bad-{number}.sh"), text);
        stage.convey.reload(&exec(&stage.lb, &bad, "timeout = \"500ms\""));
        stage.wait_said(says);
        assert_eq!(stage.reached(), "ab", "{says}");
    }
    stage.convey.reload(&exec(&stage.lb, &good, ""));
    wait_until("it works again", PATIENCE, || stage.problem().is_none());
    assert_eq!(stage.reached(), "ab");
    let missing = exec(&stage.lb, std::path::Path::new("/nonexistent/servers"), "");
    stage.convey.reload(&missing);
    stage.wait_said("start /nonexistent/servers: it does not exist");
    assert_eq!(stage.reached(), "ab");
}

fn a_reload_brings_the_servers_of_a_new_command() {
    let stage = Stage::new("exec-new", 3, 1);
    let first = script(&stage, "first.sh", "cat $file");
    let second = script(
        &stage,
        "second.sh",
        &format!("cat <<END\n{}END", lines(&stage.servers, &[1, 2])),
    );
    stage.convey.reload(&exec(&stage.lb, &first, ""));
    stage.wait_for(&[0]);
    // one that fails leaves the command that is asked
    stage
        .convey
        .write_config(&(exec(&stage.lb, &second, "") + "nonsense = 1\n"));
    assert!(!stage.convey.cli("reload").status.success());
    stage.name(&[0, 2]);
    stage.wait_for(&[0, 2]);
    stage
        .convey
        .reload(&exec(&stage.lb, &second, "max_removal = \"100%\""));
    // named at once; they are used as their checks pass
    stage.wait_for(&[1, 2]);
    assert_eq!(stage.reached(), "bc");
    // the answers of the first one come no more
    stage.name(&[0]);
    stage.convey.reload(&exec(&stage.lb, &second, "max_removal = 9"));
    assert_eq!(stage.reached(), "bc");
}
