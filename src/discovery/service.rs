//! Web servers that are asked: whom to believe, and what to say who asks.

use std::net::IpAddr;

use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Failure, Reader};
use crate::{
    base::HttpUrl,
    client::{
        connect::Tls,
        credentials::{self, Read},
        http::{self, Ask, HttpError, Opened},
    },
    config::{HttpService, Secret},
};

/// What stays as it is in a part of a path or a value of a query.
pub(super) const PLAIN: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// What a web server is asked with, as it was read.
pub(super) struct Service {
    tls: Option<Tls>,
    token: Option<HeaderValue>,
    header: TokenHeader,
}

/// How a token is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenHeader {
    /// `Authorization: Bearer`.
    Authorization,
    /// `X-Consul-Token`.
    Consul,
}

impl Service {
    /// Reads what the settings name.
    ///
    /// # Errors
    /// A file or a variable is missing or cannot be used.
    pub(super) async fn prepare(
        settings: &HttpService,
        header: TokenHeader,
        reader: &dyn Reader,
    ) -> Result<Self, Failure> {
        let read = |path| reader.read(path);
        let tls = match settings.url.is_tls {
            true => Some(
                (credentials::tls(&settings.tls, &settings.url.host, &read).await)
                    .map_err(Failure::Unreadable)?,
            ),
            false => None,
        };
        let token = match (&settings.token, header) {
            (Some(token), TokenHeader::Authorization) => Some(header_of("Bearer ", token, &read).await?),
            (Some(token), TokenHeader::Consul) => Some(header_of("", token, &read).await?),
            (None, _) => None,
        };
        Ok(Self { tls, token, header })
    }

    /// A text from the server, without the token.
    pub(super) fn without_token(&self, text: &str) -> String {
        let token = self.token.as_ref().and_then(|token| token.to_str().ok());
        match token.map(|token| token.trim_start_matches("Bearer ")) {
            Some(token) if !token.is_empty() => text.replace(token, "…"),
            _ => text.to_owned(),
        }
    }

    /// Asks for what a URL of the service names; its answer is still to be read.
    ///
    /// # Errors
    /// There is none.
    pub(super) async fn ask(&self, url: &HttpUrl, addresses: &[IpAddr]) -> Result<Opened, HttpError> {
        http::ask(url, addresses, self.request(url), self.tls.as_ref()).await
    }

    /// As [`ask`](Self::ask), on a connection that is there.
    ///
    /// # Errors
    /// There is none.
    pub(super) async fn ask_over<S>(&self, stream: S, url: &HttpUrl) -> Result<Opened, HttpError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        http::exchange(stream, self.request(url)).await
    }

    fn request(&self, url: &HttpUrl) -> Ask {
        let mut request = http::get(url);
        if let Some(token) = &self.token {
            let name = match self.header {
                TokenHeader::Authorization => AUTHORIZATION,
                TokenHeader::Consul => HeaderName::from_static("x-consul-token"),
            };
            request.headers_mut().insert(name, token.clone());
        }
        request
    }
}

async fn header_of(before: &str, token: &Secret, read: &Read<'_>) -> Result<HeaderValue, Failure> {
    let value = credentials::header("token", before, token, read).await;
    value.map_err(Failure::Unreadable)
}
