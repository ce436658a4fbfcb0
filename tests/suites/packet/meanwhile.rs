//! Something else happens while the broker works, and what a failed reload leaves.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use nix::sys::signal::Signal;

use crate::{
    Test,
    lab::{Convey, Family, Host, PATIENCE, open_to_all, servers::TcpServer, wait_until},
    site::{FAST_CHECK, Mode, Plan, Port, Site, Transport, vip},
    tests,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    Convey: iptables_that_take_their_time_hold_up_nothing,
    Convey: a_failed_reload_leaves_source_addresses_and_next_hops_alone,
];

const NAT: (Mode, Family) = (Mode::Passthrough, Family::V4);

/// Programs in the place of iptables that do as they are told.
struct Iptables(PathBuf);

impl Iptables {
    fn on(host: &Host) -> Self {
        let directory = host.path("bin");
        fs::create_dir(&directory).expect("a directory for programs");
        open_to_all(&directory);
        let iptables = Self(directory);
        for name in ["iptables", "ip6tables"] {
            let real = host.run(&format!("command -v {name}"));
            let script = format!(
                "#!/bin/sh\nwhile [ -e {slow} ]; do sleep 0.05; done\n\
                 [ ! -e {broken} ] || {{ echo broken on purpose >&2; exit 4; }}\nexec {real} \"$@\"\n",
                slow = iptables.switch("slow").display(),
                broken = iptables.switch("broken").display(),
                real = real.trim()
            );
            let path = iptables.switch(name);
            fs::write(&path, script).expect("a program");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod of a program");
        }
        iptables
    }

    fn switch(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Convey, ready, that finds these.
    fn convey(&self, site: &Site, plan: &Plan) -> Convey {
        site.prepare_servers(plan);
        let path = std::env::var("PATH").expect("a PATH");
        let path = format!("PATH={}:{path}", self.0.display());
        let mut convey = Convey::launch_with(&site.lb, &plan.config(), &["env", &path]);
        convey.wait_ready();
        convey
    }
}

fn set(switch: &Path, on: bool) {
    if on {
        fs::write(switch, "").expect("a switch");
    } else {
        fs::remove_file(switch).expect("no switch");
    }
}

fn plan(site: &Site, servers: usize) -> Plan {
    let ports = [Port::same("web", Transport::Tcp, 9)];
    let mut plan = Plan::new(&ports, &site.servers[..servers]).by(&[NAT]);
    plan.backend = FAST_CHECK.to_owned();
    plan
}

fn iptables_that_take_their_time_hold_up_nothing() {
    let site = Site::new("slow", 2);
    let mut servers: Vec<_> = (site.servers.iter())
        .map(|host| TcpServer::named(host, 9, host.name()))
        .collect();
    let iptables = Iptables::on(&site.lb);
    let mut convey = iptables.convey(&site, &plan(&site, 2));
    let slow = iptables.switch("slow");
    set(&slow, true);
    // the rules are looked at every ten seconds
    let children = format!("/proc/{0}/task/{0}/children", convey.broker());
    wait_until("the broker waits for iptables", PATIENCE, || {
        fs::read_to_string(&children).is_ok_and(|children| !children.trim().is_empty())
    });
    assert!(convey.cli("status --quiet").status.success());
    servers.pop();
    convey.wait_status("a death is noticed", |status| {
        status.backends["web-v4"].eligible == 1
    });
    assert!(
        fs::read_to_string(&children).is_ok_and(|children| !children.trim().is_empty()),
        "all that while the broker waits"
    );
    convey.signal(Signal::SIGTERM);
    assert!(convey.wait_exit(PATIENCE).success());
    set(&slow, false);
}

fn a_failed_reload_leaves_source_addresses_and_next_hops_alone() {
    let site = Site::new("rejected", 2);
    let servers: Vec<_> = (site.servers.iter())
        .map(|host| TcpServer::named(host, 9, host.name()))
        .collect();
    site.lb.add_address("eth0", "10.77.0.200/24");
    let iptables = Iptables::on(&site.lb);
    let convey = iptables.convey(&site, &plan(&site, 1));
    let before = convey.status().packet.expect("packet modes").next_hops;

    let mut rejected = plan(&site, 2);
    rejected.passthrough = "nat_address = \"10.77.0.200\"".to_owned();
    set(&iptables.switch("broken"), true);
    convey.write_config(&rejected.config());
    let reload = convey.cli("reload");
    assert_eq!(reload.status.code(), Some(71), "{reload:?}");
    assert!((reload.stdout + &reload.stderr).contains("broken on purpose"));
    set(&iptables.switch("broken"), false);

    convey.wait_status("nothing of it is left", |status| {
        status
            .packet
            .as_ref()
            .is_some_and(|packet| packet.next_hops == before)
    });
    let to = (vip(NAT), 9).into();
    drop(site.client.connect(to));
    wait_until("a connection arrives", PATIENCE, || servers[0].accepted() > 0);
    let from = servers[0].peers().last().expect("a peer").ip();
    let checks = std::net::IpAddr::from(site.lb.ip4());
    assert_eq!(from, checks, "the source address is that of before");

    // and the next reload has it
    convey.order("reload");
    let next_hops = convey.status().packet.expect("packet modes").next_hops;
    assert!(
        next_hops.len() == 2
            && next_hops
                .values()
                .all(|hop| hop.locals == [std::net::IpAddr::from([10, 77, 0, 200])]),
        "{next_hops:?}"
    );
}
