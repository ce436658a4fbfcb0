//! The data plane as a whole, on loopback sockets: what clients and servers see, and what is reported.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    num::NonZeroU32,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use tokio::sync::mpsc;

use super::{ProxyEvent, Select, Workers};
use crate::{
    base::{
        AccessRecord, AccessSink, BackendName, Endpoint, ServerAddr, ServerKey, ServerName,
        TerminationReason as Reason,
    },
    config::{Backend, Config, Frontend, Options, PassiveCheck, Source, load},
    pools::Pools,
    snapshot::{Builder, Snapshot},
};

#[derive(Default)]
struct Records(Mutex<Vec<AccessRecord>>);

impl AccessSink for Records {
    fn record(&self, record: AccessRecord) {
        self.0.lock().unwrap().push(record);
    }
}

/// One worker, one frontend, one backend.
struct Rig {
    addr: SocketAddr,
    workers: Workers,
    snapshot: Arc<ArcSwap<Snapshot>>,
    records: Arc<Records>,
    events: mpsc::Receiver<ProxyEvent>,
}

impl Rig {
    fn new(servers: &[SocketAddr], change: impl FnOnce(&mut Frontend, &mut Backend)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let addr = listener.local_addr().unwrap();
        let config = config(addr, servers, change);
        let pools = Pools::of(&config);
        let mut builder = Builder::new(1, Arc::default());
        builder.config_changed(&config, config.backends.keys().cloned());
        let first = builder.build(&config, &pools, Instant::now()).snapshot;
        let snapshot = Arc::new(ArcSwap::new(first));
        let records = Arc::new(Records::default());
        let (tx, events) = mpsc::channel(16);
        let workers = Workers::start(1, Arc::clone(&snapshot), Arc::clone(&records) as _, tx).unwrap();
        workers.listen(Endpoint::tcp(addr), vec![listener.into()]);
        Self {
            addr,
            workers,
            snapshot,
            records,
            events,
        }
    }

    fn client(&self) -> TcpStream {
        let client = TcpStream::connect(self.addr).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        client
    }

    /// The access record of the next connection to end.
    fn record(&self) -> AccessRecord {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(record) = self.records.0.lock().unwrap().pop() {
                return record;
            }
            assert!(Instant::now() < deadline, "no connection ended");
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn server_totals(&self, index: usize) -> crate::snapshot::live::Totals {
        let snapshot = self.snapshot.load();
        snapshot.backends.values().next().unwrap().servers[index]
            .live
            .counters
            .totals()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.workers.stop();
    }
}

/// What the tests share; whatever one is about, `change` sets.
fn config(
    listen: SocketAddr,
    servers: &[SocketAddr],
    change: impl FnOnce(&mut Frontend, &mut Backend),
) -> Config {
    let mut text = format!(
        r#"
        [frontends.web]
        listen_addr = "{listen}"
        backend = "pool"

        [backends.pool]
        connect_timeout = "300ms"
        max_queue = 8
        health_check = {{ enabled = false }}
        passive_check = {{ enabled = false }}
        "#
    );
    for (i, addr) in servers.iter().enumerate() {
        text += &format!("servers.s{i} = {{ addr = \"{addr}\" }}\n");
    }
    let source = Source {
        name: "test.toml".to_owned(),
        bytes: text.into_bytes(),
    };
    let mut config = load(&source, Options::default())
        .expect("a valid configuration")
        .config;
    let frontend = config.frontends.values_mut().next().expect("the frontend");
    let backend = config.backends.values_mut().next().expect("the backend");
    change(Arc::make_mut(frontend), Arc::make_mut(backend));
    config
}

fn limit_servers(backend: &mut Backend, limit: u32) {
    for server in backend.servers.values_mut() {
        server.max_connections = NonZeroU32::new(limit);
    }
}

/// A server that hands each connection to `serve` on a thread of its own.
fn server(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let serve = Arc::clone(&serve);
            thread::spawn(move || serve(stream));
        }
    });
    addr
}

/// Sends back what it reads, to the end of the stream.
fn echo(mut stream: TcpStream) {
    let mut all = Vec::new();
    if stream.read_to_end(&mut all).is_ok() {
        let _ = stream.write_all(&all);
    }
}

/// An address on which nobody listens.
fn closed_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|i| (i.wrapping_mul(31) >> 3) as u8).collect()
}

fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    all
}

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
    let sent = pattern(8 << 20);
    let expected = sent.clone();
    let rig = Rig::new(
        &[server(move |mut s| {
            let _ = s.write_all(&sent);
        })],
        |_, _| {},
    );
    let mut client = rig.client();
    thread::sleep(Duration::from_millis(300));
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
    assert_eq!(rig.events.try_recv().ok(), Some(ProxyEvent::ServerFailing(key)));
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
            frontend.idle_timeout = Some(Duration::from_millis(200));
        },
    );
    let mut client = rig.client();
    for _ in 0..8 {
        thread::sleep(Duration::from_millis(60));
        client.write_all(b".").unwrap();
    }
    client.shutdown(Shutdown::Write).unwrap();
    let record = rig.record();
    assert_eq!((record.reason, record.bytes_in), (Reason::Normal, 8));
}

#[test]
fn a_half_closed_connection_has_the_shorter_time_out() {
    let rig = Rig::new(
        &[server(|_open| thread::sleep(Duration::from_secs(2)))],
        |frontend, _| {
            frontend.fin_timeout = Some(Duration::from_millis(200));
        },
    );
    let client = rig.client();
    client.shutdown(Shutdown::Write).unwrap();
    let record = rig.record();
    assert_eq!(record.reason, Reason::ServerTimeout);
    assert!(record.total_time < Duration::from_secs(1));
}

#[test]
fn a_server_that_aborts_resets_the_client_after_its_last_data() {
    let rig = Rig::new(
        &[server(|mut s| {
            s.write_all(b"half an ans").unwrap();
            thread::sleep(Duration::from_millis(100));
            crate::sys::tcp::reset_on_close(&s);
        })],
        |_, _| {},
    );
    let mut client = rig.client();
    let mut got = [0; 11];
    client.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"half an ans");
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
    let mut second = rig.client();
    second.write_all(b"2").unwrap();
    second.shutdown(Shutdown::Write).unwrap();
    second.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert!(second.read(&mut [0]).is_err(), "served above the limit");
    drop(first);
    second.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert_eq!(read_all(&mut second), b"2");
    let waited = rig
        .records
        .0
        .lock()
        .unwrap()
        .iter()
        .filter_map(|r| r.queue_time)
        .max();
    assert!(waited.is_none_or(|w| w >= Duration::from_millis(90)));
}

#[test]
fn the_queue_is_bounded_in_length_and_time() {
    let rig = Rig::new(&[server(echo)], |_, backend| {
        limit_servers(backend, 1);
        backend.max_queue = 1;
        backend.queue_timeout = Duration::from_millis(150);
    });
    let _served = rig.client();
    thread::sleep(Duration::from_millis(50));
    let _queued = rig.client();
    thread::sleep(Duration::from_millis(50));
    let _too_many = rig.client();
    assert_eq!(rig.record().reason, Reason::QueueFull);
    assert_eq!(rig.record().reason, Reason::QueueTimeout);
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
    thread::sleep(Duration::from_millis(100));
    assert_eq!(rig.workers.open_connections(), 1);
    drop(first);
    assert_eq!(read_all(&mut second), b"2");
}

#[test]
fn an_order_closes_the_connections_of_one_server_only() {
    let (a, b) = (server(echo), server(echo));
    let rig = Rig::new(&[a, b], |_, _| {});
    let (_one, _two) = (rig.client(), rig.client());
    while rig.server_totals(0).current + rig.server_totals(1).current < 2 {
        thread::sleep(Duration::from_millis(2));
    }
    let key = ServerKey {
        backend: BackendName::new("pool").unwrap(),
        server: ServerName::new("s0").unwrap(),
    };
    rig.workers.close(
        &Select::Servers(Arc::new([(key, ServerAddr(a))].into())),
        Reason::ServerDown,
    );
    let record = rig.record();
    assert_eq!(
        (record.reason, record.server.unwrap().0.as_str()),
        (Reason::ServerDown, "s0")
    );
    assert_eq!(rig.workers.open_connections(), 1);
}

#[test]
fn a_retired_listener_serves_what_its_queue_held() {
    let rig = Rig::new(&[server(echo)], |_, _| {});
    let mut clients: Vec<_> = (0..20).map(|_| rig.client()).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(rig.workers.retire(Endpoint::tcp(rig.addr)));
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
    while rig.server_totals(0).current < 3 {
        thread::sleep(Duration::from_millis(2));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (total, listed) = runtime.block_on(rig.workers.connections(Arc::new(|_| true), 2));
    assert_eq!((total, listed.len()), (3, 2));
    assert_eq!(listed[0].client.0, clients[0].local_addr().unwrap());
    assert_eq!(listed[0].server.as_ref().map(ServerName::as_str), Some("s0"));
}
