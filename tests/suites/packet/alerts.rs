//! What goes wrong although every server is up is noted in the status and logged.

use std::net::SocketAddr;

use convey::base::{Alert, Handshake, PacketReason};
use serde_json::Value;
use socket2::{Domain, Socket, Type};

use crate::{
    Test,
    kept::witnesses,
    lab::{Convey, Host, PATIENCE, servers::Witness, wait_until},
    site::{PASSTHROUGH, Plan, Port, Site, Transport, WAYS, Way, backend_name, frontend_name, vip},
    tests,
    told::{self, Applicant},
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    Convey: a_dsr_server_without_its_rules_is_noted_and_told_of_once,
    Convey: a_passthrough_server_that_answers_no_syn_is_noted,
    Convey: used_up_nat_ports_are_told_of_once_and_noted_at_their_server,
    Convey: a_full_flow_table_is_told_of_and_noted,
    Convey: an_unresolved_next_hop_is_told_of_and_noted_at_its_server,
];

const WITNESS: Port = Port::same("witness", Transport::Tcp, 9);
const DSR_V4: Way = WAYS[2];
const NAT_V4: Way = PASSTHROUGH[0];

/// Incomplete handshakes that are noticed.
const MANY: usize = 12;

fn to(way: Way) -> SocketAddr {
    SocketAddr::new(vip(way), 9)
}

/// Clients that go on sending SYNs as long as nobody answers.
fn askers(client: &Host, to: SocketAddr, count: usize) -> Vec<Socket> {
    let ask = |_| {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).expect("a socket");
        socket
            .set_nonblocking(true)
            .expect("a socket that does not block");
        let asked = socket.connect(&to.into());
        assert_eq!(
            asked.map_err(|error| error.raw_os_error()),
            Err(Some(libc::EINPROGRESS))
        );
        socket
    };
    client.inside(|| (0..count).map(ask).collect())
}

/// What only the packet modes know of server a.
#[track_caller]
fn server_a(convey: &Convey) -> Value {
    let status = convey.status_json();
    let server = &status["backends"][backend_name("witness", NAT_V4.1)]["servers"]["a"]["packet"];
    assert!(server.is_object(), "nothing of the packet modes in {status}");
    server.clone()
}

/// Waits until server a has exactly these alerts.
#[track_caller]
fn wait_alerts(convey: &Convey, expected: &[Alert]) {
    let labels: Vec<_> = expected.iter().map(|alert| alert.label()).collect();
    wait_until(&format!("server a has the alerts {labels:?}"), PATIENCE, || {
        server_a(convey)["alerts"] == serde_json::json!(labels)
    });
}

/// Waits for a text in the log.
#[track_caller]
fn wait_log(convey: &Convey, text: &str) {
    wait_until(&format!("`{text}` in the log"), PATIENCE, || {
        convey.stderr().contains(text)
    });
}

fn a_dsr_server_without_its_rules_is_noted_and_told_of_once() {
    let site = Site::new("norules", 1);
    let _witnesses = witnesses(&site);
    let plan = Plan::new(&[WITNESS], &site.servers).by(&[DSR_V4]);
    // nothing is set up on the server
    let convey = site.lab.convey(&site.lb, &plan.config());
    let _askers = askers(&site.client, to(DSR_V4), MANY);
    wait_alerts(&convey, &[Alert::DsrIncomplete]);
    let frontend = frontend_name("witness", DSR_V4);
    wait_log(&convey, &format!("`convey backend-script {frontend} a`"));
    wait_log(&convey, &format!("`convey-backend-setup check {frontend}--a`"));
    let status = convey.order("status");
    assert!(status.contains(Alert::DsrIncomplete.sentence()), "{status}");
    let counted = &server_a(&convey)["handshakes"];
    assert!(
        counted[Handshake::DsrIncomplete.label()].as_u64() >= Some(10),
        "{counted}"
    );

    site.prepare_servers(&plan);
    let mut witness = Witness::meet(&site.client, to(DSR_V4)).expect("answers of the VIP");
    witness.talk(b"hello").expect("an echo");
    wait_log(&convey, "TCP handshakes complete again");
    wait_alerts(&convey, &[]);
    let log = convey.stderr();
    assert_eq!(log.matches("convey backend-script").count(), 1, "{log}");
}

