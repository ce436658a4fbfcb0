//! Connecting to a chosen server within the connection's time.

use std::{
    future::poll_fn,
    io,
    net::IpAddr,
    os::fd::OwnedFd,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::time::{Sleep, sleep};

use super::direction::Early;
use crate::{
    base::{Protocol, ServerAddr, ServerTlsFailure, SocketKind, TerminationReason, Zone},
    proxy::{choose::Chosen, pool},
    sys::{readiness::Stream, server_socket::Source, tcp, unix_stream},
};

/// How long after it a unix socket whose accept queue was full is tried again; twice as long each time.
const FULL_PAUSE: Duration = Duration::from_millis(1);

/// The longest such pause.
const LONGEST_FULL_PAUSE: Duration = Duration::from_millis(50);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Convey itself could not: no descriptor, no local port, a source address that is not ours.
    #[error("{0}")]
    Local(io::Error),
    /// The server refused, or cannot be reached.
    #[error("{0}")]
    Server(io::Error),
    /// No answer within `connect_timeout`.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// The server is connected, and its TLS handshake has failed.
    #[error("{}", .0.sentence())]
    Tls(ServerTlsFailure),
    /// The client has reset its connection.
    #[error("the client has disconnected")]
    ClientGone,
    /// The connection was to come from the client's address, and cannot.
    #[error("from the client's address: {0}")]
    ClientSource(io::Error),
    /// The connection takes a socket of the broker's, and there is none.
    #[error("no socket of the broker's")]
    NoSourceSocket,
}

impl ConnectError {
    /// The reason with which the connection ends if this was the last attempt.
    #[must_use]
    pub fn reason(&self) -> TerminationReason {
        match self {
            Self::Local(_) => TerminationReason::Resource,
            Self::Server(_) => TerminationReason::ServerConnect,
            Self::TimedOut(_) | Self::Tls(ServerTlsFailure::TimedOut) => TerminationReason::ConnectTimeout,
            Self::Tls(_) => TerminationReason::ServerTls,
            Self::ClientGone => TerminationReason::ClientAbortConnect,
            Self::ClientSource(_) => TerminationReason::ClientSource,
            Self::NoSourceSocket => TerminationReason::NoSourceSocket,
        }
    }

    /// Whether another attempt would fail in the same way.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        matches!(
            self,
            Self::ClientGone | Self::ClientSource(_) | Self::NoSourceSocket
        )
    }

    /// Whether the server is to blame, so that the passive check counts it.
    #[must_use]
    pub fn is_servers_fault(&self) -> bool {
        match self {
            Self::Server(_) | Self::TimedOut(_) => true,
            Self::Tls(why) => why.is_servers_fault(),
            Self::Local(_) | Self::ClientGone | Self::ClientSource(_) | Self::NoSourceSocket => false,
        }
    }
}

/// Connects to the chosen server. `timer` is the connection's; as a rule it stands at this attempt's deadline or a little
/// before, and is moved only where it must be. `source` is the client's address if the server is to see it. `early` is asked, once the connect is under way, what the client has said.
///
/// # Errors
/// Why there is no connection.
pub async fn connect(
    user_timeout: Option<Duration>,
    chosen: &Chosen,
    source: Option<IpAddr>,
    mut timer: Pin<&mut Sleep>,
    started: Instant,
    early: impl FnOnce() -> Early,
) -> Result<Stream, ConnectError> {
    let backend = &chosen.backend.config;
    let deadline = started + backend.connect_timeout;
    let from = Source {
        socket: match chosen.special_kind(Protocol::Tcp, source) {
            Some(kind) => Some(made(kind, deadline).await?),
            None => None,
        },
        address: source.or(backend.source_addr),
        options: backend.server_socket,
    };
    let Some(begun) = start(chosen, from, user_timeout) else {
        // boxed, because it is rare and a connection is to be small
        return Box::pin(to_path(chosen, deadline, early)).await;
    };
    let socket = begun.map_err(|error| match error.raw_os_error() {
        // the kernel knows no way from there, as from a loopback address to another host
        Some(libc::EINVAL) if source.is_some() => ConnectError::ClientSource(error),
        _ => of_start(error),
    })?;
    let stream = Stream::new(socket).map_err(ConnectError::Local)?;
    match early() {
        Early::Nothing => {}
        // the first data carries the acknowledgement that ends the handshake: one packet less
        Early::Data => tcp::delay_acknowledgement(&stream),
        Early::Gone => return Err(ConnectError::ClientGone),
    }
    if timer.deadline().into_std() > deadline {
        // a reload has shortened the time, or has sent the connection elsewhere
        timer.as_mut().reset(deadline.into());
    }
    poll_fn(|cx| {
        if poll_over(&mut timer, deadline, cx) {
            return Poll::Ready(Err(ConnectError::TimedOut(backend.connect_timeout)));
        }
        stream.poll_write_ready(cx).map_err(ConnectError::Local)
    })
    .await?;
    tcp::connect_result(&stream).map_err(ConnectError::Server)?;
    Ok(stream)
}

