//! Collects findings while a file is read, then puts them in order, places them and bounds their number.

use std::{collections::HashSet, ops::Range};

use super::{Diagnostic, Severity, place::Places};

/// Most findings that are reported; a summary of the others follows them.
pub const MAX_FINDINGS: usize = 100;

/// Most findings that are kept while reading, before they are put in order.
const MAX_KEPT: usize = 10_000;

/// Longest message or help in bytes: they quote the file, where a value may have any length.
const MAX_MESSAGE: usize = 400;

/// Where the reader is, and what it has found so far.
#[derive(Debug, Default)]
pub struct Findings {
    items: Vec<Item>,
    dropped: usize,
    errors: usize,
    path: Vec<String>,
    syntax_broken: bool,
    /// Where the text stops making sense.
    readable: Option<usize>,
    /// Parts that were read as something else than they are.
    misread: Vec<Range<usize>>,
}

#[derive(Debug)]
struct Item {
    severity: Severity,
    syntax: bool,
    span: Option<Range<usize>>,
    /// The text that `span` clashes with: its line is added to the message.
    first: Option<Range<usize>>,
    path: String,
    message: String,
    help: Option<Help>,
}

/// What would be right.
enum Help {
    Text(String),
    /// Too dear to be found for what is not shown.
    Later(Box<dyn FnOnce() -> String>),
}

impl std::fmt::Debug for Help {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => text.fmt(f),
            Self::Later(_) => f.write_str("later"),
        }
    }
}

impl Help {
    fn text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Later(find) => cut(find()),
        }
    }
}

impl Findings {
    /// Runs `read` one key deeper in the path.
    pub fn within<T>(&mut self, key: &str, read: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(key.to_owned());
        let result = read(self);
        self.path.pop();
        result
    }

    /// As [`within`](Self::within), several keys down.
    pub fn within_all<T>(&mut self, keys: &[&str], read: impl FnOnce(&mut Self) -> T) -> T {
        let depth = self.path.len();
        self.path.extend(keys.iter().map(|key| (*key).to_owned()));
        let result = read(self);
        self.path.truncate(depth);
        result
    }

    /// The key that is being read; empty at the top.
    pub fn key(&self) -> &str {
        self.path.last().map_or("", String::as_str)
    }

    /// The dotted path of the key that is being read.
    pub fn path(&self) -> String {
        self.path
            .iter()
            .map(|key| super::quote::key(key))
            .collect::<Vec<_>>()
            .join(".")
    }

    /// Whether no error was found so far.
    pub const fn is_clean(&self) -> bool {
        self.errors == 0
    }

    /// An error about a piece of text.
    pub fn error(&mut self, span: Range<usize>, message: impl Into<String>, help: impl Into<Option<String>>) {
        self.push(self.item(Severity::Error, Some(span), message.into(), help.into()));
    }

    /// An error about a piece of text, whose help is found when it is shown, if it is.
    pub fn error_with(
        &mut self,
        span: Range<usize>,
        message: impl Into<String>,
        help: impl FnOnce() -> String + 'static,
    ) {
        let item = self.item(Severity::Error, Some(span), message.into(), None);
        self.push(Item {
            help: Some(Help::Later(Box::new(help))),
            ..item
        });
    }

    /// A warning about a piece of text.
    pub fn warn(&mut self, span: Range<usize>, message: impl Into<String>, help: impl Into<Option<String>>) {
        self.push(self.item(Severity::Warning, Some(span), message.into(), help.into()));
    }

    /// An error about two pieces of text that exclude each other; it stands at the second, `path`, and names the line
    /// of the first.
    pub fn clash(
        &mut self,
        path: &[&str],
        span: Range<usize>,
        first: Range<usize>,
        message: String,
        help: &str,
    ) {
        let outer = std::mem::replace(
            &mut self.path,
            path.iter()
                .filter(|key| !key.is_empty())
                .map(|key| (*key).to_owned())
                .collect(),
        );
        let item = self.item(Severity::Error, Some(span), message, Some(help.to_owned()));
        self.push(Item {
            first: Some(first),
            ..item
        });
        self.path = outer;
    }

    /// An error about the file as a whole.
    pub fn error_in_file(&mut self, message: impl Into<String>, help: impl Into<Option<String>>) {
        self.push(self.item(Severity::Error, None, message.into(), help.into()));
    }

    /// The text is not TOML. From then on [`Findings::absence_counts`] is false.
    pub fn syntax_error(
        &mut self,
        span: Range<usize>,
        message: impl Into<String>,
        help: impl Into<Option<String>>,
    ) {
        self.syntax_broken = true;
        let item = self.item(Severity::Error, Some(span), message.into(), help.into());
        self.push(Item { syntax: true, ..item });
    }

