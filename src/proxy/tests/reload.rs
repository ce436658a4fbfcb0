//! A reload while connections wait, for a server or for a retry.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::Arc,
};

use super::rig::{PLENTY, Rig, closed_port, echo, parsed, read_all, server, silent_address, wait_until};
use crate::{
    base::TerminationReason as Reason,
    config::Config,
    snapshot::{BackendView, live::Totals},
};

/// Settings of a backend whose connections wait for hours.
const PATIENT: &str = "queue_timeout = \"1h\"\nconnect_timeout = \"1h\"\nretries = 100";

/// `[backends.NAME]` with one server.
fn backend(name: &str, settings: &str, server: &str, addr: SocketAddr, limit: u32) -> String {
    format!(
        "[backends.{name}]\nhealth_check = {{ enabled = false }}\npassive_check = {{ enabled = false }}\n{settings}\n\
         servers.{server} = {{ addr = \"{addr}\", max_connections = {limit} }}\n"
    )
}

/// The frontend `web` before these backends.
fn web(listen: SocketAddr, to: &str, backends: &[String]) -> Config {
    let frontend = format!("[frontends.web]\nlisten_addr = \"{listen}\"\nbackend = \"{to}\"\n");
    parsed(&(frontend + &backends.concat()))
}

/// A rig whose backend `a` has one server `one` with room for one connection; and that connection, and one that waits.
fn full(one: SocketAddr) -> (Rig, TcpStream, TcpStream) {
    let rig = Rig::with(
        |listen| web(listen, "a", &[backend("a", PATIENT, "one", one, 1)]),
        PLENTY,
    );
    let served = rig.client();
    let waiting = rig.queued_client();
    (rig, served, waiting)
}

/// A connection gets an answer, and ends.
fn finish(client: &mut TcpStream) {
    client.write_all(b"x").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(client), b"x");
}

/// Every connection that was opened has ended for a reason.
fn assert_balanced(totals: &Totals) {
    assert_eq!(totals.current, 0);
    assert_eq!(totals.ended.iter().sum::<u64>(), totals.opened);
}

fn totals(backend: &BackendView) -> Totals {
    backend.live.counters.totals()
}

#[test]
fn who_waits_goes_where_the_frontend_is_sent() {
    let (one, two) = (server(echo), server(echo));
    let (mut rig, served, mut waiting) = full(one);
    let a = rig.backend();
    let both = [
        backend("a", PATIENT, "one", one, 1),
        backend("b", PATIENT, "two", two, 9),
    ];
    rig.reload(&web(rig.addr, "b", &both));
    let b = Arc::clone(&rig.snapshot.load().backends["b"]);
    wait_until("it has a server", || {
        b.servers[0].live.counters.totals().opened == 1
    });
    assert_eq!(a.live.queue.used(), 0);
    let left = totals(&a);
    assert_eq!((left.opened, left.current), (2, 1));
    assert_eq!(left.ended[Reason::Rerouted as usize], 1);
    drop(served);
    rig.record();
    assert_eq!(rig.listed(), ("b".to_owned(), Some("two".to_owned())));
    finish(&mut waiting);
    let record = rig.record();
    assert_eq!(Rig::served_by(&record), ("b", "two"));
    assert_eq!((record.retries, record.redispatched), (0, false));
    wait_until("both are closed", || rig.workers.open_connections() == 0);
    let web = Arc::clone(&rig.snapshot.load().frontends["web"]);
    for totals in [
        totals(&a),
        totals(&b),
        web.live.counters.totals(),
        a.servers[0].live.counters.totals(),
        b.servers[0].live.counters.totals(),
    ] {
        assert_balanced(&totals);
    }
    assert_eq!(web.live.counters.totals().opened, 2);
    assert_eq!((totals(&b).bytes_in, totals(&b).bytes_out), (1, 1));
    assert_eq!((totals(&a).bytes_in, totals(&a).bytes_out), (0, 0));
}

