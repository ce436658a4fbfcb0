//! The configuration changes while traffic runs.

use std::{fs, io::Write as _, os::unix::fs::symlink, thread};

use crate::{
    Test,
    lab::{Lab, PATIENCE, load::Wrk, servers::TcpServer, wait_until},
    site::{FAST_CHECK, Site, backend, frontend, read_line, silent_server},
    tests,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    two_hundred_reloads_under_load_fail_no_request,
    a_file_replaced_by_rename_is_noticed,
    a_file_rewritten_in_place_is_noticed,
    a_swapped_symlink_is_noticed,
    a_reload_stops_and_starts_watching_the_file,
    sighup_reloads,
    a_bad_file_changes_nothing_and_says_where,
    a_reload_adds_a_server,
    a_reload_adds_a_frontend_on_a_privileged_port,
    a_removed_frontend_stops_listening_but_keeps_its_connections,
    a_frontend_that_is_removed_and_put_back_at_once_listens,
    a_removed_server_keeps_its_connections,
    an_address_in_use_fails_the_reload_and_changes_nothing,
    an_override_survives_a_reload_and_shows_in_the_status,
    settings_that_need_a_restart_are_named,
];

fn two_hundred_reloads_under_load_fail_no_request() {
    let site = Site::new("reloads", 3);
    let one = site.config("max_connections = 5000", FAST_CHECK);
    let two = frontend("web", site.lb.addr(80), "web", "idle_timeout = \"2m\"")
        + &frontend("more", site.lb.addr(8080), "web", "")
        + &backend(
            "web",
            &format!("balance = \"least_connections\"\n{FAST_CHECK}"),
            &[
                ("a", site.webs[0].addr(), "weight = 3"),
                ("b", site.webs[1].addr(), "weight = 2"),
            ],
        );
    let convey = site.convey(&one);
    let loads = [("new", true), ("kept", false)]
        .map(|(kind, close)| (kind, Wrk::endless(&site.client, &site.url(), 8, close)));
    convey.wait_status("both loads run", |status| {
        status.frontends["web"].traffic.connections_total > 100
    });
    let start = std::time::Instant::now();
    for turn in 0..200 {
        convey.reload(if turn % 2 == 0 { &two } else { &one });
    }
    let took = start.elapsed();
    assert_eq!(convey.status().config_generation, 201);
    for (kind, load) in loads {
        let report = load.stop();
        assert_eq!(
            report.errors,
            0,
            "{kind} connections\n{}\n{}",
            report.text,
            convey.stderr()
        );
        eprintln!(
            "200 reloads in {took:.1?} under load: {} requests on {kind} connections, none failed",
            report.requests
        );
    }
}

/// A configuration that watches its file, with server a or b alone.
fn watching(site: &Site, server: usize) -> String {
    let web = &site.webs[server];
    "[global]\nwatch_config = true\n".to_owned()
        + &frontend("web", site.lb.addr(80), "web", "")
        + &backend("web", FAST_CHECK, &[(web.host().name(), web.addr(), "")])
}

fn answers(site: &Site) -> String {
    site.client.run(&format!("curl -s {} || true", site.url()))
}

fn a_file_replaced_by_rename_is_noticed() {
    let site = Site::new("rename", 2);
    let convey = site.convey(&watching(&site, 0));
    assert_eq!(answers(&site), "a");
    for turn in [1, 0, 1] {
        convey.write_config(&watching(&site, turn));
        wait_until("the new file is in effect", PATIENCE, || {
            answers(&site) == ["a", "b"][turn]
        });
    }
}

fn a_file_rewritten_in_place_is_noticed() {
    let site = Site::new("inplace", 2);
    let convey = site.convey(&watching(&site, 0));
    let text = fs::read_to_string(convey.config_path()).expect("the configuration");
    let (a, b) = (site.webs[0].addr().to_string(), site.webs[1].addr().to_string());
    fs::write(convey.config_path(), text.replace(&a, &b)).expect("write in place");
    wait_until("the new content is in effect", PATIENCE, || answers(&site) == "b");
}

