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

#[cfg(test)]
mod tests {
    use super::{super::access::tests, *};

    #[test]
    fn a_record_has_every_field_that_the_journal_has() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(3);
        let mut written = Vec::new();
        write(&mut written, at, &tests::refused());
        let mut wanted = Message::default();
        wanted.message(2, |log| {
            log.fixed64(1, 3_000_000_000);
            log.uint(2, 13);
            log.string(3, "WARN");
            log.message(5, |body| {
                body.string(
                    1,
                    "10.0.1.2:33313 [06/Feb/2009:12:12:51.443] fnt bck/<NOSRV> -1/-1/5007 77/212 SC 3/0/0",
                );
            });
            let mut text = |name, value| attribute(log, 6, name, AnyValue::Text(value));
            text("event", "access");
            text("frontend", "fnt");
            text("backend", "bck");
            text("client", "10.0.1.2:33313");
            text("listen", "10.0.1.1:80");
            text("reason", "no_server");
            text("code", "SC");
            for (name, value) in [
                ("bytes_in", 77),
                ("bytes_out", 212),
                ("total_ms", 5007),
                ("retries", 0),
            ] {
                attribute(log, 6, name, AnyValue::Count(value));
            }
            attribute(log, 6, "redispatched", AnyValue::Bool(false));
            log.fixed64(11, 3_000_000_000);
        });
        assert_eq!(written, wanted.into_bytes());
    }
}