#[test]
fn who_waits_leaves_a_backend_that_is_removed() {
    let (one, two) = (server(echo), server(echo));
    let (mut rig, _served, mut waiting) = full(one);
    let a = rig.backend();
    rig.reload(&web(rig.addr, "b", &[backend("b", PATIENT, "two", two, 9)]));
    finish(&mut waiting);
    assert_eq!(Rig::served_by(&rig.record()), ("b", "two"));
    assert_eq!(totals(&a).ended[Reason::Rerouted as usize], 1);
    assert_eq!((totals(&a).opened, totals(&a).current), (2, 1));
}

#[test]
fn who_waits_for_a_server_that_is_removed_gets_another() {
    let (one, two) = (server(echo), server(echo));
    let (mut rig, _served, mut waiting) = full(one);
    rig.reload(&web(rig.addr, "a", &[backend("a", PATIENT, "two", two, 9)]));
    finish(&mut waiting);
    assert_eq!(Rig::served_by(&rig.record()), ("a", "two"));
    let a = rig.backend();
    assert_eq!(totals(&a).ended[Reason::Rerouted as usize], 0);
    assert_eq!((totals(&a).opened, totals(&a).current), (2, 1));
}

#[test]
fn who_waits_gets_the_room_that_a_reload_makes() {
    let one = server(echo);
    let (mut rig, _served, mut waiting) = full(one);
    rig.reload(&web(rig.addr, "a", &[backend("a", PATIENT, "one", one, 2)]));
    finish(&mut waiting);
    assert_eq!(Rig::served_by(&rig.record()), ("a", "one"));
}

#[test]
fn who_waits_waits_as_long_as_the_reloaded_configuration_says() {
    let one = server(echo);
    let (mut rig, _served, mut waiting) = full(one);
    let hurried = backend("a", "queue_timeout = \"1ms\"", "one", one, 1);
    rig.reload(&web(rig.addr, "a", &[hurried]));
    assert!(waiting.read(&mut [0]).is_err());
    let record = rig.record();
    assert_eq!((record.reason, record.server), (Reason::QueueTimeout, None));
}

#[test]
fn who_is_sent_to_a_full_queue_is_turned_away_in_the_name_of_its_backend() {
    let (one, two) = (server(echo), server(echo));
    let (mut rig, _served, mut waiting) = full(one);
    let closed = backend("b", "max_queue = 0", "two", two, 1);
    let b_is_full = |rig: &Rig| {
        rig.snapshot.load().backends["b"].servers[0]
            .live
            .slots
            .try_take(None)
    };
    // the one place of two is taken before the frontend is sent there
    let both = [backend("a", PATIENT, "one", one, 1), closed];
    rig.reload(&web(rig.addr, "a", &both));
    assert!(b_is_full(&rig));
    rig.reload(&web(rig.addr, "b", &both));
    assert!(waiting.read(&mut [0]).is_err());
    let record = rig.record();
    assert_eq!(record.backend.unwrap().as_str(), "b");
    assert_eq!((record.reason, record.server), (Reason::QueueFull, None));
}

#[test]
fn who_waits_when_frontend_and_backend_are_removed_is_served_all_the_same() {
    let (mut rig, served, mut waiting) = full(server(echo));
    let a = rig.backend();
    rig.reload(&parsed("[global]\n"));
    drop(served);
    rig.record();
    finish(&mut waiting);
    let record = rig.record();
    assert_eq!(
        (record.frontend.as_str(), Rig::served_by(&record)),
        ("web", ("a", "one"))
    );
    wait_until("both are closed", || rig.workers.open_connections() == 0);
    assert_balanced(&totals(&a));
    assert_balanced(&a.servers[0].live.counters.totals());
}

