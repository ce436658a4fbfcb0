//! The commands by which an operator changes what runs, before a real daemon.

use std::{fs, net::TcpStream, process::Command};

use convey::admin::views::{ConfigDiff, ConfigHistory, Overrides};

use crate::{
    Test,
    api_writes::{text, writable},
    lab::{Convey, PATIENCE, wait_until},
    site::{FAST_CHECK, NO_CHECK, Site},
    tests,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    a_reload_is_planned_before_it_is_made,
    a_reload_waits_for_what_it_changed_and_goes_back_where_nothing_serves,
    without_a_way_back_nothing_is_changed,
    a_drain_waits_until_the_last_connection_has_ended,
    a_drain_notices_that_its_server_goes_or_is_taken_back,
    a_whole_backend_is_overridden_and_overrides_are_cleared,
    servers_come_and_go_by_commands,
    events_are_listed_and_followed,
    a_configuration_is_edited_compared_and_rolled_back,
];

/// One worker, whose turns meet each server once.
const ONE_WORKER: &str = "\n[global]\nworkers = 1\nwatch_config = false\n";

/// Open connections, one to each server.
fn connected(site: &Site, convey: &Convey, count: u64) -> Vec<TcpStream> {
    let connections = (0..count)
        .map(|_| site.client.connect(site.lb.addr(80)))
        .collect();
    convey.wait_status("each server has one", |status| {
        let servers = status.backends["web"].servers.values();
        servers
            .map(|server| server.traffic.connections_current)
            .sum::<u64>()
            == count
    });
    connections
}

fn a_reload_is_planned_before_it_is_made() {
    let site = Site::new("cmd-plan", 2);
    let before = site.config("", NO_CHECK) + ONE_WORKER;
    let convey = site.convey(&before);
    let _open = connected(&site, &convey, 2);
    let without_b: String = (before.lines())
        .filter(|line| !line.starts_with("servers.b"))
        .map(|line| format!("{line}\n"))
        .collect();
    convey.write_config(&without_b);
    let planned = convey.order("reload --dry-run");
    assert_eq!(
        planned,
        "a reload would change:\n  backend web: server b: removed\n\
         would drain, as their connections go on until they end:\n  server web/b: 1 connection\n"
    );
    let json: ConfigDiff = serde_json::from_str(&convey.order("reload --dry-run --json")).expect("JSON");
    assert!(
        json.lines.contains("\n-servers.b") && json.cut.is_none(),
        "{json:?}"
    );
    assert_eq!(convey.status().config_generation, 1, "nothing was changed");
    convey.write_config(&before.replace("listen_addr", "listen_adr"));
    let broken = convey.cli("reload --dry-run");
    assert_eq!(broken.status.code(), Some(78), "{broken:?}");
    assert!(broken.stderr.contains("listen_adr"), "{}", broken.stderr);
}

/// The same site whose servers do not answer where the file says.
fn moved_away(text: &str) -> String {
    text.replace(":80\" }", ":81\" }")
}

fn a_reload_waits_for_what_it_changed_and_goes_back_where_nothing_serves() {
    let site = Site::new("cmd-wait", 2);
    let convey = site.convey(&site.config("", FAST_CHECK));
    let before = fs::read_to_string(convey.config_path()).expect("the file");
    convey.write_config(&before.replace("rise = 1", "rise = 2"));
    let waited = convey.order("reload --wait 60s");
    assert!(waited.contains("\nbackend web: 2 of 2 up after "), "{waited}");
    convey.write_config(&before);
    convey.order("reload --wait");

    // the API may not write, so whoever runs the command does
    let broken = moved_away(&before);
    assert_ne!(broken, before);
    convey.write_config(&broken);
    let back = convey.cli("reload --wait 1s --rollback");
    assert_eq!(back.status.code(), Some(69), "{back:?}");
    assert!(
        back.stdout.contains("\nbackend web: 0 of 2 up after ")
            && back.stdout.contains(" s\n  web/a: down: "),
        "{}",
        back.stdout
    );
    assert!(back.stdout.contains("rolled back: "), "{}", back.stdout);
    assert_eq!(
        fs::read_to_string(convey.config_path()).expect("the file"),
        before
    );
    assert_eq!(convey.order("config show"), before);
    wait_until("it serves again", PATIENCE, || site.ask(2).len() == 2);
    let (_, revision) = back
        .stdout
        .rsplit_once("--revision ")
        .expect("where the other text is");
    let (revision, _) = revision.split_once('`').expect("a number");
    assert_eq!(
        convey.order(&format!("config show --revision {revision}")),
        broken
    );
}

