//! The sections of the configuration in the making.

use super::value::Value;

/// A line of a section's body, or above it.
#[derive(Debug)]
pub enum Line {
    Comment(String),
    Entry { key: Vec<String>, value: Value },
}

#[derive(Debug)]
pub struct Section {
    pub path: Vec<String>,
    /// `[[…]]`: one of several with this path.
    pub is_item: bool,
    pub above: Vec<String>,
    pub body: Vec<Line>,
}
