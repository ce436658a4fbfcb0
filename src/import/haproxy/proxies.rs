//! Frontends, backends and what is both, with the lines that they inherit.

use std::collections::BTreeMap;

use super::file::{Keyword, Line, Section};
use crate::import::{At, Draft, Unreadable};

/// Most lines that all sections together inherit.
const MAX_INHERITED: usize = 1_000_000;

/// A frontend, a backend, or both.
#[derive(Debug)]
pub struct Proxy {
    /// Its name.
    pub name: String,
    /// Its first line.
    pub header: Line,
    /// Whether clients connect to it.
    pub is_frontend: bool,
    /// Whether it has servers.
    pub is_backend: bool,
    /// What it says and inherits, without what is overridden, in the order in which it counts.
    pub lines: Vec<Line>,
}

impl Proxy {
    /// The last line with a name.
    pub fn last(&self, name: &str) -> Option<&Line> {
        self.lines.iter().rev().find(|line| line.name() == name)
    }

    /// The last line with a name and a word behind it, such as `timeout client`.
    pub fn last_of(&self, name: &str, word: &str) -> Option<&Line> {
        let mut lines = self.lines.iter().rev();
        lines.find(|line| line.name() == name && line.word(1) == word)
    }

    /// Whether an option is set and not taken back.
    pub fn option(&self, name: &str) -> Option<&Line> {
        self.last_of("option", name).filter(|line| !line.is_negated)
    }

    /// Whether it is about HTTP. Without `mode` it is about TCP.
    pub fn is_http(&self) -> bool {
        self.last("mode").is_some_and(|line| line.word(1) == "http")
    }
}

/// What a later line replaces an earlier one by; `None` for those that add up.
fn key(line: &Line) -> Option<(&str, &str)> {
    match line.name() {
        "option" | "timeout" => Some((line.name(), line.word(1))),
        "mode"
        | "balance"
        | "maxconn"
        | "retries"
        | "backlog"
        | "fullconn"
        | "default_backend"
        | "hash-type"
        | "hash-balance-factor"
        | "source"
        | "cookie"
        | "rate-limit"
        | "log-tag"
        | "log-format" => Some((line.name(), "")),
        _ => None,
    }
}

/// The proxies of a file, with what they inherit.
///
/// # Errors
/// They inherit more than any real file has.
pub fn of(
    sections: Vec<Section>,
    file: &str,
    draft: &mut Draft,
) -> Result<(Vec<Proxy>, Vec<Section>), Unreadable> {
    let mut inherited = 0;
    let mut proxies = Vec::new();
    let mut others = Vec::new();
    // defaults by their names, and the last ones, which count for what names none
    let mut named: BTreeMap<String, usize> = BTreeMap::new();
    let mut defaults: Vec<(Vec<Line>, bool)> = Vec::new();
    for section in sections {
        let base = match &section.from {
            Some(name) => named.get(name).copied(),
            None if section.keyword == Keyword::Defaults => None,
            None => defaults.len().checked_sub(1),
        };
        let (is_frontend, is_backend) = match section.keyword {
            Keyword::Frontend => (true, false),
            Keyword::Backend => (false, true),
            Keyword::Listen => (true, true),
            Keyword::Defaults => (false, false),
            Keyword::Global | Keyword::Other => {
                others.push(section);
                continue;
            }
        };
        match section.from.as_ref().filter(|_| base.is_none()) {
            Some(_) => draft.no_equal(
                section.header.id,
                At::Top,
                "there are no defaults of this name above it",
            ),
            None => draft.translated(section.header.id),
        }
        inherited += base
            .and_then(|at| defaults.get(at))
            .map_or(0, |(lines, _)| lines.len());
        if inherited > MAX_INHERITED {
            let message = format!(
                "the sections inherit more than {MAX_INHERITED} lines of defaults, which no real file has"
            );
            return Err(Unreadable::new(file, 1, message));
        }
        let mut lines = base
            .and_then(|at| defaults.get(at))
            .map(|(lines, _)| lines.clone())
            .unwrap_or_default();
        if let Some((_, is_used)) = base.and_then(|at| defaults.get_mut(at)) {
            *is_used = true;
        }
        let is_defaults = section.keyword == Keyword::Defaults;
        lines.extend(Line::bind(&section.header).filter(|_| is_frontend));
        lines.extend(section.lines.into_iter().map(|line| Line {
            is_inherited: is_defaults,
            ..line
        }));
        if is_defaults {
            named.insert(section.name, defaults.len());
            defaults.push((lines, false));
            continue;
        }
        proxies.push(Proxy {
            name: section.name,
            header: section.header,
            is_frontend,
            is_backend,
            lines: without_overridden(lines, draft),
        });
    }
    for (lines, _) in defaults.iter().filter(|(_, is_used)| !is_used) {
        for line in lines {
            draft.translated(line.id);
        }
    }
    Ok((proxies, others))
}

fn without_overridden(lines: Vec<Line>, draft: &mut Draft) -> Vec<Line> {
    let mut last: BTreeMap<(String, String), usize> = BTreeMap::new();
    let owned = |(name, word): (&str, &str)| (name.to_owned(), word.to_owned());
    for (index, line) in lines.iter().enumerate() {
        if let Some(key) = key(line) {
            last.insert(owned(key), index);
        }
    }
    let mut kept = Vec::new();
    for (index, line) in lines.into_iter().enumerate() {
        match key(&line).map(|key| last.get(&owned(key)) == Some(&index)) {
            Some(false) => draft.translated(line.id),
            Some(true) | None => kept.push(line),
        }
    }
    kept
}
