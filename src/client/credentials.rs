//! What a service is asked with that the configuration names: TLS, and secrets.

use std::{
    future::Future,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
};

use hyper::header::HeaderValue;
use rustls::pki_types::{self, ServerName};

use super::connect::Tls;
use crate::{
    base::Host,
    config::{CertificateFiles, SYSTEM_CAS, Secret, ServerTrust, SourceTls},
    tls::{ClientSettings, Pair, PairFiles, Trust, client_configs},
};

/// Resolves to the bytes of a file, or why there are none.
pub type Reading = Pin<Box<dyn Future<Output = Result<Vec<u8>, String>> + Send>>;

/// Reads a file that the configuration names.
pub type Read<'a> = dyn Fn(PathBuf) -> Reading + Sync + 'a;

/// TLS to a host, for one connection at a time: no session is resumed.
///
/// # Errors
/// In words, which file cannot be read or used.
pub async fn tls(settings: &SourceTls, host: &Host, read: &Read<'_>) -> Result<Tls, String> {
    let trust = match &settings.trust {
        ServerTrust::Anybody => Trust::Anybody,
        ServerTrust::Ca(path) => Trust::Ca(of_file("tls.ca", path, read).await?),
        ServerTrust::System => {
            Trust::System(of_file("the CAs of this host", Path::new(SYSTEM_CAS), read).await?)
        }
    };
    let identity = match &settings.identity {
        Some(files) => Some(Arc::new(pair(files, read).await?)),
        None => None,
    };
    let name = match (&settings.server_name, host) {
        (Some(name), _) | (None, Host::Name(name)) => {
            let dns = ServerName::try_from(name.without_dot().to_owned());
            dns.map_err(|_| format!("no certificate can be for the name {name}"))?
        }
        (None, Host::Ip(ip)) => ServerName::IpAddress(pki_types::IpAddr::from(*ip)),
    };
    let settings = ClientSettings {
        trust,
        identity,
        alpn: vec!["http/1.1".into()],
    };
    let configs = client_configs(&settings).map_err(|error| format!("tls: {error}"))?;
    Ok(Tls {
        config: configs.checks,
        name,
    })
}

async fn pair(files: &CertificateFiles, read: &Read<'_>) -> Result<Pair, String> {
    let certificate = of_file("tls.cert", &files.cert, read).await?;
    let key = match &files.key {
        Some(path) => Some(of_file("tls.key", path, read).await?),
        None => None,
    };
    let files = PairFiles {
        certificate: &certificate,
        key: key.as_deref(),
        ocsp: None,
    };
    Pair::parse(files).map_err(|error| format!("tls.cert: {error}"))
}

/// The value of a header that is secret: `before`, and what the setting `key` names.
///
/// # Errors
/// In words, and without it, why there is none.
pub async fn header(key: &str, before: &str, place: &Secret, read: &Read<'_>) -> Result<HeaderValue, String> {
    let text = secret(key, place, read).await?;
    let value = HeaderValue::from_str(&format!("{before}{text}"));
    let mut value = value.map_err(|_| format!("{key}: {place} has characters that no header may have"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// A secret, without the white space around it.
async fn secret(key: &str, place: &Secret, read: &Read<'_>) -> Result<String, String> {
    let text = match place {
        Secret::File(path) => String::from_utf8(of_file(key, path, read).await?)
            .map_err(|_| format!("{key}: {place} is not text (UTF-8)"))?,
        Secret::Variable(name) => std::env::var(name).map_err(|_| {
            format!(
                "{key}: the environment has no text in {name}; set it for the service (systemctl edit convey)"
            )
        })?,
    };
    match text.trim() {
        "" => Err(format!("{key}: {place} is empty")),
        text => Ok(text.to_owned()),
    }
}

async fn of_file(key: &str, path: &Path, read: &Read<'_>) -> Result<Vec<u8>, String> {
    let bytes = read(path.to_owned()).await;
    bytes.map_err(|why| format!("{key}: {why}"))
}
