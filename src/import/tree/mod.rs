//! Documents of keys and values, with the line of each: what TOML, JSON and YAML have in common.

mod toml_text;
mod yaml;
mod yaml_scalar;

/// Deepest nesting that is read.
const MAX_DEPTH: usize = 48;

/// A value of a document.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Its line, from 1; of a collection, the line on which it begins.
    pub line: usize,
    /// What it is.
    pub value: Value,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `null`, or nothing at all.
    Null,
    /// True or false.
    Bool(bool),
    /// A number, as it is written.
    Number(String),
    /// A string.
    Text(String),
    /// Values in a row.
    List(Vec<Node>),
    /// Values by their keys.
    Table(Table),
}

/// Keys and values, in the order of the document.
pub type Table = Vec<(Key, Node)>;

/// A key of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Its line, from 1.
    pub line: usize,
    /// The key.
    pub name: String,
}

/// Why a text is no document, and at which line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotADocument {
    /// Line, from 1.
    pub line: usize,
    /// What is wrong.
    pub message: String,
}

/// Reads TOML, or JSON, which begins with a brace.
///
/// # Errors
/// It is neither, or nested deeper than 48 levels.
pub fn toml_or_json(text: &str) -> Result<Node, NotADocument> {
    match text.trim_start().starts_with('{') {
        true => yaml::parse(text),
        false => toml_text::parse(text),
    }
}

/// Reads JSON or YAML: of YAML one document of mappings, sequences and scalars, without anchors, tags and block scalars.
///
/// # Errors
/// It is neither, has one of those, or is nested deeper than 48 levels.
pub fn json_or_yaml(text: &str) -> Result<Node, NotADocument> {
    yaml::parse(text)
}

impl Node {
    /// As a table.
    #[must_use]
    pub fn table(&self) -> Option<&Table> {
        match &self.value {
            Value::Table(table) => Some(table),
            _ => None,
        }
    }

    /// A scalar as text; nothing of collections and `null`.
    #[must_use]
    pub fn scalar(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) | Value::Number(text) => Some(text),
            Value::Bool(true) => Some("true"),
            Value::Bool(false) => Some("false"),
            Value::Null | Value::List(_) | Value::Table(_) => None,
        }
    }

    /// In one line, for a quotation.
    #[must_use]
    pub fn quoted(&self) -> String {
        match &self.value {
            Value::Null => "null".to_owned(),
            Value::Text(text) => format!("\"{text}\""),
            Value::List(items) => {
                let items: Vec<_> = items.iter().map(Self::quoted).collect();
                format!("[{}]", items.join(", "))
            }
            Value::Table(table) if table.is_empty() => "{}".to_owned(),
            Value::Table(_) => "{…}".to_owned(),
            Value::Bool(_) | Value::Number(_) => self.scalar().unwrap_or_default().to_owned(),
        }
    }
}
