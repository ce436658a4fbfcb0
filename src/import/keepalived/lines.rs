//! Lines as keepalived's blocks are made of: without comments, parameters replaced, included files in their places.

use std::collections::BTreeMap;

use crate::import::{At, Draft, Files, InputFile, Unreadable};

/// Most lines and bytes that parameters and included files may make of a configuration.
const MAX_LINES: usize = 200_000;
const MAX_BYTES: usize = 16 << 20;

/// Most directives that include files.
const MAX_INCLUDED: usize = 1_000;

/// Deepest nesting of included files, and of parameters within parameters.
const MAX_DEPTH: usize = 16;

/// A line that says something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The file that has it.
    pub file: usize,
    /// Its line there, from 1.
    pub number: usize,
    /// What it says, trimmed.
    pub text: String,
}

/// The lines of a file and of those that it includes.
#[derive(Debug)]
pub struct Lines {
    /// Names of the files.
    pub files: Vec<String>,
    /// Their lines.
    pub lines: Vec<Line>,
}

/// Reads a file and what it includes.
///
/// # Errors
/// Parameters or files make more of it than any configuration has.
pub fn read(file: &InputFile, draft: &mut Draft, files: &mut dyn Files) -> Result<Lines, Unreadable> {
    let mut reader = Reader {
        draft,
        files,
        parameters: BTreeMap::new(),
        bytes: 0,
        included: 0,
        read: Lines {
            files: Vec::new(),
            lines: Vec::new(),
        },
    };
    reader.file(file, 0)?;
    Ok(reader.read)
}

struct Reader<'a> {
    draft: &'a mut Draft,
    files: &'a mut dyn Files,
    parameters: BTreeMap<String, String>,
    bytes: usize,
    included: usize,
    read: Lines,
}

/// Where a line is.
#[derive(Clone, Copy)]
struct Place {
    file: usize,
    number: usize,
}

impl Reader<'_> {
    fn file(&mut self, file: &InputFile, depth: usize) -> Result<(), Unreadable> {
        let index = self.read.files.len();
        self.read.files.push(file.name.clone());
        let mut lines = (1..).zip(file.text.lines());
        while let Some((number, line)) = lines.next() {
            let place = Place { file: index, number };
            let mut text = without_comment(line).trim().to_owned();
            if let Some(pattern) = included(&text) {
                self.include(place, &text.clone(), pattern, depth)?;
                continue;
            }
            // a parameter of several lines: each but the last ends with a backslash
            if is_definition(&text) {
                while let Some(begun) = text.strip_suffix('\\') {
                    let begun = begun.trim_end().len();
                    text.truncate(begun);
                    let Some((_, next)) = lines.next() else { break };
                    text.push('\n');
                    text.push_str(without_comment(next).trim());
                }
            }
            self.line(place, &text, 0)?;
        }
        Ok(())
    }

    fn name(&self, place: Place) -> String {
        self.read.files.get(place.file).cloned().unwrap_or_default()
    }

    fn include(&mut self, place: Place, text: &str, pattern: &str, depth: usize) -> Result<(), Unreadable> {
        let name = self.name(place);
        let id = self.draft.directive(&name, place.number, text, At::Top);
        self.included += 1;
        if depth >= MAX_DEPTH || self.included > MAX_INCLUDED {
            return Err(Unreadable::new(
                &name,
                place.number,
                "files include each other too deeply, or too many of them",
            ));
        }
        match self.files.read(pattern) {
            Ok(files) => {
                self.draft.translated(id);
                files.iter().try_for_each(|file| self.file(file, depth + 1))
            }
            Err(why) => {
                let why = format!("was not read: {why}; import that file by itself");
                self.draft.no_equal(id, At::Top, &why);
                Ok(())
            }
        }
    }

    fn line(&mut self, place: Place, text: &str, depth: usize) -> Result<(), Unreadable> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(());
        }
        self.bytes += text.len() + 1;
        if depth > MAX_DEPTH || self.bytes > MAX_BYTES || self.read.lines.len() >= MAX_LINES {
            let message = "parameters make more of this than any configuration has";
            return Err(Unreadable::new(&self.name(place), place.number, message));
        }
        if let Some((name, value)) = definition(text) {
            self.parameters.insert(name.to_owned(), value.to_owned());
            return Ok(());
        }
        // what only some hosts have, and what is written out when it is read, is noted where it stands
        let is_plain = !text.starts_with(['@', '~']);
        match self.replaced(text).filter(|_| is_plain) {
            Some(replaced) => replaced
                .split('\n')
                .try_for_each(|line| self.line(place, line, depth + 1)),
            None => {
                let text = text.replace("${_HASH}", "#").replace("${_BANG}", "!");
                self.read.lines.push(Line {
                    file: place.file,
                    number: place.number,
                    text,
                });
                Ok(())
            }
        }
    }

    /// The line with its first parameters replaced, if it has any that is defined.
    fn replaced(&self, text: &str) -> Option<String> {
        let mut out = String::new();
        let mut rest = text;
        let mut is_replaced = false;
        while let Some(at) = rest.find('$') {
            let (before, here) = rest.split_at(at);
            out.push_str(before);
            let (name, length) = parameter(here);
            match self.parameters.get(name).filter(|_| !name.is_empty()) {
                // what a line may become is bounded where it is taken
                Some(value) if out.len() + value.len() <= MAX_BYTES => {
                    out.push_str(value);
                    is_replaced = true;
                    rest = &here[length..];
                }
                _ => {
                    out.push('$');
                    rest = &here[1..];
                }
            }
        }
        out.push_str(rest);
        is_replaced.then_some(out)
    }
}