/// Whether the time of an attempt is over; if not, `cx` is woken when it is.
pub fn poll_over(timer: &mut Pin<&mut Sleep>, deadline: Instant, cx: &mut Context<'_>) -> bool {
    // after a wait in the queue the timer stands too early; it is moved only then
    while timer.as_mut().poll(cx).is_ready() {
        if Instant::now() >= deadline {
            return true;
        }
        timer.as_mut().reset(deadline.into());
    }
    false
}

/// A socket of the broker's.
async fn made(kind: SocketKind, until: Instant) -> Result<OwnedFd, ConnectError> {
    let made = match pool::take(kind) {
        Some(made) => Some(made),
        // boxed, because it is rare and a connection is to be small
        None => Box::pin(pool::wait(kind, until)).await,
    };
    made.ok_or(ConnectError::NoSourceSocket)
}

/// Starts connecting to a server on a network; `None`: it is none.
fn start(chosen: &Chosen, source: Source, user_timeout: Option<Duration>) -> Option<io::Result<OwnedFd>> {
    let addr = chosen.addr().on_network()?;
    let interface = addr.zone().map(Zone::as_str);
    Some(tcp::start_connect(addr.0, interface, source, user_timeout))
}

/// Connects to a unix socket: that is done at once, or, while its accept queue is full, tried again.
async fn to_path(
    chosen: &Chosen,
    deadline: Instant,
    early: impl FnOnce() -> Early,
) -> Result<Stream, ConnectError> {
    if matches!(early(), Early::Gone) {
        return Err(ConnectError::ClientGone);
    }
    let ServerAddr::Unix(path) = chosen.addr() else {
        return Err(ConnectError::Server(io::ErrorKind::Unsupported.into()));
    };
    let mut pause = FULL_PAUSE;
    loop {
        match unix_stream::connect(path.as_path()) {
            Ok(socket) => return Stream::new(socket).map_err(ConnectError::Local),
            Err(fault) if fault.is_ours() => return Err(ConnectError::Local(fault.into())),
            Err(fault) if !fault.may_pass() || Instant::now() + pause >= deadline => {
                return Err(ConnectError::Server(fault.into()));
            }
            // nothing tells when there is room
            Err(_) => sleep(pause).await,
        }
        pause = (pause * 2).min(LONGEST_FULL_PAUSE);
    }
}

/// Tells faults of ours from the server's among the errors that connect(2) returns at once.
fn of_start(error: io::Error) -> ConnectError {
    match error.raw_os_error() {
        Some(
            libc::ECONNREFUSED
            | libc::ENETUNREACH
            | libc::EHOSTUNREACH
            | libc::ECONNRESET
            | libc::ETIMEDOUT
            // the interface of a link-local address
            | libc::ENODEV,
        ) => ConnectError::Server(error),
        _ => ConnectError::Local(error),
    }
}
