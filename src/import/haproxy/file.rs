//! The sections of a file and their lines.

use super::words;
use crate::import::{At, DirectiveId, Draft, InputFile, Unreadable, print};

/// What a section is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keyword {
    /// The process as a whole.
    Global,
    /// Settings of the proxies behind it.
    Defaults,
    /// Where clients connect.
    Frontend,
    /// Servers.
    Backend,
    /// Both in one.
    Listen,
    /// Anything else: none of it has to do with TCP.
    Other,
}

/// A line with its words, the first of which is the directive's name.
#[derive(Debug, Clone)]
pub struct Line {
    /// As it was registered.
    pub id: DirectiveId,
    /// At least one, without a `no` before them.
    pub words: Vec<String>,
    /// `no …`: it takes something back.
    pub is_negated: bool,
    /// It comes from a section of defaults.
    pub is_inherited: bool,
}

/// Longest quotation of a word in an error, in characters.
const MAX_QUOTED: usize = 60;

impl Line {
    /// The address behind the name of a section, as old versions have it, as a line `bind`.
    pub fn bind(header: &Self) -> Option<Self> {
        let mut words = vec!["bind".to_owned()];
        let behind = header.from(2).iter().take_while(|word| *word != "from");
        words.extend(behind.cloned());
        let is_one = words.len() > 1 && header.word(1) != "from";
        is_one.then(|| Self {
            words,
            ..header.clone()
        })
    }

    fn new(id: DirectiveId, mut words: Vec<String>) -> Self {
        let is_negated = words.len() > 1 && words[0] == "no";
        if is_negated {
            words.remove(0);
        }
        // as old versions have them
        let since = match words.first().map(String::as_str) {
            Some("clitimeout") => Some(["timeout", "client"]),
            Some("srvtimeout") => Some(["timeout", "server"]),
            Some("contimeout") => Some(["timeout", "connect"]),
            Some("redispatch") => Some(["option", "redispatch"]),
            _ => None,
        };
        if let Some(since) = since {
            words.splice(..1, since.map(str::to_owned));
        }
        Self {
            id,
            words,
            is_negated,
            is_inherited: false,
        }
    }

    /// The directive's name.
    pub fn name(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    /// A word behind the name, from 1; empty if there are fewer.
    pub fn word(&self, index: usize) -> &str {
        self.words.get(index).map_or("", String::as_str)
    }

    /// The words from an index on.
    pub fn from(&self, index: usize) -> &[String] {
        self.words.get(index..).unwrap_or_default()
    }
}

/// A section with its lines.
#[derive(Debug)]
pub struct Section {
    /// What it is.
    pub keyword: Keyword,
    /// Its first line.
    pub header: Line,
    /// Its name; empty if it has none.
    pub name: String,
    /// The named defaults that it takes.
    pub from: Option<String>,
    /// What it says.
    pub lines: Vec<Line>,
}

const OTHERS: [&str; 14] = [
    "acme",
    "cache",
    "crt-store",
    "fcgi-app",
    "http-errors",
    "log-forward",
    "log-profile",
    "mailers",
    "peers",
    "program",
    "resolvers",
    "ring",
    "traces",
    "userlist",
];

fn keyword(word: &str) -> Option<Keyword> {
    match word {
        "global" => Some(Keyword::Global),
        "defaults" => Some(Keyword::Defaults),
        "frontend" => Some(Keyword::Frontend),
        "backend" => Some(Keyword::Backend),
        "listen" => Some(Keyword::Listen),
        other => OTHERS.contains(&other).then_some(Keyword::Other),
    }
}

/// Reads the sections and registers each of their lines.
///
/// # Errors
/// A line is before the first section, or cannot be read.
pub fn read(file: &InputFile, draft: &mut Draft) -> Result<Vec<Section>, Unreadable> {
    let mut sections: Vec<Section> = Vec::new();
    let mut variables = words::Variables::default();
    for (index, text) in file.text.lines().enumerate() {
        let number = index + 1;
        let words = words::split(text, &mut variables)
            .map_err(|error| Unreadable::new(&file.name, number, error.to_string()))?;
        let Some(first) = words.first() else { continue };
        if draft.one_too_many().is_some() {
            break;
        }
        if first.starts_with('.') {
            let id = draft.directive(&file.name, number, text, At::Top);
            draft.no_equal(
                id,
                At::Top,
                "there are no conditions here: what stands between is translated as if they held, so remove what is not to \
                 be",
            );
            continue;
        }
        let keyword = keyword(first);
        if keyword.is_none() && sections.is_empty() {
            let message = format!(
                "`{}` is before the first section: a configuration of HAProxy begins with `global`, `defaults`, `frontend`, \
                 `backend` or `listen`",
                print::shortened(first, MAX_QUOTED)
            );
            return Err(Unreadable::new(&file.name, number, message));
        }
        let id = draft.directive(&file.name, number, text, At::Top);
        let line = Line::new(id, words);
        match keyword {
            Some(keyword) => sections.push(section(keyword, line)),
            None => {
                if variables.take(&line.words) {
                    draft.translated(id);
                }
                if let Some(section) = sections.last_mut() {
                    section.lines.push(line);
                }
            }
        }
    }
    if sections.is_empty() {
        let message = "there is no section: a configuration of HAProxy has `frontend`, `backend` or `listen`";
        return Err(Unreadable::new(&file.name, 1, message));
    }
    Ok(sections)
}

fn section(keyword: Keyword, header: Line) -> Section {
    let name = match header.word(1) {
        "from" => "",
        name => name,
    };
    let from = header.words.iter().position(|word| word == "from");
    let from = from.and_then(|at| header.words.get(at + 1)).cloned();
    Section {
        keyword,
        name: name.to_owned(),
        from,
        header,
        lines: Vec::new(),
    }
}
