//! The rows of the table: kinds of work, each measured in one cell of a few seconds.

use std::{
    fmt,
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use crate::{
    checks,
    churn::Churn,
    datagrams::{self, Pattern},
    failover,
    fleet::Moment,
    flood::Flood,
    lab::load::{Wrk, iperf3},
    meter::{Meter, Reading},
    names, packets,
    rig::{LB_CPU, LOAD_CPU, Rig},
    subjects::{BULK_PORT, Running, Subject},
    tls::{self, Key},
    tls_client::Offer,
};

/// Idle connections whose memory is measured: two descriptors each, under a limit of 20,000.
pub const IDLE_CONNECTIONS: usize = 9000;

/// A kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Row {
    /// New connections with one small request each; per 10,000.
    Connections,
    /// The same with an access log.
    ConnectionsLogged,
    /// New connections whose backend is chosen by the name in their ClientHello; per 10,000.
    Names,
    /// Small requests on 64 kept connections; per 100,000.
    Requests,
    /// One stream from client to server; per GB (10⁹ bytes).
    BulkToServer,
    /// One stream from server to client; per GB.
    BulkToClient,
    /// Memory of one idle connection.
    Memory,
    /// Full TLS handshakes with a P-256 certificate, each on a connection with one small request; per 10,000.
    TlsFullP256,
    /// The same with an RSA certificate.
    TlsFullRsa,
    /// As [`TlsFullP256`](Self::TlsFullP256), by clients that offer a group that quantum computers do not break.
    TlsFullPostQuantum,
    /// As [`TlsFullP256`](Self::TlsFullP256), with sessions that tickets resume.
    TlsResumed,
    /// Small requests on 64 kept connections by TLS; per 100,000.
    TlsRequests,
    /// One stream by TLS from server to client with AES; per GB.
    TlsBulk,
    /// The same with ChaCha20.
    TlsBulkChacha,
    /// Memory of one idle connection by TLS.
    TlsMemory,
    /// New connections with one small request each, forwarded as packets; per 10,000.
    PacketConnections,
    /// One stream from client to server, forwarded as packets; per GB.
    PacketToServer,
    /// One stream from server to client, forwarded as packets (in DSR: its acknowledgements alone); per GB.
    PacketToClient,
    /// Small UDP datagrams that come back; per one.
    Echoes,
    /// Single datagrams of 64 clients that come back, in mode proxy; per one.
    Datagrams,
    /// The same, 4 of each under way.
    DatagramWindow,
    /// Bursts of 8 datagrams that come back, in mode proxy; per datagram.
    DatagramBursts,
    /// As [`Datagrams`](Self::Datagrams), of 10,000 clients.
    ManySessions,
    /// Time from a datagram to its echo when nothing else is under way.
    LonePacket,
}

/// What one cell found.
#[derive(Debug, Clone, Copy)]
pub struct Cell {
    /// The figure that counts: seconds of the load balancer's CPU per unit of work, or KiB per idle connection.
    pub cost: f64,
    /// Units of work a second.
    pub rate: Option<f64>,
    /// 99th percentile of the latency, in milliseconds.
    pub p99: Option<f64>,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}", self.cost)?;
        if let Some(rate) = self.rate {
            write!(f, "  {rate:.2} units/s")?;
        }
        if let Some(p99) = self.p99 {
            write!(f, "  p99 {p99:.2} ms")?;
        }
        Ok(())
    }
}

impl Row {
    /// In the order of the table.
    pub const ALL: [Self; 24] = [
        Self::Connections,
        Self::Requests,
        Self::BulkToServer,
        Self::BulkToClient,
        Self::ConnectionsLogged,
        Self::Names,
        Self::Memory,
        Self::TlsFullP256,
        Self::TlsFullRsa,
        Self::TlsFullPostQuantum,
        Self::TlsResumed,
        Self::TlsRequests,
        Self::TlsBulk,
        Self::TlsBulkChacha,
        Self::TlsMemory,
        Self::PacketConnections,
        Self::PacketToServer,
        Self::PacketToClient,
        Self::Echoes,
        Self::LonePacket,
        Self::Datagrams,
        Self::DatagramWindow,
        Self::DatagramBursts,
        Self::ManySessions,
    ];

