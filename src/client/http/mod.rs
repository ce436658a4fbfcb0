//! HTTP/1.1: one request on a connection, and its answer, bounded.
//!
//! Redirections are not followed, for a source names one service, and what is sent to it (a token) is for no other.

mod retry_after;
#[cfg(test)]
mod tests;

use std::{fmt, io, net::IpAddr};

use http_body_util::{BodyExt as _, Full};
use hyper::{
    HeaderMap, Method, Request, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1,
    header::{ACCEPT, CONNECTION, HOST, HeaderValue, LOCATION, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::AbortHandle,
};

pub use retry_after::retry_after;

use super::connect::{ConnectError, Tls, connect};
use crate::{base::HttpUrl, tls::server_failure};

/// Most bytes of a status line with all headers.
const HEAD_BYTES: usize = 64 << 10;

/// Longest excerpt of an error's body that is shown, in characters.
const EXCERPT: usize = 200;

/// What is asked; the body may be empty.
pub type Ask = Request<Full<Bytes>>;

/// An answer whose body has not been read yet; the connection ends with it.
#[derive(Debug)]
pub struct Opened {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    body: Incoming,
    _connection: Driver,
}

/// Ends a connection's task when dropped.
#[derive(Debug)]
struct Driver(AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// What comes is no HTTP, or ends too early.
    #[error("{0}")]
    Protocol(Broken),
    /// The answer is too large.
    #[error("the answer has more than {0} bytes")]
    TooLarge(usize),
    /// The answer is another than wanted.
    #[error("the server answers {0}")]
    Status(Refusal),
}

/// How an exchange broke.
#[derive(Debug)]
pub struct Broken(hyper::Error);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = &self.0;
        let source = std::error::Error::source(error);
        let io = source.and_then(|source| source.downcast_ref::<io::Error>());
        let is_cut = io.is_some_and(|error| error.kind() == io::ErrorKind::UnexpectedEof);
        if is_cut || error.is_incomplete_message() {
            return f.write_str("the server closed the connection before its answer was whole");
        }
        if error.is_parse_too_large() {
            return write!(f, "the answer's headers have more than {HEAD_BYTES} bytes");
        }
        if error.is_parse() {
            return f.write_str("what the server answers is not HTTP/1.1");
        }
        // the words of the library are for who writes programs
        match io {
            Some(error) => broken_by(error, f),
            None => f.write_str("the exchange with the server broke off"),
        }
    }
}

/// What the operating system, or TLS, has to say.
fn broken_by(error: &io::Error, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref());
    match (tls, error.kind()) {
        (Some(tls), _) => f.write_str(server_failure(tls).sentence()),
        (None, io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput) => {
            f.write_str("the server's answer breaks the rules of HTTP/1.1 (its chunks or their trailers)")
        }
        (None, _) if error.raw_os_error().is_some() => write!(f, "the connection broke off: {error}"),
        (None, _) => f.write_str("the connection broke off"),
    }
}

/// A status that is none of success.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which.
    pub status: StatusCode,
    /// Where it leads instead, or the beginning of what it says.
    says: Option<String>,
}

impl Refusal {
    /// Of an answer that says so in its body.
    #[must_use]
    pub fn new(status: StatusCode, headers: &HeaderMap, says: String) -> Self {
        let says = match status.is_redirection() {
            true => headers.get(LOCATION).map(|to| excerpt(to.as_bytes())),
            false => Some(says),
        };
        let says = says.filter(|says| !says.is_empty() && !says.starts_with('<'));
        Self { status, says }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.status.fmt(f)?;
        match &self.says {
            None => Ok(()),
            Some(to) if self.status.is_redirection() => {
                write!(f, "; it leads to {to}: write that URL")
            }
            Some(says) => write!(f, ": {says}"),
        }
    }
}

/// A request for what a URL names, which takes an answer of any kind and no second request.
#[must_use]
pub fn get(url: &HttpUrl) -> Ask {
    request(Method::GET, &url.authority(), &url.target)
}

/// A request without a body; `host` is its `Host` header.
#[must_use]
pub fn request(method: Method, host: &str, target: &str) -> Ask {
    let mut request = Request::new(Full::default());
    *request.method_mut() = method;
    // both have been read as what they are: what is none here asks for the root, and is refused there
    if let Ok(target) = target.parse() {
        *request.uri_mut() = target;
    }
    let headers = request.headers_mut();
    if let Ok(host) = HeaderValue::from_str(host) {
        headers.insert(HOST, host);
    }
    let agent = concat!("convey/", env!("CARGO_PKG_VERSION"));
    headers.insert(USER_AGENT, HeaderValue::from_static(agent));
    headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    request
}

/// Asks a service, at one of the addresses of its host, for what a request says; the body of its answer is read by [`Opened`].
///
/// # Errors
/// There is no answer.
pub async fn ask(
    url: &HttpUrl,
    addresses: &[IpAddr],
    request: Ask,
    tls: Option<&Tls>,
) -> Result<Opened, HttpError> {
    let stream = connect(addresses, url.port, tls).await?;
    exchange(stream, request).await
}

/// Sends a request on a connection; the body of its answer is read by [`Opened`].
///
/// # Errors
/// There is no answer.
pub async fn exchange<S>(stream: S, request: Ask) -> Result<Opened, HttpError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEAD_BYTES);
    let broken = |error| HttpError::Protocol(Broken(error));
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let driver = Driver(tokio::spawn(connection).abort_handle());
    let answer = sender.send_request(request).await.map_err(broken)?;
    let (head, body) = answer.into_parts();
    Ok(Opened {
        status: head.status,
        headers: head.headers,
        body,
        _connection: driver,
    })
}

impl Opened {
    /// The next bytes of the body; `None` at its end.
    ///
    /// # Errors
    /// It breaks off.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, HttpError> {
        loop {
            let Some(frame) = self.body.frame().await else {
                return Ok(None);
            };
            let frame = frame.map_err(|error| HttpError::Protocol(Broken(error)))?;
            // trailers are of no interest
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
    }

    /// The whole body.
    ///
    /// # Errors
    /// It breaks off, or has more than `limit` bytes.
    pub async fn whole(mut self, limit: usize) -> Result<Vec<u8>, HttpError> {
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            if body.len() + chunk.len() > limit {
                return Err(HttpError::TooLarge(limit));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// No more than the first `limit` bytes of the body; what comes after them is not waited for.
    ///
    /// # Errors
    /// It breaks off before.
    pub async fn first(mut self, limit: usize) -> Result<Vec<u8>, HttpError> {
        let mut body = Vec::new();
        while body.len() < limit {
            let Some(chunk) = self.chunk().await? else { break };
            body.extend_from_slice(&chunk);
        }
        body.truncate(limit);
        Ok(body)
    }

    /// The whole body of an answer of success.
    ///
    /// # Errors
    /// It is none of success, breaks off, or has more than `limit` bytes.
    pub async fn success(mut self, limit: usize) -> Result<Vec<u8>, HttpError> {
        if self.status.is_success() {
            return self.whole(limit).await;
        }
        let (status, headers) = (self.status, std::mem::take(&mut self.headers));
        let says = match status.is_redirection() {
            true => String::new(),
            // the status alone tells as well
            false => self
                .first(4 * EXCERPT)
                .await
                .map(|body| excerpt(&body))
                .unwrap_or_default(),
        };
        Err(HttpError::Status(Refusal::new(status, &headers, says)))
    }
}

/// The first line of a text from outside, cut short and without what would break ours.
fn excerpt(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let line = text.trim().lines().next().unwrap_or_default();
    let plain = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    line.chars().take(EXCERPT).map(plain).collect()
}
