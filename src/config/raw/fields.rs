//! Types of values: what each accepts, what it says of anything else, and its schema.

use std::{collections::BTreeMap, net::IpAddr, num::NonZeroU32, ops::Range, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use toml::de::DeValue;

use super::{
    BackendRef,
    field::{Field, Key, Located, Node, bad_value, inline_schema, read_key, string, wrong_type},
    section::Section,
};
use crate::{
    base::{ListenPlace, ListenRange, Protocol, SocketPath},
    config::{
        address, duration,
        findings::Findings,
        listen,
        model::{
            Algorithm, DsrMethod, EngineChoice, InitialState, LogFormat, LogLevel, Mode, OnDown, XdpMode,
        },
        source::SourceAddress,
        synonyms,
        words::{Words, nearest},
    },
};

/// An integer from `MIN` to `MAX`.
#[derive(Debug, Clone, Copy)]
pub struct Int<const MIN: u64, const MAX: u64>(pub u64);

/// A duration of at most `MAX` milliseconds; `ZERO` says whether it may be zero.
#[derive(Debug, Clone, Copy)]
pub struct Time<const ZERO: bool, const MAX: u64>(pub Duration);

/// A TCP port, as an integer or a string.
#[derive(Debug, Clone, Copy)]
pub struct Port {
    /// The port, never 0.
    pub number: u16,
    /// Whether it was written as a string, which only 0.3.5 asked for.
    pub quoted: bool,
}

/// `"auto"` or a number of threads.
#[derive(Debug, Clone, Copy)]
pub struct WorkerCount(pub Option<NonZeroU32>);

/// One or several addresses to listen on, each with its place, and the paths of unix sockets.
#[derive(Debug, Clone, Default)]
pub struct ListenAddrs(
    pub Vec<(ListenRange, Range<usize>)>,
    pub Vec<(SocketPath, Range<usize>)>,
);

/// Sections by name.
#[derive(Debug, Clone)]
pub struct Named<S>(pub BTreeMap<String, Located<S>>);

/// An integer as TOML has it, in any radix; `None` if it does not even fit 128 bits.
fn integer(value: &toml::de::DeInteger<'_>) -> Option<i128> {
    i128::from_str_radix(value.as_str(), value.radix()).ok()
}

/// An integer in bounds, or what is wrong with it.
pub(super) fn bounded(
    value: &Node<'_>,
    min: u64,
    max: u64,
    what: &str,
    findings: &mut Findings,
) -> Option<u64> {
    let expected = format!("{what} from {min} to {max}");
    match value.get_ref() {
        DeValue::Integer(number) => {
            let fits = integer(number)
                .and_then(|n| u64::try_from(n).ok())
                .filter(|n| (min..=max).contains(n));
            if fits.is_none() {
                let message = format!("`{}` must be {expected}, not {number}", findings.key());
                // Limits have no upper bound of their own; zero is how other programs write "none".
                let unlimited = max == u64::from(u32::MAX) && number.as_str() == "0";
                let what = if findings.key() == "mark" { "mark" } else { "limit" };
                let help = unlimited.then(|| format!("leave the key out for no {what}"));
                findings.error(value.span(), message, help);
            }
            fits
        }
        DeValue::String(text) => {
            let help = text
                .parse::<u64>()
                .ok()
                .map(|n| format!("leave out the quotes: {} = {n}", findings.key()));
            wrong_type(value, &expected, help, findings)
        }
        _ => wrong_type(value, &expected, None, findings),
    }
}

impl Field for bool {
    fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        match value.get_ref() {
            DeValue::Boolean(value) => Some(*value),
            DeValue::String(text) if matches!(text.as_ref(), "true" | "false") => {
                let help = format!("leave out the quotes: {} = {text}", findings.key());
                wrong_type(value, "true or false", Some(help), findings)
            }
            // HAProxy's and nginx's words
            DeValue::String(text) => {
                let is_on = !matches!(text.as_ref(), "off" | "no" | "none");
                let help = matches!(text.as_ref(), "on" | "off" | "yes" | "no" | "none" | "required")
                    .then(|| format!("write {} = {is_on}", findings.key()));
                wrong_type(value, "true or false", help, findings)
            }
            _ => wrong_type(value, "true or false", None, findings),
        }
    }
}

impl<const MIN: u64, const MAX: u64> Field for Int<MIN, MAX> {
    fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        bounded(value, MIN, MAX, "an integer", findings).map(Self)
    }
}
inline_schema!([const MIN: u64, const MAX: u64] Int<MIN, MAX>, _g => json_schema!({ "type": "integer", "minimum": MIN, "maximum": MAX }));

