//! The listener of the API on TCP: TLS or not, as the configuration in effect says.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use arc_swap::ArcSwap;
use axum::http::StatusCode;
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{
    auth::{ApiAccess, RemoteAddress},
    http::{self, Listener},
    shares::Sharer,
    views::Problem,
};

/// What a TLS record with a ClientHello begins with (RFC 8446, section 5.1).
const HANDSHAKE: u8 = 22;

/// What is answered to a request without TLS.
const NOT_TLS: &str = "this endpoint speaks TLS: ask for https:// in place of http://";

/// A listener whose connections are opened as the access in effect says.
#[derive(Debug)]
pub(super) struct ApiListener {
    listener: TcpListener,
    access: Arc<ArcSwap<ApiAccess>>,
}

/// A connection that HTTP is spoken on.
#[derive(Debug)]
pub(super) enum ApiStream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl ApiListener {
    pub const fn new(listener: TcpListener, access: Arc<ArcSwap<ApiAccess>>) -> Self {
        Self { listener, access }
    }
}

impl Listener for ApiListener {
    type Stream = TcpStream;
    type Open = ApiStream;
    type Caller = RemoteAddress;

    async fn accept(&self) -> io::Result<TcpStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }

    fn open(&self, stream: TcpStream) -> impl Future<Output = Option<ApiStream>> + Send + 'static {
        let tls = self.access.load().tls.as_ref().map(|tls| Arc::clone(&tls.config));
        async move {
            match tls {
                None => Some(ApiStream::Plain(stream)),
                Some(config) => shake_hands(stream, config).await,
            }
        }
    }

    fn caller(stream: &TcpStream) -> Option<RemoteAddress> {
        let peer = stream.peer_addr().ok()?;
        Some(RemoteAddress(peer.ip().to_canonical()))
    }

    fn sharer(stream: &TcpStream) -> Option<Sharer> {
        // one that has gone already has none
        stream.peer_addr().ok().map(|peer| Sharer::remote(peer.ip()))
    }
}

async fn shake_hands(mut stream: TcpStream, config: Arc<ServerConfig>) -> Option<ApiStream> {
    let mut first = [0];
    if stream.peek(&mut first).await.ok()? == 0 {
        return None;
    }
    if first != [HANDSHAKE] {
        // whoever is too slow, or has gone, does not hear it
        let _ = http::answer(&mut stream, &Problem::new(StatusCode::BAD_REQUEST, NOT_TLS)).await;
        return None;
    }
    match TlsAcceptor::from(config).accept(stream).await {
        Ok(stream) => Some(ApiStream::Tls(Box::new(stream))),
        Err(error) => {
            tracing::debug!(event = "admin_handshake_failed", %error, "a TLS handshake at the admin API failed: {error}");
            None
        }
    }
}

impl AsyncRead for ApiStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for ApiStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