fn without_a_way_back_nothing_is_changed() {
    let site = Site::new("cmd-no-way", 1);
    let convey = site.convey(&site.config("", NO_CHECK));
    let before = fs::read_to_string(convey.config_path()).expect("the file");
    convey.write_config(&moved_away(&before));
    let directory = convey.dir().display();
    // a file that somebody else may run although its directory is closed to them
    let somebody = format!(
        "chmod 755 {directory}; chmod 666 {directory}/admin.sock; exec 3<{binary}; \
         exec setpriv --reuid 65534 --regid 65534 --clear-groups /proc/self/fd/3 reload --wait 1s --rollback \
         --socket {directory}/admin.sock",
        binary = env!("CARGO_BIN_EXE_convey")
    );
    let mut command = Command::new("bash");
    command.args(["-c", &somebody]);
    let refused = site.lb.spawn(command).finish(PATIENCE);
    assert_eq!(refused.status.code(), Some(77), "{refused:?}");
    assert!(
        refused.stderr.contains("there would be no way back")
            && refused.stderr.contains("allow_config_writes"),
        "{}",
        refused.stderr
    );
    assert_eq!(convey.status().config_generation, 1, "nothing was changed");
}

fn a_drain_waits_until_the_last_connection_has_ended() {
    let site = Site::new("cmd-drain", 2);
    let convey = site.convey(&(site.config("", NO_CHECK) + ONE_WORKER));
    let open = connected(&site, &convey, 2);
    let left = convey.cli("server drain web/a --wait=1s");
    assert_eq!(left.status.code(), Some(75), "{left:?}");
    assert!(seconds_after(&left.stdout, "\n1 connection left: web/a 1, ") >= 1);
    assert_eq!(convey.order("server close web/a"), "web/a: closed 1 connection\n");
    let drained = convey.order("server drain web/a --wait");
    // there is nothing to wait for
    seconds_after(&drained, "\nno connections left ");
    drop(open);
}

/// How long it took, as the last line says behind these words.
#[track_caller]
fn seconds_after(said: &str, words: &str) -> u64 {
    let (_, rest) = said.rsplit_once(words).unwrap_or_else(|| panic!("{said}"));
    let seconds = rest
        .strip_prefix("after ")
        .and_then(|rest| rest.strip_suffix(" s\n"));
    let seconds = seconds.and_then(|seconds| seconds.parse().ok());
    seconds.unwrap_or_else(|| panic!("{said}"))
}

fn a_drain_notices_that_its_server_goes_or_is_taken_back() {
    let site = Site::new("cmd-taken", 2);
    let config = site.config("", NO_CHECK) + ONE_WORKER;
    let convey = site.convey(&config);
    let open = connected(&site, &convey, 2);
    let binary = crate::api_site::BINARY;
    let socket = convey.dir().join("admin.sock");
    let wait = |limit: &str| {
        let command = format!(
            "{binary} server drain --socket {} web/a --wait={limit}",
            socket.display()
        );
        convey.host().start(&command)
    };
    let is_draining =
        |status: &convey::admin::views::Status| status.backends["web"].servers["a"].overridden.is_some();
    let waiting = wait("60s");
    convey.wait_status("it is drained", is_draining);
    convey.order("server ready web/a");
    let taken_back = waiting.finish(PATIENCE);
    assert_eq!(taken_back.status.code(), Some(75), "{taken_back:?}");
    assert!(
        taken_back
            .stdout
            .ends_with("web/a gets new connections again: somebody has taken it back\n"),
        "{}",
        taken_back.stdout
    );

    let mut waiting = wait("60s");
    convey.wait_status("it is drained again", is_draining);
    let a = config
        .find("servers.a ")
        .map(|at| at..at + config[at..].find('\n').expect("its end") + 1);
    let mut without = config.clone();
    without.replace_range(a.expect("server a"), "");
    convey.reload(&without);
    // its connection lives on, and is waited for
    assert_eq!(convey.connections().total, 2);
    assert!(waiting.ended().is_none());
    drop(open);
    let gone = waiting.finish(PATIENCE);
    assert!(
        gone.status.success() && gone.stdout.contains("no connections left"),
        "{gone:?}"
    );
}

