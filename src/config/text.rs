//! Bytes to a tree of TOML values that know where they stand.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::{MAX_CONFIG_BYTES, findings::Findings};

/// Text that may be TOML: UTF-8, not too long, not binary.
pub fn decode<'a>(bytes: &'a [u8], findings: &mut Findings) -> Option<&'a str> {
    if bytes.len() > MAX_CONFIG_BYTES {
        findings.error_in_file(
            format!(
                "the file has {} bytes; the most that is read is {MAX_CONFIG_BYTES}",
                bytes.len()
            ),
            "is this really a configuration of Convey?".to_owned(),
        );
        return None;
    }
    if let Some(offset) = bytes.iter().position(|byte| *byte == 0) {
        findings.syntax_error(
            offset..offset + 1,
            "a NUL byte: this is not a text file",
            "the configuration is TOML, text in UTF-8".to_owned(),
        );
        return None;
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let offset = error.valid_up_to();
            let byte = bytes.get(offset).copied().unwrap_or_default();
            findings.syntax_error(
                offset..offset + 1,
                format!("byte 0x{byte:02x} is not UTF-8 text"),
                "save the file in UTF-8".to_owned(),
            );
            return None;
        }
    };
    if text.trim_start_matches('\u{feff}').trim().is_empty() {
        let what = if bytes.is_empty() {
            "is empty"
        } else {
            "has nothing but white space in it"
        };
        findings.error_in_file(
            format!("the file {what}"),
            "an idle configuration has at least a section, such as [global]; was the file cut off when it was written?".to_owned(),
        );
        return None;
    }
    Some(text)
}

/// Parses TOML. After syntax errors the tree holds what could be understood.
pub fn parse<'a>(text: &'a str, findings: &mut Findings) -> DeTable<'a> {
    let (tree, errors) = DeTable::parse_recoverable(text);
    let tree = tree.into_inner();
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        match error.message() {
            "duplicate key" => duplicate(text, span, &tree, findings),
            message => findings.syntax_error(span, describe(message), help_for(message)),
        }
    }
    tree
}

/// A key given twice stops nothing else from being understood, so it does not count as broken syntax.
fn duplicate(text: &str, span: Range<usize>, tree: &DeTable<'_>, findings: &mut Findings) {
    let key = text.get(span.clone()).unwrap_or_default();
    let line_start = text
        .get(..span.start)
        .and_then(|before| before.rfind('\n'))
        .map_or(0, |end| end + 1);
    let header = text
        .get(line_start..)
        .and_then(|rest| rest.lines().next())
        .and_then(header_of);
    let (what, first) = match header {
        Some(header) => (
            format!("section `{header}`"),
            first_header(text, header, line_start),
        ),
        None => (
            format!("key `{key}`"),
            first_key(tree, key.trim_matches(['"', '\'']), span.start),
        ),
    };
    let help = match first {
        Some(offset) => {
            let line = super::place::Places::new(text.as_bytes())
                .line_and_column(offset)
                .0;
            format!("it stands in line {line} already: merge the two or remove one")
        }
        None => "each may be given once: merge the two or remove one".to_owned(),
    };
    findings.error(span, format!("{what} is given twice"), help);
}

/// The `[header]` that a line is, without a comment.
fn header_of(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let end = line.rfind(']')?;
    line.starts_with('[').then(|| line.get(..=end)).flatten()
}

fn first_header(text: &str, header: &str, before: usize) -> Option<usize> {
    let mut offset = 0;
    for line in text.get(..before)?.split_inclusive('\n') {
        if header_of(line) == Some(header) {
            return Some(offset);
        }
        offset += line.len();
    }
    None
}

/// The last key of this name before `offset`: keys of one table stand together, so it is the one that was repeated.
fn first_key(tree: &DeTable<'_>, key: &str, offset: usize) -> Option<usize> {
    let own = tree
        .iter()
        .filter(|(known, _)| known.get_ref() == key)
        .map(|(known, _)| known.span().start);
    let inner = tree.iter().filter_map(|(_, value)| match value.get_ref() {
        DeValue::Table(inner) => first_key(inner, key, offset),
        _ => None,
    });
    own.chain(inner).filter(|start| *start < offset).max()
}

fn describe(message: &str) -> String {
    let (what, expected) = message.split_once(", expected ").unwrap_or((message, "nothing"));
    let what = what
        .replace("table", "section header")
        .replace("inline section header", "inline table");
    if expected == "nothing" || expected.contains('`') {
        format!("not TOML: {what}")
    } else {
        format!("not TOML: {what} (expected {expected})")
    }
}

fn help_for(message: &str) -> Option<String> {
    let help = if message.starts_with("string values must be quoted") {
        "put the value in quotes: \"…\""
    } else if message.starts_with("key with no value") {
        "write `key = value`"
    } else if message.starts_with("missing value for key") || message.starts_with("missing value") {
        "write a value after `=`"
    } else if message.starts_with("unclosed array") {
        "close the list with `]`"
    } else if message.starts_with("unclosed table") {
        "close the section header with `]`"
    } else if message.starts_with("unclosed inline table") {
        "close the inline table with `}`"
    } else if message.starts_with("invalid basic string") {
        "close the string with `\"` on the same line; write a backslash as `\\\\`"
    } else if message.starts_with("missing comma") {
        "put a comma between the two"
    } else {
        return None;
    };
    Some(help.to_owned())
}