    /// Its name on the command line.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::ConnectionsLogged => "connections-logged",
            Self::Names => "sni",
            Self::Requests => "requests",
            Self::BulkToServer => "bulk-to-server",
            Self::BulkToClient => "bulk-to-client",
            Self::Memory => "memory",
            Self::TlsFullP256 => "tls-full-p256",
            Self::TlsFullRsa => "tls-full-rsa",
            Self::TlsFullPostQuantum => "tls-full-p256-pq",
            Self::TlsResumed => "tls-resumed",
            Self::TlsRequests => "tls-requests",
            Self::TlsBulk => "tls-bulk",
            Self::TlsBulkChacha => "tls-bulk-chacha20",
            Self::TlsMemory => "tls-idle",
            Self::PacketConnections => "packet-connections",
            Self::PacketToServer => "packet-to-server",
            Self::PacketToClient => "packet-to-client",
            Self::Echoes => "echoes",
            Self::LonePacket => "lone-packet",
            Self::Datagrams => "udp",
            Self::DatagramWindow => "udp-window",
            Self::DatagramBursts => "udp-bursts",
            Self::ManySessions => "udp-10000",
        }
    }

    /// What it measures, in words.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Connections => "CPU s per 10,000 new connections",
            Self::ConnectionsLogged => "the same, with the access log",
            Self::Names => "CPU s per 10,000 connections routed by SNI",
            Self::Requests => "CPU s per 100,000 keep-alive requests",
            Self::BulkToServer => "CPU s per GB, client to server",
            Self::BulkToClient => "CPU s per GB, server to client",
            Self::Memory => "KiB per idle connection",
            Self::TlsFullP256 => "CPU s per 10,000 full TLS 1.3 handshakes, P-256, X25519",
            Self::TlsFullRsa => "CPU s per 10,000 full TLS 1.3 handshakes, RSA-2048, X25519",
            Self::TlsFullPostQuantum => {
                "CPU s per 10,000 full TLS 1.3 handshakes, P-256, ours with X25519MLKEM768, peers' with X25519"
            }
            Self::TlsResumed => "CPU s per 10,000 resumed TLS 1.3 handshakes, X25519",
            Self::TlsRequests => "CPU s per 100,000 keep-alive requests over TLS",
            Self::TlsBulk => "CPU s per GB over TLS, server to client, AES-256-GCM",
            Self::TlsBulkChacha => "CPU s per GB over TLS, server to client, ChaCha20-Poly1305",
            Self::TlsMemory => "KiB per idle TLS connection",
            Self::PacketConnections => "CPU s per 10,000 new connections, as packets",
            Self::PacketToServer => "CPU s per GB, client to server, as packets",
            Self::PacketToClient => "CPU s per GB, server to client, as packets",
            Self::Echoes => "CPU µs per UDP echo",
            Self::Datagrams => "CPU µs per UDP datagram and its echo, 64 clients",
            Self::DatagramWindow => "the same, 4 of each client under way",
            Self::DatagramBursts => "CPU µs per UDP datagram and its echo, in bursts of 8",
            Self::ManySessions => "CPU µs per UDP datagram and its echo, 10,000 clients",
            Self::LonePacket => "µs until a lone packet's echo (median)",
        }
    }

    /// By its label.
    pub fn parse(label: &str) -> Result<Self, String> {
        let labels = [
            Self::ALL.map(Self::label).join(", "),
            Moment::ALL.map(Moment::label).join(", "),
            Churn::ALL.map(Churn::label).join(", "),
            Flood::ALL.map(Flood::label).join(", "),
            failover::LABEL.to_owned(),
            checks::LABEL.to_owned(),
        ]
        .join(", ");
        Self::ALL
            .into_iter()
            .find(|row| row.label() == label)
            .ok_or_else(|| format!("{label}: not one of {labels}"))
    }

    /// Whether it is about the packet modes.
    pub const fn is_of_packets(self) -> bool {
        matches!(
            self,
            Self::PacketConnections
                | Self::PacketToServer
                | Self::PacketToClient
                | Self::Echoes
                | Self::LonePacket
        )
    }

    /// Whether it is about UDP in mode proxy.
    const fn is_of_sessions(self) -> bool {
        matches!(
            self,
            Self::Datagrams | Self::DatagramWindow | Self::DatagramBursts | Self::ManySessions
        )
    }

    /// Whether a comparison with this peer says something: splicing is about bulk, a way without a load balancer about
    /// latency.
    pub fn concerns(self, peer: Subject) -> bool {
        match peer {
            Subject::HaproxySplice => matches!(self, Self::BulkToServer | Self::BulkToClient),
            Subject::Direct => self == Self::LonePacket,
            // it has no UDP
            Subject::Haproxy if self.is_of_sessions() => false,
            _ => self.is_of_packets() == peer.is_of_packets(),
        }
    }

    /// What of ours is measured against a peer: each mode against the kernel's way of the same.
    pub fn ours(self, chosen: Subject, peer: Subject) -> Vec<Subject> {
        match (chosen, peer) {
            (Subject::Convey, Subject::NftNat | Subject::EarlierPassthrough) => vec![Subject::Passthrough],
            (Subject::Convey, Subject::NftStateless | Subject::EarlierDsr) => vec![Subject::Dsr],
            (Subject::Convey, Subject::Direct) => vec![Subject::Passthrough, Subject::Dsr],
            _ => vec![chosen],
        }
    }

    /// More cells than this tell nothing new.
    pub const fn enough_cells(self) -> usize {
        match self {
            // the same to three digits each time
            Self::Memory | Self::TlsMemory => 2,
            _ => usize::MAX,
        }
    }

    /// Measures one cell.
    pub fn measure(self, rig: &Rig, subject: Subject, seconds: u32) -> Cell {
        match self {
            Self::Connections | Self::PacketConnections => requests(rig, subject, seconds, true, false),
            Self::ConnectionsLogged => requests(rig, subject, seconds, true, true),
            Self::Names => names::measure(rig, subject, seconds),
            Self::Requests => requests(rig, subject, seconds, false, false),
            Self::BulkToServer | Self::PacketToServer => bulk(rig, subject, seconds, false),
            Self::BulkToClient | Self::PacketToClient => bulk(rig, subject, seconds, true),
            Self::Memory => memory(rig, subject),
            Self::TlsFullP256 => tls::handshakes(rig, subject, seconds, Key::P256, Offer::FULL),
            Self::TlsFullRsa => tls::handshakes(rig, subject, seconds, Key::Rsa, Offer::FULL),
            Self::TlsFullPostQuantum => {
                tls::handshakes(rig, subject, seconds, Key::P256, Offer::POST_QUANTUM)
            }
            Self::TlsResumed => tls::handshakes(rig, subject, seconds, Key::P256, Offer::RESUMED),
            Self::TlsRequests => tls::requests(rig, subject, seconds),
            Self::TlsBulk => tls::bulk(rig, subject, seconds, Offer::FULL),
            Self::TlsBulkChacha => tls::bulk(rig, subject, seconds, Offer::CHACHA),
            Self::TlsMemory => tls::memory(rig, subject),
            Self::Echoes => packets::echoes(rig, subject, seconds),
            Self::LonePacket => packets::lone(rig, subject, seconds),
            Self::Datagrams => datagrams::measure(rig, subject, seconds, Pattern::SINGLE),
            Self::DatagramWindow => datagrams::measure(rig, subject, seconds, Pattern::WINDOW),
            Self::DatagramBursts => datagrams::measure(rig, subject, seconds, Pattern::BURSTS),
            Self::ManySessions => datagrams::measure(rig, subject, seconds, Pattern::MANY),
        }
    }
}

