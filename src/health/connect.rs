//! One check of a server: connects, and says and hears what the check wants.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::socket::{setsockopt, sockopt},
};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::{TcpSocket, TcpStream, UnixStream},
    sync::oneshot,
    time::{Instant, sleep, timeout_at},
};

use super::{
    channel::{Connected, text},
    exchange::{self, ExchangeError},
    machine::CheckResult,
    probe::Dialogue,
    tls::{CheckTls, TlsCheckError},
};
use crate::{
    base::{IpServerAddr, Protocol, ServerAddr, ServerSocketOptions, SocketKind, SocketPath, Zone},
    config::SendProxy,
    preamble::proxy::{self, ProxySource, Tlvs},
    sys::{
        server_socket::Source,
        socket_options, udp_socket,
        unix_stream::{self, UnixConnectError},
        zone,
    },
};

/// How long after it a unix socket whose accept queue was full is tried again.
const FULL_PAUSE: Duration = Duration::from_millis(20);

/// Why a connect check did not pass.
#[derive(Debug, thiserror::Error)]
pub(super) enum CheckError {
    /// A local resource is missing: the server is not to blame.
    #[error("check not possible: {}", text(.0))]
    Local(io::Error),
    /// Connections to the server would fail in the same way.
    #[error("cannot use source_addr {}: {}", .0, text(.1))]
    Source(IpAddr, io::Error),
    /// Connections to the server would fail in the same way.
    #[error("no interface {}: {}", .0, text(.1))]
    Interface(Zone, io::Error),
    /// The connect failed.
    #[error("{}", text(.0))]
    Connect(io::Error),
    /// The connect to a unix socket failed.
    #[error("{0}")]
    Path(UnixConnectError),
    /// No server: both ends were the same socket, which TCP allows when the kernel picks the very port that is
    /// connected to as the local one.
    #[error("connection refused (nothing listens; the check reached itself)")]
    Itself,
    /// The server answers, and there is no TLS with it.
    #[error("TLS: {0}")]
    Tls(TlsCheckError),
    /// The server did not do what the check wants.
    #[error("{0}")]
    Exchange(ExchangeError),
    /// Nothing can be sent to a unix socket by UDP; the configuration has no such check.
    #[error("a unix socket hears no datagrams")]
    Datagram,
    /// The time was over.
    #[error("timeout after {0:?}")]
    TimedOut(Duration),
}

/// How a server is connected to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Way {
    /// The source address; `None`: the kernel's choice.
    pub source: Option<IpAddr>,
    /// The PROXY header that it expects.
    pub send_proxy: Option<SendProxy>,
    /// The TLS that it speaks.
    pub tls: Option<CheckTls>,
    /// The kind of socket that it takes, if only the broker can make it.
    pub socket: Option<SocketKind>,
    /// What is chosen for its socket, buffers left out.
    pub options: ServerSocketOptions,
}

/// Where such sockets come from: whoever may make them.
pub trait CheckSockets: std::fmt::Debug + Send + Sync {
    /// Asks for one; returns at once.
    fn ask(&self, kind: SocketKind, answer: oneshot::Sender<Result<OwnedFd, String>>);
}

/// Connects, shakes hands where the server speaks TLS, leads the dialogue if there is one, and closes again within a time.
pub async fn check(
    addr: ServerAddr,
    way: Way,
    dialogue: Option<Dialogue>,
    sockets: Option<&dyn CheckSockets>,
    limit: Duration,
) -> CheckResult {
    let attempt = Attempt {
        way: &way,
        dialogue: dialogue.as_ref(),
        until: Instant::now() + limit,
        limit,
    };
    let made = match (addr, &dialogue) {
        (ServerAddr::Ip(addr), Some(dialogue)) if dialogue.protocol == Protocol::Udp => {
            attempt.by_datagrams(addr, dialogue, sockets).await
        }
        (ServerAddr::Ip(addr), dialogue) => {
            let is_mere = dialogue.is_none();
            attempt.by_stream(connect(addr, &way, is_mere, sockets)).await
        }
        (ServerAddr::Unix(_), Some(dialogue)) if dialogue.protocol == Protocol::Udp => {
            Err(CheckError::Datagram)
        }
        (ServerAddr::Unix(path), _) => attempt.by_stream(connect_to_path(path, attempt.until)).await,
    };
    match made {
        Ok(()) => CheckResult::Passed,
        Err(error @ (CheckError::Local(_) | CheckError::Datagram)) => {
            CheckResult::NotMade(error.to_string().into())
        }
        Err(error) => CheckResult::Failed(error.to_string().into()),
    }
}

