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
        write_metric(metric, family, points.as_bytes());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        admin::metrics::{Scope, tests::scrape},
        client::otlp::wire::{self, Field},
    };

    const TIMES: Times64 = Times64 { begun: 1, now: 2 };

    const MANY: Family = Family::counter(Scope::Process, "convey_many", "Many", |_, put| {
        for number in 0..40_000_u32 {
            put(&[("number", &number.to_string())], number.into());
        }
    });

    fn parts(family: &Family) -> VecDeque<Part> {
        let mut ready = VecDeque::new();
        write_family(family, &scrape(), TIMES, &mut ready);
        ready
    }

    #[test]
    fn a_counter_is_a_sum_that_only_grows() {
        const ONE: Family = Family::counter(Scope::Process, "convey_a", "What", |_, put| {
            put(&[("x", "y")], 7_u32.into());
        })
        .in_unit("seconds");
        let parts = parts(&ONE);
        let mut wanted = Message::default();
        wanted.message(2, |metric| {
            metric.string(1, "convey_a_seconds_total");
            metric.string(2, "What");
            metric.string(3, "s");
            metric.message(7, |sum| {
                sum.message(1, |point| {
                    point.message(7, |label| {
                        label.string(1, "x");
                        label.message(2, |value| value.string(1, "y"));
                    });
                    point.fixed64(2, 1);
                    point.fixed64(3, 2);
                    point.fixed64(6, 7);
                });
                sum.uint(2, 2);
                sum.uint(3, 1);
            });
        });
        assert_eq!(
            (parts[0].points, parts[0].items.as_slice()),
            (1, wanted.as_bytes())
        );
    }

    #[test]
    fn a_number_that_is_too_large_is_the_largest() {
        let mut point = Message::default();
        write_point(&mut point, Kind::Gauge, &[], Value::Count(u64::MAX), TIMES);
        let fields = wire::fields(point.as_bytes()).unwrap();
        assert_eq!(
            fields,
            [
                (3, Field::Fixed64(2)),
                (6, Field::Fixed64(i64::MAX.unsigned_abs()))
            ]
        );
    }

    #[test]
    fn parts_are_bounded_and_nothing_is_missing() {
        let parts = parts(&MANY);
        let full = parts
            .iter()
            .filter(|part| part.items.len() > PART_BYTES / 2)
            .count();
        assert!(full >= 2, "{}", parts.len());
        for part in &parts {
            assert!(part.items.len() < PART_BYTES + 1_024, "{}", part.items.len());
        }
        assert_eq!(parts.iter().map(|part| part.points).sum::<usize>(), 40_000);
    }

    #[test]
    fn every_family_is_told() {
        let scrape = Arc::into_inner(scrape()).unwrap();
        let parts: Vec<Part> = Parts::new(scrape).collect();
        let [part] = parts.as_slice() else {
            panic!("one part is enough: {}", parts.len())
        };
        let metrics = wire::fields(&part.items).unwrap();
        let name = |(_, field): &(u64, Field<'_>)| match field {
            Field::Bytes(metric) => match wire::fields(metric).unwrap()[0] {
                (1, Field::Bytes(name)) => String::from_utf8(name.to_vec()).unwrap(),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        };
        let names: Vec<String> = metrics.iter().map(name).collect();
        for expected in [
            "convey_build_info",
            "process_cpu_seconds_total",
            "convey_frontend_session_time_seconds",
        ] {
            assert!(names.iter().any(|name| name == expected), "{names:?}");
        }
        assert!(part.points > names.len());
    }
}