impl<const ZERO: bool, const MAX: u64> Field for Time<ZERO, MAX> {
    fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        let time = match value.get_ref() {
            // A negative number ends below zero, one too large for 64 bits above every limit.
            DeValue::Integer(number) => match integer(number) {
                Some(seconds) if seconds < 0 => None,
                seconds => Some(Duration::from_secs(
                    seconds.and_then(|s| u64::try_from(s).ok()).unwrap_or(u64::MAX),
                )),
            },
            DeValue::String(text) => match duration::parse(text) {
                Some(time) => Some(time),
                None => {
                    return bad_value(
                        value,
                        format!("\"{text}\" is not a duration"),
                        duration_help(text),
                        findings,
                    );
                }
            },
            DeValue::Float(_) => {
                return wrong_type(value, "a duration", Some(duration::FORM.to_owned()), findings);
            }
            _ => return wrong_type(value, "a duration, such as \"3s\"", None, findings),
        };
        let max = Duration::from_millis(MAX);
        let key = findings.key();
        let message = match time {
            None => format!("`{key}` must not be negative"),
            Some(time) if time > max => format!("`{key}` must not be longer than {}", duration::print(max)),
            Some(Duration::ZERO) if !ZERO => format!("`{key}` must be longer than 0"),
            Some(time) => return Some(Self(time)),
        };
        findings.error(value.span(), message, None);
        None
    }
}

fn duration_help(text: &str) -> String {
    if text.parse::<u64>().is_ok() {
        return format!(
            "write a unit, such as \"{text}s\" or \"{text}ms\"; without quotes, {text} means seconds"
        );
    }
    let close = text.to_ascii_lowercase().replace(char::is_whitespace, "");
    match duration::parse(&close) {
        Some(_) => format!("write \"{close}\""),
        None => duration::FORM.to_owned(),
    }
}

inline_schema!([const ZERO: bool, const MAX: u64] Time<ZERO, MAX>, _g => json_schema!({
    "anyOf": [
        { "type": "string", "pattern": "^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$", "minLength": 2 },
        { "type": "integer", "minimum": u64::from(!ZERO), "maximum": MAX / 1000 },
    ]
}));

impl Field for Port {
    fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        if let DeValue::String(text) = value.get_ref() {
            return match text.parse::<u16>() {
                Ok(port @ 1..) if !text.starts_with('+') => Some(Self {
                    number: port,
                    quoted: true,
                }),
                _ => bad_value(
                    value,
                    format!("`{text}` is not a port"),
                    "write a number from 1 to 65535",
                    findings,
                ),
            };
        }
        let port = bounded(value, 1, 65_535, "a port", findings)?;
        u16::try_from(port).ok().map(|number| Self {
            number,
            quoted: false,
        })
    }
}
inline_schema!([] Port, _g => json_schema!({
    "anyOf": [{ "type": "integer", "minimum": 1, "maximum": 65535 }, { "type": "string", "pattern": "^[0-9]{1,5}$" }]
}));

impl Field for WorkerCount {
    fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        match value.get_ref() {
            DeValue::String(word) if word == "auto" => Some(Self(None)),
            DeValue::String(text) if text.parse::<u64>().is_err() => bad_value(
                value,
                format!("\"{text}\" is not a number of threads"),
                "write \"auto\" or a number from 1 to 1024",
                findings,
            ),
            _ => {
                let workers = bounded(value, 1, 1024, "\"auto\" or an integer", findings)?;
                u32::try_from(workers)
                    .ok()
                    .map(|workers| Self(NonZeroU32::new(workers)))
            }
        }
    }
}
inline_schema!([] WorkerCount, _g => json_schema!({ "anyOf": [{ "const": "auto" }, { "type": "integer", "minimum": 1, "maximum": 1024 }] }));

impl ListenAddrs {
    /// `None` if it could not be read.
    fn add(&mut self, value: &Node<'_>, findings: &mut Findings) -> Option<()> {
        let text = string(value, "an address in quotes, such as \"0.0.0.0:80\"", findings)?;
        match listen::parse(text) {
            Ok(ListenPlace::Network(range)) => self.0.push((range, value.span())),
            Ok(ListenPlace::Unix(path)) => self.1.push((path, value.span())),
            Err(found) => return bad_value(value, found.message, found.help, findings),
        }
        Some(())
    }
}

