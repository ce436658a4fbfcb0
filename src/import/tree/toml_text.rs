//! TOML as a document.

use toml::de::{DeTable, DeValue};

use super::{Key, MAX_DEPTH, Node, NotADocument, Table, Value};

/// Reads TOML.
pub fn parse(text: &str) -> Result<Node, NotADocument> {
    let lines = Lines::new(text);
    let table = DeTable::parse(text).map_err(|error| NotADocument {
        line: error.span().map_or(1, |span| lines.at(span.start)),
        message: format!("this is not valid TOML: {}", error.message()),
    })?;
    Ok(Node {
        line: 1,
        value: Value::Table(lines.table(table.get_ref(), 0)?),
    })
}

/// Where lines begin.
struct Lines(Vec<usize>);

impl Lines {
    fn new(text: &str) -> Self {
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        Self(std::iter::once(0).chain(breaks.map(|(at, _)| at + 1)).collect())
    }

    fn at(&self, offset: usize) -> usize {
        self.0.partition_point(|begin| *begin <= offset).max(1)
    }

    fn table(&self, table: &DeTable<'_>, depth: usize) -> Result<Table, NotADocument> {
        let mut entries = Vec::new();
        for (key, value) in table {
            let line = self.at(key.span().start);
            if depth >= MAX_DEPTH {
                return Err(NotADocument {
                    line,
                    message: format!("nested deeper than {MAX_DEPTH} levels"),
                });
            }
            let name = key.get_ref().clone().into_owned();
            entries.push((Key { line, name }, self.node(value, depth + 1)?));
        }
        // the parser has them in another order
        entries.sort_by_key(|(key, _)| key.line);
        Ok(entries)
    }

    fn node(&self, value: &toml::Spanned<DeValue<'_>>, depth: usize) -> Result<Node, NotADocument> {
        let line = self.at(value.span().start);
        let value = match value.get_ref() {
            DeValue::String(text) => Value::Text(text.clone().into_owned()),
            DeValue::Integer(number) => Value::Number(number.to_string()),
            DeValue::Float(number) => Value::Number(number.to_string()),
            DeValue::Boolean(value) => Value::Bool(*value),
            DeValue::Datetime(time) => Value::Text(time.to_string()),
            DeValue::Array(items) => {
                let items = items.iter().map(|item| self.node(item, depth + 1));
                Value::List(items.collect::<Result<_, _>>()?)
            }
            DeValue::Table(table) => Value::Table(self.table(table, depth)?),
        };
        Ok(Node { line, value })
    }
}
