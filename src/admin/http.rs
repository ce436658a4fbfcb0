//! Serving HTTP/1.1 within bounds: how many connections, how long, how much.
//!
//! A client that is slow, silent or hostile holds one place for a bounded time and nothing else.

use std::{
    future::Future,
    io,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::Request,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use hyper::{body::Incoming, server::conn::http1, service::Service};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};

use super::views::Problem;

/// What a client may take.
#[derive(Debug, Clone, Copy)]
pub struct HttpLimits {
    /// Connections at a time; more are answered 503, closed and counted.
    pub connections: usize,
    /// Time for a request's header, from the connection or the end of the last answer: so also how long an idle
    /// connection is kept.
    pub header: Duration,
    /// Time for a request's body.
    pub body: Duration,
    /// Time that a connection may live, whatever it does; at its end the answer under way may be finished.
    pub connection: Duration,
    /// Time for the last answer of such a connection.
    pub last_answer: Duration,
    /// How long an answer may take: the control loop's, and that of the workers about their connections.
    pub reply: Duration,
    /// How long a reload may take: it waits for new listeners and for the broker.
    pub reload: Duration,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            connections: 64,
            header: Duration::from_secs(5),
            body: Duration::from_secs(5),
            connection: Duration::from_secs(120),
            last_answer: Duration::from_secs(5),
            reply: Duration::from_secs(4),
            reload: Duration::from_secs(55),
        }
    }
}

/// Largest body of a request, in bytes.
pub const MAX_BODY_BYTES: usize = 16 << 10;

/// Buffer for a request's header, in bytes; a longer header is answered 431.
const MAX_HEADER_BYTES: usize = 16 << 10;

/// Header fields in a request.
const MAX_HEADERS: usize = 64;

/// Pause after an accept that failed for want of resources.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who is at the other end of a unix socket, as the kernel said at connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// User id.
    pub uid: u32,
    /// Process id; `None` when it is in a namespace that cannot be seen.
    pub pid: Option<i32>,
}

/// A listener at work. Dropping it closes it and every connection.
#[derive(Debug)]
pub struct HttpListener {
    accept: AbortHandle,
}

impl Drop for HttpListener {
    fn drop(&mut self) {
        // the task owns the listener and the connections' tasks
        self.accept.abort();
    }
}

/// A listener of streams that HTTP can be spoken on.
pub(super) trait Listener: Send + 'static {
    /// One connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection.
    fn accept(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    /// Who it is, if that can be known.
    fn peer(stream: &Self::Stream) -> Option<Peer>;

    /// Writes what fits at once.
    fn write_now(stream: &Self::Stream, bytes: &[u8]);
}

impl Listener for UnixListener {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<UnixStream> {
        Self::accept(self).await.map(|(stream, _)| stream)
    }

    fn peer(stream: &UnixStream) -> Option<Peer> {
        let credentials = stream.peer_cred().ok()?;
        Some(Peer {
            uid: credentials.uid(),
            pid: credentials.pid(),
        })
    }

    fn write_now(stream: &UnixStream, bytes: &[u8]) {
        // it is going to be closed: whether the client hears why is up to its socket buffer
        let _ = stream.try_write(bytes);
    }
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<TcpStream> {
        Self::accept(self).await.map(|(stream, _)| stream)
    }

    fn peer(_stream: &TcpStream) -> Option<Peer> {
        None
    }

    fn write_now(stream: &TcpStream, bytes: &[u8]) {
        // as for a unix socket
        let _ = stream.try_write(bytes);
    }
}

/// Serves `router` on a listener, from a task of the current runtime. Connections that are turned away because too many
/// are open are counted in `refused`.
pub(super) fn serve<L: Listener>(
    listener: L,
    router: Router,
    limits: HttpLimits,
    refused: Arc<AtomicU64>,
) -> HttpListener {
    let task = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        let mut failing = false;
        loop {
            let stream = match listener.accept().await {
                Ok(stream) => stream,
                Err(error) => {
                    if !failing {
                        tracing::warn!(event = "admin_accept_failed", %error, "cannot accept control connections: {error}");
                    }
                    failing = true;
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            failing = false;
            while connections.try_join_next().is_some() {}
            if connections.len() >= limits.connections {
                refused.fetch_add(1, Ordering::Relaxed);
                L::write_now(&stream, TOO_MANY.as_bytes());
                continue;
            }
            let peer = L::peer(&stream);
            connections.spawn(serve_connection(stream, peer, router.clone(), limits));
        }
    });
    HttpListener {
        accept: task.abort_handle(),
    }
}

const TOO_MANY: &str = "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Type: application/json\r\n\
    Content-Length: 68\r\n\r\n{\"status\":503,\"message\":\"too many connections to this endpoint now\"}";

/// Serves one connection to its end.
pub(super) async fn serve_connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Option<Peer>,
    router: Router,
    limits: HttpLimits,
) {
    let router = TowerToHyperService::new(router);
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        if let Some(peer) = peer {
            request.extensions_mut().insert(peer);
        }
        router.call(request)
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.header)
            // a client that has sent all it has to say (nc -N) still gets its answer
            .half_close(true)
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_HEADER_BYTES)
            .serve_connection(TokioIo::new(stream), service)
    );
    if timeout(limits.connection, connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        // an error or the end of the time mean the same here: the connection is dropped
        let _ = timeout(limits.last_answer, connection).await;
    }
}

impl Problem {
    /// A problem with an HTTP status.
    #[must_use]
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status: status.as_u16(),
            message: message.into(),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, axum::Json(self)).into_response()
    }
}

/// The answer to a path that is not served.
pub(super) async fn not_found(request: Request) -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        format!("there is nothing at {}", request.uri().path()),
    )
}

/// The answer to a method that a path does not have.
pub(super) async fn method_not_allowed(request: Request) -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        format!(
            "method {} not allowed on {}",
            request.method(),
            request.uri().path()
        ),
    )
}

/// Reads and parses a JSON body within the limits.
pub(super) async fn json_body<T: serde::de::DeserializeOwned>(
    request: Request,
    limit: Duration,
) -> Result<T, Problem> {
    let json = request
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|value| value.trim().eq_ignore_ascii_case("application/json"));
    if !json {
        // required so that no web page can send requests with a plain form
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "send the body with Content-Type: application/json",
        ));
    }
    let body = timeout(limit, axum::body::to_bytes(request.into_body(), MAX_BODY_BYTES))
        .await
        .map_err(|_| Problem::new(StatusCode::REQUEST_TIMEOUT, "timed out reading the request body"))?
        .map_err(|error| {
            Problem::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("cannot read the request body (limit: {MAX_BODY_BYTES} bytes): {error}"),
            )
        })?;
    serde_json::from_slice(&body)
        .map_err(|error| Problem::new(StatusCode::BAD_REQUEST, format!("invalid request body: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_one_connection_too_many_is_well_formed() {
        let (head, body) = TOO_MANY.split_once("\r\n\r\n").expect("a header and a body");
        assert!(
            head.contains(&format!("Content-Length: {}", body.len())),
            "{} bytes",
            body.len()
        );
        let problem: Problem = serde_json::from_str(body).expect("a problem");
        assert_eq!(problem.status, 503);
    }
}
