//! The configuration in the making: sections, keys, comments, and what became of each directive of the input.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
};

use super::{
    note::{Counts, Note, NoteKind},
    print,
    sections::{Line, Section},
    value::Value,
};
use crate::base::MAX_NAME_BYTES;

/// Most directives of an input: far above any real one, and few enough to keep what is said of each.
pub const MAX_DIRECTIVES: usize = 200_000;

/// Most comments about one directive; the last says that there would be more.
const MAX_NOTES: usize = 50;

/// Longest quotation of a directive, in characters.
const MAX_QUOTED: usize = 100;

/// A directive of the input, as it was registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirectiveId(usize);

/// A section of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SectionId(usize);

/// Where a comment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// At the top of the file: it is about no section.
    Top,
    /// Above the header of a section.
    Above(SectionId),
    /// In a section, between what was set before and what will be set after.
    In(SectionId),
}

#[derive(Debug)]
struct Directive {
    file: String,
    line: usize,
    text: String,
    home: At,
    is_accounted_for: bool,
    worst: Option<NoteKind>,
    notes: usize,
}

/// A configuration in the making.
#[derive(Debug, Default)]
pub struct Draft {
    directives: Vec<Directive>,
    notes: Vec<Note>,
    noted: BTreeSet<(DirectiveId, String, String)>,
    top: Vec<String>,
    sections: Vec<Section>,
    /// `[…]` sections by their paths.
    known: BTreeMap<Vec<String>, SectionId>,
    /// Names that are taken, by what they are names of.
    names: BTreeMap<(String, String), usize>,
    /// Where the first directive is that is one too many.
    one_too_many: Option<(String, usize)>,
}

impl Draft {
    /// Registers a directive of the input. What nothing accounts for afterwards is noted as without an equal, at the `home`.
    ///
    /// Beyond [`MAX_DIRECTIVES`] the last one is meant, and the translation ends as unreadable.
    pub fn directive(&mut self, file: &str, line: usize, text: &str, home: At) -> DirectiveId {
        if self.directives.len() >= MAX_DIRECTIVES {
            self.one_too_many.get_or_insert_with(|| (file.to_owned(), line));
            return DirectiveId(self.directives.len() - 1);
        }
        self.directives.push(Directive {
            file: file.to_owned(),
            line,
            text: text.to_owned(),
            home,
            is_accounted_for: false,
            worst: None,
            notes: 0,
        });
        DirectiveId(self.directives.len() - 1)
    }

    /// As [`directive`](Self::directive) if it is one to account for; else the last one is meant, which covers it.
    pub(super) fn directive_if(
        &mut self,
        is_one: bool,
        file: &str,
        line: usize,
        text: &str,
        home: At,
    ) -> DirectiveId {
        match self.directives.len().checked_sub(1) {
            Some(last) if !is_one => DirectiveId(last),
            _ => self.directive(file, line, text, home),
        }
    }

    /// Where the note of a directive stands that nothing accounts for.
    pub fn home(&mut self, directive: DirectiveId, home: At) {
        self.directives[directive.0].home = home;
    }

    /// The directive means the same here: what says so was set, or Convey does it anyway, or needs it not.
    pub fn translated(&mut self, directive: DirectiveId) {
        self.directives[directive.0].is_accounted_for = true;
    }

    /// The directive as it was registered.
    #[must_use]
    pub fn text_of(&self, directive: DirectiveId) -> &str {
        &self.directives[directive.0].text
    }

    /// Whether something has accounted for the directive.
    #[must_use]
    pub fn is_accounted_for(&self, directive: DirectiveId) -> bool {
        self.directives[directive.0].is_accounted_for
    }

    /// The directive was translated, but means something else here: what, and what to look at.
    pub fn differs(&mut self, directive: DirectiveId, at: At, text: &str) {
        let quoted = self.directives[directive.0].text.clone();
        self.note(directive, at, &quoted, NoteKind::Differs, text);
    }

    /// Convey has nothing for the directive: why, and what to do instead.
    pub fn no_equal(&mut self, directive: DirectiveId, at: At, text: &str) {
        let quoted = self.directives[directive.0].text.clone();
        self.note(directive, at, &quoted, NoteKind::NoEqual, text);
    }

    /// As [`differs`](Self::differs) and [`no_equal`](Self::no_equal), of a part of the directive. The directive counts as
    /// accounted for. The same note about the same part is made once.
    pub fn note(&mut self, directive: DirectiveId, at: At, part: &str, kind: NoteKind, text: &str) {
        let quoted = print::shortened(part, MAX_QUOTED);
        if self.directives[directive.0].notes > MAX_NOTES {
            return;
        }
        if !self.noted.insert((directive, quoted.clone(), text.to_owned())) {
            return;
        }
        let entry = &mut self.directives[directive.0];
        entry.is_accounted_for = true;
        if entry.worst != Some(NoteKind::NoEqual) {
            entry.worst = Some(kind);
        }
        entry.notes += 1;
        let (quoted, text) = match entry.notes.cmp(&MAX_NOTES) {
            Ordering::Less => (quoted, text),
            Ordering::Equal => (
                "…".to_owned(),
                "there is more to say about this line than is said here",
            ),
            Ordering::Greater => return,
        };
        let note = Note {
            file: entry.file.clone(),
            line: entry.line,
            quoted,
            kind,
            text: text.to_owned(),
        };
        self.comment(at, &note.to_string());
        self.notes.push(note);
    }

    /// A comment about no directive.
    pub fn comment(&mut self, at: At, text: &str) {
        match at {
            At::Top => self.top.push(text.to_owned()),
            At::Above(section) => self.sections[section.0].above.push(text.to_owned()),
            At::In(section) => self.sections[section.0].body.push(Line::Comment(text.to_owned())),
        }
    }