impl Field for ListenAddrs {
    fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        let DeValue::Array(list) = value.get_ref() else {
            let mut one = Self::default();
            return one.add(value, findings).map(|()| one);
        };
        let (mut addrs, mut count) = (Self::default(), 0);
        for item in list {
            count += 1;
            let _ = addrs.add(item, findings);
        }
        if count == 0 {
            let message = format!("`{}` is an empty list", findings.key());
            return bad_value(
                value,
                message,
                "write at least one address, such as \"0.0.0.0:80\"",
                findings,
            );
        }
        Some(addrs)
    }
}
inline_schema!([] ListenAddrs, _g => json_schema!({
    "anyOf": [
        { "type": "string", "pattern": "^unix:/.|:[0-9]{1,5}(-[0-9]{1,5})?$" },
        { "type": "array", "items": { "type": "string", "pattern": "^unix:/.|:[0-9]{1,5}(-[0-9]{1,5})?$" }, "minItems": 1 },
    ]
}));

impl Field for IpAddr {
    fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        let text = string(value, "an IP address in quotes", findings)?;
        address::parse_ip(text).map_or_else(
            |found| bad_value(value, found.message, found.help, findings),
            Some,
        )
    }
}

impl Field for BackendRef {
    fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        let text = string(value, "the name of a backend, in quotes", findings)?;
        Some(Self(text.to_owned()))
    }
}
inline_schema!([] BackendRef, _g => json_schema!({ "type": "string", "minLength": 1 }));

impl<S: Section + Clone + JsonSchema> Field for Named<S> {
    fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
        let DeValue::Table(table) = value.get_ref() else {
            let help = match first_text(value.get_ref()) {
                Some(addr) if S::NAME == "Server" => format!(
                    "give each a name: {}.one = {{ addr = {} }}",
                    findings.key(),
                    crate::config::quote::string(addr)
                ),
                _ => format!("write one section [{}.NAME] each", findings.path()),
            };
            return wrong_type(value, "a table of named sections", Some(help), findings);
        };
        let named = table
            .iter()
            .filter_map(|(name, value)| Some((name.get_ref().to_string(), read_key(name, value, findings)?)));
        Some(Self(named.collect()))
    }
}
inline_schema!([S: Section + Clone + JsonSchema] Named<S>, generator => {
    let of = generator.subschema_for::<S>();
    json_schema!({ "type": "object", "additionalProperties": of, "propertyNames": { "minLength": 1, "maxLength": crate::base::name::MAX_NAME_BYTES } })
});

/// The first string of a list, or a string itself.
fn first_text<'a>(value: &'a DeValue<'_>) -> Option<&'a str> {
    match value {
        DeValue::String(text) => Some(text),
        DeValue::Array(all) => all.first().and_then(|first| first_text(first.get_ref())),
        _ => None,
    }
}

/// Reads one of a closed set of words.
pub(super) fn word<T: Words>(value: &Node<'_>, findings: &mut Findings) -> Option<T> {
    let list = T::ALL
        .iter()
        .map(|(_, word)| format!("\"{word}\""))
        .collect::<Vec<_>>()
        .join(", ");
    let DeValue::String(text) = value.get_ref() else {
        return wrong_type(value, &format!("one of {list}"), None, findings);
    };
    if let Some((found, _)) = T::ALL.iter().find(|(_, word)| word == text) {
        return Some(*found);
    }
    let help = match nearest(text, T::ALL.iter().map(|(_, word)| *word)) {
        _ if findings.key() == "mode" && ["http", "https", "tcp", "tls"].contains(&text.as_ref()) => {
            "write mode = \"proxy\": it relays TCP, whatever the bytes are (HTTP is not interpreted)"
                .to_owned()
        }
        Some(near) => format!("did you mean \"{near}\"?"),
        None => match synonyms::algorithm(text).filter(|_| findings.key() == "balance") {
            Some(ours) => format!("write balance = \"{ours}\""),
            None => match synonyms::kind(text).filter(|_| findings.key() == "kind") {
                Some(line) => format!("write {line}"),
                None => format!("write one of {list}"),
            },
        },
    };
    let message = format!("`{}` cannot be \"{text}\"", findings.key());
    bad_value(value, message, help, findings)
}

/// Makes closed sets of words values of keys.
macro_rules! word_fields {
    ($($type:ty),+) => {
        $(
            impl Field for $type {
                fn read(_: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self> {
                    word(value, findings)
                }
            }
            inline_schema!([] $type, _g => {
                let words: Vec<&str> = <$type>::ALL.iter().map(|(_, word)| *word).collect();
                json_schema!({ "enum": words })
            });
        )+
    };
}
pub(super) use word_fields;
word_fields!(
    LogLevel,
    LogFormat,
    Mode,
    Protocol,
    EngineChoice,
    XdpMode,
    DsrMethod,
    Algorithm,
    OnDown,
    InitialState,
    SourceAddress
);
