//! What a check says to a server that wants more than a connect: whom it comes from, and a TLS handshake.

use std::{
    fmt, io,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::{
    ClientConfig, ClientConnection,
    pki_types::{IpAddr, ServerName as TlsName},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, timeout_at},
};

use super::channel::{Channel, Connected};
use crate::{
    base::{HostPattern, ServerTlsFailure},
    config::{self, Check, SendProxy, ServerNameFrom},
    pools::Server,
    snapshot::BackendTls,
    tls::{Facts, handshake_failure, server_failure},
};

/// The TLS that a server is checked by.
#[derive(Debug, Clone)]
pub struct CheckTls {
    /// Of the backend.
    of: Arc<ClientConfig>,
    /// The same, but that it may offer a protocol of its own.
    config: Arc<ClientConfig>,
    name: TlsName<'static>,
    /// Whole days for which the certificate has to be valid still; 0: they are not counted.
    min_days_left: u32,
}

/// Why a server does not pass a check of TLS.
#[derive(Debug)]
pub enum TlsCheckError {
    /// There is no TLS with it.
    Handshake {
        /// Why.
        why: ServerTlsFailure,
        /// What its certificate was to be for.
        name: TlsName<'static>,
    },
    /// Its certificate ends too early, or has ended.
    DaysLeft {
        /// Whole days that are left; below 0: that it has been over.
        left: i64,
        /// That there have to be.
        wanted: u32,
    },
    /// When its certificate ends cannot be read.
    NoCertificate,
}

impl CheckTls {
    /// As clients' connections, but that each handshake is whole. Where those ask for the names of clients, a check asks
    /// for one that the server is for (`sni`), else for none and leaves the certificate's name alone.
    #[must_use]
    pub fn of(
        tls: &BackendTls,
        settings: &config::BackendTls,
        server: &Server,
        check: Option<&Check>,
    ) -> Self {
        let own = server.sni.iter().find_map(HostPattern::exact);
        let is_any = settings.server_name == ServerNameFrom::Client && own.is_none();
        let of = Arc::clone(match is_any {
            true => &tls.checks_of_any_name,
            false => &tls.checks,
        });
        Self {
            config: match check {
                Some(Check::Http(_)) => for_http(&of),
                _ => Arc::clone(&of),
            },
            of,
            min_days_left: match check {
                Some(Check::Tls(check)) => check.min_days_left,
                _ => 0,
            },
            name: (settings.server_name).of_server(&server.name, server.addr, own),
        }
    }

    /// Shakes hands and takes leave in order, so that the server has nothing to complain about.
    ///
    /// # Errors
    /// Why there is no TLS.
    pub async fn check<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        connected: Connected<S>,
        send_proxy: Option<SendProxy>,
        until: Instant,
    ) -> Result<(), TlsCheckError> {
        let mut shaken = self.shake_hands(connected, send_proxy, until).await?;
        // a server that says nothing more has not refused us
        let leave = leave(&mut shaken.stream, &mut shaken.connection);
        let left = timeout_at(until, leave).await;
        left.unwrap_or(Ok(())).map_err(|why| self.fault(why))?;
        self.check_days_left(&shaken.connection, SystemTime::now())
    }

    fn check_days_left(&self, connection: &ClientConnection, now: SystemTime) -> Result<(), TlsCheckError> {
        if self.min_days_left == 0 {
            return Ok(());
        }
        let certificate = connection.peer_certificates().and_then(<[_]>::first);
        let facts = certificate.and_then(|der| Facts::read(der).ok());
        let left = days_between(now, facts.ok_or(TlsCheckError::NoCertificate)?.not_after);
        match left >= i64::from(self.min_days_left) {
            true => Ok(()),
            false => Err(TlsCheckError::DaysLeft {
                left,
                wanted: self.min_days_left,
            }),
        }
    }

    /// Shakes hands.
    ///
    /// # Errors
    /// Why there is no TLS.
    pub async fn shake_hands<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        mut connected: Connected<S>,
        send_proxy: Option<SendProxy>,
        until: Instant,
    ) -> Result<TlsStream<S>, TlsCheckError> {
        let fault = |why| self.fault(why);
        let connection = ClientConnection::new(Arc::clone(&self.config), self.name.clone());
        let mut connection = connection.map_err(|error| fault(server_failure(&error)))?;
        let header = send_proxy.map(|how| connected.proxy_header(how));
        let stream = &mut connected.stream;
        let shaken = timeout_at(until, shake(stream, &mut connection, header.unwrap_or_default())).await;
        shaken.unwrap_or(Err(ServerTlsFailure::TimedOut)).map_err(fault)?;
        Ok(TlsStream {
            stream: connected.stream,
            connection,
            untaken: Vec::new(),
        })
    }

    fn fault(&self, why: ServerTlsFailure) -> TlsCheckError {
        TlsCheckError::Handshake {
            why,
            name: self.name.clone(),
        }
    }
}

