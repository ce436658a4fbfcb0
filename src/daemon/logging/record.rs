//! A finished connection as a log record of OTLP: the line is its body, and the fields that it has in the journal are its
//! attributes, by the same names.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use tracing::field::{Field, Visit};

use super::access::{METADATA, with_values};
use crate::{
    base::AccessRecord,
    client::otlp::{
        message::{AnyValue, add_item, any_value, attribute},
        wire::Message,
    },
};

/// Adds the record of a connection that ended at a time.
pub fn write(items: &mut Vec<u8>, at: SystemTime, record: &AccessRecord) {
    let mut item = Message::default();
    add_item(&mut item, |log| write_record(log, at, record));
    items.extend_from_slice(item.as_bytes());
}

fn write_record(log: &mut Message, at: SystemTime, record: &AccessRecord) {
    let since = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    let nanos = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
    // SEVERITY_NUMBER_INFO and SEVERITY_NUMBER_WARN, as syslog has them
    let (severity, word) = match record.reason.is_orderly() {
        true => (9, "INFO"),
        false => (13, "WARN"),
    };
    log.fixed64(1, nanos);
    log.uint(2, severity);
    log.string(3, word);
    with_values(record, |values| {
        for (field, value) in METADATA.fields().iter().zip(values) {
            if let Some(value) = value {
                value.record(&field, &mut Fields(log));
            }
        }
    });
    // observed_time_unix_nano: who observes it is who makes it
    log.fixed64(11, nanos);
}

/// Writes fields as they come.
struct Fields<'a>(&'a mut Message);

impl Fields<'_> {
    fn put(&mut self, field: &Field, value: AnyValue<'_>) {
        match field.name() {
            "message" => any_value(self.0, 5, value),
            name => attribute(self.0, 6, name, value),
        }
    }
}

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, AnyValue::Text(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, AnyValue::Count(value.min(i64::MAX.unsigned_abs())));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, AnyValue::Bool(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, AnyValue::Number(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, AnyValue::Text(&format!("{value:?}")));
    }
}
