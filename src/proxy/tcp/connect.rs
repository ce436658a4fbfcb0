//! Connecting to a chosen server within the connection's time.

use std::{
    future::poll_fn,
    io,
    os::fd::OwnedFd,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::time::Sleep;

use super::direction::Early;
use crate::{
    base::{ServerTlsFailure, TerminationReason, Zone},
    proxy::choose::Chosen,
    sys::{readiness::Stream, tcp},
};

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
        }
    }

    /// Whether the server is to blame, so that the passive check counts it.
    #[must_use]
    pub fn is_servers_fault(&self) -> bool {
        match self {
            Self::Server(_) | Self::TimedOut(_) => true,
            Self::Tls(why) => why.is_servers_fault(),
            Self::Local(_) | Self::ClientGone => false,
        }
    }
}

/// Connects to the chosen server. `timer` is the connection's; as a rule it stands at this attempt's deadline or a little
/// before, and is moved only where it must be. `early` is asked, once the connect is under way, what the client has said.
///
/// # Errors
/// Why there is no connection.
pub async fn connect(
    user_timeout: Option<Duration>,
    chosen: &Chosen,
    mut timer: Pin<&mut Sleep>,
    started: Instant,
    early: impl FnOnce() -> Early,
) -> Result<Stream, ConnectError> {
    let backend = &chosen.backend.config;
    let deadline = started + backend.connect_timeout;
    let socket = start(chosen, user_timeout).map_err(of_start)?;
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

fn start(chosen: &Chosen, user_timeout: Option<Duration>) -> io::Result<OwnedFd> {
    let addr = chosen.addr();
    let interface = addr.zone().map(Zone::as_str);
    let source = chosen.backend.config.source_addr;
    tcp::start_connect(addr.0, interface, source, user_timeout)
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
