//! JSON: gobetween's list of objects with `host`, `port` and as wanted `weight`, `priority`, `max_connections`, `sni`, `name`, or
//! awe4lb's object with such a list in `hosts`, whose elements have `host` and `port` in `addr`. Numbers may be strings; what
//! other programs say besides is ignored.

use std::net::IpAddr;

use serde_json::{Map, Value};

use super::{Answer, Collector, Limits, Malformed, Named, Place};

type Object = Map<String, Value>;

/// Reads an answer.
pub(super) fn parse(bytes: &[u8], limits: Limits) -> Result<Answer, Malformed> {
    let document: Value = serde_json::from_slice(bytes)
        .map_err(|error| Malformed::Document(format!("the answer is not JSON: {error}")))?;
    let list = match &document {
        Value::Array(list) => Some(list),
        Value::Object(object) => object.get("hosts").and_then(Value::as_array),
        _ => None,
    };
    let list = list.ok_or_else(|| {
        Malformed::Document(
            "the answer is neither a list of servers nor an object with one in `hosts`".to_owned(),
        )
    })?;
    let mut collector = Collector::new(limits);
    for (element, number) in list.iter().zip(1..) {
        let place = Place::Element(number);
        let wrong = |why: String| Malformed::Server(place, why);
        let object = element
            .as_object()
            .ok_or_else(|| wrong(format!("it is {}, not an object", kind(element))))?;
        let at = match object.get("addr") {
            None => object,
            Some(addr) => addr.as_object().ok_or_else(|| {
                wrong(format!(
                    "addr is {}, not an object with host and port",
                    kind(addr)
                ))
            })?,
        };
        let host = text(at, "host").map_err(wrong)?;
        let port = number_of(at, "port").map_err(wrong)?;
        let (Some(host), Some(port)) = (host, port) else {
            let missing = if host.is_none() { "host" } else { "port" };
            return Err(wrong(format!("it has no {missing}")));
        };
        let addr = match host.parse::<IpAddr>() {
            Ok(IpAddr::V6(ip)) => format!("[{ip}]:{port}"),
            _ if host.contains('%') => format!("[{host}]:{port}"),
            _ => format!("{host}:{port}"),
        };
        let named = named(object).map_err(wrong)?;
        collector.add(place, &addr, &named)?;
    }
    Ok(collector.finish())
}

fn named(object: &Object) -> Result<Named<'_>, String> {
    Ok(Named {
        name: text(object, "name")?,
        weight: number_of(object, "weight")?,
        priority: number_of(object, "priority")?,
        max_connections: number_of(object, "max_connections")?,
        sni: text(object, "sni")?,
    })
}

/// A text; null is none.
fn text<'a>(object: &'a Object, key: &str) -> Result<Option<&'a str>, String> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(format!("{key} is {}, not a text", kind(other))),
    }
}

/// A whole number, perhaps in quotes; null is none.
fn number_of(object: &Object, key: &str) -> Result<Option<u64>, String> {
    let wrong = |what: &str| Err(format!("{key} is {what}, not a whole number"));
    match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Number(number)) => match number.as_u64() {
            Some(number) => Ok(Some(number)),
            None => wrong(&number.to_string()),
        },
        Some(Value::String(text)) => {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            match digits.then(|| text.parse().ok()).flatten() {
                Some(number) => Ok(Some(number)),
                None => wrong("another text"),
            }
        }
        Some(other) => wrong(kind(other)),
    }
}

const fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
