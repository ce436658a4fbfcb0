//! Established flows are kept whatever the operator changes.

use std::net::SocketAddr;

use convey::base::{PacketReason, ServerState};

use crate::{
    Test,
    lab::{
        Family, PATIENCE,
        servers::{TcpServer, Witness},
        udp::{UdpClient, UdpServer},
        wait_until,
    },
    site::{PASSTHROUGH, Plan, Port, Site, Transport, WAYS, backend_name, frontend_name, vip},
    talkers::Talkers,
    tests,
    told::{self, Applicant},
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    Convey: a_drained_server_keeps_its_flows_and_gets_no_new_ones,
    Convey: a_removed_server_keeps_its_flows_and_comes_back,
    Convey: a_removed_frontend_keeps_its_flows,
    Any: a_changed_pool_breaks_no_passthrough_flow,
    Convey: a_flow_is_forgotten_after_its_idle_timeout,
];

const WITNESS: Port = Port::same("witness", Transport::Tcp, 9);
const OTHER: Port = Port::same("other", Transport::Tcp, 99);
const ECHO: Port = Port::same("echo", Transport::Udp, 7);

/// Witnesses on every server, by both families.
pub fn witnesses(site: &Site) -> Vec<TcpServer> {
    site.servers
        .iter()
        .flat_map(|host| {
            Family::ALL.map(|family| TcpServer::witness(host, host.addr_of(family, 9), host.name()))
        })
        .collect()
}

/// The witness's port by every way.
pub fn everywhere() -> Vec<SocketAddr> {
    WAYS.iter().map(|way| SocketAddr::new(vip(*way), 9)).collect()
}

/// Which servers new connections reach, by every way.
pub fn chosen(site: &Site, each: usize) -> Vec<String> {
    let mut servers: Vec<String> = everywhere()
        .iter()
        .flat_map(|to| (0..each).map(|_| Witness::meet(&site.client, *to).expect("a meeting").server))
        .collect();
    servers.sort();
    servers.dedup();
    servers
}

pub fn a_drained_server_keeps_its_flows_and_gets_no_new_ones() {
    let site = Site::new("drain", 3);
    let _witnesses = witnesses(&site);
    let convey = site.convey(&Plan::new(&[WITNESS], &site.servers));
    let talkers = Talkers::start(&site.client, &everywhere(), 12);
    assert_eq!(talkers.servers().len(), 3, "{:?}", talkers.servers());
    for family in Family::ALL {
        convey.order(&format!("server drain {}/a", backend_name("witness", family)));
    }
    convey.wait_status("a drains", |status| {
        status.backends["witness-v4"].servers["a"].state == ServerState::Draining
    });
    assert_eq!(chosen(&site, 10), ["b", "c"]);
    talkers.expect_unbroken();
    for family in Family::ALL {
        convey.order(&format!("server ready {}/a", backend_name("witness", family)));
    }
    assert_eq!(chosen(&site, 10), ["a", "b", "c"]);
    talkers.expect_unbroken();
}

fn a_removed_server_keeps_its_flows_and_comes_back() {
    let site = Site::new("remove", 3);
    let _witnesses = witnesses(&site);
    let all = Plan::new(&[WITNESS], &site.servers);
    let mut two = all.clone();
    two.servers.remove(0);
    let convey = site.convey(&all);
    let talkers = Talkers::start(&site.client, &everywhere(), 12);
    assert_eq!(talkers.servers().len(), 3, "{:?}", talkers.servers());
    convey.reload(&two.config());
    assert_eq!(chosen(&site, 10), ["b", "c"]);
    talkers.expect_unbroken();
    convey.reload(&all.config());
    assert_eq!(chosen(&site, 10), ["a", "b", "c"]);
    talkers.expect_unbroken();
}

fn a_removed_frontend_keeps_its_flows() {
    let site = Site::new("frontend", 2);
    let _witnesses = witnesses(&site);
    let both = Plan::new(&[WITNESS, OTHER], &site.servers);
    let convey = site.convey(&both);
    let talkers = Talkers::start(&site.client, &everywhere(), 5);
    convey.reload(&Plan::new(&[OTHER], &site.servers).config());
    let reasons = [PacketReason::NotOurs];
    let mut applicant = Applicant::new(&site.client, everywhere()[0], Some(&convey), &reasons);
    assert!(
        applicant.try_connect().is_none(),
        "the removed frontend takes nothing new"
    );
    talkers.expect_unbroken();
    convey.reload(&both.config());
    assert_eq!(chosen(&site, 10), ["a", "b"]);
    talkers.expect_unbroken();
}

fn a_changed_pool_breaks_no_passthrough_flow() {
    let site = Site::new("pool", 3);
    let _witnesses = witnesses(&site);
    let all = Plan::new(&[WITNESS], &site.servers).by(&PASSTHROUGH);
    let mut two = all.clone();
    two.servers.remove(1);
    let balancer = site.balance(&all);
    let to: Vec<SocketAddr> = PASSTHROUGH
        .iter()
        .map(|way| SocketAddr::new(vip(*way), 9))
        .collect();
    let talkers = Talkers::start(&site.client, &to, 12);
    for turn in 0..6 {
        balancer.change(if turn % 2 == 0 { &two } else { &all });
        talkers.wait_round();
    }
    talkers.expect_unbroken();
}

fn a_flow_is_forgotten_after_its_idle_timeout() {
    let site = Site::new("idle", 1);
    let server = &site.servers[0];
    let _echo = UdpServer::echo(server, server.addr(7), "");
    let mut plan = Plan::new(&[ECHO], &site.servers).by(&PASSTHROUGH[..1]);
    plan.frontend = "idle_timeout = \"3s\"".to_owned();
    let convey = site.convey(&plan);
    let flows = || {
        let status = convey.status();
        let traffic = &status.frontends[frontend_name("echo", PASSTHROUGH[0]).as_str()].traffic;
        (told::flows(&convey), traffic.connections_total)
    };
    let [busy, idle] = [(); 2].map(|()| {
        let client = UdpClient::new(&site.client, SocketAddr::new(vip(PASSTHROUGH[0]), 7));
        client.ask(b"first").expect("an answer");
        client
    });
    // a program's flows are counted every second
    wait_until("both are counted", PATIENCE, || flows() == (2, 2));
    // the idle one is the younger one, and goes first
    wait_until("a flow is forgotten", PATIENCE, || {
        busy.ask(b"alive").expect("an answer");
        told::flows(&convey) == 1
    });
    busy.ask(b"alive").expect("an answer");
    assert_eq!(flows(), (1, 2), "a flow in use stays");
    idle.ask(b"again").expect("a new flow");
    wait_until("the new one is counted", PATIENCE, || flows() == (2, 3));
}
