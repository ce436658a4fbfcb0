//! The data plane as a whole, on loopback sockets: what clients and servers see, and what is reported.

mod limit;
mod odd_peers;
mod preamble;
mod rates;
mod reload;
mod rig;
mod tls;
mod tls_to_servers;
mod udp;

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    num::NonZeroU32,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use super::{ProxyEvent, Select};
use crate::{
    PATIENCE,
    base::{BackendName, Endpoint, ServerAddr, ServerKey, ServerName, TerminationReason as Reason},
    config::PassiveCheck,
};
use rig::{
    Rig, accept_queue, closed_port, echo, is_silent, limit_servers, pattern, read_all, server, wait_until,
};

#[test]
fn a_half_closing_client_gets_the_whole_answer() {
    let rig = Rig::new(&[server(echo)], |_, _| {});
    let mut client = rig.client();
    client.write_all(b"question").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&mut client), b"question");
    let record = rig.record();
    assert_eq!(
        (record.reason, record.bytes_in, record.bytes_out),
        (Reason::Normal, 8, 8)
    );
    assert!(record.connect_time.is_some());
}

#[test]
fn bulk_data_arrives_whole_in_both_directions() {
    let rig = Rig::new(&[server(echo)], |_, _| {});
    let sent = pattern(48 << 20);
    let mut client = rig.client();
    let mut writer = client.try_clone().unwrap();
    let to_write = sent.clone();
    let writing = thread::spawn(move || {
        writer.write_all(&to_write).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let got = read_all(&mut client);
    writing.join().unwrap();
    assert!(got == sent, "{} of {} bytes, or others", got.len(), sent.len());
    let record = rig.record();
    assert_eq!(
        (record.bytes_in, record.bytes_out),
        (sent.len() as u64, sent.len() as u64)
    );
    let totals = rig.server_totals(0);
    assert_eq!(
        (totals.bytes_in, totals.bytes_out),
        (sent.len() as u64, sent.len() as u64)
    );
    assert_eq!((totals.opened, totals.current), (1, 0));
}

#[test]
fn a_server_that_speaks_first_is_heard_before_the_client_says_anything() {
    let rig = Rig::new(
        &[server(|mut s| s.write_all(b"220 hello\r\n").unwrap())],
        |_, _| {},
    );
    assert_eq!(read_all(&mut rig.client()), b"220 hello\r\n");
}

#[test]
fn a_slow_reader_gets_everything_in_the_end() {
    // more than all buffers on the way hold
    let sent = pattern(48 << 20);
    let expected = sent.clone();
    let rig = Rig::new(
        &[server(move |mut s| {
            let _ = s.write_all(&sent);
        })],
        |_, _| {},
    );
    let mut client = rig.client();
    let mut before = 0;
    wait_until("nothing moves any more", || {
        let now = rig.server_totals(0).bytes_out;
        let is_stuck = now > 0 && now == before;
        before = now;
        is_stuck
    });
    assert!(read_all(&mut client) == expected);
}

#[test]
fn a_refused_connect_is_retried_on_another_server() {
    let rig = Rig::new(&[closed_port(), server(echo)], |_, _| {});
    for _ in 0..4 {
        let mut client = rig.client();
        client.write_all(b"x").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_all(&mut client), b"x");
        let record = rig.record();
        assert_eq!(record.server.unwrap().0.as_str(), "s1");
        assert_eq!(record.redispatched, record.retries == 1);
    }
    let failures = rig.server_totals(0).connect_failures;
    assert!(
        (1..=4).contains(&failures),
        "the round asked the closed one {failures} times"
    );
}

#[test]
fn without_a_server_up_the_client_is_reset_not_answered_with_nothing() {
    let rig = Rig::new(&[], |_, _| {});
    let error = rig.client().read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let record = rig.record();
    assert_eq!((record.reason, record.server), (Reason::NoServer, None));
}

#[test]
fn the_last_failed_connect_names_the_server_and_the_reason() {
    let rig = Rig::new(&[closed_port()], |_, backend| backend.retries = 0);
    assert!(rig.client().read(&mut [0]).is_err());
    let record = rig.record();
    assert_eq!(record.reason, Reason::ServerConnect);
    assert_eq!(record.server.unwrap().0.as_str(), "s0");
    assert_eq!(record.connect_time, None);
}

#[test]
fn connects_that_fail_in_a_row_are_reported_once() {
    let mut rig = Rig::new(&[closed_port()], |_, backend| {
        backend.retries = 0;
        backend.passive_check = Some(PassiveCheck {
            max_failures: NonZeroU32::new(2).unwrap(),
            ejection_time: Duration::from_secs(10),
            max_ejection_time: Duration::from_secs(10),
        });
    });
    for _ in 0..3 {
        assert!(rig.client().read(&mut [0]).is_err());
        rig.record();
    }
    let key = ServerKey {
        backend: BackendName::new("pool").unwrap(),
        server: ServerName::new("s0").unwrap(),
    };
    assert_eq!(
        rig.events.try_recv().ok(),
        Some(ProxyEvent::ServerFailing(key, None))
    );
    assert!(rig.events.try_recv().is_err(), "reported again");
}

#[test]
fn a_connection_on_which_nothing_moves_is_ended() {
    let rig = Rig::new(&[server(echo)], |frontend, _| {
        frontend.idle_timeout = Some(Duration::from_millis(200));
    });
    let started = Instant::now();
    assert!(
        rig.client().read(&mut [0]).is_err(),
        "reset, for nothing was finished"
    );
    assert!(started.elapsed() >= Duration::from_millis(200));
    assert_eq!(rig.record().reason, Reason::ClientTimeout);
}

#[test]
fn traffic_puts_the_idle_time_out_off() {
    let rig = Rig::new(
        &[server(|mut s| while s.read(&mut [0]).is_ok_and(|n| n > 0) {})],
        |frontend, _| {
            frontend.idle_timeout = Some(Duration::from_secs(2));
        },
    );
    let mut busy = rig.client();
    let mut sent = 0;
    let mut say = || {
        busy.write_all(b".").unwrap();
        sent += 1;
    };
    say();
    // the younger one, which says nothing, ends first
    let idle = rig.client();
    wait_until("the idle one ends", || {
        say();
        !rig.records.0.lock().unwrap().is_empty()
    });
    say();
    let record = rig.record();
    assert_eq!(
        (record.reason, record.client.socket_addr().unwrap()),
        (Reason::ClientTimeout, idle.local_addr().unwrap())
    );
    busy.shutdown(Shutdown::Write).unwrap();
    let record = rig.record();
    assert_eq!((record.reason, record.bytes_in), (Reason::Normal, sent));
}

#[test]
fn a_half_closed_connection_has_the_shorter_time_out() {
    let rig = Rig::new(
        &[server(|_open| {
            loop {
                thread::park();
            }
        })],
        |frontend, _| {
            frontend.idle_timeout = Some(10 * PATIENCE);
            frontend.fin_timeout = Some(Duration::from_millis(200));
        },
    );
    let client = rig.client();
    client.shutdown(Shutdown::Write).unwrap();
    let record = rig.record();
    assert_eq!(record.reason, Reason::ServerTimeout);
    assert!(record.total_time >= Duration::from_millis(200));
}

#[test]
fn a_connection_ends_with_its_lifetime_although_bytes_move() {
    let rig = Rig::new(&[server(echo)], |frontend, _| {
        frontend.idle_timeout = Some(10 * PATIENCE);
        frontend.max_lifetime = Some(Duration::from_millis(300));
    });
    let mut client = rig.client();
    let mut answer = [0];
    while client
        .write_all(b"x")
        .and_then(|()| client.read_exact(&mut answer))
        .is_ok()
    {}
    let record = rig.record();
    assert_eq!(record.reason, Reason::MaxLifetime);
    assert!(record.total_time >= Duration::from_millis(300));
}

#[test]
fn a_server_that_aborts_resets_the_client_after_its_last_data() {
    let rig = Rig::new(
        &[server(|mut s| {
            s.write_all(b"half an ans").unwrap();
            // until the client has it
            s.read_exact(&mut [0]).unwrap();
            crate::sys::tcp::reset_on_close(&s);
        })],
        |_, _| {},
    );
    let mut client = rig.client();
    let mut got = [0; 11];
    client.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"half an ans");
    client.write_all(b"?").unwrap();
    assert_eq!(
        client.read(&mut [0]).unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
    assert_eq!(rig.record().reason, Reason::ServerAbort);
}

#[test]
fn above_a_servers_limit_connections_wait_and_get_the_freed_slot() {
    let rig = Rig::new(&[server(echo)], |_, backend| limit_servers(backend, 1));
    let first = rig.client();
    let mut second = rig.queued_client();
    let waits = Instant::now();
    second.write_all(b"2").unwrap();
    second.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rig.server_totals(0).opened, 1);
    assert!(is_silent(&second), "served above the limit");
    let waited = waits.elapsed();
    drop(first);
    assert_eq!(read_all(&mut second), b"2");
    let own = second.local_addr().unwrap();
    let record = [rig.record(), rig.record()]
        .into_iter()
        .find(|record| record.client.socket_addr().unwrap() == own);
    assert!(record.unwrap().queue_time >= Some(waited));
}

