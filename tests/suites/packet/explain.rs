//! `convey explain` and `convey connections` tell where packets really go.

use std::{
    io,
    net::{SocketAddr, TcpStream},
};

use socket2::{Domain, Socket, Type};

use crate::{
    Test,
    kept::witnesses,
    lab::{Host, PATIENCE, servers::Witness, wait_until},
    site::{Mode, Plan, Port, Site, Transport, WAYS, backend_name, vip},
    tests, told,
};

/// Tests of this module.
pub const TESTS: &[Test] = tests![
    Convey: an_explanation_before_a_connection_comes_true,
    Convey: an_explanation_knows_flows_draining_and_no_server,
    Convey: open_flows_are_listed,
    Convey: flows_of_a_server_are_closed_and_those_of_others_and_of_dsr_go_on,
];

const WITNESS: Port = Port::same("witness", Transport::Tcp, 9);

/// Connects from a port of one's own choice.
#[track_caller]
pub fn connect_from(host: &Host, own: SocketAddr, to: SocketAddr) -> TcpStream {
    let stream = try_connect_from(host, own, to);
    stream.unwrap_or_else(|error| panic!("{own} cannot connect to {to}: {error}"))
}

/// As [`connect_from`].
///
/// # Errors
/// As connecting.
pub fn try_connect_from(host: &Host, own: SocketAddr, to: SocketAddr) -> io::Result<TcpStream> {
    host.inside(|| {
        let socket = Socket::new(Domain::for_address(own), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&own.into())?;
        socket.connect_timeout(&to.into(), PATIENCE)?;
        Ok(TcpStream::from(socket))
    })
}

fn an_explanation_before_a_connection_comes_true() {
    let site = Site::new("explain", 3);
    let _witnesses = witnesses(&site);
    let mut plan = Plan::new(&[WITNESS], &site.servers);
    plan.servers[0].1 = 3;
    let convey = site.convey(&plan);
    for way in WAYS {
        let to = SocketAddr::new(vip(way), 9);
        let mut servers = Vec::new();
        for port in 20_001..20_013 {
            let own = site.client.addr_of(way.1, port);
            let (told, answer) = told::explain(&convey, "tcp", own, to);
            let told = told.unwrap_or_else(|| panic!("{way:?}: no server: {answer}"));
            let witness = Witness::hear(connect_from(&site.client, own, to)).expect("a witness");
            assert_eq!(witness.server, told, "{way:?} {own}: {answer}");
            // and while it lives
            let (still, answer) = told::explain(&convey, "tcp", own, to);
            assert_eq!(still, Some(told.clone()), "{way:?} {own}: {answer}");
            servers.push(told);
        }
        servers.sort();
        servers.dedup();
        assert!(servers.len() > 1, "{way:?}: a choice of {servers:?}");
    }
}

fn an_explanation_knows_flows_draining_and_no_server() {
    let site = Site::new("why", 2);
    let _witnesses = witnesses(&site);
    let convey = site.convey(&Plan::new(&[WITNESS], &site.servers));
    for way in WAYS {
        let to = SocketAddr::new(vip(way), 9);
        let own = site.client.addr_of(way.1, 20_100);
        let witness = Witness::hear(connect_from(&site.client, own, to)).expect("a witness");
        let server = witness.server.clone();
        convey.order(&format!(
            "server drain {}/{server}",
            backend_name("witness", way.1)
        ));
        let (kept, answer) = told::explain(&convey, "tcp", own, to);
        assert_eq!(kept, Some(server.clone()), "{way:?}: its flow goes on: {answer}");
        for port in 20_200..20_210 {
            let (new, answer) = told::explain(&convey, "tcp", site.client.addr_of(way.1, port), to);
            assert!(
                new.is_some() && new != kept,
                "{way:?}: new ones go elsewhere: {answer}"
            );
        }
        for name in ["a", "b"] {
            convey.order(&format!(
                "server maintenance {}/{name} --force",
                backend_name("witness", way.1)
            ));
        }
        let (none, answer) = told::explain(&convey, "tcp", site.client.addr_of(way.1, 20_300), to);
        assert_eq!(none, None, "{way:?}: {answer}");
        for name in ["a", "b"] {
            convey.order(&format!("server ready {}/{name}", backend_name("witness", way.1)));
        }
    }
}

fn open_flows_are_listed() {
    let site = Site::new("listed", 1);
    let _witnesses = witnesses(&site);
    let convey = site.convey(&Plan::new(&[WITNESS], &site.servers));
    let open: Vec<Witness> = WAYS
        .iter()
        .map(|way| Witness::meet(&site.client, SocketAddr::new(vip(*way), 9)).expect("a meeting"))
        .collect();
    let listed = convey.order("connections --json");
    let answer: serde_json::Value = serde_json::from_str(&listed).expect("JSON");
    for (way, witness) in WAYS.iter().zip(&open) {
        let own = witness.stream().local_addr().expect("an own address").to_string();
        let all = answer["connections"].as_array().expect("a list");
        let entry = (all.iter().find(|entry| entry["client"] == own.as_str()))
            .unwrap_or_else(|| panic!("{way:?}: {own} is not in {listed}"));
        let mode = match way.0 {
            Mode::Passthrough => "passthrough",
            _ => "dsr",
        };
        assert_eq!(entry["mode"], mode, "{entry}");
        assert_eq!(entry["local"].is_string(), way.0 == Mode::Passthrough, "{entry}");
        assert!(
            entry["server_addr"].is_string() && entry["idle_seconds"].is_number(),
            "{entry}"
        );
        assert_eq!(entry["server_removed"], false, "{entry}");
    }
    // those of the kernel's program are counted every second
    wait_until("the four are counted", PATIENCE, || told::flows(&convey) == 4);
}

fn flows_of_a_server_are_closed_and_those_of_others_and_of_dsr_go_on() {
    let site = Site::new("closed", 2);
    let _witnesses = witnesses(&site);
    let convey = site.convey(&Plan::new(&[WITNESS], &site.servers));
    for way in WAYS {
        let meet = |_| Witness::meet(&site.client, SocketAddr::new(vip(way), 9)).expect("a meeting");
        let mut open: Vec<Witness> = (0..16).map(meet).collect();
        let first = open.iter().filter(|witness| witness.server == "a").count();
        assert!(first > 0 && first < 16, "{way:?}: {first}");
        let backend = backend_name("witness", way.1);
        let said = convey.order(&format!("server close {backend}/a"));
        let is_ours = way.0 == Mode::Passthrough;
        let expected = match is_ours {
            true => format!("{backend}/a: closed {first} connection"),
            false => format!("{backend}/a: closed 0 connections; {first} connection"),
        };
        assert!(said.starts_with(&expected), "{way:?}: {said}");
        for witness in &mut open {
            let answered = witness.talk(b"still there?");
            let is_closed = is_ours && witness.server == "a";
            let was_reset = answered
                .as_ref()
                .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset);
            assert!(
                if is_closed { was_reset } else { answered.is_ok() },
                "{way:?}: {}: {answered:?}",
                witness.server
            );
        }
    }
}