    /// The section `[…]` with a path, such as `["frontends", "web", "tls"]`: made when it is first asked for. One below a
    /// frontend or backend that stays without a key is not printed; its comments are.
    pub fn section(&mut self, path: &[&str]) -> SectionId {
        let path: Vec<String> = path.iter().map(|part| (*part).to_owned()).collect();
        if let Some(known) = self.known.get(&path) {
            return *known;
        }
        let id = self.push(path.clone(), false);
        self.known.insert(path, id);
        id
    }

    /// One more section `[[…]]` with a path, such as `["frontends", "web", "routes"]`.
    pub fn item(&mut self, path: &[&str]) -> SectionId {
        self.push(path.iter().map(|part| (*part).to_owned()).collect(), true)
    }

    fn push(&mut self, path: Vec<String>, is_item: bool) -> SectionId {
        self.sections.push(Section {
            path,
            is_item,
            above: Vec::new(),
            body: Vec::new(),
        });
        SectionId(self.sections.len() - 1)
    }

    /// The path of a section.
    #[must_use]
    pub fn path(&self, section: SectionId) -> Vec<String> {
        self.sections[section.0].path.clone()
    }

    /// Sets a key, dotted for something below it, such as `["servers", "web1"]`. The last value counts.
    pub fn set(&mut self, section: SectionId, key: &[&str], value: impl Into<Value>) {
        let key: Vec<String> = key.iter().map(|part| (*part).to_owned()).collect();
        let value = value.into();
        let body = &mut self.sections[section.0].body;
        // servers are many, and their names are told apart already
        let old = (key.len() == 1).then(|| {
            body.iter_mut().find_map(|line| match line {
                Line::Entry { key: known, value } if *known == key => Some(value),
                Line::Entry { .. } | Line::Comment(_) => None,
            })
        });
        match old.flatten() {
            Some(old) => *old = value,
            None => body.push(Line::Entry { key, value }),
        }
    }

    /// The value that a key has.
    #[must_use]
    pub fn get(&self, section: SectionId, key: &[&str]) -> Option<&Value> {
        self.sections[section.0].body.iter().find_map(|line| match line {
            Line::Entry { key: known, value } if known == key => Some(value),
            Line::Entry { .. } | Line::Comment(_) => None,
        })
    }

    /// A name for a frontend: the one wanted, or as close to it as names may be, and one that none has yet.
    pub fn frontend_name(&mut self, wanted: &str) -> String {
        self.name("frontends", wanted)
    }

    /// As [`frontend_name`](Self::frontend_name), for a backend.
    pub fn backend_name(&mut self, wanted: &str) -> String {
        self.name("backends", wanted)
    }

    /// As [`frontend_name`](Self::frontend_name), for a server of the backend with this name.
    pub fn server_name(&mut self, backend: &str, wanted: &str) -> String {
        self.name(&format!("servers of {backend}"), wanted)
    }

    /// As [`frontend_name`](Self::frontend_name), for a list of networks.
    pub fn network_list_name(&mut self, wanted: &str) -> String {
        self.name("network lists", wanted)
    }

    fn name(&mut self, of: &str, wanted: &str) -> String {
        let fit = fit_name(wanted);
        let mut name = fit.clone();
        // what follows a taken name is remembered, so that a thousand of the same one stay quick
        while let Some(taken) = self.names.get_mut(&(of.to_owned(), name.clone())) {
            *taken += 1;
            let number = *taken;
            name = format!("{fit}-{number}");
            if self.names.contains_key(&(of.to_owned(), name.clone())) {
                name = fit.clone();
            }
        }
        self.names.insert((of.to_owned(), name.clone()), 1);
        name
    }

    /// Where the first directive is that is one too many.
    pub(super) fn one_too_many(&self) -> Option<(&str, usize)> {
        (self.one_too_many.as_ref()).map(|(file, line)| (file.as_str(), *line))
    }

    /// The text, its notes in the order of the input, and how much was translated. `title` is what the other program is
    /// called, `file` the input.
    pub(super) fn finish(mut self, title: &str, file: &str) -> (String, Vec<Note>, Counts) {
        for index in 0..self.directives.len() {
            if !self.directives[index].is_accounted_for {
                let home = self.directives[index].home;
                self.no_equal(DirectiveId(index), home, "");
            }
        }
        let counts = self.counts();
        let text = print::print(title, file, counts, &self.top, &self.sections);
        // by file in the order in which the files were read
        let mut order: BTreeMap<&str, usize> = BTreeMap::new();
        for directive in &self.directives {
            let next = order.len();
            order.entry(&directive.file).or_insert(next);
        }
        let mut notes = self.notes;
        notes.sort_by_key(|note| (order.get(note.file.as_str()).copied(), note.line));
        (text, notes, counts)
    }

    fn counts(&self) -> Counts {
        let with = |worst| {
            self.directives
                .iter()
                .filter(|directive| directive.worst == worst)
                .count()
        };
        Counts {
            directives: self.directives.len(),
            translated: with(None),
            differing: with(Some(NoteKind::Differs)),
            without_equal: with(Some(NoteKind::NoEqual)),
        }
    }
}

/// The name that is closest to a text: without control characters, not empty, short enough for a number behind it.
fn fit_name(wanted: &str) -> String {
    let mut name: String = wanted
        .chars()
        .map(|c| if c.is_control() { '_' } else { c })
        .collect();
    let mut end = name.len().min(MAX_NAME_BYTES - 20);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name.truncate(end);
    if name.is_empty() {
        "unnamed".to_owned()
    } else {
        name
    }
}
