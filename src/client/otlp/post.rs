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
    header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue},
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

/// What stands for a secret.
const HIDDEN: &str = "…";

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
    /// A text from the collector without the secrets that it was shown: it may give them back.
    fn without_secrets(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (_, value) in &self.headers {
            let Ok(value) = value.to_str() else { continue };
            text = text.replace(value, HIDDEN);
            // without the scheme that stands before it (`Bearer`)
            let parts = value
                .split_ascii_whitespace()
                .filter(|part| part.len() >= SHORTEST);
            text = parts.skip(1).fold(text, |text, part| text.replace(part, HIDDEN));
        }
        text
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
    let answer = opened.first(ANSWER_BYTES).await.unwrap_or_default();
    let said = || {
        let refusal = Refusal::new(status, &headers, read_refusal(&answer));
        door.without_secrets(&refusal.to_string())
    };
    Ok(match judged {
        Meaning::Accepted => {
            let mut partial = read_partial(&answer);
            partial.message = door.without_secrets(&partial.message);
            Outcome::Accepted(partial)
        }
        Meaning::Later => Outcome::Later(rest(&headers), format!("the collector answers {}", said())),
        Meaning::Refused => Outcome::Refused(format!("the collector answers {}", said())),
    })
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
            ("no: Bearer s3cret", "no: …"),
            ("no token s3cret, no key hunter2", "no token …, no key …"),
            ("Bearer wanted", "Bearer wanted"),
        ] {
            assert_eq!(door.without_secrets(text), shown);
        }
    }
}
