//! Something else happens during a reload, or keeps happening.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use convey::base::{BackendName, FrontendName};
use nix::sys::signal::{Signal, kill};

use crate::{
    Test,
    lab::{Convey, Host, Lab, PATIENCE, Process, convey::binary, servers::TcpServer, wait_until},
    site::{FAST_CHECK, Site, backend, expect_end, frontend, read_line, silent_server},
    tests,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    a_reload_that_waits_for_a_silent_server_holds_up_nothing,
    a_reload_that_waits_gives_way_to_the_end,
    a_broker_that_does_not_answer_holds_up_nothing,
    a_reload_that_failed_for_an_outside_reason_is_tried_again_when_the_file_is_saved_again,
    a_directory_that_is_made_again_is_watched,
    what_no_watch_sees_is_noticed_all_the_same,
    a_second_convey_leaves_the_first_alone,
    a_convey_that_drains_gives_its_control_socket_to_the_next,
    whatever_happens_at_once_one_configuration_runs,
];

/// A check of a server that answers nothing, with more time than a reload waits.
const SLOW_CHECK: &str = r#"health_check = { interval = "1h", timeout = "1h" }"#;

const WATCH: &str = "[global]\nwatch_config = true\n";

/// A configuration, and a backend of one silent server.
fn with_silent_backend(lab: &Lab, lb: &Host, base: &str) -> String {
    let silent = silent_server(lab, lb);
    base.to_owned()
        + &frontend("quiet", lb.addr(81), "quiet", "")
        + &backend("quiet", SLOW_CHECK, &[("silent", silent, "")])
}

/// `convey reload`, under way.
fn reload_beside(lb: &Host, convey: &Convey) -> Process {
    let mut command = Command::new(binary());
    let socket = convey.config_path().with_file_name("admin.sock");
    command.args(["reload", "--socket"]).arg(socket);
    lb.spawn(command)
}

/// Waits until a server is checked that answers nothing.
fn wait_for_its_check(lb: &Host) {
    wait_until("the silent server is checked", PATIENCE, || {
        lb.run("ss -Htn state syn-sent").contains(":9")
    });
}

fn a_reload_that_waits_for_a_silent_server_holds_up_nothing() {
    let lab = Lab::new("waiting");
    let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("a"));
    let server = TcpServer::named(&host, 9, "a");
    let base = frontend("web", lb.addr(9), "web", "")
        + &backend(
            "web",
            &format!("on_down = \"close\"\n{FAST_CHECK}"),
            &[("a", server.addr(), "")],
        );
    let convey = lab.convey(&lb, &base);
    let mut stream = client.connect(lb.addr(9));
    assert_eq!(read_line(&mut stream).expect("the greeting"), "a");

    convey.write_config(&with_silent_backend(&lab, &lb, &base));
    let mut reload = reload_beside(&lb, &convey);
    wait_for_its_check(&lb);
    // a server that dies meanwhile loses its traffic, and its connections as configured
    drop(server);
    expect_end(&mut stream);
    convey.order("server weight web a 7 --force");
    let status = convey.status();
    assert!(
        reload.ended().is_none(),
        "the reload was over too early to show anything"
    );
    assert_eq!(status.config_generation, 1);
    assert!(
        !status.frontends.contains_key("quiet") && !status.backends.contains_key("quiet"),
        "the old configuration runs, whole"
    );
    assert_eq!(status.backends["web"].eligible, 0);

    let ended = reload.wait(PATIENCE);
    assert!(ended.success(), "{ended}");
    let status = convey.status();
    assert_eq!(status.config_generation, 2);
    assert_eq!(
        status.backends["web"].servers["a"].weight, 7,
        "what was ordered meanwhile holds"
    );
}

