//! One TCP connect check.

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
    machine::CheckResult,
    tls::{CheckTls, Connected, TlsCheckError},
};
use crate::{
    base::{IpServerAddr, ServerAddr, ServerSocketOptions, SocketKind, SocketPath, Zone},
    config::SendProxy,
    sys::{
        socket_options,
        unix_stream::{self, UnixConnectError},
        zone,
    },
};

/// How long after it a unix socket whose accept queue was full is tried again.
const FULL_PAUSE: Duration = Duration::from_millis(20);

/// Why a connect check did not pass.
#[derive(Debug, thiserror::Error)]
enum CheckError {
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

/// Connects, shakes hands where the server speaks TLS, and closes again within a time.
pub async fn check(
    addr: ServerAddr,
    way: Way,
    sockets: Option<&dyn CheckSockets>,
    limit: Duration,
) -> CheckResult {
    let until = Instant::now() + limit;
    match addr {
        ServerAddr::Ip(addr) => attempt(connect(addr, &way, sockets), &way, until, limit).await,
        ServerAddr::Unix(path) => attempt(connect_to_path(path, until), &way, until, limit).await,
    }
}

async fn attempt<S: AsyncRead + AsyncWrite + Unpin>(
    connect: impl Future<Output = Result<Connected<S>, CheckError>>,
    way: &Way,
    until: Instant,
    limit: Duration,
) -> CheckResult {
    let connected = match timeout_at(until, connect).await {
        Ok(Ok(connected)) => connected,
        Ok(Err(error @ CheckError::Local(_))) => return CheckResult::NotMade(error.to_string().into()),
        Ok(Err(error)) => return CheckResult::Failed(error.to_string().into()),
        Err(_) => return CheckResult::Failed(format!("timeout after {limit:?}").into()),
    };
    let spoken = match &way.tls {
        Some(tls) => tls
            .check(connected, way.send_proxy, until)
            .await
            .map_err(CheckError::Tls),
        None => match way.send_proxy {
            Some(how) => match timeout_at(until, introduce(connected, how)).await {
                Ok(said) => said.map_err(CheckError::Connect),
                Err(_) => return CheckResult::Failed(format!("timeout after {limit:?}").into()),
            },
            None => Ok(()),
        },
    };
    match spoken {
        Ok(()) => CheckResult::Passed,
        Err(error) => CheckResult::Failed(error.to_string().into()),
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

async fn connect(
    addr: IpServerAddr,
    way: &Way,
    sockets: Option<&dyn CheckSockets>,
) -> Result<Connected<TcpStream>, CheckError> {
    let socket = match (way.socket, addr.0) {
        (Some(kind), _) => made(kind, sockets).await,
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
    if way.send_proxy.is_none() && way.tls.is_none() {
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
async fn made(kind: SocketKind, sockets: Option<&dyn CheckSockets>) -> io::Result<TcpSocket> {
    let (answer, answered) = oneshot::channel();
    if let Some(sockets) = sockets {
        sockets.ask(kind, answer);
    }
    let made = answered
        .await
        .map_err(|_| "there is nobody who makes it".to_owned());
    match made.and_then(|made| made) {
        Ok(socket) => Ok(TcpSocket::from_std_stream(socket.into())),
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
        // no free local port, no memory
        Some(Errno::EADDRNOTAVAIL | Errno::EADDRINUSE | Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM) => {
            CheckError::Local(error)
        }
        _ => CheckError::Connect(error),
    }
}

/// The system's text without capital and number, for it stands in the middle of a line.
fn text(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => Errno::from_raw(number).desc().to_ascii_lowercase(),
        None => error.to_string(),
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
                check(ServerAddr::new(addr), Way::default(), None, LIMIT).await,
                CheckResult::Passed
            );
            assert_eq!(
                check(ServerAddr::new(addr), from(ip), None, LIMIT).await,
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
            reason(&check(ServerAddr::new(addr), Way::default(), None, LIMIT).await)
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
            reason(&check(ServerAddr::new(addr), Way::default(), None, limit).await),
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
            let result = check(addr.parse().unwrap(), way, None, LIMIT).await;
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
            LIMIT,
        )
        .await;
        let text = reason(&result);
        assert!(text.starts_with("cannot use source_addr 192.0.2.77: "), "{text}");
    }
}