fn a_swapped_symlink_is_noticed() {
    let site = Site::new("symlink", 2);
    let dir = site.lb.path("versions");
    let convey = {
        // convey.toml -> current/convey.toml, current -> 1, as Kubernetes lays out a mounted ConfigMap
        let convey = site.convey(&watching(&site, 0));
        let text = fs::read_to_string(convey.config_path()).expect("the configuration");
        drop(convey);
        let text_b = text.replace(&site.webs[0].addr().to_string(), &site.webs[1].addr().to_string());
        for (version, text) in [("1", &text), ("2", &text_b)] {
            fs::create_dir_all(dir.join(version)).expect("a version's directory");
            fs::write(dir.join(version).join("convey.toml"), text).expect("a version");
        }
        symlink("1", dir.join("current")).expect("the current version");
        site.lb.start(&format!(
            "cd {} && ln -s current/convey.toml convey.toml && exec {} --config convey.toml",
            dir.display(),
            crate::lab::convey::binary()
        ))
    };
    wait_until("version 1 is in effect", PATIENCE, || answers(&site) == "a");
    symlink("2", dir.join("next")).expect("the next version");
    fs::rename(dir.join("next"), dir.join("current")).expect("the swap");
    wait_until("version 2 is in effect", PATIENCE, || answers(&site) == "b");
    drop(convey);
}

fn a_reload_stops_and_starts_watching_the_file() {
    let site = Site::new("watch", 2);
    let convey = site.convey(&watching(&site, 0));
    let is_watching = || {
        let open = fs::read_dir(format!("/proc/{}/fd", convey.pid())).expect("the daemon's descriptors");
        let mut targets = open
            .flatten()
            .filter_map(|entry| fs::read_link(entry.path()).ok());
        targets.any(|target| target.as_os_str() == "anon_inode:inotify")
    };
    assert!(is_watching());
    let off = watching(&site, 1).replace("watch_config = true", "watch_config = false");
    convey.write_config(&off);
    wait_until("the new file is in effect", PATIENCE, || answers(&site) == "b");
    wait_until("nothing is watched", PATIENCE, || !is_watching());
    convey.reload(&watching(&site, 0));
    convey.write_config(&watching(&site, 1));
    wait_until("the next file is noticed", PATIENCE, || answers(&site) == "b");
}

fn sighup_reloads() {
    let site = Site::new("sighup", 2);
    let convey = site.convey(&site.config("", FAST_CHECK));
    convey.write_config(
        &(frontend("web", site.lb.addr(80), "web", "")
            + &backend("web", FAST_CHECK, &[("b", site.webs[1].addr(), "")])),
    );
    convey.signal(nix::sys::signal::Signal::SIGHUP);
    convey.wait_status("generation 2", |status| status.config_generation == 2);
    assert_eq!(site.ask(5), [("b".to_owned(), 5)].into());
}

fn a_bad_file_changes_nothing_and_says_where() {
    let site = Site::new("bad", 1);
    let good = site.config("", FAST_CHECK);
    let convey = site.convey(&good);
    let line = good
        .lines()
        .position(|line| line.starts_with("listen_addr"))
        .expect("the line")
        + 1;
    convey.write_config(&good.replace("listen_addr", "lisen_addr"));
    let output = convey.cli("reload");
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    let text = output.stdout + &output.stderr;
    assert!(
        text.contains(&format!("convey.toml:{line}:1")),
        "line and column are told:\n{text}"
    );
    assert!(
        text.contains("did you mean") && text.contains("listen_addr"),
        "a suggestion is made:\n{text}"
    );
    let status = convey.status();
    assert_eq!(status.config_generation, 1);
    let error = status
        .last_reload_error
        .expect("the status shows the failed reload");
    assert!(error.contains("lisen_addr"), "{error}");
    wait_until("the log shows it too", PATIENCE, || {
        convey.stderr().contains("lisen_addr")
    });
    assert_eq!(site.ask(3), [("a".to_owned(), 3)].into());
    fs::remove_file(convey.config_path()).expect("remove the file");
    assert!(
        !convey.cli("reload").status.success(),
        "a missing file is no configuration"
    );
    assert_eq!(site.ask(3), [("a".to_owned(), 3)].into());
    convey.reload(&good);
    assert_eq!(convey.status().last_reload_error, None);
}

