//! The load of the TLS rows: clients that speak TLS 1.3 by rustls, on the load's CPU.

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, BufReader, ErrorKind, IoSlice, Read, Write},
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, NamedGroup, RootCertStore, StreamOwned,
    SupportedCipherSuite,
    client::Resumption,
    crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs},
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    version::TLS13,
};
use tokio::{net::TcpStream, time::timeout};

use crate::lab::{Host, PATIENCE};

/// The name that clients ask for, and that certificates have.
pub const NAME: &str = "bench.example";

/// What a web server of the rig answers ends with.
const ANSWER: &[u8] = b"\r\n\r\nok";

/// Asks once, and the server closes.
const LAST_QUESTION: &[u8] = b"GET / HTTP/1.1\r\nHost: bench.example\r\nConnection: close\r\n\r\n";

/// Asks, and more may follow.
const QUESTION: &[u8] = b"GET / HTTP/1.1\r\nHost: bench.example\r\n\r\n";

/// What is read from a socket at a time where there is much.
const CHUNK: usize = 256 << 10;

/// What a client offers: TLS 1.3 with one suite.
#[derive(Debug, Clone, Copy)]
pub struct Offer {
    suite: SupportedCipherSuite,
    has_post_quantum: bool,
    resumes: bool,
}

impl Offer {
    /// AES-256-GCM, which all would choose by themselves, and X25519; every handshake is a full one.
    pub const FULL: Self = Self {
        suite: aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
        has_post_quantum: false,
        resumes: false,
    };

    /// The same, with X25519MLKEM768 before X25519. A share of a key is sent for either.
    pub const POST_QUANTUM: Self = Self {
        has_post_quantum: true,
        ..Self::FULL
    };

    /// As [`FULL`](Self::FULL), with a ticket of the visit before, and a new exchange of keys all the same (PSK with ECDHE).
    pub const RESUMED: Self = Self {
        resumes: true,
        ..Self::FULL
    };

    /// ChaCha20-Poly1305 in the place of AES.
    pub const CHACHA: Self = Self {
        suite: aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ..Self::FULL
    };

    /// What handshakes must have come to with a load balancer that chooses this group.
    pub const fn wanted(self, group: NamedGroup) -> Handshake {
        let kind = if self.resumes {
            HandshakeKind::Resumed
        } else {
            HandshakeKind::Full
        };
        Handshake { kind, group }
    }

    /// Whether X25519MLKEM768 is among it.
    pub const fn has_post_quantum(self) -> bool {
        self.has_post_quantum
    }

    /// For one client: it keeps its own tickets. It trusts the CA in this file.
    fn client(self, ca: &Path) -> Arc<ClientConfig> {
        let mut groups: Vec<&'static dyn SupportedKxGroup> = vec![aws_lc_rs::kx_group::X25519];
        if self.has_post_quantum {
            groups.insert(0, aws_lc_rs::kx_group::X25519MLKEM768);
        }
        let provider = CryptoProvider {
            cipher_suites: vec![self.suite],
            kx_groups: groups,
            ..aws_lc_rs::default_provider()
        };
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_file(ca).expect("the CA's certificate");
        roots.add(ca).expect("a CA");
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&TLS13])
            .expect("TLS 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.resumption = if self.resumes {
            Resumption::in_memory_sessions(8)
        } else {
            Resumption::disabled()
        };
        Arc::new(config)
    }
}

/// What a handshake came to.
#[derive(Debug, Clone, Copy)]
pub struct Handshake {
    kind: HandshakeKind,
    group: NamedGroup,
}

impl fmt::Display for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} with {:?}", self.kind, self.group)
    }
}

/// Clients that come again and again, each with one connection at a time.
pub struct Visitors {
    clients: Vec<Arc<ClientConfig>>,
    to: SocketAddr,
}

