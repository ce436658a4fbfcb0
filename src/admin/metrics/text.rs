//! Metrics as text: Prometheus' own form (version 0.0.4) and OpenMetrics 1.0.
//!
//! The samples are written by prometheus-client, whose form is OpenMetrics'; Prometheus' differs in the lines before them.

use std::{
    convert::Infallible,
    fmt::{self, Write as _},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::body::{Bytes, HttpBody};
use hyper::body::Frame;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text::encode_registry},
    metrics::MetricType,
    registry::{Registry, Unit},
};

use super::{
    families,
    family::{Family, Kind, Label, Scope, Value},
    scrape::{Scrape, in_seconds},
};
use crate::snapshot::histogram::{BOUNDS, Times};

/// The form of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' own.
    Prometheus,
    /// OpenMetrics.
    OpenMetrics,
}

impl Format {
    /// What whoever asks prefers, by the header field `Accept`.
    #[must_use]
    pub fn accepted(accept: Option<&str>) -> Self {
        let weight = |wanted: &str| -> f32 {
            let named = accept.unwrap_or_default().split(',').filter_map(|range| {
                let mut parts = range.split(';').map(str::trim);
                let is_it = parts.next()?.eq_ignore_ascii_case(wanted);
                let weight = parts.find_map(|part| part.strip_prefix("q=")?.parse().ok());
                is_it.then(|| weight.unwrap_or(1.0))
            });
            named.fold(0.0, f32::max)
        };
        let open = weight("application/openmetrics-text");
        if open > 0.0 && open >= weight("text/plain") {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    /// Its media type.
    #[must_use]
    pub const fn media(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// Adds the lines of a family, if it has a sample.
    ///
    /// # Errors
    /// Never: a text takes everything.
    pub fn write(self, text: &mut String, family: &'static Family, scrape: &Arc<Scrape>) -> fmt::Result {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(OneFamily {
            family,
            scrape: Arc::clone(scrape),
        }));
        let begin = text.len();
        encode_registry(text, &registry)?;
        let lines = text[begin..].split_inclusive('\n');
        let head: usize = lines.take_while(|line| line.starts_with('#')).map(str::len).sum();
        if text.len() == begin + head {
            text.truncate(begin);
        } else if self == Self::Prometheus {
            let own = prometheus_head(family);
            text.replace_range(begin..begin + head, &own);
        }
        Ok(())
    }
}

fn prometheus_head(family: &Family) -> String {
    let mut name = family.full_name();
    let kind = match family.kind {
        Kind::Counter => {
            name.push_str("_total");
            "counter"
        }
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
        Kind::Info => {
            name.push_str("_info");
            "gauge"
        }
    };
    format!("# HELP {name} {}.\n# TYPE {name} {kind}\n", family.help)
}

/// The answer to a scrape: it makes a family when the one before is on its way, so that however many servers there are and
/// however slowly somebody reads, one family is in memory.
pub struct ScrapeBody {
    families: Box<dyn Iterator<Item = &'static Family> + Send>,
    scrape: Arc<Scrape>,
    format: Format,
    has_ended: bool,
}

impl ScrapeBody {
    /// Of these scopes; of none: of all.
    #[must_use]
    pub fn new(scrape: Scrape, format: Format, scopes: Vec<Scope>) -> Self {
        let wanted = families().filter(move |family| scopes.is_empty() || scopes.contains(&family.scope));
        Self {
            families: Box::new(wanted),
            scrape: Arc::new(scrape),
            format,
            has_ended: false,
        }
    }

    /// The next part of the text; empty at its end.
    fn more(&mut self) -> String {
        let mut text = String::new();
        while text.is_empty() {
            let Some(family) = self.families.next() else { break };
            // a text takes everything
            let _ = self.format.write(&mut text, family, &self.scrape);
        }
        if text.is_empty() && !self.has_ended {
            self.has_ended = true;
            if self.format == Format::OpenMetrics {
                let _ = text.write_str("# EOF\n");
            }
        }
        text
    }
}

impl HttpBody for ScrapeBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let text = self.more();
        Poll::Ready((!text.is_empty()).then(|| Ok(Frame::data(text.into()))))
    }
}

/// A family as prometheus-client asks for it.
#[derive(Debug)]
struct OneFamily {
    family: &'static Family,
    scrape: Arc<Scrape>,
}

impl Collector for OneFamily {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let family = self.family;
        let unit = family.unit.map(|unit| Unit::Other(unit.to_owned()));
        let kind = match family.kind {
            Kind::Counter => MetricType::Counter,
            Kind::Gauge => MetricType::Gauge,
            Kind::Histogram => MetricType::Histogram,
            Kind::Info => MetricType::Info,
        };
        // the crate adds the full stop only where it keeps the description
        let help = format!("{}.", family.help);
        let mut metric = encoder.encode_descriptor(family.name, &help, unit.as_ref(), kind)?;
        let mut result = Ok(());
        (family.samples)(&self.scrape, &mut |labels, value| {
            if result.is_ok() {
                result = sample(&mut metric, family.kind, labels, value);
            }
        });
        result
    }
}

fn sample(metric: &mut MetricEncoder<'_>, kind: Kind, labels: &[Label<'_>], value: Value) -> fmt::Result {
    if let Value::Info = value {
        return metric.encode_info(&labels);
    }
    if labels.is_empty() {
        return number(metric, kind, value);
    }
    number(&mut metric.encode_family(&labels)?, kind, value)
}

fn number(metric: &mut MetricEncoder<'_>, kind: Kind, value: Value) -> fmt::Result {
    match (value, kind) {
        (Value::Count(count), Kind::Counter) => metric.encode_counter::<NoLabelSet, _, f64>(&count, None),
        (Value::Number(number), Kind::Counter) => metric.encode_counter::<NoLabelSet, _, f64>(&number, None),
        (Value::Count(count), _) => metric.encode_gauge(&count),
        (Value::Number(number), _) => metric.encode_gauge(&number),
        (Value::Times(times), _) => histogram(metric, &times),
        (Value::Info, _) => Ok(()),
    }
}

fn histogram(metric: &mut MetricEncoder<'_>, times: &Times) -> fmt::Result {
    let bounds = BOUNDS
        .iter()
        .map(|micros| in_seconds(*micros))
        .chain([f64::INFINITY]);
    let buckets: Vec<_> = bounds.zip(times.buckets).collect();
    metric.encode_histogram::<NoLabelSet>(in_seconds(times.micros), times.count(), &buckets, None)
}