fn a_reload_adds_a_server() {
    let site = Site::new("addserver", 2);
    let with = |count: usize| {
        let servers: Vec<_> = site.webs[..count]
            .iter()
            .map(|web| (web.host().name(), web.addr(), ""))
            .collect();
        frontend("web", site.lb.addr(80), "web", "") + &backend("web", FAST_CHECK, &servers)
    };
    let convey = site.convey(&with(1));
    assert_eq!(site.ask(4), [("a".to_owned(), 4)].into());
    convey.write_config(&with(2));
    let told = convey.order("reload");
    assert!(told.contains('b'), "the reload says what changed: {told}");
    wait_until("the new server answers too", PATIENCE, || {
        site.ask(8).contains_key("b")
    });
}

fn a_reload_adds_a_frontend_on_a_privileged_port() {
    let site = Site::new("addfrontend", 1);
    let config = site.config("", FAST_CHECK);
    let convey = site.convey(&config);
    convey.reload(&(frontend("second", site.lb.addr(81), "web", "") + &config));
    assert_eq!(
        site.client.run(&format!("curl -s http://{}/", site.lb.addr(81))),
        "a"
    );
    assert_eq!(convey.traffic("second").connections_total, 1);
}

fn a_removed_frontend_stops_listening_but_keeps_its_connections() {
    let lab = Lab::new("removed");
    let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("server"));
    let server = TcpServer::named(&host, 9, "s");
    let backend = backend("b", "", &[("s", server.addr(), "")]);
    let kept = frontend("kept", lb.addr(10), "b", "") + &backend;
    let convey = lab.convey(&lb, &(frontend("gone", lb.addr(9), "b", "") + &kept));
    let mut stream = client.connect(lb.addr(9));
    assert_eq!(read_line(&mut stream).expect("the greeting"), "s");
    convey.reload(&kept);
    wait_until("port 9 is closed", PATIENCE, || {
        client.try_connect(lb.addr(9)).is_err()
    });
    stream.write_all(b"still here\n").expect("send");
    assert_eq!(read_line(&mut stream).expect("the echo"), "still here");
}

fn a_frontend_that_is_removed_and_put_back_at_once_listens() {
    let lab = Lab::new("back");
    let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("server"));
    let server = TcpServer::named(&host, 9, "s");
    let kept = frontend("kept", lb.addr(11), "b", "") + &backend("b", "", &[("s", server.addr(), "")]);
    let with = frontend("f", lb.addr(9), "b", "") + &kept;
    // its first check keeps the reload busy while the next one, which has nothing to wait for, is ordered
    let silent = silent_server(&lab, &lb);
    let slow = frontend("g", lb.addr(10), "slow", "") + &backend("slow", "", &[("s", silent, "")]);
    let without = slow + &kept;
    let convey = lab.convey(&lb, &with);
    thread::scope(|scope| {
        scope.spawn(|| convey.reload(&without));
        wait_until("the first reload is under way", PATIENCE, || {
            convey.notify().assignments().contains(&"RELOADING=1".to_owned())
        });
        convey.reload(&with);
    });
    let mut stream = client.connect(lb.addr(9));
    assert_eq!(read_line(&mut stream).expect("the greeting"), "s");
}