fn requests(rig: &Rig, subject: Subject, seconds: u32, close: bool, log: bool) -> Cell {
    let _lb = subject.start(rig, log);
    let url = format!("http://{}/", packets::target(rig, subject, 80));
    Wrk::start(&rig.client, &url, 64, 1, close).finish();
    let meter = Meter::start();
    let report = Wrk::start(&rig.client, &url, 64, seconds, close).finish();
    let reading = meter.read();
    check_steering(&reading);
    assert_eq!(report.errors, 0, "{}: {}", subject.label(), report.text);
    let units = report.requests as f64 / if close { 1e4 } else { 1e5 };
    Cell {
        cost: reading.busy / units,
        rate: Some(units / f64::from(seconds)),
        p99: Some(report.p99 * 1e3),
    }
}

fn bulk(rig: &Rig, subject: Subject, seconds: u32, to_client: bool) -> Cell {
    let server = rig.webs[0].host();
    let _iperf3 = server.start(&format!("exec iperf3 -s -p {BULK_PORT}"));
    let target = server.addr(BULK_PORT);
    crate::lab::wait_until("iperf3 listens", Duration::from_secs(10), || {
        server
            .run(&format!("ss -Hltn sport = :{}", target.port()))
            .contains("LISTEN")
    });
    let _lb = subject.start(rig, false);
    let meter = Meter::start();
    let bytes = iperf3(
        &rig.client,
        packets::target(rig, subject, BULK_PORT),
        seconds,
        to_client,
    );
    let reading = meter.read();
    check_steering(&reading);
    let gigabytes = bytes as f64 / 1e9;
    Cell {
        cost: reading.busy / gigabytes,
        rate: Some(gigabytes / f64::from(seconds)),
        p99: None,
    }
}

