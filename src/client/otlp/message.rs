//! The messages of OTLP that Convey writes and reads, by the field numbers of opentelemetry-proto 1.x
//! (<https://github.com/open-telemetry/opentelemetry-proto>).

use super::wire::{Field, Message, fields};

/// Longest text of a collector that is shown, in characters.
const EXCERPT: usize = 200;

/// Who exports: the attributes of every request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// `service.instance.id`.
    pub instance: Box<str>,
    /// `host.name`.
    pub host: Box<str>,
}

/// A request to export items: metrics, or log records, whose requests have the same shape. `items` are the fields that
/// [`add_item`] has written.
#[must_use]
pub fn request(resource: &Resource, items: &[&[u8]]) -> Vec<u8> {
    let mut request = Message::default();
    // ExportMetricsServiceRequest.resource_metrics, ExportLogsServiceRequest.resource_logs
    request.message(1, |of_resource| {
        of_resource.message(1, |attributes| {
            for (name, value) in [
                ("service.name", "convey"),
                ("service.instance.id", &resource.instance),
                ("service.version", env!("CARGO_PKG_VERSION")),
                ("host.name", &resource.host),
            ] {
                attribute(attributes, 1, name, AnyValue::Text(value));
            }
        });
        of_resource.message(2, |of_scope| {
            of_scope.message(1, |scope| {
                scope.string(1, "convey");
                scope.string(2, env!("CARGO_PKG_VERSION"));
            });
            of_scope.append(items);
        });
    });
    request.into_bytes()
}

/// Adds an item, which `write` writes: ScopeMetrics.metrics, ScopeLogs.log_records.
pub fn add_item(items: &mut Message, write: impl FnOnce(&mut Message)) {
    items.message(2, write);
}

/// The value of an attribute, or of a body.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum AnyValue<'a> {
    /// A text.
    Text(&'a str),
    /// Yes or no.
    Bool(bool),
    /// A number that is not negative and fits 63 bits.
    Count(u64),
    /// Another one.
    Number(f64),
}

/// Writes an attribute (KeyValue) as a field.
pub fn attribute(message: &mut Message, field: u32, name: &str, value: AnyValue<'_>) {
    message.message(field, |pair| {
        pair.string(1, name);
        any_value(pair, 2, value);
    });
}

/// Writes a value (AnyValue) as a field.
pub fn any_value(message: &mut Message, field: u32, value: AnyValue<'_>) {
    message.message(field, |any| match value {
        AnyValue::Text(text) => any.string(1, text),
        AnyValue::Bool(yes) => any.uint(2, yes.into()),
        AnyValue::Count(count) => any.uint(3, count),
        AnyValue::Number(number) => any.double(4, number),
    });
}

/// What a collector says of a request that it has accepted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Partial {
    /// Data points or log records that it has rejected.
    pub rejected: u64,
    /// Why, or a warning.
    pub message: String,
}

/// Reads the answer to a request that was accepted; one that cannot be read says nothing.
#[must_use]
pub fn read_partial(answer: &[u8]) -> Partial {
    let inner = fields(answer)
        .into_iter()
        .flatten()
        .find_map(|field| match field {
            // Export…ServiceResponse.partial_success
            (1, Field::Bytes(inner)) => fields(inner),
            _ => None,
        });
    let mut partial = Partial::default();
    for field in inner.into_iter().flatten() {
        match field {
            // int64: what is negative is nonsense
            (1, Field::Integer(rejected)) => {
                partial.rejected = u64::try_from(rejected.cast_signed()).unwrap_or(0);
            }
            (2, Field::Bytes(text)) => partial.message = excerpt(text),
            _ => {}
        }
    }
    partial
}

/// What a collector says of a request that it has refused: the message of a google.rpc.Status, or the first line of a text.
#[must_use]
pub fn read_refusal(answer: &[u8]) -> String {
    let status = fields(answer).unwrap_or_default();
    let message = status.iter().rev().find_map(|field| match field {
        (2, Field::Bytes(text)) => Some(*text),
        _ => None,
    });
    match (message, answer) {
        // a page for browsers says no more than its status
        (None, [b'<', ..]) => String::new(),
        (message, text) => excerpt(message.unwrap_or(text)),
    }
}

/// The first line of a text from outside, cut short and without what would break ours.
fn excerpt(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let line = text.trim().lines().next().unwrap_or_default();
    let plain = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    line.chars().take(EXCERPT).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_says_who_exports() {
        let resource = Resource {
            instance: "lb1".into(),
            host: "host1".into(),
        };
        let mut items = Message::default();
        add_item(&mut items, |item| item.string(1, "x"));
        let written = request(&resource, &[items.as_bytes()]);
        let version = env!("CARGO_PKG_VERSION");
        let mut wanted = Message::default();
        wanted.message(1, |of_resource| {
            of_resource.message(1, |attributes| {
                for (name, value) in [
                    ("service.name", "convey"),
                    ("service.instance.id", "lb1"),
                    ("service.version", version),
                    ("host.name", "host1"),
                ] {
                    attributes.message(1, |pair| {
                        pair.string(1, name);
                        pair.message(2, |value_of| value_of.string(1, value));
                    });
                }
            });
            of_resource.message(2, |of_scope| {
                of_scope.message(1, |scope| {
                    scope.string(1, "convey");
                    scope.string(2, version);
                });
                of_scope.message(2, |item| item.string(1, "x"));
            });
        });
        assert_eq!(written, wanted.into_bytes());
    }

    #[test]
    fn values_have_the_fields_of_their_types() {
        let written = |value| {
            let mut message = Message::default();
            any_value(&mut message, 5, value);
            message.into_bytes()
        };
        assert_eq!(written(AnyValue::Text("ab")), b"\x2a\x04\x0a\x02ab");
        assert_eq!(written(AnyValue::Bool(true)), b"\x2a\x02\x10\x01");
        assert_eq!(written(AnyValue::Count(300)), b"\x2a\x03\x18\xac\x02");
        assert_eq!(
            written(AnyValue::Number(1.0)),
            b"\x2a\x09\x21\0\0\0\0\0\0\xf0\x3f"
        );
    }

    #[test]
    fn what_collectors_say_is_read_and_what_they_babble_is_not() {
        let mut answer = Message::default();
        answer.message(1, |partial| {
            partial.uint(1, 7);
            partial.string(2, "too old\nmore");
        });
        let read = read_partial(answer.as_bytes());
        assert_eq!((read.rejected, read.message.as_str()), (7, "too old"));
        let mut negative = Message::default();
        negative.message(1, |partial| partial.uint(1, u64::MAX));
        assert_eq!(read_partial(negative.as_bytes()), Partial::default());
        for nothing in [&b""[..], b"{}", b"\xff\xff", b"<html>"] {
            assert_eq!(read_partial(nothing), Partial::default());
        }
        let mut status = Message::default();
        status.uint(1, 3);
        status.string(2, "no such tenant");
        assert_eq!(read_refusal(status.as_bytes()), "no such tenant");
        assert_eq!(read_refusal(b"go away\r\nnow"), "go away");
        assert_eq!(read_refusal(b"<html>no</html>"), "");
        assert_eq!(read_refusal(b"a\x1b[1m"), "a\u{fffd}[1m");
    }
}
