//! What every value of a key has: a type, a place, and words for what is wrong with it.

use std::{borrow::Cow, ops::Range};

use schemars::JsonSchema;
use toml::{Spanned, de::DeValue};

use crate::config::findings::Findings;

pub(super) type Key<'a> = Spanned<Cow<'a, str>>;
pub(super) type Node<'a> = Spanned<DeValue<'a>>;

/// A type of values of keys.
pub trait Field: Sized + Clone + JsonSchema {
    /// Reads a value, or says what is wrong with it.
    fn read(key: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Self>;
}

/// A value with its place.
#[derive(Debug, Clone)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Where the value stands.
    pub span: Range<usize>,
    /// Where its key stands.
    pub key: Range<usize>,
}

/// Reads the value of one key.
pub fn read_key<T: Field>(key: &Key<'_>, value: &Node<'_>, findings: &mut Findings) -> Option<Located<T>> {
    // The parser puts an empty span on what it made up after a syntax error.
    if value.span().is_empty() && !findings.absence_counts() {
        return None;
    }
    findings.within(key.get_ref(), |findings| {
        let read = T::read(key, value, findings)?;
        Some(Located {
            value: read,
            span: value.span(),
            key: key.span(),
        })
    })
}

/// Says that a value has the wrong type.
pub fn wrong_type<T>(
    value: &Node<'_>,
    expected: &str,
    help: Option<String>,
    findings: &mut Findings,
) -> Option<T> {
    let found = match value.get_ref() {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a section",
    };
    let message = format!("`{}` must be {expected}, not {found}", findings.key());
    findings.error(value.span(), message, help);
    None
}

/// Says that a value cannot be used, and what would be right.
pub(super) fn bad_value<T>(
    value: &Node<'_>,
    message: String,
    help: impl Into<String>,
    findings: &mut Findings,
) -> Option<T> {
    findings.error(value.span(), message, help.into());
    None
}

/// Reads a string and hands it on.
pub(super) fn string<'a>(value: &'a Node<'_>, expected: &str, findings: &mut Findings) -> Option<&'a str> {
    match value.get_ref() {
        DeValue::String(text) => Some(text),
        _ => wrong_type(value, expected, None, findings),
    }
}

/// Gives a type an inline schema.
macro_rules! inline_schema {
    ([$($generics:tt)*] $type:ty, $generator:ident => $schema:expr) => {
        impl<$($generics)*> JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema($generator: &mut SchemaGenerator) -> Schema {
                $schema
            }
        }
    };
}

pub(super) use inline_schema;
