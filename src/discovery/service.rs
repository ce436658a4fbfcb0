//! Web servers that are asked: whom to believe, and what to say who asks.

use std::{path::Path, sync::Arc};

use hyper::header::{AUTHORIZATION, HeaderValue};
use rustls::pki_types::{self, ServerName};

use super::{Failure, Reader};
use crate::{
    base::Host,
    client::{
        connect::Tls,
        http::{self, HttpError},
        resolver::Resolver,
    },
    config::{CertificateFiles, HttpService, SYSTEM_CAS, Secret, ServerTrust, SourceTls},
    tls::{ClientSettings, Pair, PairFiles, Trust, client_configs},
};

/// What a web server is asked with, as it was read.
pub(super) struct Service {
    tls: Option<Tls>,
    authorization: Option<HeaderValue>,
}

impl Service {
    /// Reads what the settings name.
    ///
    /// # Errors
    /// A file or a variable is missing or cannot be used.
    pub(super) async fn prepare(settings: &HttpService, reader: &dyn Reader) -> Result<Self, Failure> {
        let tls = match settings.url.is_tls {
            true => Some(tls(&settings.tls, &settings.url.host, reader).await?),
            false => None,
        };
        let authorization = match &settings.token {
            Some(token) => Some(bearer(token, reader).await?),
            None => None,
        };
        Ok(Self { tls, authorization })
    }

    /// Asks for what the URL names: the body of a successful answer.
    ///
    /// # Errors
    /// There is none, or it has more than `limit` bytes.
    pub(super) async fn ask(
        &self,
        settings: &HttpService,
        resolver: &Resolver,
        limit: usize,
    ) -> Result<Vec<u8>, HttpError> {
        let mut request = http::get(&settings.url);
        if let Some(value) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, value.clone());
        }
        let opened = http::ask(&settings.url, request, resolver, self.tls.as_ref()).await?;
        opened.success(limit).await
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

async fn bearer(token: &Secret, reader: &dyn Reader) -> Result<HeaderValue, Failure> {
    let text = secret("token", token, reader).await?;
    let value = HeaderValue::from_str(&format!("Bearer {text}"));
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