/// One check under way.
#[derive(Clone, Copy)]
struct Attempt<'a> {
    way: &'a Way,
    dialogue: Option<&'a Dialogue>,
    until: Instant,
    limit: Duration,
}

impl Attempt<'_> {
    async fn by_stream<S: AsyncRead + AsyncWrite + Unpin>(
        self,
        connect: impl Future<Output = Result<Connected<S>, CheckError>>,
    ) -> Result<(), CheckError> {
        let Self {
            way, until, limit, ..
        } = self;
        let timed_out = |_| CheckError::TimedOut(limit);
        let mut connected = timeout_at(until, connect).await.map_err(timed_out)??;
        match (&way.tls, self.dialogue) {
            (Some(tls), None) => {
                let checked = tls.check(connected, way.send_proxy, until).await;
                checked.map_err(CheckError::Tls)
            }
            (Some(tls), Some(dialogue)) => {
                let shaken = tls.shake_hands(connected, way.send_proxy, until).await;
                let mut stream = shaken.map_err(CheckError::Tls)?;
                let had = exchange::over_stream(&mut stream, dialogue, until, limit).await;
                had.map_err(CheckError::Exchange)
            }
            (None, None) => match way.send_proxy {
                Some(how) => {
                    let said = timeout_at(until, introduce(connected, how)).await;
                    said.map_err(timed_out)?.map_err(CheckError::Connect)
                }
                None => Ok(()),
            },
            (None, Some(dialogue)) => {
                if let Some(how) = way.send_proxy {
                    let header = connected.proxy_header(how);
                    let said = timeout_at(until, connected.stream.write_all(&header)).await;
                    said.map_err(timed_out)?.map_err(CheckError::Connect)?;
                }
                let had = exchange::over_stream(&mut connected, dialogue, until, limit).await;
                had.map_err(CheckError::Exchange)
            }
        }
    }

    async fn by_datagrams(
        self,
        addr: IpServerAddr,
        dialogue: &Dialogue,
        sockets: Option<&dyn CheckSockets>,
    ) -> Result<(), CheckError> {
        let Self {
            way, until, limit, ..
        } = self;
        let socket = match way.socket {
            Some(kind) => {
                let made = timeout_at(until, made(kind, sockets)).await;
                let made = made.map_err(|_| CheckError::TimedOut(limit))?;
                Some(made.map_err(CheckError::Local)?)
            }
            None => None,
        };
        let source = Source {
            socket,
            address: way.source,
            options: way.options,
        };
        let zone = addr.zone();
        let socket = udp_socket::connect(addr.0, zone.map(Zone::as_str), source)
            .map_err(|error| of_udp_socket(error, way, zone))?;
        let header = match way.send_proxy {
            Some(SendProxy::V2(_)) => proxy::write_v2(ProxySource::Local, &Tlvs::default(), false),
            // a line of TCP
            Some(SendProxy::V1) | None => Vec::new(),
        };
        let had = exchange::by_datagrams(socket, &header, dialogue, until, limit).await;
        had.map_err(CheckError::Exchange)
    }
}

/// Why there is no socket of UDP towards a server.
fn of_udp_socket(error: io::Error, way: &Way, zone: Option<&Zone>) -> CheckError {
    let interface = zone.copied().or(way.options.interface);
    match (error.raw_os_error(), interface, way.source) {
        (Some(libc::ENODEV), Some(interface), _) => CheckError::Interface(interface, error),
        (Some(libc::EADDRNOTAVAIL), _, Some(source)) => CheckError::Source(source, error),
        _ => of_connect(error),
    }
}

