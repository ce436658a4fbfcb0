//! One Convey serves the packet modes of a host, and a second one is told which.

use std::os::{linux::net::SocketAddrExt as _, unix::net};

use nix::sys::signal::Signal;

use crate::{
    Test,
    kept::{everywhere, witnesses},
    lab::{Convey, PATIENCE, servers::Witness},
    process::{expect_nothing_left, rules},
    site::{Plan, Port, Site, Transport},
    tests,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    Convey: a_second_convey_with_packet_frontends_names_the_first_and_ends,
    Convey: a_reload_that_needs_the_packet_modes_of_another_convey_fails_and_names_it,
    Convey: a_convey_that_drains_lets_the_next_one_have_the_packet_modes,
    Convey: a_start_without_packet_frontends_leaves_the_rules_of_another_convey,
    Convey: a_stranger_who_has_taken_the_name_is_named,
];

const WITNESS: Port = Port::same("witness", Transport::Tcp, 9);

fn plan(site: &Site) -> Plan {
    Plan::new(&[WITNESS], &site.servers)
}

/// A frontend in mode proxy, on the load balancer's own address.
fn proxied(site: &Site, global: &str) -> String {
    format!(
        "[global]\nwatch_config = false\n{global}\n[frontends.p]\nlisten_addr = \"{}\"\nbackend = \"p\"\n\
         [backends.p]\nservers.s = {{ addr = \"{}\" }}\n",
        site.lb.addr(80),
        site.servers[0].addr(9)
    )
}

#[track_caller]
fn expect_named(text: &str, first: &Convey) {
    let named = format!(
        "a running convey (process {}, configuration {}) holds the packet modes",
        first.pid(),
        first.config_path().display()
    );
    assert!(text.contains(&named), "{named:?} is not in\n{text}");
}

fn a_second_convey_with_packet_frontends_names_the_first_and_ends() {
    let site = Site::new("second", 1);
    let _witnesses = witnesses(&site);
    let first = site.convey(&plan(&site));
    let before = rules(&site.lb);
    let mut flow = Witness::meet(&site.client, everywhere()[0]).expect("a meeting");
    let mut second = Convey::launch_beside(&site.lb, "second", &plan(&site).config());
    let status = second.wait_exit(PATIENCE);
    assert_eq!(status.code(), Some(69), "{}", second.stderr());
    expect_named(&second.stderr(), &first);
    assert_eq!(rules(&site.lb), before, "the first one's rules");
    flow.talk(b"still there").expect("the first one's flow goes on");
}

fn a_reload_that_needs_the_packet_modes_of_another_convey_fails_and_names_it() {
    let site = Site::new("reloaded", 1);
    let _witnesses = witnesses(&site);
    let mut first = site.convey(&plan(&site));
    let config = proxied(&site, "");
    let mut second = Convey::launch_beside(&site.lb, "second", &config);
    second.wait_ready();
    second.write_config(&format!("{config}\n{}", plan(&site).config()));
    let failed = second.cli("reload");
    assert!(!failed.status.success(), "{failed:?}");
    expect_named(&failed.stderr, &first);
    Witness::meet(&site.client, site.lb.addr(80)).expect("it goes on as it was");
    Witness::meet(&site.client, everywhere()[0]).expect("so does the first");
    first.signal(Signal::SIGTERM);
    first.wait_exit(PATIENCE);
    second.order("reload");
    for vip in everywhere() {
        Witness::meet(&site.client, vip).expect("the second one serves them now");
    }
}

fn a_convey_that_drains_lets_the_next_one_have_the_packet_modes() {
    let site = Site::new("drains", 1);
    let _witnesses = witnesses(&site);
    let config = format!(
        "{}\n{}",
        proxied(&site, "shutdown_timeout = \"10m\""),
        plan(&site).config()
    );
    site.prepare_servers(&plan(&site));
    let mut first = site.lab.convey(&site.lb, &config);
    let mut open = Witness::meet(&site.client, site.lb.addr(80)).expect("a proxied connection");
    first.signal(Signal::SIGTERM);
    let mut second = Convey::launch_beside(&site.lb, "second", &plan(&site).config());
    second.wait_ready();
    for vip in everywhere() {
        Witness::meet(&site.client, vip).expect("the second one serves them");
    }
    assert!(first.ended().is_none(), "the first one still drains");
    open.talk(b"still there").expect("its connection goes on");
    first.signal(Signal::SIGTERM);
    first.wait_exit(PATIENCE);
    Witness::meet(&site.client, everywhere()[0]).expect("the end of the first takes nothing from the second");
    assert!(rules(&site.lb).contains("-j CONVEY"), "{}", rules(&site.lb));
    second.signal(Signal::SIGTERM);
    second.wait_exit(PATIENCE);
    expect_nothing_left(&site.lb);
}

fn a_start_without_packet_frontends_leaves_the_rules_of_another_convey() {
    let site = Site::new("beside", 1);
    let _witnesses = witnesses(&site);
    let first = site.convey(&plan(&site));
    let before = rules(&site.lb);
    // where the first one's record is, of which it could take the rules for an earlier process's
    let socket = first.dir().join("second.sock");
    let config = format!(
        "{}\n[admin]\nsocket = \"{}\"\n",
        proxied(&site, ""),
        socket.display()
    );
    let mut second = Convey::launch_beside(&site.lb, "second", &config);
    second.wait_ready();
    assert_eq!(rules(&site.lb), before);
    Witness::meet(&site.client, everywhere()[0]).expect("the first one serves");
    second.signal(Signal::SIGTERM);
    second.wait_exit(PATIENCE);
    assert_eq!(rules(&site.lb), before);
}

fn a_stranger_who_has_taken_the_name_is_named() {
    let site = Site::new("squatter", 1);
    let _squatter = site.lb.inside(|| {
        let name = net::SocketAddr::from_abstract_name(b"convey-packet-modes").expect("a name");
        net::UnixListener::bind_addr(&name).expect("the name is free")
    });
    let mut convey = Convey::launch(&site.lb, &plan(&site).config());
    assert_eq!(convey.wait_exit(PATIENCE).code(), Some(69));
    let said = convey.stderr();
    let us = std::process::id();
    assert!(
        said.contains(&format!("another process ({us}) holds the name"))
            && said.contains(&format!("ps -fp {us}")),
        "{said}"
    );
    expect_nothing_left(&site.lb);
}
