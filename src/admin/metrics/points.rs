//! Metrics as OTLP has them: what the text has as a series is a data point, by the same names and labels.
//!
//! The names keep their suffixes (`_total`, `_info`, `_seconds`), so that dashboards and alert rules find them wherever they
//! arrive: Prometheus' own receiver adds no suffix to a name that has it.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{
    families,
    family::{Family, Kind, Label, Value},
    scrape::{Scrape, in_seconds},
};
use crate::{
    client::otlp::{
        message::{AnyValue, add_item, attribute},
        wire::Message,
    },
    snapshot::histogram::{BOUNDS, Times},
};

/// Most bytes of the metrics of one part, but for the last data point: what collectors take by default is 4 MiB and more.
const PART_BYTES: usize = 1 << 20;

/// AGGREGATION_TEMPORALITY_CUMULATIVE.
const CUMULATIVE: u64 = 2;

/// Metrics for one request.
#[derive(Debug, Default)]
pub struct Part {
    /// Items of [`request`](crate::client::otlp::message::request).
    pub items: Vec<u8>,
    /// Data points in them.
    pub points: usize,
}

/// Every metric of a moment, in parts. No more than a part and a family are in memory.
pub struct Parts {
    families: Box<dyn Iterator<Item = &'static Family> + Send>,
    scrape: Arc<Scrape>,
    times: Times64,
    /// What is to come, the last one still growing.
    ready: VecDeque<Part>,
}

/// When counting began, and now, in nanoseconds since 1970.
#[derive(Debug, Clone, Copy)]
struct Times64 {
    begun: u64,
    now: u64,
}

impl Parts {
    /// Of a moment.
    #[must_use]
    pub fn new(scrape: Scrape) -> Self {
        let nanos = |at: SystemTime| {
            let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
        };
        let begun = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs_f64(scrape.begun().max(0.0)));
        Self {
            families: Box::new(families()),
            times: Times64 {
                begun: nanos(begun.unwrap_or(scrape.wall)),
                now: nanos(scrape.wall),
            },
            scrape: Arc::new(scrape),
            ready: VecDeque::new(),
        }
    }
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").finish_non_exhaustive()
    }
}

impl Iterator for Parts {
    type Item = Part;

    fn next(&mut self) -> Option<Part> {
        while self.ready.len() < 2 {
            let Some(family) = self.families.next() else { break };
            write_family(family, &self.scrape, self.times, &mut self.ready);
        }
        self.ready.pop_front().filter(|part| part.points > 0)
    }
}

fn write_family(family: &Family, scrape: &Scrape, times: Times64, ready: &mut VecDeque<Part>) {
    let mut points = Message::default();
    let mut count = 0;
    (family.samples)(scrape, &mut |labels, value| {
        points.message(1, |point| write_point(point, family.kind, labels, value, times));
        count += 1;
        let part = ready.back().map_or(0, |part| part.items.len());
        if part + points.as_bytes().len() >= PART_BYTES {
            put(family, &mut points, &mut count, ready);
            ready.push_back(Part::default());
        }
    });
    if count > 0 {
        put(family, &mut points, &mut count, ready);
    }
}

/// Adds data points of a family to the part that grows.
fn put(family: &Family, points: &mut Message, count: &mut usize, ready: &mut VecDeque<Part>) {
    let mut items = Message::default();
    add_item(&mut items, |metric| {
        write_metric(metric, family, points.as_bytes())
    });
    if ready.is_empty() {
        ready.push_back(Part::default());
    }
    if let Some(part) = ready.back_mut() {
        part.items.extend_from_slice(items.as_bytes());
        part.points += std::mem::take(count);
    }
    *points = Message::default();
}

/// Metric: its name, and its data points.
fn write_metric(metric: &mut Message, family: &Family, points: &[u8]) {
    let suffix = match family.kind {
        Kind::Counter => "_total",
        Kind::Info => "_info",
        Kind::Gauge | Kind::Histogram => "",
    };
    metric.string(1, &format!("{}{suffix}", family.full_name()));
    metric.string(2, family.help);
    if let Some(unit) = family.unit {
        metric.string(3, ucum(unit));
    }
    let data = match family.kind {
        Kind::Gauge | Kind::Info => 5,
        Kind::Counter => 7,
        Kind::Histogram => 9,
    };
    metric.message(data, |data| {
        data.append(&[points]);
        match family.kind {
            Kind::Gauge | Kind::Info => {}
            Kind::Histogram => data.uint(2, CUMULATIVE),
            Kind::Counter => {
                data.uint(2, CUMULATIVE);
                // is_monotonic
                data.uint(3, 1);
            }
        }
    });
}

/// A unit as UCUM has it.
fn ucum(unit: &'static str) -> &'static str {
    match unit {
        "seconds" => "s",
        "bytes" => "By",
        other => other,
    }
}

/// NumberDataPoint, or HistogramDataPoint.
fn write_point(point: &mut Message, kind: Kind, labels: &[Label<'_>], value: Value, times: Times64) {
    let field = match value {
        Value::Times(_) => 9,
        Value::Count(_) | Value::Number(_) | Value::Info => 7,
    };
    for (name, label) in labels {
        attribute(point, field, name, AnyValue::Text(label));
    }
    if matches!(kind, Kind::Counter | Kind::Histogram) {
        point.fixed64(2, times.begun);
    }
    point.fixed64(3, times.now);
    match value {
        // sfixed64: what is larger does not fit
        Value::Count(count) => point.fixed64(6, count.min(i64::MAX.unsigned_abs())),
        Value::Number(number) => point.double(4, number),
        Value::Info => point.fixed64(6, 1),
        Value::Times(times) => write_times(point, &times),
    }
}

fn write_times(point: &mut Message, times: &Times) {
    point.fixed64(4, times.count());
    point.double(5, in_seconds(times.micros));
    // of each bucket by itself, not of all below it as the text has them
    point.packed(6, times.buckets.iter().copied());
    point.packed(7, BOUNDS.iter().map(|micros| in_seconds(*micros).to_bits()));
}