    /// What opens at `span` is never closed, so all from there on is misread: findings about it are left out.
    pub fn unreadable_from(&mut self, span: Range<usize>, message: String, help: String) {
        self.readable = Some(span.start);
        self.syntax_error(span, message, help);
    }

    /// A part was read as something else than it is: findings about it are left out.
    pub fn misread(&mut self, part: Range<usize>) {
        self.misread.push(part);
    }

    /// Counts findings that were not looked at.
    pub const fn skip(&mut self, count: usize) {
        self.dropped += count;
    }

    /// Whether what is missing is really missing: after a syntax error it may stand in the part that was not understood.
    pub const fn absence_counts(&self) -> bool {
        !self.syntax_broken
    }

    fn item(
        &self,
        severity: Severity,
        span: Option<Range<usize>>,
        message: String,
        help: Option<String>,
    ) -> Item {
        let path = self.path();
        let (message, help) = (cut(message), help.map(|help| Help::Text(cut(help))));
        Item {
            severity,
            syntax: false,
            span,
            first: None,
            path,
            message,
            help,
        }
    }

    fn push(&mut self, item: Item) {
        self.errors += usize::from(item.severity == Severity::Error);
        if self.items.len() < MAX_KEPT {
            self.items.push(item);
        } else {
            self.dropped += 1;
        }
    }

    /// Everything found, in the order of the file. What would only repeat a syntax error of the same line is left out.
    pub fn finish(self, file: &str, bytes: &[u8]) -> Vec<Diagnostic> {
        let places = Places::new(bytes);
        let mut dropped = self.dropped;
        let readable = self.readable.unwrap_or(usize::MAX);
        let parts = self.misread;
        let misread = |item: &Item| {
            let start = item.span.as_ref().map(|span| span.start);
            let is_misread = |start| start >= readable || parts.iter().any(|part| part.contains(&start));
            !item.syntax && start.is_some_and(is_misread)
        };
        let mut found: Vec<Placed> = self
            .items
            .into_iter()
            .filter(|item| !misread(item))
            .map(|item| place(item, file, &places))
            .collect();
        let broken: HashSet<usize> = found
            .iter()
            .filter(|found| found.syntax)
            .map(|found| found.diagnostic.line)
            .collect();
        found.retain(|found| found.syntax || !broken.contains(&found.diagnostic.line));
        // Errors first, so that the cut takes warnings; then back into the order of the file.
        found.sort_by_key(|Placed { diagnostic: d, .. }| {
            (d.severity == Severity::Warning, d.line, d.span.start)
        });
        if found.len() > MAX_FINDINGS {
            dropped += found.len() - MAX_FINDINGS;
            found.truncate(MAX_FINDINGS);
        }
        let mut found: Vec<Diagnostic> = found.into_iter().map(|found| found.shown(&places)).collect();
        found.sort_by_key(|d| (d.line, d.column, d.severity == Severity::Warning));
        // What [defaults] got wrong is found again under each backend.
        found.dedup_by(|b, a| (b.line, b.column, &b.message) == (a.line, a.column, &a.message));
        if dropped > 0 {
            let severity = if found.iter().any(|d| d.severity == Severity::Error) {
                Severity::Error
            } else {
                Severity::Warning
            };
            found.push(Diagnostic {
                severity,
                file: file.to_owned(),
                line: 0,
                column: 0,
                span: 0..0,
                path: String::new(),
                message: format!("and {dropped} more findings"),
                help: None,
            });
        }
        found
    }
}

fn cut(mut text: String) -> String {
    if text.len() > MAX_MESSAGE {
        let end = (0..=MAX_MESSAGE).rev().find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or(0));
        text.push('…');
    }
    text
}

/// A finding with its line, and without its column and its help, which only what is shown needs.
struct Placed {
    syntax: bool,
    diagnostic: Diagnostic,
    help: Option<Help>,
}

impl Placed {
    fn shown(self, places: &Places<'_>) -> Diagnostic {
        let has_place = self.diagnostic.line > 0;
        Diagnostic {
            column: if has_place {
                places.line_and_column(self.diagnostic.span.start).1
            } else {
                0
            },
            help: self.help.map(Help::text),
            ..self.diagnostic
        }
    }
}

fn place(item: Item, file: &str, places: &Places<'_>) -> Placed {
    let span = item.span.map(|span| places.clamp(span));
    let line = span.as_ref().map_or(0, |span| places.line_of(span.start));
    let other = item
        .first
        .map(|first| format!(" (the other is on line {})", places.line_of(first.start)));
    let diagnostic = Diagnostic {
        severity: item.severity,
        file: file.to_owned(),
        line,
        column: 0,
        span: span.unwrap_or(0..0),
        path: item.path,
        message: item.message + other.as_deref().unwrap_or_default(),
        help: None,
    };
    Placed {
        syntax: item.syntax,
        diagnostic,
        help: item.help,
    }
}
