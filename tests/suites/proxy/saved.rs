//! Overrides outlive the process.

use std::{collections::BTreeSet, fs, net::SocketAddr, os::unix::fs::PermissionsExt as _, path::PathBuf};

use convey::base::ServerState;
use nix::sys::signal::Signal;

use crate::{
    Test,
    lab::{Convey, Host, Lab, PATIENCE, servers::TcpServer, wait_until},
    site::{FAST_CHECK, backend, frontend, read_line},
    tests,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    overrides_outlive_a_crash_and_a_restart_until_ready_clears_them,
    an_override_goes_with_a_server_that_a_reload_removes,
    a_state_directory_that_cannot_be_written_is_said_and_costs_nothing_else,
    a_file_of_overrides_that_is_damaged_is_said_and_stops_nothing,
];

/// Two servers that say their names, and Convey before them.
struct Stage {
    convey: Convey,
    client: Host,
    servers: [TcpServer; 2],
    _lab: Lab,
}

impl Stage {
    fn new(name: &str, global: &str) -> Self {
        let lab = Lab::new(name);
        let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("server"));
        let servers = [("a", 10), ("b", 11)].map(|(name, port)| TcpServer::named(&host, port, name));
        let config = config(lb.addr(9), &servers, &["a", "b"], global);
        let mut convey = Convey::launch_with(&lb, &config, &["env", Convey::FD_STORE]);
        convey.wait_ready();
        Self {
            convey,
            client,
            servers,
            _lab: lab,
        }
    }

    fn config(&self, of: &[&str], global: &str) -> String {
        config(self.convey.host().addr(9), &self.servers, of, global)
    }

    /// Ends the process by a signal, and starts another one.
    fn restart(&mut self, signal: Signal, global: &str) {
        self.convey.signal(signal);
        self.convey.wait_exit(PATIENCE);
        let config = self.config(&["a", "b"], global);
        self.convey.start_again(&config);
    }

    fn file(&self) -> PathBuf {
        self.convey.dir().join("state_directory/overrides.json")
    }

    fn wait_saved(&self, what: &str) {
        wait_until(what, PATIENCE, || {
            fs::read_to_string(self.file()).is_ok_and(|text| text.contains(what))
        });
    }

    fn wait_said(&self, what: &str) {
        wait_until(what, PATIENCE, || self.convey.stderr().contains(what));
    }

    fn says_once(&self, what: &str) {
        self.wait_said(what);
        let log = self.convey.stderr();
        assert_eq!(log.matches(what).count(), 1, "{log}");
    }

    /// The servers that twelve connections come to.
    fn reached(&self) -> BTreeSet<String> {
        let connect = |_| {
            let mut stream = self.client.connect(self.convey.host().addr(9));
            read_line(&mut stream).expect("the greeting")
        };
        (0..12).map(connect).collect()
    }

    /// State and weight of both servers, and whether they are overridden.
    fn servers(&self) -> [(ServerState, u16, bool); 2] {
        ["a", "b"].map(|name| {
            let server = self.convey.server("web", name);
            let state = server.state.known().expect("a state of this version");
            (state, server.weight, server.overridden.is_some())
        })
    }
}

fn config(listen: SocketAddr, servers: &[TcpServer; 2], of: &[&str], global: &str) -> String {
    let named = ["a", "b"].into_iter().zip(servers);
    let servers: Vec<_> = named
        .filter(|(name, _)| of.contains(name))
        .map(|(name, server)| (name, server.addr(), ""))
        .collect();
    format!("[global]\nwatch_config = false\n{global}\n")
        + &frontend("f", listen, "web", "")
        + &backend("web", FAST_CHECK, &servers)
}

const PLAIN: (ServerState, u16, bool) = (ServerState::Up, 1, false);

