//! Talking to the running convey: one HTTP request over the unix socket.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, StatusCode,
    body::Bytes,
    client::conn::http1,
    header::{CONTENT_TYPE, ETAG, HOST, IF_MATCH},
};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};
use serde::de::DeserializeOwned;
use tokio::{
    net::UnixStream,
    runtime::Runtime,
    time::{sleep, timeout},
};

use super::{
    outcome::Failure,
    progress::{Progress, STEP},
};
use crate::{admin::views::Problem, base::exit};

/// Largest answer that is read, in bytes: 100,000 connections take about 30 MB.
const MAX_ANSWER_BYTES: usize = 128 << 20;

/// How long an answer is waited for, from the connect to the last byte.
#[derive(Debug, Clone, Copy)]
pub enum Patience {
    /// 5 s, for queries and overrides.
    Short,
    /// 60 s, for a reload, which waits for listeners.
    Long,
}

impl Patience {
    const fn limit(self) -> Duration {
        match self {
            Self::Short => Duration::from_secs(5),
            Self::Long => Duration::from_secs(60),
        }
    }
}

/// A request.
#[derive(Debug)]
pub struct Asked<'a> {
    /// Its method.
    pub method: Method,
    /// Path and query.
    pub target: &'a str,
    /// Its body.
    pub body: Vec<u8>,
    /// The body's media type.
    pub media: &'a str,
    /// The entity tag of what the asker has seen.
    pub if_match: Option<&'a str>,
    /// How long the answer is waited for.
    pub patience: Patience,
}

impl<'a> Asked<'a> {
    /// One without a body, which is soon answered.
    #[must_use]
    pub const fn of(method: Method, target: &'a str) -> Self {
        Self {
            method,
            target,
            body: Vec::new(),
            media: JSON,
            if_match: None,
            patience: Patience::Short,
        }
    }

    /// GET, which is soon answered.
    #[must_use]
    pub const fn get(target: &'a str) -> Self {
        Self::of(Method::GET, target)
    }

    /// The same with the text of a configuration.
    #[must_use]
    pub fn with_toml(self, text: Vec<u8>) -> Self {
        Self {
            body: text,
            media: "application/toml",
            ..self
        }
    }
}

/// The media type of most bodies.
const JSON: &str = "application/json";

/// What came back.
#[derive(Debug)]
pub struct Response {
    /// HTTP status.
    pub status: StatusCode,
    /// The entity tag, where there is one.
    pub tag: Option<String>,
    /// JSON, or what was asked for.
    pub body: Bytes,
}

impl Response {
    /// The answer as what was asked for.
    ///
    /// # Errors
    /// The daemon said no, in its words; or answered something else.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_slice(self.content()?).map_err(|error| {
            Failure::new(
                exit::SOFTWARE,
                format!(
                    "cannot parse the answer of the running convey: {error} (is it another \
                     version? restart it)"
                ),
            )
        })
    }

    /// The body of an answer.
    ///
    /// # Errors
    /// The daemon said no, in its words.
    pub fn content(&self) -> Result<&Bytes, Failure> {
        if self.status == StatusCode::OK {
            return Ok(&self.body);
        }
        let message = serde_json::from_slice::<Problem>(&self.body).map_or_else(
            |_| format!("the running convey answered {}", self.status),
            |problem| problem.message,
        );
        let exit = match self.status.as_u16() {
            503 | 504 => exit::UNAVAILABLE,
            403 => exit::NO_PERMISSION,
            412 => exit::NOT_YET,
            422 => exit::CONFIG,
            400..=499 => exit::USAGE,
            _ => exit::SOFTWARE,
        };
        Err(Failure::new(exit, message))
    }
}

/// Why the running convey could not be asked.
#[derive(Debug, thiserror::Error)]
enum ClientError {
    #[error(
        "no running convey found at {}\n(start it, or name its control socket with \
         --socket or [admin] socket in the configuration)",
        path.display()
    )]
    NotRunning { path: PathBuf },
    #[error(
        "not allowed to talk to convey at {}: use sudo, or join the group that owns the socket (convey)",
        path.display()
    )]
    NotAllowed { path: PathBuf },
    #[error("cannot reach convey at {}: {source}", path.display())]
    Connect { path: PathBuf, source: io::Error },
    #[error("convey did not answer within {} s at {}", limit.as_secs(), path.display())]
    TooSlow { path: PathBuf, limit: Duration },
    #[error("the connection to convey at {} failed: {reason}", path.display())]
    Broken { path: PathBuf, reason: String },
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let exit = match error {
            ClientError::NotAllowed { .. } => exit::NO_PERMISSION,
            _ => exit::UNAVAILABLE,
        };
        Self::new(exit, error.to_string())
    }
}

/// A client of one control socket.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    runtime: Runtime,
}

