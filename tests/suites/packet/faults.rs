//! Servers die and come back.

use std::{io, net::SocketAddr};

use convey::base::ServerState;

use crate::{
    Test,
    kept::{chosen, everywhere, witnesses},
    lab::{
        Convey, Family, Host, PATIENCE,
        servers::{TcpServer, Witness},
        udp::{UdpClient, UdpServer},
        wait_until,
    },
    site::{FAST_CHECK, PASSTHROUGH, Plan, Port, Site, Transport, WAYS, backend_name, vip},
    talkers::Talkers,
    tests,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    Convey: a_dead_server_takes_only_its_own_flows_along,
    Convey: a_dead_servers_passthrough_flows_are_reset_at_their_next_packet,
    Convey: without_a_server_clients_are_told_at_once,
    Convey: health_checks_leave_from_outside_the_nat_ports,
    Convey: health_checks_of_a_udp_service_reach_its_servers,
];

const WITNESS: Port = Port::same("witness", Transport::Tcp, 9);
const ECHO: Port = Port::same("echo", Transport::Udp, 7);

fn wait_server(convey: &Convey, port: &str, server: &str, state: ServerState) {
    convey.wait_status(&format!("{server} is {state:?}"), |status| {
        Family::ALL.iter().all(|family| {
            status
                .backends
                .get(backend_name(port, *family).as_str())
                .is_none_or(|backend| backend.servers[server].state == state)
        })
    });
}

/// What the rule with a comment has counted on a host.
#[track_caller]
fn counted(host: &Host, comment: &str) -> u32 {
    let rules = host.run("nft list table inet count");
    let line = rules
        .lines()
        .find(|line| line.contains(comment))
        .expect("the rule");
    let mut words = line.split_whitespace().skip_while(|word| *word != "packets");
    words
        .nth(1)
        .and_then(|count| count.parse().ok())
        .expect("a count")
}

fn a_dead_server_takes_only_its_own_flows_along() {
    let site = Site::new("dead", 3);
    let _witnesses = witnesses(&site);
    let mut plan = Plan::new(&[WITNESS], &site.servers);
    plan.backend = FAST_CHECK.to_owned();
    let convey = site.convey(&plan);
    wait_server(&convey, "witness", "a", ServerState::Up);
    let talkers = Talkers::start(&site.client, &everywhere(), 8);
    assert_eq!(talkers.servers().len(), 3, "{:?}", talkers.servers());
    site.lab.unplug(&site.servers[0]);
    wait_server(&convey, "witness", "a", ServerState::Down);
    assert_eq!(chosen(&site, 8), ["b", "c"]);
    talkers.expect_unbroken_but("a");
    site.lab.plug(&site.servers[0]);
    wait_server(&convey, "witness", "a", ServerState::Up);
    assert_eq!(chosen(&site, 8), ["a", "b", "c"]);
    talkers.expect_unbroken_but("a");
}

pub fn a_dead_servers_passthrough_flows_are_reset_at_their_next_packet() {
    let site = Site::new("reset", 1);
    let _witnesses = witnesses(&site);
    let mut plan = Plan::new(&[WITNESS], &site.servers).by(&PASSTHROUGH);
    plan.backend = FAST_CHECK.to_owned();
    let convey = site.convey(&plan);
    wait_server(&convey, "witness", "a", ServerState::Up);
    let mut flows: Vec<Witness> = PASSTHROUGH
        .iter()
        .map(|way| Witness::meet(&site.client, SocketAddr::new(vip(*way), 9)).expect("a meeting"))
        .collect();
    site.lab.unplug(&site.servers[0]);
    wait_server(&convey, "witness", "a", ServerState::Down);
    for flow in &mut flows {
        let error = flow.talk(b"anybody there?").expect_err("the server is down");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}");
    }
}

fn without_a_server_clients_are_told_at_once() {
    let site = Site::new("nobody", 1);
    let mut plan = Plan::new(&[WITNESS], &site.servers);
    plan.backend = FAST_CHECK.to_owned();
    // nothing listens there
    let convey = site.convey(&plan);
    wait_server(&convey, "witness", "a", ServerState::Down);
    site.client.nft(
        "table inet count {
           chain out {
             type filter hook output priority 0
             tcp flags & (syn | ack) == syn tcp dport 9 counter comment \"asked\"
           }
           chain in {
             type filter hook input priority 0
             tcp flags & rst == rst tcp sport 9 counter comment \"told\"
           }
         }",
    );
    for way in WAYS {
        let error = site
            .client
            .try_connect(SocketAddr::new(vip(way), 9))
            .expect_err("no server is up");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{way:?}: {error}");
        // at once: the first question too has its answer
        wait_until(&format!("{way:?}: every question is answered"), PATIENCE, || {
            counted(&site.client, "asked") == counted(&site.client, "told")
        });
    }
    drop(convey);
    let mut plan = Plan::new(&[ECHO], &site.servers);
    for server in &mut plan.servers {
        server.1 = 0;
    }
    let _convey = site.convey(&plan);
    for way in WAYS {
        let client = UdpClient::new(&site.client, SocketAddr::new(vip(way), 7));
        let error = client.ask(b"?").expect_err("no server is up");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{way:?}: {error}");
    }
}

fn health_checks_leave_from_outside_the_nat_ports() {
    let site = Site::new("checks", 1);
    let server = &site.servers[0];
    let _listener = TcpServer::echo(server, 9);
    // a check is reset before the server's program could see it
    server.nft(
        "table inet count {
           chain in {
             type filter hook input priority 0
             tcp flags & (syn | ack) == syn tcp dport 9 tcp sport 40000-52000 counter comment \"inside\"
             tcp flags & (syn | ack) == syn tcp dport 9 counter comment \"all\"
           }
         }",
    );
    let mut plan = Plan::new(&[WITNESS], &site.servers).by(&[WAYS[0], WAYS[2]]);
    plan.backend =
        r#"health_check = { interval = "50ms", fast_interval = "50ms", timeout = "1s" }"#.to_owned();
    // a third of the ports that connections leave from otherwise
    plan.nat_ports = "40000-52000";
    let convey = site.convey(&plan);
    wait_server(&convey, "witness", "a", ServerState::Up);
    wait_until("forty checks", PATIENCE, || counted(server, "all") >= 40);
    assert_eq!(counted(server, "inside"), 0);
    let server = convey.server("witness-v4", "a");
    assert_eq!(server.state, ServerState::Up, "{server:?}");
}

fn health_checks_of_a_udp_service_reach_its_servers() {
    let site = Site::new("udpchecks", 1);
    let server = &site.servers[0];
    let _echo = UdpServer::echo(server, server.addr(7), "");
    // a check is a connection by TCP
    let _listener = TcpServer::echo(server, 7);
    let mut plan = Plan::new(&[ECHO], &site.servers).by(&[WAYS[0], WAYS[2]]);
    plan.backend = FAST_CHECK.to_owned();
    let convey = site.convey(&plan);
    wait_server(&convey, "echo", "a", ServerState::Up);
    for way in &plan.ways {
        let client = UdpClient::new(&site.client, SocketAddr::new(vip(*way), 7));
        assert_eq!(client.ask(b"?").expect("an answer"), b"?", "{way:?}");
    }
}
