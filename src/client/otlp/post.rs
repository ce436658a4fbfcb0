//! One request to a collector.

use std::{
    io::Write as _,
    net::IpAddr,
    time::{Duration, SystemTime},
};

use flate2::{Compression, write::GzEncoder};
use http_body_util::Full;
use hyper::{
    HeaderMap, Method,
    header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION},
};
use tokio::time::timeout;

use super::{
    message::{Partial, read_partial, read_refusal},
    retry::{Meaning, meaning},
};
use crate::{
    base::HttpUrl,
    client::{
        connect::Tls,
        http::{self, HttpError, Refusal, retry_after},
    },
};

/// Most bytes of an answer that are read; it has some dozens.
const ANSWER_BYTES: usize = 16 << 10;

/// What stands for each byte of a secret: what is said around it keeps its place, in a message of protobuf, too.
const HIDDEN: u8 = b'*';

/// Shortest part of a header that is taken for a secret by itself.
const SHORTEST: usize = 4;

/// What a collector is asked with.
#[derive(Debug, Clone)]
pub struct Door {
    /// TLS to it, if that is wanted.
    pub tls: Option<Tls>,
    /// What else requests have.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl Door {
    /// Hides the secrets that the collector was shown in what it answers: it may give them back. Before anything is cut, for a
    /// part of a secret would not be known as one.
    fn hide_secrets(&self, answer: &mut [u8]) {
        for (_, value) in &self.headers {
            hide(answer, value.as_bytes());
            // without the scheme that stands before it (`Bearer`)
            let parts = value.as_bytes().split(u8::is_ascii_whitespace);
            let parts = parts.filter(|part| !part.is_empty());
            for part in parts.skip(1).filter(|part| part.len() >= SHORTEST) {
                hide(answer, part);
            }
        }
    }

    /// The headers of an answer that are shown, without secrets.
    fn shown(&self, headers: &HeaderMap) -> HeaderMap {
        let mut shown = HeaderMap::new();
        if let Some(location) = headers.get(LOCATION) {
            let mut location = location.as_bytes().to_vec();
            self.hide_secrets(&mut location);
            shown.extend(
                HeaderValue::from_bytes(&location)
                    .ok()
                    .map(|value| (LOCATION, value)),
            );
        }
        shown
    }
}

/// What a request has come to.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The collector has taken it; some of it, it may have rejected.
    Accepted(Partial),
    /// It wants it later: not before that time, if it says so.
    Later(Option<Duration>, String),
    /// It never will take it.
    Refused(String),
    /// There was no answer that says anything.
    Failed(String),
}

/// Sends a request to a URL at one of the addresses of its host. `limit` is for the whole exchange.
pub async fn post(
    url: &HttpUrl,
    addresses: &[IpAddr],
    door: &Door,
    (body, gzip): (&[u8], bool),
    limit: Duration,
) -> Outcome {
    let asked = timeout(limit, exchange(url, addresses, door, body, gzip)).await;
    match asked {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(error)) => Outcome::Failed(error.to_string()),
        Err(_) => Outcome::Failed(format!("no answer within {limit:?}")),
    }
}

async fn exchange(
    url: &HttpUrl,
    addresses: &[IpAddr],
    door: &Door,
    body: &[u8],
    gzip: bool,
) -> Result<Outcome, HttpError> {
    let mut request = http::request(Method::POST, &url.authority(), &url.target);
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
    for (name, value) in &door.headers {
        headers.insert(name.clone(), value.clone());
    }
    let packed = gzip.then(|| compressed(body)).flatten();
    if packed.is_some() {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    *request.body_mut() = Full::new(packed.unwrap_or_else(|| body.to_vec()).into());
    let opened = http::ask(url, addresses, request, door.tls.as_ref()).await?;
    let (status, headers) = (opened.status, opened.headers.clone());
    let judged = meaning(status);
    // what was said by the status stands, whatever becomes of the rest
    let mut answer = opened.first(ANSWER_BYTES).await.unwrap_or_default();
    door.hide_secrets(&mut answer);
    let said = || Refusal::new(status, &door.shown(&headers), read_refusal(&answer)).to_string();
    Ok(match judged {
        Meaning::Accepted => Outcome::Accepted(read_partial(&answer)),
        Meaning::Later => Outcome::Later(rest(&headers), format!("the collector answers {}", said())),
        Meaning::Refused => Outcome::Refused(format!("the collector answers {}", said())),
    })
}

/// Overwrites a secret wherever it stands, in large and small letters.
fn hide(answer: &mut [u8], secret: &[u8]) {
    if secret.is_empty() {
        return;
    }
    let mut at = 0;
    while let Some(part) = answer.get_mut(at..at + secret.len()) {
        match part.eq_ignore_ascii_case(secret) {
            true => {
                part.fill(HIDDEN);
                at += secret.len();
            }
            false => at += 1,
        }
    }
}

fn rest(headers: &HeaderMap) -> Option<Duration> {
    retry_after(headers, SystemTime::now())
}

fn compressed(body: &[u8]) -> Option<Vec<u8>> {
    // a quick one: the text of metrics repeats itself, and gets a twentieth of its size by the first level already
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).ok()?;
    encoder.finish().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_that_a_collector_gives_back_are_not_shown() {
        let value = HeaderValue::from_static;
        let door = Door {
            tls: None,
            headers: vec![
                (HeaderName::from_static("authorization"), value("Bearer s3cret")),
                (HeaderName::from_static("x-key"), value("hunter2")),
            ],
        };
        for (text, shown) in [
            ("no: Bearer s3cret", "no: *************"),
            ("no: BEARER S3CRET", "no: *************"),
            (
                "no token s3cret, no key hunter2",
                "no token ******, no key *******",
            ),
            ("Bearer wanted", "Bearer wanted"),
            ("s3cre", "s3cre"),
        ] {
            let mut answer = text.as_bytes().to_vec();
            door.hide_secrets(&mut answer);
            assert_eq!(String::from_utf8_lossy(&answer), shown);
        }
        // one that is cut where a text is shown no further
        let mut long = format!("{}Bearer s3cret", "x".repeat(190)).into_bytes();
        door.hide_secrets(&mut long);
        assert!(!read_refusal(&long).contains("s3c"), "{}", read_refusal(&long));
        let mut headers = HeaderMap::new();
        headers.insert(LOCATION, value("http://evil.example/?hunter2"));
        assert_eq!(door.shown(&headers)[LOCATION], "http://evil.example/?*******");
    }
}