fn a_reload_that_waits_gives_way_to_the_end() {
    let site = Site::new("giveway", 1);
    let base = site.config("", FAST_CHECK);
    let mut convey = site.convey(&base);
    convey.write_config(&with_silent_backend(&site.lab, &site.lb, &base));
    let mut reload = reload_beside(&site.lb, &convey);
    wait_for_its_check(&site.lb);
    convey.signal(Signal::SIGTERM);
    assert!(convey.wait_exit(PATIENCE).success());
    assert!(!reload.wait(PATIENCE).success());
    let log = convey.stderr();
    assert!(log.contains("convey is stopping"), "{log}");
    assert!(!log.contains("event=\"reloaded\""), "{log}");
}

fn a_broker_that_does_not_answer_holds_up_nothing() {
    let mut site = Site::new("deaf", 2);
    let base = site.config("", FAST_CHECK);
    let mut convey = site.convey(&base);
    kill(convey.broker(), Signal::SIGSTOP).expect("stop the broker");
    convey.write_config(&(base.clone() + &frontend("more", site.lb.addr(81), "web", "")));
    let mut reload = reload_beside(&site.lb, &convey);
    site.webs[0].kill();
    convey.wait_status("its death is noticed", |status| {
        status.backends["web"].eligible == 1
    });
    assert_eq!(site.ask(3), [("b".to_owned(), 3)].into());
    assert_eq!(convey.status().config_generation, 1);
    assert!(reload.ended().is_none(), "the reload waits for the broker");
    kill(convey.broker(), Signal::SIGCONT).expect("let the broker go on");
    assert!(reload.wait(PATIENCE).success());
    assert_eq!(convey.status().config_generation, 2);

    kill(convey.broker(), Signal::SIGSTOP).expect("stop the broker");
    let broker = convey.broker();
    convey.signal(Signal::SIGTERM);
    assert!(convey.wait_exit(PATIENCE).success());
    kill(broker, Signal::SIGCONT).expect("let the broker end");
}

fn a_reload_that_failed_for_an_outside_reason_is_tried_again_when_the_file_is_saved_again() {
    let site = Site::new("again", 1);
    let base = site.config("", FAST_CHECK) + WATCH;
    let convey = site.convey(&base);
    let taken = TcpServer::named(&site.lb, 81, "somebody else");
    let more = base + &frontend("more", site.lb.addr(81), "web", "");
    convey.write_config(&more);
    convey.wait_status("the reload has failed", |status| {
        (status.last_reload_error.as_ref()).is_some_and(|error| error.contains(":81"))
    });
    drop(taken);
    convey.write_config(&more);
    convey.wait_status("it is tried again", |status| status.config_generation == 2);
    assert_eq!(convey.status().last_reload_error, None);
}

/// The configuration file becomes a link into a directory of its own, with this mode, which is returned.
fn move_into_a_directory(convey: &Convey, config: &str, mode: u32) -> PathBuf {
    let link = convey.config_path();
    let directory = link.with_file_name("etc");
    save(convey, &directory, config);
    fs::set_permissions(&directory, fs::Permissions::from_mode(mode)).expect("chmod of the directory");
    let new = link.with_file_name("new");
    symlink("etc/convey.toml", &new).expect("a link");
    fs::rename(&new, &link).expect("the link in its place");
    convey.wait_status("the link is followed", |status| status.config_generation == 2);
    directory
}

/// Writes the file in a directory, which is made if need be.
fn save(convey: &Convey, directory: &Path, config: &str) {
    let socket = convey.config_path().with_file_name("admin.sock");
    let text = format!("{config}\n[admin]\nsocket = \"{}\"\n", socket.display());
    fs::create_dir_all(directory).expect("the directory");
    fs::write(directory.join("convey.toml"), text).expect("the configuration");
}