/// What became of visits.
#[derive(Debug, Default)]
pub struct Tally {
    /// Seconds from each connect to the end of the answer.
    pub waits: Vec<f64>,
    /// What their handshakes came to, and how often.
    handshakes: BTreeMap<String, usize>,
    /// Why the others failed, and how often.
    failures: BTreeMap<String, usize>,
}

impl Visitors {
    /// So many, who visit this address.
    pub fn new(count: usize, offer: Offer, ca: &Path, to: SocketAddr) -> Self {
        Self {
            clients: (0..count).map(|_| offer.client(ca)).collect(),
            to,
        }
    }

    /// Each connects, asks, reads the answer to its end and does so again until the time is over.
    pub fn visit(&self, host: &Host, time: Duration) -> Tally {
        let until = Instant::now() + time;
        run(host, async {
            let visitors: Vec<_> = self
                .clients
                .iter()
                .map(|client| tokio::spawn(visit_until(Arc::clone(client), self.to, until)))
                .collect();
            let mut tally = Tally::default();
            for visitor in visitors {
                tally.add(visitor.await.expect("a client"));
            }
            tally
        })
    }

    /// Opens so many connections, asks once on each, and keeps them.
    pub fn hold(&self, host: &Host, connections: usize) -> Vec<Held> {
        run(host, async {
            let holders: Vec<_> = self
                .clients
                .iter()
                .enumerate()
                .map(|(index, client)| {
                    let (client, to) = (Arc::clone(client), self.to);
                    let own = (index..connections).step_by(self.clients.len());
                    tokio::spawn(async move {
                        let mut held = Vec::new();
                        for _ in own {
                            held.push(hold(&client, to).await.expect("a connection to hold"));
                        }
                        held
                    })
                })
                .collect();
            let mut held = Vec::with_capacity(connections);
            for holder in holders {
                held.extend(holder.await.expect("a client"));
            }
            held
        })
    }
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.waits.extend(other.waits);
        for (total, part) in [
            (&mut self.handshakes, other.handshakes),
            (&mut self.failures, other.failures),
        ] {
            for (what, count) in part {
                *total.entry(what).or_default() += count;
            }
        }
    }

    /// Panics if a visit failed, or if handshakes came to something else than they were to; one in a thousand may, and is
    /// told of.
    pub fn check(&self, whose: &str, wanted: Handshake) {
        let (all, handshakes) = (self.waits.len(), &self.handshakes);
        assert!(
            self.failures.is_empty(),
            "{whose}: {all} visits went well, others not: {:?}",
            self.failures
        );
        let right = handshakes.get(&wanted.to_string()).copied().unwrap_or_default();
        let told = format!("{whose}: {right} of {all} handshakes were {wanted}, of all: {handshakes:?}");
        assert!(right > 0 && (all - right) * 1000 <= all, "{told}");
        if right < all {
            eprintln!("  {told}");
        }
    }
}

/// Receives from a server that sends without end, for so long. Gives the bytes, after decryption.
pub fn download(host: &Host, offer: Offer, ca: &Path, to: SocketAddr, time: Duration) -> u64 {
    let tls = connection(&offer.client(ca)).expect("a client");
    host.inside(|| {
        let stream = std::net::TcpStream::connect_timeout(&to, PATIENCE).expect("connect");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        let mut tls = StreamOwned::new(tls, Wide(BufReader::with_capacity(CHUNK, stream)));
        let (mut bytes, mut buffer) = (0, vec![0; CHUNK]);
        let until = Instant::now() + time;
        while Instant::now() < until {
            match tls.read(&mut buffer).expect("bytes without end") {
                0 => panic!("the server has ended"),
                count => bytes += count as u64,
            }
        }
        assert_eq!(tls.conn.negotiated_cipher_suite(), Some(offer.suite));
        bytes
    })
}

/// A connection that nobody uses.
pub struct Held {
    _tcp: std::net::TcpStream,
    _tls: ClientConnection,
}