fn a_removed_server_keeps_its_connections() {
    let lab = Lab::new("goneserver");
    let (client, lb, host) = (lab.host("client"), lab.host("lb"), lab.host("server"));
    let (old, new) = (
        TcpServer::named(&host, 9, "old"),
        TcpServer::named(&host, 10, "new"),
    );
    let with = |name, server: &TcpServer| {
        frontend("f", lb.addr(9), "b", "") + &backend("b", FAST_CHECK, &[(name, server.addr(), "")])
    };
    let convey = lab.convey(&lb, &with("old", &old));
    let mut stream = client.connect(lb.addr(9));
    assert_eq!(read_line(&mut stream).expect("the greeting"), "old");
    convey.reload(&with("new", &new));
    convey.wait_status("the new server is up", |status| {
        status.backends["b"].servers["new"].state == convey::base::ServerState::Up
    });
    assert_eq!(
        read_line(&mut client.connect(lb.addr(9))).expect("the greeting"),
        "new"
    );
    stream.write_all(b"still here\n").expect("send");
    assert_eq!(read_line(&mut stream).expect("the echo"), "still here");
    let listed = convey.connections().connections;
    let removed: Vec<_> = (listed.iter().filter(|connection| connection.server_removed))
        .map(|connection| {
            (
                connection.client.socket_addr().expect("its address"),
                connection.server_addr.and_then(|addr| Some(addr.on_network()?.0)),
            )
        })
        .collect();
    let own = stream.local_addr().expect("an address");
    assert_eq!(removed, [(own, Some(old.addr()))], "{listed:?}");
    let shown = convey.order("connections --server old");
    assert!(
        shown.contains("b/old (removed)"),
        "its name is known as long as it has connections: {shown}"
    );
}

fn an_address_in_use_fails_the_reload_and_changes_nothing() {
    let site = Site::new("inuse", 1);
    let _squatter = TcpServer::echo(&site.lb, 9000);
    let config = site.config("", FAST_CHECK);
    let convey = site.convey(&config);
    convey.write_config(
        &(frontend("free", site.lb.addr(9001), "web", "")
            + &frontend("taken", site.lb.addr(9000), "web", "")
            + &config),
    );
    let output = convey.cli("reload");
    let text = output.stdout + &output.stderr;
    assert_eq!(
        output.status.code(),
        Some(71),
        "an error of the system, not of the file: {text}"
    );
    assert!(text.contains(":9000"), "the address is named: {text}");
    assert_eq!(convey.status().frontends.len(), 1);
    assert!(
        site.client.try_connect(site.lb.addr(9001)).is_err(),
        "nothing of it was put in place"
    );
    assert_eq!(site.ask(2), [("a".to_owned(), 2)].into());
}

fn an_override_survives_a_reload_and_shows_in_the_status() {
    let site = Site::new("override", 2);
    let convey = site.convey(&site.config("", FAST_CHECK));
    convey.order("server drain web/a");
    convey.order("server weight web/b 7");
    convey.reload(&site.config("max_connections = 100", FAST_CHECK));
    let (a, b) = (convey.server("web", "a"), convey.server("web", "b"));
    assert_eq!(a.state, convey::base::ServerState::Draining);
    assert!(a.overridden.is_some());
    assert_eq!((b.weight, b.configured_weight), (7, 1));
    assert!(b.overridden.expect("shown as override").to_string().contains('7'));
    assert_eq!(site.ask(6), [("b".to_owned(), 6)].into());
    convey.order("server ready web/a");
    convey.order("server ready web/b");
    assert_eq!(convey.server("web", "b").weight, 1);
    assert!(site.ask(8).contains_key("a"));
}

fn settings_that_need_a_restart_are_named() {
    let site = Site::new("restart", 1);
    let config = |workers: u32| format!("[global]\nworkers = {workers}\n") + &site.config("", FAST_CHECK);
    let convey = site.convey(&config(1));
    convey.write_config(&config(2));
    let told = convey.order("reload");
    assert!(told.contains("global.workers"), "the reload names it: {told}");
    let status = convey.status();
    assert_eq!(status.needs_restart, ["global.workers"]);
    assert_eq!(status.workers, 1);
}