#[test]
fn the_queue_is_bounded_in_length_and_time() {
    let rig = |time| {
        Rig::new(&[server(echo)], move |_, backend| {
            limit_servers(backend, 1);
            backend.max_queue = 1;
            backend.queue_timeout = time;
        })
    };
    let long = rig(10 * PATIENCE);
    let (_served, _queued) = (long.client(), long.queued_client());
    let _too_many = long.client();
    assert_eq!(long.record().reason, Reason::QueueFull);
    let short = rig(Duration::from_millis(150));
    let (_served, _queued) = (short.client(), short.client());
    let record = short.record();
    assert_eq!(record.reason, Reason::QueueTimeout);
    assert!(record.total_time >= Duration::from_millis(150));
}

#[test]
fn above_a_frontends_limit_connections_wait_in_the_accept_queue() {
    let rig = Rig::new(&[server(echo)], |frontend, _| {
        frontend.max_connections = NonZeroU32::new(1);
    });
    let first = rig.client();
    let mut second = rig.client();
    second.write_all(b"2").unwrap();
    second.shutdown(Shutdown::Write).unwrap();
    wait_until("it waits in the kernel", || {
        accept_queue(rig.addr) == 1 && rig.workers.open_connections() == 1
    });
    assert_eq!(rig.server_totals(0).opened, 1);
    drop(first);
    assert_eq!(read_all(&mut second), b"2");
}