impl Client {
    /// A client; nothing is connected before the first request.
    ///
    /// # Errors
    /// The system has no resources for an event loop.
    pub fn new(socket: PathBuf) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::new(exit::OS_ERROR, format!("cannot start an event loop: {error}")))?;
        Ok(Self { socket, runtime })
    }

    /// Its event loop.
    pub const fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// GET.
    ///
    /// # Errors
    /// The daemon cannot be reached, or does not answer in time.
    pub fn get(&self, target: &str) -> Result<Response, Failure> {
        self.send(Asked::get(target))
    }

    /// POST, with a JSON body or none.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn post(&self, target: &str, json: Option<Vec<u8>>, patience: Patience) -> Result<Response, Failure> {
        self.send(Asked {
            body: json.unwrap_or_default(),
            patience,
            ..Asked::of(Method::POST, target)
        })
    }

    /// Any request. While an answer is long in coming, that is said on standard error.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn send(&self, asked: Asked<'_>) -> Result<Response, Failure> {
        self.runtime.block_on(async {
            let mut progress = Progress::start();
            let answer = self.ask(asked);
            tokio::pin!(answer);
            loop {
                tokio::select! {
                    answer = &mut answer => return answer,
                    () = sleep(STEP) => progress.tell(|| "waiting for the running convey".to_owned()),
                }
            }
        })
    }

    /// One request, for who is in the event loop already.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn ask(&self, asked: Asked<'_>) -> Result<Response, Failure> {
        let limit = asked.patience.limit();
        match timeout(limit, exchange(&self.socket, asked)).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(ClientError::TooSlow {
                path: self.socket.clone(),
                limit,
            }
            .into()),
        }
    }
}

async fn exchange(socket: &Path, asked: Asked<'_>) -> Result<Response, ClientError> {
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|source| connect_error(socket, source))?;
    let broken = |reason: String| ClientError::Broken {
        path: socket.into(),
        reason,
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| broken(error.to_string()))?;
    let connection = tokio::spawn(connection);

    let mut request = Request::builder()
        .method(asked.method)
        .uri(asked.target)
        .header(HOST, "convey")
        .header(CONTENT_TYPE, asked.media);
    if let Some(tag) = asked.if_match {
        request = request.header(IF_MATCH, tag);
    }
    let request = request
        .body(Full::new(Bytes::from(asked.body)))
        .map_err(|error| broken(error.to_string()))?;
    let response = sender.send_request(request).await.map_err(|error| {
        broken(if error.is_parse() || error.is_user() {
            error.to_string()
        } else {
            "it was closed before an answer came; there may be too many connections to it".to_owned()
        })
    })?;
    let status = response.status();
    let tag = response.headers().get(ETAG).and_then(|tag| tag.to_str().ok());
    let tag = tag.map(str::to_owned);
    let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES)
        .collect()
        .await
        .map_err(|error| broken(error.to_string()))?
        .to_bytes();
    connection.abort();
    Ok(Response { status, tag, body })
}

fn connect_error(socket: &Path, source: io::Error) -> ClientError {
    let path = socket.into();
    match source.kind() {
        // refused: the socket of a convey that died
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ClientError::NotRunning { path },
        io::ErrorKind::PermissionDenied => ClientError::NotAllowed { path },
        _ => ClientError::Connect { path, source },
    }
}

/// All but RFC 3986's unreserved characters.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A path segment or query value, percent-encoded so that nothing in it is syntax.
pub fn percent_encode(text: &str) -> PercentEncode<'_> {
    utf8_percent_encode(text, RESERVED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_encoded_so_that_nothing_in_them_is_syntax() {
        assert_eq!(percent_encode("web-1_a.b~").to_string(), "web-1_a.b~");
        assert_eq!(
            percent_encode("a/b c%?&=#ß").to_string(),
            "a%2Fb%20c%25%3F%26%3D%23%C3%9F"
        );
    }

    #[test]
    fn a_socket_that_nobody_serves_says_what_to_do() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let missing = directory.path().join("none.sock");
        let stale = directory.path().join("stale.sock");
        drop(std::os::unix::net::UnixListener::bind(&stale).expect("bind"));
        for path in [missing, stale] {
            let failure = Client::new(path.clone())
                .and_then(|client| client.get("/v1/status"))
                .expect_err("nobody is there");
            let Failure::Told { exit, message } = failure else {
                panic!("no text")
            };
            assert_eq!(exit, exit::UNAVAILABLE);
            assert!(message.starts_with("no running convey found at "), "{message}");
            assert!(message.contains(&path.display().to_string()), "{message}");
        }
    }

    #[test]
    fn a_connection_that_is_closed_without_an_answer_is_explained() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("admin.sock");
        let listener = std::os::unix::net::UnixListener::bind(&path).expect("bind");
        let closing = std::thread::spawn(move || drop(listener.accept()));
        let failure = Client::new(path)
            .and_then(|client| client.get("/v1/status"))
            .expect_err("no answer");
        closing.join().expect("no panic");
        let Failure::Told { message, .. } = failure else {
            panic!("no text")
        };
        assert!(message.contains("too many connections"), "{message}");
    }

    #[test]
    fn a_daemon_that_says_no_is_quoted() {
        let answer = |status: u16, body: &str| Response {
            status: StatusCode::from_u16(status).expect("a status"),
            tag: None,
            body: Bytes::copy_from_slice(body.as_bytes()),
        };
        assert_eq!(
            answer(404, r#"{"status":404,"detail":"no backend `x`"}"#).parse::<u8>(),
            Err(Failure::new(exit::USAGE, "no backend `x`"))
        );
        assert_eq!(
            answer(503, "junk").parse::<u8>(),
            Err(Failure::new(
                exit::UNAVAILABLE,
                "the running convey answered 503 Service Unavailable"
            ))
        );
        assert_eq!(answer(200, "7").parse::<u8>(), Ok(7));
        assert!(matches!(
            answer(200, "x").parse::<u8>(),
            Err(Failure::Told {
                exit: exit::SOFTWARE,
                ..
            })
        ));
    }
}