/// Whole days from one time to another, rounded down; of what is past below 0.
fn days_between(now: SystemTime, then: SystemTime) -> i64 {
    const DAY: u64 = 86_400;
    let days = |time: Duration| i64::try_from(time.as_secs() / DAY).unwrap_or(i64::MAX);
    match then.duration_since(now) {
        Ok(left) => days(left),
        Err(past) => -1 - days(past.duration()),
    }
}

/// A check speaks HTTP/1.1, whatever connections of clients would agree on.
fn for_http(of: &Arc<ClientConfig>) -> Arc<ClientConfig> {
    let protocols = vec![b"http/1.1".to_vec()];
    if of.alpn_protocols.is_empty() || of.alpn_protocols == protocols {
        return Arc::clone(of);
    }
    let mut config = ClientConfig::clone(of);
    config.alpn_protocols = protocols;
    Arc::new(config)
}

impl PartialEq for CheckTls {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.of, &other.of)
            && self.config.alpn_protocols == other.config.alpn_protocols
            && self.name == other.name
            && self.min_days_left == other.min_days_left
    }
}

impl Eq for CheckTls {}

impl fmt::Display for TlsCheckError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (why, name) = match self {
            Self::Handshake { why, name } => (why, name),
            Self::DaysLeft { left: ..0, .. } => return f.write_str("the certificate has expired"),
            Self::DaysLeft { left, wanted } => {
                return write!(
                    f,
                    "the certificate is valid for {left} more day(s), less than min_days_left = {wanted}"
                );
            }
            Self::NoCertificate => {
                return f.write_str("it is not readable how long the certificate is valid");
            }
        };
        f.write_str(why.sentence())?;
        if *why != ServerTlsFailure::CertificateName {
            return Ok(());
        }
        match name {
            TlsName::DnsName(name) => write!(f, " (verified for {})", name.as_ref()),
            TlsName::IpAddress(IpAddr::V4(ip)) => {
                write!(f, " (verified for {})", std::net::Ipv4Addr::from(*ip))
            }
            TlsName::IpAddress(IpAddr::V6(ip)) => {
                write!(f, " (verified for {})", std::net::Ipv6Addr::from(*ip))
            }
            _ => Ok(()),
        }
    }
}

/// A connection whose ends have shaken hands.
#[derive(Debug)]
pub struct TlsStream<S> {
    stream: S,
    connection: ClientConnection,
    /// What has come and TLS had no room for yet.
    untaken: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream<S> {
    async fn flush(&mut self) -> io::Result<()> {
        let mut out = Vec::new();
        while self.connection.wants_write() {
            // a Vec takes everything
            self.connection.write_tls(&mut out)?;
        }
        self.stream.write_all(&out).await
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Channel for TlsStream<S> {
    async fn say(&mut self, bytes: &[u8]) -> io::Result<()> {
        io::Write::write_all(&mut self.connection.writer(), bytes)?;
        self.flush().await
    }

    async fn hear(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            match io::Read::read(&mut self.connection.reader(), into) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                heard => return heard,
            }
            if self.untaken.is_empty() {
                let mut buffer = [0; 4096];
                let n = self.stream.read(&mut buffer).await?;
                self.untaken.extend(buffer.iter().take(n));
                if n == 0 {
                    return Ok(0);
                }
            }
            let mut bytes = self.untaken.as_slice();
            self.connection.read_tls(&mut bytes)?;
            let left = bytes.len();
            self.untaken.drain(..self.untaken.len() - left);
            if let Err(error) = self.connection.process_new_packets() {
                let why = handshake_failure(&self.connection, &error);
                return Err(io::Error::other(format!("TLS: {}", why.sentence())));
            }
            self.flush().await?;
        }
    }

    async fn finish(&mut self) -> io::Result<()> {
        self.connection.send_close_notify();
        self.flush().await?;
        self.stream.shutdown().await
    }
}

/// Sends `first` and shakes hands.
async fn shake<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    connection: &mut ClientConnection,
    mut first: Vec<u8>,
) -> Result<(), ServerTlsFailure> {
    loop {
        while connection.wants_write() {
            // a Vec takes everything
            let _ = connection.write_tls(&mut first);
        }
        let sent = stream.write_all(&first).await;
        first.clear();
        if !connection.is_handshaking() {
            return sent.map_err(|_| ServerTlsFailure::Closed);
        }
        // one that refuses us may have said why before it closed
        if let Err(why) = receive(stream, connection).await {
            let _ = connection.write_tls(&mut first);
            let _ = stream.write_all(&first).await;
            return Err(why.unwrap_or(ServerTlsFailure::Closed));
        }
    }
}

