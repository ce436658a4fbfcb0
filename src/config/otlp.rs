//! `[otlp]`: an OpenTelemetry collector that gets metrics and the connection log.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use super::{
    discovery_source::{HOSTS, RESOLV_CONF},
    http_service::SourceTls,
    secret::Secret,
    tls::{SYSTEM_CAS, ServerTrust},
};
use crate::base::{Host, HttpUrl, OtlpSignal};

/// `interval`, as the SDKs have it (OTEL_METRIC_EXPORT_INTERVAL).
pub const INTERVAL: Duration = Duration::from_secs(60);

/// `[otlp]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Otlp {
    /// `endpoint`: the collector, or the path below which it takes what is exported. It has no query.
    pub endpoint: HttpUrl,
    /// `headers`: what else requests have, by names in lower case.
    pub headers: BTreeMap<Box<str>, Secret>,
    /// `tls`, whose defaults an `https` endpoint has without the section.
    pub tls: SourceTls,
    /// `compression`. Default gzip.
    pub compression: Compression,
    /// `timeout` of one request. Default 10 s.
    pub timeout: Duration,
    /// `metrics`: whether they are exported. Default true.
    pub metrics: bool,
    /// `interval` of metrics. Default 60 s, at least 1 s.
    pub interval: Duration,
    /// `connections`: whether the connection log is exported. Default true.
    pub connections: bool,
    /// `instance`: what this load balancer is called; `None`: as the host.
    pub instance: Option<Box<str>>,
}

/// `compression`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// gzip (RFC 1952).
    Gzip,
    /// None.
    None,
}

impl Otlp {
    /// Where a signal goes: below the endpoint, as the specification of OTLP exporters has it.
    #[must_use]
    pub fn url(&self, signal: OtlpSignal) -> HttpUrl {
        let base = self.endpoint.target.trim_end_matches('/');
        self.endpoint
            .with_target(&format!("{base}/v1/{}", signal.label()))
    }

    /// The settings as far as they concern a signal: those of the other are at their defaults.
    #[must_use]
    pub fn only(&self, signal: OtlpSignal) -> Self {
        let mut own = self.clone();
        match signal {
            OtlpSignal::Metrics => own.connections = true,
            OtlpSignal::Logs => (own.metrics, own.interval) = (true, INTERVAL),
        }
        own
    }

    /// Every file that exporting needs.
    pub(crate) fn files(&self) -> BTreeSet<&Path> {
        let mut files: BTreeSet<&Path> = self.headers.values().filter_map(Secret::file).collect();
        if matches!(self.endpoint.host, Host::Name(_)) {
            files.extend([RESOLV_CONF, HOSTS].map(Path::new));
        }
        if self.endpoint.is_tls {
            match &self.tls.trust {
                ServerTrust::System => drop(files.insert(Path::new(SYSTEM_CAS))),
                ServerTrust::Ca(path) => drop(files.insert(path)),
                ServerTrust::Anybody => {}
            }
            if let Some(identity) = &self.tls.identity {
                files.insert(&identity.cert);
                files.extend(identity.key.as_deref());
            }
        }
        files
    }

    /// Those of them that are secret.
    pub(crate) fn secret_files(&self) -> impl Iterator<Item = &Path> {
        let identity = self.tls.identity.as_ref();
        let key = identity.map(|files| files.key.as_ref().unwrap_or(&files.cert).as_path());
        key.into_iter()
            .chain(self.headers.values().filter_map(Secret::file))
    }
}