fn overrides_outlive_a_crash_and_a_restart_until_ready_clears_them() {
    let mut stage = Stage::new("saved", "");
    stage.convey.order("server maintenance web/a");
    stage.convey.order("server weight web/b 5");
    stage.wait_saved("\"weight\": 5");
    stage.restart(Signal::SIGKILL, "");
    stage.wait_said("2 saved override(s) are in effect: web/a maintenance since 20");
    let heavy = (ServerState::Up, 5, true);
    assert_eq!(stage.servers(), [(ServerState::Maintenance, 1, true), heavy]);
    assert_eq!(stage.reached(), BTreeSet::from(["b".to_owned()]));

    stage.convey.order("server drain web/a");
    stage.restart(Signal::SIGTERM, "");
    assert_eq!(stage.servers(), [(ServerState::Draining, 1, true), heavy]);
    stage.convey.order("server ready web/a");
    stage.restart(Signal::SIGTERM, "");
    assert_eq!(stage.servers(), [PLAIN, heavy]);
    assert_eq!(stage.reached(), BTreeSet::from(["a".to_owned(), "b".to_owned()]));
}

fn an_override_goes_with_a_server_that_a_reload_removes() {
    let mut stage = Stage::new("savedgone", "");
    stage.convey.order("server drain web/a");
    stage.wait_saved("draining");
    stage.convey.reload(&stage.config(&["b"], ""));
    stage.wait_saved("\"overrides\": []");
    stage.convey.reload(&stage.config(&["a", "b"], ""));
    stage.restart(Signal::SIGKILL, "");
    assert_eq!(stage.servers(), [PLAIN, PLAIN]);
    stage.convey.order("server drain web/a");
    stage.wait_said("server web/a: ");
    let log = stage.convey.stderr();
    assert!(!log.contains("before the start"), "{log}");
}

fn a_state_directory_that_cannot_be_written_is_said_and_costs_nothing_else() {
    let mut stage = Stage::new("savednot", "state_dir = \"/proc/convey\"");
    stage.convey.order("server drain web/a");
    let drained = [(ServerState::Draining, 1, true), PLAIN];
    assert_eq!(stage.servers(), drained);
    stage.says_once("cannot write in /proc/convey: ");

    let other = stage.convey.dir().join("of-root");
    fs::create_dir(&other).expect("a directory");
    fs::set_permissions(&other, fs::Permissions::from_mode(0o755)).expect("chmod");
    let global = format!("state_dir = \"{}\"", other.display());
    let reloaded = stage.config(&["a", "b"], &global);
    stage.convey.write_config(&reloaded);
    let said = stage.convey.order("reload");
    assert!(said.contains("global.state_dir"), "{said}");
    stage.restart(Signal::SIGTERM, &global);
    assert_eq!(stage.servers(), [PLAIN, PLAIN], "it lasted until the end");
    stage.says_once("of-root: Permission denied");
}

fn a_file_of_overrides_that_is_damaged_is_said_and_stops_nothing() {
    let mut stage = Stage::new("saveddamaged", "");
    stage.convey.order("server drain web/a");
    stage.wait_saved("draining");
    let whole = fs::read_to_string(stage.file()).expect("the file");
    let half = &whole[..whole.len() / 2];
    fs::write(stage.file(), half).expect("the damaged file");
    stage.restart(Signal::SIGTERM, "");
    let file = stage.file();
    stage.says_once(&format!(
        "cannot restore overrides from {}: it is not what Convey writes",
        file.display()
    ));
    assert_eq!(stage.servers(), [PLAIN, PLAIN]);
    assert_eq!(
        fs::read_to_string(stage.file()).expect("the file"),
        half,
        "left alone"
    );

    stage.convey.order("server weight web/b 3");
    stage.wait_saved("\"weight\": 3");
    let aside = stage.file().with_extension("json.unreadable");
    assert_eq!(fs::read_to_string(aside).expect("the file aside"), half);
    stage.restart(Signal::SIGKILL, "");
    assert_eq!(stage.servers(), [PLAIN, (ServerState::Up, 3, true)]);
}
