//! Reading what a client says before its payload, within a time and a size.

use std::{future::poll_fn, io, sync::Arc};

use tokio::time::{Instant, timeout_at};

use super::accepted::Accepted;
use crate::{
    base::{TerminationReason, TlsRecord},
    config::NonTls,
    preamble::{
        Alpn, ClientHello, HelloReader, HelloRefusal, MAX_HELLO_BYTES, Progress,
        proxy::{self, ProxyHeader, ProxyRefusal},
    },
    proxy::tcp::{receive::receive_early, tls::TlsWays},
    sys::readiness::Stream,
    tls::HandshakeFailure,
};

/// What a connection has said before its payload.
#[derive(Debug, Default)]
pub struct Preamble {
    /// Its PROXY header.
    pub header: Option<ProxyHeader>,
    /// Its ClientHello.
    pub hello: HelloRead,
    /// What was read and is not the header: all of it is for the server.
    pub bytes: Vec<u8>,
    /// Where TLS ends here: the connection through it.
    pub tls: Option<Box<TlsWays>>,
    /// What it has agreed on.
    pub session: Option<Arc<TlsRecord>>,
    /// Why its handshake has failed.
    pub tls_failure: Option<HandshakeFailure>,
}

/// A ClientHello, if somebody had to know it.
#[derive(Debug, Default)]
pub enum HelloRead {
    /// Nobody had.
    #[default]
    Unread,
    /// There is none.
    NotTls,
    /// It is there.
    Read {
        /// The name that it asks for.
        sni: Option<Arc<str>>,
        /// The protocols that it offers.
        alpn: Alpn,
    },
}

impl From<ClientHello> for HelloRead {
    fn from(hello: ClientHello) -> Self {
        Self::Read {
            sni: hello.sni.map(Into::into),
            alpn: hello.alpn,
        }
    }
}

/// Why a read before the payload has ended.
pub enum Halt {
    /// The client has closed or reset the connection.
    Gone,
    /// The time is over.
    TimedOut,
}

/// Reads the PROXY header of a peer that may send one.
///
/// # Errors
/// The reason with which the connection ends.
pub async fn read_header(accepted: &Accepted, preamble: &mut Preamble) -> Result<(), TerminationReason> {
    let Some(settings) = &accepted.origin.frontend.config.proxy_protocol else {
        return Ok(());
    };
    let until = accepted.origin.at + settings.timeout;
    loop {
        match proxy::read(&preamble.bytes) {
            Progress::Done(header) => {
                preamble.bytes.drain(..header.length);
                preamble.header = Some(header);
                return Ok(());
            }
            Progress::Refused(ProxyRefusal::NotProxy) if !settings.required => return Ok(()),
            Progress::Refused(_) => return Err(TerminationReason::ProxyHeader),
            Progress::More => {}
        }
        match more(&accepted.socket, &mut preamble.bytes, until.into()).await {
            Ok(()) => {}
            Err(Halt::Gone) => return Err(TerminationReason::ClientAbortPreamble),
            // what waits for the server to speak first has no header
            Err(Halt::TimedOut) if !settings.required && preamble.bytes.is_empty() => return Ok(()),
            Err(Halt::TimedOut) => return Err(TerminationReason::ProxyHeaderTimeout),
        }
    }
}

/// Reads the ClientHello. Its bytes stay.
///
/// # Errors
/// The reason with which the connection ends.
pub async fn read_hello(accepted: &Accepted, preamble: &mut Preamble) -> Result<(), TerminationReason> {
    let routing = &accepted.origin.frontend.config.routing;
    let until = Instant::now() + routing.client_hello_timeout;
    let mut reader = HelloReader::default();
    loop {
        match reader.read(&preamble.bytes) {
            Progress::Done(hello) => {
                preamble.hello = hello.into();
                return Ok(());
            }
            Progress::Refused(HelloRefusal::NotTls) => {
                preamble.hello = HelloRead::NotTls;
                return Ok(());
            }
            Progress::Refused(_) => return Err(TerminationReason::ClientHello),
            Progress::More => {}
        }
        match more(&accepted.socket, &mut preamble.bytes, until).await {
            Ok(()) => {}
            Err(Halt::Gone) => return Err(TerminationReason::ClientAbortPreamble),
            // it may wait for the server to speak first
            Err(Halt::TimedOut) if preamble.bytes.is_empty() && routing.non_tls == NonTls::Backend => {
                preamble.hello = HelloRead::NotTls;
                return Ok(());
            }
            Err(Halt::TimedOut) => return Err(TerminationReason::ClientHelloTimeout),
        }
    }
}

/// Waits for more bytes and appends them.
pub async fn more(socket: &Stream, bytes: &mut Vec<u8>, until: Instant) -> Result<(), Halt> {
    loop {
        // both readers have decided by then
        let room = MAX_HELLO_BYTES.saturating_sub(bytes.len()).max(1);
        match receive_early(socket, bytes, room) {
            Ok(0) => return Err(Halt::Gone),
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return Err(Halt::Gone),
        }
        let ready = poll_fn(|cx| socket.poll_read_ready(cx));
        match timeout_at(until, ready).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(Halt::Gone),
            Err(_) => return Err(Halt::TimedOut),
        }
    }
}