#[test]
fn an_order_closes_the_connections_of_one_server_only() {
    let (a, b) = (server(echo), server(echo));
    let rig = Rig::new(&[a, b], |_, _| {});
    let (_one, _two) = (rig.client(), rig.client());
    wait_until("both are open", || {
        rig.server_totals(0).current + rig.server_totals(1).current == 2
    });
    let key = ServerKey {
        backend: BackendName::new("pool").unwrap(),
        server: ServerName::new("s0").unwrap(),
    };
    let select = Select::Servers(Arc::new([(key, ServerAddr::new(a))].into()));
    drop(rig.workers.close(&select, Reason::ServerDown));
    let record = rig.record();
    assert_eq!(
        (record.reason, record.server.unwrap().0.as_str()),
        (Reason::ServerDown, "s0")
    );
    // the record is written before the connection is gone
    wait_until("the other is left", || rig.workers.open_connections() == 1);
}

#[test]
fn a_retired_listener_serves_what_its_queue_held() {
    let rig = Rig::new(&[server(echo)], |_, _| {});
    let mut clients: Vec<_> = (0..20).map(|_| rig.client()).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(rig.workers.retire(Endpoint::tcp(rig.addr).into()));
    for client in &mut clients {
        client.write_all(b"x").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_all(client), b"x");
    }
    assert_eq!(
        TcpStream::connect(rig.addr).unwrap_err().kind(),
        ErrorKind::ConnectionRefused
    );
}

#[test]
fn open_connections_are_listed_oldest_first() {
    let rig = Rig::new(&[server(echo)], |_, _| {});
    let clients: Vec<_> = (0..3).map(|_| rig.client()).collect();
    wait_until("all are open", || rig.server_totals(0).current == 3);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (total, listed) = runtime.block_on(rig.workers.connections(Arc::new(|_| true), 2));
    assert_eq!((total, listed.len()), (3, 2));
    assert_eq!(
        listed[0].client.socket_addr().unwrap(),
        clients[0].local_addr().unwrap()
    );
    assert_eq!(listed[0].server.as_ref().map(ServerName::as_str), Some("s0"));
}