fn a_passthrough_server_that_answers_no_syn_is_noted() {
    let site = Site::new("silent", 1);
    let _witnesses = witnesses(&site);
    // a firewall that does not let the load balancer in
    site.servers[0].nft(
        "table ip guard {
           chain in {
             type filter hook input priority 0
             tcp dport 9 drop
           }
         }",
    );
    let convey = site.convey(&Plan::new(&[WITNESS], &site.servers).by(&[NAT_V4]));
    let _askers = askers(&site.client, to(NAT_V4), MANY);
    wait_alerts(&convey, &[Alert::Unanswered]);
    wait_log(&convey, "the server answers no SYN");
    site.servers[0].nft("delete table ip guard");
    Witness::meet(&site.client, to(NAT_V4)).expect("a server that answers");
    wait_log(&convey, "TCP handshakes complete again");
}

fn used_up_nat_ports_are_told_of_once_and_noted_at_their_server() {
    const NAT_PORTS: usize = 20;
    let site = Site::new("noports", 1);
    let _witnesses = witnesses(&site);
    let mut plan = Plan::new(&[WITNESS], &site.servers).by(&[NAT_V4]);
    plan.nat_ports = "61000-61019";
    let mut convey = site.convey(&plan);
    let _held: Vec<Witness> = (0..NAT_PORTS)
        .map(|_| Witness::meet(&site.client, to(NAT_V4)).expect("a connection"))
        .collect();
    assert_eq!(server_a(&convey)["alerts"], serde_json::json!([]));
    let exhausted = [PacketReason::PortsExhausted];
    let mut applicant = Applicant::new(&site.client, to(NAT_V4), Some(&convey), &exhausted);
    assert!(applicant.try_connect().is_none(), "no port was left");
    wait_alerts(&convey, &[Alert::NatPorts]);
    wait_log(&convey, Alert::NatPorts.sentence());
    let server = server_a(&convey);
    assert_eq!(
        server["nat_ports"],
        serde_json::json!({ "claimed": NAT_PORTS, "available": NAT_PORTS })
    );
    let status = convey.order("status");
    assert!(status.contains("NAT 100 %; no NAT port is free"), "{status}");
    assert!(
        status.contains(PacketReason::PortsExhausted.sentence()),
        "{status}"
    );
    for _ in 0..2 {
        assert!(
            Applicant::new(&site.client, to(NAT_V4), Some(&convey), &exhausted)
                .try_connect()
                .is_none()
        );
    }
    convey.signal(nix::sys::signal::Signal::SIGTERM);
    convey.wait_exit(PATIENCE);
    let log = convey.stderr();
    assert_eq!(log.matches(Alert::NatPorts.sentence()).count(), 1, "{log}");
}

fn a_full_flow_table_is_told_of_and_noted() {
    const MAX_FLOWS: usize = 64;
    let site = Site::new("fulltable", 1);
    let _witnesses = witnesses(&site);
    let mut plan = Plan::new(&[WITNESS], &site.servers).by(&[NAT_V4]);
    plan.passthrough = format!("max_flows = {MAX_FLOWS}");
    let convey = site.convey(&plan);
    let full = [PacketReason::TableFull];
    let mut held = Vec::new();
    let mut applicant = Applicant::new(&site.client, to(NAT_V4), Some(&convey), &full);
    while let Some(stream) = applicant.try_connect() {
        held.push(Witness::hear(stream).expect("a witness"));
        assert!(held.len() <= MAX_FLOWS, "{} flows", held.len());
    }
    wait_log(&convey, Alert::FlowTable.sentence());
    wait_until("the status notes it", PATIENCE, || {
        convey.status_json()["packet"]["alerts"] == serde_json::json!([Alert::FlowTable.label()])
    });
    let status = convey.order("status");
    assert!(status.contains(Alert::FlowTable.sentence()), "{status}");
}

fn an_unresolved_next_hop_is_told_of_and_noted_at_its_server() {
    let site = Site::new("noanswer", 1);
    site.lab.unplug(&site.servers[0]);
    let plan = Plan::new(&[WITNESS], &site.servers).by(&[NAT_V4]);
    let convey = site.convey(&plan);
    let _askers = askers(&site.client, to(NAT_V4), 1);
    wait_alerts(&convey, &[Alert::NextHop]);
    wait_log(&convey, Alert::NextHop.sentence());
    let (server, answer) = told::explain(&convey, "tcp", site.client.addr(20_000), to(NAT_V4));
    assert_eq!(server.as_deref(), Some("a"), "{answer}");
    assert_eq!(answer["blocked_by"], PacketReason::Unresolved.label());
    let said = convey.order(&format!(
        "explain tcp {} {}",
        site.client.addr(20_000),
        to(NAT_V4)
    ));
    assert!(said.contains(PacketReason::Unresolved.sentence()), "{said}");
}
