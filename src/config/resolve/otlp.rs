//! `[otlp]`: the collector that metrics and the connection log are exported to.

use std::time::Duration;

use super::{source_service::tls, time, value};
use crate::{
    base::Host,
    config::{
        findings::Findings,
        http_service::SourceTls,
        model::Config,
        otlp::{Compression, INTERVAL, Otlp},
        raw::{self, Located},
    },
};

/// That of the SDKs (OTEL_EXPORTER_OTLP_TIMEOUT).
const TIMEOUT: Duration = Duration::from_secs(10);

/// Shortest time between two exports of metrics.
const SHORTEST: Duration = Duration::from_secs(1);

/// The section; `None` if there is none, or it has a mistake, which has been said.
pub fn otlp(section: Option<&Located<raw::Otlp>>, findings: &mut Findings) -> Option<Otlp> {
    let at = section?;
    findings.within("otlp", |findings| {
        if !cfg!(feature = "otlp") {
            findings.error(
                at.key.clone(),
                "this build of Convey cannot export by OTLP: it was built without the feature `otlp`",
                "install the package, which has it, or build with `cargo build --release --features otlp`; or remove the section"
                    .to_owned(),
            );
            return None;
        }
        let raw = &at.value;
        if let Some(at) = raw.interval.as_ref().filter(|at| at.value.0 < SHORTEST) {
            findings.within("interval", |findings| {
                findings.error(at.span.clone(), "`interval` must be at least 1s", "write \"1s\", or \"60s\" as is usual".to_owned());
            });
        }
        let endpoint = raw.endpoint.as_ref()?.value.0.clone()?;
        Some(Otlp {
            headers: value(raw.headers.as_ref(), Default::default(), |v| {
                (v.0.into_iter()).map(|(name, (secret, _))| (name, secret)).collect()
            }),
            tls: match &raw.tls {
                Some(at) => tls(Some(at), &endpoint, None, READS, findings)?,
                None => SourceTls::default(),
            },
            compression: value(raw.compression.as_ref(), Compression::Gzip, |v| v),
            timeout: time(raw.timeout.as_ref(), TIMEOUT),
            metrics: value(raw.metrics.as_ref(), true, |v| v),
            interval: time(raw.interval.as_ref(), INTERVAL),
            connections: value(raw.connections.as_ref(), true, |v| v),
            instance: match &raw.instance {
                Some(at) => Some(at.value.0.as_deref()?.into()),
                None => None,
            },
            endpoint,
        })
    })
}

/// What somebody in the collector's place could do.
const READS: &str = "reads the metrics and the connection log, and the secrets of `headers`";

/// Warns of what has no effect, and of secrets that everybody on the way can read.
pub fn check(file: &raw::File, config: &Config, findings: &mut Findings) {
    let (Some(at), Some(otlp)) = (&file.otlp, &config.otlp) else {
        return;
    };
    let raw = &at.value;
    findings.within("otlp", |findings| {
        if !otlp.metrics && !otlp.connections {
            findings.warn(
                at.key.clone(),
                "[otlp] exports nothing: `metrics` and `connections` are false",
                "remove one of the two, or the section".to_owned(),
            );
        }
        if let Some(at) = raw.interval.as_ref().filter(|_| !otlp.metrics && otlp.connections) {
            findings.within("interval", |findings| {
                let message = "`interval` has no effect with metrics = false: connections are exported as they end";
                findings.warn(at.key.clone(), message, "remove it".to_owned());
            });
        }
        let is_here = match &otlp.endpoint.host {
            Host::Ip(ip) => ip.to_canonical().is_loopback(),
            Host::Name(name) => name.without_dot() == "localhost",
        };
        if let Some(at) = raw.headers.as_ref().filter(|at| !at.value.0.is_empty() && !otlp.endpoint.is_tls && !is_here) {
            findings.within("headers", |findings| {
                findings.warn(
                    at.key.clone(),
                    format!("`headers` go to {} in the clear: everybody on the way can read the secrets", otlp.endpoint.host),
                    "write https:// in `endpoint`, or let a collector on this host pass it on".to_owned(),
                );
            });
        }
        let logged = config.frontends.values().any(|frontend| frontend.logs_connections());
        if let Some(at) = raw.connections.as_ref().filter(|at| at.value && !logged) {
            findings.within("connections", |findings| {
                findings.warn(
                    at.key.clone(),
                    "`connections` has no effect: no frontend has a connection log (mode \"proxy\" and access_log)",
                    "remove it".to_owned(),
                );
            });
        }
    });
}

#[cfg(all(test, not(feature = "otlp")))]
mod tests {
    use crate::config::{Options, Source, load};

    #[test]
    fn a_build_without_it_says_so_and_what_to_do() {
        let source = Source {
            name: "c.toml".to_owned(),
            bytes: b"otlp.endpoint = \"http://127.0.0.1:4318\"".to_vec(),
        };
        let found = load(&source, Options::default()).expect_err("it is refused");
        let [found] = found.as_slice() else {
            panic!("{found:?}")
        };
        assert!(
            found.message.contains("built without the feature `otlp`"),
            "{found:?}"
        );
        assert!(
            found
                .help
                .as_ref()
                .is_some_and(|help| help.contains("--features otlp")),
            "{found:?}"
        );
    }
}
