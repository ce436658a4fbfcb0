//! The handshake with a server, where connections to it go through TLS.

use std::{future::poll_fn, pin::Pin, sync::Arc, task::Poll, time::Instant};

use rustls::ClientConnection;
use tokio::{io::Interest, time::Sleep};

use super::routed::Routed;
use crate::{
    base::{ServerTlsFailure, ServerTlsRecord},
    config::{Group, ServerAlpn},
    proxy::{
        choose::Chosen,
        tcp::{
            connect::{ConnectError, poll_over},
            end::End,
            memory::COPY_BYTES,
            receive::{is_transient, poll_io, receive_early},
            server_tls::config_for,
        },
    },
    snapshot::BackendTls,
    sys::{readiness::Stream, tcp},
    tls::{ServerSession, handshake_failure, server_failure},
};

/// Tells a server of the client if it is to be told, and shakes hands with it, until `deadline`. What the server says
/// after that is kept.
///
/// # Errors
/// Why the server cannot be used.
pub async fn secure(
    routed: &mut Routed,
    chosen: &Chosen,
    tls: &Arc<BackendTls>,
    server: &Stream,
    timer: Pin<&mut Sleep>,
    deadline: Instant,
) -> Result<(), ConnectError> {
    let mut connection = open(routed, chosen, tls).map_err(|why| ConnectError::Tls(server_failure(&why)))?;
    let header = chosen.backend.config.send_proxy.map(|how| routed.header(how));
    let mut first = header.unwrap_or_default();
    if !first.is_empty() {
        // one packet for both; a Vec takes everything
        let _ = connection.write_tls(&mut first);
    }
    let mut attempt = Attempt {
        end: End::tls(connection.into()),
        server,
        timer,
        deadline,
    };
    attempt.send(&first).await?;
    attempt.shake().await?;
    let session = attempt.end.connection().and_then(|tls| ServerSession::of(tls));
    let session = session.ok_or(ConnectError::Tls(ServerTlsFailure::Internal))?;
    routed.outcome.server_tls = Some(Arc::new(record(session)));
    routed.outcome.server_tls_failure = None;
    routed.wrap(attempt.end);
    Ok(())
}

/// A connection whose handshake is to come.
fn open(routed: &Routed, chosen: &Chosen, tls: &Arc<BackendTls>) -> Result<ClientConnection, rustls::Error> {
    let config = config_for(&chosen.backend.config.name, tls, chosen.addr());
    let identified = &routed.identified;
    let Some(settings) = &chosen.backend.config.tls else {
        return Err(rustls::Error::General("no settings".to_owned()));
    };
    let asked = identified.sni().map(|sni| &**sni);
    let name = settings
        .server_name
        .of_server(&chosen.server().name, chosen.addr(), asked);
    match settings.alpn {
        ServerAlpn::Client => {
            let agreed = identified.agreed_alpn().map(|name| name.as_bytes().to_vec());
            ClientConnection::new_with_alpn(config, name, agreed.into_iter().collect())
        }
        // those of the configuration
        ServerAlpn::Off | ServerAlpn::Offered(_) => ClientConnection::new(config, name),
    }
}

fn record(session: ServerSession) -> ServerTlsRecord {
    ServerTlsRecord {
        version: session.version.protocol(),
        cipher: session.cipher.label(),
        group: session.group.map(Group::label),
        alpn: session.alpn,
        resumed: session.resumed,
    }
}

/// A handshake under way.
struct Attempt<'a> {
    end: End,
    server: &'a Stream,
    timer: Pin<&'a mut Sleep>,
    deadline: Instant,
}

impl Attempt<'_> {
    /// Sends what comes before the handshake.
    async fn send(&mut self, bytes: &[u8]) -> Result<(), ConnectError> {
        let mut sent = 0;
        while sent < bytes.len() {
            let rest = &bytes[sent..];
            let (server, timer, deadline) = (self.server, &mut self.timer, self.deadline);
            let written = poll_fn(|cx| {
                if poll_over(timer, deadline, cx) {
                    return Poll::Ready(Err(ServerTlsFailure::TimedOut));
                }
                poll_io(cx, server, Interest::WRITABLE, |server| {
                    tcp::transmit(server, rest, false)
                })
                .map_err(|_| ServerTlsFailure::Closed)
            });
            sent += written.await.map_err(ConnectError::Tls)?;
        }
        Ok(())
    }

    async fn shake(&mut self) -> Result<(), ConnectError> {
        let mut said = Vec::new();
        loop {
            self.flush().await?;
            if !self.end.is_handshaking() {
                return Ok(());
            }
            self.receive(&mut said).await?;
            let shaken = self.end.shake(&said);
            said.clear();
            if let Err(error) = shaken {
                // the alert that says why, as far as it can be sent
                poll_fn(|cx| Poll::Ready(self.end.poll_flush(cx, self.server).is_ready())).await;
                let why = match self.end.connection() {
                    Some(connection) => handshake_failure(connection, &error),
                    None => server_failure(&error),
                };
                return Err(ConnectError::Tls(why));
            }
        }
    }

    async fn flush(&mut self) -> Result<(), ConnectError> {
        let flushed = poll_fn(|cx| {
            if poll_over(&mut self.timer, self.deadline, cx) {
                return Poll::Ready(Err(ServerTlsFailure::TimedOut));
            }
            let flushed = self.end.poll_flush(cx, self.server);
            flushed.map_err(|_| ServerTlsFailure::Closed)
        });
        flushed.await.map_err(ConnectError::Tls)
    }

    /// Waits for more of the server.
    async fn receive(&mut self, said: &mut Vec<u8>) -> Result<(), ConnectError> {
        let received = poll_fn(|cx| {
            loop {
                if poll_over(&mut self.timer, self.deadline, cx) {
                    return Poll::Ready(Err(ServerTlsFailure::TimedOut));
                }
                match receive_early(self.server, said, COPY_BYTES) {
                    Ok(0) => return Poll::Ready(Err(ServerTlsFailure::Closed)),
                    Ok(_) => return Poll::Ready(Ok(())),
                    Err(error) if is_transient(&error) => {}
                    Err(_) => return Poll::Ready(Err(ServerTlsFailure::Closed)),
                }
                match self.server.poll_read_ready(cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) => return Poll::Ready(Err(ServerTlsFailure::Closed)),
                    Poll::Pending => return Poll::Pending,
                }
            }
        });
        received.await.map_err(ConnectError::Tls)
    }
}