fn run<T: Send>(host: &Host, work: impl Future<Output = T> + Send) -> T {
    host.inside(|| {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime")
            .block_on(work)
    })
}

async fn visit_until(client: Arc<ClientConfig>, to: SocketAddr, until: Instant) -> Tally {
    let mut tally = Tally::default();
    while Instant::now() < until {
        let start = Instant::now();
        let visit = timeout(PATIENCE, visit(&client, to)).await;
        match visit.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into())) {
            Ok(handshake) => {
                tally.waits.push(start.elapsed().as_secs_f64());
                *tally.handshakes.entry(handshake.to_string()).or_default() += 1;
            }
            Err(error) => *tally.failures.entry(error.to_string()).or_default() += 1,
        }
    }
    tally
}

async fn visit(client: &Arc<ClientConfig>, to: SocketAddr) -> io::Result<Handshake> {
    let mut stream = Stream::connect(client, to).await?;
    stream.ask(LAST_QUESTION).await?;
    // what comes before the end is no part of the answer
    while stream.receive().await? {}
    stream.handshake().ok_or(ErrorKind::InvalidData.into())
}

async fn hold(client: &Arc<ClientConfig>, to: SocketAddr) -> io::Result<Held> {
    let opened = async {
        let mut stream = Stream::connect(client, to).await?;
        stream.ask(QUESTION).await?;
        Ok::<_, io::Error>(stream)
    };
    let stream = timeout(PATIENCE, opened).await??;
    Ok(Held {
        _tcp: stream.tcp.into_std()?,
        _tls: stream.tls,
    })
}

fn connection(client: &Arc<ClientConfig>) -> io::Result<ClientConnection> {
    let name = ServerName::try_from(NAME).expect("a name");
    ClientConnection::new(Arc::clone(client), name).map_err(io::Error::other)
}

/// A connection after its handshake.
struct Stream {
    tcp: TcpStream,
    tls: ClientConnection,
}

impl Stream {
    async fn connect(client: &Arc<ClientConfig>, to: SocketAddr) -> io::Result<Self> {
        let tls = connection(client)?;
        let tcp = TcpStream::connect(to).await?;
        tcp.set_nodelay(true)?;
        let mut stream = Self { tcp, tls };
        stream.flush().await?;
        while stream.tls.is_handshaking() {
            if !stream.receive().await? {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(stream)
    }

    fn handshake(&self) -> Option<Handshake> {
        Some(Handshake {
            kind: self.tls.handshake_kind()?,
            group: self.tls.negotiated_key_exchange_group()?.name(),
        })
    }

    /// Asks and reads the whole answer.
    async fn ask(&mut self, question: &[u8]) -> io::Result<()> {
        self.tls.writer().write_all(question)?;
        self.flush().await?;
        let (mut answer, mut buffer) = (Vec::new(), [0; 1024]);
        while !answer.ends_with(ANSWER) {
            match self.tls.reader().read(&mut buffer) {
                Ok(count @ 1..) => answer.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if !self.receive().await? {
                        return Err(ErrorKind::UnexpectedEof.into());
                    }
                }
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Takes in what has come, and answers it; false at the end.
    async fn receive(&mut self) -> io::Result<bool> {
        loop {
            match self.tls.read_tls(&mut Wire(&self.tcp)) {
                Ok(0) => return Ok(false),
                Ok(_) => {
                    self.tls.process_new_packets().map_err(io::Error::other)?;
                    self.flush().await?;
                    return Ok(true);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.tcp.readable().await?,
                Err(error) => return Err(error),
            }
        }
    }

    async fn flush(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut Wire(&self.tcp)) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.tcp.writable().await?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// A socket as rustls takes it.
struct Wire<'a>(&'a TcpStream);

impl Read for Wire<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(parts)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A socket that is read in large pieces: rustls asks for 4 KiB at a time.
struct Wide(BufReader<std::net::TcpStream>);

impl Read for Wide {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Wide {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.get_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.get_mut().flush()
    }
}
