//! The text of a translated configuration.

use std::{collections::BTreeMap, fmt::Write};

use super::{
    note::Counts,
    sections::{Line, Section},
};
use crate::config::toml_key;

/// Longest line of a comment, in characters.
const WIDTH: usize = 118;

/// Sections by their first key, in the order of `convey.toml`.
const ORDER: [&str; 11] = [
    "global",
    "admin",
    "stats",
    "defaults",
    "packet",
    "network_lists",
    "hooks",
    "acme",
    "frontends",
    "backends",
    "",
];

/// The text.
pub fn print(title: &str, file: &str, counts: Counts, top: &[String], sections: &[Section]) -> String {
    let Counts {
        directives,
        translated,
        differing,
        without_equal,
    } = counts;
    let mut out = String::new();
    comment(
        &mut out,
        &format!("Translated from {file}, a configuration of {title}, by convey import."),
    );
    comment(
        &mut out,
        &format!(
            "{directives} directives: {translated} translated, {differing} translated with a difference, {without_equal} \
             without an equal. Each of the latter has a comment that begins with its place."
        ),
    );
    comment(
        &mut out,
        "Look through them, and run `convey check` on this file, before you use it.",
    );
    if !top.is_empty() {
        out.push('\n');
    }
    for text in top {
        comment(&mut out, text);
    }
    for section in in_order(sections) {
        out.push('\n');
        print_section(&mut out, section);
    }
    out
}

/// Sections of one frontend or backend together, where its first one was made.
fn in_order(sections: &[Section]) -> Vec<&Section> {
    let mut first: BTreeMap<&[String], usize> = BTreeMap::new();
    for (index, section) in sections.iter().enumerate() {
        first.entry(owner(section)).or_insert(index);
    }
    let rank = |section: &Section| {
        let root = section.path.first().map_or("", String::as_str);
        ORDER.iter().position(|known| *known == root)
    };
    let mut sorted: Vec<&Section> = sections.iter().filter(|section| !is_idle(section)).collect();
    // what stands directly in a section comes before what is below it
    sorted.sort_by_key(|section| {
        (
            rank(section),
            first.get(owner(section)).copied(),
            section.path.len() > 2,
        )
    });
    sorted
}

fn owner(section: &Section) -> &[String] {
    section.path.get(..2).unwrap_or(&section.path)
}

fn is_idle(section: &Section) -> bool {
    section.path.len() != 2 && section.body.is_empty() && section.above.is_empty()
}

fn print_section(out: &mut String, section: &Section) {
    for text in &section.above {
        comment(out, text);
    }
    let has_entries = section.body.iter().any(|line| matches!(line, Line::Entry { .. }));
    let is_named = section.path.len() == 2 && ["frontends", "backends"].contains(&section.path[0].as_str());
    if has_entries || is_named {
        let path = dotted(&section.path);
        let _infallible = match section.is_item {
            true => writeln!(out, "[[{path}]]"),
            false => writeln!(out, "[{path}]"),
        };
    }
    for line in &section.body {
        match line {
            Line::Comment(text) => comment(out, text),
            Line::Entry { key, value } => {
                out.push_str(&dotted(key));
                out.push_str(" = ");
                value.print(out);
                out.push('\n');
            }
        }
    }
}

fn dotted(path: &[String]) -> String {
    let path: Vec<String> = path.iter().map(|part| toml_key(part)).collect();
    path.join(".")
}

/// A comment, wrapped between words.
fn comment(out: &mut String, text: &str) {
    let mut line = String::from("#");
    let mut width = 1;
    for word in text.split([' ', '\n']).filter(|word| !word.is_empty()) {
        let length = word.chars().count();
        if width + 1 + length > WIDTH && width > 1 {
            out.push_str(&line);
            out.push('\n');
            line = String::from("#  ");
            width = 3;
        }
        line.push(' ');
        // TOML takes no control characters in comments
        line.extend(word.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }));
        width += 1 + length;
    }
    out.push_str(&line);
    out.push('\n');
}

/// A text in one line of at most so many characters.
pub fn shortened(text: &str, max: usize) -> String {
    let mut line = String::new();
    let mut count = 0;
    for word in text.split_whitespace() {
        for c in (count > 0).then_some(' ').into_iter().chain(word.chars()) {
            if count == max {
                line.push('…');
                return line;
            }
            line.push(if c.is_control() { '\u{fffd}' } else { c });
            count += 1;
        }
    }
    line
}
