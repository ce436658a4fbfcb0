//! Changing single settings of a text, all else of which stays as it is: comments, order and layout.

use toml_edit::{Array, DocumentMut, InlineTable, Item, Table, TableLike, Value};

/// Why a text cannot be changed so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// The text is no TOML.
    #[error("the configuration is not valid TOML: {0}")]
    Text(String),
    /// The change is no object.
    #[error(
        "a change is an object of sections, such as {{\"backends\": {{\"web\": {{\"balance\": \"random\"}}}}}}"
    )]
    NotAnObject,
    /// It has something that a setting cannot be.
    #[error("{path}: {why}")]
    Value {
        /// Which setting, as a JSON pointer.
        path: String,
        /// Why not.
        why: &'static str,
    },
}

/// Changes a text by a JSON merge patch (RFC 7396): what an object names is set, what it names `null` is removed, and all else
/// stays.
///
/// # Errors
/// The text cannot be read, or the patch has what no setting can be.
pub fn merge(text: &str, patch: &serde_json::Value) -> Result<String, MergeError> {
    // the editor knows neither: both come back
    let (mark, bare) = match text.strip_prefix('\u{feff}') {
        Some(bare) => ("\u{feff}", bare),
        None => ("", text),
    };
    let is_dos = bare.contains("\r\n");
    let mut document: DocumentMut = bare
        .parse()
        .map_err(|error: toml_edit::TomlError| MergeError::Text(error.message().to_owned()))?;
    let serde_json::Value::Object(changes) = patch else {
        return Err(MergeError::NotAnObject);
    };
    apply(document.as_table_mut(), changes, "")?;
    let merged = document.to_string();
    Ok(match is_dos {
        true => format!("{mark}{}", merged.replace('\n', "\r\n")),
        false => format!("{mark}{merged}"),
    })
}

fn apply(
    table: &mut dyn TableLike,
    changes: &serde_json::Map<String, serde_json::Value>,
    path: &str,
) -> Result<(), MergeError> {
    for (key, change) in changes {
        let path = format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"));
        match change {
            serde_json::Value::Null => {
                table.remove(key);
            }
            serde_json::Value::Object(changes) => {
                let is_table = table.get(key).is_some_and(Item::is_table_like);
                if !is_table {
                    table.insert(key, new_table(table.get(key)));
                }
                if let Some(inner) = table.get_mut(key).and_then(Item::as_table_like_mut) {
                    apply(inner, changes, &path)?;
                }
            }
            other => set(table, key, value(other, &path)?),
        }
    }
    Ok(())
}

/// A section of its own, unless it takes the place of a value, which may stand in a line with others.
fn new_table(before: Option<&Item>) -> Item {
    match before {
        Some(_) => Item::Value(Value::InlineTable(InlineTable::new())),
        None => {
            let mut table = Table::new();
            // one that has but sections in it needs no line of its own
            table.set_implicit(true);
            Item::Table(table)
        }
    }
}

/// Sets a value; what stands before and after the old one stays, its comment too.
fn set(table: &mut dyn TableLike, key: &str, mut value: Value) {
    match table.get_mut(key).and_then(Item::as_value_mut) {
        Some(old) => {
            *value.decor_mut() = old.decor().clone();
            *old = value;
        }
        None => {
            table.insert(key, Item::Value(value));
        }
    }
}

fn value(json: &serde_json::Value, path: &str) -> Result<Value, MergeError> {
    let wrong = |why| MergeError::Value {
        path: path.to_owned(),
        why,
    };
    Ok(match json {
        serde_json::Value::Bool(bool) => (*bool).into(),
        serde_json::Value::String(text) => text.as_str().into(),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => whole.into(),
            (None, Some(float)) if !number.is_u64() => float.into(),
            _ => return Err(wrong("the number is too large")),
        },
        serde_json::Value::Array(items) => {
            let mut array = Array::new();
            for item in items {
                array.push(value(item, path)?);
            }
            array.into()
        }
        serde_json::Value::Object(fields) => {
            let mut table = InlineTable::new();
            for (key, field) in fields {
                table.insert(key, value(field, path)?);
            }
            table.into()
        }
        serde_json::Value::Null => return Err(wrong("null has no place in a list")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const TEXT: &str = "# the shop\n[backends.web] # two of them\nbalance = \"random\"   # for now\n\n\
                        servers.a = { addr = \"10.0.0.1:80\", weight = 2 } # old\nservers.b = { addr = \"10.0.0.2:80\" }\n";

    #[test]
    fn what_is_named_is_set_or_removed_and_comments_order_and_layout_stay() {
        let patch = json!({ "backends": { "web": {
            "balance": "first",
            "servers": { "a": { "weight": 5 }, "b": null, "c": { "addr": "10.0.0.3:80" } },
        } }, "global": { "log_level": "debug" } });
        let merged = merge(TEXT, &patch).unwrap();
        assert!(
            merged.starts_with("# the shop\n[backends.web] # two of them\nbalance = \"first\"   # for now\n\nservers.a = { addr = \"10.0.0.1:80\", weight = 5 } # old\n"),
            "{merged}"
        );
        assert!(
            !merged.contains("10.0.0.2") && merged.contains("10.0.0.3"),
            "{merged}"
        );
        let read: toml::Value = toml::from_str(&merged).unwrap();
        assert_eq!(
            read["backends"]["web"]["servers"]["c"]["addr"].as_str(),
            Some("10.0.0.3:80")
        );
        assert_eq!(read["global"]["log_level"].as_str(), Some("debug"));
    }

    #[test]
    fn a_change_of_nothing_is_the_same_text_byte_for_byte() {
        for text in [TEXT, "", "a = 1\r\nb = [ 1,2 ,3 ]\r\n", "\u{feff}# bom\n"] {
            assert_eq!(merge(text, &json!({})).as_deref(), Ok(text));
        }
    }

    #[test]
    fn what_no_setting_can_be_is_refused_with_its_place() {
        assert_eq!(merge(TEXT, &json!([1])), Err(MergeError::NotAnObject));
        let why = merge(TEXT, &json!({ "a/b": { "c": [null] } }))
            .unwrap_err()
            .to_string();
        assert_eq!(why, "/a~1b/c: null has no place in a list");
        assert!(merge(TEXT, &json!({ "a": u64::MAX })).is_err());
        assert!(matches!(merge("x = ", &json!({})), Err(MergeError::Text(_))));
    }

    #[test]
    fn a_value_becomes_a_section_and_a_section_a_value() {
        let merged = merge("a = 1 # one\n[b]\nc = 2\n", &json!({ "a": { "x": 1 }, "b": 3 })).unwrap();
        let read: toml::Value = toml::from_str(&merged).unwrap_or_else(|e| panic!("{e} in {merged}"));
        assert_eq!(read["a"]["x"].as_integer(), Some(1));
        assert_eq!(read["b"].as_integer(), Some(3));
    }
}