#[test]
fn who_waits_when_only_the_frontend_is_removed_follows_its_backend() {
    let (one, two) = (server(echo), server(echo));
    let (mut rig, _served, mut waiting) = full(one);
    rig.reload(&parsed(&backend("a", PATIENT, "two", two, 9)));
    finish(&mut waiting);
    assert_eq!(Rig::served_by(&rig.record()), ("a", "two"));
}

#[test]
fn a_retry_goes_where_the_frontend_is_sent() {
    let (closed, two) = (closed_port(), server(echo));
    let one = backend("a", PATIENT, "one", closed, 9);
    let mut rig = Rig::with(|listen| web(listen, "a", std::slice::from_ref(&one)), PLENTY);
    let a = rig.backend();
    let mut client = rig.client();
    wait_until("a connect has failed", || totals(&a).connect_failures > 0);
    rig.reload(&web(rig.addr, "b", &[one, backend("b", PATIENT, "two", two, 9)]));
    finish(&mut client);
    let record = rig.record();
    assert_eq!(Rig::served_by(&record), ("b", "two"));
    assert!(record.retries > 0 && record.redispatched);
    wait_until("it is closed", || rig.workers.open_connections() == 0);
    let (web, b) = {
        let snapshot = rig.snapshot.load();
        (
            Arc::clone(&snapshot.frontends["web"]),
            Arc::clone(&snapshot.backends["b"]),
        )
    };
    for totals in [totals(&a), totals(&b), web.live.counters.totals()] {
        assert_balanced(&totals);
        assert_eq!(totals.opened, 1);
    }
    // failures are those of the backend that they happened in
    assert_eq!(
        totals(&a).connect_failures,
        web.live.counters.totals().connect_failures
    );
    assert_eq!((totals(&b).connect_failures, totals(&b).retries), (0, 0));
}

#[test]
fn a_retry_that_is_sent_where_no_server_is_eligible_ends_without_the_name_of_one() {
    let (closed, two) = (closed_port(), server(echo));
    let one = backend("a", PATIENT, "one", closed, 9);
    let mut rig = Rig::with(|listen| web(listen, "a", std::slice::from_ref(&one)), PLENTY);
    let a = rig.backend();
    let mut client = rig.client();
    wait_until("a connect has failed", || totals(&a).connect_failures > 0);
    let none = backend("b", PATIENT, "two", two, 9).replace("max_connections = 9", "weight = 0");
    rig.reload(&web(rig.addr, "b", &[one, none]));
    assert!(client.read(&mut [0]).is_err());
    let record = rig.record();
    assert_eq!(record.backend.unwrap().as_str(), "b");
    assert_eq!((record.reason, record.server), (Reason::NoServer, None));
    assert!(!record.redispatched);
}

#[test]
fn a_server_at_another_address_is_tried_although_one_of_its_name_has_failed() {
    let one = backend("a", PATIENT, "one", closed_port(), 9);
    let mut rig = Rig::with(|listen| web(listen, "a", &[one]), PLENTY);
    let a = rig.backend();
    let mut client = rig.client();
    wait_until("a connect has failed", || totals(&a).connect_failures > 0);
    rig.reload(&web(
        rig.addr,
        "a",
        &[backend("a", PATIENT, "one", server(echo), 9)],
    ));
    finish(&mut client);
    assert_eq!(Rig::served_by(&rig.record()), ("a", "one"));
}

#[test]
fn the_time_to_connect_is_that_of_the_backend_in_effect() {
    let (mut rig, _served, mut waiting) = full(server(echo));
    let (silent, _queue) = silent_address();
    let hasty = backend("b", "connect_timeout = \"50ms\"\nretries = 0", "two", silent, 9);
    rig.reload(&web(rig.addr, "b", &[hasty]));
    assert!(waiting.read(&mut [0]).is_err());
    let record = rig.record();
    assert_eq!(
        (Rig::served_by(&record), record.reason),
        (("b", "two"), Reason::ConnectTimeout)
    );
}
