//! Web servers that are asked: whom to believe, and what to say who asks.

use std::{net::IpAddr, path::Path, sync::Arc};

use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC};
use rustls::pki_types::{self, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Failure, Reader};
use crate::{
    base::{Host, HttpUrl},
    client::{
        connect::Tls,
        http::{self, Ask, HttpError, Opened},
    },
    config::{CertificateFiles, HttpService, SYSTEM_CAS, Secret, ServerTrust, SourceTls},
    tls::{ClientSettings, Pair, PairFiles, Trust, client_configs},
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
        let tls = match settings.url.is_tls {
            true => Some(tls(&settings.tls, &settings.url.host, reader).await?),
            false => None,
        };
        let token = match (&settings.token, header) {
            (Some(token), TokenHeader::Authorization) => Some(value("Bearer ", token, reader).await?),
            (Some(token), TokenHeader::Consul) => Some(value("", token, reader).await?),
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

async fn tls(settings: &SourceTls, host: &Host, reader: &dyn Reader) -> Result<Tls, Failure> {
    let trust = match &settings.trust {
        ServerTrust::Anybody => Trust::Anybody,
        ServerTrust::Ca(path) => Trust::Ca(read("tls.ca", path, reader).await?),
        ServerTrust::System => {
            Trust::System(read("the CAs of this host", Path::new(SYSTEM_CAS), reader).await?)
        }
    };
    let identity = match &settings.identity {
        Some(files) => Some(Arc::new(pair(files, reader).await?)),
        None => None,
    };
    let name = match (&settings.server_name, host) {
        (Some(name), _) | (None, Host::Name(name)) => {
            let dns = ServerName::try_from(name.without_dot().to_owned());
            dns.map_err(|_| unusable(format!("no certificate can be for the name {name}")))?
        }
        (None, Host::Ip(ip)) => ServerName::IpAddress(pki_types::IpAddr::from(*ip)),
    };
    let settings = ClientSettings {
        trust,
        identity,
        alpn: vec!["http/1.1".into()],
    };
    let configs = client_configs(&settings).map_err(|error| unusable(format!("tls: {error}")))?;
    Ok(Tls {
        config: configs.checks,
        name,
    })
}

async fn pair(files: &CertificateFiles, reader: &dyn Reader) -> Result<Pair, Failure> {
    let certificate = read("tls.cert", &files.cert, reader).await?;
    let key = match &files.key {
        Some(path) => Some(read("tls.key", path, reader).await?),
        None => None,
    };
    let files = PairFiles {
        certificate: &certificate,
        key: key.as_deref(),
        ocsp: None,
    };
    Pair::parse(files).map_err(|error| unusable(format!("tls.cert: {error}")))
}

async fn value(before: &str, token: &Secret, reader: &dyn Reader) -> Result<HeaderValue, Failure> {
    let text = secret("token", token, reader).await?;
    let value = HeaderValue::from_str(&format!("{before}{text}"));
    // the text itself is said nowhere
    let mut value =
        value.map_err(|_| unusable(format!("token: {token} has characters that no header may have")))?;
    value.set_sensitive(true);
    Ok(value)
}

/// A secret, without the white space around it.
async fn secret(key: &str, secret: &Secret, reader: &dyn Reader) -> Result<String, Failure> {
    let text = match secret {
        Secret::File(path) => String::from_utf8(read(key, path, reader).await?)
            .map_err(|_| unusable(format!("{key}: {secret} is not text (UTF-8)")))?,
        Secret::Variable(name) => std::env::var(name).map_err(|_| {
            unusable(format!(
                "{key}: the environment has no text in {name}; set it for the service (systemctl edit convey)"
            ))
        })?,
    };
    match text.trim() {
        "" => Err(unusable(format!("{key}: {secret} is empty"))),
        text => Ok(text.to_owned()),
    }
}

async fn read(key: &str, path: &Path, reader: &dyn Reader) -> Result<Vec<u8>, Failure> {
    let bytes = reader.read(path.to_owned()).await;
    bytes.map_err(|why| unusable(format!("{key}: {why}")))
}

fn unusable(why: String) -> Failure {
    Failure::Unreadable(why)
}