fn a_whole_backend_is_overridden_and_overrides_are_cleared() {
    let site = Site::new("cmd-backend", 2);
    let convey = site.convey(&(site.config("", NO_CHECK) + ONE_WORKER));
    let _open = connected(&site, &convey, 2);
    let refused = convey.cli("backend drain web");
    assert_eq!(refused.status.code(), Some(64), "{refused:?}");
    assert!(refused.stderr.contains("force"), "{}", refused.stderr);
    let drained = convey.order("backend drain web --force");
    assert_eq!(
        drained,
        "web/a: draining (override: draining), weight 1, 1 connection\n\
         web/b: draining (override: draining), weight 1, 1 connection\n"
    );
    assert_eq!(convey.order("backend close web"), "web: closed 2 connections\n");
    assert_eq!(
        convey.order("overrides"),
        "SERVER  OVERRIDE\nweb/a   draining\nweb/b   draining\n"
    );
    assert!(convey.order("overrides clear web/a").starts_with("web/a: up"));
    let json: Overrides = serde_json::from_str(&convey.order("overrides --json")).expect("JSON");
    assert_eq!(json.overrides.len(), 1);
    assert_eq!(
        convey.order("overrides clear --all"),
        "web/b: cleared (draining)\n"
    );
    assert_eq!(convey.order("overrides"), "no overrides\n");
    let history = convey.order("overrides history");
    let first = history.lines().next().expect("a line");
    assert!(
        first.contains("backend web") && first.contains("uid 0"),
        "{history}"
    );
    assert!(
        history.lines().last().expect("a line").contains("cleared"),
        "{history}"
    );
    let unknown = convey.cli("backend ready wbe");
    assert_eq!(unknown.status.code(), Some(64), "{unknown:?}");
}

fn servers_come_and_go_by_commands() {
    let site = Site::new("cmd-add", 2);
    let convey = site.convey(&site.config("", &format!("discovery = {{ kind = \"api\" }}\n{NO_CHECK}")));
    let addr = site.lab.nginx("c", "c");
    let added = convey.order(&format!("server add web {} --name c --weight 2", addr.addr()));
    assert_eq!(added, "web/c: added\n");
    assert_eq!(convey.server("web", "c").weight, 2);
    assert_eq!(site.ask(8).len(), 3);
    let wrong = convey.cli("server add web nowhere --name d");
    assert_eq!(wrong.status.code(), Some(64), "{wrong:?}");
    let of_file = convey.cli("server remove web/a");
    assert!(
        of_file.stderr.contains("configuration file"),
        "{}",
        of_file.stderr
    );
    convey.order("server drain web/c");
    assert_eq!(convey.order("server remove web/c"), "web/c: removed\n");
    assert_eq!(site.ask(8).len(), 2);
    // one of the same name that comes later is another one
    convey.order(&format!("server add web {} --name c", addr.addr()));
    assert_eq!(site.ask(8).len(), 3);
    // of one that is there, what was overridden stays
    convey.order("server drain web/c");
    convey.order(&format!("server add web {} --name c --weight 3", addr.addr()));
    assert_eq!(site.ask(8).len(), 2);
}

