//! Serving HTTP/1.1 within bounds: how many connections, how long, how much.
//!
//! A client that is slow, silent or hostile holds one place for a bounded time and nothing else.

use std::{
    future::{Future, ready},
    io,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{Router, extract::Request, http::StatusCode};
use hyper::{body::Incoming, server::conn::http1, service::Service};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};

use super::{
    caller::Caller,
    shares::{Peer, Sharer, Shares},
    views::Problem,
};

/// What a client may take.
#[derive(Debug, Clone, Copy)]
pub struct HttpLimits {
    /// Connections at a time; more are answered 503, closed and counted.
    pub connections: usize,
    /// Of these for one peer (see [`Sharer`]).
    pub per_peer: usize,
    /// Connections of which a request is waited for although it is answered 503, and how long.
    pub refusals: usize,
    /// Time for such a request, and for taking the answer.
    pub refusal: Duration,
    /// Time for a TLS handshake.
    pub handshake: Duration,
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
            // a browser opens six, and several may be behind one address
            connections: 128,
            per_peer: 48,
            refusals: 12,
            refusal: Duration::from_secs(1),
            handshake: Duration::from_secs(5),
            header: Duration::from_secs(5),
            body: Duration::from_secs(5),
            connection: Duration::from_secs(120),
            last_answer: Duration::from_secs(5),
            reply: Duration::from_secs(4),
            reload: Duration::from_secs(55),
        }
    }
}

/// Marks an answer that goes on for as long as its client listens, [`LONG_LIVED`] at most.
#[derive(Debug, Clone, Copy)]
pub(super) struct LongLived;

/// How long such an answer goes on.
const LONG_LIVED: Duration = Duration::from_secs(3_600);

/// Buffer for a request's header, in bytes; a longer header is answered 431.
const MAX_HEADER_BYTES: usize = 16 << 10;

/// Header fields in a request.
const MAX_HEADERS: usize = 64;

/// Pause after an accept that failed for want of resources.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listener at work. Dropping it closes it and every connection.
#[derive(Debug)]
pub struct HttpListener {
    /// Ends all at once; `None` once it is to end in peace.
    accept: Option<AbortHandle>,
    retire: watch::Sender<bool>,
}

impl HttpListener {
    /// Closes it now, and each connection when the answer under way is finished, or has not been for a while.
    pub fn retire(mut self) {
        self.accept = None;
        // the task may have ended
        let _ = self.retire.send(true);
    }
}

impl Drop for HttpListener {
    fn drop(&mut self) {
        // the task owns the listener and the connections' tasks
        if let Some(task) = &self.accept {
            task.abort();
        }
    }
}

/// A stream that HTTP can be spoken on.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for T {}

/// A listener of streams that HTTP can be spoken on.
pub(super) trait Listener: Send + 'static {
    /// One connection.
    type Stream: Stream;

    /// The same once HTTP can be spoken on it.
    type Open: Stream;

    /// Who is at its other end, as requests have it among their extensions.
    type Caller: Clone + Send + Sync + 'static;

    /// The next connection.
    fn accept(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    /// Opens a connection; `None` if nothing comes of it. Whoever calls it has a time limit.
    fn open(&self, stream: Self::Stream) -> impl Future<Output = Option<Self::Open>> + Send + 'static;

    /// Who it is.
    fn caller(stream: &Self::Stream) -> Option<Self::Caller>;

    /// Whose share of the connections it takes of.
    fn sharer(stream: &Self::Stream) -> Option<Sharer>;
}

impl Listener for UnixListener {
    type Stream = UnixStream;
    type Open = UnixStream;
    type Caller = Caller;

    async fn accept(&self) -> io::Result<UnixStream> {
        Self::accept(self).await.map(|(stream, _)| stream)
    }

    fn open(&self, stream: UnixStream) -> impl Future<Output = Option<UnixStream>> + Send + 'static {
        ready(Some(stream))
    }

    fn caller(stream: &UnixStream) -> Option<Caller> {
        Some(Caller::Local(peer(stream)))
    }

    fn sharer(stream: &UnixStream) -> Option<Sharer> {
        Sharer::local(peer(stream))
    }
}

fn peer(stream: &UnixStream) -> Option<Peer> {
    let credentials = stream.peer_cred().ok()?;
    Some(Peer {
        uid: credentials.uid(),
        pid: credentials.pid(),
    })
}

impl Listener for TcpListener {
    type Stream = TcpStream;
    type Open = TcpStream;
    type Caller = Caller;

    async fn accept(&self) -> io::Result<TcpStream> {
        Self::accept(self).await.map(|(stream, _)| stream)
    }

