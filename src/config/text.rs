//! Bytes to a tree of TOML values that know where they stand.

use std::{borrow::Cow, collections::HashMap, ops::Range};

use toml::de::{DeTable, DeValue};

use super::{MAX_CONFIG_BYTES, findings::Findings, foreign, place::Places};

/// Text that may be TOML: UTF-8, not too long, not binary.
pub fn decode<'a>(bytes: &'a [u8], findings: &mut Findings) -> Option<&'a str> {
    if bytes.len() > MAX_CONFIG_BYTES {
        findings.error_in_file(
            format!(
                "the file is {} bytes; the limit is {MAX_CONFIG_BYTES}",
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

/// Whether a text is another program's configuration, which is one finding.
pub fn is_foreign(text: &str, findings: &mut Findings) -> bool {
    let Some((foreign, place)) = foreign::recognise(text).filter(|_| DeTable::parse(text).is_err()) else {
        return false;
    };
    findings.syntax_error(place, foreign.message(), foreign.help().to_owned());
    true
}

/// Most times that a text is parsed again without the lines that stopped the parser.
const MAX_ROUNDS: usize = 8;

/// Most syntax errors that are looked at; junk of the largest size has millions.
const MAX_SYNTAX_ERRORS: usize = 1_000;

/// Longest text in bytes of which more than the first syntax error is looked for: the parser keeps every error, and
/// junk has about one for each byte or two.
const MAX_RECOVERED: usize = 256 << 10;

/// Parses TOML. After syntax errors the tree holds what could be understood.
///
/// `mended` is room for a copy of the text without the lines that no parser can get past.
pub fn parse<'a>(text: &'a str, mended: &'a mut Cow<'a, str>, findings: &mut Findings) -> DeTable<'a> {
    let error = match DeTable::parse(text) {
        Ok(tree) => return tree.into_inner(),
        Err(error) => error,
    };
    if text.len() <= MAX_RECOVERED {
        *mended = mend(text, findings);
        return recover(mended, findings);
    }
    let span = error.span().unwrap_or_default();
    match error.message() {
        "duplicate key" => duplicate(text, span, &Sections::new(text), &DeTable::new(), findings),
        message => syntax_error(text, span, message, findings),
    }
    findings.error_in_file(
        "the file is too long to look for more errors",
        "correct this one and check again".to_owned(),
    );
    DeTable::new()
}

/// Reports lines that are neither `key = value` nor anything else, at which the parser gives up, and blanks them, so
/// that what stands after them is looked at too. Offsets stay as they are.
fn mend<'a>(text: &'a str, findings: &mut Findings) -> Cow<'a, str> {
    let mut mended = Cow::Borrowed(text);
    for _ in 0..MAX_ROUNDS {
        let (_, errors) = DeTable::parse_recoverable(&mended);
        if errors.len() > MAX_SYNTAX_ERRORS {
            break;
        }
        let mut stopped = false;
        for error in errors
            .iter()
            .filter(|error| error.message().starts_with("key with no value"))
        {
            let span = error.span().unwrap_or_default();
            let (start, line) = line_of(text, span.start);
            let whole = start..start + line.len();
            let seen = mended.get(whole.clone()).is_none_or(|now| now.trim().is_empty());
            if seen || line.trim_start().starts_with('[') {
                continue;
            }
            syntax_error(text, span, error.message(), findings);
            if line.trim_end().ends_with(']') && !line.contains('=') {
                // a header that is not opened: what stands below it was taken for another section's
                let below = text.get(whole.end..).unwrap_or_default();
                let length = below.find("\n[").unwrap_or(below.len());
                findings.misread(start..whole.end + length);
            }
            mended.to_mut().replace_range(whole, &" ".repeat(line.len()));
            stopped = true;
        }
        if !stopped {
            break;
        }
    }
    mended
}