fn events_are_listed_and_followed() {
    let site = Site::new("cmd-events", 2);
    let convey = site.convey(&site.config("", NO_CHECK));
    let followed = site.lb.try_run(&format!(
        "cd {directory}; {binary} events --follow --event server_override --socket admin.sock >events & followed=$!
         {binary} server drain web/a --socket admin.sock
         for i in $(seq 600); do grep -q web/a events && break; sleep 0.1; done
         kill -INT $followed; wait $followed || exit 1; cat events",
        directory = convey.dir().display(),
        binary = env!("CARGO_BIN_EXE_convey")
    ));
    assert!(followed.status.success(), "{followed:?}");
    let lines: Vec<&str> = followed.stdout.lines().skip(1).collect();
    assert!(lines.len() == 1 && lines[0].contains("web/a"), "{followed:?}");
    let json = convey.order("events --event server_override --json");
    let event: serde_json::Value = serde_json::from_str(&json).expect("an event a line");
    assert_eq!(event["event"], "server_override");
}

/// `convey config edit` by an editor that is sed with a script.
fn edit(convey: &Convey, script: &str, options: &str) -> crate::lab::Output {
    let path = convey.dir().join("edit.sed");
    fs::write(&path, script).expect("the script");
    convey.host().try_run(&format!(
        "EDITOR='sed -i -f \"{}\"' {} config edit {options} --socket {}/admin.sock",
        path.display(),
        env!("CARGO_BIN_EXE_convey"),
        convey.dir().display()
    ))
}

fn a_configuration_is_edited_compared_and_rolled_back() {
    let site = Site::new("cmd-edit", 2);
    let convey = writable(&site);
    let before = convey.order("config show");
    assert_eq!(before, text(&site, ""));
    assert!(convey.order("config diff").ends_with("is what is in effect\n"));
    let resolved: serde_json::Value =
        serde_json::from_str(&convey.order("config show --resolved")).expect("JSON");
    assert_eq!(resolved["backends"]["web"]["balance"], "round_robin");

    let edited = edit(&convey, "s/^.backends.web.$/&\\nbalance = \"random\"/", "--yes");
    assert!(edited.status.success(), "{edited:?}");
    assert!(
        edited.stdout.contains("+balance = \"random\"") && edited.stdout.contains("reloaded:\n"),
        "{}",
        edited.stdout
    );
    assert_eq!(convey.status().backends["web"].balance.to_string(), "random");
    let broken = edit(&convey, "s/balance/blanace/", "--yes");
    assert_eq!(broken.status.code(), Some(78), "{broken:?}");
    assert!(broken.stderr.contains("blanace"), "{}", broken.stderr);
    let (_, copy) = broken
        .stderr
        .trim_end()
        .rsplit_once("the edited text is in ")
        .expect("where it is");
    assert!(fs::read_to_string(copy).expect("the copy").contains("blanace"));
    let script = "s/:80\" }/:81\" }/\ns/^health_check.*/health_check = { interval = \"100ms\", fall = 1 }/";
    let dead = edit(&convey, script, "--yes --wait=1s --rollback");
    assert_eq!(dead.status.code(), Some(69), "{dead:?}");
    assert!(
        dead.stdout.contains("backend web: 0 of 2 up") && dead.stdout.contains("rolled back: "),
        "{}",
        dead.stdout
    );
    wait_until("each is kept", PATIENCE, || {
        let history = convey.order("config history --json");
        let history: ConfigHistory = serde_json::from_str(&history).expect("JSON");
        history.revisions.len() == 4
    });
    convey.order("config rollback 1");
    assert_eq!(convey.order("config show"), before);

    let closed = Site::new("cmd-edit-off", 1);
    let closed = closed.convey(&closed.config("", NO_CHECK));
    for command in ["config edit --yes", "config rollback 1"] {
        let refused = closed.cli(command);
        assert_eq!(refused.status.code(), Some(77), "{refused:?}");
        assert!(
            refused.stderr.contains("set allow_config_writes = true")
                && refused.stderr.contains("convey reload"),
            "{}",
            refused.stderr
        );
    }
}