    fn open(&self, stream: TcpStream) -> impl Future<Output = Option<TcpStream>> + Send + 'static {
        ready(Some(stream))
    }

    fn caller(_stream: &TcpStream) -> Option<Caller> {
        // nobody's: what is served there asks for none
        None
    }

    fn sharer(stream: &TcpStream) -> Option<Sharer> {
        // one that has gone already has none
        stream.peer_addr().ok().map(|peer| Sharer::remote(peer.ip()))
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
    let (retire, retired) = watch::channel(false);
    let task = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        let mut refusals = JoinSet::new();
        let mut shares = Shares::default();
        let mut failing = false;
        let mut over = pin!(is_over(retired.clone()));
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = &mut over => break,
            };
            let stream = match accepted {
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
            while refusals.try_join_next().is_some() {}
            let place = if connections.len() < limits.connections {
                shares
                    .take(L::sharer(&stream), limits.per_peer)
                    .ok_or(TOO_MANY_OF_ONE)
            } else {
                Err(TOO_MANY)
            };
            let caller = L::caller(&stream);
            match place {
                Ok(place) => {
                    let opened = timeout(limits.handshake, listener.open(stream));
                    let (router, retired) = (router.clone(), retired.clone());
                    connections.spawn(async move {
                        if let Ok(Some(stream)) = opened.await {
                            serve_connection_until(stream, caller, router, limits, is_over(retired)).await;
                        }
                        drop(place);
                    });
                }
                Err(why) => {
                    refused.fetch_add(1, Ordering::Relaxed);
                    if refusals.len() < limits.refusals {
                        let opened = timeout(limits.refusal, listener.open(stream));
                        refusals.spawn(async move {
                            if let Ok(Some(stream)) = opened.await {
                                refuse(stream, why, limits.refusal).await;
                            }
                        });
                    }
                }
            }
        }
        // nobody else comes
        drop(listener);
        while connections.join_next().await.is_some() {}
    });
    HttpListener {
        accept: Some(task.abort_handle()),
        retire,
    }
}

/// Resolves when a listener is retired; never if that is just dropped.
async fn is_over(mut retired: watch::Receiver<bool>) {
    if retired.wait_for(|is_over| *is_over).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// What is answered when all connections are in use.
const TOO_MANY: &str = "there are too many connections to this endpoint; try again later";

/// What is answered when a peer has its share of them.
const TOO_MANY_OF_ONE: &str = "there are too many connections to this endpoint from your address, user or process; close some, or try again later";

/// Takes a request and answers it 503. An answer that comes before its request, or to a connection that is closed with the
/// request unread, is lost on most clients. Takes `patience` twice at most.
async fn refuse(
    mut stream: impl AsyncRead + AsyncWrite + Unpin + Send,
    why: &'static str,
    patience: Duration,
) {
    // whoever is too slow, or has gone, does not hear it
    let _ = timeout(patience, read_header(&mut stream)).await;
    let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, why);
    let _ = timeout(patience, answer(&mut stream, &problem)).await;
}

/// Reads up to the empty line that ends a header.
async fn read_header(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    let mut stream = BufReader::new(stream.take(MAX_HEADER_BYTES as u64));
    let mut line = Vec::new();
    while stream.read_until(b'\n', &mut line).await? > 0 && !line.trim_ascii().is_empty() {
        line.clear();
    }
    Ok(())
}

/// Answers a request with a problem, closes the connection, and waits for its other end to do the same.
pub(super) async fn answer(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    problem: &Problem,
) -> io::Result<()> {
    let body = serde_json::to_string(problem)?;
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let answer = format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: application/problem+json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    let mut rest = [0; 1_024];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}

/// Serves one connection to its end.
#[cfg(fuzzing)]
pub(super) async fn serve_connection(
    stream: impl Stream,
    caller: Option<Caller>,
    router: Router,
    limits: HttpLimits,
) {
    serve_connection_until(stream, caller, router, limits, std::future::pending()).await;
}

/// Serves one connection to its end, which comes soon once `over` has.
async fn serve_connection_until<C: Clone + Send + Sync + 'static>(
    stream: impl Stream,
    caller: Option<C>,
    router: Router,
    limits: HttpLimits,
    over: impl Future<Output = ()>,
) {
    let router = TowerToHyperService::new(router);
    let is_long_lived = Arc::new(AtomicBool::new(false));
    let answers_at_length = Arc::clone(&is_long_lived);
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        if let Some(caller) = &caller {
            request.extensions_mut().insert(caller.clone());
        }
        let (answer, at_length) = (router.call(request), Arc::clone(&answers_at_length));
        async move {
            let answer = answer.await;
            let is_marked =
                (answer.as_ref()).is_ok_and(|answer| answer.extensions().get::<LongLived>().is_some());
            at_length.store(is_marked, Ordering::Relaxed);
            answer
        }
    });
    let mut over = pin!(over);
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
    tokio::select! {
        _ = connection.as_mut() => return,
        () = &mut over => {}
        () = sleep(limits.connection) => {
            if is_long_lived.load(Ordering::Relaxed) {
                tokio::select! {
                    _ = connection.as_mut() => return,
                    () = &mut over => {}
                    () = sleep(LONG_LIVED) => {}
                }
            }
        }
    }
    connection.as_mut().graceful_shutdown();
    // an error or the end of the time mean the same here: the connection is dropped
    let _ = timeout(limits.last_answer, connection).await;
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