fn memory(rig: &Rig, subject: Subject) -> Cell {
    let lb = subject.start(rig, false);
    let url = format!("http://{}/", rig.lb.addr(80));
    Wrk::start(&rig.client, &url, 8, 1, true).finish();
    let addr = rig.lb.addr(80);
    idle(rig, &lb, || {
        rig.client.inside(|| -> Vec<TcpStream> {
            let connect = |_| TcpStream::connect_timeout(&addr, Duration::from_secs(10)).expect("connect");
            (0..IDLE_CONNECTIONS).map(connect).collect()
        })
    })
}

/// Memory of the load balancer for each of [`IDLE_CONNECTIONS`] that are opened here.
pub fn idle<T>(rig: &Rig, lb: &Running, open: impl FnOnce() -> T) -> Cell {
    thread::sleep(Duration::from_millis(500));
    let before = lb.private_memory();
    let opened = open();
    wait_settled(rig);
    let after = lb.private_memory();
    drop(opened);
    Cell {
        cost: after.saturating_sub(before) as f64 / 1024.0 / IDLE_CONNECTIONS as f64,
        rate: None,
        p99: None,
    }
}

/// Waits until every connection has reached a server.
fn wait_settled(rig: &Rig) {
    let start = Instant::now();
    loop {
        let reached: usize = rig
            .webs
            .iter()
            .map(|web| {
                let count = web.host().run("ss -Htn state established | wc -l");
                count.trim().parse::<usize>().unwrap_or(0)
            })
            .sum();
        if reached >= IDLE_CONNECTIONS {
            return;
        }
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "only {reached} connections reached a server"
        );
        thread::sleep(Duration::from_millis(100));
    }
}

/// The load balancer's packets must have been received on its own CPU.
pub fn check_steering(reading: &Reading) {
    assert!(
        reading.rx[LB_CPU] > 0 && reading.rx[LOAD_CPU] > 0,
        "receive softirqs ran on one CPU only: {:?}",
        reading.rx
    );
}