fn a_directory_that_is_made_again_is_watched() {
    let site = Site::new("remade", 1);
    let (directory, socket) = (site.lb.path("etc"), site.lb.path("admin.sock"));
    let save = |limit: u64| {
        let config = site.config(&format!("max_connections = {limit}"), FAST_CHECK) + WATCH;
        let text = format!("{config}\n[admin]\nsocket = \"{}\"\n", socket.display());
        fs::create_dir_all(&directory).expect("the directory");
        fs::write(directory.join("convey.toml"), text).expect("the configuration");
    };
    save(1);
    let mut command = Command::new(binary());
    command.arg("--config").arg(directory.join("convey.toml"));
    let state = site.lb.path("state");
    let _convey = site.lb.spawn({
        command.env("STATE_DIRECTORY", &state);
        command
    });
    let status = || {
        let command = format!("{} status --json --socket {}", binary(), socket.display());
        serde_json::from_str::<convey::admin::views::Status>(&site.lb.try_run(&command).stdout).ok()
    };
    let wait_for = |generation: u64| {
        wait_until("the new file is read", PATIENCE, || {
            status().is_some_and(|status| status.config_generation == generation)
        });
    };
    wait_for(1);
    for turn in 2..5 {
        fs::remove_dir_all(&directory).expect("remove the directory");
        wait_until("its loss is noticed", PATIENCE, || {
            status().is_some_and(|status| status.last_reload_error.is_some())
        });
        save(turn);
        wait_for(turn);
    }
}

fn what_no_watch_sees_is_noticed_all_the_same() {
    let site = Site::new("unseen", 1);
    let config = |limit: u64| site.config(&format!("max_connections = {limit}"), FAST_CHECK) + WATCH;
    let convey = site.convey(&config(1));
    // the daemon, who is nobody, may pass but not look
    let directory = move_into_a_directory(&convey, &config(2), 0o711);
    save(&convey, &directory, &config(3));
    convey.wait_status("the new file is read", |status| status.config_generation == 3);
}

fn a_second_convey_leaves_the_first_alone() {
    let site = Site::new("second", 1);
    let base = site.config("", FAST_CHECK);
    let convey = site.convey(&base);
    let second = convey.tool("");
    let text = second.stdout + &second.stderr;
    assert_eq!(second.status.code(), Some(69), "{text}");
    for named in [
        format!("process {}", convey.pid()),
        convey.config_path().display().to_string(),
        "admin.sock".to_owned(),
    ] {
        assert!(text.contains(&named), "{named} is named:\n{text}");
    }
    assert_eq!(convey.status().pid, convey.pid().as_raw().unsigned_abs());
    assert_eq!(site.ask(3), [("a".to_owned(), 3)].into());
}

fn a_convey_that_drains_gives_its_control_socket_to_the_next() {
    let lab = Lab::new("handover");
    let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("a"));
    let server = TcpServer::named(&host, 9, "a");
    let config = "[global]\nshutdown_timeout = \"1h\"\n".to_owned()
        + &frontend("web", lb.addr(9), "web", "")
        + &backend("web", FAST_CHECK, &[("a", server.addr(), "")]);
    let mut old = lab.convey(&lb, &config);
    let mut stream = client.connect(lb.addr(9));
    assert_eq!(read_line(&mut stream).expect("the greeting"), "a");
    old.signal(Signal::SIGTERM);
    // at once: what waits for the other's socket is its own affair
    let mut command = Command::new(binary());
    command.arg("--config").arg(old.config_path());
    let new = lb.spawn(command);
    wait_until("the new one answers", PATIENCE, || {
        let status = old.cli("status --json");
        serde_json::from_str::<convey::admin::views::Status>(&status.stdout)
            .is_ok_and(|status| status.pid == new.pid().as_raw().unsigned_abs())
    });
    assert!(old.ended().is_none(), "the old one still has a connection");
    drop(stream);
    assert!(old.wait_exit(PATIENCE).success());
    assert_eq!(old.order("status --quiet"), "", "the socket is the new one's");
}

/// What is done to a daemon whose configurations are numbered, by chance.
struct Chance<'a> {
    site: &'a mut Site,
    convey: &'a Convey,
    random: SplitMix,
    is_deaf: bool,
    beside: Vec<Process>,
}

/// Sebastiano Vigna's splitmix64 (2015).
struct SplitMix(u64);

