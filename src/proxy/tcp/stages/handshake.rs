//! The handshake of a client's TLS, where that ends here.

use std::{future::poll_fn, sync::Arc};

use rustls::{Connection, ServerConfig, ServerConnection};
use tokio::time::{Instant, timeout_at};

use super::{
    accepted::Accepted,
    preamble::{self, Halt, HelloRead, Preamble},
};
use crate::{
    base::{ClientAddr, Remote, TerminationReason, TlsRecord},
    config::Group,
    preamble::{HelloReader, Progress},
    proxy::tcp::{end::End, tls::TlsWays},
    snapshot::{FrontendTls, live::FrontendStats},
    tls::{HandshakeFailure, Session, challenge_of},
};

/// Shakes hands. What the client has sent after it is kept.
///
/// # Errors
/// The reason with which the connection ends.
pub async fn shake(
    accepted: &Accepted,
    client: Remote<ClientAddr>,
    preamble: &mut Preamble,
    tls: &FrontendTls,
) -> Result<(), TerminationReason> {
    let live = &accepted.origin.frontend.live;
    let _place = Place::take(live, tls.max_handshakes).ok_or(TerminationReason::TlsHandshakesFull)?;
    let begun = Instant::now();
    let until = begun + tls.handshake_timeout;
    // read before its handshake only while a CA is to look at something
    let mut has_begun = !tls.challenges.load().is_empty();
    let of_ca = match has_begun {
        true => asked_by_ca(accepted, client, preamble, tls, until).await?,
        false => None,
    };
    let is_of_ca = of_ca.is_some();
    let config = of_ca.unwrap_or_else(|| Arc::clone(&tls.config));
    let connection = ServerConnection::new(config).map_err(|_| TerminationReason::Internal)?;
    let mut ways = Box::new(TlsWays::new(End::tls(connection.into()), End::default()));
    let end = &mut ways.client;
    loop {
        // before the first byte is looked at: what costs is what follows it
        if !has_begun && !preamble.bytes.is_empty() {
            begin(accepted, client)?;
            has_begun = true;
        }
        let said = std::mem::take(&mut preamble.bytes);
        let shaken = end.shake(&said);
        let flushed = timeout_at(until, poll_fn(|cx| end.poll_flush(cx, &accepted.socket))).await;
        if let Err(error) = shaken {
            preamble.tls_failure = Some(HandshakeFailure::of(&error));
            return Err(TerminationReason::TlsHandshake);
        }
        match flushed {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(TerminationReason::ClientAbortPreamble),
            Err(_) => return Err(TerminationReason::TlsHandshakeTimeout),
        }
        if !end.is_handshaking() {
            break;
        }
        match preamble::more(&accepted.socket, &mut preamble.bytes, until).await {
            Ok(()) => {}
            Err(Halt::Gone) => return Err(TerminationReason::ClientAbortPreamble),
            Err(Halt::TimedOut) => return Err(TerminationReason::TlsHandshakeTimeout),
        }
    }
    // it has seen what it came for, and nothing else is said on such a connection (RFC 8737, section 3)
    if is_of_ca {
        return Err(TerminationReason::AcmeChallenge);
    }
    let session = match end.connection() {
        Some(Connection::Server(connection)) => Session::of(connection),
        _ => None,
    };
    let session = session.ok_or(TerminationReason::Internal)?;
    let counters = live.tls.own(accepted.origin.worker);
    counters.handshake_time.add(begun.elapsed());
    counters.sessions[session.cipher.index()].add(1);
    counters.resumed.add(u64::from(session.resumed));
    preamble.hello = HelloRead::Read {
        sni: session.sni.as_deref().map(Into::into),
        // what was agreed on is what will be spoken
        alpn: session.alpn.as_deref().into_iter().collect(),
    };
    let session = Arc::new(record(session));
    accepted.registration.secured(Arc::clone(&session));
    preamble.session = Some(session);
    preamble.tls = Some(ways);
    Ok(())
}

/// What a client is served with that is a CA and looks whether a name is ours: its ClientHello says so, whose bytes stay.
async fn asked_by_ca(
    accepted: &Accepted,
    client: Remote<ClientAddr>,
    preamble: &mut Preamble,
    tls: &FrontendTls,
    until: Instant,
) -> Result<Option<Arc<ServerConfig>>, TerminationReason> {
    let mut reader = HelloReader::default();
    let mut has_begun = false;
    loop {
        if !has_begun && !preamble.bytes.is_empty() {
            begin(accepted, client)?;
            has_begun = true;
        }
        match reader.read(&preamble.bytes) {
            Progress::Done(hello) => {
                let protocols = hello.alpn.iter();
                return Ok(challenge_of(&tls.challenges, hello.sni.as_deref(), protocols));
            }
            // what is wrong with it is said by who shakes hands
            Progress::Refused(_) => return Ok(None),
            Progress::More => {}
        }
        match preamble::more(&accepted.socket, &mut preamble.bytes, until).await {
            Ok(()) => {}
            Err(Halt::Gone) => return Err(TerminationReason::ClientAbortPreamble),
            Err(Halt::TimedOut) => return Err(TerminationReason::TlsHandshakeTimeout),
        }
    }
}

/// What the limit of the client's network says of one more handshake.
fn begin(accepted: &Accepted, client: Remote<ClientAddr>) -> Result<(), TerminationReason> {
    let frontend = &accepted.origin.frontend;
    // whoever has no address has no limit
    let (Some(access), Some(client)) = (&frontend.access, client.ip()) else {
        return Ok(());
    };
    let asked = access.handshake(client, accepted.shared().now());
    asked.map_err(|reason| {
        let counters = frontend.live.counters.shard(accepted.origin.worker);
        counters.refused[reason as usize].add(1);
        TerminationReason::ClientHandshakes
    })
}

fn record(session: Session) -> TlsRecord {
    let (client_subject, client_name) = session
        .client
        .map(|client| (client.subject, client.common_name))
        .unzip();
    TlsRecord {
        version: session.version.protocol(),
        cipher: session.cipher.label(),
        group: session.group.map(Group::label),
        alpn: session.alpn,
        resumed: session.resumed,
        client_subject,
        client_name,
    }
}

/// A place among the handshakes of a frontend that are under way, given back on drop.
struct Place<'a>(&'a FrontendStats);

impl<'a> Place<'a> {
    fn take(live: &'a FrontendStats, most: u32) -> Option<Self> {
        live.handshakes.try_take(Some(most)).then(|| Self(live))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.handshakes.release();
    }
}
