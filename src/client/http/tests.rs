//! Against servers that say what they should, and others.

use std::sync::Arc;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    sync::oneshot,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::{
    PATIENCE,
    tls::{
        ClientSettings, ServerSettings, Trust, client_configs,
        tests::lab::{Ca, Key, server, store},
    },
};

/// Serves one connection: reads the request's head, sends `answer` and closes, or goes on sending `answer` for ever.
async fn serve(answer: Vec<u8>, is_endless: bool) -> HttpUrl {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        head(&mut stream).await;
        while stream.write_all(&answer).await.is_ok() && is_endless {}
        let _ = stream.shutdown().await;
    });
    format!("http://{addr}/servers").parse().unwrap()
}

async fn head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

const HERE: &[IpAddr] = &[IpAddr::V4(std::net::Ipv4Addr::LOCALHOST)];

async fn opened(url: &HttpUrl) -> Result<Opened, HttpError> {
    timeout(PATIENCE, ask(url, HERE, get(url), None)).await.unwrap()
}

async fn said(answer: &str) -> Result<String, String> {
    let url = serve(answer.as_bytes().to_vec(), false).await;
    let answer = async { opened(&url).await?.success(1_000).await };
    let answer = timeout(PATIENCE, answer).await.unwrap();
    (answer.map(|body| String::from_utf8(body).unwrap())).map_err(|error| error.to_string())
}

#[tokio::test]
async fn an_answer_comes_whole_however_it_is_framed() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\nhello",
        "HTTP/1.0 203 Odd\r\n\r\nhello",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    ] {
        assert_eq!(said(answer).await.as_deref(), Ok("hello"), "{answer}");
    }
}

#[tokio::test]
async fn a_request_says_for_whom_it_is_and_who_asks() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = tokio::spawn(async move { head(&mut listener.accept().await.unwrap().0).await });
    let url: HttpUrl = format!("http://127.0.0.1:{port}/a?b=%20c").parse().unwrap();
    let _ = opened(&url).await;
    let head = asked.await.unwrap();
    assert!(head.starts_with("GET /a?b=%20c HTTP/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("host: 127.0.0.1:{port}\r\n")), "{head}");
    assert!(head.contains("user-agent: convey/"), "{head}");
}

#[tokio::test]
async fn what_a_server_refuses_is_said_in_its_words() {
    for (answer, why) in [
        (
            "HTTP/1.1 404 Not Found\r\ncontent-length: 11\r\n\r\nno such web",
            "the server answers 404 Not Found: no such web",
        ),
        (
            "HTTP/1.1 503 Service Unavailable\r\n\r\n<html>\n<h1>sorry</h1>",
            "the server answers 503 Service Unavailable",
        ),
        (
            "HTTP/1.1 403 Forbidden\r\n\r\nACL\x1b[2J not found\nsecond",
            "the server answers 403 Forbidden: ACL\u{fffd}[2J not found",
        ),
        (
            "HTTP/1.1 302 Found\r\nlocation: https://other/x\r\n\r\n",
            "the server answers 302 Found; it leads to https://other/x: write that URL",
        ),
        (
            "SSH-2.0-OpenSSH_9.2\r\n",
            "what the server answers is not HTTP/1.1",
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhalf",
            "the server closed the connection before its answer was whole",
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n",
            "the server closed the connection before its answer was whole",
        ),
        ("", "the server closed the connection before its answer was whole"),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nhello\r\n0\r\n\r\n",
            "the server's answer breaks the rules of HTTP/1.1 (its chunks or their trailers)",
        ),
    ] {
        assert_eq!(said(answer).await.unwrap_err(), why, "{answer}");
    }
}

#[tokio::test]
async fn an_answer_without_an_end_takes_no_more_memory_than_wanted() {
    let endless = |answer: &[u8]| serve(answer.to_vec(), true);
    let body = endless(b"HTTP/1.1 200 OK\r\n\r\n").await;
    let whole = opened(&body).await.unwrap().whole(100_000);
    let error = timeout(PATIENCE, whole).await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "the answer has more than 100000 bytes");
    let body = endless(b"HTTP/1.1 200 OK\r\n\r\n").await;
    let first = opened(&body).await.unwrap().first(100);
    assert_eq!(timeout(PATIENCE, first).await.unwrap().unwrap().len(), 100);
    let line = [b"HTTP/1.1 200 OK\r\nx: ".as_slice(), &[b'y'; 1 << 17]].concat();
    let error = opened(&endless(&line).await).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the answer's headers have more than 65536 bytes"
    );
}

#[tokio::test]
async fn a_server_is_verified_before_it_is_asked() {
    let (ca, other) = (Ca::new("lab"), Ca::new("other"));
    let config = server(
        &ServerSettings::new("server"),
        &store(&[&ca.issue(Key::P256, &["a.test"]).pair()]),
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = TlsAcceptor::from(Arc::clone(&config)).accept(stream).await else {
                continue;
            };
            head(&mut stream).await;
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
            stream.write_all(answer).await.unwrap();
            let _ = stream.shutdown().await;
        }
    });
    let url: HttpUrl = format!("https://{addr}/").parse().unwrap();
    let asked = async |ca: &Ca, name: &'static str| {
        let settings = ClientSettings {
            trust: Trust::Ca(ca.certificate.pem().into_bytes()),
            identity: None,
            alpn: Vec::new(),
        };
        let tls = Tls {
            config: client_configs(&settings).unwrap().checks,
            name: name.try_into().unwrap(),
        };
        let answer = async { ask(&url, HERE, get(&url), Some(&tls)).await?.success(10).await };
        let answer = timeout(PATIENCE, answer).await.unwrap();
        answer.map_err(|error| error.to_string())
    };
    assert_eq!(asked(&ca, "a.test").await, Ok(b"ok".to_vec()));
    for (ca, name) in [(&other, "a.test"), (&ca, "b.test")] {
        let why = asked(ca, name).await.unwrap_err();
        assert!(why.starts_with(&format!("TLS with {addr}: ")), "{why}");
    }
}

#[tokio::test]
async fn a_server_that_refuses_is_named_with_its_address() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    let url: HttpUrl = format!("http://{addr}/").parse().unwrap();
    let error = opened(&url).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("connect to {addr}: ")), "{error}");
    assert!(error.contains("refused"), "{error}");
}

#[tokio::test]
async fn an_asker_that_gives_up_ends_the_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url: HttpUrl = format!("http://{}/", listener.local_addr().unwrap())
        .parse()
        .unwrap();
    let (reads, has_read) = oneshot::channel();
    let closed = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        head(&mut stream).await;
        reads.send(()).unwrap();
        stream.read(&mut [0]).await
    });
    tokio::select! {
        answer = opened(&url) => panic!("{answer:?}"),
        asked = has_read => asked.unwrap(),
    }
    let end = timeout(PATIENCE, closed).await.unwrap().unwrap();
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
}