/// A parameter that a text begins with, `${NAME}` or `$NAME` before white space, and its length; an empty name if it is none.
fn parameter(text: &str) -> (&str, usize) {
    if let Some(braced) = text.strip_prefix("${") {
        return match braced.split_once('}') {
            Some((name, _)) => (name, name.len() + 3),
            None => ("", 1),
        };
    }
    let name = &text[1..];
    let length = name.find(|c| !is_of_name(c)).unwrap_or(name.len());
    match name[length..].chars().next().is_none_or(char::is_whitespace) {
        true => (&name[..length], length + 1),
        false => ("", 1),
    }
}

const fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn is_definition(text: &str) -> bool {
    definition(text).is_some()
}

/// `$NAME=VALUE`.
fn definition(text: &str) -> Option<(&str, &str)> {
    let (name, value) = text.strip_prefix('$')?.split_once('=')?;
    let is_name =
        !name.is_empty() && name.chars().all(is_of_name) && !name.starts_with(|c: char| c.is_ascii_digit());
    is_name.then_some((name, value.trim()))
}

/// What `include` and its variants name.
fn included(text: &str) -> Option<&str> {
    let (word, pattern) = text.split_once(char::is_whitespace)?;
    let is_include = matches!(
        word,
        "include" | "includer" | "includem" | "includew" | "includeb" | "includea"
    );
    is_include.then(|| pattern.trim().trim_matches(['"', '\'']))
}

/// A line up to its comment, which begins with `#` or `!` outside quotes.
fn without_comment(line: &str) -> &str {
    let mut quote = None;
    let mut chars = line.char_indices();
    while let Some((at, c)) = chars.next() {
        match (quote, c) {
            (Some(_), '\\') => {
                chars.next();
            }
            (Some(open), _) if c == open => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, '#' | '!') => return &line[..at],
            _ => {}
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::NoFiles;

    fn texts(text: &str) -> Vec<String> {
        let file = InputFile::new("keepalived.conf", text.as_bytes());
        let read = read(&file, &mut Draft::default(), &mut NoFiles).expect("a configuration");
        read.lines.into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn comments_are_left_out_and_parameters_replaced_when_they_are_used() {
        let text = "! ours\n$NET=10.2.${SUB}\n$SUB=0\n  ip ${NET}.1 # here\n$SUB=10\nip ${NET}.1 $SUB \"a # b\" $GONE ${_HASH}1\n";
        assert_eq!(texts(text), ["ip 10.2.0.1", "ip 10.2.10.1 10 \"a # b\" $GONE #1"]);
    }

    #[test]
    fn parameters_have_several_lines_and_others_within() {
        let text = "$RS= \\\nreal_server 10.0.0.${N} 80 { \\\n  weight 1 \\\n}\n$N=1\n$RS\n$N=2\n$RS\n";
        let expected = ["real_server 10.0.0.1 80 {", "weight 1", "}"];
        assert_eq!(texts(text)[..3], expected);
        assert_eq!(texts(text)[3], "real_server 10.0.0.2 80 {");
    }

    #[test]
    fn parameters_cannot_make_more_than_any_configuration_has() {
        let mut text = String::from("$A0=x\n");
        for level in 0..40 {
            text.push_str(&format!(
                "$A{}=${{A{level}}}${{A{level}}}${{A{level}}}${{A{level}}}\n",
                level + 1
            ));
        }
        text.push_str("$LOOP=${LOOP}${LOOP}\n");
        for end in ["${A40}\n", "$LOOP\n"] {
            let file = InputFile::new("keepalived.conf", format!("{text}{end}").as_bytes());
            let error = read(&file, &mut Draft::default(), &mut NoFiles).expect_err("too much");
            assert!(error.message.contains("parameters make more"), "{error}");
        }
    }
}