/// Ends it in order, and waits until the server does: with TLS 1.3 it refuses our certificate only now.
async fn leave<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    connection: &mut ClientConnection,
) -> Result<(), ServerTlsFailure> {
    let mut last = Vec::new();
    connection.send_close_notify();
    while connection.wants_write() {
        // a Vec takes everything
        let _ = connection.write_tls(&mut last);
    }
    // it may have closed already, and said why
    let _ = stream.write_all(&last).await;
    let _ = stream.shutdown().await;
    loop {
        match receive(stream, connection).await {
            Ok(()) => {}
            Err(Some(why @ ServerTlsFailure::OurCertificate)) => return Err(why),
            Err(_) => return Ok(()),
        }
    }
}

/// Takes up what comes next. `None`: the server has closed the connection.
async fn receive<S: AsyncRead + Unpin>(
    stream: &mut S,
    connection: &mut ClientConnection,
) -> Result<(), Option<ServerTlsFailure>> {
    let mut buffer = [0; 4096];
    let n = stream.read(&mut buffer).await.map_err(|_| None)?;
    let mut bytes = buffer.get(..n).filter(|bytes| !bytes.is_empty()).ok_or(None)?;
    while !bytes.is_empty() {
        let taken = connection.read_tls(&mut bytes);
        let state = match connection.process_new_packets() {
            Ok(state) => state,
            Err(error) => return Err(Some(handshake_failure(connection, &error))),
        };
        // what it says is of no interest
        let mut plain = vec![0; state.plaintext_bytes_to_read()];
        let _ = io::Read::read(&mut connection.reader(), &mut plain);
        if taken.is_err() && plain.is_empty() {
            return Ok(());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        PATIENCE,
        config::{ServerAlpn, ServerTrust, TlsVersion},
        tls::{
            ClientAuthSettings, ClientSettings, Pair, ServerSettings, Trust, client_configs,
            tests::lab::{Ca, Key, server, store},
        },
    };
    use rustls::{ServerConfig, ServerConnection};
    use std::{
        io::Read,
        net::{SocketAddr, TcpListener},
        thread::{self, JoinHandle},
        time::Duration,
    };

    /// A server for one connection, which gives back what was wrong with it.
    fn serve_one(config: Arc<ServerConfig>) -> (SocketAddr, JoinHandle<Result<(), String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let served = thread::spawn(move || {
            let (socket, _) = listener.accept().unwrap();
            let connection = ServerConnection::new(config).unwrap();
            let mut stream = rustls::StreamOwned::new(connection, socket);
            // an end of stream without close_notify is an error, and so is a reset
            match stream.read_to_end(&mut Vec::new()) {
                Ok(_) => Ok(()),
                Err(error) => Err(error.to_string()),
            }
        });
        (addr, served)
    }

    fn check_of(trusted: &Ca, identity: Option<Arc<Pair>>, name: ServerNameFrom) -> CheckTls {
        let made = client_configs(&ClientSettings {
            trust: Trust::Ca(trusted.certificate.pem().into_bytes()),
            identity,
            alpn: Vec::new(),
        })
        .unwrap();
        let tls = BackendTls {
            connections: made.connections,
            checks: made.checks,
            checks_of_any_name: made.checks_of_any_name,
        };
        let settings = config::BackendTls {
            trust: ServerTrust::System,
            server_name: name,
            identity: None,
            alpn: ServerAlpn::Client,
        };
        let config = crate::snapshot::testing::config(&[("s1", 1, 1)]);
        let pools = crate::pools::Pools::of(&config);
        let server = pools.get("web").unwrap().server("s1").unwrap();
        CheckTls::of(&tls, &settings, server, None)
    }

    async fn checked(check: &CheckTls, addr: SocketAddr, limit: Duration) -> Result<(), String> {
        let stream = tokio::net::TcpStream::connect(addr).await.unwrap();
        let connected = Connected { stream, ends: None };
        let result = check.check(connected, None, Instant::now() + limit).await;
        result.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn a_check_shakes_hands_and_leaves_in_order() {
        let ca = Ca::new("lab");
        for version in TlsVersion::ALL {
            let mut settings = ServerSettings::new("server");
            settings.max_version = version;
            let config = server(&settings, &store(&[&ca.issue(Key::P256, &["a.test"]).pair()]));
            let (addr, served) = serve_one(config);
            let check = check_of(&ca, None, ServerNameFrom::Fixed("a.test".into()));
            assert_eq!(checked(&check, addr, PATIENCE).await, Ok(()));
            assert_eq!(
                served.join().unwrap(),
                Ok(()),
                "the server has nothing to complain about"
            );
        }
    }

    #[tokio::test]
    async fn what_is_wrong_with_the_certificate_is_said() {
        let (ca, other) = (Ca::new("lab"), Ca::new("other"));
        let config = || {
            let pair = ca.issue(Key::P256, &["a.test"]).pair();
            server(&ServerSettings::new("server"), &store(&[&pair]))
        };
        let why = async |check: CheckTls| {
            let (addr, _served) = serve_one(config());
            checked(&check, addr, PATIENCE).await.unwrap_err()
        };
        let name = check_of(&ca, None, ServerNameFrom::Fixed("b.test".into()));
        assert!(why(name).await.ends_with("(verified for b.test)"));
        let address = check_of(&ca, None, ServerNameFrom::Address);
        assert!(why(address).await.ends_with("(verified for 192.0.2.1)"));
        let unknown = check_of(&other, None, ServerNameFrom::Fixed("a.test".into()));
        assert_eq!(
            why(unknown).await,
            ServerTlsFailure::CertificateUnknownCa.sentence()
        );
        // there is no client whose name could be expected
        let (addr, _served) = serve_one(config());
        let any = check_of(&ca, None, ServerNameFrom::Client);
        assert_eq!(checked(&any, addr, PATIENCE).await, Ok(()));
    }

    #[tokio::test]
    async fn a_server_that_refuses_our_certificate_is_heard_with_each_version() {
        let ca = Ca::new("lab");
        for version in TlsVersion::ALL {
            let mut settings = ServerSettings::new("server");
            settings.max_version = version;
            settings.client_auth = Some(ClientAuthSettings {
                required: true,
                ca: ca.certificate.pem().into_bytes(),
                crls: Vec::new(),
                crl_policy: config::CrlPolicy::Complete,
            });
            let config = server(&settings, &store(&[&ca.issue(Key::P256, &["a.test"]).pair()]));
            let name = || ServerNameFrom::Fixed("a.test".into());
            let (addr, _served) = serve_one(Arc::clone(&config));
            let refused = checked(&check_of(&ca, None, name()), addr, PATIENCE).await;
            assert_eq!(
                refused,
                Err(ServerTlsFailure::OurCertificate.sentence().to_owned())
            );
            let (addr, served) = serve_one(config);
            let own = check_of(&ca, Some(ca.issue(Key::P256, &["convey"]).pair()), name());
            assert_eq!(checked(&own, addr, PATIENCE).await, Ok(()));
            assert_eq!(served.join().unwrap(), Ok(()));
        }
    }

    #[tokio::test]
    async fn a_server_that_says_nothing_has_its_time() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let check = check_of(&Ca::new("lab"), None, ServerNameFrom::Address);
        let limit = Duration::from_millis(50);
        let silent = checked(&check, listener.local_addr().unwrap(), limit).await;
        assert_eq!(silent, Err(ServerTlsFailure::TimedOut.sentence().to_owned()));
    }
}