/// Parses as much as can be understood and reports every syntax error.
fn recover<'a>(text: &'a str, findings: &mut Findings) -> DeTable<'a> {
    let (tree, errors) = DeTable::parse_recoverable(text);
    let tree = tree.into_inner();
    let mut errors: Vec<(Range<usize>, &str)> = errors
        .iter()
        .map(|error| (error.span().unwrap_or_default(), error.message()))
        .collect();
    errors.sort_by_key(|(span, _)| span.start);
    if errors.len() > MAX_SYNTAX_ERRORS {
        findings.skip(errors.len() - MAX_SYNTAX_ERRORS);
        errors.truncate(MAX_SYNTAX_ERRORS);
    }

    let end = text.trim_end().len();
    let unclosed = |span: &Range<usize>, message: &str| {
        message.starts_with("unclosed array,")
            || message.starts_with("unclosed inline table")
            || (message.starts_with("invalid multi-line") && span.start >= end)
    };
    if errors.iter().any(|(span, message)| unclosed(span, message))
        && let Some(open) = last_open(&tree)
        && let Some((opening, closing)) = brackets_at(text, open)
    {
        errors.retain(|(span, _)| span.start < open);
        let message = format!("not valid TOML: this `{opening}` is never closed");
        findings.unreadable_from(
            open..open + opening.len(),
            message,
            format!("close it with `{closing}`"),
        );
    }

    let sections = Sections::new(text);
    let mut repeated_section = None;
    let mut last_line = None;
    for (span, message) in errors {
        let (start, line) = line_of(text, span.start);
        if message == "duplicate key" {
            let section = sections.around(start);
            if header_of(line).is_some() {
                repeated_section = section;
            } else if section.is_some() && section == repeated_section {
                continue;
            }
            duplicate(text, span, &sections, &tree, findings);
        } else if last_line.replace(start) != Some(start) {
            if line.trim_start().starts_with('[') {
                // what stands below it was taken for another section's
                findings.misread(start..sections.after(start).unwrap_or(text.len()));
            }
            syntax_error(text, span, message, findings);
        }
    }
    tree
}

/// Offset and text of the line that an offset lies in.
fn line_of(text: &str, offset: usize) -> (usize, &str) {
    let start = text
        .get(..offset)
        .and_then(|before| before.rfind('\n'))
        .map_or(0, |end| end + 1);
    (
        start,
        text.get(start..)
            .and_then(|rest| rest.lines().next())
            .unwrap_or_default(),
    )
}

/// The `[header]` that a line is, without a comment.
fn header_of(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let end = line.rfind(']')?;
    line.starts_with('[').then(|| line.get(..=end)).flatten()
}

/// Where the section headers of a text stand.
struct Sections<'a> {
    /// Offset and header of every one, in order.
    all: Vec<(usize, &'a str)>,
    /// The first of each.
    first: HashMap<&'a str, usize>,
    places: Places<'a>,
}

impl<'a> Sections<'a> {
    fn new(text: &'a str) -> Self {
        let mut offset = 0;
        let (mut all, mut first) = (Vec::new(), HashMap::new());
        for line in text.split_inclusive('\n') {
            if let Some(header) = header_of(line) {
                all.push((offset, header));
                first.entry(header).or_insert(offset);
            }
            offset += line.len();
        }
        Self {
            all,
            first,
            places: Places::new(text.as_bytes()),
        }
    }

    /// Offset of the first header after an offset.
    fn after(&self, offset: usize) -> Option<usize> {
        let index = self.all.partition_point(|(start, _)| *start <= offset);
        self.all.get(index).map(|(start, _)| *start)
    }

    /// Offset of the last header at or before an offset.
    fn around(&self, offset: usize) -> Option<usize> {
        let index = self
            .all
            .partition_point(|(start, _)| *start <= offset)
            .checked_sub(1)?;
        self.all.get(index).map(|(start, _)| *start)
    }
}