/// A unix socket is connected to at once or not at all; while its accept queue is full, it is tried until the time is over.
async fn connect_to_path(path: SocketPath, until: Instant) -> Result<Connected<UnixStream>, CheckError> {
    let socket = loop {
        match unix_stream::connect(path.as_path()) {
            Ok(socket) => break socket,
            Err(error) if error.is_ours() => return Err(CheckError::Local(error.into())),
            Err(error) if !error.may_pass() || Instant::now() + FULL_PAUSE >= until => {
                return Err(CheckError::Path(error));
            }
            Err(_) => sleep(FULL_PAUSE).await,
        }
    };
    let stream = UnixStream::from_std(socket.into()).map_err(CheckError::Local)?;
    Ok(Connected { stream, ends: None })
}

/// Connects, as a check does; one that `is_mere` says and hears nothing.
///
/// # Errors
/// No connection.
pub(super) async fn connect(
    addr: IpServerAddr,
    way: &Way,
    is_mere: bool,
    sockets: Option<&dyn CheckSockets>,
) -> Result<Connected<TcpStream>, CheckError> {
    let socket = match (way.socket, addr.0) {
        (Some(kind), _) => (made(kind, sockets).await).map(|made| TcpSocket::from_std_stream(made.into())),
        (None, SocketAddr::V4(_)) => TcpSocket::new_v4(),
        (None, SocketAddr::V6(_)) => TcpSocket::new_v6(),
    };
    let socket = socket.map_err(CheckError::Local)?;
    socket_options::set_for_server(&socket, addr.0.is_ipv6(), &way.options).map_err(|error| {
        match way.options.interface {
            Some(interface) if error.raw_os_error() == Some(libc::ENODEV) => {
                CheckError::Interface(interface, error)
            }
            _ => CheckError::Local(error),
        }
    })?;
    // closing sends RST, so that neither side keeps TIME_WAIT; and while the kernel holds back the ACK that would
    // complete the handshake, it takes the ACK's place: most servers then never hear of the check
    if is_mere && way.send_proxy.is_none() && way.tls.is_none() {
        socket.set_zero_linger().map_err(CheckError::Local)?;
        SockRef::from(&socket)
            .set_tcp_quickack(false)
            .map_err(CheckError::Local)?;
    }
    let at = |to: SocketAddr| match addr.zone() {
        Some(zone) => {
            let found = zone::at_interface(&socket, to, zone.as_str());
            found.map_err(|e| CheckError::Interface(*zone, e))
        }
        None => Ok(to),
    };
    let to = at(addr.0)?;
    if let Some(source) = way.source {
        setsockopt(&socket, sockopt::IpBindAddressNoPort, &true).map_err(|e| CheckError::Local(e.into()))?;
        socket
            .bind(at(SocketAddr::new(source, 0))?)
            .map_err(|e| CheckError::Source(source, e))?;
    }
    let stream = socket.connect(to).await.map_err(of_connect)?;
    match stream.local_addr() {
        Ok(local) if (local.ip(), local.port()) == (addr.0.ip(), addr.0.port()) => Err(CheckError::Itself),
        local => Ok(Connected {
            stream,
            ends: local.ok().map(|local| (local, to)),
        }),
    }
}

/// A socket of the broker's.
async fn made(kind: SocketKind, sockets: Option<&dyn CheckSockets>) -> io::Result<OwnedFd> {
    let (answer, answered) = oneshot::channel();
    if let Some(sockets) = sockets {
        sockets.ask(kind, answer);
    }
    let made = answered
        .await
        .map_err(|_| "there is nobody who makes it".to_owned());
    match made.and_then(|made| made) {
        Ok(socket) => Ok(socket),
        Err(why) => Err(io::Error::other(format!("no socket ({kind}): {why}"))),
    }
}

/// Says that the connection is Convey's own, and ends it in order: what the server logs is not an error then.
async fn introduce<S: AsyncWrite + Unpin>(mut connected: Connected<S>, how: SendProxy) -> io::Result<()> {
    let header = connected.proxy_header(how);
    connected.stream.write_all(&header).await?;
    connected.stream.shutdown().await
}

