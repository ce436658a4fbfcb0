//! One worker before a backend on loopback, its clients and servers.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    num::NonZeroU32,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use socket2::{Domain, SockRef, Socket, Type};
use tokio::sync::mpsc;

use crate::{
    PATIENCE,
    base::{AccessRecord, AccessSink, Endpoint},
    config::{Backend, Config, Frontend, Options, Source, load},
    pools::Pools,
    proxy::{Descriptors, NoSockets, ProxyEvent, Workers},
    snapshot::{BackendTls, BackendView, Builder, FrontendTls, Snapshot},
};

/// Descriptors without end.
pub const PLENTY: Descriptors = Descriptors {
    limit: u64::MAX,
    open: 0,
    checks: 0,
};

#[derive(Default)]
pub struct Records(pub Mutex<Vec<AccessRecord>>);

impl AccessSink for Records {
    fn record(&self, record: AccessRecord) {
        self.0.lock().unwrap().push(record);
    }
}

/// One worker, and the frontend `web` with the backend `pool` unless a test has others.
pub struct Rig {
    pub addr: SocketAddr,
    pub workers: Workers,
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    pub records: Arc<Records>,
    pub events: mpsc::Receiver<ProxyEvent>,
    pools: Pools,
    builder: Builder,
}

impl Rig {
    pub fn new(servers: &[SocketAddr], change: impl FnOnce(&mut Frontend, &mut Backend)) -> Self {
        Self::with(|addr| config(addr, servers, change), PLENTY)
    }

    /// With this configuration, whose frontend listens on the address that it is given.
    pub fn with(config: impl FnOnce(SocketAddr) -> Config, descriptors: Descriptors) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        // as ours are
        SockRef::from(&listener).set_out_of_band_inline(true).unwrap();
        let addr = listener.local_addr().unwrap();
        let config = config(addr);
        let pools = Pools::of(&config);
        let mut builder = Builder::new(1, Arc::default());
        builder.config_changed(&config, config.backends.keys().cloned());
        let first = builder.build(&config, &pools, Instant::now()).snapshot;
        let snapshot = Arc::new(ArcSwap::new(first));
        let records = Arc::new(Records::default());
        let (tx, events) = mpsc::channel(16);
        let access = Arc::clone(&records) as _;
        let workers = Workers::start(
            1,
            Arc::clone(&snapshot),
            access,
            tx,
            descriptors,
            Arc::new(NoSockets),
        )
        .unwrap();
        workers.listen(Endpoint::tcp(addr).into(), vec![listener.into()]);
        Self {
            addr,
            workers,
            snapshot,
            records,
            events,
            pools,
            builder,
        }
    }

    /// Puts another configuration in effect, as a reload does.
    pub fn reload(&mut self, config: &Config) {
        let changed = self.pools.apply(config);
        self.builder.config_changed(config, changed);
        let built = self.builder.build(config, &self.pools, Instant::now());
        self.snapshot.store(Arc::clone(&built.snapshot));
        built.wake_queues();
    }

    /// Has TLS end at the frontend `web` of this configuration.
    pub fn end_tls(&mut self, config: &Config, tls: FrontendTls) {
        let name = config.frontends.keys().next().unwrap().clone();
        self.builder.tls_changed([(name, Arc::new(tls))].into());
        self.reload(config);
    }

    /// Has connections to the servers of the backend `pool` of this configuration go through TLS.
    pub fn speak_tls(&mut self, config: &Config, tls: BackendTls) {
        let name = config.backends.keys().next().unwrap().clone();
        self.builder
            .tls_to_servers_changed([(name, Arc::new(tls))].into());
        self.reload(config);
    }

    pub fn client(&self) -> TcpStream {
        let client = TcpStream::connect(self.addr).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client
    }

    /// A client whose connection waits in the backend's queue.
    pub fn queued_client(&self) -> TcpStream {
        let client = self.client();
        wait_until("it waits", || self.backend().live.queue.used() == 1);
        client
    }

    /// The access record of the next connection to end.
    pub fn record(&self) -> AccessRecord {
        let mut record = None;
        wait_until("a connection ends", || {
            record = self.records.0.lock().unwrap().pop();
            record.is_some()
        });
        record.unwrap()
    }

    /// Its backend and server, of a record that must have both.
    pub fn served_by(record: &AccessRecord) -> (&str, &str) {
        let (server, _) = record.server.as_ref().unwrap();
        (record.backend.as_ref().unwrap().as_str(), server.as_str())
    }

    /// The only open connection's backend and server, as a listing shows them.
    pub fn listed(&self) -> (String, Option<String>) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (_, mut listed) = runtime.block_on(self.workers.connections(Arc::new(|_| true), 1));
        let connection = listed.remove(0);
        let server = connection.server.map(|server| server.to_string());
        (connection.backend.unwrap().to_string(), server)
    }

    pub fn backend(&self) -> Arc<BackendView> {
        Arc::clone(self.snapshot.load().backends.values().next().unwrap())
    }

    pub fn server_totals(&self, index: usize) -> crate::snapshot::live::Totals {
        self.backend().servers[index].live.counters.totals()
    }
}

pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Whether nothing has arrived so far.
pub fn is_silent(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let silent = stream.peek(&mut [0]);
    stream.set_nonblocking(false).unwrap();
    silent.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.workers.stop();
    }
}

/// What the tests share; whatever one is about, `change` sets.
pub fn config(
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
    let mut config = parsed(&text);
    let frontend = config.frontends.values_mut().next().expect("the frontend");
    let backend = config.backends.values_mut().next().expect("the backend");
    change(Arc::make_mut(frontend), Arc::make_mut(backend));
    config
}

pub fn parsed(text: &str) -> Config {
    let source = Source {
        name: "test.toml".to_owned(),
        bytes: text.as_bytes().to_vec(),
    };
    let loaded = load(&source, Options::default());
    loaded.expect("a valid configuration").config
}

pub fn limit_servers(backend: &mut Backend, limit: u32) {
    for server in backend.servers.values_mut() {
        server.max_connections = NonZeroU32::new(limit);
    }
}

/// A server that hands each connection to `serve` on a thread of its own.
pub fn server(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
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
pub fn echo(mut stream: TcpStream) {
    let mut all = Vec::new();
    if stream.read_to_end(&mut all).is_ok() {
        let _ = stream.write_all(&all);
    }
}

/// An address that answers no connect: its queue is full of the connections that are returned with it.
pub fn silent_address() -> (SocketAddr, (Socket, Vec<TcpStream>)) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket
        .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    socket.listen(0).unwrap();
    let addr = socket.local_addr().unwrap().as_socket().unwrap();
    // one more than may wait does (listen(2): a queue of 0 holds one)
    let waiting = vec![TcpStream::connect(addr).unwrap()];
    (addr, (socket, waiting))
}

/// An address on which nobody listens, nor anybody else's test: the port is taken as long as the process lives.
pub fn closed_port() -> SocketAddr {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket
        .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    let addr = socket.local_addr().unwrap().as_socket().unwrap();
    std::mem::forget(socket);
    addr
}

pub fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|i| (i.wrapping_mul(31) >> 3) as u8).collect()
}

pub fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    all
}

/// How many connections wait to be accepted (proc_net_tcp(5): a listener's receive queue).
pub fn accept_queue(listener: SocketAddr) -> u64 {
    let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let port = format!(":{:04X}", listener.port());
    // number, own address, the peer's, state, queues
    let words = sockets
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut listeners = words.filter(|words| words[1].ends_with(&port) && words[3] == "0A");
    let (_, received) = listeners.next().unwrap()[4].split_once(':').unwrap();
    u64::from_str_radix(received, 16).unwrap()
}