/// A key defined twice stops nothing else from being understood, so it does not count as broken syntax.
fn duplicate(
    text: &str,
    span: Range<usize>,
    sections: &Sections<'_>,
    tree: &DeTable<'_>,
    findings: &mut Findings,
) {
    let key = text.get(span.clone()).unwrap_or_default();
    let (start, line) = line_of(text, span.start);
    let (what, first) = match header_of(line) {
        Some(header) => (
            format!("section `{header}`"),
            sections.first.get(header).copied().filter(|first| *first < start),
        ),
        None => (
            format!("key `{key}`"),
            first_key(tree, key.trim_matches(['"', '\'']), span.start),
        ),
    };
    let help = match first {
        Some(offset) => {
            let line = sections.places.line_and_column(offset).0;
            format!("first defined on line {line}: merge the two or remove one")
        }
        None => "each may be defined once: merge the two or remove one".to_owned(),
    };
    findings.error(span, format!("{what} is defined twice"), help);
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

/// The opening bracket or quote at an offset, and what closes it.
fn brackets_at(text: &str, offset: usize) -> Option<(&'static str, &'static str)> {
    let pairs = [("[", "]"), ("{", "}"), ("\"\"\"", "\"\"\""), ("'''", "'''")];
    pairs
        .into_iter()
        .find(|(opening, _)| text.get(offset..).is_some_and(|rest| rest.starts_with(opening)))
}

/// Where the bracket or quote stands that is still open at the end of the text: it opens the value of the last key.
fn last_open(tree: &DeTable<'_>) -> Option<usize> {
    let (_, value) = tree
        .iter()
        .max_by_key(|(key, value)| key.span().end.max(last_key(value)))?;
    match value.get_ref() {
        // The keys of a [section] or of a dotted key stand after its own span, those of an inline table in it.
        DeValue::Table(inner) if inner.keys().any(|key| !value.span().contains(&key.span().start)) => {
            last_open(inner)
        }
        DeValue::Array(_) | DeValue::Table(_) | DeValue::String(_) => Some(value.span().start),
        _ => None,
    }
}

fn last_key(value: &toml::Spanned<DeValue<'_>>) -> usize {
    match value.get_ref() {
        DeValue::Table(inner) => inner
            .iter()
            .map(|(key, value)| key.span().end.max(last_key(value)))
            .max()
            .unwrap_or(0),
        _ => 0,
    }
}

/// Reports a syntax error in our words, with what would be right.
fn syntax_error(text: &str, span: Range<usize>, message: &str, findings: &mut Findings) {
    let what = message
        .split_once(", expected ")
        .map_or(message, |(what, _)| what);
    let (start, line) = line_of(text, span.start);
    let value = unquoted(line).filter(|_| what.starts_with("invalid") || what.starts_with("unexpected"));
    let (span, message, help) = match value {
        Some(value) => {
            let offset = start + line.find(value).unwrap_or(0);
            let help = format!("put a string in quotes: {}", super::quote::string(value));
            (
                offset..offset + value.len(),
                format!("`{value}` is not a value"),
                Some(help),
            )
        }
        None => {
            let (message, help) = describe(what, line, text.get(span.clone()).unwrap_or_default());
            (span, message, help)
        }
    };
    findings.syntax_error(span, format!("not valid TOML: {message}"), help);
}

fn describe(what: &str, line: &str, marked: &str) -> (String, Option<String>) {
    let text = |what: &str, help: &str| (what.to_owned(), Some(help.to_owned()));
    let key = line
        .trim_start()
        .trim_start_matches(|c: char| c.is_ascii_alphanumeric() || "_-.\"".contains(c));
    match what {
        "key with no value" | "invalid unquoted key" if line.trim_start().starts_with([';', '/']) => {
            text("not a comment", "a comment starts with `#`")
        }
        "key with no value" | "invalid unquoted key" if key.trim_start().starts_with(':') => text(
            "a key followed by `:`",
            "write `key = value`; a section starts with `[name]`",
        ),
        "key with no value" if line.trim_end().ends_with(']') && !line.contains('[') => {
            text("a section header that is not opened", "open it with `[`")
        }
        "invalid unquoted key" if marked == ":" => text("a key followed by `:`", "write `key = value`"),
        "unexpected key or value" => text(
            "more text after the end",
            "end the line here; a comment starts with `#`",
        ),
        "missing opening quote" => text("a quote that closes nothing", "open the string with a quote too"),
        "extra `=`" => text("more than one `=`", "write `key = value`"),
        "extra comma in array" | "extra comma in inline table" => text("an extra comma", "leave it out"),
        "key with no value" | "missing value for key" => text("a key without a value", "write `key = value`"),
        "invalid unquoted key" => text(
            &format!("`{marked}` in a key without quotes"),
            "a key is made of letters, digits, `_` and `-`; put any other in quotes",
        ),
        "string values must be quoted" if marked.trim().is_empty() => {
            text("missing value", "write a value after `=`")
        }
        "string values must be quoted" => text(
            "a string without quotes",
            &format!("put it in quotes: {}", super::quote::string(marked.trim())),
        ),
        "invalid basic string" if marked.contains(char::is_control) => text(
            "a control character in a string",
            "write it as an escape, such as \\u0007, or leave it out",
        ),
        "invalid basic string" => text(
            "a string that is not closed",
            "close it with `\"` on the same line",
        ),
        "missing escaped value" => text(
            "a backslash that escapes nothing",
            "write it as `\\\\`, or use '…' instead of \"…\"",
        ),
        "unclosed table" | "unclosed array table" => text(
            "a section header that is not closed",
            "close it with `]`; a name in it that has spaces or dots goes in quotes",
        ),
        "missing comma between array elements" | "missing comma between key-value pairs" => {
            text("a comma is missing here", "put a comma between the two")
        }
        "missing assignment between key-value pairs" => {
            text("a key without a value", "write { key = value, … }")
        }
        "cannot recurse further; max recursion depth met" => text(
            "brackets nested too deeply",
            "no key needs more than two levels of them",
        ),
        _ => (what.to_owned(), None),
    }
}

/// The value of a `key = value` line, if it is one bare word.
fn unquoted(line: &str) -> Option<&str> {
    let value = line.split_once('=')?.1;
    let value = value.split_once('#').map_or(value, |(value, _)| value).trim();
    let bare = !value.is_empty() && !value.contains(|c: char| c.is_whitespace() || "\"'[]{},=".contains(c));
    bare.then_some(value)
}