fn of_connect(error: io::Error) -> CheckError {
    match error.raw_os_error().map(Errno::from_raw) {
        // no free local port, no descriptor, no memory
        Some(
            Errno::EMFILE
            | Errno::ENFILE
            | Errno::EADDRNOTAVAIL
            | Errno::EADDRINUSE
            | Errno::EAGAIN
            | Errno::ENOBUFS
            | Errno::ENOMEM,
        ) => CheckError::Local(error),
        _ => CheckError::Connect(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::Read,
        net::{Ipv4Addr, Ipv6Addr, TcpListener},
    };

    const LIMIT: Duration = crate::PATIENCE;

    fn from(source: IpAddr) -> Way {
        Way {
            source: Some(source),
            ..Way::default()
        }
    }

    fn reason(result: &CheckResult) -> &str {
        match result {
            CheckResult::Failed(reason) => reason,
            other => panic!("{other:?} is not a failure"),
        }
    }

    #[tokio::test]
    async fn a_listening_server_passes_on_both_families() {
        for ip in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
            let listener = TcpListener::bind((ip, 0)).unwrap();
            let addr = listener.local_addr().unwrap();
            assert_eq!(
                check(ServerAddr::new(addr), Way::default(), None, None, LIMIT).await,
                CheckResult::Passed
            );
            assert_eq!(
                check(ServerAddr::new(addr), from(ip), None, None, LIMIT).await,
                CheckResult::Passed
            );
        }
    }

    #[tokio::test]
    async fn a_check_leaves_nothing_behind_at_the_server() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let result = check(
            ServerAddr::new(listener.local_addr().unwrap()),
            Way::default(),
            None,
            None,
            LIMIT,
        )
        .await;
        assert_eq!(result, CheckResult::Passed);
        listener.set_nonblocking(true).unwrap();
        // either it never hears of the check, or the connection it gets is reset
        match listener.accept() {
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            Ok((mut stream, _)) => {
                let error = stream.read(&mut [0]).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
            }
        }
    }

    #[tokio::test]
    async fn a_closed_port_is_called_connection_refused() {
        // taken, so that nobody else comes to listen there
        let taken = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        taken
            .bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())
            .unwrap();
        let addr = taken.local_addr().unwrap().as_socket().unwrap();
        assert!(
            reason(&check(ServerAddr::new(addr), Way::default(), None, None, LIMIT).await)
                .starts_with("connection refused")
        );
    }

    #[tokio::test]
    async fn a_server_that_does_not_answer_fails_after_the_time() {
        // a listener whose accept queue is full drops further SYNs, as a dead host does
        let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        listener.bind(&any.into()).unwrap();
        listener.listen(0).unwrap();
        let addr = listener.local_addr().unwrap().as_socket().unwrap();
        let _fills_it = std::net::TcpStream::connect(addr).unwrap();
        let limit = Duration::from_millis(100);
        assert_eq!(
            reason(&check(ServerAddr::new(addr), Way::default(), None, None, limit).await),
            "timeout after 100ms"
        );
    }

    #[tokio::test]
    async fn an_interface_that_is_not_there_is_named() {
        let by_it = Way {
            options: ServerSocketOptions {
                interface: Zone::new("no-such-link"),
                ..ServerSocketOptions::default()
            },
            ..Way::default()
        };
        for (addr, way) in [
            ("[fe80::1%no-such-link]:80", Way::default()),
            ("192.0.2.7:80", by_it),
        ] {
            let result = check(addr.parse().unwrap(), way, None, None, LIMIT).await;
            assert_eq!(reason(&result), "no interface no-such-link: no such device");
        }
    }

    #[tokio::test]
    async fn a_source_address_that_is_not_ours_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let source = IpAddr::from([192, 0, 2, 77]);
        let result = check(
            ServerAddr::new(listener.local_addr().unwrap()),
            from(source),
            None,
            None,
            LIMIT,
        )
        .await;
        let text = reason(&result);
        assert!(text.starts_with("cannot use source_addr 192.0.2.77: "), "{text}");
    }
}
