//! JSON: gobetween's list of objects with `host`, `port` and as wanted `weight`, `priority`, `max_connections`, `sni`, `name`, or
//! awe4lb's object with such a list in `hosts`, whose elements have `host` and `port` in `addr`; or what the configuration says
//! where it is. Numbers may be strings; what other programs say besides is ignored.

use std::net::IpAddr;

use serde_json::{Map, Value};

use super::{Answer, Collector, Limits, Malformed, Named, Place, of_json};
use crate::config::{JsonPath, JsonPaths, JsonStep};

/// Reads an answer.
pub(super) fn parse(bytes: &[u8], paths: &JsonPaths, limits: Limits) -> Result<Answer, Malformed> {
    let document: Value = serde_json::from_slice(bytes)
        .map_err(|error| Malformed::Document(format!("the answer is not JSON: {}", of_json(&error))))?;
    let mut collector = Collector::new(limits);
    for (value, number) in servers(&document, paths)?.iter().zip(1..) {
        let place = Place::Element(number);
        let wrong = |why: String| Malformed::Server(place, why);
        let element = Element::of(value, paths).map_err(wrong)?;
        let host = text("host", element.get(&paths.host, "host")).map_err(wrong)?;
        let port = number_of("port", element.get(&paths.port, "port")).map_err(wrong)?;
        let (Some(host), Some(port)) = (host, port) else {
            let missing = if host.is_none() { "host" } else { "port" };
            return Err(wrong(format!("it has no {missing}")));
        };
        let addr = match host.parse::<IpAddr>() {
            Ok(IpAddr::V6(ip)) => format!("[{ip}]:{port}"),
            _ if host.contains('%') => format!("[{host}]:{port}"),
            _ => format!("{host}:{port}"),
        };
        collector.add(place, &addr, &named(value, paths).map_err(wrong)?)?;
    }
    Ok(collector.finish())
}

fn servers<'a>(document: &'a Value, paths: &JsonPaths) -> Result<&'a [Value], Malformed> {
    if let Some(path) = &paths.servers {
        let list = at(document, path).and_then(Value::as_array);
        let none = || Malformed::Document(format!("the answer has no list at {path} (json.servers)"));
        return list.map(Vec::as_slice).ok_or_else(none);
    }
    let list = match document {
        Value::Array(list) => Some(list),
        Value::Object(object) => object.get("hosts").and_then(Value::as_array),
        _ => None,
    };
    list.map(Vec::as_slice).ok_or_else(|| {
        Malformed::Document(
            "the answer is neither a list of servers nor an object with one in `hosts`".to_owned(),
        )
    })
}

/// What a path leads to.
fn at<'a>(value: &'a Value, path: &JsonPath) -> Option<&'a Value> {
    path.steps().iter().try_fold(value, |value, step| match step {
        JsonStep::Key(key) => value.get(&**key),
        JsonStep::Index(index) => value.get(index),
    })
}

/// An element of the list: where its host and port are.
struct Element<'a> {
    value: &'a Value,
    /// Unless paths say otherwise; `None`: they do.
    object: Option<&'a Map<String, Value>>,
}

impl<'a> Element<'a> {
    fn of(value: &'a Value, paths: &JsonPaths) -> Result<Self, String> {
        if paths.host.is_some() && paths.port.is_some() {
            return Ok(Self { value, object: None });
        }
        let object = value.as_object();
        let object = object.ok_or_else(|| format!("it is {}, not an object", kind(value)))?;
        let object = match object.get("addr") {
            // what is at a path of its own may be called so too
            Some(addr) if paths.host.is_none() && paths.port.is_none() => addr
                .as_object()
                .ok_or_else(|| format!("addr is {}, not an object with host and port", kind(addr)))?,
            _ => object,
        };
        Ok(Self {
            value,
            object: Some(object),
        })
    }

    fn get(&self, path: &Option<JsonPath>, key: &str) -> Option<&'a Value> {
        match path {
            Some(path) => at(self.value, path),
            None => self.object?.get(key),
        }
    }
}

fn named<'a>(value: &'a Value, paths: &JsonPaths) -> Result<Named<'a>, String> {
    let get = |path: &Option<JsonPath>, key: &str| match path {
        Some(path) => at(value, path),
        None => value.get(key),
    };
    Ok(Named {
        name: text("name", get(&paths.name, "name"))?,
        weight: number_of("weight", get(&paths.weight, "weight"))?,
        priority: number_of("priority", get(&paths.priority, "priority"))?,
        max_connections: number_of("max_connections", get(&paths.max_connections, "max_connections"))?,
        sni: text("sni", get(&paths.sni, "sni"))?,
    })
}

/// A text; null is none.
fn text<'a>(key: &str, value: Option<&'a Value>) -> Result<Option<&'a str>, String> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(format!("{key} is {}, not a text", kind(other))),
    }
}

/// A whole number, perhaps in quotes; null is none.
fn number_of(key: &str, value: Option<&Value>) -> Result<Option<u64>, String> {
    let wrong = |what: &str| Err(format!("{key} is {what}, not a whole number"));
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Number(number)) => match number.as_u64() {
            Some(number) => Ok(Some(number)),
            None => wrong(&number.to_string()),
        },
        Some(Value::String(text)) => match super::digits(text) {
            Some(number) => Ok(Some(number)),
            None => wrong("another text"),
        },
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
