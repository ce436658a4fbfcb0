//! How a CA is asked: one request on a connection, by the process's own client, whatever host its directory names.

use std::{
    future::Future,
    net::IpAddr,
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use http_body_util::{BodyExt as _, Full};
use hyper::{HeaderMap, Response, StatusCode, body::Bytes, header::CONTENT_TYPE};
use instant_acme::{BytesResponse, HttpClient};
use rustls::{
    ClientConfig,
    pki_types::{self, ServerName},
};
use tokio::{task::spawn_blocking, time::timeout};

use super::{
    Host,
    failure::{Failure, FailureKind},
    transport_error::{TIMEOUT, TransportError},
};
use crate::{
    base::{self, HttpUrl},
    client::{
        connect::Tls,
        http::{self, Ask},
        resolver::Resolver,
    },
    config::{Acme, Families, HOSTS, RESOLV_CONF, SYSTEM_CAS},
    tls::{ClientSettings, Trust, client_configs},
};

/// Largest answer that is read, in bytes: a chain of certificates has some 10 KiB.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// Longest time that a CA may want to be left alone, so that a wrong one does not end it all.
const LONGEST_REST: Duration = Duration::from_secs(7 * 24 * 3600);

/// Longest excerpt of an answer that is no problem document, in characters.
const EXCERPT: usize = 200;

/// Asks a CA. Cheap to clone.
#[derive(Clone)]
pub struct Transport {
    tls: Arc<ClientConfig>,
    /// Or why names cannot be looked up.
    resolver: Result<Resolver, String>,
    /// How long the CA has last said that it wants to be left alone.
    rest: Arc<Mutex<Option<Duration>>>,
}

/// An answer, whole.
#[derive(Debug)]
pub struct Answered {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Vec<u8>,
}

impl Transport {
    /// Reads what is needed to ask.
    ///
    /// # Errors
    /// The CAs that vouch for the directory's server cannot be used.
    pub async fn prepare(acme: &Acme, host: &dyn Host) -> Result<Self, Failure> {
        let unusable = |why: String| Failure::new(FailureKind::Unusable, why);
        let trust = match &acme.ca {
            Some(path) => Trust::Ca(
                host.read(path.clone())
                    .await
                    .map_err(|why| unusable(format!("ca: {why}")))?,
            ),
            None => {
                let read = host.read(Path::new(SYSTEM_CAS).to_owned()).await;
                Trust::System(read.map_err(|why| unusable(format!("the CAs of this host: {why}")))?)
            }
        };
        let settings = ClientSettings {
            trust,
            identity: None,
            alpn: vec!["http/1.1".into()],
        };
        let tls = client_configs(&settings)
            .map_err(|error| unusable(error.to_string()))?
            .checks;
        // a host without them has a name server of its own
        let resolv_conf = host.read(RESOLV_CONF.into()).await.unwrap_or_default();
        let hosts = host.read(HOSTS.into()).await.unwrap_or_default();
        let resolver = spawn_blocking(move || Resolver::of_host(&resolv_conf, &hosts)).await;
        Ok(Self {
            tls,
            resolver: match resolver {
                Ok(made) => made.map_err(|error| error.to_string()),
                Err(_) => Err("internal error while resolv.conf was read".to_owned()),
            },
            rest: Arc::default(),
        })
    }

    /// How long the CA wants to be left alone, as it has said with its last answer that says so.
    #[must_use]
    pub fn rest(&self) -> Option<Duration> {
        *self.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets that.
    pub fn rested(&self) {
        *self.rest.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Asks for what a URL names.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn get(&self, url: &HttpUrl) -> Result<Answered, TransportError> {
        self.exchange(url, http::get(url)).await
    }

    async fn exchange(&self, url: &HttpUrl, request: Ask) -> Result<Answered, TransportError> {
        let whole = async {
            let addresses = self.addresses(url).await?;
            let tls = Tls {
                config: Arc::clone(&self.tls),
                name: name_of(url)?,
            };
            let failed = |error| TransportError::Http {
                host: url.host.to_string(),
                error,
            };
            let opened = http::ask(url, &addresses, request, Some(&tls))
                .await
                .map_err(failed)?;
            let (status, headers) = (opened.status, opened.headers.clone());
            let body = opened.whole(MAX_ANSWER_BYTES).await.map_err(failed)?;
            Ok(Answered {
                status,
                headers,
                body,
            })
        };
        let answered = timeout(TIMEOUT, whole).await;
        let answered = answered.unwrap_or_else(|_| Err(TransportError::Silent(url.host.to_string())))?;
        if let Some(rest) = retry_after(&answered.headers, SystemTime::now()) {
            *self.rest.lock().unwrap_or_else(PoisonError::into_inner) = Some(rest);
        }
        Ok(answered)
    }

    async fn addresses(&self, url: &HttpUrl) -> Result<Vec<IpAddr>, TransportError> {
        let name = match &url.host {
            base::Host::Ip(ip) => return Ok(vec![*ip]),
            base::Host::Name(name) => name,
        };
        let resolver = self
            .resolver
            .as_ref()
            .map_err(|why| TransportError::Name(why.clone()))?;
        let found = resolver.addresses(name.as_str(), Families::Any.all()).await;
        Ok(found
            .map_err(|error| TransportError::Name(error.to_string()))?
            .records)
    }
}

impl HttpClient for Transport {
    fn request(
        &self,
        request: hyper::Request<instant_acme::BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, instant_acme::Error>> + Send>> {
        let this = self.clone();
        Box::pin(async move {
            let boxed = |error: TransportError| instant_acme::Error::Other(Box::new(error));
            let (head, body) = request.into_parts();
            let text = head.uri.to_string();
            let url = (text.parse::<HttpUrl>().ok()).filter(|url| url.is_tls);
            let url = url.ok_or_else(|| boxed(TransportError::Url(text)))?;
            let body = body.collect().await.map(http_body_util::Collected::to_bytes);
            let mut ask = http::request(head.method, &url.authority(), &url.target);
            if let Some(kind) = head.headers.get(CONTENT_TYPE) {
                ask.headers_mut().insert(CONTENT_TYPE, kind.clone());
            }
            *ask.body_mut() = Full::new(body.unwrap_or_default());
            let answered = this.exchange(&url, ask).await.map_err(boxed)?;
            // what stands before a CA, a proxy for one, says no in its own form
            let is_no = answered.status.is_client_error() || answered.status.is_server_error();
            if is_no
                && serde_json::from_slice::<serde_json::Map<_, serde_json::Value>>(&answered.body).is_err()
            {
                return Err(boxed(TransportError::Status {
                    host: url.host.to_string(),
                    status: answered.status,
                    excerpt: excerpt(&answered.body),
                }));
            }
            let mut response = Response::new(Full::new(Bytes::from(answered.body)));
            *response.status_mut() = answered.status;
            *response.headers_mut() = answered.headers;
            Ok(BytesResponse::from(response))
        })
    }
}

fn name_of(url: &HttpUrl) -> Result<ServerName<'static>, TransportError> {
    match &url.host {
        base::Host::Ip(ip) => Ok(ServerName::IpAddress(pki_types::IpAddr::from(*ip))),
        base::Host::Name(name) => ServerName::try_from(name.without_dot().to_owned())
            .map_err(|_| TransportError::Url(url.to_string())),
    }
}

/// The beginning of a text from outside in one line.
fn excerpt(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let words: Vec<&str> = text.split_whitespace().collect();
    words
        .join(" ")
        .chars()
        .filter(|c| !c.is_control())
        .take(EXCERPT)
        .collect()
}

/// How long an answer says that the next request is to wait, within bounds.
#[must_use]
pub fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    Some(http::retry_after(headers, now)?.min(LONGEST_REST))
}