impl SplitMix {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % limit
    }
}

/// The configuration of a number: its frontends and backends carry it in their names.
fn numbered(site: &Site, number: u64) -> String {
    let servers: Vec<_> = site
        .webs
        .iter()
        .map(|web| (web.host().name(), web.addr(), ""))
        .collect();
    let mut text = WATCH.to_owned();
    text += &frontend("web", site.lb.addr(80), &format!("pool{number}"), "");
    text += &frontend(
        &format!("extra{number}"),
        site.lb.addr(81 + u16::try_from(number).unwrap_or(0)),
        "fixed",
        "",
    );
    text += &backend(&format!("pool{number}"), FAST_CHECK, &servers);
    text + &backend("fixed", FAST_CHECK, &servers)
}

impl Chance<'_> {
    fn act(&mut self) {
        match self.random.below(12) {
            0..3 => {
                let number = self.random.below(4);
                self.convey.write_config(&numbered(self.site, number));
            }
            3 => self.convey.write_config("[frontends.web\n"),
            4 | 5 => self.beside.push(reload_beside(&self.site.lb, self.convey)),
            6 => self.convey.signal(Signal::SIGHUP),
            7 => {
                let signal = if self.is_deaf {
                    Signal::SIGCONT
                } else {
                    Signal::SIGSTOP
                };
                kill(self.convey.broker(), signal).expect("signal the broker");
                self.is_deaf = !self.is_deaf;
            }
            8 => {
                let web = usize::try_from(self.random.below(2)).unwrap_or(0);
                self.site.webs[web].kill();
            }
            9 => {
                let web = usize::try_from(self.random.below(2)).unwrap_or(0);
                self.site.webs[web].revive();
            }
            10 => {
                let what =
                    ["drain", "ready", "maintenance"][usize::try_from(self.random.below(3)).unwrap_or(0)];
                let output = self.convey.cli(&format!("server {what} fixed a --force"));
                assert!(output.status.success(), "{}{}", output.stdout, output.stderr);
            }
            _ => {
                self.site.ask(1);
            }
        }
    }

    /// One configuration runs, and it is whole.
    fn check(&self) {
        let status = self.convey.status();
        let of = |names: Vec<&str>, kind: &str| -> BTreeSet<String> {
            let numbers = names.iter().filter_map(|name| name.strip_prefix(kind));
            numbers.map(str::to_owned).collect()
        };
        let frontends = of(
            status.frontends.keys().map(FrontendName::as_str).collect(),
            "extra",
        );
        let backends = of(status.backends.keys().map(BackendName::as_str).collect(), "pool");
        let used = of(vec![status.frontends["web"].backend.as_str()], "pool");
        assert_eq!(frontends.len(), 1, "{frontends:?}");
        assert!(
            frontends == backends && backends == used,
            "{frontends:?} {backends:?} {used:?}"
        );
    }
}

fn whatever_happens_at_once_one_configuration_runs() {
    let seed = std::env::var("CONVEY_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()));
    println!("CONVEY_SEED={seed}");
    let mut site = Site::new("chance", 2);
    let mut convey = site.convey(&numbered(&site, 0));
    let mut chance = Chance {
        site: &mut site,
        convey: &convey,
        random: SplitMix(seed),
        is_deaf: false,
        beside: Vec::new(),
    };
    for _ in 0..120 {
        chance.act();
        chance.check();
    }
    if chance.is_deaf {
        kill(convey.broker(), Signal::SIGCONT).expect("let the broker go on");
    }
    for mut reload in chance.beside {
        reload.wait(PATIENCE);
    }
    // when all is well again, the file as it was saved last takes effect
    convey.write_config(&numbered(&site, 3));
    convey.wait_status("the last file is in effect", |status| {
        status.backends.contains_key("pool3")
    });
    convey.signal(Signal::SIGTERM);
    let ended = convey.wait_exit(PATIENCE);
    assert!(ended.success(), "{ended}, CONVEY_SEED={seed}");
}
