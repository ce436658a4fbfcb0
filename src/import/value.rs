//! Values of the configuration that is written.

use std::time::Duration;

use crate::config::{print_duration, toml_key, toml_string};

/// A value of TOML.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A string.
    Text(String),
    /// A number.
    Integer(i64),
    /// True or false.
    Bool(bool),
    /// An array.
    List(Vec<Self>),
    /// An inline table. Keys are names, not dotted paths.
    Table(Vec<(String, Self)>),
}

impl Value {
    /// A length of time with its unit.
    #[must_use]
    pub fn duration(duration: Duration) -> Self {
        Self::Text(print_duration(duration))
    }

    /// The only text, or a list of them.
    #[must_use]
    pub fn one_or_more(texts: Vec<String>) -> Self {
        match <[String; 1]>::try_from(texts) {
            Ok([one]) => Self::Text(one),
            Err(texts) => texts.into(),
        }
    }

    /// An inline table.
    #[must_use]
    pub fn table<K: Into<String>, V: Into<Self>>(entries: impl IntoIterator<Item = (K, V)>) -> Self {
        let entries = entries.into_iter();
        Self::Table(entries.map(|(key, value)| (key.into(), value.into())).collect())
    }

    /// As TOML has it.
    pub(super) fn print(&self, out: &mut String) {
        match self {
            Self::Text(text) => out.push_str(&toml_string(text)),
            Self::Integer(number) => out.push_str(&number.to_string()),
            Self::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Self::List(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        out.push_str(", ");
                    }
                    item.print(out);
                }
                out.push(']');
            }
            Self::Table(entries) => {
                out.push_str("{ ");
                for (index, (key, value)) in entries.iter().enumerate() {
                    if index > 0 {
                        out.push_str(", ");
                    }
                    out.push_str(&toml_key(key));
                    out.push_str(" = ");
                    value.print(out);
                }
                out.push_str(" }");
            }
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<u64> for Value {
    /// More than TOML's integers can say becomes the most that they can.
    fn from(number: u64) -> Self {
        Self::Integer(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Integer(number.into())
    }
}

impl From<u16> for Value {
    fn from(number: u16) -> Self {
        Self::Integer(number.into())
    }
}

impl<T: Into<Self>> From<Vec<T>> for Value {
    fn from(items: Vec<T>) -> Self {
        Self::List(items.into_iter().map(Into::into).collect())
    }
}
