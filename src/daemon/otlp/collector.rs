//! A collector, and what it is asked with.

use std::{
    net::IpAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use hyper::header::HeaderName;

use crate::{
    base::{HttpUrl, OtlpResult, OtlpSignal},
    client::{
        credentials::{self, Reading},
        otlp::{Door, Outcome, Resource, message, post},
    },
    config::{Compression, Otlp},
    daemon::{names, otlp::SignalState},
    privilege::{Client, What},
};

/// How long what was read of files and names is believed.
const BELIEVED: Duration = Duration::from_secs(60);

/// A collector for one signal.
pub struct Collector {
    settings: Otlp,
    url: HttpUrl,
    broker: Client,
    resource: Resource,
    known: Option<Known>,
}

/// What requests are made with.
#[derive(Clone)]
struct Known {
    door: Door,
    addresses: Vec<IpAddr>,
    /// When it was read and looked up.
    at: Instant,
}

/// What has become of a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Sent {
    /// The collector has it; so many items of it were rejected, and why.
    Yes(Option<(u64, String)>),
    /// It is to be sent again, not before that time if the collector says so.
    Again(Option<Duration>, String),
    /// It is lost.
    Refused(String),
}

impl Collector {
    /// By the settings.
    pub fn new(settings: Otlp, signal: OtlpSignal, broker: Client) -> Self {
        let host = nix::unistd::gethostname().unwrap_or_default();
        let host = host.to_string_lossy();
        Self {
            url: settings.url(signal),
            resource: Resource {
                instance: settings.instance.as_deref().unwrap_or(&host).into(),
                host: host.into(),
            },
            settings,
            broker,
            known: None,
        }
    }

    /// Sends items, and counts what has come of it.
    pub async fn send(&mut self, items: &[&[u8]], state: &SignalState) -> Sent {
        let outcome = self.attempt(items).await;
        if !matches!(outcome, Outcome::Accepted(_)) {
            // a certificate or a secret that was replaced may be why
            self.known = None;
        }
        let (result, sent) = match outcome {
            Outcome::Accepted(partial) if partial.rejected > 0 => {
                let why = format!(
                    "the collector has rejected {}: {}",
                    partial.rejected, partial.message
                );
                (OtlpResult::Partial, Sent::Yes(Some((partial.rejected, why))))
            }
            Outcome::Accepted(_) => (OtlpResult::Accepted, Sent::Yes(None)),
            Outcome::Later(after, why) => (OtlpResult::Later, Sent::Again(after, why)),
            Outcome::Refused(why) => (OtlpResult::Refused, Sent::Refused(why)),
            Outcome::Failed(why) => (OtlpResult::Failed, Sent::Again(None, why)),
        };
        state.count(result);
        sent
    }

    async fn attempt(&mut self, items: &[&[u8]]) -> Outcome {
        let known = match self.known().await {
            Ok(known) => known,
            Err(why) => return Outcome::Failed(why),
        };
        let body = message::request(&self.resource, items);
        let gzip = self.settings.compression == Compression::Gzip;
        post(
            &self.url,
            &known.addresses,
            &known.door,
            (&body, gzip),
            self.settings.timeout,
        )
        .await
    }

    async fn known(&mut self) -> Result<Known, String> {
        if let Some(known) = self.known.as_ref().filter(|known| known.at.elapsed() < BELIEVED) {
            return Ok(known.clone());
        }
        let read = |path: PathBuf| -> Reading {
            let broker = self.broker.clone();
            Box::pin(async move {
                let read = broker.read(What::TelemetryFile(path)).await;
                read.map(|file| file.source.bytes)
                    .map_err(|error| error.to_string())
            })
        };
        let tls = match self.url.is_tls {
            true => Some(credentials::tls(&self.settings.tls, &self.url.host, &read).await?),
            false => None,
        };
        let mut headers = Vec::new();
        for (name, place) in &self.settings.headers {
            let key = format!("headers.{name}");
            let value = credentials::header(&key, "", place, &read).await?;
            let name =
                HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("{key}: it is no header"))?;
            headers.push((name, value));
        }
        let known = Known {
            door: Door { tls, headers },
            addresses: names::addresses(&self.broker, &self.url.host).await?,
            at: Instant::now(),
        };
        Ok(self.known.insert(known).clone())
    }
}
